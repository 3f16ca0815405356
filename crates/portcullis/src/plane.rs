//! Which data plane, and what only a loaded one can be asked.
//!
//! Place on the line: view -> **the plane**. The one file here that names a plane's crate.

use crate::failure::Failure;
use agent::Instance;
use clap::{Args, ValueEnum};
use dataplane::DataPlane;
use model::{Direction, FlowKey, FlowState, PortId, Verdict};
use std::time::Duration;

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct PlaneArgs {
    /// The data plane that enforces
    #[arg(long, value_enum, default_value = "ebpf")]
    plane: PlaneName,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum PlaneName {
    /// Our own programs on the devices (tcx, or clsact before Linux 6.6)
    Ebpf,
}

impl PlaneArgs {
    pub(crate) fn name(self) -> &'static str {
        match self.plane {
            PlaneName::Ebpf => "ebpf",
        }
    }
}

/// A data plane that is loaded, and can be looked into.
pub(crate) trait LivePlane: DataPlane {
    fn flows(&mut self, port: &PortId) -> Result<Vec<LiveFlow>, Failure>;

    /// What it would answer about this frame; nothing is written or counted.
    fn dry_run(
        &mut self,
        port: &PortId,
        direction: Direction,
        frame: &[u8],
    ) -> Result<Verdict, Failure>;
}

#[derive(Clone, Debug)]
pub(crate) struct LiveFlow {
    pub(crate) key: FlowKey,
    pub(crate) original: Direction,
    pub(crate) state: FlowState,
    pub(crate) replied: bool,
    pub(crate) fin: [bool; 2],
    pub(crate) idle: Duration,
}

/// To enforce: loads it, or takes over what is there.
pub(crate) fn open(
    args: &PlaneArgs,
    instance: &Instance,
    max_ports: u32,
) -> Result<Box<dyn DataPlane>, Failure> {
    let _ = (args, instance, max_ports);
    Err(Failure::System("no plane".into()))
}

/// To look at what is there; changes nothing.
pub(crate) fn look(args: &PlaneArgs, instance: &Instance) -> Result<Box<dyn LivePlane>, Failure> {
    let _ = (args, instance);
    Err(Failure::System("no plane".into()))
}

/// Removes all enforcement of this instance; `false`: there was none.
pub(crate) fn remove(args: &PlaneArgs, instance: &Instance) -> Result<bool, Failure> {
    let _ = (args, instance);
    Err(Failure::System("no plane".into()))
}

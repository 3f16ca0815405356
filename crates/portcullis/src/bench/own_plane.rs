//! A data plane for the time of a measurement: gone with the value, however that ends.

use crate::plane::{PlaneArgs, PlaneName};
use agent::{Instance, Link};
use anyhow::{Context, bail};
use dataplane::{ApplyReport, DataPlane, Target};
use dataplane_ebpf::{EbpfConfig, EbpfPlane};
use dataplane_iptables::{Backend, IptablesConfig, IptablesPlane};
use dataplane_ovs::{OvsConfig, OvsPlane};
use policy::HostView;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Made, used and dropped in the namespace whose devices it judges.
pub(super) enum OwnPlane {
    Ebpf(Box<EbpfPlane>),
    /// With the directory where it keeps what its next process would have to know, as it does in service.
    Iptables(Box<IptablesPlane>, PathBuf),
    Ovs(Box<OvsPlane>),
}

impl OwnPlane {
    pub(super) fn open(args: PlaneArgs, name: &str, direct: bool) -> anyhow::Result<Self> {
        match args.plane {
            PlaneName::Ebpf => Self::ebpf(name, direct),
            PlaneName::Iptables => Self::iptables(name, args.backend()),
            PlaneName::Ovs => bail!("a plane for Open vSwitch takes a switch"),
        }
    }

    /// Room for the biggest policy that is measured.
    pub(super) fn ebpf(name: &str, direct: bool) -> anyhow::Result<Self> {
        let config = EbpfConfig {
            max_flows: 1 << 20,
            max_policy: 1 << 18,
            max_members: 1 << 18,
            max_rules: 1 << 18,
            direct,
            ..EbpfConfig::small(own_name(name))
        };
        Ok(Self::Ebpf(Box::new(EbpfPlane::open(config)?)))
    }

    /// Of the switch whose sockets are there.
    pub(super) fn ovs(run_dir: &Path) -> anyhow::Result<Self> {
        Ok(Self::Ovs(Box::new(open_ovs(run_dir)?)))
    }

    fn iptables(name: &str, backend: Option<Backend>) -> anyhow::Result<Self> {
        let directory = Path::new(Instance::RUN_ROOT).with_file_name(own_name(name));
        let config = IptablesConfig {
            instance: "bench".to_owned(),
            directory: Some(directory.clone()),
            backend,
        };
        let plane = IptablesPlane::open(config)?;
        Ok(Self::Iptables(Box::new(plane), directory))
    }

    /// What was written is all of what was asked for, and at the first attempt.
    pub(super) fn enforce(&mut self, target: &Target) -> anyhow::Result<ApplyReport> {
        let report = self.plane().apply(target)?;
        if let Some((port, why)) = report.refused.first_key_value() {
            bail!("port {port} is not enforced: {why}");
        }
        if let Some(remark) = report.remarks.first() {
            bail!("{remark}");
        }
        Ok(report)
    }

    pub(super) fn plane(&mut self) -> &mut dyn DataPlane {
        match self {
            Self::Ebpf(plane) => &mut **plane,
            Self::Iptables(plane, _) => &mut **plane,
            Self::Ovs(plane) => &mut **plane,
        }
    }

    pub(super) fn as_ebpf(&mut self) -> anyhow::Result<&mut EbpfPlane> {
        match self {
            Self::Ebpf(plane) => Ok(plane),
            Self::Iptables(..) | Self::Ovs(_) => bail!("this is asked of the eBPF plane alone"),
        }
    }

    pub(super) fn as_iptables(&mut self) -> anyhow::Result<&mut IptablesPlane> {
        match self {
            Self::Iptables(plane, _) => Ok(plane),
            Self::Ebpf(_) | Self::Ovs(_) => {
                bail!("this is asked of the iptables plane alone")
            }
        }
    }

    pub(super) fn as_ovs(&mut self) -> anyhow::Result<&mut OvsPlane> {
        match self {
            Self::Ovs(plane) => Ok(plane),
            Self::Ebpf(_) | Self::Iptables(..) => {
                bail!("this is asked of the plane for Open vSwitch alone")
            }
        }
    }
}

impl Drop for OwnPlane {
    fn drop(&mut self) {
        if let Err(error) = self.plane().detach() {
            eprintln!("removing a bench's data plane: {error}");
        }
        if let Self::Iptables(_, directory) = self {
            // It may never have been made.
            drop(std::fs::remove_dir_all(directory));
        }
    }
}

/// Dropped, it leaves what it enforces.
pub(super) fn open_ovs(run_dir: &Path) -> std::io::Result<OvsPlane> {
    OvsPlane::open(OvsConfig {
        instance: "bench".to_owned(),
        run_dir: run_dir.to_owned(),
    })
}

fn own_name(name: &str) -> String {
    format!("pc-bench-{}-{name}", std::process::id())
}

/// The devices of the calling thread's namespace, by index.
pub(super) fn links() -> anyhow::Result<BTreeMap<u32, Link>> {
    let links = agent::devices::list().context("listing the bench's devices")?;
    Ok(links.into_iter().map(|l| (l.ifindex, l)).collect())
}

/// What an agent would ask of a plane on a host with these devices.
pub(super) fn target(view: HostView, links: &BTreeMap<u32, Link>) -> Target {
    let devices = agent::match_devices(&view.ports, links).devices;
    let bridges = agent::bridges_of(devices.values(), links);
    Target {
        view,
        devices,
        closed: Default::default(),
        bridges,
    }
}

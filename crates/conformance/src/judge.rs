//! The one shape in which everything that judges packets is asked.
//!
//! Place on the line: around all of it, hook to verdict. The oracle, a plane in memory and a loaded
//! program answer the same questions, so that scenarios and the selftest can compare them.
//! Knows nothing of: what is asked, and who is right.

use crate::migration::{HoldsPlane, migrate};
use dataplane::{DataPlane, ModelPlane, ShownPackets, Target};
use model::{Capabilities, Direction, DropReason, HostId, Inventory, PortId, Verdict};
pub use oracle::Open;
use oracle::Oracle;
use policy::HostView;
use std::time::Duration;

/// Anything that judges packets at the ports of one host.
///
/// It begins with no policy and no state, at a moment of its own; only `advance` moves its time.
pub trait Judge {
    fn name(&self) -> &str;

    /// Back to no policy and no state, as if it began now.
    fn reset(&mut self);

    /// The policy from now on.
    fn apply(&mut self, inventory: &Inventory);

    fn advance(&mut self, by: Duration);

    /// The verdict on a packet that was there: it moves state.
    fn judge(&mut self, port: &PortId, direction: Direction, frame: &[u8]) -> Answer;

    /// The port's VM goes on at another host, of the same policy, where nothing is known of it but what the
    /// old one says; or why there is no such thing.
    fn migrate(&mut self, _port: &PortId, _inventory: &Inventory) -> Result<(), &'static str> {
        Err("it is not asked to migrate")
    }

    /// Whether it can be shown such a packet.
    fn can_judge(&self, _port: &PortId, _direction: Direction, _frame: &[u8]) -> bool {
        true
    }

    /// Whether the reasons of its verdicts mean something; of a packet that arrived, or didn't, just that is
    /// known.
    fn knows_why(&self) -> bool {
        true
    }

    /// Why this judge can't go on, if so: the world refused it something. Its answers mean nothing
    /// from then on.
    fn trouble(&self) -> Option<&str> {
        None
    }

    /// How the last answer came about, for people: a line per stage or step. Empty if not known.
    fn last_trace(&self) -> Vec<String> {
        Vec::new()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub verdict: Verdict,
    /// What the contract leaves open here (such as around a timeout): another answer is no mistake.
    pub open: Open,
}

/// How an answer compares with the one expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    Same,
    /// Another one, which the contract leaves open. The state behind it is known all the same.
    Allowed,
    /// The same, and what comes of it is open as well.
    Unknown,
    Wrong,
}

impl Answer {
    /// `with_reasons`: whoever gave the other one knows why.
    pub fn compare(&self, seen: &Verdict, with_reasons: bool) -> Agreement {
        let passes = |verdict: &Verdict| matches!(verdict, Verdict::Pass(_));
        let (expected, other) = (passes(&self.verdict), passes(seen));
        let same = expected == other && (!with_reasons || self.verdict == *seen);
        match self.open {
            _ if same => Agreement::Same,
            Open::MayDrop if expected && !other => Agreement::Allowed,
            Open::Either => Agreement::Unknown,
            Open::No | Open::MayDrop => Agreement::Wrong,
        }
    }
}

impl From<Verdict> for Answer {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            open: Open::No,
        }
    }
}

/// Where the time of every judge begins. Not on a whole second: whoever counts by the second must not
/// depend on how long a run takes.
pub const START: Duration = Duration::from_millis(1_000_050);

/// The contract itself.
pub struct OracleJudge {
    host: HostId,
    capabilities: Capabilities,
    oracle: Oracle,
    now: Duration,
    /// `None`: not asked for; explaining costs a copy of all state.
    trace: Option<Vec<String>>,
}

impl OracleJudge {
    pub fn new(host: HostId, capabilities: Capabilities) -> Self {
        Self {
            oracle: Oracle::new(host.clone(), capabilities),
            host,
            capabilities,
            now: START,
            trace: None,
        }
    }

    /// One that can say how each answer came about.
    pub fn explaining(self) -> Self {
        Self {
            trace: Some(Vec::new()),
            ..self
        }
    }

    /// Does the contract leave open, at this time, what some port remembers?
    pub fn is_doubtful(&self) -> bool {
        self.oracle.is_doubtful(self.now)
    }

    pub fn oracle(&mut self) -> &mut Oracle {
        &mut self.oracle
    }
}

impl Judge for OracleJudge {
    fn name(&self) -> &str {
        "oracle"
    }

    fn reset(&mut self) {
        self.oracle = Oracle::new(self.host.clone(), self.capabilities);
        self.now = START;
    }

    fn apply(&mut self, inventory: &Inventory) {
        self.oracle.apply(inventory, self.now);
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    fn judge(&mut self, port: &PortId, direction: Direction, frame: &[u8]) -> Answer {
        if let Some(trace) = &mut self.trace {
            let explained = self.oracle.explain(port, direction, frame, self.now);
            let stages = explained.trace.into_iter();
            *trace = stages
                .map(|(stage, text)| format!("{stage:?}: {text}"))
                .collect();
        }
        let decision = self.oracle.decide(port, direction, frame, self.now);
        Answer {
            verdict: decision.verdict,
            open: decision.open,
        }
    }

    fn migrate(&mut self, port: &PortId, _inventory: &Inventory) -> Result<(), &'static str> {
        self.oracle.migrate(port);
        Ok(())
    }

    fn last_trace(&self) -> Vec<String> {
        self.trace.clone().unwrap_or_default()
    }
}

/// The compiler, and the plane in memory that interprets what it makes.
pub struct ModelPlaneJudge {
    host: HostId,
    plane: ModelPlane,
    now: Duration,
}

impl ModelPlaneJudge {
    pub fn new(host: HostId) -> Self {
        Self {
            host,
            plane: ModelPlane::new(),
            now: START,
        }
    }
}

impl Judge for ModelPlaneJudge {
    fn name(&self) -> &str {
        "model"
    }

    fn reset(&mut self) {
        *self = Self::new(self.host.clone());
    }

    fn apply(&mut self, inventory: &Inventory) {
        let (view, _findings) = policy::compile(inventory, &self.host);
        self.plane.apply_at(&view, self.now);
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
    }

    fn judge(&mut self, port: &PortId, direction: Direction, frame: &[u8]) -> Answer {
        self.plane.judge(port, direction, frame, self.now).into()
    }

    fn migrate(&mut self, port: &PortId, inventory: &Inventory) -> Result<(), &'static str> {
        let (view, _findings) = policy::compile(inventory, &self.host);
        // Its own clock is that of the last packet.
        self.enforce(view.clone());
        migrate(self, port, view)
    }
}

impl HoldsPlane for ModelPlaneJudge {
    fn plane(&mut self) -> &mut dyn DataPlane {
        &mut self.plane
    }

    fn enforce(&mut self, view: HostView) {
        self.plane.apply_at(&view, self.now);
    }
}

/// The compiler, and a data plane that is shown packets by hand.
pub struct PlaneJudge<P> {
    name: &'static str,
    host: HostId,
    plane: P,
    now: Duration,
    trouble: Option<String>,
}

impl<P: ShownPackets> PlaneJudge<P> {
    pub fn new(name: &'static str, host: HostId, plane: P) -> Self {
        Self {
            name,
            host,
            plane,
            now: START,
            trouble: None,
        }
    }

    pub fn plane(&mut self) -> &mut P {
        &mut self.plane
    }

    fn apply_view(&mut self, view: HostView) {
        let target = Target {
            view,
            ..Target::default()
        };
        match self.plane.apply(&target) {
            Ok(report) => {
                for (port, why) in report.refused {
                    self.fail(format!("port {port} was refused its policy: {why}"));
                }
            }
            Err(error) => self.fail(error.to_string()),
        }
    }

    fn set_time(&mut self, now: Duration) {
        self.now = now;
        if let Err(error) = self.plane.set_time(now) {
            self.fail(format!("setting the plane's clock: {error}"));
        }
    }

    /// The first trouble counts.
    fn fail(&mut self, text: String) {
        self.trouble.get_or_insert(text);
    }
}

impl<P: ShownPackets> HoldsPlane for PlaneJudge<P> {
    fn plane(&mut self) -> &mut dyn DataPlane {
        &mut self.plane
    }

    fn enforce(&mut self, view: HostView) {
        self.apply_view(view);
    }
}

impl<P: ShownPackets> Judge for PlaneJudge<P> {
    fn name(&self) -> &str {
        self.name
    }

    fn reset(&mut self) {
        // A port that was there before would bring a hold along.
        self.apply_view(HostView::default());
        if let Err(error) = self.plane.forget_state() {
            self.fail(format!("removing the plane's state: {error}"));
        }
        self.set_time(START);
    }

    fn apply(&mut self, inventory: &Inventory) {
        let (view, _findings) = policy::compile(inventory, &self.host);
        self.apply_view(view);
    }

    fn advance(&mut self, by: Duration) {
        self.set_time(self.now + by);
    }

    fn judge(&mut self, port: &PortId, direction: Direction, frame: &[u8]) -> Answer {
        match self.plane.show(port, direction, frame) {
            Ok(verdict) => verdict.into(),
            Err(error) => {
                let bytes = frame.len();
                self.fail(format!(
                    "showing a frame of {bytes} bytes to {port}: {error}"
                ));
                Verdict::Drop(DropReason::NotReady).into()
            }
        }
    }

    fn migrate(&mut self, port: &PortId, inventory: &Inventory) -> Result<(), &'static str> {
        let (view, _findings) = policy::compile(inventory, &self.host);
        migrate(self, port, view)
    }

    fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }
}

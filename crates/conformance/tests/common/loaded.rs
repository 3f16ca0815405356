//! The eBPF programs as the kernel has loaded them, without devices: they are asked about packets one by
//! one. Needs root.

#[path = "leftovers.rs"]
mod leftovers;

use super::common::check_scenarios;
use dataplane::{DataPlane, Target};
use dataplane_ebpf::{EbpfConfig, EbpfPlane};
use leftovers::instance;
use model::{Direction, Inventory, PortId};
use policy::HostView;
use portcullis_conformance::scenario::{Scenario, Seen, Subject, here};
use portcullis_conformance::{HoldsPlane, START, migrate};
use std::time::Duration;

/// What becomes of the process that controls the plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    Stays,
    /// It is gone before each change of policy, and another one takes over.
    Restarts,
}

struct Loaded {
    config: EbpfConfig,
    control: Control,
    /// `None` only between two processes.
    plane: Option<EbpfPlane>,
    view: HostView,
    now: Duration,
}

pub(crate) fn check_scenarios_under(control: Control, wanted: fn(&Scenario) -> bool) -> bool {
    println!("\nthe process in control: {control:?}");
    check_scenarios(wanted, move |ask| {
        let config = EbpfConfig::small(instance("scenarios"));
        ask(&mut Loaded {
            plane: Some(open(&config)),
            config,
            control,
            view: HostView::default(),
            now: START,
        });
    })
}

fn open(config: &EbpfConfig) -> EbpfPlane {
    EbpfPlane::open(config.clone()).unwrap_or_else(|error| panic!("{error}"))
}

impl Loaded {
    fn plane(&mut self) -> &mut EbpfPlane {
        self.plane.as_mut().expect("a process is in control")
    }

    fn enforce(&mut self, view: HostView) {
        self.view = view.clone();
        let target = Target {
            view,
            ..Target::default()
        };
        let report = self.plane().apply(&target).expect("the policy applies");
        assert!(report.refused.is_empty(), "{:?}", report.refused);
    }
}

impl HoldsPlane for Loaded {
    fn plane(&mut self) -> &mut dyn DataPlane {
        Loaded::plane(self)
    }

    fn enforce(&mut self, view: HostView) {
        Loaded::enforce(self, view);
    }
}

impl Subject for Loaded {
    fn name(&self) -> String {
        "ebpf".to_owned()
    }

    fn reset(&mut self) {
        self.enforce(HostView::default());
        self.plane().forget_state().expect("flows can be removed");
        self.now = START;
        self.advance(Duration::ZERO);
    }

    fn apply(&mut self, inventory: &Inventory) {
        let (view, _) = policy::compile(inventory, &here());
        let first = self.view.ports.is_empty();
        if self.control == Control::Restarts && !first {
            // Dropping it changes nothing in the kernel, as the end of its process does.
            self.plane = None;
            self.plane = Some(open(&self.config));
            let view = self.view.clone();
            self.plane()
                .adopt(&view)
                .expect("what is in force is recognized");
        }
        self.enforce(view);
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        let now = self.now;
        let set = self.plane().set_fixed_clock(now);
        set.expect("the clock can be set");
        // As an agent does each second.
        self.plane().sweep().expect("flows can be swept");
    }

    fn send(&mut self, port: &PortId, direction: Direction, frame: &[u8]) -> Seen {
        if frame.len() < 14 {
            return Seen::Unshown("the kernel runs no program on less than an Ethernet header");
        }
        let verdict = self.plane().judge(port, direction, frame);
        Seen::Judged(verdict.expect("the program can be asked").into())
    }

    fn migrate(&mut self, port: &PortId, inventory: &Inventory) -> Result<(), &'static str> {
        let (view, _) = policy::compile(inventory, &here());
        migrate(self, port, view)
    }

    fn trace(&self) -> Vec<String> {
        Vec::new()
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        if let Err(error) = self.plane().detach() {
            eprintln!("the plane of this test is left behind: {error}");
        }
    }
}

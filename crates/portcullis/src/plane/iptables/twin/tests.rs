//! What a twin says of a packet is what then becomes of the packet itself. Needs root.

use super::ask;
use conformance::scenario::{
    self, DeviceKind, RealPlane, Scenario, Seen, Subject, WirePlane, load,
};
use conformance::{Answer, Open};
use dataplane::{ApplyError, ApplyReport, Capabilities, Counters, DataPlane, Drift, Target};
use dataplane_iptables::{Backend, IptablesConfig, IptablesPlane};
use model::{Direction, Inventory, PassReason, PortId, Verdict};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// One plane for a lab, which shows it packets, and for twins.
#[derive(Clone)]
struct Shared(Arc<Mutex<IptablesPlane>>);

/// A lab, of whose packets a twin is asked first.
struct Foretold<'a> {
    wire: &'a mut WirePlane,
    plane: Shared,
    asked: usize,
    /// What was foretold otherwise.
    wrong: Vec<String>,
}

fn check(backend: Backend, first: usize) {
    let each = std::env::var("PORTCULLIS_TEST_TWINS").ok();
    let each = each.map_or(12, |n| n.parse().expect("each how many-th scenario"));
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scenarios");
    let scenarios = load(&directory).unwrap_or_else(|bad| panic!("{bad}"));
    let some: Vec<&Scenario> = scenarios.iter().skip(first % each).step_by(each).collect();
    let config = IptablesConfig {
        instance: "foretold".to_owned(),
        directory: None,
        backend: Some(backend),
    };
    let plane = IptablesPlane::open(config).expect("the programs are here");
    let plane = Shared(Arc::new(Mutex::new(plane)));
    let make = || Ok(Box::new(plane.clone()) as Box<dyn RealPlane>);
    let ran = WirePlane::run(DeviceKind::Veth, make, |wire| {
        let mut foretold = Foretold {
            wire,
            plane: plane.clone(),
            asked: 0,
            wrong: Vec::new(),
        };
        for scenario in some {
            // To ask changes nothing: all goes as it does unasked.
            scenario::run(scenario, &mut foretold).unwrap_or_else(|failure| panic!("{failure}"));
        }
        (foretold.asked, foretold.wrong)
    });
    let (asked, wrong) = ran.unwrap_or_else(|error| panic!("{error}"));
    println!("{asked} packets foretold");
    assert!(asked > 50);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

impl Subject for Foretold<'_> {
    fn name(&self) -> String {
        self.wire.name()
    }

    fn reset(&mut self) {
        self.wire.reset();
    }

    fn apply(&mut self, inventory: &Inventory) {
        self.wire.apply(inventory);
    }

    fn advance(&mut self, by: Duration) {
        self.wire.advance(by);
    }

    fn send(&mut self, port: &PortId, direction: Direction, frame: &[u8]) -> Seen {
        let asked = ask(&self.plane.lock(), port, direction, frame);
        let asked = asked.unwrap_or_else(|failure| panic!("{}", failure.text()));
        let seen = self.wire.send(port, direction, frame);
        if let Seen::Lacking { arrived, expected } = &seen {
            self.asked += 1;
            let right = match &asked {
                Ok(outcome) => is_right(&outcome.verdict, *arrived, expected),
                Err(why) => why.contains("fragment"),
            };
            if !right {
                let packet = wire::words::describe(frame);
                let text = format!("{direction} at {port}: {packet}\n  {asked:?}\n  {seen:?}");
                self.wrong.push(text);
            }
        }
        seen
    }

    fn trace(&self) -> Vec<String> {
        self.wire.trace()
    }
}

/// Of the odd packets that the contract leaves to a plane, the kernel mends some on their way, and they don't
/// arrive as what was sent.
fn is_right(foretold: &Verdict, arrived: bool, expected: &Answer) -> bool {
    let passes = matches!(foretold, Verdict::Pass(_));
    match expected.open {
        Open::No => passes == arrived && is_same(foretold, &expected.verdict),
        Open::MayDrop | Open::Either => passes || !arrived,
    }
}

/// But for which rule: several may permit it.
fn is_same(foretold: &Verdict, expected: &Verdict) -> bool {
    let by_rules = |verdict: &Verdict| {
        matches!(
            verdict,
            Verdict::Pass(PassReason::Rule(_) | PassReason::Live(_))
        )
    };
    foretold == expected || (by_rules(foretold) && by_rules(expected))
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, IptablesPlane> {
        self.0.lock().expect("nobody panics while it is held")
    }
}

impl DataPlane for Shared {
    fn capabilities(&self) -> Capabilities {
        self.lock().capabilities()
    }

    fn apply(&mut self, target: &Target) -> Result<ApplyReport, ApplyError> {
        self.lock().apply(target)
    }

    fn audit(&mut self) -> Result<Vec<Drift>, ApplyError> {
        self.lock().audit()
    }

    fn counters(&mut self) -> Result<Counters, ApplyError> {
        self.lock().counters()
    }

    fn detach(&mut self) -> Result<(), ApplyError> {
        self.lock().detach()
    }
}

impl RealPlane for Shared {
    fn name(&self) -> &str {
        "iptables"
    }

    fn plane(&mut self) -> &mut dyn DataPlane {
        self
    }

    fn forget(&mut self) -> io::Result<()> {
        self.lock().forget_state()
    }

    fn set_clock(&mut self, now: Duration) -> io::Result<()> {
        self.lock().set_clock(now)
    }
}

#[test]
fn by_nft() {
    check(Backend::Nft, 0);
}

#[test]
fn by_legacy() {
    check(Backend::Legacy, 6);
}

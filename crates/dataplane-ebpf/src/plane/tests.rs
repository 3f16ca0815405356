//! An apply that is cut off, and what the next one finds.

use super::*;
use crate::table::Name;
use conformance::generate::{self, Event};
use conformance::lab::Lab;
use dataplane::Target;
use std::sync::Arc;

fn targets(seeds: std::ops::Range<u64>) -> Vec<Target> {
    let first_policy = |seed| {
        let events = generate::trace(seed, 1).events.into_iter();
        let mut policies = events.filter_map(|event| match event {
            Event::Policy(inventory) => Some(inventory),
            Event::Advance(_) | Event::Packet(_) => None,
        });
        let inventory = policies.next().expect("a policy comes first");
        let (view, _) = policy::compile(&inventory, &generate::host());
        Target {
            view,
            ..Target::default()
        }
    };
    seeds.map(first_policy).collect()
}

/// A plane whose pins go with it, also after a failure.
struct Scratch(EbpfPlane);

impl Scratch {
    fn open(config: EbpfConfig) -> Self {
        Self(EbpfPlane::open(config).unwrap_or_else(|error| panic!("{error}")))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = self.0.detach();
    }
}

/// As after a crash and a new start, but for loading the programs.
fn forget_everything(plane: &mut EbpfPlane) {
    plane.state = None;
    plane.view = None;
}

#[test]
fn after_a_crash_between_any_two_steps_the_next_apply_gets_there() {
    let config = EbpfConfig::small(format!("pc-crash-{}", std::process::id()));
    let mut scratch = Scratch::open(config);
    let plane = &mut scratch.0;
    let targets = targets(0..6);
    for pair in targets.windows(2) {
        let [from, to] = pair else {
            continue;
        };
        let mut done = 0;
        loop {
            plane.apply(from).expect("a generated policy applies");
            let (state, rendered) = plane.render(to).expect("read");
            let (steps, _) = plan::plan(&state.contents, &rendered);
            if done > steps.len() {
                break;
            }
            execute::execute(&plane.object, &plane.hook, &steps[..done]).expect("written");
            forget_everything(plane);
            plane.apply(to).expect("a generated policy applies");
            assert_eq!(
                plane.audit().expect("an audit"),
                [],
                "cut off after {done} steps"
            );
            forget_everything(plane);
            let again = plane.apply(to).expect("a generated policy applies");
            assert_eq!(
                again.writes, 0,
                "nothing is left over; cut off after {done} steps"
            );
            done += 3;
        }
    }
}

#[test]
fn a_set_too_large_costs_its_ports_alone() {
    let config = EbpfConfig {
        max_rules: 8,
        ..EbpfConfig::small(format!("pc-full-{}", std::process::id()))
    };
    let mut scratch = Scratch::open(config);
    let plane = &mut scratch.0;
    let mut target = targets(3..4).remove(0);
    let group = target
        .view
        .groups
        .values_mut()
        .find(|g| !g.rules.is_empty());
    let group = group.expect("a group with rules");
    let (_, rule) = group.rules.first_key_value().expect("a rule");
    let rule = rule.clone();
    for number in 0..20u32 {
        let id = model::RuleId::new(format!("more{number}"));
        Arc::make_mut(group).rules.insert(id, rule.clone());
    }
    let report = plane.apply(&target).expect("the others are served");
    assert!(
        !report.refused.is_empty() && !report.applied.is_empty(),
        "{report:?}"
    );
    assert!(
        report.refused.values().all(|why| why.contains("counters")),
        "{report:?}"
    );
    for port in report.refused.keys() {
        let verdict = plane
            .judge(port, Direction::Ingress, &[0; 60])
            .expect("an answer");
        assert_eq!(verdict, Verdict::Drop(model::DropReason::NotReady));
    }
}

/// A machine whose device is closed passes nothing; after the removal it does.
fn check_removal_of_another_layout(attach: Attach) {
    let mut lab = Lab::new("layout").expect("root");
    lab.add_bridge("br0").expect("a bridge");
    let [a, b] = [1, 2].map(|last| {
        let mac = model::MacAddr([0x52, 0x54, 0, 0, 0, last]);
        let name = ["a", "b"][usize::from(last) - 1];
        let at = conformance::lab::Attach::Bridge("br0");
        lab.add_vm(name, mac, &[], at).expect("a VM")
    });
    let (sender, receiver) = (a.open_packets(), b.open_packets());
    let (sender, receiver) = (sender.expect("a socket"), receiver.expect("a socket"));
    let arrives = |time| {
        let frame = wire::build::rarp(a.mac()).bytes();
        sender.send(&frame).expect("it is sent");
        let seen = receiver.wait_for(time, |seen| seen == frame);
        seen.expect("a socket").is_some()
    };
    lab.host().run(|| {
        let config = EbpfConfig {
            attach,
            ..EbpfConfig::small(format!("pc-layout-{attach:?}-{}", std::process::id()))
        };
        let mut scratch = Scratch::open(config.clone());
        let device = Device {
            name: a.device().to_owned(),
            ifindex: lab.host().ifindex(a.device()).expect("it is there"),
        };
        let target = Target {
            closed: BTreeSet::from([device]),
            ..Target::default()
        };
        scratch.0.apply(&target).expect("it applies");
        assert!(!arrives(Duration::from_millis(200)));
        let names = &scratch.0.object.tables.names;
        names.put(&META, &Name::new("0 0")).expect("a write");
        assert!(matches!(
            EbpfPlane::open(config.clone()),
            Err(OpenError::Layout { .. })
        ));
        assert!(EbpfPlane::remove(&config.instance).expect("removed"));
        assert!(arrives(Duration::from_secs(5)));
        assert!(!EbpfPlane::remove(&config.instance).expect("nothing to do"));
    });
}

#[test]
fn what_a_version_with_another_layout_left_can_be_removed() {
    check_removal_of_another_layout(Attach::Tcx);
    check_removal_of_another_layout(Attach::Clsact);
}

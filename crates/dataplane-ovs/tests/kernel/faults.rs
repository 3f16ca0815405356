//! What breaks and what others break: it is said, nothing that the policy denies passes meanwhile, and the next look
//! at it puts it right.

use crate::bed::{Bed, datagram};
use crate::stream::Stream;
use dataplane::DataPlane;
use portcullis_dataplane_ovs::Table;
use std::thread;
use std::time::{Duration, Instant};

/// A test for each kind of bridge.
macro_rules! on_each_bridge {
    ($($name:ident),* $(,)?) => { $(
        mod $name {
            #[test]
            fn whole() {
                super::$name(super::Scene::new(true));
            }

            #[test]
            fn normal() {
                super::$name(super::Scene::new(false));
            }
        }
    )* };
}

on_each_bridge!(
    a_killed_switch_comes_back_closed,
    a_killed_database_changes_nothing,
    a_bridge_that_is_made_again_is_guarded_again,
    flows_that_somebody_deletes_come_back,
    actions_that_somebody_changes_come_back,
    what_the_switch_refuses_leaves_all_as_it_was,
    a_port_with_another_number_is_the_same_port,
    a_device_that_moves_takes_its_policy_along,
);

const PERMITTED: u16 = 1_000;
const DENIED: u16 = 2_000;

const POLICY: &str = "
version: 1
networks: { lan: { subnets: [10.0.0.0/24] } }
groups:
  web: { rules: [{ name: in, from: friends, protocol: udp, ports: 1000 }] }
  friends: { rules: [{ name: out, to: any }] }
ports:
  web: { device: web, mac: 52:54:00:00:00:01, addresses: 10.0.0.1, groups: web }
  friend: { device: friend, mac: 52:54:00:00:00:02, addresses: 10.0.0.2, groups: friends }
";

/// What an agent does that looks once a second: it applies again what isn't so, or couldn't be asked.
const BEAT: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(20);

struct Scene {
    // They end before what they go through.
    permitted: Stream,
    denied: Stream,
    bed: Bed,
    secure: bool,
}

impl Scene {
    fn new(secure: bool) -> Self {
        let mut bed = Bed::new(&[("br0", secure), ("br1", secure)]);
        bed.add_vm("web", 1, &["10.0.0.1"], "br0");
        bed.add_vm("friend", 2, &["10.0.0.2"], "br0");
        bed.apply(POLICY);
        let begin = |l4_port| {
            let frame = datagram(2, 1, 5_000, l4_port);
            Stream::begin(&bed, "friend", "web", frame, Duration::from_millis(1))
        };
        let (permitted, denied) = (begin(PERMITTED), begin(DENIED));
        assert!(permitted.flows());
        Self {
            permitted,
            denied,
            bed,
            secure,
        }
    }

    /// Beats until all is as it should be; what was said meanwhile.
    fn repair(&mut self) -> Vec<String> {
        let began = Instant::now();
        let mut said = Vec::new();
        loop {
            let audited = self.bed.with(DataPlane::audit);
            match audited {
                Ok(drift) if drift.is_empty() => return said,
                Ok(drift) => said.extend(drift.iter().map(|drift| format!("{drift:?}"))),
                Err(error) => said.push(error.to_string()),
            }
            match self.bed.try_apply(POLICY) {
                Ok(report) => assert_eq!(report.remarks, [""; 0]),
                Err(error) => {
                    said.push(error.to_string());
                    thread::sleep(BEAT);
                }
            }
            assert!(began.elapsed() < PATIENCE, "{said:?}");
        }
    }

    /// What broke at this moment is repaired: when the first packet passed; and none that must not.
    fn check_repaired(&mut self, what: &str, since: Instant, hint: &str) {
        let said = self.repair();
        let enforced = since.elapsed();
        assert!(self.permitted.flows(), "{what}");
        self.denied.wait_for_more(100);
        let first = self.permitted.first_after(since).expect("it flows");
        println!(
            "{what}, {}: enforced after {enforced:?}, the first packet after {:?}, {} of {} denied passed; said: {said:?}",
            if self.secure { "whole" } else { "normal" },
            first.saturating_duration_since(since),
            self.denied.arrived(),
            self.denied.sent(),
        );
        assert!(said.iter().any(|said| said.contains(hint)), "{said:?}");
        assert_eq!(self.denied.arrived(), 0, "{what}");
    }
}

fn a_killed_switch_comes_back_closed(mut scene: Scene) {
    for _ in 0..2 {
        scene.bed.switch.kill_vswitchd().expect("killed");
        assert!(scene.permitted.is_silent(), "userspace has gone");
        let told = scene.bed.with(DataPlane::audit).expect_err("it is gone");
        assert!(told.to_string().contains("br0"), "{told}");
        let refused = scene.bed.try_apply(POLICY).expect_err("it is gone");
        println!("meanwhile: {told}; {refused}");
        let since = Instant::now();
        scene.bed.switch.start_vswitchd().expect("started");
        let up = Instant::now();
        println!("the switch is up after {:?}", up - since);
        assert!(
            scene.permitted.is_silent(),
            "nobody has told it anything yet"
        );
        let back = Instant::now();
        scene.check_repaired("a killed switch", back, "flows of bridge br0");
    }
}

fn a_killed_database_changes_nothing(mut scene: Scene) {
    scene.bed.switch.kill_database().expect("killed");
    let told = scene.bed.with(DataPlane::audit).expect_err("it is gone");
    println!("meanwhile: {told}");
    assert!(told.to_string().contains("database"), "{told}");
    let refused = scene.bed.try_apply(POLICY).expect_err("it is gone");
    assert!(refused.to_string().contains("database"), "{refused}");
    scene.bed.switch.start_database().expect("started");
    assert_eq!(scene.repair(), [""; 0]);
    assert!(scene.permitted.flows());
    assert_eq!(scene.denied.arrived(), 0);
    assert_eq!(scene.bed.apply(POLICY).writes, 0);
}

fn a_bridge_that_is_made_again_is_guarded_again(mut scene: Scene) {
    let devices = ["friend", "web"].map(|name| scene.bed.device(name).to_owned());
    scene.bed.vsctl("del-br br0");
    let told = scene.bed.audit();
    assert!(format!("{told:?}").contains("br0"), "{told:?}");
    let report = scene.bed.try_apply(POLICY).expect("nothing is left to do");
    assert_eq!(report.refused.len(), 2, "{report:?}");
    // One that is made as the other was: before we could see it, it must not be open.
    let add = format!(
        "add-br br0 -- set bridge br0 datapath_type=netdev fail_mode=secure \
         -- add-port br0 {} -- add-port br0 {}",
        devices[0], devices[1]
    );
    scene.bed.vsctl(&add);
    if !scene.secure {
        scene
            .bed
            .vsctl("set bridge br0 external_ids:portcullis-forwarding=normal");
        scene.bed.ofctl("add-flow br0 priority=0,actions=drop");
    }
    let since = Instant::now();
    scene.check_repaired("a bridge made again", since, "which devices");
}

fn flows_that_somebody_deletes_come_back(mut scene: Scene) {
    let commands = [
        "del-flows br0".to_owned(),
        format!("del-flows br0 table={}", Table::Rules.number()),
        format!("del-flows br0 table={}", Table::FromMac.number()),
        "--strict del-flows br0 table=0,priority=0".to_owned(),
    ];
    for command in &commands[..if scene.secure { 3 } else { 4 }] {
        let since = Instant::now();
        scene.bed.ofctl(command);
        scene.check_repaired(command, since, "flows of bridge br0");
    }
}

fn actions_that_somebody_changes_come_back(mut scene: Scene) {
    let changes = [
        format!(
            "mod-flows br0 table={},actions=drop",
            Table::Passed.number()
        ),
        format!("mod-flows br0 table={},actions=drop", Table::Rules.number()),
        format!(
            "add-flow br0 table={},priority=100,actions=drop",
            Table::Rules.number()
        ),
        "mod-flows br0 table=0,actions=drop".to_owned(),
    ];
    for change in changes {
        let since = Instant::now();
        scene.bed.ofctl(&change);
        scene.check_repaired(&change, since, "flows of bridge br0");
    }
}

fn what_the_switch_refuses_leaves_all_as_it_was(mut scene: Scene) {
    let rules = Table::Rules.number();
    let before = scene.bed.flows("br0", true);
    let there = before
        .iter()
        .filter(|flow| flow.contains(&format!("table={rules}, ")));
    let limit = format!(
        "-- --id=@limit create Flow_Table flow_limit={} overflow_policy=refuse \
         -- set bridge br0 flow_tables:{rules}=@limit",
        there.count()
    );
    scene.bed.vsctl(&limit);
    let more = POLICY.replace("ports: 1000 }", "ports: [1000, 2000] }");
    let refused = scene.bed.try_apply(&more).expect_err("there is no room");
    println!("{refused}");
    let text = refused.to_string();
    assert!(
        text.contains("br0") && text.contains(&format!("table={rules}")),
        "{text}"
    );
    assert_eq!(scene.bed.flows("br0", true), before);
    assert!(scene.permitted.flows());
    assert_eq!(scene.denied.arrived(), 0);
    assert_eq!(scene.bed.audit(), []);
    scene.bed.vsctl("clear bridge br0 flow_tables");
    scene.bed.apply(&more);
    assert!(scene.denied.flows(), "now it is permitted");
}

fn a_port_with_another_number_is_the_same_port(mut scene: Scene) {
    let was = scene.bed.of_port("web");
    let zone = scene.bed.zone("br0", "web");
    let device = scene.bed.device("web").to_owned();
    let again = format!("del-port {device} -- add-port br0 {device}");
    scene.bed.vsctl(&again);
    let request = format!("set interface {device} ofport_request=77");
    scene.bed.vsctl(&request);
    assert_ne!(scene.bed.of_port("web"), was);
    let since = Instant::now();
    scene.check_repaired(
        "a port with another number",
        since,
        "what hangs on bridge br0",
    );
    assert_eq!(scene.bed.zone("br0", "web"), zone);
}

fn a_device_that_moves_takes_its_policy_along(mut scene: Scene) {
    let told_zone = |bed: &Bed, bridge| bed.zone(bridge, "web");
    let zone = told_zone(&scene.bed, "br0");
    for (from, to) in [("br0", "br1"), ("br1", "br0")] {
        for name in ["web", "friend"] {
            let device = scene.bed.device(name).to_owned();
            if !scene.secure {
                // As a careful operator does: what isn't guarded yet says nothing.
                scene.bed.vsctl(&format!(
                    "set bridge {to} fail_mode=secure external_ids:portcullis-forwarding=normal"
                ));
                scene
                    .bed
                    .ofctl(&format!("add-flow {to} priority=0,actions=drop"));
            }
            scene
                .bed
                .vsctl(&format!("del-port {device} -- add-port {to} {device}"));
        }
        let since = Instant::now();
        scene.check_repaired("devices on another bridge", since, "what hangs on bridge");
        assert_eq!(told_zone(&scene.bed, from), None);
        assert_eq!(told_zone(&scene.bed, to), zone);
    }
}

//! Ports that are found by their interface ids, with a real Open vSwitch and a whole agent. Needs root and the
//! package `openvswitch-switch`.

use agent::{Ask, Event, Input, Instance, Mailbox, Outcome, PolicySource, PortState, Setup, drive};
use conformance::lab::{Lab, OpenVswitch};
use dataplane::DataPlane;
use model::{HostId, PortId};
use portcullis_dataplane_ovs::{OvsConfig, OvsPlane};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Long enough for a busy machine; a test that passes never waits for it.
const PATIENCE: Duration = Duration::from_secs(20);
const ID: &str = "0c7c1a9e-52f1-4f5c-9d3e-7b1f6f1a2b3c";

/// A host with one bridge, and a device on it for each name.
fn host(devices: &[&str]) -> (Lab, OpenVswitch) {
    let lab = Lab::new("ids").expect("a lab; it needs root");
    for device in devices {
        let lines =
            format!("link add {device} type veth peer name {device}-vm\nlink set {device} up");
        lab.host().ip(&lines).expect("a device");
    }
    let switch = OpenVswitch::start(lab.host()).expect("Open vSwitch");
    switch.add_bridge("br0", false).expect("a bridge");
    (lab, switch)
}

fn plane(run_dir: &Path) -> OvsPlane {
    let config = OvsConfig {
        instance: "test".to_owned(),
        run_dir: run_dir.to_owned(),
    };
    OvsPlane::open(config).expect("it connects")
}

fn check(plane: &mut OvsPlane, expected: &[(&str, &str)]) {
    let ids = plane.interface_ids().expect("it answers");
    let ids = ids.expect("Open vSwitch has such ids");
    let seen: Vec<(&str, &str)> = ids.iter().map(|(d, i)| (&**d, &**i)).collect();
    assert_eq!(seen, expected);
}

#[test]
fn the_ids_of_all_bridges_are_read_and_followed() {
    let (_lab, mut switch) = host(&["pc-1", "pc-2", "pc-3"]);
    let mut plane = plane(switch.run_dir());
    check(&mut plane, &[]);
    switch.add_bridge("br1", true).expect("a bridge");
    let mac = ("attached-mac", "52:54:00:00:00:01");
    let add = |bridge: &str, device: &str, ids: &[(&str, &str)]| {
        switch.add_port(bridge, device, ids).expect("a port");
    };
    add("br0", "pc-1", &[("iface-id", ID), mac]);
    add("br0", "pc-2", &[mac]);
    add("br1", "pc-3", &[("iface-id", "a port's id: any text")]);
    let third = ("pc-3", "a port's id: any text");
    check(&mut plane, &[("pc-1", ID), third]);
    let vsctl = |line: &str| switch.vsctl(line).expect("it does it");
    vsctl("set interface pc-2 external_ids:iface-id=2");
    vsctl("set interface pc-1 external_ids:iface-id=\"\"");
    check(&mut plane, &[("pc-2", "2"), third]);
    vsctl("remove interface pc-2 external_ids iface-id");
    vsctl("del-port pc-3");
    check(&mut plane, &[]);
    // An error, not the answer that there are none; and it connects anew.
    switch.kill_database().expect("killed");
    plane.interface_ids().expect_err("nobody answers");
    switch.start_database().expect("started");
    check(&mut plane, &[]);
}

#[test]
fn a_port_is_enforced_once_its_device_has_the_id() {
    let (lab, switch) = host(&["pc-1", "pc-2"]);
    let root = tempfile::tempdir().expect("a directory");
    let policy = format!(
        "version: 1\nnetworks: {{ lan: }}\nports:\n  web: {{ iface-id: {ID}, mac: 52:54:00:00:00:01 }}\n"
    );
    let policy_path = root.path().join("policy.yaml");
    fs::write(&policy_path, policy).expect("it can be written");
    let instance = Instance::new(
        "pc-ids",
        &root.path().join("run"),
        &root.path().join("state"),
    );
    let setup = Setup {
        host: HostId::new("h"),
        instance: instance.expect("a name"),
        policy: PolicySource::File {
            path: policy_path,
            parse: Arc::new(parse),
        },
        confirm: None,
        guard: None,
    };
    let (mailbox, inputs) = Mailbox::new();
    let (to, run_dir) = (mailbox.clone(), switch.run_dir().to_owned());
    let thread = lab.host().spawn(move || {
        let _lock = setup.instance.lock().expect("no other agent runs");
        drive(&mut plane(&run_dir), setup, &to, &inputs, |_| {}).expect("it starts")
    });

    wait_for(&mailbox, |_, state| state == PortState::NoDevice);
    switch.add_port("br0", "pc-2", &[]).expect("a port");
    switch.add_port("br0", "pc-1", &[]).expect("a port");
    switch
        .vsctl(&format!("set interface pc-1 external_ids:iface-id={ID}"))
        .expect("it does it");
    let enforced = |device: &str, state| device == "pc-1" && state == PortState::Enforced;
    wait_for(&mailbox, enforced);
    mailbox.send(Input::Event(Event::StopAsked));
    let outcome = thread.join().expect("it doesn't panic");
    assert!(matches!(outcome, Outcome::Stopped), "{outcome:?}");
}

fn parse(text: &[u8]) -> Result<model::Inventory, Vec<String>> {
    let read = policyfile::parse_bytes(text, "policy.yaml", &HostId::new("h"));
    read.map(|file| file.inventory)
        .map_err(|errors| vec![errors.to_string()])
}

/// Asks until the port is so.
fn wait_for(mailbox: &Mailbox, wanted: impl Fn(&str, PortState) -> bool) {
    let end = Instant::now() + PATIENCE;
    loop {
        let (sender, receiver) = channel();
        assert!(mailbox.send(Input::Ask(Ask::Status(sender))));
        let snapshot = answer(&receiver).snapshot;
        let port = snapshot.ports.get(&PortId::new("web"));
        let is = port.is_some_and(|port| {
            let device = port.device.as_ref().map_or("", |device| &device.name);
            wanted(device, port.state.clone())
        });
        if is {
            return;
        }
        assert!(Instant::now() < end, "{snapshot:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn answer<T>(receiver: &Receiver<T>) -> T {
    receiver.recv_timeout(PATIENCE).expect("it answers")
}

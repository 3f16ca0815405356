//! Need root, as the lab does.

use super::*;
use std::io::{Read, Write};
use std::time::{Duration, Instant};
use wire::{TcpFlags, build};

const SOON: Duration = Duration::from_secs(10);

fn mac(last: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, last])
}

fn v4(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn v6(last: u16) -> IpAddr {
    [0xfd00, 0, 0, 0, 0, 0, 0, last].into()
}

fn bridged(vms: u8) -> (Lab, Vec<Vm>) {
    let mut lab = Lab::new("test").expect("root");
    lab.add_bridge("br0").expect("a bridge");
    let vms = (1..=vms).map(|i| {
        let addresses = [(v4(i), 24), (v6(i.into()), 64)];
        lab.add_vm(&format!("vm{i}"), mac(i), &addresses, Attach::Bridge("br0"))
            .expect("a VM")
    });
    let vms = vms.collect();
    (lab, vms)
}

fn check_reach(from: &Vm, to: &Vm) {
    for address in to.addresses() {
        assert!(
            from.ping(*address, SOON).expect("a ping").is_some(),
            "{address}"
        );
        assert!(from.tcp_echo((*address, 80).into(), SOON), "{address}");
        let answered = from
            .udp_echo((*address, 53).into(), SOON)
            .expect("a datagram");
        assert!(answered, "{address}");
    }
}

#[test]
fn bridged_machines_reach_each_other() {
    let (_lab, vms) = bridged(2);
    let _tcp = vms[1].serve_tcp(80).expect("a server");
    let _udp = vms[1].serve_udp(53).expect("a server");
    check_reach(&vms[0], &vms[1]);
    let nobody = vms[0].tcp_connect((v4(2), 81).into(), SOON);
    let error = nobody.expect_err("nobody listens");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn routed_machines_reach_each_other() {
    let mut lab = Lab::new("test").expect("root");
    let gateways = [
        [169, 254, 0, 1].into(),
        [0xfe80, 0, 0, 0, 0, 0, 0, 1].into(),
    ];
    let vms = [1, 2].map(|i| {
        let addresses = [(v4(i), 32), (v6(i.into()), 128)];
        lab.add_vm(
            &format!("vm{i}"),
            mac(i),
            &addresses,
            Attach::Routed(&gateways),
        )
        .expect("a VM")
    });
    let _tcp = vms[1].serve_tcp(80).expect("a server");
    let _udp = vms[1].serve_udp(53).expect("a server");
    check_reach(&vms[0], &vms[1]);
}

#[test]
fn exact_frames_arrive_and_what_does_not_is_known_at_once() {
    let mut lab = Lab::new("test").expect("root");
    lab.add_bridge("br0").expect("a bridge");
    let [a, b] = [1, 2].map(|i| {
        lab.add_vm(&format!("vm{i}"), mac(i), &[], Attach::Bridge("br0"))
            .expect("a VM")
    });
    let (from, to) = (
        a.open_packets().expect("a socket"),
        b.open_packets().expect("a socket"),
    );
    let packet = build::ip(v4(1), v4(2)).macs(mac(1), mac(2));
    let plain = packet.clone().tcp(1, 2, TcpFlags::SYN).bytes();
    let tagged = packet
        .clone()
        .udp(1, 2)
        .tag(0x88a8, 5)
        .tag(0x8100, 6)
        .bytes();
    // A bridge passes no pause frames on.
    let kept = packet
        .udp(1, 2)
        .dst_mac(MacAddr([1, 0x80, 0xc2, 0, 0, 1]))
        .bytes();
    let seen = probe(&from, &to, &[plain, kept, tagged], mac(1)).expect("a marker");
    assert_eq!(seen, [Arrival::Arrived, Arrival::Missing, Arrival::Arrived]);
    assert_eq!(to.receive(Duration::ZERO).expect("a socket"), None);
}

#[test]
fn a_tap_is_a_machine_as_a_file() {
    let (lab, vms) = bridged(1);
    let tap = lab.add_tap("tap", Some("br0")).expect("a tap");
    let (IpAddr::V4(ip), IpAddr::V4(asked)) = (v4(9), v4(1)) else {
        panic!("IPv4 addresses");
    };
    let question = build::arp_request((mac(9), ip), asked).bytes();
    tap.send(&question).expect("sent");
    let deadline = Instant::now() + SOON;
    let answer = build::arp_reply((mac(1), asked), (mac(9), ip)).bytes();
    while Instant::now() < deadline {
        if tap.receive(SOON).expect("a frame") == Some(answer.clone()) {
            return;
        }
    }
    panic!("{} doesn't answer", vms[0].name());
}

#[test]
fn a_lab_of_six_machines_is_up_in_no_time() {
    let begun = Instant::now();
    let (lab, vms) = bridged(6);
    assert!(
        begun.elapsed() < Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
    println!("6 VMs: {:?}", begun.elapsed());
    let names = lab
        .host()
        .run(|| std::fs::read_to_string("/proc/thread-self/net/dev"));
    let names = names.expect("the list of devices");
    for vm in vms {
        assert!(
            names.contains(vm.device()) && vm.device().len() <= 15,
            "{names}"
        );
    }
}

#[test]
fn a_removed_machine_takes_its_device_along() {
    let (mut lab, vms) = bridged(2);
    lab.remove_vm(&vms[1]).expect("removed");
    let gone = lab.host().run(|| PacketSocket::open(vms[1].device()));
    assert!(gone.is_err());
    assert_eq!(
        vms[0]
            .ping(v4(2), Duration::from_millis(50))
            .expect("a ping"),
        None
    );
}

#[test]
fn a_connection_goes_on_after_its_server_stops() {
    let (_lab, vms) = bridged(2);
    let server = vms[1].serve_tcp(80).expect("a server");
    let mut open = vms[0]
        .tcp_connect((v4(2), 80).into(), SOON)
        .expect("a connection");
    let mut exchange = move || {
        let mut buffer = [0; 2];
        open.write_all(b"hi")
            .and_then(|()| open.read_exact(&mut buffer))
    };
    exchange().expect("an answer");
    drop(server);
    exchange().expect("an answer");
    assert!(vms[0].tcp_connect((v4(2), 80).into(), SOON).is_err());
}

#[test]
fn offloads_and_names_can_be_set() {
    let (lab, vms) = bridged(1);
    for offload in [
        Offload::TxChecksum,
        Offload::Tso,
        Offload::Gso,
        Offload::Gro,
    ] {
        vms[0].offload(offload, false).expect("set");
    }
    let names = lab.keep().expect("named");
    assert_eq!(names.len(), 2);
    for name in &names {
        assert!(kept().iter().any(|k| name.path.ends_with(k)), "{names:?}");
    }
    remove_kept().expect("removed");
    assert!(
        !names
            .iter()
            .any(|name| std::path::Path::new(&name.path).exists())
    );
}

#[test]
fn a_panic_inside_goes_on_outside() {
    let (lab, _) = bridged(1);
    let seen = std::panic::catch_unwind(|| lab.host().run(|| panic!("inside")));
    assert_eq!(
        seen.err().and_then(|e| e.downcast_ref::<&str>().copied()),
        Some("inside")
    );
}

#[test]
fn what_fails_is_named() {
    let (lab, _) = bridged(1);
    let error = lab
        .host()
        .ip("link set nothing up")
        .expect_err("no such device");
    assert!(error.to_string().contains("link set nothing up"), "{error}");
    assert!(error.source.to_string().contains("nothing"), "{error}");
}

/// VMs on a bridge of Open vSwitch.
fn switched(
    vms: u8,
    switch: fn(&Namespace) -> Result<OpenVswitch, LabError>,
) -> (Lab, OpenVswitch, Vec<Vm>) {
    let mut lab = Lab::new("test").expect("root");
    let switch = switch(lab.host()).expect("Open vSwitch is installed");
    switch.add_bridge("br0", false).expect("a bridge");
    let vms = (1..=vms).map(|i| {
        let addresses = [(v4(i), 24), (v6(i.into()), 64)];
        let vm = lab
            .add_vm(&format!("vm{i}"), mac(i), &addresses, Attach::Nothing)
            .expect("a VM");
        vm.offload(Offload::TxChecksum, false).expect("set");
        let ids = [
            ("iface-id", vm.name()),
            ("attached-mac", "52:54:00:00:00:01"),
        ];
        let number = switch.add_port("br0", vm.device(), &ids).expect("a port");
        assert_eq!(number, i.into());
        vm
    });
    let vms = vms.collect();
    (lab, switch, vms)
}

#[test]
fn switched_machines_reach_each_other_and_nothing_is_left_of_the_switch() {
    let (_lab, switch, vms) = switched(2, OpenVswitch::start);
    let _tcp = vms[1].serve_tcp(80).expect("a server");
    let _udp = vms[1].serve_udp(53).expect("a server");
    check_reach(&vms[0], &vms[1]);
    let told = switch.vsctl(&format!("get interface {} external_ids", vms[0].device()));
    let told = told.expect("told");
    assert_eq!(
        told.trim(),
        r#"{attached-mac="52:54:00:00:00:01", iface-id=vm1}"#
    );
    let process = switch.vswitchd_process().expect("it runs");
    let process = format!("/proc/{process}");
    let directory = switch.run_dir().to_owned();
    assert!(std::path::Path::new(&process).exists() && directory.exists());
    drop(switch);
    assert!(!std::path::Path::new(&process).exists() && !directory.exists());
}

#[test]
fn a_killed_switch_forwards_nothing_until_it_is_back() {
    let (_lab, mut switch, vms) = switched(2, OpenVswitch::start);
    let reaches = || vms[0].ping(v4(2), SOON).expect("a ping").is_some();
    // A moment passes until ovs-vswitchd sees that the database is gone.
    let is_cut_off = || {
        let deadline = Instant::now() + SOON;
        let passes = || {
            vms[0]
                .ping(v4(2), Duration::from_millis(50))
                .expect("a ping")
        };
        while passes().is_some() && Instant::now() < deadline {}
        passes().is_none()
    };
    assert!(reaches());
    switch.kill_vswitchd().expect("killed");
    assert!(is_cut_off());
    switch.start_vswitchd().expect("started");
    assert!(reaches());
    // Its main thread, which forwards, now does nothing but look for the database.
    switch.kill_database().expect("killed");
    assert!(is_cut_off());
    switch
        .appctl("version")
        .expect("its control socket is answered");
    switch.start_database().expect("started");
    assert!(reaches());
    // The database is the one that was killed before.
    assert!(switch.vsctl("list-br").expect("told").contains("br0"));
}

#[test]
fn the_clock_of_a_switch_can_be_moved() {
    let (_lab, switch, vms) = switched(2, OpenVswitch::start_with_clock);
    let _udp = vms[1].serve_udp(53).expect("a server");
    for flow in [
        "priority=0,actions=NORMAL",
        "priority=1,udp,tp_dst=53,actions=ct(commit,zone=5),NORMAL",
    ] {
        switch
            .ofctl(&format!("add-flow br0 {flow}"))
            .expect("added");
    }
    let ask = || {
        let answered = vms[0].udp_echo((v4(2), 53).into(), SOON);
        assert!(answered.expect("a datagram"));
    };
    let tracked = || {
        let told = switch.appctl("dpctl/dump-conntrack zone=5").expect("told");
        told.lines().count()
    };
    ask();
    assert_eq!(tracked(), 1);
    switch.warp(Duration::from_secs(10)).expect("warped");
    assert_eq!(tracked(), 1);
    switch.warp(Duration::from_secs(60)).expect("warped");
    assert_eq!(tracked(), 0);
    ask();
    assert_eq!(tracked(), 1);
}

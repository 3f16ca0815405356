//! The plane on real devices: attaching, adopting, detaching, and what a change costs.

use conformance::lab::{Attach as On, Lab, PacketSocket, Vm};
use dataplane::{ApplyReport, DataPlane, Device, Drift, Standing, Target};
use model::{Direction, DropReason, MacAddr, PassReason, PortId, RuleRef, Verdict};
use portcullis_dataplane_ebpf::{Attach, EbpfConfig, EbpfPlane, OpenError};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const POLICY: &str = "
version: 1
networks: { lan: { subnets: [10.0.0.0/24] } }
groups:
  app: { rules: [{ name: out, to: any }] }
  db:
    rules:
      - { name: sql, from: app, protocol: udp, ports: 5000 }
ports:
  app1: { device: app1, mac: 52:54:00:00:00:01, addresses: 10.0.0.1, groups: app }
  db1: { device: db1, mac: 52:54:00:00:00:02, addresses: 10.0.0.2, groups: db }
";

/// A host with a bridge, two VMs, and an instance of the plane.
struct Host {
    lab: Lab,
    app: Vm,
    db: Vm,
    config: EbpfConfig,
    plane: Option<EbpfPlane>,
}

impl Host {
    fn new(attach: Attach) -> Self {
        static HOSTS: AtomicU32 = AtomicU32::new(0);
        let number = HOSTS.fetch_add(1, Ordering::Relaxed);
        let mut lab = Lab::new("kernel").expect("root");
        lab.add_bridge("br0").expect("a bridge");
        let mut vm = |name: &str, last: u8| {
            let address = IpAddr::from([10, 0, 0, last]);
            let mac = MacAddr([0x52, 0x54, 0, 0, 0, last]);
            lab.add_vm(name, mac, &[(address, 24)], On::Bridge("br0"))
        };
        let (app, db) = (vm("app1", 1).expect("a VM"), vm("db1", 2).expect("a VM"));
        let config = EbpfConfig {
            attach,
            ..EbpfConfig::small(format!("pc-kernel-{}-{number}", std::process::id()))
        };
        let mut host = Self {
            lab,
            app,
            db,
            config,
            plane: None,
        };
        host.open().unwrap_or_else(|error| panic!("{error}"));
        host
    }

    fn open(&mut self) -> Result<(), OpenError> {
        self.plane = None;
        let config = self.config.clone();
        self.plane = Some(self.lab.host().run(|| EbpfPlane::open(config))?);
        Ok(())
    }

    fn with<T: Send>(&mut self, ask: impl FnOnce(&mut EbpfPlane) -> T + Send) -> T {
        let plane = self.plane.as_mut().expect("the plane is open");
        self.lab.host().run(|| ask(plane))
    }

    fn target(&self, policy: &str) -> Target {
        let mut target = target(policy);
        for (port, vm) in [("app1", &self.app), ("db1", &self.db)] {
            let ifindex = self.lab.host().ifindex(vm.device()).expect("a device");
            let device = Device {
                name: vm.device().to_owned(),
                ifindex,
            };
            if target.view.ports.contains_key(port) {
                target.devices.insert(port.into(), device);
            } else {
                target.closed.insert(device);
            }
        }
        target
    }

    fn apply(&mut self, policy: &str) -> ApplyReport {
        let target = self.target(policy);
        self.with(|plane| plane.apply(&target))
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// Which of these UDP ports of db1 a packet of app1 reaches. The last must.
    fn reached(&self, l4_ports: &[u16]) -> Vec<u16> {
        let to = self.db.open_packets().expect("a socket");
        let from = self.app.open_packets().expect("a socket");
        for l4_port in l4_ports {
            from.send(&datagram(*l4_port)).expect("sent");
        }
        let mut reached = Vec::new();
        let last = l4_ports.last().expect("some");
        while reached.last() != Some(last) {
            reached.push(next_datagram(&to).expect("the last arrives"));
        }
        reached
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(plane) = &mut self.plane {
            let _ = self.lab.host().run(|| plane.detach());
        }
    }
}

fn target(policy: &str) -> Target {
    let host = "here".into();
    let host = model::HostId::clone(&host);
    let file = policyfile::parse(policy, "policy.yaml", &host);
    let file = file.unwrap_or_else(|errors| panic!("{errors:?}"));
    let (view, findings) = policy::compile(&file.inventory, &file.host);
    assert!(findings.is_empty(), "{findings:?}");
    Target {
        view,
        ..Target::default()
    }
}

fn datagram(l4_port: u16) -> Vec<u8> {
    let (src, dst) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
    let macs = [1, 2].map(|last| MacAddr([0x52, 0x54, 0, 0, 0, last]));
    wire::build::ip(src, dst)
        .udp(40_000, l4_port)
        .macs(macs[0], macs[1])
        .bytes()
}

fn next_datagram(socket: &PacketSocket) -> Option<u16> {
    let udp = |frame: &[u8]| frame.len() > 37 && frame[12..14] == [8, 0] && frame[23] == 17;
    let frame = socket
        .wait_for(Duration::from_secs(5), udp)
        .expect("a socket")?;
    Some(u16::from_be_bytes([frame[36], frame[37]]))
}

fn enforces(attach: Attach) {
    let mut host = Host::new(attach);
    let report = host.apply(POLICY);
    assert_eq!(report.applied.len(), 2);
    assert_eq!(host.reached(&[22, 4999, 5001, 5000]), [5000]);
    assert_eq!(host.with(|plane| plane.audit()).expect("an audit"), []);

    let counters = host.with(|plane| plane.counters()).expect("counters");
    let of_db = &counters.ports["db1"];
    assert_eq!(of_db.drops[&DropReason::NoRule].packets, 3);
    assert_eq!(of_db.half_open, 1);
    let sql = |id: &RuleRef| id.rule.as_str().starts_with("sql");
    let (_, count) = counters
        .rules
        .iter()
        .find(|(id, _)| sql(id))
        .expect("a rule");
    // Its VM's "port unreachable" is counted with the rule of the flow that it is about.
    assert!((1..=2).contains(&count.packets), "{count:?}");

    let flows = host
        .with(|plane| plane.flows(Some(&"db1".into())))
        .expect("flows");
    assert_eq!(flows.len(), 1);
    assert_eq!(
        (flows[0].key.local_l4, flows[0].original),
        (5000, Direction::Ingress)
    );
    assert!(matches!(&flows[0].standing, Standing::Rule(rule) if sql(rule)));

    let samples = host.with(|plane| plane.events()).expect("samples");
    assert!(
        samples
            .iter()
            .any(|s| s.frame == datagram(22) && s.reason == DropReason::NoRule)
    );

    host.with(|plane| plane.detach()).expect("detached");
    assert_eq!(host.reached(&[22, 5000]), [22, 5000]);
    let gone = host
        .with(|plane| EbpfPlane::open_existing(plane.instance()))
        .err();
    assert!(matches!(gone, Some(OpenError::NotRunning { .. })));
    host.apply(POLICY);
    assert_eq!(
        host.reached(&[22, 5000]),
        [5000],
        "it can be put in place again"
    );
}

#[test]
fn enforces_by_tcx() {
    enforces(Attach::Tcx);
}

#[test]
fn enforces_by_clsact() {
    enforces(Attach::Clsact);
}

fn survives(attach: Attach, then: Attach) {
    let mut host = Host::new(attach);
    host.apply(POLICY);
    host.plane = None;
    assert_eq!(
        host.reached(&[22, 5000]),
        [5000],
        "enforcement outlives the process"
    );
    host.config.attach = then;
    host.open().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        host.reached(&[22, 5000]),
        [5000],
        "a new process takes over"
    );
    let view = host.target(POLICY).view;
    host.with(|plane| plane.adopt(&view)).expect("adopted");
    assert_eq!(host.apply(POLICY).writes, 0, "what is found is recognized");
    assert_eq!(host.with(|plane| plane.audit()).expect("an audit"), []);
    let flows = host
        .with(|plane| plane.flows(Some(&"db1".into())))
        .expect("flows");
    assert!(
        matches!(flows[0].standing, Standing::Rule(_)),
        "{:?}",
        flows[0]
    );
}

#[test]
fn survives_its_process() {
    survives(Attach::Tcx, Attach::Tcx);
    survives(Attach::Clsact, Attach::Clsact);
}

#[test]
fn a_new_process_may_attach_the_other_way() {
    survives(Attach::Tcx, Attach::Clsact);
    survives(Attach::Clsact, Attach::Tcx);
}

#[test]
fn a_restart_without_the_old_view_recognizes_what_it_finds() {
    let mut host = Host::new(Attach::Auto);
    host.apply(POLICY);
    host.open().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(host.apply(POLICY).writes, 0);
}

#[test]
fn someone_else_asks_without_moving_anything() {
    let mut host = Host::new(Attach::Auto);
    host.apply(POLICY);
    let view = host.target(POLICY).view;
    let config = host.config.clone();
    let outcome = host.with(move |_| {
        let mut looker = EbpfPlane::open_existing(&config.instance).expect("it is there");
        looker.adopt(&view).expect("adopted");
        looker.dry_run(&"db1".into(), Direction::Ingress, &datagram(5000))
    });
    let outcome = outcome.expect("an answer");
    assert!(
        matches!(outcome.verdict, Verdict::Pass(PassReason::Rule(_))),
        "{outcome:?}"
    );
    assert!(!outcome.flow_found);
    assert_eq!(host.with(|plane| plane.flows(None)).expect("flows"), []);
    let counters = host.with(|plane| plane.counters()).expect("counters");
    assert!(
        counters
            .ports
            .values()
            .all(|c| c.passed_ingress.packets == 0 && c.drops.is_empty())
    );
}

#[test]
fn applying_twice_writes_once() {
    let mut host = Host::new(Attach::Auto);
    assert!(host.apply(POLICY).writes > 0);
    assert_eq!(host.apply(POLICY).writes, 0);
}

#[test]
fn a_change_takes_effect_and_closed_devices_are_closed() {
    let mut host = Host::new(Attach::Auto);
    host.apply(POLICY);
    let other = POLICY.replace("ports: 5000", "ports: [5000, 22]");
    host.apply(&other);
    assert_eq!(host.reached(&[80, 22, 5000]), [22, 5000]);
    host.apply(POLICY);
    assert_eq!(host.reached(&[22, 5000]), [5000]);
    let without: String = POLICY
        .lines()
        .filter(|line| !line.contains("app1"))
        .fold(String::new(), |text, line| text + line + "\n");
    host.apply(&without);
    let to = host.db.open_packets().expect("a socket");
    let from = host.app.open_packets().expect("a socket");
    from.send(&datagram(5000)).expect("sent");
    // Its device belongs to no port any more: nothing passes, and a sample says so.
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    let not_ready = |host: &mut Host| {
        let samples = host.with(|plane| plane.events()).expect("samples");
        samples
            .iter()
            .any(|s| s.reason == DropReason::NotReady && s.port.is_none())
    };
    while !not_ready(&mut host) {
        assert!(std::time::Instant::now() < deadline, "the drop is reported");
    }
    assert!(
        to.receive(Duration::ZERO)
            .expect("a socket")
            .is_none_or(|f| f != datagram(5000))
    );
}

#[test]
fn audit_tells_a_lost_hook_and_the_next_apply_repairs_it() {
    let mut host = Host::new(Attach::Tcx);
    host.apply(POLICY);
    let links = format!("/sys/fs/bpf/portcullis/{}/links", host.config.instance);
    for link in std::fs::read_dir(&links).expect("pins") {
        std::fs::remove_file(link.expect("a pin").path()).expect("removed");
    }
    let drift = host.with(|plane| plane.audit()).expect("an audit");
    let detached: Vec<&PortId> = drift
        .iter()
        .filter_map(|drift| match drift {
            Drift::Detached { port, .. } => Some(port),
            Drift::NotFirst { .. } | Drift::Changed { .. } => None,
        })
        .collect();
    assert_eq!(detached.len(), 2, "{drift:?}");
    host.apply(POLICY);
    assert_eq!(host.with(|plane| plane.audit()).expect("an audit"), []);
    assert_eq!(host.reached(&[22, 5000]), [5000]);
}

#[test]
fn audit_tells_who_is_first_and_leaves_it_there() {
    let mut host = Host::new(Attach::Tcx);
    host.apply(POLICY);
    let mut other = host.config.clone();
    other.instance += "-other";
    let target = host.target(POLICY);
    // Another program of the same kind, put before ours.
    let mut second = host.lab.host().run(|| {
        let mut plane = EbpfPlane::open(other).unwrap_or_else(|error| panic!("{error}"));
        plane.apply(&target).expect("applied");
        plane
    });
    let drift = host.with(|plane| plane.audit()).expect("an audit");
    let first =
        |drift: &Drift| matches!(drift, Drift::NotFirst { first, .. } if first.contains("_port"));
    assert!(drift.len() == 2 && drift.iter().all(first), "{drift:?}");
    assert_eq!(host.apply(POLICY).writes, 0);
    host.lab.host().run(|| second.detach()).expect("detached");
    assert_eq!(host.with(|plane| plane.audit()).expect("an audit"), []);
}

#[test]
fn devices_whose_numbers_collide_are_told_apart() {
    let mut host = Host::new(Attach::Auto);
    let indices = [4_464, 70_000, 135_536];
    let mut target = host.target(POLICY);
    for ifindex in indices {
        let name = format!("pc-d{ifindex}");
        let line = format!("link add {name} index {ifindex} type bridge");
        host.lab.host().ip(&line).expect("a device");
        target.closed.insert(Device { name, ifindex });
    }
    let applied = host.with(|plane| plane.apply(&target)).expect("applied");
    assert!(applied.refused.is_empty());
    assert_eq!(host.with(|plane| plane.audit()).expect("an audit"), []);
    host.apply(POLICY);
    assert_eq!(host.with(|plane| plane.audit()).expect("an audit"), []);
    host.open().unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(host.apply(POLICY).writes, 0, "nothing of theirs is left");
}

#[test]
fn without_privilege_it_says_so() {
    let config = EbpfConfig::small(format!("pc-kernel-{}-nobody", std::process::id()));
    let refused = std::thread::spawn(move || {
        let nobody: libc::c_long = 65534;
        // SAFETY: no pointers; the plain system call changes just this thread, which ends here.
        let answer = unsafe { libc::syscall(libc::SYS_setresuid, nobody, nobody, nobody) };
        assert_eq!(answer, 0, "the test begins with privilege");
        EbpfPlane::open(config).err()
    });
    let refused = refused.join().expect("an answer");
    assert!(
        matches!(refused, Some(OpenError::NoPrivilege { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_device_that_is_taken_is_named_and_the_others_are_served() {
    let mut host = Host::new(Attach::Clsact);
    let device = host.app.device().to_owned();
    // A classic filter of someone else, in the very place that we use.
    let filter = ["bpf", "bytecode", "1,6 0 0 0,", "classid", "1:1"];
    let ran = host.lab.host().run(|| {
        let tc = |arguments: &[&str]| {
            let words = arguments[0]
                .split(' ')
                .chain(arguments[1..].iter().copied());
            let status = std::process::Command::new("tc").args(words).status();
            status.expect("iproute2 is there").success()
        };
        let place = format!("filter add dev {device} ingress pref 1 handle 1");
        tc(&[&format!("qdisc add dev {device} clsact")])
            && tc(&[&[place.as_str()], filter.as_slice()].concat())
    });
    assert!(ran, "tc");
    let report = host.apply(POLICY);
    let refused: Vec<&str> = report.refused.keys().map(PortId::as_str).collect();
    assert_eq!(refused, ["app1"], "{report:?}");
    assert_eq!(host.reached(&[22, 5000]), [5000], "db1's device is guarded");
}

/// A group of so many members, named by one port's rule.
fn members(count: u32) -> String {
    let mut policy = POLICY.replace(
        "mac: 52:54:00:00:00:01, addresses: 10.0.0.1,",
        "mac: 52:54:00:00:00:01, addresses: 10.0.0.1, ",
    );
    policy += "hosts: { here: {}, there: {} }\n";
    for port in ["app1: {", "db1: {"] {
        policy = policy.replace(&format!("  {port}"), &format!("  {port} host: here,"));
    }
    for number in 0..count {
        let [_, _, b, c] = (number + 10).to_be_bytes();
        let ports_end = policy.find("hosts:").expect("hosts come last");
        let line = format!(
            "  m{number}: {{ host: there, network: lan, mac: 52:54:01:00:{b:02x}:{c:02x}, addresses: 10.0.{b}.{c}, groups: app }}\n"
        );
        policy.insert_str(ports_end, &line);
    }
    policy.replace("10.0.0.0/24", "10.0.0.0/8")
}

#[test]
fn one_member_more_costs_a_few_writes() {
    let mut host = Host::new(Attach::Auto);
    let writes = [10, 1000].map(|count| {
        host.apply(&members(count));
        host.apply(&members(count + 1)).writes
    });
    assert_eq!(writes[0], writes[1], "whatever the group's size");
    assert!(writes[0] <= 4, "{} writes", writes[0]);
}

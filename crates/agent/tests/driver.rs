//! The agent as a whole on a real host of its own (a network namespace), with a plane that only notes
//! what it is told: devices come by netlink, the policy by its file, asks by the mailbox.
//!
//! Nothing here waits for a time: each step waits for what must come of it.

use conformance::lab::{Attach, Lab, Namespace, Vm};
use dataplane::{ApplyError, ApplyReport, Capabilities, Counters, DataPlane, Drift, Target};
use model::{
    DeviceMatch, FrozenSet, Host, HostId, Inventory, InventoryChange, Network, NetworkId,
    PeerTrust, Port, PortId, Revision, ScopeId, Settings,
};
use portcullis_agent::devices::{self, LinkEvent};
use portcullis_agent::{
    Ask, Encode, Event, Input, Instance, InstanceError, Link, Lock, Mailbox, Outcome, PolicySource,
    Progress, Setup, Snapshot, Source, drive,
};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Long enough for a busy machine; a test that passes never waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the plane was told, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Apply(String),
    Detach,
}

/// Interface ids by devices' names, as a switch would have them.
type Ids = Arc<Mutex<BTreeMap<String, String>>>;

/// With a gate, an apply ends when the gate lets it.
struct Recorder {
    told: Sender<Told>,
    gate: Option<Receiver<()>>,
    ids: Ids,
}

impl DataPlane for Recorder {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn apply(&mut self, target: &Target) -> Result<ApplyReport, ApplyError> {
        let mut words: Vec<String> = target.view.ports.keys().map(ToString::to_string).collect();
        let devices = target.devices.iter();
        words.extend(devices.map(|(port, device)| format!("{port}={}", device.name)));
        words.extend(target.closed.iter().map(|d| format!("closed={}", d.name)));
        // The test may have seen enough.
        let _ = self.told.send(Told::Apply(words.join(" ")));
        if let Some(gate) = &self.gate {
            gate.recv().expect("the test opens it");
        }
        Ok(ApplyReport {
            revision: target.view.revision,
            applied: target.view.ports.keys().cloned().collect(),
            ..ApplyReport::default()
        })
    }

    fn audit(&mut self) -> Result<Vec<Drift>, ApplyError> {
        Ok(Vec::new())
    }

    fn counters(&mut self) -> Result<Counters, ApplyError> {
        Ok(Counters::default())
    }

    fn interface_ids(&mut self) -> Result<Option<BTreeMap<String, String>>, ApplyError> {
        Ok(Some(self.ids.lock().expect("nobody panics").clone()))
    }

    fn detach(&mut self) -> Result<(), ApplyError> {
        let _ = self.told.send(Told::Detach);
        Ok(())
    }
}

/// Lines of `port device`, or `port @interface-id`; a line `!` is an error.
fn parse(text: &[u8]) -> Result<Inventory, Vec<String>> {
    let text = std::str::from_utf8(text).map_err(|e| vec![e.to_string()])?;
    let host = HostId::new("h");
    let network = NetworkId::new("lan");
    let mut inventory = Inventory {
        hosts: BTreeMap::from([(
            host.clone(),
            Host {
                id: host.clone(),
                tunnel_address: None,
                peer_trust: PeerTrust::default(),
                settings: Settings::default(),
            },
        )]),
        networks: BTreeMap::from([(
            network.clone(),
            Network {
                id: network.clone(),
                scope: ScopeId::new("s"),
                vni: None,
                mtu: None,
                subnets: BTreeSet::new(),
                dhcp_servers: BTreeSet::new(),
                routers: BTreeSet::new(),
                eui64_only: false,
            },
        )]),
        ..Inventory::default()
    };
    for (number, line) in text.lines().enumerate() {
        let (port, device) = line
            .split_once(' ')
            .ok_or_else(|| vec![format!("line {}: no device", number + 1)])?;
        let id = PortId::new(port);
        inventory.ports.insert(
            id.clone(),
            Port {
                id,
                network: network.clone(),
                host: Some(host.clone()),
                device: match device.strip_prefix('@') {
                    Some(id) => DeviceMatch::InterfaceId(id.to_owned()),
                    None => DeviceMatch::Name(device.to_owned()),
                },
                moving: None,
                mac: model::MacAddr([2, 0, 0, 0, 0, number as u8]),
                fixed_addresses: FrozenSet::new(),
                address_pairs: FrozenSet::new(),
                groups: FrozenSet::new(),
                port_security: true,
                dhcp_server: false,
                router: false,
            },
        );
    }
    Ok(inventory)
}

/// What `parse` reads.
fn text(inventory: &Inventory) -> Vec<u8> {
    let lines = inventory.ports.iter().map(|(id, port)| match &port.device {
        DeviceMatch::Name(name) => format!("{id} {name}\n"),
        other => panic!("not in these tests: {other:?}"),
    });
    lines.collect::<String>().into_bytes()
}

struct Bed {
    lab: Lab,
    root: tempfile::TempDir,
    ids: Ids,
}

struct Running {
    mailbox: Mailbox,
    told: Receiver<Told>,
    thread: JoinHandle<Outcome>,
}

impl Bed {
    fn new() -> Self {
        Self {
            lab: Lab::new("driver").expect("a lab; it needs root"),
            root: tempfile::tempdir().expect("a directory"),
            ids: Ids::default(),
        }
    }

    fn policy(&self) -> PathBuf {
        self.root.path().join("policy.yaml")
    }

    fn write(&self, text: &str) {
        fs::write(self.policy(), text).expect("it can be written");
    }

    fn instance(&self) -> Instance {
        let root = self.root.path();
        Instance::new("pc-test", &root.join("run"), &root.join("state")).expect("a name")
    }

    fn ip(&self, lines: &str) {
        self.lab.host().ip(lines).expect("ip does it");
    }

    fn start(&self) -> Running {
        self.start_with(None, false)
    }

    fn start_with(&self, confirm: Option<Duration>, guard: bool) -> Running {
        self.start_behind(None, confirm, guard)
    }

    fn start_behind(
        &self,
        gate: Option<Receiver<()>>,
        confirm: Option<Duration>,
        guard: bool,
    ) -> Running {
        let policy = PolicySource::File {
            path: self.policy(),
            parse: Arc::new(parse),
        };
        self.start_by(policy, gate, confirm, guard)
    }

    /// Without a file; the policy comes by the mailbox. And what the server is told.
    fn start_served(&self) -> (Running, Receiver<Progress>) {
        let (tell, progress) = channel();
        let policy = PolicySource::Server {
            encode: Encode::new(text),
            decode: Arc::new(parse),
            tell: Box::new(move |now| drop(tell.send(now))),
            departed: Box::new(|_, _| {}),
        };
        (self.start_by(policy, None, None, false), progress)
    }

    fn start_by(
        &self,
        policy: PolicySource,
        gate: Option<Receiver<()>>,
        confirm: Option<Duration>,
        guard: bool,
    ) -> Running {
        let instance = self.instance();
        let (mailbox, inputs) = Mailbox::new();
        let (tell, told) = channel();
        let setup = Setup {
            host: HostId::new("h"),
            policy,
            confirm,
            guard: guard.then(BTreeSet::new),
            instance,
        };
        let to = mailbox.clone();
        let ids = self.ids.clone();
        let host: &Namespace = self.lab.host();
        let thread = host.spawn(move || {
            let _lock = lock(&setup.instance);
            let mut plane = Recorder {
                told: tell,
                gate,
                ids,
            };
            drive(&mut plane, setup, &to, &inputs, |_| {}).expect("it starts")
        });
        Running {
            mailbox,
            told,
            thread,
        }
    }
}

/// A process that another test starts at this moment holds copies of all open files until it has begun,
/// that of the last agent's lock too.
fn lock(instance: &Instance) -> Lock {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        match instance.lock() {
            Ok(lock) => return lock,
            Err(InstanceError::Running { .. }) if Instant::now() < end => std::thread::yield_now(),
            Err(error) => panic!("no other agent runs: {error}"),
        }
    }
}

impl Running {
    fn send(&self, event: Event) {
        assert!(self.mailbox.send(Input::Event(event)));
    }

    fn next(&self) -> Told {
        self.told
            .recv_timeout(PATIENCE)
            .expect("the plane is told something")
    }

    fn expect(&self, words: &str) {
        assert_eq!(self.next(), Told::Apply(words.to_owned()));
    }

    /// Other things may be told on the way: a device comes by several messages.
    fn expect_in_the_end(&self, words: &str) {
        let wanted = Told::Apply(words.to_owned());
        while self.next() != wanted {}
    }

    fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Ask) -> T {
        let (sender, receiver) = channel();
        assert!(self.mailbox.send(Input::Ask(question(sender))));
        receiver.recv_timeout(PATIENCE).expect("it answers")
    }

    /// Asked until it is as wanted: the agent works behind its answers.
    fn status_until(&self, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
        for _ in 0..10_000 {
            let snapshot = self.ask(Ask::Status).snapshot;
            if wanted(&snapshot) {
                return snapshot;
            }
            std::thread::yield_now();
        }
        panic!("the agent never came to be as wanted");
    }

    fn stop(self) -> Outcome {
        self.mailbox.send(Input::Event(Event::StopAsked));
        self.thread.join().expect("it doesn't panic")
    }
}

#[test]
fn edits_are_followed_and_an_invalid_one_changes_nothing() {
    let bed = Bed::new();
    bed.write("web tap1\n");
    let agent = bed.start();
    agent.expect("web");
    bed.write("web tap1\ndb tap2\n");
    agent.expect("db web");
    bed.write("nonsense\n");
    let snapshot = agent.status_until(|s| !s.policy_errors.is_empty());
    assert_eq!(snapshot.policy_errors, ["line 1: no device"]);
    assert_eq!(snapshot.applied, snapshot.read);
    bed.write("web tap1\n");
    agent.expect("web");
    assert!(matches!(agent.stop(), Outcome::Stopped));
}

#[test]
fn devices_come_and_go() {
    let bed = Bed::new();
    bed.write("web pc-t1\n");
    let agent = bed.start();
    agent.expect("web");
    bed.ip("link add pc-t1 type veth peer name pc-peer\nlink set pc-t1 up");
    agent.expect_in_the_end("web web=pc-t1");
    let snapshot = agent.status_until(|s| s.arming.devices == 1);
    assert!(snapshot.arming.p99 < PATIENCE);
    bed.ip("link set pc-t1 down\nlink set pc-t1 name pc-t2");
    agent.expect_in_the_end("web closed=pc-t2");
    bed.ip("link set pc-t2 name pc-t1");
    agent.expect_in_the_end("web web=pc-t1");
    bed.ip("link del pc-t1");
    agent.expect_in_the_end("web");
    agent.stop();
}

#[test]
fn an_interface_id_is_seen_when_it_is_set_and_when_it_is_taken_away() {
    let bed = Bed::new();
    let set = |device: &str, id: &str| {
        let mut ids = bed.ids.lock().expect("nobody panics");
        ids.insert(device.to_owned(), id.to_owned());
    };
    bed.ip("link add pc-t1 type veth peer name pc-peer\nlink set pc-t1 up");
    bed.write("web @a\n");
    let agent = bed.start();
    agent.expect("web");
    set("pc-t1", "a");
    agent.expect("web web=pc-t1");
    set("pc-peer", "a");
    agent.expect("web closed=pc-t1");
    let findings = agent.ask(Ask::Status).snapshot.findings;
    assert!(findings[0].contains("interface id a"), "{findings:?}");
    set("pc-peer", "b");
    agent.expect("web web=pc-t1");
    agent.stop();
}

#[test]
fn a_thousand_changes_during_an_apply_make_one_more() {
    const DEVICES: u32 = 1_000;
    let bed = Bed::new();
    let policy: String = (0..DEVICES).map(|i| format!("p{i} pc-{i}\n")).collect();
    bed.write(&policy);
    let (release, gate) = channel();
    let agent = bed.start_behind(Some(gate), None, false);
    agent.next();
    for number in 0..DEVICES {
        let link = Link {
            ifindex: 1_000 + number,
            name: format!("pc-{number}"),
            master: None,
            interface_id: None,
            mac: None,
            kind: None,
            up: true,
        };
        assert!(agent.mailbox.send(Input::Event(Event::DeviceSeen {
            link,
            at: Duration::ZERO,
        })));
    }
    release.send(()).expect("the plane waits for it");
    let Told::Apply(words) = agent.next() else {
        panic!("nobody asked to detach");
    };
    assert_eq!(words.matches('=').count(), DEVICES as usize);
    release.send(()).expect("the plane waits for it");
    agent.status_until(|s| s.ports.values().all(|p| p.device.is_some()));
    assert_eq!(agent.told.try_iter().count(), 0);
    agent.stop();
}

#[test]
fn the_next_agent_goes_on_where_the_last_one_stopped() {
    let bed = Bed::new();
    bed.ip("link add pc-t1 type veth peer name pc-t2");
    bed.write("web pc-t1\ndb pc-t2\n");
    let agent = bed.start();
    agent.expect("db web db=pc-t2 web=pc-t1");
    let before = agent.status_until(|s| s.applied.is_some());
    agent.stop();
    // In between a port goes; its device is still ours.
    bed.write("web pc-t1\n");
    let agent = bed.start();
    agent.expect("web web=pc-t1 closed=pc-t2");
    let after = agent.status_until(|s| s.applied.is_some());
    assert!(after.applied > before.applied);
    agent.stop();
}

#[test]
fn the_cached_policy_stands_in_for_a_broken_file() {
    let bed = Bed::new();
    bed.write("web tap1\n");
    let agent = bed.start();
    agent.expect("web");
    let first = agent.status_until(|s| s.applied.is_some());
    agent.stop();
    bed.write("broken\n");
    let agent = bed.start();
    agent.expect("web");
    let snapshot = agent.status_until(|s| s.applied.is_some());
    assert_eq!(snapshot.source, Some(Source::Cache));
    assert_eq!(snapshot.applied, first.applied);
    assert_eq!(snapshot.policy_errors, ["line 1: no device"]);
    bed.write("web tap1\ndb tap2\n");
    agent.expect("db web");
    let snapshot = agent.status_until(|s| s.applied > first.applied);
    assert_eq!(snapshot.source, Some(Source::File));
    agent.stop();
}

#[test]
fn a_server_is_followed_without_any_file_and_its_policy_outlives_it() {
    let bed = Bed::new();
    let revision = |commit| Revision { epoch: 9, commit };
    let whole = |commit, text: &str| {
        let mut inventory = parse(text.as_bytes()).expect("a policy");
        inventory.revision = revision(commit);
        inventory
    };
    let (agent, progress) = bed.start_served();
    agent.send(Event::InventoryReplaced(whole(3, "web tap1\n")));
    agent.expect("web");
    let more = InventoryChange {
        revision: revision(4),
        ports: whole(4, "db tap2\n")
            .ports
            .into_iter()
            .map(|(id, port)| (id, Some(port)))
            .collect(),
        ..InventoryChange::default()
    };
    agent.send(Event::InventoryChanged(more));
    agent.expect("db web");
    let snapshot = agent.status_until(|s| s.applied == Some(revision(4)));
    assert_eq!(snapshot.source, Some(Source::Server));
    assert!(matches!(agent.stop(), Outcome::Stopped));
    // No device is there; and nothing was told that wasn't so yet.
    let told: Vec<Progress> = progress.try_iter().collect();
    let not_enforced = snapshot.ports.into_iter();
    let not_enforced = not_enforced.map(|(id, port)| (id, port.state)).collect();
    let last = Progress {
        applied: Some(revision(4)),
        not_enforced,
    };
    assert_eq!(told.last(), Some(&last));
    assert!(told.is_sorted_by_key(|progress| progress.applied));

    let (agent, _progress) = bed.start_served();
    agent.send(Event::ServerUnreached("no route".to_owned()));
    agent.expect("db web");
    let snapshot = agent.status_until(|s| s.applied.is_some());
    assert_eq!(
        (snapshot.source, snapshot.applied),
        (Some(Source::Cache), Some(revision(4)))
    );
    agent.send(Event::InventoryReplaced(whole(7, "app tap3\n")));
    agent.expect("app");
    agent.stop();
}

#[test]
fn a_damaged_cache_is_not_used() {
    let bed = Bed::new();
    bed.write("web tap1\n");
    let agent = bed.start();
    agent.expect("web");
    agent.status_until(|s| s.applied.is_some());
    agent.stop();
    flip_last_byte(&bed.instance().cache_path());
    bed.write("broken\n");
    let agent = bed.start();
    let outcome = agent.thread.join().expect("it doesn't panic");
    assert!(
        matches!(&outcome, Outcome::NoPolicy(errors) if errors == &["line 1: no device"]),
        "{outcome:?}"
    );
    assert!(agent.told.recv().is_err(), "the plane is told nothing");
}

fn flip_last_byte(path: &Path) {
    let mut bytes = fs::read(path).expect("it was cached");
    *bytes.last_mut().expect("it isn't empty") ^= 1;
    fs::write(path, bytes).expect("it can be written");
}

#[test]
fn a_first_enforcement_is_rolled_back_or_confirmed() {
    let bed = Bed::new();
    bed.write("web tap1\n");
    let agent = bed.start_with(Some(Duration::from_millis(50)), false);
    agent.expect("web");
    assert_eq!(agent.next(), Told::Detach);
    let outcome = agent.thread.join().expect("it doesn't panic");
    assert!(matches!(outcome, Outcome::RolledBack), "{outcome:?}");

    let agent = bed.start_with(Some(PATIENCE), false);
    agent.expect("web");
    agent.status_until(|s| s.confirm_left.is_some());
    assert!(agent.ask(Ask::Confirm));
    assert!(!agent.ask(Ask::Confirm), "there is nothing left to confirm");
    agent.stop();
    // What stands needs no confirming any more.
    let agent = bed.start_with(Some(PATIENCE), false);
    agent.expect("web");
    let snapshot = agent.status_until(|s| s.applied.is_some());
    assert_eq!(snapshot.confirm_left, None);
    agent.stop();
}

#[test]
fn detach_removes_enforcement_and_ends_the_agent() {
    let bed = Bed::new();
    bed.write("web tap1\n");
    let agent = bed.start();
    agent.expect("web");
    agent.status_until(|s| s.applied.is_some());
    assert!(bed.instance().is_confirmed());
    assert_eq!(agent.ask(Ask::Detach), Ok(()));
    assert_eq!(agent.next(), Told::Detach);
    let outcome = agent.thread.join().expect("it doesn't panic");
    assert!(matches!(outcome, Outcome::Detached), "{outcome:?}");
    assert!(!bed.instance().is_confirmed());
}

#[test]
fn the_guard_drops_on_the_bridge_until_a_device_is_armed() {
    let mut bed = Bed::new();
    bed.lab.add_bridge("pc-br").expect("a bridge");
    let mac = |last| model::MacAddr([0x52, 0x54, 0, 0, 0, last]);
    let attach = Attach::Bridge("pc-br");
    let address = |last| [(std::net::IpAddr::from([10, 9, 0, last]), 24)];
    let one = bed
        .lab
        .add_vm("a", mac(1), &address(1), attach)
        .expect("a VM");
    // A VM's device is named after it; this one's isn't there yet.
    let late = format!("{}b", one.device().strip_suffix('a').expect("its name"));
    let three = bed
        .lab
        .add_vm("c", mac(3), &address(3), attach)
        .expect("a VM");
    let reaches_in = |vm: &Vm, ms| {
        one.ping(vm.addresses()[0], Duration::from_millis(ms))
            .expect("ping works")
            .is_some()
    };
    // ARP asks again after a second, and a whole one may have been dropped.
    let reaches = |vm: &Vm| reaches_in(vm, 10_000);
    assert!(reaches(&three), "without an agent nothing is dropped");

    bed.write(&format!("a {}\nb {late}\n", one.device()));
    let agent = bed.start_with(None, true);
    agent.expect(&format!("a b a={}", one.device()));
    agent.status_until(|s| s.applied.is_some());
    assert!(
        reaches(&three),
        "an armed device passes, and so does one that nobody named"
    );
    agent.stop();
    // The agent is gone, so nobody arms what comes; the guard has stayed.
    let two = bed
        .lab
        .add_vm("b", mac(2), &address(2), attach)
        .expect("a VM");
    assert_eq!(two.device(), late);
    assert!(
        !reaches_in(&two, 300),
        "a device that is not armed passes nothing"
    );
    assert!(reaches(&three), "the others do");
    let agent = bed.start_with(None, true);
    agent.expect(&format!("a b a={} b={late}", one.device()));
    agent.status_until(|s| s.applied.is_some());
    assert!(reaches(&two), "it is armed now");
    agent.stop();
    // An agent without a guard takes it away, too: it would arm nothing for it.
    let agent = bed.start();
    agent.expect(&format!("a b a={} b={late}", one.device()));
    agent.status_until(|s| s.applied.is_some());
    bed.lab.remove_vm(&two).expect("it is there");
    let two = bed
        .lab
        .add_vm("b", mac(2), &address(2), attach)
        .expect("a VM");
    agent.expect_in_the_end(&format!("a b a={} b={late}", one.device()));
    agent.stop();
    bed.lab.remove_vm(&two).expect("it is there");
    let two = bed
        .lab
        .add_vm("b", mac(2), &address(2), attach)
        .expect("a VM");
    assert!(reaches(&two), "there is no guard any more");
}

#[test]
fn devices_are_listed_anew_when_messages_were_lost() {
    const ROOM_BYTES: usize = 4_096;
    /// More than there is room for.
    const PAIRS: usize = 100;
    let bed = Bed::new();
    let (tell, told) = std::sync::mpsc::sync_channel(0);
    let thread = bed
        .lab
        .host()
        .spawn(move || devices::follow(ROOM_BYTES, |event| tell.send(event).is_ok()));
    let LinkEvent::Listed(first) = told.recv().expect("a list") else {
        panic!("the list comes first");
    };
    let known: Vec<&str> = first.iter().map(|l| l.name.as_str()).collect();
    assert_eq!(known, ["lo"]);
    let lines: String = (0..PAIRS)
        .map(|i| format!("link add pc-a{i} type veth peer name pc-b{i}\n"))
        .collect();
    // Nobody takes an event meanwhile.
    bed.ip(&lines);
    let listed = told
        .iter()
        .find_map(|event| match event {
            LinkEvent::Listed(links) => Some(links),
            LinkEvent::Seen(_) | LinkEvent::Gone { .. } => None,
        })
        .expect("another list");
    assert_eq!(listed.len(), 2 * PAIRS + 1);
    drop(told);
    bed.ip("link set pc-a0 up");
    thread
        .join()
        .expect("it doesn't panic")
        .expect("it ends when no one listens");
}

#[test]
fn whoever_asks_hears_that_devices_changed() {
    let bed = Bed::new();
    let mut changes = bed.lab.host().run(devices::Changes::subscribe);
    let changes = changes.as_mut().expect("the kernel tells");
    assert!(!changes.any());
    for line in [
        "link add pc-a type veth peer name pc-b",
        "link set pc-a up",
        "link set pc-a down",
        "link delete pc-a",
    ] {
        bed.ip(line);
        assert!(changes.any(), "{line}");
        assert!(!changes.any(), "{line}");
    }
    // Far more than there is room for.
    let lines: String = (0..300)
        .map(|i| format!("link add pc-a{i} type veth peer name pc-b{i}\n"))
        .collect();
    bed.ip(&lines);
    assert!(changes.any());
    assert!(!changes.any());
}

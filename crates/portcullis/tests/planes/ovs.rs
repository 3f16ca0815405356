//! The agent on a switch of its own: VMs hang on a bridge of Open vSwitch.

use crate::agent::{Agent, BIN, PATIENCE, wait_until};
use crate::explaining::{
    IN, OUT, Open, by_rules_and_guard, leaves_no_trace, untracked_and_unguarded,
};
use crate::machines::Machines;
use conformance::lab::{Attach, Lab, Offload, OpenVswitch};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

pub(crate) const BRIDGE: &str = "pc-ovs";
/// For what must not come: a SYN that is answered is answered at once.
pub(crate) const SHORT: Duration = Duration::from_millis(300);

struct Bed {
    machines: Machines,
    agent: Agent,
    switch: OpenVswitch,
    _lab: Lab,
}

impl Bed {
    /// Nothing is enforced yet.
    fn new(secure: bool) -> Self {
        let mut lab = Lab::new("ovs").expect("a lab; it needs root");
        let switch = OpenVswitch::start(lab.host()).expect("Open vSwitch");
        switch.add_bridge(BRIDGE, secure).expect("a bridge");
        let machines = Machines::new(&mut lab, Attach::Nothing);
        let Machines {
            web,
            open,
            free,
            client,
            ..
        } = &machines;
        for vm in [web, open, free, client] {
            vm.offload(Offload::TxChecksum, false).expect("it is set");
        }
        for vm in [web, open, free] {
            let added = switch.add_port(BRIDGE, vm.device(), &[]);
            added.expect("the bridge takes it");
        }
        let network = [("portcullis-network", "lan")];
        let added = switch.add_port(BRIDGE, client.device(), &network);
        added.expect("the bridge takes it");
        let bed = Self {
            machines,
            agent: Agent::new(lab.host(), &settings(&switch)),
            switch,
            _lab: lab,
        };
        bed.allow(80);
        bed
    }

    /// What `web` may be asked for.
    fn allow(&self, l4_port: u16) {
        self.agent.write(&self.machines.policy(l4_port));
    }

    /// Until the file's last edit is in force.
    fn edited(&self, edit: impl FnOnce()) {
        let before = self.agent.applied();
        edit();
        self.agent.wait_for_another(&before);
    }

    /// Whether the client reaches 80 and 81 of `web`, by both families.
    fn check_reached(&self, expected: [bool; 2]) {
        for server in self.machines.web.addresses() {
            for (l4_port, expected) in [80, 81].into_iter().zip(expected) {
                let timeout = if expected { PATIENCE } else { SHORT };
                let reached = self.machines.connect(*server, l4_port, timeout).is_some();
                assert_eq!(reached, expected, "{server}, port {l4_port}");
            }
        }
    }

    /// Each flow of the bridge by what it is, and for how many milliseconds it has been there.
    fn flows(&self) -> BTreeMap<String, u64> {
        let dump = self.switch.ofctl(&format!("dump-flows {BRIDGE}"));
        let dump = dump.expect("it can be asked");
        let lines = dump.lines().filter(|line| line.contains("table="));
        let flows = lines.map(|line| {
            let (cookie, rest) = line.trim().split_once(", duration=").expect("it has one");
            let (duration, rest) = rest.split_once("s, ").expect("seconds");
            let seconds: f64 = duration.parse().expect("a number");
            let fields = rest.split([',', ' ']).filter(|field| !is_volatile(field));
            let fields: Vec<&str> = fields.collect();
            (
                format!("{cookie} {}", fields.join(",")),
                (seconds * 1e3) as u64,
            )
        });
        flows.collect()
    }

    /// All that is loaded, counted and remembered in the switch, but for when.
    fn traces(&self) -> Vec<String> {
        let flows = self.switch.ofctl(&format!("dump-flows {BRIDGE}"));
        let mut learned = self.switch.appctl(&format!("fdb/show {BRIDGE}"));
        let connections = self.switch.appctl("dpctl/dump-conntrack");
        if let Ok(table) = &mut learned {
            // The last column is the age.
            let lines = table
                .lines()
                .map(|line| line.trim_end_matches(char::is_numeric));
            *table = lines.collect::<Vec<_>>().join("\n");
        }
        let texts = [flows, learned, connections].map(|text| text.expect("it can be asked"));
        let mut lines = Vec::new();
        for line in texts.iter().flat_map(|text| text.lines()) {
            let moving = ["duration=", "idle_age=", "NXST_FLOW", "timeout="];
            let fields = line.split(',').filter(|field| {
                let field = field.trim();
                !moving.iter().any(|moving| field.starts_with(moving))
            });
            lines.push(fields.collect::<Vec<_>>().join(","));
        }
        lines.sort();
        lines
    }
}

/// Of the environment of an agent of this switch.
pub(crate) fn settings(switch: &OpenVswitch) -> [(&'static str, &OsStr); 3] {
    [
        ("PORTCULLIS_INSTANCE", "pc-ovs".as_ref()),
        ("PORTCULLIS_PLANE", "ovs".as_ref()),
        ("PORTCULLIS_OVS_RUN_DIR", switch.run_dir().as_os_str()),
    ]
}

/// Of a flow, what goes on by itself.
fn is_volatile(field: &str) -> bool {
    let fields = ["n_packets=", "n_bytes=", "idle_age=", "hard_age="];
    field.is_empty() || fields.iter().any(|volatile| field.starts_with(volatile))
}

fn says(output: &Output, code: i32, text: &str) {
    let all = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(output.status.code(), Some(code), "{all}");
    assert!(all.contains(text), "{text:?} is not in:\n{all}");
}

#[test]
fn a_policy_is_enforced_and_edits_are_on_a_bridge_of_either_kind() {
    for secure in [false, true] {
        let mut bed = Bed::new(secure);
        bed.agent.start(&[]);
        bed.check_reached([true, false]);
        bed.edited(|| bed.allow(81));
        bed.check_reached([false, true]);
        let status = bed.agent.status();
        for (place, port, device) in [
            (0, "free", bed.machines.free.device()),
            (1, "open", bed.machines.open.device()),
            (2, "web", bed.machines.web.device()),
        ] {
            let shown = &status["ports"][place];
            assert_eq!(shown["port"], port, "{status:#}");
            assert_eq!(shown["device"], device, "{status:#}");
            assert_eq!(shown["state"], "enforced", "{status:#}");
        }
        let drops = &status["ports"][2]["drops"]["no-rule"]["packets"];
        assert!(drops.as_u64().is_some_and(|n| n > 0), "{status:#}");
        assert!(status["ports"][2]["flows"].as_u64() > Some(0), "{status:#}");
    }
}

#[test]
fn a_killed_agents_successor_writes_no_flow() {
    let mut bed = Bed::new(false);
    bed.agent.start(&[]);
    let stream = bed
        .machines
        .connect(bed.machines.web.addresses()[0], 80, PATIENCE);
    let stream = stream.expect("80 is open");
    bed.agent.kill();
    bed.check_reached([true, false]);
    let status = bed.agent.status();
    assert_eq!(status["agent"], Value::Null);
    assert_eq!(status["drift"], json!([]), "{status:#}");
    assert_eq!(status["ports"][2]["port"], "web");
    assert_eq!(status["ports"][2]["device"], bed.machines.web.device());
    let from = stream.local_addr().expect("it has one");
    let flows = bed.agent.portcullis(&["flows", "web", "-o", "json"]);
    let flows: Value = serde_json::from_slice(&flows.stdout).expect("it is JSON");
    let flows = flows.as_array().expect("a list");
    let flow = flows.iter().find(|flow| flow["remote"] == from.to_string());
    let flow = flow.expect("the connection is tracked");
    assert_eq!(flow["local"], "10.9.0.1:80");
    assert_eq!(flow["started"], "in");
    assert_eq!(flow["state"], "established");
    assert_eq!(flow["replied"], true);
    assert_eq!(flow["rule"], "g/open.v4");

    let before = bed.flows();
    bed.agent.start(&[]);
    bed.edited(|| {
        // The same in other words.
        let text = fs::read_to_string(bed.agent.policy()).expect("it is there");
        bed.agent.write(&format!("{text}# again\n"));
    });
    let after = bed.flows();
    let [keys, new] = [&before, &after].map(|flows| flows.keys().collect::<Vec<_>>());
    assert_eq!(keys, new);
    for (flow, duration) in &before {
        assert!(after[flow] >= *duration, "written anew: {flow}");
    }
    let log = bed.agent.kill();
    assert!(!log.contains("not the cached policy"), "{log}");
    assert!(log.contains("writes=0"), "{log}");
}

/// The policy of two hosts, of which this one is `here`.
fn between_hosts(bed: &Bed, settings: &str) {
    let (device, mac) = (bed.machines.web.device(), bed.machines.web.mac());
    let text = format!(
        "version: 1\n{settings}
hosts: {{ here: {{ tunnel-address: 192.0.2.1 }}, there: {{ tunnel-address: 192.0.2.2 }} }}
networks: {{ lan: {{ subnets: [10.9.0.0/24], vni: 7 }} }}
groups: {{ g: {{ tag: 1, rules: [{{ from: g, protocol: tcp, ports: 80 }}] }} }}
ports:
  web: {{ host: here, device: {device}, mac: '{mac}', addresses: 10.9.0.1, groups: g }}
  far: {{ host: there, mac: '52:54:00:00:09:63', addresses: 10.9.0.99, groups: g }}
"
    );
    bed.agent.write(&text);
}

/// All flows of a switch that had none before.
fn loaded_between_hosts(settings: &str, options: &[&str]) -> BTreeSet<String> {
    let mut bed = Bed::new(true);
    between_hosts(&bed, settings);
    bed.agent.start(&[&["--host", "here"], options].concat());
    let (_, explained) = bed
        .agent
        .explain("web", IN, "tcp 10.9.0.99:1024 -> 10.9.0.1:80");
    assert_eq!(explained["differ"], false, "{explained:#}");
    bed.agent.kill();
    // Without an agent that knows, it has to be said once more.
    let alone = bed
        .agent
        .portcullis(&[&["status", "-o", "json"], options].concat());
    let status: Value = serde_json::from_slice(&alone.stdout).expect("it is JSON");
    assert_eq!(status["drift"], json!([]), "{status:#}");
    // Machines say something of their own accord: what comes of that is no policy.
    let by_itself = |flow: &String| {
        let cookies = ["0x706f7203", "0x706f7204"];
        cookies.iter().any(|cookie| flow.contains(cookie))
    };
    let flows = bed.flows().into_keys();
    flows.filter(|flow| !by_itself(flow)).collect()
}

#[test]
fn the_command_line_says_where_receivers_of_other_hosts_are_asked() {
    let destination = loaded_between_hosts("", &[]);
    for name in ["source", "both", "destination"] {
        let settings = format!("settings: {{ inspection: {name} }}");
        let by_file = loaded_between_hosts(&settings, &[]);
        let other = if name == "both" { "source" } else { "both" };
        let settings = format!("settings: {{ inspection: {other} }}");
        let by_option = loaded_between_hosts(&settings, &["--inspection", name]);
        let differing: Vec<_> = by_file.symmetric_difference(&by_option).collect();
        assert_eq!(differing, [""; 0], "{name}");
        assert_eq!(by_file == destination, name == "destination", "{name}");
    }
}

#[test]
fn detaching_leaves_nothing_of_ours_and_all_of_others() {
    let mut bed = Bed::new(false);
    let others = [
        "table=0,priority=7,cookie=0x77,udp,tp_dst=9999,actions=drop",
        "table=17,priority=7,cookie=0x77,actions=NORMAL",
    ];
    for flow in others {
        let added = bed.switch.ofctl(&format!("add-flow {BRIDGE} {flow}"));
        added.expect("it is added");
    }
    let set = format!("set bridge {BRIDGE} external_ids:somebodys=own");
    bed.switch.vsctl(&set).expect("it is set");
    let before: Vec<String> = bed.flows().into_keys().collect();
    says(
        &bed.agent.portcullis(&["status"]),
        4,
        "nothing is enforced here",
    );
    says(
        &bed.agent.portcullis(&["detach"]),
        0,
        "nothing was enforced here",
    );
    let shown = |what: &str| bed.switch.vsctl(what).expect("it can be asked");
    let ids = || shown(&format!("get bridge {BRIDGE} external_ids"));
    let tables = || shown("list CT_Zone") + &shown("list CT_Timeout_Policy");
    let floods = || bed.switch.ofctl(&format!("show {BRIDGE}")).expect("asked");
    let (ids_before, tables_before, floods_before) = (ids(), tables(), floods());
    for agent_ends_it in [true, false] {
        bed.agent.start(&[]);
        let flows = bed.flows();
        // But for what the switch writes by itself where nobody else does.
        let mut others = before.iter().filter(|flow| flow.contains("0x77"));
        assert!(others.all(|flow| flows.contains_key(flow)));
        assert!(flows.len() > before.len() + 100);
        assert_ne!(
            [ids(), tables(), floods()],
            [&ids_before, &tables_before, &floods_before].map(Clone::clone)
        );
        bed.check_reached([true, false]);
        if !agent_ends_it {
            bed.agent.kill();
        }
        says(&bed.agent.portcullis(&["detach"]), 0, "enforcement removed");
        if agent_ends_it {
            bed.agent.end();
        }
        assert_eq!(bed.flows().into_keys().collect::<Vec<_>>(), before);
        assert_eq!(ids(), ids_before);
        assert_eq!(tables(), tables_before);
        assert_eq!(floods(), floods_before);
        bed.check_reached([true, true]);
    }
}

#[test]
fn a_device_that_comes_to_a_bridge_later_is_armed() {
    let mut bed = Bed::new(false);
    let device = bed.machines.web.device().to_owned();
    for vm in [&bed.machines.web, &bed.machines.open, &bed.machines.free] {
        let gone = format!("del-port {BRIDGE} {}", vm.device());
        bed.switch.vsctl(&gone).expect("it is gone");
    }
    bed.agent.start(&[]);
    let status = bed.agent.status();
    let why = status["ports"][2]["why"].as_str().unwrap_or_default();
    assert!(why.contains("on no bridge of Open vSwitch"), "{status:#}");
    let added = bed.switch.add_port(BRIDGE, &device, &[]);
    added.expect("the bridge takes it");
    wait_until("it is enforced", || {
        bed.agent.status()["ports"][2]["state"] == "enforced"
    });
    bed.check_reached([true, false]);
}

#[test]
fn flows_that_somebody_deletes_and_a_restarted_switch_are_seen_to() {
    let mut bed = Bed::new(true);
    bed.agent.start(&[]);
    bed.check_reached([true, false]);
    let delete = format!("del-flows {BRIDGE}");
    bed.switch.ofctl(&delete).expect("they are gone");
    bed.check_reached([true, false]);
    bed.switch.kill_vswitchd().expect("it is killed");
    bed.switch.start_vswitchd().expect("it starts");
    bed.check_reached([true, false]);
    let log = bed.agent.kill();
    assert!(log.contains("flows of bridge pc-ovs"), "{log}");
}

#[test]
fn what_it_is_not_for_is_refused() {
    let root = tempfile::tempdir().expect("a directory");
    let policy = root.path().join("policy.yaml");
    fs::write(&policy, "version: 1\nports: {}\n").expect("it can be written");
    let policy = policy.to_str().expect("it is text");
    let check = |arguments: &[&str], text: &str| {
        let mut command = Command::new(BIN);
        let command = command.args(arguments).env("PORTCULLIS_PLANE", "ovs");
        let directories = ["PORTCULLIS_RUN_DIR", "PORTCULLIS_STATE_DIR"];
        let command = command.envs(directories.map(|name| (name, root.path())));
        says(&command.output().expect("it runs"), 2, text);
    };
    check(&["demo", "--keep"], "--keep is not for --plane ovs");
    let direct = ["run", "--direct", "--policy", policy];
    check(&direct, "--direct is for --plane ebpf");
}

#[test]
fn explanations_are_of_what_is_loaded() {
    let mut bed = Bed::new(false);
    bed.agent.start(&[]);
    by_rules_and_guard(&bed.agent);
    untracked_and_unguarded(&bed.agent);
    by_flows(&bed);
    fragments_wait(&bed);
    what_somebody_changed_shows(&mut bed);
}

fn by_flows(bed: &Bed) {
    let open = Open::both(&bed.machines);
    for open in &open {
        open.check(&bed.agent);
    }
    asking_changes_nothing(bed, &open);
    bed.edited(|| bed.allow(81));
    for open in &open {
        open.check_revoked(&bed.agent);
        // The contract would let an error pass here.
        let (_, value) = bed.agent.explain("web", OUT, &open.error);
        assert_eq!(value["plane"]["reason"], "no-rule", "{value:#}");
        assert_eq!(value["plane"]["flow_found"], true, "{value:#}");
    }
    bed.edited(|| bed.allow(80));
}

fn asking_changes_nothing(bed: &Bed, open: &[Open]) {
    let ask = || {
        for Open { reply, rule, .. } in open {
            bed.agent.check(("web", OUT, reply, "live", Some(rule)));
        }
        // Drops that were never counted here, and MACs that were never seen.
        for (way, packet, reason) in [
            (IN, "udp 10.9.0.2:9 -> 10.9.0.1:80", "no-rule"),
            (IN, "udp 10.9.0.2:9 -> 10.9.0.9:80", "foreign-destination"),
            (OUT, "udp 10.9.0.7:1 -> 10.9.0.2:2", "spoofed-ip"),
            (OUT, "arp who-has 10.9.0.2 tell 10.9.0.1", "infrastructure"),
        ] {
            bed.agent.check(("web", way, packet, reason, None));
        }
        let strange = "udp 10.9.0.4:1 -> 10.9.0.2:2 src-mac 52:54:00:00:09:77";
        bed.agent.check(("free", OUT, strange, "unguarded", None));
    };
    leaves_no_trace(|| bed.traces(), ask);
    let learned = bed.switch.appctl(&format!("fdb/show {BRIDGE}"));
    let learned = learned.expect("it can be asked");
    assert!(!learned.contains("52:54:00:00:09:77"), "{learned}");
}

fn fragments_wait(bed: &Bed) {
    let fragment = "udp 10.9.0.2:1 -> 10.9.0.1:2 frag 7@0+ len 64";
    bed.agent.check_unasked(fragment, "keeps a fragment");
    let spoofed = "udp 10.9.0.7:1 -> 10.9.0.2:2 frag 7@0+ len 64";
    bed.agent.check(("web", OUT, spoofed, "spoofed-ip", None));
}

/// With no agent there to put right what somebody changes.
fn what_somebody_changed_shows(bed: &mut Bed) {
    bed.agent.kill();
    let gone = format!("del-flows {BRIDGE} cookie=0x706f720100000000/0xffffffff00000000,tcp");
    bed.switch.ofctl(&gone).expect("flows are gone");
    bed.agent
        .check_differ("tcp 10.9.0.2:9 -> 10.9.0.1:80", "rule", "no-rule");
    let status = bed.agent.status();
    let drift = status["drift"][0].as_str().unwrap_or_default();
    assert!(drift.contains("flows of bridge pc-ovs"), "{status:#}");
    let verdict = dataplane_ovs::Table::Verdict.number();
    let gone = format!("del-flows {BRIDGE} table={verdict}");
    bed.switch.ofctl(&gone).expect("flows are gone");
    let packet = "tcp 10.9.0.2:9 -> 10.9.0.1:80";
    bed.agent.check_unasked(packet, "not our gate any more");
}

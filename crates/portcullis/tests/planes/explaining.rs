//! What `explain` says of the machines' packets, whatever the plane.

use crate::agent::Agent;
use crate::machines::Machines;
use serde_json::{Value, json};
use std::net::TcpStream;

pub(crate) const IN: &str = "--ingress";
pub(crate) const OUT: &str = "--egress";

/// Port, direction, packet; reason, rule.
pub(crate) type Expected<'a> = (&'a str, &'a str, &'a str, &'a str, Option<&'a str>);

impl Agent {
    pub(crate) fn explain(&self, port: &str, way: &str, packet: &str) -> (Option<i32>, Value) {
        let arguments = ["explain", "--port", port, way, packet, "-o", "json"];
        let output = self.portcullis(&arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        let value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
        (output.status.code(), value)
    }

    /// Model and data plane say so; `rule`: and both name it. What the data plane says.
    pub(crate) fn check(&self, (port, way, packet, reason, rule): Expected<'_>) -> Value {
        let (code, value) = self.explain(port, way, packet);
        assert_eq!(code, Some(0), "{value:#}");
        for who in ["model", "plane"] {
            assert_eq!(value[who]["reason"], reason, "{value:#}");
            assert_eq!(value[who]["rule"], json!(rule), "{value:#}");
        }
        assert_eq!(value["differ"], false, "{value:#}");
        value["plane"].clone()
    }

    /// The two say otherwise of what comes to `web`, and each what.
    pub(crate) fn check_differ(&self, packet: &str, model: &str, plane: &str) {
        let (code, value) = self.explain("web", IN, packet);
        assert_eq!(code, Some(1), "{value:#}");
        assert_eq!(value["model"]["reason"], model, "{value:#}");
        assert_eq!(value["plane"]["reason"], plane, "{value:#}");
        assert_eq!(value["differ"], true, "{value:#}");
    }

    /// The data plane isn't asked about what comes to `web`, for this reason.
    pub(crate) fn check_unasked(&self, packet: &str, why: &str) {
        let (code, value) = self.explain("web", IN, packet);
        assert_eq!(code, Some(0), "{value:#}");
        let said = value["plane_not_asked"].as_str().unwrap_or_default();
        assert!(said.contains(why), "{value:#}");
    }
}

pub(crate) fn by_rules_and_guard(agent: &Agent) {
    let spoofed = "udp 10.9.0.1:1 -> 10.9.0.2:2 src-mac 52:54:00:00:09:77";
    for (packet, rule) in [
        ("tcp 10.9.0.2:9 -> 10.9.0.1:80", "g/open.v4"),
        ("tcp [fd00:9::2]:9 -> [fd00:9::1]:80", "g/open.v6"),
    ] {
        let plane = agent.check(("web", IN, packet, "rule", Some(rule)));
        assert_eq!(plane["elidable"], false);
        assert_eq!(plane["flow_found"], false);
    }
    for (way, packet, reason) in [
        (IN, "tcp 10.9.0.2:9 -> 10.9.0.1:81", "no-rule"),
        (IN, "tcp [fd00:9::2]:9 -> [fd00:9::1]:81", "no-rule"),
        (IN, "icmp 10.9.0.2 -> 10.9.0.1 echo-request id 7", "no-rule"),
        (OUT, "udp 10.9.0.1:1 -> 10.9.0.2:2", "no-rule"),
        (OUT, "udp [fd00:9::1]:1 -> [fd00:9::2]:2", "no-rule"),
        (OUT, "sctp [fd00:9::1]:1 -> [fd00:9::2]:2", "no-rule"),
        (OUT, "protocol 47 10.9.0.1 -> 10.9.0.2", "no-rule"),
        (OUT, spoofed, "spoofed-mac"),
        (OUT, "udp 10.9.0.7:1 -> 10.9.0.2:2", "spoofed-ip"),
        (OUT, "udp [fd00:9::7]:1 -> [fd00:9::2]:2", "spoofed-ip"),
        (OUT, "udp 10.9.0.1:1 -> 10.9.0.2:2 vlan 7", "vlan-tag"),
        (OUT, "dhcp server 10.9.0.1 -> 255.255.255.255", "rogue-dhcp"),
        (OUT, "ra fe80::5054:ff:fe00:901 -> ff02::1", "rogue-ra"),
        (
            OUT,
            "na fd00:9::1 -> fd00:9::2 target fd00:9::7",
            "spoofed-nd",
        ),
        (
            OUT,
            "na fd00:9::1 -> fd00:9::2 target fd00:9::1",
            "infrastructure",
        ),
        (OUT, "arp who-has 10.9.0.2 tell 10.9.0.1", "infrastructure"),
        (
            OUT,
            "ns fd00:9::1 -> ff02::1:ff00:2 target fd00:9::2",
            "infrastructure",
        ),
        (
            OUT,
            "dhcp client 0.0.0.0 -> 255.255.255.255",
            "infrastructure",
        ),
        (OUT, "igmp report 10.9.0.1 -> 224.0.0.5", "infrastructure"),
        (IN, "arp reply 10.9.0.2 to 10.9.0.1", "infrastructure"),
        (IN, "dhcp server 10.9.0.2 -> 10.9.0.1", "infrastructure"),
        (IN, "tcp 10.9.0.2:9 -> 10.9.0.9:80", "foreign-destination"),
        (
            IN,
            "tcp [fd00:9::2]:9 -> [fd00:9::9]:80",
            "foreign-destination",
        ),
        (IN, "udp 127.0.0.1:1 -> 10.9.0.1:2", "martian"),
    ] {
        agent.check(("web", way, packet, reason, None));
    }
}

pub(crate) fn untracked_and_unguarded(agent: &Agent) {
    for (way, packet, rule) in [
        (IN, "udp 10.9.0.2:1 -> 10.9.0.3:2", "all/in.v4"),
        (IN, "udp [fd00:9::2]:1 -> [fd00:9::3]:2", "all/in.v6"),
        (OUT, "udp 10.9.0.3:1 -> 10.9.0.2:2", "all/out.v4"),
        (OUT, "udp [fd00:9::3]:1 -> [fd00:9::2]:2", "all/out.v6"),
    ] {
        let plane = agent.check(("open", way, packet, "rule", Some(rule)));
        assert_eq!(plane["elidable"], true);
    }
    for (way, packet) in [
        (OUT, "udp 10.9.0.77:1 -> 10.9.0.2:2"),
        (OUT, "udp [fd00:9::77]:1 -> [fd00:9::2]:2"),
        (IN, "arp who-has 10.9.0.4 tell 10.9.0.2"),
    ] {
        agent.check(("free", way, packet, "unguarded", None));
    }
}

/// A connection from the client to the web server, and the words for packets of it.
pub(crate) struct Open {
    pub(crate) rule: &'static str,
    pub(crate) reply: String,
    request: String,
    pub(crate) error: String,
    _stream: TcpStream,
}

impl Open {
    pub(crate) fn both(machines: &Machines) -> [Self; 2] {
        let [v4, v6] = machines.connect_both();
        [("g/open.v4", v4), ("g/open.v6", v6)].map(|(rule, stream)| Self::of(rule, stream))
    }

    fn of(rule: &'static str, stream: TcpStream) -> Self {
        let client = stream.local_addr().expect("it has one");
        let web = stream.peer_addr().expect("it has one");
        let [from, to] = [web.ip(), client.ip()];
        Self {
            rule,
            reply: format!("tcp {web} -> {client} [ack]"),
            request: format!("tcp {client} -> {web} [ack]"),
            error: format!("icmp {from} -> {to} port-unreachable about (tcp {client} -> {web})"),
            _stream: stream,
        }
    }

    /// While its rule is there.
    pub(crate) fn check(&self, agent: &Agent) {
        let (reply, rule) = (&self.reply, self.rule);
        let plane = agent.check(("web", OUT, reply, "live", Some(rule)));
        assert_eq!(plane["flow_found"], true);
        assert_eq!(plane["flow_live"], true);
        agent.check(("web", OUT, &self.error, "live", Some(rule)));
        agent.check(("web", IN, &self.request, "rule", Some(rule)));
        let syn = reply.replace("[ack]", "[syn]");
        agent.check(("web", OUT, &syn, "no-rule", None));
        let stray = "tcp 10.9.0.1:80 -> 10.9.0.2:1 [ack]";
        agent.check(("web", OUT, stray, "no-rule", None));
    }

    /// Once it is gone.
    pub(crate) fn check_revoked(&self, agent: &Agent) {
        let plane = agent.check(("web", OUT, &self.reply, "no-rule", None));
        assert_eq!(plane["flow_found"], true);
        assert_eq!(plane["flow_live"], false);
    }
}

/// Machines may say something of their own accord while it is asked, but not each time.
pub(crate) fn leaves_no_trace(traces: impl Fn() -> Vec<String>, ask: impl Fn()) {
    let untouched = (0..5).any(|_| {
        let before = traces();
        ask();
        traces() == before
    });
    assert!(untouched, "to ask changes something on the host");
}

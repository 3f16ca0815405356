//! What is tried between the machines, and what is to be seen.
//!
//! A drop is seen as silence, so each denied thing is beside a permitted one that differs from it by
//! what the rule says alone, and everything passes before enforcement and after it is removed.

use crate::Failure;
use crate::lab::{CLIENT, Lab, SERVER, Seat};
use crate::machine::Machine;
use std::time::{Duration, Instant};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Passes,
    Drops,
}

/// Counts, and prints, what was as expected.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) right: u32,
    pub(crate) all: u32,
}

impl Tally {
    pub(crate) fn row(&mut self, what: &str, right: bool, seen: &str) {
        self.all += 1;
        self.right += u32::from(right);
        let mark = if right { "ok   " } else { "WRONG" };
        println!("  {mark} {what:<66} {seen}");
    }

    fn verdict(&mut self, what: &str, expected: Seen, passed: bool) {
        let seen = if passed { Seen::Passes } else { Seen::Drops };
        let word = match seen {
            Seen::Passes => "passes",
            Seen::Drops => "drops",
        };
        self.row(what, seen == expected, word);
    }
}

/// So much is sent, and comes back, where a transfer is permitted.
const BULK: u64 = 8_000_000;

/// The rules of the server's group; everybody may be asked by the client.
pub(crate) fn policy(server_rules: &str) -> String {
    let port = |seat: &Seat, group: &str| {
        let Seat {
            name,
            tap,
            mac,
            v4,
            v6,
        } = seat;
        format!(
            "  {name}: {{network: lan, device: {tap}, mac: \"{mac}\", addresses: [{v4}, \"{v6}\"], groups: {group}}}\n"
        )
    };
    format!(
        "version: 1
networks:
  lan: {{subnets: [10.9.0.0/24, \"fd00::/64\"]}}
groups:
  clients: {{rules: [{{name: out, to: any}}]}}
  servers:
    rules:
{server_rules}ports:
{}{}",
        port(&CLIENT, "clients"),
        port(&SERVER, "servers")
    )
}

const PING: &str = "      - {name: ping, from: clients, protocol: icmp echo-request}\n";
const WEB: &str = "      - {name: web, from: clients, protocol: [tcp, udp], ports: 80}\n";
const OUT: &str = "      - {name: out, to: any}\n";

pub(crate) fn run(
    lab: &mut Lab<'_>,
    offloads: bool,
    direct: bool,
    tally: &mut Tally,
) -> Result<(), Failure> {
    println!("not enforced");
    open(lab, tally)?;

    println!("enforced: the server answers, and asks nobody");
    lab.enforcement.enforce(&policy(&format!("{PING}{WEB}")))?;
    let (packets, bytes) = lab.sent(&CLIENT)?;
    let forwarded = lab.forwarded()?;
    for to in [SERVER.v4, SERVER.v6] {
        transfers(&mut lab.client, to, tally)?;
        for (bytes, port, expected) in [
            (1_000, 80, Seen::Passes),
            (5_000, 80, Seen::Passes),
            (1_000, 81, Seen::Drops),
            (5_000, 81, Seen::Drops),
        ] {
            socket(&mut lab.client, "udp", to, port, bytes, expected, tally)?;
        }
        ping(&mut lab.client, "", to, 56, Seen::Passes, tally)?;
        ping(&mut lab.client, "", to, 4_000, Seen::Passes, tally)?;
    }
    let (packets_now, bytes_now) = lab.sent(&CLIENT)?;
    let sent = (packets_now - packets).max(1);
    let size = (bytes_now - bytes) / sent;
    tally.row(
        &format!("frames of the client above the MTU: {offloads}"),
        (size > 1_514) == offloads,
        &format!("{size} bytes on average"),
    );
    let forwarded = lab.forwarded()? - forwarded;
    tally.row(
        &format!("most frames go straight: {direct}"),
        (forwarded < sent) == direct,
        &format!("{forwarded} took the bridge, the client alone sent {sent}"),
    );
    for to in [CLIENT.v4, CLIENT.v6] {
        ping(&mut lab.server, "", to, 56, Seen::Drops, tally)?;
        socket(&mut lab.server, "tcp", to, 80, 1, Seen::Drops, tally)?;
    }

    println!("spoofing");
    spoofing(&mut lab.client, tally)?;

    println!("revocation, and an agent that is killed, under an open connection");
    revocation(lab, tally)?;

    println!("enforced: the server asks everybody too, so nothing needs tracking");
    lab.enforcement
        .enforce(&policy(&format!("{PING}{WEB}{OUT}")))?;
    for to in [SERVER.v4, SERVER.v6] {
        transfers(&mut lab.client, to, tally)?;
    }

    println!("detached");
    lab.enforcement.detach()?;
    open(lab, tally)
}

fn open(lab: &mut Lab<'_>, tally: &mut Tally) -> Result<(), Failure> {
    for to in [SERVER.v4, SERVER.v6] {
        ping(&mut lab.client, "", to, 56, Seen::Passes, tally)?;
        for port in [80, 81] {
            socket(&mut lab.client, "tcp", to, port, BULK, Seen::Passes, tally)?;
        }
    }
    ping(&mut lab.server, "", CLIENT.v4, 56, Seen::Passes, tally)?;
    socket(
        &mut lab.server,
        "tcp",
        CLIENT.v6,
        80,
        1,
        Seen::Passes,
        tally,
    )
}

fn transfers(from: &mut Machine, to: &str, tally: &mut Tally) -> Result<(), Failure> {
    socket(from, "tcp", to, 80, 1, Seen::Passes, tally)?;
    socket(from, "tcp", to, 80, BULK, Seen::Passes, tally)?;
    socket(from, "tcp", to, 81, BULK, Seen::Drops, tally)
}

fn spoofing(client: &mut Machine, tally: &mut Tally) -> Result<(), Failure> {
    client.must("ip addr add 10.9.0.7/24 dev eth0")?;
    ping(client, "-I 10.9.0.7 ", SERVER.v4, 56, Seen::Drops, tally)?;
    client.must("ip addr del 10.9.0.7/24 dev eth0")?;
    let v6 = CLIENT.v6;
    let become_mac = |mac: &str| {
        format!(
            "ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up; \
             ip -6 addr add {v6}/64 dev eth0"
        )
    };
    client.must(&become_mac("02:00:00:00:00:99"))?;
    ping(client, "", SERVER.v4, 56, Seen::Drops, tally)?;
    client.must(&become_mac(CLIENT.mac))?;
    ping(client, "", SERVER.v4, 56, Seen::Passes, tally)
}

fn revocation(lab: &mut Lab<'_>, tally: &mut Tally) -> Result<(), Failure> {
    let to = SERVER.v4;
    let hold = format!("(portcullis-vmlab guest hold {to} 80 /tmp/held > /tmp/hold.log 2>&1 &)");
    lab.client.must(&hold)?;
    lab.client
        .must("until [ -s /tmp/held ]; do usleep 10000; done")?;
    tally.verdict(
        "a connection is held",
        Seen::Passes,
        alive(&mut lab.client)?,
    );
    lab.enforcement.kill_agent();
    let what = "the same, the agent killed";
    tally.verdict(what, Seen::Passes, alive(&mut lab.client)?);
    lab.enforcement.enforce(&policy(PING))?;
    let what = "the same, the agent back with the rule removed";
    tally.verdict(what, Seen::Drops, alive(&mut lab.client)?);
    socket(&mut lab.client, "tcp", to, 80, 1, Seen::Drops, tally)?;
    ping(&mut lab.client, "", to, 56, Seen::Passes, tally)?;
    lab.enforcement.enforce(&policy(&format!("{PING}{WEB}")))?;
    // The sender backs off while nothing is acknowledged; its next attempt may be seconds away.
    let end = Instant::now() + Duration::from_secs(30);
    let mut again = alive(&mut lab.client)?;
    while !again && Instant::now() < end {
        again = alive(&mut lab.client)?;
    }
    tally.verdict("the same, the rule restored", Seen::Passes, again);
    Ok(())
}

/// Whether bytes of the held connection come back within a second or so.
fn alive(client: &mut Machine) -> Result<bool, Failure> {
    let back = |client: &mut Machine| -> Result<u64, Failure> {
        let text = client.must("cat /tmp/held")?;
        let word = text
            .split_whitespace()
            .nth(1)
            .and_then(|word| word.parse().ok());
        word.ok_or_else(|| Failure::new(format!("/tmp/held is {text:?}")))
    };
    // What was under way when the question came up.
    client.must("usleep 300000")?;
    let before = back(client)?;
    client.must("usleep 1000000")?;
    Ok(back(client)? > before)
}

fn socket(
    from: &mut Machine,
    protocol: &str,
    to: &str,
    port: u16,
    bytes: u64,
    expected: Seen,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let limit_ms = patience(expected).as_millis();
    let line = format!("portcullis-vmlab guest {protocol} {to} {port} {bytes} {limit_ms}");
    let begin = Instant::now();
    let answer = from.run(&line)?;
    let refused = answer.text.contains("refused");
    let passed = answer.succeeded() || refused;
    let what = format!("{} {protocol} {to} {port}, {bytes} bytes", from.name);
    tally.verdict(&what, expected, passed);
    if expected == Seen::Passes && (refused || !answer.succeeded()) {
        println!("        after {:.1?}: {}", begin.elapsed(), answer.text);
    }
    Ok(())
}

fn ping(
    from: &mut Machine,
    options: &str,
    to: &str,
    bytes: u32,
    expected: Seen,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let wait_s = patience(expected).as_secs();
    let answer = from.run(&format!("ping {options}-c 1 -W {wait_s} -s {bytes} {to}"))?;
    let what = format!("{} ping {options}{to}, {bytes} bytes", from.name);
    tally.verdict(&what, expected, answer.succeeded());
    Ok(())
}

/// Emulated machines answer in milliseconds, and in seconds where the host is busy.
fn patience(expected: Seen) -> Duration {
    match expected {
        Seen::Passes => Duration::from_secs(20),
        Seen::Drops => Duration::from_secs(1),
    }
}

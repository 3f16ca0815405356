//! The agent killed again and again, at all moments of its work, under a thousand open connections:
//! none may be cut, and no verdict may be wrong, not even for an instant.
//!
//! Two namespaces stand for two machines here; what they send comes from `guest`.

use crate::Failure;
use crate::checks::{Tally, policy};
use crate::command::words;
use crate::enforcement::Enforcement;
use crate::lab::{CLIENT, SERVER, Seat, ip};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const KILLS: u32 = 100;
const CONNECTIONS: u32 = 1_000;

/// Ended when dropped.
struct Traffic(Child);

impl Drop for Traffic {
    fn drop(&mut self) {
        // It may have ended already; either way it is gone afterwards.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn run(portcullis: &Path, directory: &Path, tally: &mut Tally) -> Result<(), Failure> {
    println!("the agent killed {KILLS} times under {CONNECTIONS} connections");
    ip("link add br0 type bridge")?;
    ip("link set br0 up")?;
    for seat in [&CLIENT, &SERVER] {
        stand_in(seat)?;
    }
    let mut enforcement = Enforcement::new(portcullis, directory, false);
    enforcement.enforce(&rules(0))?;

    let held = directory.join("held");
    let probed = directory.join("probed");
    let _serving = traffic(&SERVER, &["serve", "80"])?;
    wait(Duration::from_secs(10), "the server to listen", || {
        let line = ["probe-once", SERVER.v4, "80"];
        Ok(guest(&CLIENT, &line)?
            .status()
            .is_ok_and(|status| status.success()))
    })?;
    let count = CONNECTIONS.to_string();
    let many = ["many", SERVER.v4, "80", &count, text(&held)];
    let _holding = traffic(&CLIENT, &many)?;
    let probe = ["probe", SERVER.v6, "80", "81", text(&probed)];
    let _probing = traffic(&CLIENT, &probe)?;
    wait(
        Duration::from_secs(60),
        "all connections to be busy",
        || {
            Ok(numbers(&held)
                .is_some_and(|[up, fewest, _]| up == u64::from(CONNECTIONS) && fewest > 0))
        },
    )?;

    for kill in 1..=KILLS {
        // The next agent's way is now and then the other one.
        enforcement.direct = kill % 4 > 1;
        if kill % 2 == 0 {
            // Killed when all is done.
            enforcement.enforce(&rules(kill))?;
        } else {
            // Killed in the midst of it, each time elsewhere.
            enforcement.write(&rules(kill))?;
            enforcement.start_agent()?;
            thread::sleep(Duration::from_millis(u64::from(kill * 13 % 150)));
        }
        enforcement.kill_agent();
    }
    enforcement.enforce(&rules(KILLS + 1))?;

    let before = numbers(&held).unwrap_or_default();
    let [up, _, _] = before;
    let all_go_on = wait(Duration::from_secs(30), "all connections to go on", || {
        Ok(numbers(&held).is_some_and(|now| now[1] > before[1] + 1))
    });
    let [_, fewest, cut] = numbers(&held).unwrap_or_default();
    tally.row(
        &format!("{up} connections after {KILLS} kills"),
        all_go_on.is_ok() && cut == 0,
        &format!("{cut} cut, at least {fewest} exchanges on each"),
    );
    let [probes, dropped, leaked] = numbers(&probed).unwrap_or_default();
    tally.row(
        "new connections, permitted and denied, meanwhile",
        probes > 0 && dropped == 0 && leaked == 0,
        &format!("{probes} of each; {dropped} dropped, {leaked} let through"),
    );
    enforcement.detach()
}

/// What changes each time concerns none of the traffic.
fn rules(round: u32) -> String {
    let port = 1_000 + round;
    policy(&format!(
        "      - {{name: web, from: clients, protocol: tcp, ports: 80}}
      - {{name: round, from: clients, protocol: tcp, ports: {port}}}\n"
    ))
}

/// A namespace in a machine's place.
fn stand_in(seat: &Seat) -> Result<(), Failure> {
    let Seat {
        name,
        tap,
        mac,
        v4,
        v6,
    } = seat;
    ip(&format!("netns add {name}"))?;
    ip(&format!(
        "link add {tap} type veth peer name eth0 netns {name}"
    ))?;
    ip(&format!("link set {tap} master br0 up"))?;
    ip(&format!("-n {name} link set eth0 address {mac} up"))?;
    ip(&format!("-n {name} address add {v4}/24 dev eth0"))?;
    ip(&format!("-n {name} address add {v6}/64 dev eth0 nodad"))
}

fn guest(seat: &Seat, arguments: &[&str]) -> Result<Command, Failure> {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{}", seat.name))
        .args(["setpriv", "--pdeathsig", "KILL"])
        .arg(crate::this_program()?)
        .arg("guest")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    Ok(command)
}

fn traffic(seat: &Seat, arguments: &[&str]) -> Result<Traffic, Failure> {
    let mut command = guest(seat, arguments)?;
    let child = command.spawn();
    let child = child.map_err(|e| Failure::new(format!("{}: {e}", words(&command))))?;
    Ok(Traffic(child))
}

fn wait(
    limit: Duration,
    what: &str,
    mut done: impl FnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let end = Instant::now() + limit;
    while !done()? {
        if Instant::now() > end {
            return Err(Failure::new(format!("waited {limit:?} for {what}")));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn numbers(file: &PathBuf) -> Option<[u64; 3]> {
    let text = std::fs::read_to_string(file).ok()?;
    let words = text.split_whitespace().map(|word| word.parse().ok());
    words.collect::<Option<Vec<u64>>>()?.try_into().ok()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of this program are text")
}

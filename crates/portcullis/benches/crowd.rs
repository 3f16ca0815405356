//! Many agents on one server, and many changes: `cargo bench -p portcullis --bench crowd`, as root.
//!
//! A server with its store in a file, and 1,000 agents that follow it over connections of their own and compile what
//! they hear; no kernel enforces it. Each of 100 groups is named by rules on 10 of the hosts. Clients have members join
//! and leave them, 500 times a second.

mod support;

use conformance::lab::Lab;
use model::HostId;
use policy::Compiler;
use protocol::ca::{self as certificates, Signed, Validity};
use protocol::{Credentials, Event, FollowConfig, Instance, Report, Timing};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};
use support::{Api, start_server, wait_until};
use tokio::runtime::Runtime;
use tokio::sync::watch;

const HOSTS: usize = 1_000;
const GROUPS: usize = 100;
const CHANGES: usize = 10_000;
const CHANGES_PER_S: usize = 500;
const CLIENTS: usize = 2;
const BULK: usize = 100;

fn main() {
    let lab = Lab::new("bcr").expect("a lab; it needs root");
    let directory = tempfile::tempdir().expect("a directory");
    let server = start_server(&lab, directory.path());
    let mut api = Api::connect(lab.host());
    let guests = make_policy(&mut api);
    let crowd = Crowd::gather(&lab, directory.path());

    let before = (Instant::now(), server.cpu_ms());
    let changes = change_all(&lab, &guests);
    let (lasted, cpu) = (before.0.elapsed(), server.cpu_ms() - before.1);
    let mut waits = crowd.waits(&changes);
    waits.sort_by(f64::total_cmp);
    let share = |of: usize| waits[(waits.len() * of / 100).min(waits.len() - 1)];

    let rate = CHANGES as f64 / lasted.as_secs_f64();
    println!(
        "{HOSTS} agents have their parts after {:.1} s",
        crowd.gathered.as_secs_f64()
    );
    println!(
        "{rate:.0} changes/s, each of interest to {} hosts",
        HOSTS / GROUPS
    );
    println!(
        "until the last of them has compiled it, ms: median {:.1}, 99 % {:.1}, all {:.1}",
        share(50),
        share(99),
        share(100)
    );
    println!("CPU of the server: {:.2} ms a change", cpu / CHANGES as f64);
    println!("connections lost, parts sent again: {}", crowd.troubles());
}

/// A group that a host's port is in, whose rule names a group that a guest elsewhere joins.
struct Guest {
    port: String,
    group: String,
}

fn make_policy(api: &mut Api) -> Vec<Guest> {
    let unbounded = json!({ "quota": {
        "security_group": -1, "security_group_rule": -1, "port": -1,
    } });
    api.ask("PUT", "/v2.0/quotas/admin", &unbounded);
    let network = api.make("network", json!({ "name": "n" }));
    let subnet = json!({ "network_id": network, "ip_version": 4, "cidr": "10.0.0.0/8" });
    api.make("subnet", subnet);
    let port = |host: &str, groups: &[&String]| json!({ "network_id": network, "binding:host_id": host, "security_groups": groups });
    let guests = (0..GROUPS).map(|number| {
        let [local, group] = ["local", "named"].map(|name| {
            api.make(
                "security_group",
                json!({ "name": format!("{name}-{number}") }),
            )
        });
        let rule = json!({
            "security_group_id": local, "remote_group_id": group, "direction": "ingress",
            "protocol": "tcp", "port_range_min": 80, "port_range_max": 80,
        });
        api.make("security_group_rule", rule);
        let hosts = (number..HOSTS).step_by(GROUPS);
        let ports: Vec<Value> = hosts
            .map(|host| port(&host_name(host), &[&local]))
            .collect();
        assert!(ports.len() <= BULK, "they fit in one request");
        api.ask("POST", "/v2.0/ports", &json!({ "ports": ports }));
        Guest {
            port: api.make("port", port("elsewhere", &[])),
            group,
        }
    });
    guests.collect()
}

fn host_name(number: usize) -> String {
    format!("h{number}")
}

struct Change {
    group: usize,
    commit: u64,
    asked: Instant,
}

/// By several clients, each with groups of its own, at the pace that is wanted or slower.
fn change_all(lab: &Lab, guests: &[Guest]) -> Vec<Change> {
    let began = Instant::now();
    let made: Vec<Vec<Change>> = thread::scope(|scope| {
        let clients = (0..CLIENTS).map(|client| {
            scope.spawn(move || {
                let mut api = Api::connect(lab.host());
                let mine = (client..CHANGES).step_by(CLIENTS);
                let made = mine.map(|number| {
                    let due = began + Duration::from_secs(1) * number as u32 / CHANGES_PER_S as u32;
                    sleep(due.saturating_duration_since(Instant::now()));
                    change(&mut api, guests, number)
                });
                made.collect()
            })
        });
        let clients: Vec<_> = clients.collect();
        let made = clients
            .into_iter()
            .map(|client| client.join().expect("no panic"));
        made.collect()
    });
    made.into_iter().flatten().collect()
}

fn change(api: &mut Api, guests: &[Guest], number: usize) -> Change {
    let group = number % GROUPS;
    let guest = &guests[group];
    let groups = match (number / GROUPS) % 2 {
        0 => vec![&guest.group],
        _ => vec![],
    };
    let asked = Instant::now();
    let body = json!({ "port": { "security_groups": groups } });
    let changed = api.ask("PUT", &format!("/v2.0/ports/{}", guest.port), &body);
    let commit = changed["port"]["revision_number"].as_u64();
    Change {
        group,
        commit: commit.expect("a port has one"),
        asked,
    }
}

/// What an agent has had, and since when; in order.
#[derive(Default)]
struct Heard {
    at: Vec<(u64, Instant)>,
    /// Whole parts, and connections that ended.
    whole: usize,
    ended: usize,
}

struct Crowd {
    agents: Vec<Arc<Mutex<Heard>>>,
    gathered: Duration,
    /// Its threads are in the lab's namespace.
    _runtime: Runtime,
}

impl Crowd {
    /// All start at the same time.
    fn gather(lab: &Lab, directory: &Path) -> Self {
        let read = |name| fs::read_to_string(directory.join(name)).expect("`ca init` has made it");
        let authority = Signed {
            certificate: read("ca.pem"),
            key: read("ca.key"),
        };
        let credentials: Vec<Credentials> = (0..HOSTS)
            .map(|number| credentials(&authority, &host_name(number)))
            .collect();
        let began = Instant::now();
        let (runtime, agents) = lab.host().run(move || {
            let runtime = Runtime::new().expect("a runtime");
            let agents = credentials.into_iter().enumerate();
            let agents =
                agents.map(|(number, credentials)| start_agent(&runtime, number, credentials));
            let agents: Vec<_> = agents.collect();
            (runtime, agents)
        });
        let has_all = |heard: &Arc<Mutex<Heard>>| heard.lock().expect("no panic").whole > 0;
        wait_until("all have their parts", || agents.iter().all(has_all));
        Self {
            agents,
            gathered: began.elapsed(),
            _runtime: runtime,
        }
    }

    /// From the request until the last of the hosts has it, in milliseconds.
    fn waits(&self, changes: &[Change]) -> Vec<f64> {
        let waits = changes.iter().map(|change| {
            let hosts = (change.group..HOSTS).step_by(GROUPS);
            let had = hosts.map(|host| self.had(host, change.commit));
            let last = had.max().expect("there are hosts");
            last.saturating_duration_since(change.asked).as_secs_f64() * 1e3
        });
        waits.collect()
    }

    fn had(&self, host: usize, commit: u64) -> Instant {
        let mut had = None;
        wait_until("the host has the change", || {
            let heard = self.agents[host].lock().expect("no panic");
            let first = heard.at.partition_point(|(at, _)| *at < commit);
            had = heard.at.get(first).map(|(_, since)| *since);
            had.is_some()
        });
        had.expect("it was waited for")
    }

    fn troubles(&self) -> usize {
        let troubles = self.agents.iter().map(|heard| {
            let heard = heard.lock().expect("no panic");
            heard.ended + heard.whole - 1
        });
        troubles.sum()
    }
}

fn credentials(authority: &Signed, host: &str) -> Credentials {
    let day = Validity::lasting(Duration::from_secs(86_400));
    let signed = certificates::host(authority, host, day).expect("a plain name");
    Credentials {
        authority: authority.certificate.clone(),
        certificate: signed.certificate,
        key: signed.key,
    }
}

fn start_agent(runtime: &Runtime, number: usize, credentials: Credentials) -> Arc<Mutex<Heard>> {
    let heard = Arc::new(Mutex::new(Heard::default()));
    let host = HostId::from(host_name(number).as_str());
    let (tell, reports) = watch::channel(None);
    let config = FollowConfig {
        servers: vec!["127.0.0.1:9697".to_owned()],
        host: host.clone(),
        instance: Instance {
            started_ms: 1,
            number: 1,
        },
        credentials,
        kept: None,
        reports,
        software: "bench".to_owned(),
        // As all 1,000 come at once to two cores.
        timing: Timing {
            connect: Duration::from_secs(30),
            keepalive: Duration::from_secs(30),
            keepalive_answer: Duration::from_secs(30),
            ..Timing::default()
        },
        carrier: None,
    };
    let mut agent = Agent {
        host,
        compiler: None,
        heard: heard.clone(),
        tell,
    };
    runtime.spawn(protocol::follow(config, move |event| agent.hear(event)));
    heard
}

struct Agent {
    host: HostId,
    compiler: Option<Compiler>,
    heard: Arc<Mutex<Heard>>,
    tell: watch::Sender<Option<Report>>,
}

impl Agent {
    fn hear(&mut self, event: Event) {
        let had = match event {
            Event::Replaced(inventory) => {
                self.heard.lock().expect("no panic").whole += 1;
                let revision = inventory.revision;
                self.compiler = Some(Compiler::new(inventory, self.host.clone()));
                revision
            }
            Event::Changed(change) => {
                let revision = change.revision;
                let compiler = self.compiler.as_mut().expect("a change is of something");
                compiler.change(change);
                revision
            }
            Event::Progress(revision) => revision,
            Event::Disconnected { .. } => {
                self.heard.lock().expect("no panic").ended += 1;
                return;
            }
            Event::Connected { .. } | Event::Refused(_) | Event::NewEpoch { .. } => return,
        };
        let now = (had.commit, Instant::now());
        self.heard.lock().expect("no panic").at.push(now);
        self.tell.send_replace(Some(Report {
            applied: had,
            ports: Default::default(),
        }));
    }
}

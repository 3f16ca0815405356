//! One server: its use cases, the desk that hosts are told from, and what it and the others tell each other of them by
//! the store. It is made anew when it has crashed. What a server's process does is done here without tasks.
//!
//! Place on the line: request -> **use case -> store commit -> watch** -> inventory.

use crate::faulty::Faulty;
use crate::ledger::{PortChange, Ports};
use async_trait::async_trait;
use control::objects::{Quota, Resource};
use control::told::{Connection, Reported, Running};
use control::{Changed, Control, Kept, Observer, State, inventory_change, inventory_of, told};
use model::{HostId, Inventory, InventoryChange};
use protocol::{Desk, Elsewhere, Feed, HostStatus, Limits};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use store::{Presence, Store};
use tokio::runtime::Runtime;

pub(crate) struct Server {
    pub(crate) control: Control,
    pub(crate) desk: Desk,
    /// What the desk hasn't been told yet.
    feeds: VecDeque<Feed>,
    /// Until then it tells hosts nothing new.
    pub(crate) behind_until: u64,
    run: String,
    presence: Box<dyn Presence>,
    heard: Arc<Mutex<Vec<Heard>>>,
}

pub(crate) struct Heard {
    pub(crate) what: What,
    /// Hosts' connections to other servers.
    pub(crate) elsewhere: Option<Elsewhere>,
    /// Of them this server has to say something again.
    pub(crate) concerned: BTreeSet<HostId>,
}

/// What the copy of the store has come to.
pub(crate) enum What {
    Listed(Inventory, Ports),
    Committed {
        change: InventoryChange,
        ports: Vec<PortChange>,
        is_policy: bool,
    },
}

/// Objects that wait for a slow agent: few, so that it happens that they are too many.
const WAITING: usize = 40;
/// The store in memory doesn't count it.
const PRESENCE: Duration = Duration::from_secs(10);

impl Server {
    /// `run`: no two have the same.
    pub(crate) fn open(runtime: &Runtime, store: Arc<Faulty>, run: String) -> Self {
        let running = Running {
            run: run.clone(),
            name: "sim".to_owned(),
        };
        let key = running.key();
        let announced = store.announce(&key, running.value(), PRESENCE);
        let presence = runtime.block_on(announced);
        let heard = Arc::default();
        let observer = Observing {
            run: run.clone(),
            heard: Arc::clone(&heard),
        };
        let control = open(runtime, store, vec![Box::new(observer)]);
        let limits = Limits {
            waiting_objects: WAITING,
            ..Limits::default()
        };
        Self {
            control,
            desk: Desk::new(limits),
            feeds: VecDeque::new(),
            behind_until: 0,
            run,
            presence: presence.expect("a store in memory answers"),
            heard,
        }
    }

    /// What others see of it for a while.
    pub(crate) fn crash(self) -> Box<dyn Presence> {
        self.presence
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        let mut heard = self.heard.lock().expect("nobody panics while holding it");
        std::mem::take(&mut heard)
    }

    /// Something of what was committed before it tells later.
    pub(crate) fn is_behind(&self, step: u64) -> bool {
        self.behind_until > step || !self.feeds.is_empty()
    }

    /// Objects that the desk has looked at so far, once for each host that it looked at them for.
    pub(crate) fn objects(&self) -> u64 {
        let work = self.desk.work();
        (work.named + work.asked + work.objects) as u64
    }

    pub(crate) fn feed(&mut self, feed: Feed) {
        self.feeds.push_back(feed);
    }

    /// Hosts that are told something of what was fed, and how long the desk was at it.
    pub(crate) fn pass_on(&mut self, step: u64) -> (Vec<HostId>, Duration) {
        let mut told = Vec::new();
        let began = Instant::now();
        while self.behind_until <= step
            && let Some(feed) = self.feeds.pop_front()
        {
            told.extend(self.desk.feed(feed));
        }
        (told, began.elapsed())
    }

    /// Into the store, what has been heard of hosts since the last time.
    pub(crate) fn tell_others(&self, runtime: &Runtime) {
        let news = self.desk.news();
        let of = |host| Some(heard_of(host, self.desk.status(host)?));
        let heard: Vec<told::Heard> = news.iter().filter_map(of).collect();
        let mut rest = &heard[..];
        while !rest.is_empty() {
            let told = runtime.block_on(self.control.tell(&self.run, rest));
            rest = &rest[told.expect("nothing hinders it here")..];
        }
    }
}

fn heard_of(host: &HostId, status: HostStatus) -> told::Heard {
    let protocol::Connection { instance, turn } = status.connection();
    told::Heard {
        host: host.clone(),
        connection: Connection {
            started_ms: instance.started_ms,
            number: instance.number,
            turn,
        },
        is_connected: status.is_connected,
        software: status.software,
        // Agents here name no ports in their reports.
        report: status.report.map(|report| Reported {
            applied: report.applied,
            not_enforced: BTreeMap::new(),
        }),
    }
}

/// Without quotas.
pub(crate) fn open(
    runtime: &Runtime,
    store: Arc<dyn Store>,
    observers: Vec<Box<dyn Observer>>,
) -> Control {
    let limits = Resource::ALL.map(|resource| (resource, -1));
    let quota = Quota {
        limits: limits.into(),
    };
    let opened = runtime.block_on(Control::open_with(store, observers, quota));
    opened.expect("a store in memory answers")
}

struct Observing {
    run: String,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Observing {
    fn hear(&self, heard: Heard) {
        let mut all = self.heard.lock().expect("nobody panics while holding it");
        all.push(heard);
    }

    fn connection(&self, state: &State, host: &HostId) -> Option<protocol::Connection> {
        let elsewhere = state.follows_elsewhere(host, &self.run)?;
        Some(protocol::Connection {
            instance: protocol::Instance {
                started_ms: elsewhere.started_ms,
                number: elsewhere.number,
            },
            turn: elsewhere.turn,
        })
    }
}

#[async_trait]
impl Observer for Observing {
    fn listed(&mut self, state: &State) {
        let ports = state.ports.iter();
        let ports = ports.map(|(id, port)| (id.clone(), port.object.clone()));
        let all = state.told.keys().filter_map(|host| {
            let connection = self.connection(state, host)?;
            Some((host.clone(), connection))
        });
        self.hear(Heard {
            what: What::Listed(inventory_of(state), ports.collect()),
            elsewhere: Some(Elsewhere::All(all.collect())),
            concerned: state.told.keys().cloned().collect(),
        });
    }

    fn committed(&mut self, state: &State, changes: &[Changed]) {
        let mut ports = Vec::new();
        for changed in changes {
            if let Changed::Port(port) = changed {
                let mut both = port.before.iter().chain(&port.after);
                let id = both.next().map(|port| port.id.clone());
                let id = id.expect("at least one of them is there");
                ports.push((id, port.before.clone(), port.after.clone()));
            }
        }
        let hosts = state.hosts_told_of(changes);
        let elsewhere = hosts.into_iter().map(|host| {
            let connection = self.connection(state, &host);
            (host, connection)
        });
        let elsewhere: BTreeMap<_, _> = elsewhere.collect();
        self.hear(Heard {
            what: What::Committed {
                change: inventory_change(state, state.revision, changes),
                ports,
                is_policy: changes.iter().any(Changed::is_policy),
            },
            elsewhere: (!elsewhere.is_empty()).then_some(Elsewhere::Changed(elsewhere)),
            concerned: told::hosts_of_ports(changes),
        });
    }
}

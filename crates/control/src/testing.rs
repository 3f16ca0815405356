//! For tests: servers on one store, callers, and requests in short.

use crate::caller::{Caller, Role};
use crate::control::Control;
use crate::groups::NewGroup;
use crate::objects::{Described, Port, Quota};
use crate::records::Kept;
use crate::refused::{Failed, Refused};
use crate::rules::{AskedNumber, NewRule};
use crate::state::State;
use model::{Direction, GroupId, MacAddr, NetworkId, PortId, ProjectId};
use std::sync::Arc;
use store::memory::Memory;
use store::{Store, Transaction};

/// Two servers on one store: what one does the other sees later.
pub(crate) struct Servers {
    pub(crate) store: Arc<Memory>,
    pub(crate) one: Control,
    pub(crate) other: Control,
}

impl Servers {
    pub(crate) async fn open() -> Self {
        Self::with(Quota::default()).await
    }

    pub(crate) async fn with(quota: Quota) -> Self {
        let store = Arc::new(Memory::new());
        Self {
            one: server(&store, &quota).await,
            other: server(&store, &quota).await,
            store,
        }
    }

    /// A copy that nobody has kept up to date.
    pub(crate) async fn listed(&self) -> State {
        let state = State::read(&*self.store).await;
        let mut state = state.expect("memory answers");
        state.defaults = self.one.state().defaults.clone();
        state
    }

    /// Written past the use cases; both servers have seen it.
    pub(crate) async fn write(&self, transaction: Transaction) {
        let revision = self.store.commit(transaction).await;
        let revision = revision.expect("no conditions");
        for server in [&self.one, &self.other] {
            server.wait_for(revision).await.expect("it watches");
        }
    }

    pub(crate) async fn put(&self, object: &impl Kept) {
        let transaction = Transaction::new().put(object.key(), object.value());
        self.write(transaction).await;
    }

    /// Both servers have seen all that was committed.
    pub(crate) async fn settle(&self) {
        let revision = self.listed().await.revision;
        for server in [&self.one, &self.other] {
            server.wait_for(revision).await.expect("it watches");
        }
    }
}

async fn server(store: &Arc<Memory>, quota: &Quota) -> Control {
    let control = Control::open_with(store.clone(), Vec::new(), quota.clone()).await;
    control.expect("memory answers")
}

fn caller(project: &str, role: Role) -> Caller {
    Caller {
        user: "u".to_owned(),
        project: ProjectId::from(project),
        role,
    }
}

pub(crate) fn member(project: &str) -> Caller {
    caller(project, Role::Member)
}

pub(crate) fn reader(project: &str) -> Caller {
    caller(project, Role::Reader)
}

pub(crate) fn admin() -> Caller {
    caller("admins", Role::Admin)
}

pub(crate) fn new_group(name: &str) -> NewGroup {
    NewGroup {
        project: None,
        name: name.to_owned(),
        description: String::new(),
        stateful: true,
    }
}

/// Any IPv4 from anybody.
pub(crate) fn new_rule(group: &GroupId) -> NewRule {
    NewRule {
        project: None,
        group: group.to_string(),
        description: String::new(),
        direction: Direction::Ingress,
        family: None,
        protocol: None,
        range_min: None,
        range_max: None,
        remote_prefix: None,
        remote_group: None,
        remote_addresses: None,
    }
}

pub(crate) fn tcp_rule(group: &GroupId, l4_port: u16) -> NewRule {
    let number = Some(AskedNumber::Number(i64::from(l4_port)));
    NewRule {
        protocol: Some("tcp".to_owned()),
        range_min: number.clone(),
        range_max: number,
        ..new_rule(group)
    }
}

pub(crate) fn port(id: &str, project: &ProjectId, groups: &[GroupId]) -> Port {
    Port {
        id: PortId::from(id),
        project: project.clone(),
        network: NetworkId::from("n"),
        said: Described::default(),
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
        fixed: Default::default(),
        pairs: Default::default(),
        groups: groups.iter().cloned().collect(),
        port_security: true,
        admin_up: true,
        device_id: Default::default(),
        device_owner: Default::default(),
        binding: None,
        unbound: None,
    }
}

/// What was refused; other failures and successes fail the test.
pub(crate) fn refusal<T: std::fmt::Debug>(outcome: Result<T, Failed>) -> Refused {
    match outcome {
        Err(Failed::Refused(refused)) => refused,
        other => panic!("not refused: {other:?}"),
    }
}

/// Random numbers that are the same each time (xorshift).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    pub(crate) fn one_of<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        match of.len() {
            0 => None,
            count => Some(&of[self.below(count)]),
        }
    }
}

//! One server: its use cases, and the desk that hosts are told from. It is made anew when it has crashed.
//!
//! Place on the line: request -> **use case -> store commit -> watch** -> inventory.

use crate::faulty::Faulty;
use crate::ledger::{PortChange, Ports};
use async_trait::async_trait;
use control::objects::{Quota, Resource};
use control::{Changed, Control, Observer, State, inventory_change, inventory_of};
use model::{Inventory, InventoryChange};
use protocol::{Desk, Limits};
use std::sync::{Arc, Mutex};
use store::Store;
use tokio::runtime::Runtime;

pub(crate) struct Server {
    pub(crate) control: Control,
    pub(crate) desk: Desk,
    heard: Arc<Mutex<Vec<Heard>>>,
}

/// What the copy of the store has come to.
pub(crate) enum Heard {
    Listed(Inventory, Ports),
    Committed(InventoryChange, Vec<PortChange>),
}

/// Objects that wait for a slow agent: few, so that it happens that they are too many.
const WAITING: usize = 40;

impl Server {
    pub(crate) fn open(runtime: &Runtime, store: Arc<Faulty>) -> Self {
        let heard = Arc::default();
        let observer = Observing {
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
            heard,
        }
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        let mut heard = self.heard.lock().expect("nobody panics while holding it");
        std::mem::take(&mut heard)
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
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Observing {
    fn hear(&self, heard: Heard) {
        let mut all = self.heard.lock().expect("nobody panics while holding it");
        all.push(heard);
    }
}

#[async_trait]
impl Observer for Observing {
    fn listed(&mut self, state: &State) {
        let ports = state.ports.iter();
        let ports = ports.map(|(id, port)| (id.clone(), port.object.clone()));
        self.hear(Heard::Listed(inventory_of(state), ports.collect()));
    }

    fn committed(&mut self, state: &State, changes: &[Changed]) {
        let change = inventory_change(state, state.revision, changes);
        let ports = changes.iter().filter_map(|changed| match changed {
            Changed::Port(port) => {
                let either = port.after.as_ref().or(port.before.as_ref())?;
                Some((either.id.clone(), port.before.clone(), port.after.clone()))
            }
            _ => None,
        });
        self.hear(Heard::Committed(change, ports.collect()));
    }
}

//! For tests: a server without a network around it, and who asks it.

pub(crate) use crate::testing::{Dice, admin, member, reader};

use crate::inventory::{inventory_change, inventory_of};
use crate::objects::{Quota, Resource};
use crate::{
    AskedAddress, Caller, Changed, Control, Failed, NewNetwork, NewPort, NewSubnet, Observer,
    Refused, State,
};
use model::{Inventory, NetworkId, PortId};
use std::sync::{Arc, Mutex};
use store::memory::Memory;

pub(crate) struct Site {
    pub(crate) store: Arc<Memory>,
    pub(crate) control: Control,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Site {
    pub(crate) async fn new() -> Self {
        Self::on(Arc::new(Memory::new())).await
    }

    /// Another server on the same store.
    pub(crate) async fn beside(&self) -> Self {
        Self::on(self.store.clone()).await
    }

    async fn on(store: Arc<Memory>) -> Self {
        let wrong = Arc::new(Mutex::new(Vec::new()));
        let follows = Follows {
            inventory: Inventory::default(),
            wrong: wrong.clone(),
        };
        let most = Resource::ALL.map(|resource| (resource, -1));
        let observers: Vec<Box<dyn Observer>> = vec![Box::new(follows)];
        let control = Control::open_with(store.clone(), observers, Quota::of(most)).await;
        Self {
            store,
            control: control.expect("the store in memory is there"),
            wrong,
        }
    }

    /// Each change of the inventory led to what the copy says.
    pub(crate) fn inventory_followed(&self) {
        let wrong = self.wrong.lock().expect("nobody panics while holding it");
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    pub(crate) async fn network(&self, who: &Caller, shared: bool) -> NetworkId {
        let new = NewNetwork {
            shared,
            ..Default::default()
        };
        let ids = self.control.create_networks(who, vec![new]).await;
        one(ids.expect("a network"))
    }

    pub(crate) async fn subnet(&self, who: &Caller, network: &NetworkId, prefix: &str) -> String {
        let ids = self
            .control
            .create_subnets(who, vec![new_subnet(network, prefix)]);
        one(ids.await.expect("a subnet"))
    }

    pub(crate) async fn port(&self, who: &Caller, network: &NetworkId) -> PortId {
        self.port_with(who, network, |_| {}).await.expect("a port")
    }

    pub(crate) fn port_with<'a, W: FnOnce(&mut NewPort)>(
        &'a self,
        who: &Caller,
        network: &NetworkId,
        with: W,
    ) -> impl Future<Output = Result<PortId, Failed>> + use<'a, W> {
        let (who, mut new) = (who.clone(), new_port(network));
        with(&mut new);
        async move { self.control.create_ports(&who, vec![new]).await.map(one) }
    }
}

pub(crate) fn new_port(network: &NetworkId) -> NewPort {
    NewPort {
        network: network.to_string(),
        ..Default::default()
    }
}

pub(crate) fn new_subnet(network: &NetworkId, prefix: &str) -> NewSubnet {
    NewSubnet {
        network: network.to_string(),
        prefix: prefix.to_owned(),
        ..Default::default()
    }
}

pub(crate) fn at(address: &str) -> AskedAddress {
    AskedAddress {
        subnet: None,
        address: Some(address.to_owned()),
    }
}

pub(crate) fn one<T>(ids: Vec<T>) -> T {
    let [id] = ids.try_into().ok().expect("one was asked for");
    id
}

/// `Ok`, or the refusal; what the world refuses fails the test.
pub(crate) fn refusal<T>(result: Result<T, Failed>) -> Result<T, Refused> {
    result.map_err(|failed| match failed {
        Failed::Refused(refused) => refused,
        other => panic!("{other}"),
    })
}

/// By its variant, as `{:?}` begins.
pub(crate) fn check_refused<T>(what: &str, result: Result<T, Failed>, expected: &str) {
    let said = match refusal(result) {
        Ok(_) => "done".to_owned(),
        Err(refused) => format!("{refused:?}"),
    };
    let variant = said.split([' ', '(', '{']).next().unwrap_or_default();
    assert_eq!(variant, expected, "{what}: {said}");
}

struct Follows {
    inventory: Inventory,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Observer for Follows {
    fn listed(&mut self, state: &State) {
        self.inventory = inventory_of(state);
    }

    fn committed(&mut self, state: &State, changes: &[Changed]) {
        let change = inventory_change(state, state.revision, changes);
        self.inventory.change(change);
        if self.inventory != inventory_of(state) {
            let what = format!("at {}: {changes:?}", state.revision);
            self.wrong.lock().expect("nobody panics").push(what);
        }
    }
}

pub(crate) fn pick<'a, T>(dice: &mut Dice, of: &'a [T]) -> &'a T {
    dice.one_of(of).expect("there are some")
}

pub(crate) fn chance(dice: &mut Dice, of: usize) -> bool {
    dice.below(of) == 0
}

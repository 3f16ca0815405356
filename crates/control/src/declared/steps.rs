//! The next commit on the way from what is there to what is declared.
//!
//! ```text
//! direct   all that differs, if one commit holds it
//! narrow   rules go; ports leave groups and lose addresses; groups get stateless; address groups lose prefixes
//! widen    networks; then what narrowing left to be added, in the order in which objects name each other; then
//!          what is in nobody's way is removed
//! ```
//! Rules only permit, and groups, addresses and prefixes only add. So while it narrows, each object is part of its old
//! self, and while it widens, part of its new one; where the one ends and the other begins it is part of both. A
//! port that becomes another one (its MAC, its network, its guard), or whose network gets another scope, is in no
//! group at that moment.
//! Knows nothing of: whether it may be changed.

use super::Outcome;
use super::batch::{Batch, Full};
use super::kinds::Declarable;
use super::moves::moves;
use super::plan::{Item, Plan, Rules, names};
use crate::control::Decided;
use crate::objects::{Addresses, AskedPeer, Group, GroupRule, Network, Port, Shared};
use crate::records::{self, Kept};
use crate::refused::Refused;
use crate::rules::{content, lock};
use crate::sharing;
use crate::state::Stored;
use arcstr::ArcStr;
use model::{GroupId, NetworkId, RuleId};
use std::collections::{BTreeMap, BTreeSet};
use store::{Key, Transaction};

pub(super) struct Step {
    pub(super) outcomes: Vec<Outcome>,
    /// All is done with it.
    pub(super) last: bool,
}

pub(super) fn next(plan: &Plan<'_>) -> Result<Decided<Step>, Refused> {
    let steps = Steps::of(plan);
    let (transaction, last) = steps.next()?;
    let outcomes = plan.outcomes.clone();
    Ok(Decided {
        transaction,
        answer: Step { outcomes, last },
    })
}

struct Steps<'p, 'a> {
    plan: &'p Plan<'a>,
    gone_groups: BTreeSet<&'a GroupId>,
    gone_networks: BTreeSet<&'a NetworkId>,
    /// Networks that come into another scope.
    rescoped: BTreeSet<&'a NetworkId>,
}

/// A port joins so many groups in one commit; each of them is marked.
const MOST_GROUPS_AT_ONCE: usize = 60;

impl<'p, 'a> Steps<'p, 'a> {
    fn of(plan: &'p Plan<'a>) -> Self {
        let networks = plan.networks.iter();
        let rescoped = networks.filter_map(|item| {
            let (before, after) = (item.before?, item.after.as_ref()?);
            (before.scope != after.scope).then_some(&before.object.id)
        });
        Self {
            plan,
            gone_groups: gone(&plan.groups).map(|group| &group.object.id).collect(),
            gone_networks: gone(&plan.networks).map(|n| &n.object.id).collect(),
            rescoped: rescoped.collect(),
        }
    }

    fn next(&self) -> Result<(Transaction, bool), Refused> {
        let turn = &self.plan.turn;
        let mut all = self.batch(&turn.ends);
        if self.direct(&mut all).is_ok() {
            return Ok((all.transaction(), true));
        }
        let mut narrower = self.batch(&turn.goes_on);
        let whole = self.narrow(&mut narrower);
        if whole.is_err() || !narrower.is_empty() {
            return of_many(narrower);
        }
        let mut wider = self.batch(&turn.goes_on);
        match self.widen(&mut wider) {
            Ok(()) => {
                let over = [&turn.goes_on, &turn.ends].map(|turn| turn.writes().keys());
                let over = over.into_iter().flatten();
                let last = over.fold(wider.transaction(), |last, name| last.delete(name.clone()));
                Ok((last, true))
            }
            Err(Full) => of_many(wider),
        }
    }

    fn batch(&self, of_turn: &Transaction) -> Batch<'a> {
        Batch::new(
            self.plan.state,
            self.plan.now,
            self.plan.room,
            of_turn.clone(),
        )
    }

    fn direct(&self, batch: &mut Batch<'a>) -> Result<(), Full> {
        self.hosts(batch)?;
        self.addresses(batch)?;
        self.networks(batch)?;
        self.groups(batch)?;
        for (group, rules) in &self.plan.rules {
            batch.unit(|batch| self.rules(batch, group, rules))?;
        }
        for item in &self.plan.ports {
            batch.unit(|batch| self.port(batch, item.before, item.after.as_ref()))?;
        }
        self.remove_objects(batch)
    }

    fn narrow(&self, batch: &mut Batch<'a>) -> Result<(), Full> {
        for (group, rules) in &self.plan.rules {
            let after = rules.said_after();
            let gone = rules.before.values();
            for rule in gone.filter(|rule| !after.contains(&content(&rule.asks))) {
                batch.unit(|batch| {
                    self.of_group(batch, group);
                    self.unsay(batch, rule);
                    batch.delete(rule.key());
                })?;
            }
        }
        let wanted = self.wanted_names();
        for item in &self.plan.ports {
            let Some(before) = item.before else { continue };
            let goes = item.after.is_none();
            if goes && names(before).is_disjoint(&wanted) {
                batch.unit(|batch| self.port(batch, Some(before), None))?;
                continue;
            }
            let mut narrow = self.narrow_port(before, item.after.as_ref());
            if narrow != **before {
                narrow.changed(self.plan.now.at);
                batch.unit(|batch| self.port(batch, Some(before), Some(&narrow)))?;
            }
        }
        for item in &self.plan.groups {
            if let (Some(before), Some(after)) = (item.before, &item.after)
                && before.stateful
                && !after.stateful
            {
                let mut narrow = Group::clone(before);
                narrow.stateful = false;
                narrow.changed(self.plan.now.at);
                batch.unit(|batch| batch.put(Some(before), &narrow))?;
            }
        }
        for item in &self.plan.addresses {
            if let (Some(before), Some(after)) = (item.before, &item.after)
                && !before.prefixes.is_subset(&after.prefixes)
            {
                let mut narrow = Addresses::clone(before);
                narrow.prefixes = &before.prefixes & &after.prefixes;
                narrow.changed(self.plan.now.at);
                batch.unit(|batch| batch.put(Some(before), &narrow))?;
            }
        }
        Ok(())
    }

    fn widen(&self, batch: &mut Batch<'a>) -> Result<(), Full> {
        self.hosts(batch)?;
        self.networks(batch)?;
        self.addresses(batch)?;
        self.groups(batch)?;
        for (group, rules) in &self.plan.rules {
            self.move_rules(batch, group, rules)?;
        }
        let mut done = BTreeSet::new();
        for item in &self.plan.ports {
            let together = self.together(item, &mut done);
            if together.is_empty() {
                continue;
            }
            if let [one] = together[..]
                && self.joins_slowly(batch, one)?
            {
                continue;
            }
            batch.unit(|batch| {
                for item in together {
                    self.port(batch, item.before, item.after.as_ref());
                }
            })?;
        }
        self.remove_objects(batch)
    }

    fn hosts(&self, batch: &mut Batch<'a>) -> Result<(), Full> {
        put_all(batch, &self.plan.hosts)
    }

    fn addresses(&self, batch: &mut Batch<'a>) -> Result<(), Full> {
        put_all(batch, &self.plan.addresses)
    }

    /// Each with its subnets, at once: what of it is trusted depends on both.
    fn networks(&self, batch: &mut Batch<'a>) -> Result<(), Full> {
        let networks = self.plan.networks.iter();
        let items = networks.filter_map(|item| Some((&item.after.as_ref()?.id, item)));
        let items: BTreeMap<&NetworkId, &Item<Network>> = items.collect();
        let mut ids: BTreeSet<&NetworkId> = items.keys().copied().collect();
        let changed = self.plan.subnets.keys();
        ids.extend(changed.filter(|id| !self.gone_networks.contains(id)));
        for id in ids {
            batch.unit(|batch| {
                if let Some(item) = items.get(id) {
                    let after = item.after.as_ref().expect("those that stay");
                    batch.put(item.before, after);
                }
                self.subnets(batch, id);
            })?;
        }
        Ok(())
    }

    fn subnets(&self, batch: &mut Batch<'a>, network: &NetworkId) {
        let Some(subnets) = self.plan.subnets.get(network) else {
            return;
        };
        if let Some(network) = self.plan.state.networks.get(network) {
            batch.depend(network);
            batch.unmarked(records::subnets_mark(network.id.as_str()));
        }
        batch.mark(records::subnets_mark(network.as_str()));
        for item in subnets {
            match (&item.after, item.before) {
                (Some(after), before) => batch.put(before, after),
                (None, Some(before)) => batch.remove(before),
                (None, None) => {}
            }
        }
    }

    fn groups(&self, batch: &mut Batch<'a>) -> Result<(), Full> {
        for item in &self.plan.groups {
            let Some(after) = &item.after else { continue };
            batch.unit(|batch| match item.before {
                Some(before) => batch.put(Some(before), after),
                None => {
                    let mut group = after.clone();
                    group.wire_tag = batch.wire_tag(&group.id);
                    batch.put(None, &group);
                }
            })?;
        }
        Ok(())
    }

    /// All that differs in a group.
    fn rules(&self, batch: &mut Batch<'a>, group: &GroupId, rules: &Rules<'_>) {
        if !self.stays(group) {
            for rule in rules.before.values() {
                batch.delete(rule.key());
                self.unsay(batch, rule);
            }
            return;
        }
        self.of_group(batch, group);
        let says = rules.said_after();
        for (id, rule) in &rules.before {
            if !rules.after.contains_key(id) {
                batch.delete(rule.key());
            }
            if !says.contains(&content(&rule.asks)) {
                self.unsay(batch, rule);
            }
        }
        for (id, rule) in &rules.after {
            let before = rules.before.get(id).copied();
            let same = before.is_some_and(|before| **before == *rule);
            if !same || !self.holds(rule) {
                self.say(batch, before, rule);
            }
        }
    }

    fn holds(&self, rule: &GroupRule) -> bool {
        let holder = self.plan.state.holder(&lock(&rule.group, &rule.asks));
        holder.is_some_and(|held| *held.object == *rule.id.as_str())
    }

    fn stays(&self, group: &GroupId) -> bool {
        !self.gone_groups.contains(group)
    }

    /// Nobody has changed a rule of it since; and others learn that we do.
    fn of_group(&self, batch: &mut Batch<'a>, group: &GroupId) {
        let mark = records::rules_mark(group.as_str());
        if let Some(group) = self.plan.state.groups.get(group) {
            batch.same(group);
            batch.unmarked(mark.clone());
        }
        batch.mark(mark);
    }

    fn say(&self, batch: &mut Batch<'a>, before: Option<&Stored<GroupRule>>, rule: &GroupRule) {
        let state = self.plan.state;
        match &rule.asks.peer {
            AskedPeer::Group(id) => {
                if let Some(group) = state.groups.get(id) {
                    batch.depend(group);
                }
            }
            AskedPeer::Addresses(id) => {
                if let Some(addresses) = state.addresses.get(id) {
                    batch.depend(addresses);
                }
            }
            AskedPeer::Anyone | AskedPeer::Prefix { .. } => {}
        }
        if before.is_none() {
            batch.count(rule);
        }
        // Its group's mark stands for all of them.
        batch.write(rule.key(), rule.value());
        batch.write(lock(&rule.group, &rule.asks), rule.id.as_str().as_bytes());
    }

    /// Unless another rule says it as well.
    fn unsay(&self, batch: &mut Batch<'a>, rule: &GroupRule) {
        if self.holds(rule) {
            batch.delete(lock(&rule.group, &rule.asks));
        }
    }

    fn move_rules(
        &self,
        batch: &mut Batch<'a>,
        group: &GroupId,
        rules: &Rules<'_>,
    ) -> Result<(), Full> {
        if !self.stays(group) {
            return Ok(());
        }
        let before = rules.before.iter();
        let before = before.map(|(id, rule)| (id.clone(), content(&rule.asks)));
        let after = rules.after.iter();
        let after = after.map(|(id, rule)| (id.clone(), content(&rule.asks)));
        let (before, after) = (before.collect(), after.collect());
        let mut heads = Heads::of(self, rules);
        for (id, says) in moves(&before, &after) {
            batch.unit(|batch| {
                self.of_group(batch, group);
                if let Some(lock) = heads.left(rules, &id) {
                    batch.delete(lock);
                }
                match says {
                    Some(_) => {
                        let rule = &rules.after[&id];
                        self.say(batch, rules.before.get(&id).copied(), rule);
                        heads.said(rule);
                    }
                    None => batch.delete(rules.before[&id].key()),
                }
            })?;
        }
        // What says the same under the same id, and differs otherwise.
        for (id, rule) in &rules.after {
            let same = |before: &&&Stored<GroupRule>| content(&before.asks) == after[id];
            let Some(before) = rules.before.get(id).filter(same) else {
                continue;
            };
            if ***before != *rule {
                batch.unit(|batch| {
                    self.of_group(batch, group);
                    self.say(batch, Some(before), rule);
                })?;
            }
        }
        Ok(())
    }

    /// `None`: it goes.
    fn port(&self, batch: &mut Batch<'a>, before: Option<&Stored<Port>>, after: Option<&Port>) {
        let state = self.plan.state;
        let had = before.map(|before| names(before)).unwrap_or_default();
        let has = after.map(names).unwrap_or_default();
        for name in had.difference(&has) {
            batch.delete(name.clone());
        }
        let Some(after) = after else {
            if let Some(before) = before {
                batch.remove(before);
            }
            return;
        };
        for name in has.difference(&had) {
            batch.take(name.clone(), after.id.as_str());
            batch.mark(records::mark(Network::KIND, after.network.as_str()));
        }
        let network = before.is_none_or(|before| before.network != after.network);
        if let Some(network) = state.networks.get(&after.network).filter(|_| network) {
            batch.depend(network);
        }
        let known = |subnet: &&ArcStr| before.is_some_and(|b| b.fixed.subnets().contains(*subnet));
        for subnet in after.fixed.subnets().iter().filter(|subnet| !known(subnet)) {
            if let Some(subnet) = state.subnets.get(subnet) {
                batch.depend(subnet);
            }
        }
        let is_in = |group: &&GroupId| before.is_some_and(|before| before.groups.contains(*group));
        for group in after.groups.iter().filter(|group| !is_in(group)) {
            if let Some(group) = state.groups.get(group) {
                batch.depend(group);
            }
        }
        batch.put(before, after);
    }

    /// What both its old and its new self are.
    fn narrow_port(&self, before: &Stored<Port>, after: Option<&Port>) -> Port {
        let mut narrow = Port::clone(before);
        let flags = |port: &Port| (port.is_dhcp_server(), port.is_router());
        if after.is_none_or(|after| flags(after) != flags(before)) {
            narrow.device_owner = ArcStr::new();
        }
        let after = after.filter(|after| after.network == before.network);
        let stays = |address: &_| after.is_some_and(|a| a.fixed.addresses().contains(address));
        let fixed = before.fixed.iter().filter(|fixed| stays(&fixed.address));
        narrow.fixed = fixed.collect();
        let same = after.filter(|after| {
            after.mac == before.mac
                && after.port_security == before.port_security
                && !self.rescoped.contains(&before.network)
        });
        match same {
            Some(same) => {
                narrow.groups.retain(|group| same.groups.contains(group));
                let pairs = before.pairs.iter().filter(|pair| same.pairs.contains(pair));
                narrow.pairs = pairs.cloned().collect();
            }
            None => {
                narrow.groups.clear();
                narrow.pairs = Box::default();
                narrow.port_security |= after.is_none_or(|after| after.port_security);
            }
        }
        narrow
    }

    /// Addresses and MACs that some port is to have and hasn't.
    fn wanted_names(&self) -> BTreeSet<Key> {
        let ports = self.plan.ports.iter();
        let wanted = ports.flat_map(|item| {
            let has = item.before.map(|before| names(before)).unwrap_or_default();
            let wants = item.after.as_ref().map(names).unwrap_or_default();
            Vec::from_iter(wants.difference(&has).cloned())
        });
        wanted.collect()
    }

    /// With those that have what it is to get, and so on: one can't be without the others.
    fn together<'s>(
        &'s self,
        item: &'s Item<'a, Port>,
        done: &mut BTreeSet<&'s str>,
    ) -> Vec<&'s Item<'a, Port>> {
        let mut found = Vec::new();
        let mut left = vec![item];
        while let Some(item) = left.pop() {
            if !done.insert(item.port_id().as_str()) {
                continue;
            }
            found.push(item);
            for name in item.after.iter().flat_map(names) {
                let holder = self.plan.holders.get(&name);
                left.extend(holder.and_then(|holder| self.plan.port(holder.as_str())));
            }
        }
        found
    }

    /// In more groups than a commit can mark: some after the others. Whether it is so.
    fn joins_slowly(&self, batch: &mut Batch<'a>, item: &Item<'_, Port>) -> Result<bool, Full> {
        let Some(after) = &item.after else {
            return Ok(false);
        };
        let is_in = |group: &&GroupId| item.before.is_some_and(|b| b.groups.contains(*group));
        let joining = Vec::from_iter(after.groups.iter().filter(|group| !is_in(group)));
        if joining.len() <= MOST_GROUPS_AT_ONCE {
            return Ok(false);
        }
        let mut part = after.clone();
        part.groups.retain(|group| is_in(&group));
        let first = joining.into_iter().take(MOST_GROUPS_AT_ONCE);
        part.groups.extend(first.cloned());
        batch.unit(|batch| self.port(batch, item.before, Some(&part)))?;
        Err(Full)
    }

    /// What nothing names any more.
    fn remove_objects(&self, batch: &mut Batch<'a>) -> Result<(), Full> {
        for group in gone(&self.plan.groups) {
            batch.unit(|batch| self.remove_group(batch, group))?;
        }
        for network in gone(&self.plan.networks) {
            batch.unit(|batch| {
                let subnets = self.plan.subnets.get(&network.id);
                for subnet in gone(subnets.map(Vec::as_slice).unwrap_or_default()) {
                    batch.remove(subnet);
                }
                batch.remove(network);
                batch.unmarked(records::subnets_mark(network.id.as_str()));
                batch.delete(records::subnets_mark(network.id.as_str()));
                self.unshare(batch, &Shared::Network(network.id.clone()));
            })?;
        }
        for addresses in gone(&self.plan.addresses) {
            batch.unit(|batch| {
                batch.remove(addresses);
                self.unshare(batch, &Shared::Addresses(addresses.id.clone()));
            })?;
        }
        for host in gone(&self.plan.hosts) {
            batch.unit(|batch| batch.remove(host))?;
        }
        Ok(())
    }

    fn remove_group(&self, batch: &mut Batch<'a>, group: &Stored<Group>) {
        let mark = records::rules_mark(group.id.as_str());
        batch.unmarked(mark.clone());
        batch.remove(group);
        batch.delete(mark);
        if let Some(tag) = group.wire_tag {
            batch.release_wire_tag(tag);
        }
        let project = self.plan.state.projects.get(&group.project);
        if let Some(project) = project.filter(|project| project.default_group == group.id) {
            batch.unchanged(project);
            batch.delete(project.key());
        }
        self.unshare(batch, &Shared::Group(group.id.clone()));
    }

    fn unshare(&self, batch: &mut Batch<'a>, object: &Shared) {
        for share in self.plan.state.shares_of(object) {
            batch.delete(share.key());
            batch.delete(sharing::lock(share));
        }
    }
}

/// Which rule a lock names, while rules move.
struct Heads(BTreeMap<Key, RuleId>);

impl Heads {
    fn of(steps: &Steps<'_, '_>, rules: &Rules<'_>) -> Self {
        let locks = rules
            .before
            .values()
            .map(|rule| lock(&rule.group, &rule.asks));
        let held = locks.filter_map(|lock| {
            let holder = steps.plan.state.holder(&lock)?;
            let holder = RuleId::from(holder.object.as_str());
            Some((lock, holder))
        });
        Self(held.collect())
    }

    /// What nobody says when this rule says something else.
    fn left(&self, rules: &Rules<'_>, id: &RuleId) -> Option<Key> {
        let old = rules.before.get(id)?;
        let lock = lock(&old.group, &old.asks);
        (self.0.get(&lock) == Some(id)).then_some(lock)
    }

    fn said(&mut self, rule: &GroupRule) {
        self.0
            .insert(lock(&rule.group, &rule.asks), rule.id.clone());
    }
}

impl Rules<'_> {
    fn said_after(&self) -> BTreeSet<String> {
        self.after
            .values()
            .map(|rule| content(&rule.asks))
            .collect()
    }
}

fn gone<'i, 'a, T>(
    items: &'i [Item<'a, T>],
) -> impl Iterator<Item = &'a Stored<T>> + use<'i, 'a, T> {
    let gone = items.iter().filter(|item| item.after.is_none());
    gone.filter_map(|item| item.before)
}

fn put_all<'a, T: Declarable>(batch: &mut Batch<'a>, items: &[Item<'_, T>]) -> Result<(), Full> {
    for item in items {
        if let Some(after) = &item.after {
            batch.unit(|batch| batch.put(item.before, after))?;
        }
    }
    Ok(())
}

/// There are more to come. One unit alone has to fit.
fn of_many(batch: Batch<'_>) -> Result<(Transaction, bool), Refused> {
    match batch.is_empty() {
        false => Ok((batch.transaction(), false)),
        true => Err(Refused::TooMany(
            "ports that exchange their MACs, or one object with all that it names, are more than one commit holds".to_owned(),
        )),
    }
}

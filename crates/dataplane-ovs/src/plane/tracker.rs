//! What the tracker is told: zones of ports and their timeouts, what it has to forget, and what is written down of
//! all that.

use super::{OvsPlane, datapath_type, failed};
use crate::books::Books;
use crate::elide;
use crate::names::Names;
use crate::place::{self, Placement};
use crate::records;
use crate::registers::{TAGS_IN_PLACE, WIDE};
use crate::timeouts;
use dataplane::{ApplyError, Target};
use model::{Direction, GroupId, Narrowing, PortId, Prefix};
use ovsdb::{Bridge, change, conntrack};
use policy::{ElisionChange, HostView, PeerView, PortView};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Zones by what has become of them.
pub(super) struct Moved {
    pub(super) given: Vec<u16>,
    pub(super) gone: Vec<u16>,
}

/// A tracker may be so late to forget.
const LATE: Duration = Duration::from_secs(30);

impl OvsPlane {
    /// Zones for those that come, holds for those whose flows may be open without state.
    pub(super) fn account(
        &mut self,
        target: &Target,
        bridges: &[Bridge],
        books: &mut Books,
    ) -> io::Result<Moved> {
        let present = place::on_bridges(target, bridges);
        let away = |id: &&PortId| !present.contains(*id);
        let away: Vec<PortId> = books.zones.keys().filter(away).cloned().collect();
        let gone = away.iter().filter_map(|id| books.zones.remove(id));
        let gone = gone.collect();
        let given = books.give(present);
        match target.view.settings.narrowing {
            Narrowing::Keep => {}
            Narrowing::Cut => {
                let narrowed = self.narrowed(&target.view, bridges, books)?;
                let established = target.view.settings.timeouts.tcp_established_s;
                let until = self.now() + Duration::from_secs(established.into());
                books
                    .held
                    .extend(narrowed.into_iter().map(|id| (id, until)));
            }
        }
        books
            .held
            .retain(|id, _| target.view.ports.contains_key(id));
        self.account_lost(target, books);
        // Nor did one look who left a group that no rule named then.
        let named = self
            .in_force
            .as_ref()
            .map(|known| named_groups(&known.target.view));
        let all_were_named =
            named.is_some_and(|named| named_groups(&target.view).is_subset(&named));
        if !self.labels_are_known || !all_were_named {
            self.account_labels(&target.view, books)?;
            self.labels_are_known = true;
        }
        Ok(Moved { given, gone })
    }

    /// Ports at which flows were open without state that need it now. Another process may have left them so.
    fn narrowed(
        &mut self,
        view: &HostView,
        bridges: &[Bridge],
        books: &Books,
    ) -> io::Result<Vec<PortId>> {
        if let Some(known) = &self.in_force {
            let mut change = ElisionChange::between(&known.target.view, view);
            let narrowed = view.ports.keys().filter(|id| change.stops(id));
            return Ok(narrowed.cloned().collect());
        }
        let mut narrowed = Vec::new();
        for bridge in bridges.iter().filter(|bridge| Books::are_on(bridge)) {
            let before = elide::in_force(self.switch(&bridge.name)?.known()?);
            for (id, port) in &view.ports {
                let before = books.zones.get(id).and_then(|number| before.get(number));
                let after = || elide::classes(view, &port.groups);
                if before.is_some_and(|before| elide::stops(before, &after())) {
                    narrowed.push(id.clone());
                }
            }
        }
        Ok(narrowed)
    }

    /// Where tags tell who is in which group, a flow remembers what its first packet said: whoever has left a group
    /// since is told by the address, as long as such a flow may be there.
    fn account_lost(&self, target: &Target, books: &mut Books) {
        let now = self.now();
        books.lost.retain(|_, until| *until > now);
        let (Some(known), Some(overlay)) = (&self.in_force, &target.view.overlay) else {
            return;
        };
        let longest = target.view.settings.timeouts.tcp_established_s.into();
        let until = now + Duration::from_secs(longest) + LATE;
        let (old, new) = (&known.target.view.members, &target.view.members);
        let named = named_groups(&target.view);
        for ((scope, group), before, after) in policy::differing(old, new) {
            // Of a group that no rule names any more, no rule asks.
            if !named.contains(group) || !overlay.is_tagged(&target.view, scope) {
                continue;
            }
            let gone = before.into_iter().flat_map(|set| set.iter());
            let gone = gone.filter(|member| !after.is_some_and(|set| set.contains(*member)));
            books
                .lost
                .extend(gone.map(|member| ((scope.clone(), *member), until)));
        }
    }

    /// The same of who left while no agent looked: the entries say who was in which group.
    fn account_labels(&mut self, view: &HostView, books: &mut Books) -> io::Result<()> {
        let Some(overlay) = view.overlay.as_ref() else {
            return Ok(());
        };
        let ports: BTreeMap<u16, &Arc<PortView>> = books
            .zones
            .iter()
            .filter_map(|(id, zone)| Some((*zone, view.ports.get(id)?)))
            .collect();
        let tags = Names::of(view).tags;
        let named = named_groups(view).into_iter();
        let named: BTreeMap<u16, &GroupId> = named
            .filter_map(|group| Some((*tags.get(group)?, group)))
            .collect();
        let longest = view.settings.timeouts.tcp_established_s.into();
        let until = self.now() + Duration::from_secs(longest) + LATE;
        let connections = self.connections(None)?.into_iter();
        for connection in connections.filter(|connection| connection.labels != 0) {
            let Some(port) = ports.get(&connection.zone) else {
                continue;
            };
            let scope = &view.networks[&port.network].scope;
            if !overlay.is_tagged(view, scope) {
                continue;
            }
            for way in records::ways(port, &connection) {
                let remote = match way {
                    Direction::Egress => connection.orig.dst,
                    Direction::Ingress => connection.orig.src,
                };
                let in_group = |group: &GroupId| {
                    let members = view.members.get(&(scope.clone(), group.clone()));
                    members.is_some_and(|set| {
                        let is_listed = set.contains(&Prefix::host(remote));
                        is_listed || set.iter().any(|p| p.contains(remote))
                    })
                };
                if !label_holds(connection.labels, &named, in_group) {
                    let at = (scope.clone(), Prefix::host(remote));
                    books.lost.insert(at, until);
                }
            }
        }
        Ok(())
    }

    /// Zones are written down before anything is tracked in them.
    pub(super) fn keep_books(
        &mut self,
        bridges: &[Bridge],
        placement: &Placement,
        books: &Books,
    ) -> Result<(), ApplyError> {
        let mut operations = Vec::new();
        for bridge in bridges {
            let board = placement.boards.get(&bridge.name);
            let ports = board.into_iter().flat_map(|board| board.ports.keys());
            let mut wanted = books.external_ids(ports);
            if board.is_some_and(|board| board.tunnel.is_some()) {
                wanted.extend(books.lost_ids());
            }
            let stale = Books::keys(bridge).filter(|key| !wanted.contains_key(*key));
            let stale: Vec<&str> = stale.map(String::as_str).collect();
            if !stale.is_empty() {
                operations.extend(change::remove_external_ids(&bridge.name, &stale));
            }
            let new = wanted
                .iter()
                .filter(|(key, value)| bridge.external_ids.get(*key) != Some(value));
            let new: Vec<(&str, &str)> = new.map(|(k, v)| (k.as_str(), v.as_str())).collect();
            if !new.is_empty() {
                operations.extend(change::set_external_ids(&bridge.name, &new));
            }
        }
        self.transact(operations)
            .map_err(failed("writing down the ports' conntrack zones"))
    }

    /// What has to be so before the first packet is tracked.
    pub(super) fn prepare(
        &mut self,
        target: &Target,
        bridges: &[Bridge],
        placement: &Placement,
    ) -> Result<(), ApplyError> {
        let ports = placement
            .boards
            .values()
            .flat_map(|board| board.ports.values());
        let zones: BTreeSet<u16> = ports.map(|port| port.number).collect();
        let datapaths: BTreeSet<&str> = bridges.iter().map(datapath_type).collect();
        for datapath in datapaths {
            let found = self
                .zones(datapath)
                .map_err(failed("asking for the zones' timeouts"))?;
            let timeouts = &target.view.settings.timeouts;
            let operations = timeouts::operations(datapath, &found, &zones, timeouts);
            self.transact(operations)
                .map_err(failed("setting the zones' timeouts"))?;
            if datapath == "netdev" && !zones.is_empty() && !self.tracker_is_set {
                self.set_tracker()
                    .map_err(failed("setting up the tracker"))?;
                self.tracker_is_set = true;
            }
        }
        Ok(())
    }

    fn set_tracker(&mut self) -> io::Result<()> {
        let control = self.control()?;
        let done = conntrack::tcp_sequence_check(control, None).and_then(|on| match on {
            true => conntrack::disable_tcp_sequence_check(control, None),
            false => Ok(()),
        });
        // Smaller pieces than this it doesn't put together; it takes no smaller number.
        let done = done.and_then(|()| {
            let mut set = |family| control.call("dpctl/ipf-set-min-frag", &[family, "400"]);
            set("v4").and_then(|_| set("v6")).map(drop)
        });
        done.map_err(|error| {
            self.control = None;
            io::Error::other(error)
        })
    }

    /// Whoever gets one of these zones finds nothing in it.
    pub(super) fn empty(&mut self, zones: &[u16]) -> Result<(), ApplyError> {
        for zone in zones {
            let flushed = self.control().and_then(|control| {
                match conntrack::flush_zone(control, None, *zone) {
                    // Before the first bridge, and after the last.
                    Err(error) if !error.to_string().contains("no datapaths exist") => {
                        Err(io::Error::other(error))
                    }
                    Ok(_) | Err(_) => Ok(()),
                }
            });
            flushed.map_err(failed("ending the connections of a port that is gone"))?;
        }
        Ok(())
    }

    /// Connections that are kept no state for from now on.
    pub(super) fn forget_elidable(&mut self, target: &Target) -> Result<(), ApplyError> {
        let Some(known) = &self.in_force else {
            return Ok(());
        };
        let mut change = ElisionChange::between(&known.target.view, &target.view);
        let becomes: Vec<&PortId> = target
            .view
            .ports
            .keys()
            .filter(|id| change.becomes(id))
            .collect();
        let zones: Vec<(PortId, u16)> = becomes
            .into_iter()
            .filter_map(|id| Some((id.clone(), *self.books.as_ref()?.zones.get(id)?)))
            .collect();
        for (port, zone) in zones {
            let done = self.control().and_then(|control| {
                crate::flows::forget_elidable(control, &target.view, &port, zone)
            });
            done.map_err(failed("ending connections that need no tracking any more"))?;
        }
        Ok(())
    }

    pub(super) fn forget_timeouts(&mut self, datapath: &str) -> io::Result<()> {
        let found = self.zones(datapath)?;
        let none = BTreeSet::new();
        self.transact(timeouts::operations(
            datapath,
            &found,
            &none,
            &model::Timeouts::default(),
        ))
    }
}

/// Whether somebody is in all groups of such a list that rules name; of a longer one that isn't known.
fn label_holds(
    label: u128,
    named: &BTreeMap<u16, &GroupId>,
    in_group: impl Fn(&GroupId) -> bool,
) -> bool {
    let places = (0..TAGS_IN_PLACE).map(|place| (label >> (16 * place)) as u16);
    label as u16 != WIDE
        && places
            .filter_map(|tag| named.get(&tag))
            .all(|group| in_group(group))
}

fn named_groups(view: &HostView) -> BTreeSet<&GroupId> {
    let rules = view.groups.values().flat_map(|group| group.rules.values());
    let named = rules.filter_map(|rule| match &rule.peer {
        PeerView::Group(group) => Some(group),
        PeerView::Any | PeerView::Prefix(_) | PeerView::AddressGroup(_) => None,
    });
    named.collect()
}

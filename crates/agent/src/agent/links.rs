//! Devices that come, change and go.
//!
//! Place on the line: devices -> **what there is** -> target.
//! Knows nothing of: whose they are.

use super::{Agent, Effect};
use crate::link::Link;
use crate::report::Report;
use std::collections::BTreeMap;
use std::time::Duration;

impl Agent {
    pub(super) fn devices_listed(
        &mut self,
        now: Duration,
        listed: Vec<Link>,
        effects: &mut Vec<Effect>,
    ) {
        let listed: BTreeMap<u32, Link> = listed.into_iter().map(|l| (l.ifindex, l)).collect();
        let Some(before) = &self.links else {
            // An index that now means another device is not ours any more.
            self.ours
                .retain(|d| listed.get(&d.ifindex).is_some_and(|l| l.name == d.name));
            self.links = Some(listed);
            self.stale = true;
            return;
        };
        let gone: Vec<u32> = before
            .keys()
            .filter(|i| !listed.contains_key(i))
            .copied()
            .collect();
        for ifindex in gone {
            self.device_gone(ifindex, effects);
        }
        for link in listed.into_values() {
            self.device_seen(now, link);
        }
    }

    pub(super) fn device_seen(&mut self, at: Duration, mut link: Link) {
        // Before the first list: the list will have it.
        let Some(links) = &mut self.links else {
            return;
        };
        // Also when nothing changes that we see: a switch that takes a device in makes itself felt like this.
        self.ids.stale = true;
        link.interface_id = self.ids.of(&link);
        let before = links.get(&link.ifindex);
        if before == Some(&link) {
            return;
        }
        if before.is_none() {
            self.arming.appeared(link.ifindex);
        }
        if link.up {
            self.arming.up(link.ifindex, at);
        } else {
            self.arming.down(link.ifindex);
        }
        // A renamed device stays ours: it is still the same VM behind it.
        if let Some(old) = before.filter(|b| b.name != link.name)
            && self.ours.remove(&old.device())
        {
            self.ours.insert(link.device());
        }
        // With the name, the interface id is another.
        self.stale |= before
            .is_none_or(|b| b.name != link.name || b.mac != link.mac || b.master != link.master);
        links.insert(link.ifindex, link);
    }

    pub(super) fn device_gone(&mut self, ifindex: u32, effects: &mut Vec<Effect>) {
        let Some(link) = self.links.as_mut().and_then(|l| l.remove(&ifindex)) else {
            return;
        };
        self.arming.gone(ifindex);
        self.stale = true;
        if self.ours.remove(&link.device()) {
            effects.push(Effect::Report(Report::DeviceGone {
                device: link.name,
                ifindex,
            }));
        }
    }
}

//! What has to outlive the process and the switch's: the zone of each port, and until when it is held.
//!
//! Kept where the ports are, in the bridges' `external_ids`: `portcullis-zone-PORT` and `portcullis-held-PORT`.
//! A zone that was given back is the last to be given again: what the tracker knows of it may be late.
//! Knows nothing of: what a zone holds.

use model::PortId;
use ovsdb::Bridge;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Books {
    pub(crate) zones: BTreeMap<PortId, u16>,
    /// TCP flows of the port start by SYN only, until then.
    pub(crate) held: BTreeMap<PortId, SystemTime>,
    last: u16,
}

const ZONE: &str = "portcullis-zone-";
const HELD: &str = "portcullis-held-";
/// Other users of the tracker begin at the low end.
const FIRST_ZONE: u16 = 0x8000;
const LAST_ZONE: u16 = 0xfffe;

impl Books {
    pub(crate) fn read(bridges: &[Bridge]) -> Self {
        let mut books = Self::default();
        let ids = bridges.iter().flat_map(|bridge| &bridge.external_ids);
        for (key, value) in ids {
            if let Some(port) = key.strip_prefix(ZONE)
                && let Ok(zone) = value.parse()
            {
                books.zones.insert(port.into(), zone);
                books.last = books.last.max(zone);
            }
            if let Some(port) = key.strip_prefix(HELD)
                && let Ok(seconds) = value.parse()
            {
                let until = UNIX_EPOCH + Duration::from_secs(seconds);
                books.held.insert(port.into(), until);
            }
        }
        books
    }

    /// Each of these ports has a zone from now on, if there are enough.
    pub(crate) fn give<'a>(&mut self, ports: impl IntoIterator<Item = &'a PortId>) {
        let mut taken: BTreeSet<u16> = self.zones.values().copied().collect();
        for port in ports {
            if self.zones.contains_key(port) {
                continue;
            }
            if taken.len() > usize::from(LAST_ZONE - FIRST_ZONE) {
                return;
            }
            let next = |zone: u16| match zone {
                FIRST_ZONE..LAST_ZONE => zone + 1,
                _ => FIRST_ZONE,
            };
            let mut zone = next(self.last);
            while !taken.insert(zone) {
                zone = next(zone);
            }
            self.last = zone;
            self.zones.insert(port.clone(), zone);
        }
    }

    /// What a bridge has to say of these ports.
    pub(crate) fn external_ids<'a>(
        &self,
        ports: impl IntoIterator<Item = &'a PortId>,
    ) -> BTreeMap<String, String> {
        let mut ids = BTreeMap::new();
        for port in ports {
            if let Some(zone) = self.zones.get(port) {
                ids.insert(format!("{ZONE}{port}"), zone.to_string());
            }
            if let Some(until) = self.held.get(port) {
                let since = until.duration_since(UNIX_EPOCH).unwrap_or_default();
                ids.insert(format!("{HELD}{port}"), since.as_secs().to_string());
            }
        }
        ids
    }

    /// The keys of ours that a bridge has.
    pub(crate) fn keys(bridge: &Bridge) -> impl Iterator<Item = &String> {
        let keys = bridge.external_ids.keys();
        keys.filter(|key| key.starts_with(ZONE) || key.starts_with(HELD))
    }
}

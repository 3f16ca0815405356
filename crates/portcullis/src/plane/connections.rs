//! Connections as the kernel's tracker has them where nobody says a zone: whose they are.

use crate::failure::Failure;
use dataplane::Target;
use model::{Direction, PortId};
use netfilter::conntrack::{self, Change, Entry, Filter};
use policy::{HostView, PortView};
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;

/// The zone of what no zone was said for.
pub(super) const EVERYBODYS: u16 = 0;

/// Entries of ports that the rules don't permit any more go; how many. We never ask them, and who judges by
/// state next would let these connections go on.
pub(crate) fn forget_revoked(target: &Target) -> Result<u64, Failure> {
    let forget = || -> io::Result<u64> {
        let ends = Ends::of(&target.view);
        let mut revoked = entries()?;
        revoked.retain(|entry| !ends.permit(entry));
        let changes: Vec<Change<'_>> = revoked.iter().map(Change::Delete).collect();
        conntrack::change(&changes).map_err(io::Error::other)?;
        Ok(revoked.len() as u64)
    };
    forget().map_err(super::asking("ending connections that were revoked"))
}

/// Each entry that is not translated: an address that the kernel translates is the host's own matter.
pub(super) fn entries() -> io::Result<Vec<Entry>> {
    let mut entries = Vec::new();
    if conntrack::count().map_err(io::Error::other)? > 0 {
        let filter = Filter {
            zone: Some(EVERYBODYS),
            ..Filter::default()
        };
        conntrack::dump(&filter, |entry| entries.push(entry)).map_err(io::Error::other)?;
    }
    entries.retain(|entry| !entry.is_translated());
    Ok(entries)
}

/// Ports by each address that is theirs alone.
pub(super) struct Ends<'v> {
    view: &'v HostView,
    ports: BTreeMap<IpAddr, Vec<(&'v PortId, &'v PortView)>>,
}

impl<'v> Ends<'v> {
    pub(super) fn of(view: &'v HostView) -> Self {
        let mut ports: BTreeMap<IpAddr, Vec<_>> = BTreeMap::new();
        for (id, port) in &view.ports {
            let listed = port.addresses.iter().filter_map(|a| a.prefix.as_host());
            let derived = IpAddr::V6(port.mac.eui64_link_local());
            for address in listed.filter(|a| *a != derived).chain([derived]) {
                ports.entry(address).or_default().push((id, &**port));
            }
        }
        Self { view, ports }
    }

    /// The ports at its ends, each with the direction that the connection began in there.
    pub(super) fn of_entry(
        &self,
        entry: &Entry,
    ) -> impl Iterator<Item = (&'v PortId, &'v PortView, Direction)> {
        let ends = [
            (entry.original.src, Direction::Egress),
            (entry.original.dst, Direction::Ingress),
        ];
        ends.into_iter().flat_map(|(address, direction)| {
            let ports = self.ports.get(&address).into_iter().flatten();
            ports.map(move |(id, port)| (*id, *port, direction))
        })
    }

    /// Whether each end of it that is here would let it begin now. What belongs to no flow is nobody's to
    /// end.
    fn permit(&self, entry: &Entry) -> bool {
        self.of_entry(entry).all(|(id, _, direction)| {
            let flow = entry.flow_key(direction);
            flow.is_none_or(|flow| policy::permitting(self.view, id, direction, &flow).is_some())
        })
    }
}

//! A port's VM that goes on at another host, as one host can show it: the plane says what it knows of the
//! port, loses the port, gets it anew as a host does that never had it, and is told.
//!
//! Place on the line: around conntrack. Knows nothing of: which plane it is, who carries flows between hosts.

use dataplane::{DataPlane, PortFlows};
use model::PortId;
use policy::HostView;
use std::io::ErrorKind;

/// Whoever holds a plane, and tells it what to enforce.
pub trait HoldsPlane {
    fn plane(&mut self) -> &mut dyn DataPlane;

    fn enforce(&mut self, view: HostView);
}

/// The view is in force, and is at the end. Or why the plane can't.
pub fn migrate(
    holder: &mut dyn HoldsPlane,
    port: &PortId,
    view: HostView,
) -> Result<(), &'static str> {
    let exported = match holder.plane().export_flows(port) {
        Err(error) if error.source.kind() == ErrorKind::Unsupported => {
            return Err("the plane's flows are a tracker's, and stay");
        }
        exported => exported.unwrap_or_else(|error| panic!("{error}")),
    };
    let on_the_way = exported.to_bytes();
    let mut elsewhere = view.clone();
    elsewhere.ports.remove(port);
    holder.enforce(elsewhere);
    holder.enforce(view);
    let arrived = PortFlows::from_bytes(&on_the_way).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(arrived, exported);
    let imported = holder.plane().import_flows(port, &arrived);
    imported.unwrap_or_else(|error| panic!("{error}"));
    Ok(())
}

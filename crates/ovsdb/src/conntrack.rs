//! The connections that ovs-vswitchd tracks, by `dpctl` commands: list and flush them, and limit them.
//!
//! A datapath may be named (`netdev@ovs-netdev`, as `dpctl/dump-dps` has it). It needn't if there is one.
//! Naming it costs nothing, but Open vSwitch 3.1 takes no name when it is to flush.

mod entry;
mod tuple;

pub use entry::Connection;
pub use tuple::{Icmp, Tuple};

use crate::control::unreadable;
use crate::{Control, ControlError};
use std::num::NonZeroU32;

/// How many connections the zones may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of each zone that has none of its own.
    pub default: u32,
    pub zones: Vec<ZoneLimit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZoneLimit {
    pub zone: u16,
    pub limit: u32,
    /// Of those committed since the zone has a limit.
    pub count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    Done,
    /// There was none (any more).
    Gone,
    /// It is there: one that can't be named without also naming others, or that mustn't be named. Flush
    /// its zone, or let it expire.
    NotAlone,
}

/// ENOENT, as the daemon words it.
const NO_ENTRY: &str = "No such file or directory";

/// Those that have not expired. A line that can't be read is an error: what it would have told mustn't be
/// taken for absent.
pub fn connections(
    control: &mut Control,
    datapath: Option<&str>,
    zone: Option<u16>,
) -> Result<Vec<Connection>, ControlError> {
    let command = "dpctl/dump-conntrack";
    let zone = zone.map(|zone| format!("zone={zone}"));
    let arguments = ["-m", "-s"]
        .into_iter()
        .chain(datapath)
        .chain(zone.as_deref());
    let text = control.call(command, &arguments.collect::<Vec<_>>())?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| Connection::parse(line).ok_or_else(|| unreadable(command, line)))
        .collect()
}

pub fn flush_zone(
    control: &mut Control,
    datapath: Option<&str>,
    zone: u16,
) -> Result<(), ControlError> {
    flush(control, datapath, zone, None)
}

/// This connection alone.
pub fn flush_connection(
    control: &mut Control,
    datapath: Option<&str>,
    connection: &Connection,
) -> Result<Flushed, ControlError> {
    let Some(tuple) = connection.orig.to_argument(&connection.protocol) else {
        return Ok(Flushed::NotAlone);
    };
    match flush(control, datapath, connection.zone, Some(&tuple)) {
        Ok(()) => Ok(Flushed::Done),
        Err(ControlError::Refused { text, .. }) if text.contains(NO_ENTRY) => Ok(Flushed::Gone),
        Err(error) => Err(error),
    }
}

/// The limit of a zone stays until it is removed. Beyond it a commit does nothing, and says nothing: the
/// packet goes on as a new one, without the mark or label that the commit was to give it. There is no zero
/// here: to the kernel's datapath it means "no limit", to ovs-vswitchd's own "no connection".
pub fn set_zone_limits(
    control: &mut Control,
    datapath: Option<&str>,
    limits: &[(u16, NonZeroU32)],
) -> Result<(), ControlError> {
    let limits = limits
        .iter()
        .map(|(zone, limit)| format!("zone={zone},limit={limit}"));
    let limits: Vec<String> = limits.collect();
    if limits.is_empty() {
        return Ok(());
    }
    let arguments = datapath
        .into_iter()
        .chain(limits.iter().map(String::as_str));
    let arguments: Vec<&str> = arguments.collect();
    control.call("dpctl/ct-set-limits", &arguments).map(|_| ())
}

/// Zones that have none don't matter.
pub fn remove_zone_limits(
    control: &mut Control,
    datapath: Option<&str>,
    zones: &[u16],
) -> Result<(), ControlError> {
    let Some(zones) = zone_list(zones) else {
        return Ok(());
    };
    let arguments: Vec<&str> = datapath.into_iter().chain([zones.as_str()]).collect();
    control.call("dpctl/ct-del-limits", &arguments).map(|_| ())
}

/// Of all zones that have a limit.
pub fn zone_limits(control: &mut Control, datapath: Option<&str>) -> Result<Limits, ControlError> {
    let command = "dpctl/ct-get-limits";
    let text = control.call(command, &datapath.into_iter().collect::<Vec<_>>())?;
    limits(&text).ok_or_else(|| unreadable(command, &text))
}

/// Whether TCP packets outside of the window are invalid. It is so until it is disabled, anew in each
/// process of ovs-vswitchd.
pub fn tcp_sequence_check(
    control: &mut Control,
    datapath: Option<&str>,
) -> Result<bool, ControlError> {
    let command = "dpctl/ct-get-tcp-seq-chk";
    let text = control.call(command, &datapath.into_iter().collect::<Vec<_>>())?;
    match text.trim() {
        "TCP sequence checking: enabled" => Ok(true),
        "TCP sequence checking: disabled" => Ok(false),
        other => Err(unreadable(command, other)),
    }
}

pub fn disable_tcp_sequence_check(
    control: &mut Control,
    datapath: Option<&str>,
) -> Result<(), ControlError> {
    let arguments: Vec<&str> = datapath.into_iter().collect();
    let done = control.call("dpctl/ct-disable-tcp-seq-chk", &arguments);
    done.map(|_| ())
}

fn flush(
    control: &mut Control,
    datapath: Option<&str>,
    zone: u16,
    tuple: Option<&str>,
) -> Result<(), ControlError> {
    let zone = format!("zone={zone}");
    let arguments = datapath.into_iter().chain([zone.as_str()]).chain(tuple);
    let arguments: Vec<&str> = arguments.collect();
    control
        .call("dpctl/flush-conntrack", &arguments)
        .map(|_| ())
}

fn zone_list(zones: &[u16]) -> Option<String> {
    let (first, rest) = zones.split_first()?;
    let rest = rest.iter().map(|zone| format!(",{zone}"));
    Some(format!("zone={first}{}", rest.collect::<String>()))
}

fn limits(text: &str) -> Option<Limits> {
    let mut lines = text.lines();
    let default = lines.next()?.strip_prefix("default limit=")?.parse().ok()?;
    let zone = |line: &str| {
        let mut parts = line.split(',');
        let mut part = |key| parts.next()?.strip_prefix(key)?.parse::<u32>().ok();
        Some(ZoneLimit {
            zone: part("zone=")?.try_into().ok()?,
            limit: part("limit=")?,
            count: part("count=")?,
        })
    };
    let zones = lines.map(zone).collect::<Option<_>>()?;
    Some(Limits { default, zones })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let text = "default limit=3\nzone=5,limit=2,count=1\nzone=7,limit=4294967295,count=0\n";
        let read = limits(text).expect("readable");
        let zones = read.zones.iter().map(|z| (z.zone, z.limit, z.count));
        assert_eq!(read.default, 3);
        assert_eq!(zones.collect::<Vec<_>>(), [(5, 2, 1), (7, u32::MAX, 0)]);
        for text in [
            "",
            "default limit=",
            "default limit=0\nzone=5",
            "zone=5,limit=2,count=1",
        ] {
            assert_eq!(limits(text), None, "{text}");
        }
        assert_eq!(limits("default limit=0\nzone=70000,limit=1,count=1"), None);
    }

    #[test]
    fn a_list_of_zones_is_one_argument() {
        assert_eq!(zone_list(&[]), None);
        assert_eq!(zone_list(&[5]).as_deref(), Some("zone=5"));
        assert_eq!(zone_list(&[5, 7]).as_deref(), Some("zone=5,7"));
    }
}

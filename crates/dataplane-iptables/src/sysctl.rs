//! Settings of the kernel that the gates rely on, and the contract's timeouts.
//!
//! They are the network namespace's: the host's own connections are tracked with them, too. What a kernel
//! hasn't got is passed over; what it has and doesn't take is an error.
//! Two of the kernel's timeouts have no counterpart in the contract and stay as they are: 300 s for data
//! that nobody acknowledges, and for a connection picked up in mid-stream that nobody answers.

use model::Settings;
use std::io;
use std::process::Command;

/// Below `/proc/sys/net`.
pub(crate) fn wanted(settings: &Settings) -> Vec<(&'static str, u32)> {
    let t = settings.timeouts;
    vec![
        ("bridge/bridge-nf-call-iptables", 1),
        ("bridge/bridge-nf-call-ip6tables", 1),
        // Sequence windows are no part of the contract; nor are checksums, which local packets lack.
        ("netfilter/nf_conntrack_tcp_be_liberal", 1),
        ("netfilter/nf_conntrack_tcp_ignore_invalid_rst", 1),
        ("netfilter/nf_conntrack_checksum", 0),
        // What is picked up in mid-stream: connections of a VM that has moved here.
        ("netfilter/nf_conntrack_tcp_loose", 1),
        // Expectations would let in what no rule permits.
        ("netfilter/nf_conntrack_helper", 0),
        (
            "netfilter/nf_conntrack_max",
            settings.budgets.flows_per_host,
        ),
        (
            "netfilter/nf_conntrack_tcp_timeout_syn_sent",
            t.tcp_opening_s,
        ),
        (
            "netfilter/nf_conntrack_tcp_timeout_syn_recv",
            t.tcp_opening_s,
        ),
        (
            "netfilter/nf_conntrack_tcp_timeout_established",
            t.tcp_established_s,
        ),
        (
            "netfilter/nf_conntrack_tcp_timeout_fin_wait",
            t.tcp_established_s,
        ),
        (
            "netfilter/nf_conntrack_tcp_timeout_close_wait",
            t.tcp_established_s,
        ),
        (
            "netfilter/nf_conntrack_tcp_timeout_last_ack",
            t.tcp_closing_s,
        ),
        (
            "netfilter/nf_conntrack_tcp_timeout_time_wait",
            t.tcp_closing_s,
        ),
        ("netfilter/nf_conntrack_tcp_timeout_close", t.tcp_reset_s),
        ("netfilter/nf_conntrack_udp_timeout", t.udp_s),
        ("netfilter/nf_conntrack_udp_timeout_stream", t.udp_replied_s),
        ("netfilter/nf_conntrack_icmp_timeout", t.icmp_s),
        ("netfilter/nf_conntrack_icmpv6_timeout", t.icmp_s),
        ("netfilter/nf_conntrack_generic_timeout", t.other_s),
        ("netfilter/nf_conntrack_gre_timeout", t.other_s),
        ("netfilter/nf_conntrack_gre_timeout_stream", t.other_s),
        ("netfilter/nf_conntrack_sctp_timeout_closed", t.other_s),
        ("netfilter/nf_conntrack_sctp_timeout_cookie_wait", t.other_s),
        (
            "netfilter/nf_conntrack_sctp_timeout_cookie_echoed",
            t.other_s,
        ),
        ("netfilter/nf_conntrack_sctp_timeout_established", t.other_s),
        (
            "netfilter/nf_conntrack_sctp_timeout_heartbeat_sent",
            t.other_s,
        ),
        (
            "netfilter/nf_conntrack_sctp_timeout_shutdown_sent",
            t.other_s,
        ),
        (
            "netfilter/nf_conntrack_sctp_timeout_shutdown_recd",
            t.other_s,
        ),
        (
            "netfilter/nf_conntrack_sctp_timeout_shutdown_ack_sent",
            t.other_s,
        ),
    ]
}

/// Those that are not as wanted.
pub(crate) fn differing(settings: &Settings) -> Vec<(&'static str, u32)> {
    let mut wanted = wanted(settings);
    wanted.retain(|(name, value)| {
        let now = std::fs::read_to_string(path(name));
        // In a namespace of its own, the table's size is the first namespace's.
        let fixed = *name == "netfilter/nf_conntrack_max" && !is_writable(name);
        !fixed && now.is_ok_and(|now| now.trim() != value.to_string())
    });
    wanted
}

pub(crate) fn write(differing: &[(&'static str, u32)]) -> Result<u64, (String, io::Error)> {
    for (name, value) in differing {
        std::fs::write(path(name), value.to_string())
            .map_err(|error| (format!("setting net/{name} to {value}"), error))?;
    }
    Ok(differing.len() as u64)
}

/// What they are now, of those that this kernel has.
pub(crate) fn read(settings: &Settings) -> Vec<(&'static str, String)> {
    let names = wanted(settings).into_iter().map(|(name, _)| name);
    let values = names.filter_map(|name| {
        let value = std::fs::read_to_string(path(name)).ok()?;
        Some((name, value.trim().to_owned()))
    });
    values.collect()
}

/// Makes another namespace's what they were where they were read. What is the same for all namespaces can't
/// be written, and needn't be.
pub(crate) fn copy(read: &[(&'static str, String)]) -> io::Result<()> {
    for (name, value) in read {
        if std::fs::read_to_string(path(name))?.trim() != value {
            std::fs::write(path(name), value)?;
        }
    }
    Ok(())
}

/// Makes sure that bridges can hand packets to iptables at all: the kernel may have that as a module.
pub fn load_bridge_netfilter() -> io::Result<()> {
    let there = || std::path::Path::new(&path("bridge/bridge-nf-call-iptables")).exists();
    if !there() {
        // Whether it did anything is to be seen.
        drop(Command::new("modprobe").arg("br_netfilter").output());
    }
    match there() {
        true => Ok(()),
        false => Err(io::Error::new(
            io::ErrorKind::NotFound,
            "bridges don't hand packets to iptables on this kernel, nor after `modprobe br_netfilter`",
        )),
    }
}

fn is_writable(name: &str) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path(name)).is_ok_and(|data| data.permissions().mode() & 0o200 != 0)
}

fn path(name: &str) -> String {
    format!("/proc/sys/net/{name}")
}

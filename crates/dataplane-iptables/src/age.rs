//! Time for tests: the kernel's clock can't be moved, but what it remembers can be made older.
//!
//! Not made older are datagrams that wait for their fragments.

use crate::found::link::Link;
use crate::tools::Tools;
use netfilter::conntrack::{self, Change, Entry, Filter};
use std::io;
use std::time::Duration;

/// As if so many whole seconds had gone by.
pub(crate) fn age(tools: &Tools, table: &str, by: Duration) -> io::Result<()> {
    let mut entries: Vec<Entry> = Vec::new();
    if conntrack::count().map_err(io::Error::other)? > 0 {
        let list = conntrack::dump(&Filter::default(), |entry| entries.push(entry));
        list.map_err(io::Error::other)?;
    }
    let changes = entries.iter().map(|of| {
        let left = u64::from(of.timeout_s).saturating_sub(by.as_secs());
        match u32::try_from(left) {
            Ok(seconds @ 1..) => Change::Timeout { of, seconds },
            Ok(0) | Err(_) => Change::Delete(of),
        }
    });
    let changes: Vec<Change<'_>> = changes.collect();
    conntrack::change(&changes).map_err(io::Error::other)?;
    age_holds(tools, table, by)
}

fn age_holds(tools: &Tools, table: &str, by: Duration) -> io::Result<()> {
    let listed = Link::parse(&tools.nft(&["-j", "list", "set", "bridge", table, "held"])?)?;
    for (device, expires) in listed.held() {
        let device = device.to_string();
        let element = |text: &str| format!("{{ {text} }}");
        tools.nft(&[
            "delete",
            "element",
            "bridge",
            table,
            "held",
            &element(&device),
        ])?;
        let left = u64::from(expires).saturating_sub(by.as_secs());
        if left > 0 {
            let again = element(&format!("{device} timeout {left}s"));
            tools.nft(&["add", "element", "bridge", table, "held", &again])?;
        }
    }
    Ok(())
}

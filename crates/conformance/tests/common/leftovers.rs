//! What tests that were killed have left in the kernel.

use dataplane::DataPlane;
use dataplane_ebpf::EbpfPlane;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// The name of an instance of this process alone; those of this purpose whose process is gone are removed.
pub(crate) fn instance(purpose: &str) -> String {
    let prefix = format!("pc-{purpose}-");
    for name in EbpfPlane::instances().unwrap_or_default() {
        let process = name
            .strip_prefix(&prefix)
            .and_then(|rest| rest.split('-').next())
            .filter(|p| p.parse::<u32>().is_ok());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            let left = EbpfPlane::open_existing(&name).map(|mut plane| plane.detach());
            if !matches!(left, Ok(Ok(()))) {
                eprintln!("{name}, of a process that is gone, can't be removed");
            }
        }
    }
    static INSTANCES: AtomicU32 = AtomicU32::new(0);
    let number = INSTANCES.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}{}-{number}", std::process::id())
}

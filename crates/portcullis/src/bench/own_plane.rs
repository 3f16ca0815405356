//! A data plane for the time of a measurement: gone with the value, however that ends.

use anyhow::bail;
use dataplane::{ApplyReport, DataPlane, Target};
use dataplane_ebpf::{EbpfConfig, EbpfPlane};
use std::ops::{Deref, DerefMut};

/// Made, used and dropped in the namespace whose devices it attaches to.
pub(super) struct OwnPlane(EbpfPlane);

impl OwnPlane {
    /// Room for the biggest policy that is measured.
    pub(super) fn open(name: &str, direct: bool) -> anyhow::Result<Self> {
        let config = EbpfConfig {
            max_flows: 1 << 20,
            max_policy: 1 << 18,
            max_members: 1 << 18,
            max_rules: 1 << 18,
            direct,
            ..EbpfConfig::small(format!("pc-bench-{}-{name}", std::process::id()))
        };
        Ok(Self(EbpfPlane::open(config)?))
    }

    pub(super) fn enforce(&mut self, target: &Target) -> anyhow::Result<ApplyReport> {
        let report = self.0.apply(target)?;
        if let Some((port, why)) = report.refused.first_key_value() {
            bail!("port {port} is not enforced: {why}");
        }
        Ok(report)
    }
}

impl Deref for OwnPlane {
    type Target = EbpfPlane;

    fn deref(&self) -> &EbpfPlane {
        &self.0
    }
}

impl DerefMut for OwnPlane {
    fn deref_mut(&mut self) -> &mut EbpfPlane {
        &mut self.0
    }
}

impl Drop for OwnPlane {
    fn drop(&mut self) {
        if let Err(error) = self.0.detach() {
            eprintln!("removing a bench's data plane: {error}");
        }
    }
}

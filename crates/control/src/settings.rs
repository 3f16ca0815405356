//! For records: a host's settings, which don't serialize themselves.
//!
//! Knows nothing of: what they do.

use model::{Budgets, Elision, Inspection, Narrowing, Settings, Timeouts};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

#[derive(Serialize, Deserialize)]
#[serde(remote = "Settings")]
struct OfSettings {
    #[serde(with = "OfElision")]
    elision: Elision,
    #[serde(with = "OfNarrowing")]
    narrowing: Narrowing,
    #[serde(with = "OfTimeouts")]
    timeouts: Timeouts,
    #[serde(with = "OfBudgets")]
    budgets: Budgets,
    #[serde(with = "OfInspection")]
    inspection: Inspection,
    ethertypes: BTreeSet<u16>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Elision", rename_all = "snake_case")]
enum OfElision {
    On,
    Strict,
    Off,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Narrowing", rename_all = "snake_case")]
enum OfNarrowing {
    Cut,
    Keep,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Inspection", rename_all = "snake_case")]
enum OfInspection {
    Destination,
    Source,
    Both,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Timeouts")]
struct OfTimeouts {
    tcp_opening_s: u32,
    tcp_established_s: u32,
    tcp_closing_s: u32,
    tcp_reset_s: u32,
    udp_s: u32,
    udp_replied_s: u32,
    icmp_s: u32,
    other_s: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Budgets")]
struct OfBudgets {
    flows_per_port: u32,
    half_open_per_port: u32,
    flows_per_host: u32,
    reserve_per_port: u32,
    elided_errors_per_s: u32,
}

pub(crate) mod optional {
    use super::{OfSettings, Settings};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(
        settings: &Option<Settings>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Kept<'a>(#[serde(with = "OfSettings")] &'a Settings);
        settings.as_ref().map(Kept).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Settings>, D::Error> {
        #[derive(Deserialize)]
        struct Kept(#[serde(with = "OfSettings")] Settings);
        Ok(Option::<Kept>::deserialize(from)?.map(|kept| kept.0))
    }
}

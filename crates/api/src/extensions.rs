//! What is served beside Neutron's core, by the names that clients ask for. Only what is really there.

use serde_json::{Value, json};

const UPDATED: &str = "2026-11-01T00:00:00-00:00";

/// Aliases and names.
pub(crate) const ALL: &[(&str, &str)] = &[
    ("address-group", "Address groups"),
    ("agent", "Hosts with their agents"),
    ("allowed-address-pairs", "Allowed Address Pairs"),
    ("binding", "Port Binding"),
    ("binding-extended", "Port Bindings Extended"),
    ("filter-validation", "Unknown filters are refused"),
    ("ip-substring-filtering", "Ports by a part of an address"),
    ("net-mtu", "Network MTU"),
    ("net-mtu-writable", "Network MTU (writable)"),
    ("pagination", "Pagination support"),
    ("port-security", "Port Security"),
    ("port-security-groups-filtering", "Ports by security group"),
    ("project-id", "project_id beside tenant_id"),
    ("provider", "Provider Network"),
    ("quota_details", "Quota details"),
    ("quotas", "Quota management support"),
    ("rbac-address-group", "RBAC policies for address groups"),
    ("rbac-policies", "RBAC Policies"),
    ("rbac-security-groups", "RBAC policies for security groups"),
    ("revision-if-match", "If-Match on revision numbers"),
    ("security-group", "Security groups"),
    (
        "security-groups-default-rules",
        "Template for new security groups",
    ),
    (
        "security-groups-normalized-cidr",
        "normalized_cidr of rules",
    ),
    (
        "security-groups-remote-address-group",
        "Rules that name address groups",
    ),
    (
        "security-groups-rules-belongs-to-default-sg",
        "belongs_to_default_sg of rules",
    ),
    (
        "security-groups-shared-filtering",
        "Security groups by shared",
    ),
    ("sorting", "Sorting support"),
    ("standard-attr-description", "Descriptions"),
    ("standard-attr-revisions", "Revision numbers"),
    ("standard-attr-tag", "Tags"),
    ("standard-attr-timestamp", "created_at and updated_at"),
    ("stateful-security-group", "Stateless security groups"),
];

pub(crate) fn list() -> Value {
    ALL.iter()
        .map(|(alias, name)| extension(alias, name))
        .collect()
}

pub(crate) fn find(alias: &str) -> Option<Value> {
    let found = ALL.iter().find(|(known, _)| *known == alias);
    found.map(|(alias, name)| extension(alias, name))
}

fn extension(alias: &str, name: &str) -> Value {
    json!({"alias": alias, "name": name, "description": name, "updated": UPDATED, "links": []})
}

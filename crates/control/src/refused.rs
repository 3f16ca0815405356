//! Why a use case wasn't carried out: the caller's fault, or the world's.
//!
//! Knows nothing of: HTTP, or any other outside interface's names for these.

use crate::objects::Resource;
use model::Family;
use std::time::Duration;
use store::{CommitError, ReadError, TooLarge};

/// Why nothing was changed, or shown. The text is for the caller. Each variant is an answer of its own in the API;
/// names are those of Neutron's errors where it has one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("Security group {0} does not exist")]
    SecurityGroupNotFound(String),
    #[error("Security group rule {0} does not exist")]
    SecurityGroupRuleNotFound(String),
    #[error("Default Security Group rule {0} does not exist")]
    DefaultRuleNotFound(String),
    #[error("Address group {0} could not be found.")]
    AddressGroupNotFound(String),
    #[error("Network {0} could not be found.")]
    NetworkNotFound(String),
    #[error("Subnet {0} could not be found.")]
    SubnetNotFound(String),
    #[error("Port {0} could not be found.")]
    PortNotFound(String),
    #[error("Binding for port {port} for host {host} could not be found.")]
    PortBindingNotFound { port: String, host: String },
    #[error("RBAC policy of type security_group with ID {0} not found")]
    SharePolicyNotFound(String),
    #[error("Host {0} could not be found.")]
    HostNotFound(String),
    #[error("Quota for tenant {0} could not be found.")]
    QuotaNotFound(String),
    #[error("Tag {tag} could not be found.")]
    TagNotFound { tag: String },

    #[error("rule:{action} is disallowed by policy")]
    NotAuthorized { action: String },
    #[error(
        "Specifying 'project_id' or 'tenant_id' other than the authenticated project in request requires admin privileges"
    )]
    ForeignProject,
    /// A value that can't be, in the caller's words and ours.
    #[error("Invalid input for {field}. Reason: {why}.")]
    InvalidInput { field: &'static str, why: String },

    #[error("Default security group already exists.")]
    DefaultAlreadyExists,
    #[error("Updating default security group not allowed.")]
    CannotUpdateDefault,
    #[error("Insufficient rights for removing default security group.")]
    CannotRemoveDefault,
    #[error("Security Group {group} in use.")]
    SecurityGroupInUse { group: String },

    #[error(
        "Security group rule protocol {protocol} not supported. Only protocol values {values} and integer representations [0 to 255] are supported."
    )]
    InvalidProtocol { protocol: String, values: String },
    #[error("Invalid ethertype {family} for protocol {protocol}.")]
    EthertypeConflictWithProtocol { family: Family, protocol: String },
    #[error("Invalid value for ICMP {field} ({attribute}) {value}. It must be 0 to 255.")]
    InvalidIcmpValue {
        field: &'static str,
        attribute: &'static str,
        value: u16,
    },
    #[error(
        "ICMP code (port-range-max) {code} is provided but ICMP type (port-range-min) is missing."
    )]
    MissingIcmpType { code: u16 },
    #[error(
        "Ports cannot be specified for protocol {protocol}. Ports are only supported for DCCP, SCTP, TCP, UDP, UDPLITE."
    )]
    InvalidProtocolForPort { protocol: u8 },
    #[error("For TCP/UDP protocols, port_range_min must be <= port_range_max")]
    InvalidPortRange,
    #[error("Invalid value for port {0}")]
    InvalidPortValue(String),
    #[error("Must also specify protocol if port range is given.")]
    ProtocolRequiredWithPorts,
    #[error("Invalid CIDR {0} given as IP prefix.")]
    InvalidCidr(String),
    #[error("Conflicting value ethertype {family} for CIDR {cidr}")]
    RuleParameterConflict { family: Family, cidr: String },
    #[error(
        "Only one of remote_ip_prefix or remote_group_id or remote_address_group_id may be provided."
    )]
    MultipleRemoteEntities,
    #[error("Security group rule already exists. Rule id is {0}.")]
    RuleExists(String),
    #[error("Duplicate Security Group Rule in POST.")]
    DuplicateRuleInPost,
    #[error("Only allowed to update rules for one security profile at a time")]
    NotSingleGroupRules,
    #[error("Multiple project_ids in bulk security group rule create not allowed")]
    RulesNotSingleProject,
    #[error("Default Security group rule already exists. Rule id is {0}.")]
    DefaultRuleExists(String),
    #[error("Duplicate Default Security Group Rule in POST.")]
    DuplicateDefaultRuleInPost,

    #[error("Network {0} is in use: it has ports or subnets.")]
    NetworkInUse(String),
    #[error("Subnet {0} is in use: ports have addresses of it.")]
    SubnetInUse(String),
    #[error("The subnet {cidr} overlaps {other} of the same network.")]
    SubnetOverlaps { cidr: String, other: String },
    #[error(
        "Unable to reconfigure sharing settings for network {0}. Multiple tenants are using it."
    )]
    NetworkSharedByOthers(String),
    #[error("The allocation pool {pool} is not valid.")]
    InvalidAllocationPool { pool: String },
    #[error("The allocation pool {pool} spans beyond the subnet cidr {cidr}.")]
    OutOfBoundsAllocationPool { pool: String, cidr: String },
    #[error("Found overlapping allocation pools: {one} {other}.")]
    OverlappingAllocationPools { one: String, other: String },
    #[error("Gateway ip {address} conflicts with allocation pool {pool}.")]
    GatewayConflictsWithPool { pool: String, address: String },
    #[error("IP address {address} already allocated in subnet {subnet}")]
    IpAddressAlreadyAllocated { address: String, subnet: String },
    #[error("Unable to complete operation for network {network}. The mac address {mac} is in use.")]
    MacAddressInUse { network: String, mac: String },
    #[error("Binding for port {port} on host {host} already exists.")]
    PortBindingAlreadyExists { port: String, host: String },
    #[error("Port {port} is on its way to host {host} already: delete that binding first.")]
    PortBindingElsewhere { port: String, host: String },
    #[error("Binding for port {port} on host {host} is already active.")]
    PortBindingAlreadyActive { port: String, host: String },
    #[error("No more IP addresses available on network {0}.")]
    IpAddressGenerationFailure(String),
    #[error("IP address {0} is not a valid IP for any of the subnets on the specified network.")]
    InvalidIpForNetwork(String),
    #[error("IP address {address} is not a valid IP for the specified subnet {subnet}.")]
    InvalidIpForSubnet { address: String, subnet: String },
    #[error("A port with stateful and stateless security groups is not possible: {0}.")]
    SecurityGroupConflict(String),
    #[error(
        "Port security must be enabled and port must have an IP address in order to use security groups."
    )]
    PortSecurityAndIpRequired,
    #[error(
        "Port has security group associated. Cannot disable port security or IP address until security group is removed."
    )]
    PortHasSecurityGroup,
    #[error("Port Security must be enabled in order to have allowed address pairs on a port.")]
    AddressPairAndPortSecurityRequired,
    #[error("The number of allowed address pairs exceeds the maximum 10.")]
    AddressPairsExhausted,
    #[error("Request contains duplicate address pair: mac_address {mac} ip_address {prefix}.")]
    DuplicateAddressPair { mac: String, prefix: String },

    #[error("Address {0} already exists in the address group.")]
    AddressesAlreadyExist(String),
    #[error("Addresses {0} are not in the address group.")]
    AddressesNotFound(String),
    #[error("Address group {0} is in use on one or more security group rules.")]
    AddressGroupInUse(String),

    #[error("RBAC policy on object {0} cannot be removed because other objects depend on it.")]
    SharePolicyInUse(String),
    #[error("An RBAC policy already exists with those values.")]
    DuplicateSharePolicy,

    /// Nothing was changed.
    #[error(
        "These are there already, and not of the label '{label}' and its project, so they are not this policy's to change: {}.",
        listed(.objects)
    )]
    NotOfLabel { label: String, objects: Vec<String> },
    /// What it has done so far stays.
    #[error(
        "Another policy of the label '{0}' is being applied since, so this one ended on its way."
    )]
    DeclaredAnew(String),
    #[error("Others use what would be removed: {}.", listed(.0))]
    UsedByOthers(Vec<String>),

    #[error(
        "Quota limit {limit} for {} must be greater than or equal to already used {used}",
        .resource.name()
    )]
    QuotaBelowUsage {
        resource: Resource,
        limit: i64,
        used: u64,
    },
    #[error("Quota exceeded for resources: {}.", python_list(.0))]
    OverQuota(Vec<&'static str>),
    #[error("Constrained to {wanted}, but current revision is {current}")]
    RevisionConstraint { wanted: u64, current: u64 },
    /// More than one transaction can hold.
    #[error("The request is too large: {0}.")]
    TooMany(String),
}

/// Why a use case has no answer. But for `Unknown` and `Behind`, nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("others change the same objects all the time, nothing was changed: try again")]
    Busy,
    #[error(transparent)]
    TooLarge(TooLarge),
    #[error("{0}")]
    Unavailable(String),
    #[error("{0}")]
    Full(String),
    #[error("{0}")]
    Broken(String),
    #[error("{0}")]
    Unknown(String),
    #[error(
        "the change is made, but this server has not seen it after {0:?}: read before you go on"
    )]
    Behind(Duration),
}

/// Why there is no copy of the store.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Read(#[from] ReadError),
    /// What every store has at least can't be written.
    #[error(transparent)]
    Write(#[from] Failed),
}

impl Refused {
    pub(crate) fn input(field: &'static str, why: impl Into<String>) -> Self {
        let why = why.into();
        Self::InvalidInput { field, why }
    }

    pub(crate) fn not_authorized(action: &str) -> Self {
        let action = action.to_owned();
        Self::NotAuthorized { action }
    }

    pub(crate) fn bad_project(project: &str) -> Self {
        Self::input("project_id", format!("'{project}' is no project's id"))
    }

    /// For quotas.
    pub(crate) fn over(resource: Resource) -> Self {
        Self::OverQuota(vec![resource.name()])
    }
}

impl Failed {
    /// `None`: somebody was faster, decide anew.
    pub(crate) fn of(error: CommitError) -> Option<Self> {
        let text = error.to_string();
        Some(match error {
            CommitError::Conflict(_) => return None,
            CommitError::TooLarge(what) => Self::TooLarge(what),
            CommitError::Unavailable(_) => Self::Unavailable(text),
            CommitError::Full(_) => Self::Full(text),
            CommitError::Broken(_) => Self::Broken(text),
            CommitError::Unknown(_) => Self::Unknown(text),
        })
    }
}

/// The first of them.
fn listed(objects: &[String]) -> String {
    const MOST: usize = 20;
    let mut text = objects[..objects.len().min(MOST)].join(", ");
    if objects.len() > MOST {
        text.push_str(&format!(", and {} more", objects.len() - MOST));
    }
    text
}

/// As clients know it: `['port']`.
fn python_list(names: &[&'static str]) -> String {
    format!("['{}']", names.join("', '"))
}

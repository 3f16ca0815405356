//! Answers that say no: status, type and text, as Neutron's clients know them.
//!
//! ```text
//! {"NeutronError": {"type": "SecurityGroupNotFound", "message": "...", "detail": ""}}
//! ```
//! The one place where a refusal becomes a status.
//! Knows nothing of: why a use case refuses.

use control::{Failed, Refused};
use http::StatusCode;
use serde_json::{Value, json};
use tracing::{error, warn};

/// An answer that isn't what was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) status: StatusCode,
    pub(crate) kind: &'static str,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status,
            kind,
            message,
        }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "HTTPBadRequest", message)
    }

    /// A value that its attribute can't have.
    pub(crate) fn input(attribute: &str, why: impl std::fmt::Display) -> Self {
        Self::bad(format!("Invalid input for {attribute}. Reason: {why}."))
    }

    pub(crate) fn malformed(why: impl std::fmt::Display) -> Self {
        let message = format!("Malformed request body: {why}.");
        Self::new(StatusCode::BAD_REQUEST, "MalformedRequestBody", message)
    }

    pub(crate) fn nothing_here() -> Self {
        let message = "The resource could not be found.";
        Self::new(StatusCode::NOT_FOUND, "HTTPNotFound", message)
    }

    pub(crate) fn method() -> Self {
        let message = "The method is not allowed for this resource.";
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "HTTPMethodNotAllowed",
            message,
        )
    }

    pub(crate) fn unauthorized() -> Self {
        let message = "The request you have made requires authentication.";
        Self::new(StatusCode::UNAUTHORIZED, "HTTPUnauthorized", message)
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "HTTPRequestEntityTooLarge",
            message,
        )
    }

    pub(crate) fn slow() -> Self {
        let message = "The request did not come in whole in time.";
        Self::new(StatusCode::REQUEST_TIMEOUT, "HTTPRequestTimeout", message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "HTTPServiceUnavailable",
            message,
        )
    }

    /// What went wrong is in the log, not in the answer.
    pub(crate) fn internal() -> Self {
        let message = "Request Failed: internal server error while processing your request.";
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        Self::new(status, "HTTPInternalServerError", message)
    }

    pub(crate) fn json(&self) -> Value {
        json!({"NeutronError": {"type": self.kind, "message": self.message, "detail": ""}})
    }
}

impl From<Refused> for Fault {
    fn from(refused: Refused) -> Self {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        const FORBIDDEN: StatusCode = StatusCode::FORBIDDEN;
        const MISSING: StatusCode = StatusCode::NOT_FOUND;
        const CONFLICT: StatusCode = StatusCode::CONFLICT;
        use Refused::*;
        let (status, kind) = match &refused {
            SecurityGroupNotFound(_) => (MISSING, "SecurityGroupNotFound"),
            SecurityGroupRuleNotFound(_) => (MISSING, "SecurityGroupRuleNotFound"),
            DefaultRuleNotFound(_) => (MISSING, "DefaultSecurityGroupRuleNotFound"),
            AddressGroupNotFound(_) => (MISSING, "AddressGroupNotFound"),
            NetworkNotFound(_) => (MISSING, "NetworkNotFound"),
            SubnetNotFound(_) => (MISSING, "SubnetNotFound"),
            PortNotFound(_) => (MISSING, "PortNotFound"),
            PortBindingNotFound { .. } => (MISSING, "PortBindingNotFound"),
            SharePolicyNotFound(_) => (MISSING, "RbacPolicyNotFound"),
            HostNotFound(_) => (MISSING, "AgentNotFound"),
            QuotaNotFound(_) => (MISSING, "TenantQuotaNotFound"),
            TagNotFound { .. } => (MISSING, "TagNotFound"),

            NotAuthorized { .. } => (FORBIDDEN, "PolicyNotAuthorized"),
            ForeignProject => (BAD, "HTTPBadRequest"),
            InvalidInput { .. } => (BAD, "HTTPBadRequest"),

            DefaultAlreadyExists => (CONFLICT, "SecurityGroupDefaultAlreadyExists"),
            CannotUpdateDefault => (CONFLICT, "SecurityGroupCannotUpdateDefault"),
            CannotRemoveDefault => (CONFLICT, "SecurityGroupCannotRemoveDefault"),
            SecurityGroupInUse { .. } => (CONFLICT, "SecurityGroupInUse"),

            InvalidProtocol { .. } => (BAD, "SecurityGroupRuleInvalidProtocol"),
            EthertypeConflictWithProtocol { .. } => {
                (BAD, "SecurityGroupEthertypeConflictWithProtocol")
            }
            InvalidIcmpValue { .. } => (BAD, "SecurityGroupInvalidIcmpValue"),
            MissingIcmpType { .. } => (BAD, "SecurityGroupMissingIcmpType"),
            InvalidProtocolForPort { .. } => (BAD, "SecurityGroupInvalidProtocolForPort"),
            InvalidPortRange => (BAD, "SecurityGroupInvalidPortRange"),
            InvalidPortValue(_) => (BAD, "SecurityGroupInvalidPortValue"),
            ProtocolRequiredWithPorts => (BAD, "SecurityGroupProtocolRequiredWithPorts"),
            InvalidCidr(_) => (BAD, "InvalidCIDR"),
            RuleParameterConflict { .. } => (BAD, "SecurityGroupRuleParameterConflict"),
            // Spelt so.
            MultipleRemoteEntities => (BAD, "SecurityGroupMultipleRemoteEntites"),
            RuleExists(_) => (CONFLICT, "SecurityGroupRuleExists"),
            DuplicateRuleInPost => (CONFLICT, "DuplicateSecurityGroupRuleInPost"),
            NotSingleGroupRules => (BAD, "SecurityGroupNotSingleGroupRules"),
            RulesNotSingleProject => (BAD, "SecurityGroupRulesNotSingleProject"),
            DefaultRuleExists(_) => (CONFLICT, "DefaultSecurityGroupRuleExists"),
            DuplicateDefaultRuleInPost => (CONFLICT, "DuplicateDefaultSgRuleInPost"),

            NetworkInUse(_) => (CONFLICT, "NetworkInUse"),
            SubnetInUse(_) => (CONFLICT, "SubnetInUse"),
            SubnetOverlaps { .. } => (BAD, "InvalidInput"),
            NetworkSharedByOthers(_) => (CONFLICT, "InvalidSharedSetting"),
            InvalidAllocationPool { .. } => (BAD, "InvalidAllocationPool"),
            OutOfBoundsAllocationPool { .. } => (BAD, "OutOfBoundsAllocationPool"),
            OverlappingAllocationPools { .. } => (CONFLICT, "OverlappingAllocationPools"),
            GatewayConflictsWithPool { .. } => (CONFLICT, "GatewayConflictWithAllocationPools"),
            IpAddressAlreadyAllocated { .. } => (CONFLICT, "IpAddressAlreadyAllocated"),
            MacAddressInUse { .. } => (CONFLICT, "MacAddressInUse"),
            PortBindingAlreadyExists { .. } => (CONFLICT, "PortBindingAlreadyExists"),
            PortBindingElsewhere { .. } => (CONFLICT, "PortBindingElsewhere"),
            PortBindingAlreadyActive { .. } => (CONFLICT, "PortBindingAlreadyActive"),
            IpAddressGenerationFailure(_) => (CONFLICT, "IpAddressGenerationFailure"),
            InvalidIpForNetwork(_) => (BAD, "InvalidIpForNetwork"),
            InvalidIpForSubnet { .. } => (BAD, "InvalidIpForSubnet"),
            SecurityGroupConflict(_) => (CONFLICT, "SecurityGroupConflict"),
            PortSecurityAndIpRequired => (BAD, "PortSecurityAndIPRequiredForSecurityGroups"),
            PortHasSecurityGroup => (CONFLICT, "PortSecurityPortHasSecurityGroup"),
            AddressPairAndPortSecurityRequired => (CONFLICT, "AddressPairAndPortSecurityRequired"),
            AddressPairsExhausted => (BAD, "AllowedAddressPairExhausted"),
            DuplicateAddressPair { .. } => (BAD, "DuplicateAddressPairInRequest"),

            AddressesAlreadyExist(_) => (BAD, "AddressesAlreadyExist"),
            AddressesNotFound(_) => (MISSING, "AddressesNotFound"),
            AddressGroupInUse(_) => (CONFLICT, "AddressGroupInUse"),

            SharePolicyInUse(_) => (CONFLICT, "RbacPolicyInUse"),
            DuplicateSharePolicy => (CONFLICT, "DuplicateRbacPolicy"),

            NotOfLabel { .. } => (CONFLICT, "NotOfLabel"),
            DeclaredAnew(_) => (CONFLICT, "DeclaredAnew"),
            UsedByOthers(_) => (CONFLICT, "UsedByOthers"),

            QuotaBelowUsage { .. } => (BAD, "HTTPBadRequest"),
            OverQuota(_) => (CONFLICT, "OverQuota"),
            RevisionConstraint { .. } => {
                let status = StatusCode::PRECONDITION_FAILED;
                (status, "RevisionNumberConstraintFailed")
            }
            TooMany(_) => (StatusCode::PAYLOAD_TOO_LARGE, "HTTPRequestEntityTooLarge"),
        };
        Self::new(status, kind, refused.to_string())
    }
}

impl From<Failed> for Fault {
    fn from(failed: Failed) -> Self {
        // Where the store is, and what ails it, is for the log.
        let cause = failed.to_string();
        match failed {
            Failed::Refused(refused) => refused.into(),
            Failed::TooLarge(_) => Self::too_large(cause),
            Failed::Busy => Self::unavailable(cause),
            Failed::Unavailable(_) | Failed::Full(_) => {
                warn!(cause, "a request can't be carried out now");
                Self::unavailable("The store can't be written now. Nothing was changed.")
            }
            Failed::Broken(_) => {
                error!(cause, "a request can't be carried out");
                Self::internal()
            }
            // What is true now isn't known.
            Failed::Unknown(_) | Failed::Behind(_) => {
                warn!(cause, "what became of a request isn't known");
                let message = "Whether the change is made isn't known. Read before you try again.";
                Self::new(StatusCode::GATEWAY_TIMEOUT, "HTTPGatewayTimeout", message)
            }
        }
    }
}

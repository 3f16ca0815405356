//! The REST API: OpenStack Networking (Neutron) v2.0, as far as it concerns security groups.
//!
//! Place on the line: **request -> use case** -> store commit.
//!
//! ```text
//! connection (server) -> route, identity, body: all bounded (front) -> tables (attribute, kinds) -> control
//!                                                answer, request id, audit line <-------- the copy <--'
//! ```
//! The one crate that knows Neutron's JSON. Everything that is said of an attribute (who may give it, of which shape
//! it is, whether lists are filtered by it) is said once, in a table of `resources`; requests are checked by it,
//! answers made of it, and so is the OpenAPI document.
//!
//! Invariants: every answer has a request id; every refusal is a `NeutronError`; a change that has begun goes on when
//! its client has gone.
//! Knows nothing of: what is refused (that is `control`), hosts' connections, planes.

#![forbid(unsafe_code)]

mod attribute;
mod audit;
mod backup;
mod bindings;
mod body;
mod extensions;
mod fault;
mod front;
mod identity;
mod json;
mod kinds;
mod openapi;
mod policy;
mod query;
mod resources;
mod routes;
mod serve;
mod server;
mod times;

pub use audit::Audit;
pub use front::{Api, Limits, STILL_AT_IT, router};
pub use identity::{
    Identity, Keystone, KeystoneError, KeystoneSettings, NotLoopback, Tokens, TokensError,
};
pub use openapi::document;
pub use server::{Bounds, TlsError, serve, tls};

use control::told::NotEnforced;
use model::{HostId, PortId, Revision};
use std::collections::BTreeMap;

/// What the hosts tell that follow this server. What others have told is in the copy.
pub trait Enforcement: Send + Sync {
    /// Of one on this host, that the commit wrote last; `None`: the host has told this server nothing. Asked while the
    /// copy is read: who reads it again here would wait for whoever waits to change it.
    fn port(&self, host: &HostId, port: &PortId, written: Revision) -> Option<PortStatus>;
    fn is_connected(&self, host: &HostId) -> bool;

    fn hosts(&self) -> BTreeMap<HostId, HostTold> {
        BTreeMap::new()
    }
}

/// What a host's agent has told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostTold {
    pub software: String,
    pub applied: Revision,
    /// Ports whose policy isn't enforced as of `applied`.
    pub not_enforced: BTreeMap<PortId, NotEnforced>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortStatus {
    /// On no host, or its host has not said that it enforces the port's policy.
    Down,
    Active,
    /// Its host can't enforce its policy.
    Error,
}

/// Where no host tells anything.
pub struct NothingEnforced;

impl Enforcement for NothingEnforced {
    fn port(&self, _: &HostId, _: &PortId, _: Revision) -> Option<PortStatus> {
        None
    }

    fn is_connected(&self, _: &HostId) -> bool {
        false
    }
}

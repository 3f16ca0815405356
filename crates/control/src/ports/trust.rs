//! What only the owner of a network may have a port in it trusted with.
//!
//! A port is trusted more than others if it is a service (and may answer for DHCP servers or routers), has its security
//! off, or may use addresses that weren't given to it. Who shares a network with others must not get there, in whichever
//! order he asks (CVE-2015-5240, CVE-2026-50266; threat C2).
//! Knows nothing of: how a port is made or changed.

use super::{NewPort, PortPatch};
use crate::caller::Caller;
use crate::checks;
use crate::objects::{Network, Port};
use crate::refused::Refused;

pub(super) struct Trust<'a> {
    pub(super) who: &'a Caller,
    pub(super) network: &'a Network,
    /// As policies name it.
    pub(super) action: &'static str,
}

impl Trust<'_> {
    pub(super) fn at_first(&self, port: &Port, asked: &NewPort) -> Result<(), Refused> {
        let addresses = asked.fixed.iter().flatten();
        self.allow(port.is_service(), "device_owner")?;
        self.allow(
            !port.port_security && self.network.port_security,
            "port_security_enabled",
        )?;
        self.allow(!port.pairs.is_empty(), "allowed_address_pairs")?;
        self.allow(asked.mac.is_some(), "mac_address")?;
        self.allow(
            addresses.into_iter().any(|a| a.address.is_some()),
            "fixed_ips:ip_address",
        )
    }

    /// Less trust is always possible, and so is to say again what is so.
    pub(super) fn still(
        &self,
        before: &Port,
        port: &Port,
        asked: &PortPatch,
    ) -> Result<(), Refused> {
        let other_service = port.is_service() && port.device_owner != before.device_owner;
        let opened = !port.port_security && before.port_security;
        let known = |pair| before.pairs.contains(pair);
        let same_mac = port.mac == before.mac;
        let chosen = asked
            .fixed
            .iter()
            .flatten()
            .filter_map(|a| a.address.as_deref());
        let chosen = Vec::from_iter(chosen.filter_map(|text| text.parse().ok()));
        let new = port
            .fixed
            .iter()
            .filter(|fixed| !before.fixed.contains(fixed));
        let chose = new.into_iter().any(|fixed| chosen.contains(&fixed.address));
        self.allow(other_service, "device_owner")?;
        self.allow(opened, "port_security_enabled")?;
        self.allow(
            same_mac && !port.pairs.iter().all(known),
            "allowed_address_pairs",
        )?;
        self.allow(!same_mac, "mac_address")?;
        self.allow(chose, "fixed_ips:ip_address")
    }

    fn allow(&self, is_more: bool, attribute: &str) -> Result<(), Refused> {
        let allowed = !is_more || self.who.owns(&self.network.project);
        checks::allow(allowed, self.action, attribute)
    }
}

//! What the script calls its objects.
//!
//! | of | filter | nat, link layer | set |
//! | --- | --- | --- | --- |
//! | a bridge | `BF-<bridge>`, `-IN`, `-OUT` | | |
//! | direct routing | `BF-L3`, `-IN`, `-OUT` | | |
//! | a tenant's VM | `<vm>`, `<vm>-eg`, `<all but the last part>-def` | `<vm>` and `-in`, `-out`, `-in-ips`, ... | `<vm>`, `<vm>-6` |
//! | a system VM | `<vm>` | | |
//!
//! Long names are cut, to another length in each column, so names of chains are matched with those of
//! VMs by cutting, never by guessing. A VM's name ends as its tenant likes: also in `-eg` or `-def`.
//! Nothing else is ever taken for the script's.

use crate::{DeviceName, VmName};

/// The sets of addresses that need no tracking, and the family of each.
pub(crate) const UNTRACKED: [&str; 2] = ["cs_notrack", "cs_notrack6"];

/// The chain that direct routing goes through, and what it marks as permitted.
pub(crate) const ROUTED: &str = "BF-L3";
pub(crate) const APPROVED: &str = "0x40000000/0x40000000";

/// Suffixes of the link layer's chains; a longer one before one that it ends in.
const LINK_LAYER: [&str; 6] = ["-in-ips", "-in-src", "-out-ips", "-out-dst", "-in", "-out"];

/// A chain of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BridgeChain<'a> {
    /// Mostly the bridge's name: the script takes the chains of `brbond0-304` for `brbond0`, too.
    pub(crate) bridge: &'a str,
    pub(crate) part: BridgePart,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BridgePart {
    Whole,
    /// From VMs.
    In,
    /// To VMs.
    Out,
}

/// `None`: no chain of a bridge.
pub(crate) fn bridge_chain(name: &str) -> Option<BridgeChain<'_>> {
    let rest = name.strip_prefix("BF-")?;
    let (bridge, part) = match (rest.strip_suffix("-IN"), rest.strip_suffix("-OUT")) {
        (Some(bridge), _) => (bridge, BridgePart::In),
        (_, Some(bridge)) => (bridge, BridgePart::Out),
        (None, None) => (rest, BridgePart::Whole),
    };
    let is_name = DeviceName::new(bridge).is_ok();
    is_name.then_some(BridgeChain { bridge, part })
}

/// A chain of the filter table is the script's.
pub(crate) fn is_filter_chain(name: &str) -> bool {
    bridge_chain(name).is_some() || is_user_vm(name) || is_system_vm(name)
}

/// The VM's name, perhaps cut, if a chain of the link layer's nat table is the script's.
pub(crate) fn link_layer_vm(chain: &str) -> Option<&str> {
    let of = |suffix: &&str| chain.strip_suffix(*suffix);
    let vm = LINK_LAYER.iter().find_map(of)?;
    is_user_vm(vm).then_some(vm)
}

/// `i-2-10-VM`: account, number, and a text that the operator or the tenant chose.
pub(crate) fn is_user_vm(name: &str) -> bool {
    let mut parts = name.splitn(4, '-');
    let begins = parts.next() == Some("i") && is_number(parts.next()) && is_number(parts.next());
    begins && parts.next().is_some_and(|rest| !rest.is_empty()) && VmName::new(name).is_ok()
}

/// `r-4-VM`, `s-1-VM`, `v-2-VM`.
pub(crate) fn is_system_vm(name: &str) -> bool {
    let mut parts = name.splitn(3, '-');
    let begins = matches!(parts.next(), Some("r" | "s" | "v")) && is_number(parts.next());
    begins && parts.next().is_some_and(|rest| !rest.is_empty()) && VmName::new(name).is_ok()
}

fn is_number(part: Option<&str>) -> bool {
    part.is_some_and(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// CloudStack's number of a tenant's VM, as it is in the name.
pub(crate) fn number_in(vm: &VmName) -> Option<u64> {
    let part = vm.as_str().split('-').nth(2)?;
    vm.is_instance().then(|| part.parse().ok()).flatten()
}

/// The length of a chain's name that was cut.
pub(crate) const CUT_CHAIN: usize = 24;

/// The chain of a VM's ingress rules.
pub(crate) fn vm_chain(vm: &str) -> &str {
    match vm.len() > 25 {
        true => cut(vm, CUT_CHAIN),
        false => vm,
    }
}

/// The chain of egress rules beside that of ingress rules.
pub(crate) fn egress_chain(vm_chain: &str) -> String {
    format!("{vm_chain}-eg")
}

/// The chain of the guard beside that of ingress rules.
pub(crate) fn default_chain(vm_chain: &str) -> String {
    let front = vm_chain.rsplit_once('-').map_or("", |(front, _)| front);
    format!("{front}-def")
}

/// What the names of a VM's chains at the link layer begin with.
pub(crate) fn link_layer_chain(vm_chain: &str) -> &str {
    cut(vm_chain, 22)
}

/// The name of a VM's set, and its beginning for IPv6.
pub(crate) fn set(vm: &str) -> &str {
    cut(vm, 30)
}

/// Names of VMs are ASCII.
fn cut(name: &str, length: usize) -> &str {
    &name[..name.len().min(length)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, user: bool, system: bool, filter: bool) {
        let seen = (is_user_vm(name), is_system_vm(name), is_filter_chain(name));
        assert_eq!(seen, (user, system, filter), "{name}");
    }

    #[test]
    fn its_objects_are_told_from_others() {
        check("i-2-10-VM", true, false, true);
        check("i-2-10-VM-eg", true, false, true);
        check("i-2-10-def", true, false, true);
        check("r-4-VM", false, true, true);
        check("s-1-VM", false, true, true);
        check("v-2-ACME", false, true, true);
        check("BF-cloudbr0", false, false, true);
        check("BF-brbond0-304-OUT", false, false, true);
        check("BF-L3", false, false, true);
        for foreign in [
            "",
            "FORWARD",
            "DOCKER",
            "LIBVIRT_FWI",
            "i-",
            "i-internal",
            "i-2-10",
            "i-2-10-",
            "i-2-x-VM",
            "i-٢-1-VM",
            "i-2-10-V\u{a0}M",
            "r-lan",
            "r-4",
            "s-foo-bar",
            "v-2-",
            "x-2-10-VM",
            "BF-",
            "BF--IN",
            "BF-a b",
            "MYBF-x",
        ] {
            check(foreign, false, false, false);
        }
    }

    fn check_bridge(name: &str, bridge: &str, part: BridgePart) {
        assert_eq!(bridge_chain(name), Some(BridgeChain { bridge, part }));
    }

    #[test]
    fn chains_of_bridges_have_parts() {
        check_bridge("BF-cloudbr0", "cloudbr0", BridgePart::Whole);
        check_bridge("BF-brbond0-304-IN", "brbond0-304", BridgePart::In);
        check_bridge("BF-brbond0-304-OUT", "brbond0-304", BridgePart::Out);
    }

    fn check_link_layer(chain: &str, vm: Option<&str>) {
        assert_eq!(link_layer_vm(chain), vm, "{chain}");
    }

    #[test]
    fn chains_of_the_link_layer_say_whose_they_are() {
        for suffix in LINK_LAYER {
            check_link_layer(&format!("i-2-10-VM{suffix}"), Some("i-2-10-VM"));
        }
        check_link_layer("i-2-10-my-in-in-ips", Some("i-2-10-my-in"));
        check_link_layer("i-2-10-VM", None);
        check_link_layer("libvirt-J-vnet0", None);
        check_link_layer("fw-in", None);
        check_link_layer("-in", None);
    }

    fn check_names(vm: &str, chain: &str, egress: &str, default: &str, set: &str) {
        let seen = vm_chain(vm);
        assert_eq!(
            (
                seen,
                &*egress_chain(seen),
                &*default_chain(seen),
                super::set(vm)
            ),
            (chain, egress, default, set)
        );
    }

    #[test]
    fn long_names_are_cut() {
        check_names(
            "i-2-10-VM",
            "i-2-10-VM",
            "i-2-10-VM-eg",
            "i-2-10-def",
            "i-2-10-VM",
        );
        check_names(
            "i-1234-123456-25-letters-",
            "i-1234-123456-25-letters-",
            "i-1234-123456-25-letters--eg",
            "i-1234-123456-25-letters-def",
            "i-1234-123456-25-letters-",
        );
        check_names(
            "i-1234-123456-averyverylonghostname",
            "i-1234-123456-averyveryl",
            "i-1234-123456-averyveryl-eg",
            "i-1234-123456-def",
            "i-1234-123456-averyverylonghos",
        );
        assert_eq!(
            link_layer_chain("i-1234-123456-averyveryl"),
            "i-1234-123456-averyver"
        );
        assert_eq!(default_chain("nodash"), "-def");
    }

    #[test]
    fn a_name_has_the_vms_number() {
        let number = |name| number_in(&VmName::new(name).expect("a name"));
        assert_eq!(number("i-2-10-VM"), Some(10));
        assert_eq!(number("i-2-99999999999999999999-VM"), None);
        assert_eq!(number("r-4-10-VM"), None);
        assert_eq!(number("i"), None);
    }
}

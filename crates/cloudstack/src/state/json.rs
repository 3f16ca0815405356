//! The state as JSON, in a shape of its own: the types around it may change, and this may not, but
//! for a new version.
//!
//! ```json
//! {"version":1,"vms":[{"name":"i-2-10-VM","domain":3,"user":{"id":10,"address":"10.1.1.10",
//!   "push":{"signature":"9a03","sequence":7,"rules":"I:tcp;22;22;0.0.0.0/0,NEXT;"}},
//!   "nics":[{"mac":"02:00:4c:5f:00:01","vif":"vnet0","bridge":"cloudbr0","ipv4":"10.1.1.10",
//!     "ipv6":null,"secondary":"0;","first":true,"direct_routed":false}]}]}
//! ```
//! A system VM has `"user":null`. Addresses and rules are in the agent's own formats.

use super::{Nic, Push, State, UserVm, Vm, VmKind};
use crate::rules::{Rules, RulesError};
use crate::{DeviceName, NameError, Signature, VmName, addresses, words};
use model::MacAddr;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};

const VERSION: u32 = 1;

/// Why a text is no state. In one line.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Not our JSON, or cut off.
    #[error("it is no state of VMs: {0}")]
    Json(serde_json::Error),
    /// Another program's, or a later one's.
    #[error("its version is {0}; this program reads version {VERSION}")]
    Version(u32),
    /// A name that can't be.
    #[error("{0}")]
    Name(NameError),
    /// A value that can't be; quoted.
    #[error("VM {vm}: {value} is no {wanted}")]
    Value {
        /// Whose.
        vm: VmName,
        /// The value.
        value: String,
        /// What would be one.
        wanted: &'static str,
    },
    /// Rules that can't be.
    #[error("VM {vm}: {error}")]
    Rules {
        /// Whose.
        vm: VmName,
        /// What is wrong.
        error: RulesError,
    },
    /// A VM, NIC or device that is there twice.
    #[error("{0} is there twice")]
    Twice(String),
}

/// `T` is a text: in the memory of what is read, or of what is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StateDto<T> {
    version: u32,
    vms: Vec<VmDto<T>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VmDto<T> {
    name: T,
    domain: Option<u32>,
    user: Option<UserDto<T>>,
    nics: Vec<NicDto<T>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserDto<T> {
    id: u64,
    address: Option<T>,
    push: Option<PushDto<T>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PushDto<T> {
    signature: T,
    sequence: u64,
    rules: T,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NicDto<T> {
    mac: T,
    vif: T,
    bridge: T,
    ipv4: Option<T>,
    ipv6: Option<T>,
    secondary: T,
    first: bool,
    direct_routed: bool,
}

/// What a text of any version says.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

pub(super) fn write(state: &State) -> String {
    let vms = state.vms.iter();
    let dto = StateDto {
        version: VERSION,
        vms: vms.map(|(name, vm)| vm_dto(name, vm)).collect(),
    };
    serde_json::to_string(&dto).expect("it holds texts, numbers and lists of them")
}

fn vm_dto<'a>(name: &'a VmName, vm: &'a Vm) -> VmDto<Cow<'a, str>> {
    let user = match &vm.kind {
        VmKind::System => None,
        VmKind::User(user) => Some(UserDto {
            id: user.id,
            address: user.address.map(|a| a.to_string().into()),
            push: user.push.as_ref().map(|push| PushDto {
                signature: push.signature.as_str().into(),
                sequence: push.sequence,
                rules: push.rules.text().into(),
            }),
        }),
    };
    let nic = |(mac, nic): (&MacAddr, &'a Nic)| NicDto {
        mac: mac.to_string().into(),
        vif: nic.vif.as_str().into(),
        bridge: nic.bridge.as_str().into(),
        ipv4: nic.ipv4.map(|a| a.to_string().into()),
        ipv6: nic.ipv6.map(|a| a.to_string().into()),
        secondary: addresses::format(&nic.secondary).into(),
        first: nic.first,
        direct_routed: nic.direct_routed,
    };
    VmDto {
        name: name.as_str().into(),
        domain: vm.domain,
        user,
        nics: vm.nics.iter().map(nic).collect(),
    }
}

pub(super) fn read(text: &str) -> Result<State, StateError> {
    let dto: StateDto<&str> = serde_json::from_str(text).map_err(|error| {
        // Fields of a later version are unknown ones; its version says more.
        match serde_json::from_str::<Head>(text) {
            Ok(Head { version }) if version != VERSION => StateError::Version(version),
            Ok(_) | Err(_) => StateError::Json(error),
        }
    })?;
    if dto.version != VERSION {
        return Err(StateError::Version(dto.version));
    }
    let mut seen = Seen::default();
    let mut state = State::default();
    for dto in dto.vms {
        let name = VmName::new(dto.name).map_err(StateError::Name)?;
        let vm = vm(&name, &dto, &mut seen)?;
        if state.vms.insert(name, vm).is_some() {
            return Err(StateError::Twice(format!("VM {}", dto.name)));
        }
    }
    Ok(state)
}

/// What came before in the text.
#[derive(Default)]
struct Seen<'a> {
    devices: HashSet<&'a str>,
    /// By signature. VMs of the same groups have the same rules, which are read once.
    rules: HashMap<&'a str, Rules>,
}

fn vm<'a>(name: &VmName, dto: &VmDto<&'a str>, seen: &mut Seen<'a>) -> Result<Vm, StateError> {
    let kind = match &dto.user {
        None => VmKind::System,
        Some(user) => VmKind::User(UserVm {
            id: user.id,
            address: user.address.map(|text| ipv4(name, text)).transpose()?,
            push: match &user.push {
                Some(dto) => Some(push(name, dto, seen)?),
                None => None,
            },
        }),
    };
    let mut nics = BTreeMap::new();
    for dto in &dto.nics {
        if !seen.devices.insert(dto.vif) {
            return Err(StateError::Twice(format!("device {}", dto.vif)));
        }
        let mac = words::mac(dto.mac).ok_or_else(|| value(name, dto.mac, "MAC of a NIC"))?;
        if nics.insert(mac, nic(name, dto)?).is_some() {
            return Err(StateError::Twice(format!("NIC {mac} of VM {name}")));
        }
    }
    Ok(Vm {
        kind,
        domain: dto.domain,
        nics,
    })
}

fn push<'a>(
    name: &VmName,
    dto: &PushDto<&'a str>,
    seen: &mut Seen<'a>,
) -> Result<Push, StateError> {
    let rules = match seen.rules.get(dto.signature) {
        Some(rules) if rules.text() == dto.rules => rules.clone(),
        Some(_) | None => {
            let rules = Rules::parse(dto.rules).map_err(|error| StateError::Rules {
                vm: name.clone(),
                error,
            })?;
            seen.rules.insert(dto.signature, rules.clone());
            rules
        }
    };
    Ok(Push {
        signature: Signature::new(dto.signature).map_err(StateError::Name)?,
        sequence: dto.sequence,
        rules,
    })
}

fn nic(name: &VmName, dto: &NicDto<&str>) -> Result<Nic, StateError> {
    let ipv6 = |text| match words::address(text) {
        Some(IpAddr::V6(address)) => Ok(address),
        Some(IpAddr::V4(_)) | None => Err(value(name, text, "IPv6 address")),
    };
    let secondary = addresses::parse(dto.secondary);
    Ok(Nic {
        vif: DeviceName::new(dto.vif).map_err(StateError::Name)?,
        bridge: DeviceName::new(dto.bridge).map_err(StateError::Name)?,
        ipv4: dto.ipv4.map(|text| ipv4(name, text)).transpose()?,
        ipv6: dto.ipv6.map(ipv6).transpose()?,
        secondary: secondary.map_err(|_| value(name, dto.secondary, "list of addresses"))?,
        first: dto.first,
        direct_routed: dto.direct_routed,
    })
}

fn ipv4(name: &VmName, text: &str) -> Result<Ipv4Addr, StateError> {
    match words::address(text) {
        Some(IpAddr::V4(address)) => Ok(address),
        Some(IpAddr::V6(_)) | None => Err(value(name, text, "IPv4 address")),
    }
}

fn value(name: &VmName, text: &str, wanted: &'static str) -> StateError {
    StateError::Value {
        vm: name.clone(),
        value: words::quoted(text),
        wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"version":1,"vms":[{"name":"i-2-10-VM","domain":3,"user":{"id":10,"address":"10.1.1.10","push":{"signature":"9a03","sequence":7,"rules":"I:tcp;22;22;0.0.0.0/0,::/0,NEXT;"}},"nics":[{"mac":"02:00:4c:5f:00:01","vif":"vnet0","bridge":"cloudbr0","ipv4":"10.1.1.10","ipv6":"fd00::10","secondary":"10.1.1.110;fd00::110;","first":true,"direct_routed":false},{"mac":"02:00:4c:5f:00:02","vif":"vnet1","bridge":"brbond0-304","ipv4":null,"ipv6":null,"secondary":"0;","first":false,"direct_routed":true}]},{"name":"i-2-11-VM","domain":null,"user":{"id":11,"address":null,"push":null},"nics":[]},{"name":"r-4-VM","domain":4,"user":null,"nics":[{"mac":"02:00:4c:5f:00:04","vif":"vnet2","bridge":"cloudbr0","ipv4":null,"ipv6":null,"secondary":"0;","first":false,"direct_routed":false}]}]}"#;

    /// The good text with one passage replaced: what is said of it.
    fn check(from: &str, to: &str, expected: &str) {
        assert!(GOOD.contains(from), "{from}");
        let text = GOOD.replacen(from, to, 1);
        match read(&text) {
            Err(error) => {
                let said = error.to_string();
                assert!(said.contains(expected), "{to}: {said}");
                assert!(!said.contains('\n'), "{said}");
            }
            Ok(_) => panic!("{from} -> {to} was read"),
        }
    }

    #[test]
    fn a_state_survives_its_text() {
        let state = read(GOOD).expect("good");
        assert_eq!(write(&state), GOOD);
        assert_eq!(state.vms.len(), 3);
        let empty = State::default();
        assert_eq!(read(&write(&empty)).expect("good"), empty);
    }

    #[test]
    fn a_signature_stands_for_no_rules_but_its_own() {
        let none = "\"user\":{\"id\":11,\"address\":null,\"push\":null}";
        assert!(GOOD.contains(none));
        for rules in [
            "I:tcp;22;22;0.0.0.0/0,::/0,NEXT;",
            "I:all;0;0;::/0,NEXT;",
            "",
        ] {
            let push =
                format!("\"push\":{{\"signature\":\"9a03\",\"sequence\":1,\"rules\":\"{rules}\"}}");
            let text = GOOD.replace(none, &none.replace("\"push\":null", &push));
            assert_eq!(write(&read(&text).expect("good")), text);
        }
    }

    #[test]
    fn what_is_no_state_is_an_error() {
        for text in ["", "{", "[]", "null", "{}", &GOOD[..GOOD.len() - 1]] {
            let error = read(text).expect_err(text);
            assert!(matches!(error, StateError::Json(_)), "{text}: {error}");
        }
        check("\"version\":1,", "", "missing field `version`");
        check("\"version\":1", "\"version\":2", "its version is 2");
        check(
            "\"version\":1",
            "\"version\":2,\"more\":[]",
            "its version is 2; this program reads version 1",
        );
        check("\"vms\":[", "\"more\":1,\"vms\":[", "unknown field `more`");
        check("\"first\":true,", "", "missing field `first`");
        check("\"id\":10", "\"id\":-1", "invalid value");
    }

    #[test]
    fn what_cannot_be_is_an_error() {
        check("i-2-10-VM", "../x", "`../x` is no name of a VM");
        check("vnet0", "v/0", "`v/0` is no name of a network device");
        check("02:00:4c:5f:00:01", "x", "VM i-2-10-VM: `x` is no MAC");
        check(
            "\"10.1.1.10\"",
            "\"fd00::1\"",
            "`fd00::1` is no IPv4 address",
        );
        check(
            "\"fd00::10\"",
            "\"10.1.1.1\"",
            "`10.1.1.1` is no IPv6 address",
        );
        check(
            "10.1.1.110;",
            "x;",
            "`x;fd00::110;` is no list of addresses",
        );
        check("9a03", "9,a", "`9,a` is no signature");
        check("tcp;22", "tcp;x", "VM i-2-10-VM: record 1 of the rules");
        check("vnet1", "vnet0", "device vnet0 is there twice");
        check("vnet2", "vnet0", "device vnet0 is there twice");
        check(
            "02:00:4c:5f:00:02",
            "02:00:4c:5f:00:01",
            "NIC 02:00:4c:5f:00:01 of VM i-2-10-VM is there twice",
        );
        check("i-2-11-VM", "i-2-10-VM", "VM i-2-10-VM is there twice");
    }
}

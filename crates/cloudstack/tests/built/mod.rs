//! A host as CloudStack's script leaves it, made from a list of VMs: the texts that the save commands
//! would print, and that the restore commands take.
//!
//! Written from what the script was seen to leave, in its three versions, and apart from the code that
//! reads it and from the code that gives a host back (`original::build`). So most facts are here a second
//! time, on purpose: what those two have in common, names above all, no round trip between them can
//! prove. It is the witness against both, follows the script step by step where `build` says what comes
//! of it, and stays as small as a few kinds of VMs need.
//! Source: the tables in `original`, `original/chains` and `original/names`.

mod guard;
mod rules;
pub(crate) mod sample;

use std::collections::BTreeMap;
use std::net::Ipv6Addr;

/// Which version of the script has made a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Made {
    /// Up to CloudStack 4.22.
    Before,
    /// 4.23.
    After,
    /// After 4.23.
    Main,
}

impl Made {
    pub(crate) const ALL: [Made; 3] = [Made::Before, Made::After, Made::Main];
}

/// A host. Bridges are those of the NICs, each with an uplink.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    pub(crate) made: Made,
    pub(crate) vms: Vec<BuiltVm>,
    /// Names, and each one's devices with their bridges.
    pub(crate) system_vms: Vec<(&'static str, Vec<(&'static str, &'static str)>)>,
}

#[derive(Clone, Debug)]
pub(crate) struct BuiltVm {
    /// At most 22 characters, so that no name is cut.
    pub(crate) name: &'static str,
    pub(crate) id: u64,
    /// The first one first.
    pub(crate) nics: Vec<BuiltNic>,
    pub(crate) push: Option<BuiltPush>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct BuiltPush {
    /// By which version; that of the guard is the host's.
    pub(crate) made: Made,
    pub(crate) signature: &'static str,
    pub(crate) sequence: u64,
    /// As the server sends them; prefixes with their length and without bits behind it.
    pub(crate) rules: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct BuiltNic {
    pub(crate) vif: &'static str,
    pub(crate) bridge: &'static str,
    pub(crate) mac: &'static str,
    pub(crate) ipv4: Option<&'static str>,
    pub(crate) ipv6: Option<&'static str>,
    pub(crate) secondary: &'static [&'static str],
    /// The host routes its network. Version `Main` alone can.
    pub(crate) routed: bool,
}

/// What the save commands print.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Texts {
    pub(crate) iptables: String,
    pub(crate) ip6tables: String,
    pub(crate) ipset: String,
    pub(crate) ebtables: String,
}

/// The two families of iptables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Four,
    Six,
}

/// Chains with their rules, in the order in which they were made.
#[derive(Default)]
struct Table {
    chains: Vec<(String, Vec<String>)>,
}

impl Table {
    fn chain(&mut self, name: &str) -> &mut Vec<String> {
        let at = match self.chains.iter().position(|(known, _)| known == name) {
            Some(at) => at,
            None => {
                self.chains.push((name.to_owned(), Vec::new()));
                self.chains.len() - 1
            }
        };
        &mut self.chains[at].1
    }

    fn append(&mut self, chain: &str, rule: impl Into<String>) {
        self.chain(chain).push(rule.into());
    }

    fn insert(&mut self, chain: &str, rule: impl Into<String>) {
        self.chain(chain).insert(0, rule.into());
    }

    /// As the save commands print a table; `builtin` are there from the start.
    fn text(&self, name: &str, builtin: &[&str], ends: [&str; 3]) -> String {
        let [builtin_end, own_end, table_end] = ends;
        let mut text = format!("*{name}\n");
        for chain in builtin {
            text += &format!(":{chain} {builtin_end}\n");
        }
        let own = |chain: &str| !builtin.contains(&chain);
        for (chain, _) in self.chains.iter().filter(|(chain, _)| own(chain)) {
            text += &format!(":{chain} {own_end}\n");
        }
        for (chain, rules) in &self.chains {
            for rule in rules {
                text += &format!("-A {chain} {rule}\n");
            }
        }
        text + table_end
    }
}

const IPTABLES: [&str; 3] = ["ACCEPT [0:0]", "- [0:0]", "COMMIT\n"];
const EBTABLES: [&str; 3] = ["ACCEPT", "ACCEPT", ""];

impl Built {
    pub(crate) fn texts(&self) -> Texts {
        Texts {
            iptables: self.iptables(Family::Four),
            ip6tables: self.iptables(Family::Six),
            ipset: self.ipset(),
            ebtables: self.ebtables(),
        }
    }

    /// Each VM's line in its log, as the script writes it.
    pub(crate) fn logs(&self) -> Vec<String> {
        let user = |vm: &BuiltVm| {
            let address = vm.nics.first().and_then(|nic| nic.ipv4).unwrap_or_default();
            let pushed = match vm.push {
                Some(push) => format!("{},{}", push.signature, push.sequence),
                None => "_initial_,-1".to_owned(),
            };
            format!("{},{},{address},{},{pushed}", vm.name, vm.id, vm.id + 100)
        };
        let system = |(name, _): &(&str, Vec<_>)| format!("{name},-1,_ignore_,4,_initial_,-1");
        let users = self.vms.iter().map(user);
        users.chain(self.system_vms.iter().map(system)).collect()
    }

    /// Device, bridge and MAC of each device, as the kernel lists those that libvirt makes.
    pub(crate) fn links(&self) -> Vec<(&'static str, &'static str, String)> {
        let of_vms = self.vms.iter().flat_map(|vm| &vm.nics);
        let of_vms = of_vms.map(|nic| (nic.vif, nic.bridge, format!("fe{}", &nic.mac[2..])));
        let of_system_vms = self.system_vms.iter().flat_map(|(_, nics)| nics);
        let of_system_vms = of_system_vms.zip(1..).map(|((vif, bridge), number)| {
            let number: u8 = number;
            (*vif, *bridge, format!("fe:00:4c:5f:01:{number:02x}"))
        });
        of_vms.chain(of_system_vms).collect()
    }

    /// The commands that have told of all this, as the agent gives them.
    pub(crate) fn commands(&self) -> Vec<String> {
        let mut commands = Vec::new();
        for vm in &self.vms {
            for (at, nic) in vm.nics.iter().enumerate() {
                let first = if at == 0 { " --isFirstNic" } else { "" };
                let nic = arguments(vm, nic);
                commands.push(format!("default_network_rules {nic}{first}"));
            }
            if let (Some(push), Some(nic)) = (vm.push, vm.nics.first()) {
                commands.push(format!(
                    "add_network_rules {} --sig {} --seq {} --rules={}",
                    arguments(vm, nic),
                    push.signature,
                    push.sequence,
                    push.rules
                ));
            }
        }
        commands
    }

    fn bridges(&self, routed: bool) -> Vec<&'static str> {
        let nics = self.vms.iter().flat_map(|vm| &vm.nics);
        let of_vms = nics
            .filter(|nic| nic.routed == routed)
            .map(|nic| nic.bridge);
        let of_system_vms = self.system_vms.iter().flat_map(|(_, nics)| nics);
        let of_system_vms = of_system_vms.filter(|_| !routed).map(|(_, bridge)| *bridge);
        let mut bridges = Vec::new();
        for bridge in of_vms.chain(of_system_vms) {
            if !bridges.contains(&bridge) {
                bridges.push(bridge);
            }
        }
        bridges
    }

    fn iptables(&self, family: Family) -> String {
        let mut filter = Table::default();
        for bridge in self.bridges(false) {
            guard::framework(&mut filter, self.made, bridge);
        }
        guard::routing(&mut filter, &self.bridges(true));
        for vm in &self.vms {
            for nic in &vm.nics {
                guard::nic(&mut filter, family, self.made, vm, nic);
            }
            rules::chains(&mut filter, family, self.made, vm);
        }
        if family == Family::Four {
            for (name, nics) in &self.system_vms {
                guard::system_vm(&mut filter, name, nics);
            }
        }
        let mut text = String::new();
        if self.made != Made::Before {
            let set = match family {
                Family::Four => "cs_notrack",
                Family::Six => "cs_notrack6",
            };
            let mut raw = Table::default();
            for side in ["dst", "src"] {
                raw.append(
                    "PREROUTING",
                    format!("-m set --match-set {set} {side} -j NOTRACK"),
                );
            }
            text += &raw.text("raw", &["PREROUTING", "OUTPUT"], IPTABLES);
        }
        text + &filter.text("filter", &["INPUT", "FORWARD", "OUTPUT"], IPTABLES)
    }

    fn ipset(&self) -> String {
        let mut text = match self.made {
            Made::Before => String::new(),
            Made::After | Made::Main => self.untracked(),
        };
        for vm in &self.vms {
            let (mut four, mut six) = (Vec::new(), Vec::new());
            for nic in &vm.nics {
                six.push(link_local(nic.mac).to_string());
                for address in nic.addresses() {
                    match address.contains(':') {
                        true => six.push(address.to_owned()),
                        false => four.push(address.to_owned()),
                    }
                }
            }
            for (set, kind, members) in [
                (vm.name.to_owned(), "hash:ip family inet", four),
                (format!("{}-6", vm.name), "hash:net family inet6", six),
            ] {
                text += &format!("create {set} {kind}\n");
                for member in members {
                    text += &format!("add {set} {member}\n");
                }
            }
        }
        text
    }

    /// Of the NIC that a push is about: the first one.
    fn untracked(&self) -> String {
        let mut text = String::new();
        for (set, kind, family) in [
            ("cs_notrack", "inet", Family::Four),
            ("cs_notrack6", "inet6", Family::Six),
        ] {
            text += &format!("create {set} hash:ip family {kind}\n");
            let untracked = |vm: &&BuiltVm| rules::is_untracked(family, vm);
            for nic in self
                .vms
                .iter()
                .filter(untracked)
                .filter_map(|vm| vm.nics.first())
            {
                let addresses = nic.addresses().map(str::to_owned);
                let addresses = addresses.chain([link_local(nic.mac).to_string()]);
                let of_family = |address: &String| address.contains(':') == (family == Family::Six);
                for address in addresses.filter(of_family) {
                    text += &format!("add {set} {address}\n");
                }
            }
        }
        text
    }

    /// The same where the host routes.
    fn ebtables(&self) -> String {
        let mut nat = Table::default();
        for vm in &self.vms {
            for (at, nic) in vm.nics.iter().enumerate() {
                guard::link_layer(&mut nat, self.made, vm.name, nic, at == 0);
            }
        }
        nat.text("nat", &["PREROUTING", "OUTPUT", "POSTROUTING"], EBTABLES)
    }
}

impl BuiltNic {
    pub(crate) fn addresses(&self) -> impl Iterator<Item = &'static str> {
        let primary = self.ipv4.into_iter().chain(self.ipv6);
        primary.chain(self.secondary.iter().copied())
    }
}

fn arguments(vm: &BuiltVm, nic: &BuiltNic) -> String {
    let mut text = format!(
        "--vmname {} --vmid {} --vmmac {} --vif {} --brname {}",
        vm.name, vm.id, nic.mac, nic.vif, nic.bridge
    );
    for (option, address) in [("--vmip", nic.ipv4), ("--vmip6", nic.ipv6)] {
        if let Some(address) = address {
            text += &format!(" {option} {address}");
        }
    }
    if nic.routed {
        text += " --directrouted";
    }
    text + &format!(" --nicsecips {};", nic.secondary.join(";"))
}

/// The address that a guest derives from its MAC.
fn link_local(mac: &str) -> Ipv6Addr {
    let byte = |part| u16::from_str_radix(part, 16).expect("a MAC");
    let bytes: Vec<u16> = mac.split(':').map(byte).collect();
    let [a, b, c, d, e, f] = bytes[..] else {
        panic!("{mac} is no MAC");
    };
    let (first, last) = ((a ^ 2) << 8 | b, e << 8 | f);
    Ipv6Addr::new(0xfe80, 0, 0, 0, first, c << 8 | 0xff, 0xfe00 | d, last)
}

/// By number, as its name is printed; those that have one here.
fn printed(protocol: &str) -> &str {
    let names = BTreeMap::from([
        ("1", "icmp"),
        ("6", "tcp"),
        ("47", "gre"),
        ("50", "esp"),
        ("132", "sctp"),
    ]);
    names.get(protocol).copied().unwrap_or(protocol)
}

//! A host and its virtual machines out of network namespaces, for real packets.
//!
//! ```text
//! host namespace                              VM namespace
//!   bridge br0 --- pc1x3-web  <== veth ==>  eth0   (the port's MAC and addresses)
//!              \-- pc1x3-tap  <== tap  ==>  a file that a test reads and writes
//! ```
//! A port's device is its end in the host namespace; there data planes attach. Namespaces have no
//! names and live as long as someone holds them: whatever way the process ends, by return, panic,
//! Ctrl-C or `kill -9`, the kernel removes everything. [`Lab::keep`] is the one way to leave one behind.
//!
//! Place on the line: around it. Knows nothing of: policies, planes, verdicts.
//! Needs root. Mount namespaces stay as they are, so pinned objects are seen from everywhere; names
//! below `/sys/class/net` are not those of the lab.

mod cable;
mod daemon;
mod kept;
pub mod load;
mod namespace;
mod packets;
mod sockets;
mod switch;
mod tap;

pub use cable::{CABLE_BRIDGE, CableEnd, cable};
pub use daemon::spawn_daemon;
pub use kept::{Kept, kept, remove_kept};
pub use namespace::{Namespace, Offload};
pub use packets::{
    Arrival, FrameEnd, PacketSocket, Receiver, is_through, probe, probe_by, probe_many,
};
pub use sockets::{Asked, EchoServer};
pub use switch::OpenVswitch;
pub use tap::Tap;

use model::MacAddr;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// One host with everything on it. Dropping it lets go of the host namespace.
pub struct Lab {
    name: String,
    /// Begins the name of every device that it makes.
    prefix: String,
    host: Namespace,
    vms: Vec<Arc<Machine>>,
}

/// A VM; clones are the same one.
#[derive(Clone)]
pub struct Vm(Arc<Machine>);

struct Machine {
    name: String,
    device: String,
    mac: MacAddr,
    /// With the lengths of their prefixes; and without.
    addresses: Vec<(IpAddr, u8)>,
    only_addresses: Vec<IpAddr>,
    namespace: Namespace,
}

/// Of every bridge.
pub const BRIDGE_MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0xdd, 0, 1]);

/// What a VM's device is connected to on the host.
#[derive(Clone, Copy, Debug)]
pub enum Attach<'a> {
    Bridge(&'a str),
    /// The host routes: it answers as these gateways on the device, and has a route to each address.
    Routed(&'a [IpAddr]),
    /// The device is up, and that is all.
    Nothing,
}

/// A step of building or using a lab failed. The lab is unfinished; dropping it removes what is there.
#[derive(Debug)]
pub struct LabError {
    /// What was tried, on what.
    pub step: String,
    pub source: io::Error,
}

impl fmt::Display for LabError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lab: {}: {}", self.step, self.source)
    }
}

impl std::error::Error for LabError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

pub(crate) fn failed(step: impl Into<String>) -> impl FnOnce(io::Error) -> LabError {
    let step = step.into();
    move |source| LabError { step, source }
}

impl Lab {
    /// An empty host: a loopback device, forwarding on, nothing else.
    pub fn new(name: &str) -> Result<Self, LabError> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("pc{}x{}-", base36(std::process::id()), base36(number));
        let host = Namespace::new()?;
        // The host's own traffic must not mix into what is watched; routed devices turn it on.
        host.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
        host.sysctl("net/ipv4/ip_forward", "1")?;
        host.sysctl("net/ipv6/conf/all/forwarding", "1")?;
        // Where the module is loaded, bridges would hand packets to iptables, which checks and trims.
        for family in ["iptables", "ip6tables", "arptables"] {
            let key = format!("net/bridge/bridge-nf-call-{family}");
            if std::path::Path::new("/proc/sys").join(&key).exists() {
                host.sysctl(&key, "0")?;
            }
        }
        host.ip("link set lo up")?;
        Ok(Self {
            name: name.to_owned(),
            prefix,
            host,
            vms: Vec::new(),
        })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The host's namespace: agents and planes run in it ([`Namespace::run`]).
    pub fn host(&self) -> &Namespace {
        &self.host
    }

    /// A bridge that passes everything on at once: no spanning tree, no snooping. Its MAC is its own, and
    /// stays.
    pub fn add_bridge(&self, name: &str) -> Result<(), LabError> {
        self.host.ip(&format!(
            "link add {name} address {BRIDGE_MAC} type bridge forward_delay 0 mcast_snooping 0\n\
             link set {name} up"
        ))
    }

    /// A VM with one interface, `eth0`, that is up and has these addresses (with prefix lengths). It
    /// answers at once: no address is probed first, no router awaited. Without addresses of a family
    /// it is mute in that family: its kernel neither sends nor answers anything.
    pub fn add_vm(
        &mut self,
        name: &str,
        mac: MacAddr,
        addresses: &[(IpAddr, u8)],
        attach: Attach<'_>,
    ) -> Result<Vm, LabError> {
        let namespace = Namespace::new()?;
        let v6 = addresses.iter().any(|(address, _)| address.is_ipv6());
        for (key, value) in [
            ("net/ipv6/conf/default/accept_ra", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/default/router_solicitations", "0"),
            (
                "net/ipv6/conf/default/disable_ipv6",
                if v6 { "0" } else { "1" },
            ),
            ("net/ipv4/ping_group_range", "0 2147483647"),
            ("net/ipv4/icmp_ratelimit", "0"),
        ] {
            namespace.sysctl(key, value)?;
        }
        namespace.ip("link set lo up")?;
        self.plug(name, mac, addresses, namespace, attach)
    }

    /// A VM of another host goes on here, with all that runs in it: its device there is gone, and it has another
    /// one here.
    pub fn take_over(
        &mut self,
        vm: &Vm,
        from: &mut Lab,
        attach: Attach<'_>,
    ) -> Result<Vm, LabError> {
        from.remove_vm(vm)?;
        let Machine {
            name,
            mac,
            addresses,
            namespace,
            ..
        } = &*vm.0;
        self.plug(name, *mac, addresses, namespace.clone(), attach)
    }

    fn plug(
        &mut self,
        name: &str,
        mac: MacAddr,
        addresses: &[(IpAddr, u8)],
        namespace: Namespace,
        attach: Attach<'_>,
    ) -> Result<Vm, LabError> {
        let device = self.device_name(name);
        let peer = namespace.path();
        let host_mac = host_side(mac);
        let mut host = format!(
            "link add {device} address {host_mac} type veth \
             peer name eth0 address {mac} netns {peer}\n"
        );
        let mut guest = String::from("link set eth0 up\n");
        if addresses.is_empty() {
            guest += "link set eth0 arp off\n";
        }
        for (address, length) in addresses {
            let no_probe = if address.is_ipv6() { "nodad" } else { "" };
            guest += &format!("addr add {address}/{length} dev eth0 {no_probe}\n");
        }
        match attach {
            Attach::Bridge(bridge) => host += &format!("link set {device} master {bridge}\n"),
            Attach::Nothing | Attach::Routed(_) => {}
        }
        self.host.ip(&host)?;
        if let Attach::Routed(gateways) = attach {
            self.host
                .sysctl(&format!("net/ipv6/conf/{device}/accept_dad"), "0")?;
            self.host
                .sysctl(&format!("net/ipv6/conf/{device}/disable_ipv6"), "0")?;
            let (on_host, in_guest) = routes(&device, addresses, gateways);
            self.host.ip(&format!("link set {device} up\n{on_host}"))?;
            guest += &in_guest;
        } else {
            self.host.ip(&format!("link set {device} up"))?;
        }
        namespace.ip(&guest)?;
        namespace.settle("eth0")?;
        self.host.settle(&device)?;
        let own = addresses.iter().map(|(address, _)| *address);
        namespace.wait_for_solicited("eth0", &only_v6(own))?;
        if let Attach::Routed(gateways) = attach {
            let gateways = gateways.iter().copied();
            self.host.wait_for_solicited(&device, &only_v6(gateways))?;
        }
        let machine = Arc::new(Machine {
            name: name.to_owned(),
            device,
            mac,
            addresses: addresses.to_vec(),
            only_addresses: addresses.iter().map(|(address, _)| *address).collect(),
            namespace,
        });
        self.vms.push(machine.clone());
        Ok(Vm(machine))
    }

    /// A tap device whose other end is a file. It is up, and on a bridge if one is named.
    pub fn add_tap(&self, name: &str, bridge: Option<&str>) -> Result<Tap, LabError> {
        let device = self.device_name(name);
        let tap = self.host.run(|| Tap::open(&device))?;
        if let Some(bridge) = bridge {
            self.host
                .ip(&format!("link set {device} master {bridge}"))?;
        }
        self.host.ip(&format!("link set {device} up"))?;
        self.host.settle(&device)?;
        Ok(tap)
    }

    /// Takes a VM's device away, as when it is shut down. Its namespace goes with its last holder.
    pub fn remove_vm(&mut self, vm: &Vm) -> Result<(), LabError> {
        self.vms.retain(|other| !Arc::ptr_eq(other, &vm.0));
        self.host.ip(&format!("link del {}", vm.device()))
    }

    /// A cable between a bridge of this host and one of another.
    pub fn connect(&self, bridge: &str, other: &Lab, its_bridge: &str) -> Result<(), LabError> {
        let near = self.device_name(&format!("to{}", other.prefix));
        let far = other.device_name(&format!("to{}", self.prefix));
        let there = other.host.path();
        self.host.ip(&format!(
            "link add {near} type veth peer name {far} netns {there}\n\
             link set {near} master {bridge} up"
        ))?;
        other
            .host
            .ip(&format!("link set {far} master {its_bridge} up"))?;
        self.host.settle(&near)?;
        other.host.settle(&far)
    }

    /// At most 15 characters: the prefix, and as much of the name as fits; names that begin alike still differ.
    fn device_name(&self, name: &str) -> String {
        let room = 15usize.saturating_sub(self.prefix.len());
        if name.len() <= room {
            return format!("{}{name}", self.prefix);
        }
        let mark = name
            .bytes()
            .fold(0u32, |mark, byte| mark.wrapping_mul(31) + u32::from(byte));
        let mark = base36(mark % 1_296);
        let short: String = name.chars().take(room.saturating_sub(mark.len())).collect();
        format!("{}{short}{mark}", self.prefix)
    }
}

impl Vm {
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its device in the host namespace.
    pub fn device(&self) -> &str {
        &self.0.device
    }

    pub fn mac(&self) -> MacAddr {
        self.0.mac
    }

    pub fn addresses(&self) -> &[IpAddr] {
        &self.0.only_addresses
    }

    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// Runs a closure inside the VM; sockets that it opens stay there, wherever they are used later.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.0.namespace.run(work)
    }

    /// Sends and captures exact frames at the VM's own end, from now on.
    pub fn open_packets(&self) -> Result<PacketSocket, LabError> {
        self.run(|| PacketSocket::open("eth0"))
    }

    /// Turns an offload of the VM's interface on or off.
    pub fn offload(&self, offload: Offload, on: bool) -> Result<(), LabError> {
        self.0.namespace.offload("eth0", offload, on)
    }
}

/// The host's end has another MAC than the VM's, as taps made by libvirt do.
fn host_side(mac: MacAddr) -> MacAddr {
    let [_, rest @ ..] = mac.0;
    let [b, c, d, e, f] = rest;
    MacAddr([0xfe, b, c, d, e, f])
}

fn only_v6(addresses: impl Iterator<Item = IpAddr>) -> Vec<Ipv6Addr> {
    let v6 = |address| match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    };
    addresses.filter_map(v6).collect()
}

/// `ip` lines for the host and for the VM.
fn routes(device: &str, addresses: &[(IpAddr, u8)], gateways: &[IpAddr]) -> (String, String) {
    let (mut host, mut guest) = (String::new(), String::new());
    for gateway in gateways {
        let (width, everything, no_probe) = match gateway {
            IpAddr::V4(_) => (32, "0.0.0.0/0", ""),
            IpAddr::V6(_) => (128, "::/0", "nodad"),
        };
        host += &format!("addr add {gateway}/{width} dev {device} {no_probe}\n");
        guest += &format!("route replace {gateway}/{width} dev eth0\n");
        guest += &format!("route replace {everything} via {gateway} dev eth0\n");
    }
    for (address, _) in addresses {
        let width = if address.is_ipv4() { 32 } else { 128 };
        host += &format!("route replace {address}/{width} dev {device}\n");
    }
    (host, guest)
}

fn base36(mut number: u32) -> String {
    let mut digits = Vec::new();
    loop {
        digits.push(char::from_digit(number % 36, 36).expect("a remainder of 36 is a digit"));
        number /= 36;
        if number == 0 {
            return digits.into_iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests;

//! What the agent's host has on it: a web server that may just answer, a port whose rules permit everything, one
//! without port security, and a client that is no port.

use crate::agent::PATIENCE;
use conformance::lab::{Attach, EchoServer, Lab, Vm};
use model::MacAddr;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

pub(crate) struct Machines {
    pub(crate) web: Vm,
    pub(crate) open: Vm,
    pub(crate) free: Vm,
    pub(crate) client: Vm,
    _servers: [EchoServer; 2],
}

impl Machines {
    pub(crate) fn new(lab: &mut Lab, attach: Attach<'_>) -> Self {
        let [web, open, free, client] = [("w", 1), ("o", 3), ("f", 4), ("c", 2)]
            .map(|(name, last)| add(lab, name, last, attach));
        let servers = [80, 81].map(|port| web.serve_tcp(port).expect("a server"));
        Self {
            web,
            open,
            free,
            client,
            _servers: servers,
        }
    }

    /// A policy; what `web` may be asked for.
    pub(crate) fn policy(&self, l4_port: u16) -> String {
        format!(
            "version: 1\nnetworks: {{ lan: {{ subnets: [10.9.0.0/24, 'fd00:9::/64'] }} }}\n\
             groups:\n  g: {{ rules: [{{ name: open, from: any, protocol: tcp, ports: {l4_port} }}] }}\n  \
             all: {{ rules: [{{ name: in, from: any }}, {{ name: out, to: any }}] }}\n\
             ports:\n{}{}{}",
            port("web", &self.web, "groups: [g]"),
            port("open", &self.open, "groups: [all]"),
            port("free", &self.free, "port-security: off"),
        )
    }

    pub(crate) fn connect(
        &self,
        server: IpAddr,
        l4_port: u16,
        timeout: Duration,
    ) -> Option<TcpStream> {
        let to = SocketAddr::new(server, l4_port);
        self.client.tcp_connect(to, timeout).ok()
    }

    /// A connection to the web server by each family.
    pub(crate) fn connect_both(&self) -> [TcpStream; 2] {
        let addresses = self.web.addresses();
        [addresses[0], addresses[1]].map(|server| {
            let stream = self.connect(server, 80, PATIENCE);
            stream.expect("80 is open")
        })
    }
}

/// With an address of each family.
pub(crate) fn add(lab: &mut Lab, name: &str, last: u8, attach: Attach<'_>) -> Vm {
    let mac = MacAddr([0x52, 0x54, 0, 0, 9, last]);
    let v4 = IpAddr::from([10, 9, 0, last]);
    let v6 = IpAddr::from([0xfd00, 9, 0, 0, 0, 0, 0, last.into()]);
    let vm = lab.add_vm(name, mac, &[(v4, 24), (v6, 64)], attach);
    vm.expect("a VM")
}

/// A line of a policy.
pub(crate) fn port(name: &str, vm: &Vm, more: &str) -> String {
    let (device, mac, addresses) = (vm.device(), vm.mac(), vm.addresses());
    let [v4, v6] = [addresses[0], addresses[1]];
    format!("  {name}: {{ device: {device}, mac: '{mac}', addresses: [{v4}, '{v6}'], {more} }}\n")
}

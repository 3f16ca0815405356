//! The policy file of both hosts, and how it is edited.

use super::cast::{Machine, Role, Tenant};
use std::fmt::Write as _;

#[derive(Clone, Copy)]
pub(crate) struct Policy {
    pub(crate) inspection: &'static str,
    /// The web tier takes UDP 514 from friends.
    pub(crate) syslog: bool,
    /// The groups that red/friend is in.
    pub(crate) red_friend: &'static str,
    /// Members of `fleet` on a host that nobody has built.
    pub(crate) simulated: u16,
}

/// What groups are called in the option of the tunnel.
pub(crate) const TAGS: [(u16, &str); 3] = [(10, "web"), (11, "friends"), (12, "others")];

impl Default for Policy {
    /// Solution 2.
    fn default() -> Self {
        Self {
            inspection: "destination",
            syslog: true,
            red_friend: "friends",
            simulated: 0,
        }
    }
}

impl Policy {
    pub(crate) fn text(&self) -> String {
        let syslog = match self.syslog {
            true => "      - { name: syslog, from: friends, protocol: udp, ports: 514 }\n",
            false => "",
        };
        let mut text = format!(
            "\
version: 1
settings: {{ inspection: {} }}
hosts:
  a: {{ tunnel-address: 192.0.2.1, peer-trust: tag }}
  b: {{ tunnel-address: 192.0.2.2, peer-trust: tag }}
  c: {{ tunnel-address: 192.0.2.3, peer-trust: tag }}
networks:
  red: {{ subnets: [10.0.0.0/16, 'fd00::/64'], scope: red, vni: 100 }}
  blue: {{ subnets: [10.0.0.0/16, 'fd00::/64'], scope: blue, vni: 200 }}
groups:
  web:
    tag: 10
    rules:
      - {{ name: http, from: friends, protocol: tcp, ports: 80 }}
      - {{ name: dns, from: any, protocol: udp, ports: 53 }}
      - {{ name: metrics, from: fleet, protocol: tcp, ports: 9100 }}
{syslog}      - {{ name: ping-friends, to: friends, protocol: icmp }}
  friends: {{ tag: 11, rules: [{{ name: ping, from: any, protocol: icmp }}, {{ name: out, to: any }}] }}
  others: {{ tag: 12, rules: [{{ name: out, to: any }}] }}
  fleet: {{ tag: 13, rules: [{{ name: out, to: any }}] }}
ports:
",
            self.inspection
        );
        for machine in Machine::all().into_iter().filter(|m| m.is_protected()) {
            self.port(&mut text, machine);
        }
        for number in 0..self.simulated {
            simulated(&mut text, number);
        }
        text
    }

    fn port(&self, text: &mut String, machine: Machine) {
        let groups = match machine.role {
            Role::Web => "web",
            Role::Friend if machine.tenant == Tenant::Red => self.red_friend,
            Role::Mate | Role::Friend => "friends",
            Role::Stranger | Role::Outside => "others",
        };
        let _ = writeln!(
            text,
            "  {id}: {{ host: {}, network: {}, iface-id: {id}, mac: '{}', addresses: [{}, '{}'], groups: {groups} }}",
            machine.host().name(),
            machine.tenant.name(),
            machine.mac(),
            machine.v4(),
            machine.v6(),
            id = machine.port(),
        );
    }
}

fn simulated(text: &mut String, number: u16) {
    let [high, low] = number.to_be_bytes();
    let _ = writeln!(
        text,
        "  simulated-{number}: {{ host: c, network: red, mac: '52:54:00:01:{high:02x}:{low:02x}', \
         addresses: [10.0.{}.{low}, 'fd00::1:{number:x}'], groups: fleet }}",
        high + 1,
    );
}

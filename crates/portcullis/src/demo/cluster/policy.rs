//! The other demo's policy, `examples/demo.yaml`, as the API is told it; changes of it, and how long they take.
//!
//! What people would type is typed, if OpenStack's client is there; the rest is asked by HTTP of the same API.
//! Place on the line: **request** -> ... -> plane, as the agents tell it.

use super::super::cast::Role;
use super::super::report::{Report, ms};
use super::super::wait_until;
use super::client;
use super::host::PATIENCE;
use super::server::Server;
use super::stage::{Stage, host_of};
use crate::failure::Failure;
use model::Family;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Ids of what was made.
pub(crate) struct Policy {
    groups: BTreeMap<&'static str, String>,
    ports: BTreeMap<Role, String>,
    /// App's rule for TCP 8080 from web, by each family.
    from_web: [String; 2],
}

const GROUPS: [&str; 5] = ["web", "app", "db", "managed", "admin"];
/// What a new group has lets everything out; these let out only what their rules say.
const CLOSED: [&str; 3] = ["app", "db", "managed"];

/// The rules, besides app's from web.
const RULES: [Rule; 5] = [
    Rule::new("web", "ingress", 443, None),
    Rule::new("app", "egress", 5432, Some("db")),
    Rule::new("db", "ingress", 5432, Some("app")),
    Rule::new("managed", "ingress", 22, Some("admin")),
    Rule {
        protocol: "icmp",
        ..Rule::new("managed", "ingress", 0, Some("admin"))
    },
];
const FROM_WEB: Rule = Rule::new("app", "ingress", 8080, Some("web"));

struct Rule {
    group: &'static str,
    direction: &'static str,
    /// `icmp`: echo requests.
    protocol: &'static str,
    l4_port: u16,
    /// Of the others; none: anybody.
    remote: Option<&'static str>,
}

impl Policy {
    pub(crate) fn make(server: &Server, report: &Report) -> Result<Self, Failure> {
        let begun = Instant::now();
        report.line(match &server.client {
            Some(client) => format!(
                "\nPolicy by {} {}; what isn't shown, by HTTP:",
                client.program().display(),
                client::HOW.join(" ")
            ),
            None => "\nPolicy by HTTP: OpenStack's client isn't here, which would ask the same"
                .to_owned(),
        })?;
        let mut making = Making {
            server,
            report,
            groups: BTreeMap::new(),
            made: 0,
        };
        making.groups()?;
        let from_web = making.app_from_web()?;
        for rule in RULES {
            for family in Family::BOTH {
                making.rule(&rule, family)?;
            }
        }
        let ports = making.ports()?;
        let (made, groups) = (making.made, making.groups);
        report.line(format!(
            "{made} networks, subnets, groups, rules and ports made in {}\n",
            ms(begun.elapsed())
        ))?;
        Ok(Self {
            groups,
            ports,
            from_web,
        })
    }

    /// Until each host has told of each of its ports that it enforces it as it is now.
    pub(crate) fn wait_active(&self, server: &Server) -> Result<(), Failure> {
        self.ports
            .keys()
            .try_for_each(|role| self.wait_port_active(server, *role))
    }

    fn wait_port_active(&self, server: &Server, role: Role) -> Result<(), Failure> {
        let path = self.port_path(role);
        let what = format!("the API to call {role} active");
        wait_until(&what, PATIENCE, || {
            let port = server.ask("GET", &path, None)?;
            Ok((port["port"]["status"] == "ACTIVE").then_some(()))
        })
    }

    /// The port is in these groups from now on. From the answer until both hosts have applied it, and the API
    /// calls the port active again.
    pub(crate) fn set_groups(
        &self,
        stage: &Stage,
        role: Role,
        groups: &[&str],
    ) -> Result<Duration, Failure> {
        let groups: Vec<&String> = groups.iter().map(|name| &self.groups[name]).collect();
        let body = json!({ "port": { "security_groups": groups } });
        let path = self.port_path(role);
        let port = stage.server.ask("PUT", &path, Some(body))?;
        let answered = Instant::now();
        for host in stage.hosts() {
            host.wait_for_commit(commit_of(&port["port"]))?;
        }
        self.wait_port_active(&stage.server, role)?;
        Ok(answered.elapsed())
    }

    /// Both families' rules. From the last answer until the host of the group's only port has applied it.
    pub(crate) fn remove_from_web(&mut self, stage: &Stage) -> Result<Duration, Failure> {
        for id in &self.from_web {
            let path = format!("/v2.0/security-group-rules/{id}");
            stage.server.ask("DELETE", &path, None)?;
        }
        self.wait_for_app(stage, Instant::now())
    }

    pub(crate) fn restore_from_web(&mut self, stage: &Stage) -> Result<Duration, Failure> {
        for (id, family) in self.from_web.iter_mut().zip(Family::BOTH) {
            let asked = FROM_WEB.asked(family, &self.groups);
            let made = create(&stage.server, "security_group_rule", asked)?;
            *id = id_of(&made);
        }
        self.wait_for_app(stage, Instant::now())
    }

    fn wait_for_app(&self, stage: &Stage, answered: Instant) -> Result<Duration, Failure> {
        let path = format!("/v2.0/security-groups/{}", self.groups["app"]);
        let group = stage.server.ask("GET", &path, None)?;
        let host = stage.host(host_of(Role::App1));
        host.wait_for_commit(commit_of(&group["security_group"]))?;
        Ok(answered.elapsed())
    }

    fn port_path(&self, role: Role) -> String {
        format!("/v2.0/ports/{}", self.ports[&role])
    }
}

/// The policy while it comes to be.
struct Making<'a> {
    server: &'a Server,
    report: &'a Report,
    groups: BTreeMap<&'static str, String>,
    made: usize,
}

impl Making<'_> {
    fn groups(&mut self) -> Result<(), Failure> {
        for name in GROUPS {
            let words = format!("security group create {name}");
            // Of some, to see how it is typed.
            let words = (name == "app").then_some(words);
            let id = self.make("security_group", json!({ "name": name }), words)?;
            if CLOSED.contains(&name) {
                self.close(&id)?;
            }
            self.groups.insert(name, id);
        }
        Ok(())
    }

    fn close(&self, group: &str) -> Result<(), Failure> {
        let path = format!("/v2.0/security-group-rules?security_group_id={group}");
        let rules = self.server.ask("GET", &path, None)?;
        for rule in rules["security_group_rules"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let path = format!("/v2.0/security-group-rules/{}", id_of(rule));
            self.server.ask("DELETE", &path, None)?;
        }
        Ok(())
    }

    fn app_from_web(&mut self) -> Result<[String; 2], Failure> {
        let words = "security group rule create --ethertype IPv4 --protocol tcp --dst-port 8080 --remote-group web app";
        let v4 = FROM_WEB.asked(Family::V4, &self.groups);
        let v4 = self.make("security_group_rule", v4, Some(words.to_owned()))?;
        Ok([v4, self.rule(&FROM_WEB, Family::V6)?])
    }

    fn rule(&mut self, rule: &Rule, family: Family) -> Result<String, Failure> {
        let asked = rule.asked(family, &self.groups);
        self.make("security_group_rule", asked, None)
    }

    fn ports(&mut self) -> Result<BTreeMap<Role, String>, Failure> {
        let network = self.make("network", json!({ "name": "lan" }), None)?;
        for (version, cidr) in [(4, "10.0.0.0/24"), (6, "fd00:d::/64")] {
            let subnet = json!({
                "network_id": network, "ip_version": version, "cidr": cidr, "gateway_ip": null,
            });
            self.make("subnet", subnet, None)?;
        }
        let mut ports = BTreeMap::new();
        for role in Role::ALL.into_iter().filter(|role| role.is_protected()) {
            ports.insert(role, self.port(&network, role)?);
        }
        Ok(ports)
    }

    /// Found by its MAC on its host.
    fn port(&mut self, network: &str, role: Role) -> Result<String, Failure> {
        let (mac, host) = (role.mac().to_string(), host_of(role).name());
        let groups = groups_of(role);
        let ids: Vec<&String> = groups.iter().map(|name| &self.groups[name]).collect();
        let addresses = Family::BOTH.map(|family| role.address(family));
        let asked = json!({
            "network_id": network, "name": role.name(), "mac_address": mac,
            "fixed_ips": addresses.map(|address| json!({ "ip_address": address })),
            "security_groups": ids, "binding:host_id": host,
        });
        let words = (role == Role::Web2).then(|| {
            let [v4, v6] = addresses;
            let groups = groups.iter().map(|name| format!("--security-group {name}"));
            let groups = groups.collect::<Vec<_>>().join(" ");
            format!(
                "port create --network lan --fixed-ip ip-address={v4} --fixed-ip ip-address={v6} \
                 --mac-address {mac} {groups} --host {host} web2"
            )
        });
        self.make("port", asked, words)
    }

    /// By the client, if there is one and one would type this; its id.
    fn make(
        &mut self,
        kind: &str,
        object: Value,
        words: Option<String>,
    ) -> Result<String, Failure> {
        self.made += 1;
        match (&self.server.client, words) {
            (Some(client), Some(words)) => {
                self.report.line(format!("$ openstack {words}"))?;
                client.make(&words)
            }
            (Some(_), None) | (None, _) => Ok(id_of(&create(self.server, kind, object)?)),
        }
    }
}

/// As the other demo's policy file has it.
pub(super) fn groups_of(role: Role) -> &'static [&'static str] {
    match role {
        Role::Web1 | Role::Web2 => &["web", "managed"],
        Role::App1 => &["app", "managed"],
        Role::Db1 => &["db", "managed"],
        Role::Admin => &["admin"],
        Role::Outsider => &[],
    }
}

impl Rule {
    const fn new(
        group: &'static str,
        direction: &'static str,
        l4_port: u16,
        remote: Option<&'static str>,
    ) -> Self {
        Self {
            group,
            direction,
            protocol: "tcp",
            l4_port,
            remote,
        }
    }

    /// As a request has it.
    fn asked(&self, family: Family, groups: &BTreeMap<&'static str, String>) -> Value {
        let ethertype = match family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        let (protocol, first, last) = match (self.protocol, family) {
            ("icmp", Family::V4) => ("icmp", 8, None),
            ("icmp", Family::V6) => ("ipv6-icmp", 128, None),
            (protocol, _) => (protocol, self.l4_port, Some(self.l4_port)),
        };
        json!({
            "security_group_id": groups[self.group], "direction": self.direction,
            "ethertype": ethertype, "protocol": protocol,
            "port_range_min": first, "port_range_max": last,
            "remote_group_id": self.remote.map(|name| &groups[name]),
        })
    }
}

fn create(server: &Server, kind: &str, object: Value) -> Result<Value, Failure> {
    let path = format!("/v2.0/{}s", kind.replace('_', "-"));
    let answer = server.ask("POST", &path, Some(json!({ kind: object })))?;
    Ok(answer[kind].clone())
}

fn id_of(object: &Value) -> String {
    object["id"].as_str().unwrap_or_default().to_owned()
}

/// The commit that changed it last.
fn commit_of(object: &Value) -> u64 {
    object["revision_number"].as_u64().unwrap_or(u64::MAX)
}

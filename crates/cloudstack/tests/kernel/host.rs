//! A host to try things on: a network namespace with the tools of one back end of iptables.

use crate::built::{Built, Made, Texts, sample};
use portcullis_cloudstack::original::Dumps;
use portcullis_cloudstack::removal::Removal;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

/// A network namespace: it lasts as long as its holder.
pub(crate) struct Host {
    holder: Child,
    pub(crate) backend: &'static str,
}

impl Host {
    pub(crate) fn new(backend: &'static str) -> Self {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo ready; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare is there");
        let output = holder.stdout.take().expect("piped");
        let mut line = String::new();
        let _ = BufReader::new(output).read_line(&mut line);
        assert_eq!(line, "ready\n", "needs root: it makes a network namespace");
        Self { holder, backend }
    }

    /// What the program prints, with this as its standard input.
    pub(crate) fn run(
        &self,
        program: &str,
        arguments: &[&str],
        input: &str,
    ) -> Result<String, String> {
        let target = self.holder.id().to_string();
        let mut child = Command::new("nsenter")
            .args(["--net", "--target", &target, "--", program])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("nsenter is there");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_owned();
        // It may answer before it has read all.
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().expect("it ends");
        let _ = writer.join().expect("no panic");
        match output.status.success() {
            true => Ok(String::from_utf8(output.stdout).expect("text")),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    pub(crate) fn do_it(&self, program: &str, arguments: &[&str], input: &str) -> String {
        let done = self.run(program, arguments, input);
        done.unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}\n{input}"))
    }

    pub(crate) fn tool(&self, tool: &str, verb: &str) -> String {
        format!("{tool}-{}-{verb}", self.backend)
    }

    pub(crate) fn texts(&self) -> Texts {
        Texts {
            iptables: self.do_it(&self.tool("iptables", "save"), &[], ""),
            ip6tables: self.do_it(&self.tool("ip6tables", "save"), &[], ""),
            ipset: self.do_it("ipset", &["save"], ""),
            ebtables: self.do_it("ebtables-nft-save", &[], ""),
        }
    }

    /// Puts objects beside those that are there.
    pub(crate) fn add(&self, texts: &Texts) {
        self.do_it("ipset", &["restore"], &texts.ipset);
        self.restore("iptables", &texts.iptables);
        self.restore("ip6tables", &texts.ip6tables);
        self.do_it("ebtables-nft-restore", &["--noflush"], &texts.ebtables);
    }

    pub(crate) fn restore(&self, tool: &str, script: &str) {
        self.do_it(
            &self.tool(tool, "restore"),
            &["--noflush", "--wait"],
            script,
        );
    }

    pub(crate) fn remove(&self, removal: &Removal) {
        self.restore("iptables", &removal.iptables);
        self.restore("ip6tables", &removal.ip6tables);
        let link_layer = removal.ebtables.script();
        self.do_it("ebtables-nft-restore", &["--noflush"], &link_layer);
        for set in &removal.sets {
            self.do_it("ipset", &["destroy", set], "");
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

pub(crate) fn dumps(texts: &Texts) -> Dumps<'_> {
    Dumps {
        iptables: &texts.iptables,
        ip6tables: &texts.ip6tables,
        ipset: &texts.ipset,
        ebtables: &texts.ebtables,
    }
}

/// Both back ends, with each version's objects.
pub(crate) fn everywhere(check: impl Fn(&Host, &Built)) {
    for backend in ["nft", "legacy"] {
        for made in Made::ALL {
            let mut built = sample::host(made, made);
            if made == Made::Main {
                built.vms.push(sample::routed_vm());
            }
            check(&Host::new(backend), &built);
        }
    }
}

/// Chains with their rules by table, sets with their members.
pub(crate) type Objects = BTreeMap<String, Vec<String>>;

/// The objects of a dump, whatever is around them. Tables in which there is nothing are as good as none.
pub(crate) fn objects(texts: &Texts) -> Objects {
    let mut objects = Objects::new();
    for (tool, text) in [
        ("iptables", &texts.iptables),
        ("ip6tables", &texts.ip6tables),
        ("ebtables", &texts.ebtables),
    ] {
        let mut table = "";
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name;
            } else if let Some(chain) = line.strip_prefix(':') {
                let name = chain.split(' ').next().expect("a name");
                let is_builtin = name.bytes().all(|b| b.is_ascii_uppercase());
                if !is_builtin {
                    objects.entry(format!("{tool} {table} {name}")).or_default();
                }
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let (chain, rule) = rule.split_once(' ').expect("a rule");
                let chain = objects.entry(format!("{tool} {table} {chain}"));
                chain.or_default().push(rule.trim_end().to_owned());
            }
        }
    }
    for line in texts.ipset.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["create", name, kind, ..] => {
                objects
                    .entry(format!("set {name}"))
                    .or_default()
                    .push(kind.to_owned());
            }
            ["add", name, member, ..] => {
                objects
                    .entry(format!("set {name}"))
                    .or_default()
                    .push(member.to_owned());
            }
            _ => {}
        }
    }
    for (name, members) in &mut objects {
        if name.starts_with("set ") {
            members.sort();
        }
    }
    objects
}

/// Says which objects differ, as there are many.
pub(crate) fn check_same(seen: &Objects, expected: &Objects, of: &str) {
    let names: BTreeSet<&String> = seen.keys().chain(expected.keys()).collect();
    for name in names {
        assert_eq!(seen.get(name), expected.get(name), "{of}: {name}");
    }
}

/// What the operator, and other programs, have on the host.
pub(crate) fn foreign() -> Texts {
    let filter = |source: &str, v_lan: &str| {
        format!(
            "*filter\n\
            :DOCKER-USER - [0:0]\n\
            :LIBVIRT_FWI - [0:0]\n\
            :i-internal - [0:0]\n\
            :v-lan - [0:0]\n\
            -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n\
            -A FORWARD -j DOCKER-USER\n\
            -A FORWARD -j LIBVIRT_FWI\n\
            -A FORWARD -i cloudbr0 -m comment --comment \"not -j BF-cloudbr0\" -j ACCEPT\n\
            -A FORWARD -i cloudbr0 -p tcp -j DROP\n\
            -A FORWARD -o other0 -j DROP\n\
            -A FORWARD -s {source} -j v-lan\n\
            -A DOCKER-USER -j RETURN\n\
            -A LIBVIRT_FWI -o virbr0 -j i-internal\n\
            -A i-internal -m set --match-set {v_lan} src -j REJECT\n\
            -A v-lan -m physdev --physdev-in vnet0 -j DROP\n\
            COMMIT\n"
        )
    };
    Texts {
        iptables: filter("192.0.2.0/24", "mine")
            + "*raw\n\
            -A PREROUTING -m set --match-set mine src -j NOTRACK\n\
            COMMIT\n\
            *nat\n\
            -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE\n\
            -A PREROUTING -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.1:80\n\
            COMMIT\n",
        ip6tables: filter("2001:db8::/32", "mine6"),
        ipset: "create mine hash:ip family inet\nadd mine 192.0.2.9\n\
            create mine6 hash:net family inet6\ncreate i-mine hash:ip family inet\n"
            .to_owned(),
        ebtables: "*filter\n:FORWARD ACCEPT\n-A FORWARD -i eth9 -j DROP\n\
            *nat\n:PREROUTING ACCEPT\n:libvirt-J-vnet0 ACCEPT\n\
            -A PREROUTING -i vnet0 -j libvirt-J-vnet0\n-A PREROUTING -i vnet0 -j ACCEPT\n\
            -A libvirt-J-vnet0 -p ARP -j DROP\n"
            .to_owned(),
    }
}

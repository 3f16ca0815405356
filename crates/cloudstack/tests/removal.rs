//! The script's objects in a kernel's own tables: as they are printed there they are read back, and
//! they are removed, with nothing of anybody else's. Both back ends of iptables; needs root.

mod built;

use built::{Built, Made, Texts, sample};
use portcullis_cloudstack::change::{self, Facts};
use portcullis_cloudstack::log_files::LogLine;
use portcullis_cloudstack::original::{Doubt, Dump, Dumps, Link, recover};
use portcullis_cloudstack::removal::{Removal, removal};
use portcullis_cloudstack::{State, VmKind, arguments};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

/// A network namespace: it lasts as long as its holder.
struct Host {
    holder: Child,
    backend: &'static str,
}

impl Host {
    fn new(backend: &'static str) -> Self {
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
    fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
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

    fn do_it(&self, program: &str, arguments: &[&str], input: &str) -> String {
        let done = self.run(program, arguments, input);
        done.unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}\n{input}"))
    }

    fn tool(&self, tool: &str, verb: &str) -> String {
        format!("{tool}-{}-{verb}", self.backend)
    }

    fn texts(&self) -> Texts {
        Texts {
            iptables: self.do_it(&self.tool("iptables", "save"), &[], ""),
            ip6tables: self.do_it(&self.tool("ip6tables", "save"), &[], ""),
            ipset: self.do_it("ipset", &["save"], ""),
            ebtables: self.do_it("ebtables-nft-save", &[], ""),
        }
    }

    /// Puts objects beside those that are there.
    fn add(&self, texts: &Texts) {
        self.do_it("ipset", &["restore"], &texts.ipset);
        self.restore("iptables", &texts.iptables);
        self.restore("ip6tables", &texts.ip6tables);
        self.do_it("ebtables-nft-restore", &["--noflush"], &texts.ebtables);
    }

    fn restore(&self, tool: &str, script: &str) {
        self.do_it(
            &self.tool(tool, "restore"),
            &["--noflush", "--wait"],
            script,
        );
    }

    fn remove(&self, removal: &Removal) {
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

fn dumps(texts: &Texts) -> Dumps<'_> {
    Dumps {
        iptables: &texts.iptables,
        ip6tables: &texts.ip6tables,
        ipset: &texts.ipset,
        ebtables: &texts.ebtables,
    }
}

/// Both back ends, with each version's objects.
fn everywhere(check: impl Fn(&Host, &Built)) {
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

/// The objects of a dump, whatever is around them: chains with their rules by table, sets with their
/// members. Tables in which there is nothing are as good as none.
fn objects(texts: &Texts) -> BTreeMap<String, Vec<String>> {
    let mut objects: BTreeMap<String, Vec<String>> = BTreeMap::new();
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

/// What the operator, and other programs, have on the host.
fn foreign() -> Texts {
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

/// Kept, as our plane has them, too.
fn is_kept(object: &str) -> bool {
    object.starts_with("set cs_notrack")
}

#[test]
fn it_is_printed_as_it_is_built() {
    everywhere(|host, built| {
        host.add(&built.texts());
        assert_eq!(objects(&host.texts()), objects(&built.texts()));
    });
}

#[test]
fn what_a_kernel_prints_is_read_back() {
    everywhere(|host, built| {
        host.add(&foreign());
        host.add(&built.texts());
        let printed = host.texts();
        let logs: Vec<LogLine> = built
            .logs()
            .iter()
            .map(|l| LogLine::parse(l).expect("a line"))
            .collect();
        let link = |(device, bridge, mac): (&str, &str, String)| Link {
            device: device.to_owned(),
            bridge: Some(bridge.to_owned()),
            mac: Some(mac.parse().expect("a MAC")),
        };
        let links: Vec<Link> = built.links().into_iter().map(link).collect();
        let of_kernel = recover(&dumps(&printed), &logs, &links);
        let mut told = State::default();
        for line in built.commands() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let command = arguments::parse(&words).expect("a command");
            change::apply(&mut told, &command, &Facts::default()).expect("done");
        }
        let mut read = of_kernel.state;
        for vm in read.vms.values_mut() {
            vm.domain = None;
        }
        // Their devices are libvirt's to tell.
        let system_vms = read.vms.extract_if(.., |_, vm| vm.kind == VmKind::System);
        assert_eq!(system_vms.count(), built.system_vms.len());
        assert_eq!(read, told);
        assert_eq!(of_kernel.doubts, []);
    });
}

#[test]
fn what_the_script_built_goes_and_all_else_stays() {
    everywhere(|host, built| {
        host.add(&foreign());
        let before = objects(&host.texts());
        host.add(&built.texts());
        let removal = removal(&dumps(&host.texts()));
        assert_eq!(removal.doubts, []);
        host.remove(&removal);
        let mut after = objects(&host.texts());
        after.retain(|object, _| !is_kept(object));
        assert_eq!(after, before, "{}", host.backend);
        // And nothing is left to do.
        let again = self::removal(&dumps(&host.texts()));
        assert_eq!(again, Removal::default());
    });
}

/// One command for each step does the same as the script.
#[test]
fn the_link_layer_can_be_removed_step_by_step() {
    let built = sample::host(Made::After, Made::After);
    let host = Host::new("nft");
    host.add(&foreign());
    let before = objects(&host.texts());
    let ebtables = built.texts().ebtables;
    host.do_it("ebtables-nft-restore", &["--noflush"], &ebtables);
    let removal = removal(&dumps(&host.texts()));
    for command in removal.ebtables.commands() {
        host.do_it("ebtables-nft", &command, "");
    }
    assert_eq!(objects(&host.texts()), before);
}

#[test]
fn what_somebody_else_leads_to_stays_as_it_is() {
    everywhere(|host, built| {
        host.add(&foreign());
        host.add(&built.texts());
        host.add(&Texts {
            iptables: "*filter\n:mine - [0:0]\n\
                -A mine -s 192.0.2.7/32 -j i-2-11-VM\n\
                -A mine -m set --match-set i-2-13-VM src -j DROP\nCOMMIT\n"
                .to_owned(),
            ip6tables: "*filter\n-A FORWARD -s 2001:db8::/32 -g i-2-10-def\nCOMMIT\n".to_owned(),
            ipset: "create list list:set\nadd list i-3-14-VM-6\n\
                create i-9-9-VM hash:net family inet\n"
                .to_owned(),
            ebtables: "*nat\n-A PREROUTING -i eth9 -p ARP -j i-2-11-VM-in\n".to_owned(),
        });
        let before = objects(&host.texts());
        let removal = removal(&dumps(&host.texts()));
        host.remove(&removal);
        let mut after = objects(&host.texts());
        after.retain(|object, _| !is_kept(object));
        let mut expected = before.clone();
        let its = objects(&built.texts());
        for (object, rules) in &its {
            let name = object.rsplit(' ').next().expect("a name");
            let stays = match object.split(' ').next() {
                Some("iptables") => name == "i-2-11-VM",
                // The guard leads to the rules.
                Some("ip6tables") => ["i-2-10-def", "i-2-10-VM", "i-2-10-VM-eg"].contains(&name),
                Some("ebtables") => {
                    ["i-2-11-VM-in", "i-2-11-VM-in-ips", "i-2-11-VM-in-src"].contains(&name)
                }
                _ => ["i-2-13-VM", "i-2-10-VM-6", "i-3-14-VM-6"].contains(&name),
            };
            let is_builtin = name.bytes().all(|b| b.is_ascii_uppercase());
            if is_builtin {
                let left = expected.get_mut(object).expect("it is there");
                left.retain(|rule| !rules.contains(rule));
                if left.is_empty() {
                    expected.remove(object);
                }
            } else if !stays {
                expected.remove(object);
            }
        }
        assert_eq!(after, expected, "{}", host.backend);
        let jump = |dump, from: &str, rule: &str, chain: &str| Doubt::ForeignJump {
            dump,
            from: from.to_owned(),
            rule: rule.to_owned(),
            chain: chain.to_owned(),
        };
        let in_use = |set: &str| {
            let of_it =
                |doubt: &&Doubt| matches!(doubt, Doubt::SetInUse { set: s, .. } if s == set);
            assert_eq!(removal.doubts.iter().filter(of_it).count(), 1, "{set}");
        };
        for set in ["i-2-13-VM", "i-2-10-VM-6", "i-3-14-VM-6"] {
            in_use(set);
        }
        let set = "i-9-9-VM".to_owned();
        let mut told: BTreeSet<Doubt> = removal.doubts.iter().cloned().collect();
        told.retain(|doubt| !matches!(doubt, Doubt::SetInUse { .. }));
        assert_eq!(
            told,
            BTreeSet::from([
                jump(
                    Dump::Iptables,
                    "mine",
                    "-s 192.0.2.7/32 -j i-2-11-VM",
                    "i-2-11-VM"
                ),
                jump(
                    Dump::Ip6tables,
                    "FORWARD",
                    "-s 2001:db8::/32 -g i-2-10-def",
                    "i-2-10-def"
                ),
                jump(
                    Dump::Ebtables,
                    "PREROUTING",
                    "-p ARP -i eth9 -j i-2-11-VM-in",
                    "i-2-11-VM-in"
                ),
                Doubt::OtherSet { set },
            ])
        );
    });
}

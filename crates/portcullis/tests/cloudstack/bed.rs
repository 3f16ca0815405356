//! A KVM host as CloudStack has it: bridges, VMs on them, an uplink, libvirt's `virsh` (a stand-in that lists what
//! it is told), and the program under the script's name.

use conformance::lab::{Asked, Attach, Lab, Vm};
use model::{Family, MacAddr};
use netfilter::conntrack::{Entry, Filter, dump};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const BIN: &str = env!("CARGO_BIN_EXE_portcullis");

/// What is permitted is answered at once; so long nothing comes of what is dropped.
pub(crate) const SILENCE: Duration = Duration::from_millis(300);

/// Which plane the host is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Nft,
    Legacy,
    Ebpf,
}

impl On {
    fn lines(self) -> &'static str {
        match self {
            On::Nft => "plane = iptables\niptables = nft\n",
            On::Legacy => "plane = iptables\niptables = legacy\n",
            On::Ebpf => "plane = ebpf\nmax_ports = 16\n",
        }
    }

    pub(crate) fn arguments(self) -> &'static [&'static str] {
        match self {
            On::Nft => &["--plane", "iptables", "--iptables", "nft"],
            On::Legacy => &["--plane", "iptables", "--iptables", "legacy"],
            On::Ebpf => &["--plane", "ebpf"],
        }
    }
}

pub(crate) struct Bed {
    pub(crate) on: On,
    pub(crate) lab: Lab,
    pub(crate) root: TempDir,
    instance: String,
    vms: RefCell<BTreeMap<String, Guest>>,
}

/// A VM's NIC, and what the agent says of it.
#[derive(Clone)]
struct Guest {
    vm: Vm,
    bridge: String,
}

impl Bed {
    /// A host with the bridge `cloudbr0`, and `out` behind its uplink: somebody in the world.
    pub(crate) fn new(on: On) -> Self {
        Self::with(on, "")
    }

    /// With more lines in its configuration.
    pub(crate) fn with(on: On, more: &str) -> Self {
        static BEDS: AtomicU32 = AtomicU32::new(0);
        let number = BEDS.fetch_add(1, Ordering::Relaxed);
        let lab = Lab::new("cloudstack").expect("root");
        let root = tempfile::tempdir().expect("there is room");
        let mut bed = Self {
            on,
            lab,
            instance: format!("pc-cs-{}-{number}", std::process::id()),
            root,
            vms: RefCell::default(),
        };
        let directory = bed.root.path();
        for name in ["domains", "log", "bin"] {
            fs::create_dir(directory.join(name)).expect("there is room");
        }
        symlink(BIN, directory.join("security_group.py")).expect("a link");
        bed.write_virsh();
        bed.link_tools();
        bed.lab.add_bridge("cloudbr0").expect("a bridge");
        bed.plug("out", "cloudbr0", 250, &["10.1.0.250", "fd00:1::250"]);
        bed.write_config(more);
        bed
    }

    fn write_config(&self, more: &str) {
        let root = self.root.path().display();
        let out = self.vm("out");
        let prefix = out
            .device()
            .strip_suffix("out")
            .expect("devices are called so");
        let text = format!(
            "{}instance = {}\nguard = {prefix}v*\nrun_dir = {root}/run\nlogs = {root}/cloud\nlock = {root}/lock\n\
             log_file = {root}/log/security_group.log\nvirsh = {root}/virsh\n{more}",
            self.on.lines(),
            self.instance,
        );
        fs::write(self.config(), text).expect("there is room");
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.root.path().join("cloudstack.conf")
    }

    fn write_virsh(&self) {
        let domains = self.root.path().join("domains");
        let text = format!(
            "#!/bin/sh\ncd {} || exit 1\nshift\ncase $1 in\n  list) ls ;;\n  domid) [ -e \"$2\" ] && echo 7 ;;\n\
             \x20 domiflist) cat \"$2\" ;;\nesac\n",
            domains.display()
        );
        let path = self.root.path().join("virsh");
        fs::write(&path, text).expect("there is room");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
    }

    /// `iptables` and its likes are the ones of the plane's back end, as on a host that has just one.
    fn link_tools(&self) {
        let backend = match self.on {
            On::Nft | On::Ebpf => "nft",
            On::Legacy => "legacy",
        };
        for tool in ["iptables", "ip6tables"] {
            for verb in ["", "-save", "-restore"] {
                let real = format!("/usr/sbin/{tool}-{backend}{verb}");
                symlink(real, self.tool(&format!("{tool}{verb}"))).expect("a link");
            }
        }
    }

    fn tool(&self, name: &str) -> PathBuf {
        self.root.path().join("bin").join(name)
    }

    /// The program does this instead, in the shell's words, if that is in what it is to do.
    pub(crate) fn set_trap(&self, program: &str, in_input: &str, instead: &str) {
        let real = PathBuf::from("/usr/sbin").join(program);
        let real = fs::canonicalize(self.tool(program)).unwrap_or(real);
        // By its name the program knows what to be.
        let text = format!(
            "#!/bin/bash\nfile=$(mktemp)\ncat > $file\nif grep -q '{in_input}' $file; then\n  rm $file\n  {instead}\n  \
             exit 1\nfi\nexec -a {program} {} \"$@\" < <(cat $file; rm $file)\n",
            real.display()
        );
        let trap = self.tool(&format!("{program}.trap"));
        fs::write(&trap, text).expect("there is room");
        fs::set_permissions(&trap, fs::Permissions::from_mode(0o755)).expect("it is ours");
        drop(fs::rename(
            self.tool(program),
            self.tool(&format!("{program}.real")),
        ));
        fs::rename(trap, self.tool(program)).expect("there is room");
    }

    pub(crate) fn remove_trap(&self, program: &str) {
        fs::remove_file(self.tool(program)).expect("it was set");
        drop(fs::rename(
            self.tool(&format!("{program}.real")),
            self.tool(program),
        ));
    }

    fn path(&self) -> OsString {
        let mut path = self.root.path().join("bin").into_os_string();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        path
    }

    /// Puts a machine on a bridge; its MAC ends with this byte. For a VM's NIC the name begins with `v`.
    pub(crate) fn plug(&mut self, name: &str, bridge: &str, last: u8, addresses: &[&str]) {
        let mac = MacAddr([0x02, 0x00, 0x4c, 0x5f, 0x00, last]);
        let with_length = |text: &&str| -> (IpAddr, u8) {
            let address: IpAddr = text.parse().expect("an address");
            (address, if address.is_ipv4() { 16 } else { 64 })
        };
        let addresses: Vec<(IpAddr, u8)> = addresses.iter().map(with_length).collect();
        let vm = self
            .lab
            .add_vm(name, mac, &addresses, Attach::Bridge(bridge));
        let guest = Guest {
            vm: vm.unwrap_or_else(|error| panic!("{error}")),
            bridge: bridge.to_owned(),
        };
        self.vms.borrow_mut().insert(name.to_owned(), guest);
    }

    pub(crate) fn unplug(&mut self, name: &str) {
        let guest = self.vms.borrow_mut().remove(name).expect("it is there");
        self.lab.remove_vm(&guest.vm).expect("it is there");
    }

    pub(crate) fn vm(&self, name: &str) -> Vm {
        self.vms.borrow()[name].vm.clone()
    }

    /// libvirt has a domain of this name with these NICs.
    pub(crate) fn define(&self, domain: &str, nics: &[&str]) {
        let vms = self.vms.borrow();
        let lines = nics.iter().map(|nic| {
            let Guest { vm, bridge } = &vms[*nic];
            format!(
                " {}   bridge   {bridge}   virtio   {}\n",
                vm.device(),
                vm.mac()
            )
        });
        let path = self.root.path().join("domains").join(domain);
        fs::write(path, lines.collect::<String>()).expect("there is room");
    }

    pub(crate) fn undefine(&self, domain: &str) {
        fs::remove_file(self.root.path().join("domains").join(domain)).expect("it is there");
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.root.path().join("security_group.py"));
        command
            .args(words)
            .env("PATH", self.path())
            .env("PORTCULLIS_CLOUDSTACK_CONF", self.config());
        command
    }

    /// A call as the agent makes it.
    pub(crate) fn call(&self, words: &[&str]) -> Output {
        self.run_call(self.command(words))
    }

    pub(crate) fn run_call(&self, mut command: Command) -> Output {
        let output = self.lab.host().run(move || command.output());
        output.expect("the program runs")
    }

    /// A call that has to succeed; its standard output.
    pub(crate) fn done(&self, words: &[&str]) -> String {
        let output = self.call(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        assert_eq!(said, "", "{words:?}");
        String::from_utf8(output.stdout).expect("it is text")
    }

    /// The program under its own name.
    pub(crate) fn portcullis(&self, words: &[&str]) -> Output {
        let mut command = Command::new(BIN);
        command
            .args(words)
            .env("PATH", self.path())
            .env("PORTCULLIS_CLOUDSTACK_CONF", self.config())
            .env("PORTCULLIS_RUN_DIR", self.root.path().join("run"))
            .env("PORTCULLIS_INSTANCE", &self.instance);
        let output = self.lab.host().run(move || command.output());
        output.expect("the program runs")
    }

    /// `default_network_rules` for a NIC of a VM.
    pub(crate) fn default_rules(&self, vm: &str, nic: &str, more: &[&str]) -> String {
        let described = self.described(nic);
        let mut words = vec!["default_network_rules", "--vmname", vm, "--vmid", "10"];
        words.extend(described.iter().map(String::as_str));
        words.extend(["--nicsecips", "0;"]);
        words.extend(more);
        self.done(&words)
    }

    /// `add_network_rules` for a VM with this NIC.
    pub(crate) fn push(&self, vm: &str, nic: &str, sequence: u64, rules: &str) -> Output {
        self.run_call(self.push_command(vm, nic, sequence, rules))
    }

    pub(crate) fn push_command(&self, vm: &str, nic: &str, sequence: u64, rules: &str) -> Command {
        let described = self.described(nic);
        let sequence = sequence.to_string();
        let mut words = vec!["add_network_rules", "--vmname", vm, "--vmid", "10"];
        words.extend(described.iter().map(String::as_str));
        words.extend(["--nicsecips", "0;", "--sig", "9a03", "--seq", &sequence]);
        words.extend(["--rules", rules]);
        self.command(&words)
    }

    pub(crate) fn pushed(&self, vm: &str, nic: &str, sequence: u64, rules: &str) {
        let output = self.push(vm, nic, sequence, rules);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{rules}: {said}");
    }

    /// A VM that is started and has its rules.
    pub(crate) fn start(&self, vm: &str, nic: &str, rules: &str) {
        self.define(vm, &[nic]);
        self.default_rules(vm, nic, &["--isFirstNic"]);
        self.pushed(vm, nic, 1, rules);
    }

    fn described(&self, nic: &str) -> Vec<String> {
        let Guest { vm, bridge } = self.vms.borrow()[nic].clone();
        let option = |name: &str, value: String| [name.to_owned(), value];
        let mut words: Vec<String> = option("--vmmac", vm.mac().to_string()).into();
        words.extend(option("--vif", vm.device().to_owned()));
        words.extend(option("--brname", bridge));
        for address in vm.addresses() {
            let name = if address.is_ipv4() {
                "--vmip"
            } else {
                "--vmip6"
            };
            words.extend(option(name, address.to_string()));
        }
        words
    }

    /// Whether one machine is answered by another.
    pub(crate) fn answers(&self, from: &str, to: &str, family: Family, asked: Asked) -> bool {
        let (client, server) = (self.vm(from), self.vm(to));
        for machine in [&client, &server] {
            // Who was not answered before asks again only after a while.
            let namespace = machine.namespace();
            namespace.ip("neigh flush dev eth0").expect("eth0 is there");
        }
        let answered = client.is_answered(&server, family, asked, SILENCE);
        answered.unwrap_or_else(|error| panic!("{from} asks {to} {asked:?} by {family}: {error}"))
    }

    pub(crate) fn check(&self, table: &[(&str, &str, Asked, bool)]) {
        for family in Family::BOTH {
            for (from, to, asked, expected) in table {
                let answered = self.answers(from, to, family, *asked);
                assert_eq!(
                    answered, *expected,
                    "{from} asks {to} {asked:?} by {family}"
                );
            }
        }
    }

    pub(crate) fn log_of(&self, vm: &str) -> Option<String> {
        fs::read_to_string(self.root.path().join("cloud").join(format!("{vm}.log"))).ok()
    }

    /// Runs a command on the host; it has to succeed.
    pub(crate) fn run(&self, command: &str) -> String {
        let mut words = command.split(' ');
        let program = words.next().expect("a program");
        let path = self.path();
        let output = self
            .lab
            .host()
            .run(|| Command::new(program).args(words).env("PATH", path).output())
            .unwrap_or_else(|error| panic!("{command}: {error}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.lab.host().run(|| {
            let mut entries = Vec::new();
            dump(&Filter::default(), |entry| entries.push(entry)).expect("netlink answers");
            entries
        })
    }

    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }
}

/// Also after a failure nothing stays behind.
impl Drop for Bed {
    fn drop(&mut self) {
        if self.on == On::Ebpf {
            let mut words = vec!["detach"];
            words.extend(self.on.arguments());
            self.portcullis(&words);
        }
    }
}

//! Others change what is ours: it is noticed, nothing opens meanwhile, and the next apply puts it right.

use crate::bed::Bed;
use crate::restart::verified;
use crate::sharing::three;
use crate::with_each_backend;
use conformance::lab::Asked;
use dataplane::{DataPlane, Drift};
use model::Family;
use portcullis_dataplane_iptables::Backend;

with_each_backend!(
    what_others_break_is_noticed_and_put_right,
    what_others_do_for_themselves_is_none_of_our_business,
    the_other_back_end_s_leftovers_go,
);

pub(crate) const POLICY: &str = "
version: 1
networks: { lan: { subnets: [10.0.0.0/24, 'fd00::/64'] } }
groups:
  web: { rules: [{ name: http, from: any, protocol: tcp, ports: 80 }, { name: peer, from: friends }] }
  friends: {}
ports:
  open: { device: open, mac: 52:54:00:00:00:01, addresses: [10.0.0.1, 'fd00::1'], groups: web }
  shut: { device: shut, mac: 52:54:00:00:00:02, addresses: [10.0.0.2, 'fd00::2'], groups: friends }
";

/// O8: somebody else's hand in our rules.
fn what_others_break_is_noticed_and_put_right(backend: Backend) {
    let mut bed = three(backend);
    bed.apply(POLICY);
    assert_eq!(audited(&mut bed), []);
    let name = backend.name();
    for command in [
        format!("iptables-{name} -t mangle -F"),
        format!("ip6tables-{name} -t mangle -F"),
        format!("iptables-{name} -t raw -F"),
        format!("iptables-{name} -F"),
        format!("ip6tables-{name} -t mangle -F pc-in"),
        format!("iptables-{name} -t mangle -D pc-in 1"),
        "ipset flush".to_owned(),
        "ipset flush MEMBERS".to_owned(),
        "nft flush ruleset".to_owned(),
        "nft flush table bridge portcullis.plane.test".to_owned(),
        "nft delete table bridge portcullis.plane.test".to_owned(),
        "nft flush set bridge portcullis.plane.test ports".to_owned(),
        "sysctl -qw net.bridge.bridge-nf-call-iptables=0".to_owned(),
        "sysctl -qw net.bridge.bridge-nf-call-ip6tables=0".to_owned(),
    ] {
        bed.run(&command.replace("MEMBERS", &members_set(&bed)));
        for family in Family::BOTH {
            let forbidden = bed.answers("out", "shut", family, Asked::Udp(53));
            let opens = command.contains("nft");
            assert!(opens || !forbidden, "{command}: {family} is open");
        }
        assert_ne!(audited(&mut bed), [], "{command}");
        bed.apply(POLICY);
        assert_eq!(verified(&mut bed), [], "{command}");
        assert_eq!(audited(&mut bed), [], "{command}");
        for family in Family::BOTH {
            let answers = |from, to, asked| bed.answers(from, to, family, asked);
            assert!(
                answers("out", "open", Asked::Tcp(80)),
                "{command}: {family}"
            );
            assert!(
                !answers("out", "shut", Asked::Tcp(80)),
                "{command}: {family}"
            );
        }
    }
}

/// Of IPv4; a rebuild gives it another name.
fn members_set(bed: &Bed) -> String {
    let listed = bed.run("ipset list -n");
    let mut names = listed.lines();
    let name = names.find(|name| name.starts_with("pc-m") && name.ends_with("-4"));
    name.expect("a rule names a group").to_owned()
}

fn what_others_do_for_themselves_is_none_of_our_business(backend: Backend) {
    let mut bed = three(backend);
    bed.apply(POLICY);
    let name = backend.name();
    for command in [
        format!("iptables-{name} -N theirs"),
        format!("iptables-{name} -A theirs -j ACCEPT"),
        format!("iptables-{name} -P FORWARD DROP"),
        format!("ip6tables-{name} -t mangle -A PREROUTING -j MARK --set-mark 1"),
        "ebtables -F".to_owned(),
        "ebtables -t nat -F".to_owned(),
        "ipset create theirs hash:ip".to_owned(),
        "nft add table inet theirs".to_owned(),
    ] {
        bed.run(&command);
        assert_eq!(audited(&mut bed), [], "{command}");
        assert_eq!(bed.apply(POLICY).writes, 0, "{command}");
    }
    assert!(bed.answers("out", "open", Family::V4, Asked::Tcp(80)));
    assert!(!bed.answers("out", "shut", Family::V4, Asked::Tcp(80)));
    // A rebuild leaves theirs alone, too.
    bed.run(&format!("ipset flush {}", members_set(&bed)));
    bed.apply(POLICY);
    let saved = bed.iptables_save();
    assert!(
        saved.contains("-A theirs -j ACCEPT") && saved.contains(":FORWARD DROP"),
        "{saved}"
    );
}

/// The host's `iptables` has become the other one.
fn the_other_back_end_s_leftovers_go(backend: Backend) {
    let mut bed = three(backend);
    bed.apply(POLICY);
    let left = bed.iptables_save();
    let other = match backend {
        Backend::Nft => Backend::Legacy,
        Backend::Legacy => Backend::Nft,
    };
    bed.become_backend(other);
    bed.reopen();
    bed.apply(POLICY);
    assert_eq!(verified(&mut bed), []);
    bed.become_backend(backend);
    assert!(left.contains("pc-in") && !bed.iptables_save().contains("pc-in"));
    bed.become_backend(other);
    assert!(bed.answers("out", "open", Family::V4, Asked::Tcp(80)));
}

pub(crate) fn audited(bed: &mut Bed) -> Vec<Drift> {
    bed.with(IptablesAudit::audit_soon)
}

/// As an agent does that looks twice a second: what is dear to ask may be asked at the second look.
trait IptablesAudit {
    fn audit_soon(&mut self) -> Vec<Drift>;
}

impl<P: DataPlane> IptablesAudit for P {
    fn audit_soon(&mut self) -> Vec<Drift> {
        for _ in 0..2 {
            let drift = self.audit().expect("it can be read back");
            if !drift.is_empty() {
                return drift;
            }
            std::thread::sleep(self.audit_every());
        }
        Vec::new()
    }
}

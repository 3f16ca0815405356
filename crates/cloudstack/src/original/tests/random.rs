use super::*;
use crate::removal::removal;
use crate::rules::{Remote, RuleRecord, Service};
use model::{Direction, Prefix};

/// What the rules of a direction admit.
fn admitted(user: &UserVm, direction: Direction) -> BTreeSet<String> {
    let records = user.push.iter().flat_map(|push| push.rules.records());
    let of_direction = records.filter(|record| record.direction == direction);
    of_direction.flat_map(each).collect()
}

/// Of its prefixes, those that somebody can have.
fn each(record: &RuleRecord) -> Vec<String> {
    let somebody = |remote: &&Remote| match remote {
        Remote::Prefix(prefix) => *prefix != Prefix::host([0; 16].into()),
        Remote::NoAddress => false,
    };
    let service: Service = record.service;
    let remotes = record.remotes.iter().filter(somebody);
    remotes
        .map(|remote| format!("{service:?} {remote:?}"))
        .collect()
}

/// All that nobody has: the record for a family that is closed.
fn is_restricted(user: &UserVm, family: Family) -> bool {
    let records = user.push.iter().flat_map(|push| push.rules.records());
    let mut egress = records.filter(|record| record.direction == Direction::Egress);
    egress.any(|record| record.is_of(family))
}

/// Lines are lost, doubled, moved and cut: nobody may get more than was pushed.
fn check_nothing_opens(built: &Built, texts: &Texts) {
    let told = told(built);
    let recovered = recovered(built, texts);
    let _ = removal(&dumps(texts));
    for (name, vm) in &recovered.state.vms {
        let (VmKind::User(user), Some(before)) = (&vm.kind, told.vms.get(name)) else {
            continue;
        };
        let VmKind::User(before) = &before.kind else {
            continue;
        };
        let got = admitted(user, Direction::Ingress);
        let had = admitted(before, Direction::Ingress);
        assert!(got.is_subset(&had), "{name}: {got:?}, not within {had:?}");
        if user.push.is_none() {
            assert!(before.push.is_none(), "{name}: its rules are forgotten");
            continue;
        }
        for family in Family::BOTH {
            let had = admitted(before, Direction::Egress);
            let was_open = !is_restricted(before, family);
            let is_open = !is_restricted(user, family);
            let everything = Remote::Prefix(Prefix::whole(family));
            let had_all = had.contains(&format!("{:?} {everything:?}", Service::All));
            assert!(
                !is_open || was_open || had_all,
                "{name}: {family} egress is open"
            );
        }
    }
    for doubt in said(&recovered) {
        assert!(!doubt.contains('\n'), "{doubt}");
    }
}

#[derive(Clone, Debug)]
enum Harm {
    Lose(usize),
    Double(usize),
    Swap(usize, usize),
    Cut(usize),
    Garble(usize, usize, String),
}

fn any_harm() -> impl Strategy<Value = (usize, Harm)> {
    let at = || any::<prop::sample::Index>().prop_map(|at| at.index(usize::MAX));
    let word = prop_oneof![
        Just("-j".to_owned()),
        Just("!".to_owned()),
        Just("RETURN".to_owned()),
        Just("ACCEPT".to_owned()),
        Just("\"".to_owned()),
        Just("0.0.0.0/0".to_owned()),
        "\\PC{0,6}",
    ];
    let harm = prop_oneof![
        8 => at().prop_map(Harm::Lose),
        2 => at().prop_map(Harm::Double),
        2 => (at(), at()).prop_map(|(a, b)| Harm::Swap(a, b)),
        1 => at().prop_map(Harm::Cut),
        2 => (at(), at(), word).prop_map(|(a, b, word)| Harm::Garble(a, b, word)),
    ];
    (0..4_usize, harm)
}

fn harmed(text: &str, harm: &Harm) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if lines.is_empty() {
        return text.to_owned();
    }
    let within = |at: usize| at % lines.len();
    match harm {
        Harm::Lose(at) => {
            let at = within(*at);
            lines.remove(at);
        }
        Harm::Double(at) => {
            let at = within(*at);
            lines.insert(at, lines[at].clone());
        }
        Harm::Swap(a, b) => {
            let (a, b) = (within(*a), within(*b));
            lines.swap(a, b);
        }
        Harm::Cut(at) => {
            let at = text.floor_char_boundary(at % text.len());
            return text[..at].to_owned();
        }
        Harm::Garble(at, word, by) => {
            let at = within(*at);
            let mut words: Vec<&str> = lines[at].split(' ').collect();
            let word = word % words.len();
            words[word] = by;
            lines[at] = words.join(" ");
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

proptest! {
    /// Lines that are lost, alone: the rest is as the script leaves it.
    #[test]
    fn what_is_lost_opens_nothing(
        made in 0..3_usize,
        pushed in 0..3_usize,
        lost in proptest::collection::vec((0..4_usize, any::<prop::sample::Index>()), 1..40),
    ) {
        let built = sample::host(Made::ALL[made], Made::ALL[pushed]);
        let mut texts = built.texts();
        for (which, at) in lost {
            let text = [
                &mut texts.iptables, &mut texts.ip6tables, &mut texts.ipset, &mut texts.ebtables,
            ].into_iter().nth(which).expect("four");
            *text = harmed(text, &Harm::Lose(at.index(usize::MAX)));
        }
        check_nothing_opens(&built, &texts);
    }

    /// Whatever comes, it is read, and in one line it is said what can't be.
    #[test]
    fn any_text_is_read(
        made in 0..3_usize,
        harms in proptest::collection::vec(any_harm(), 1..20),
    ) {
        let built = sample::host(Made::ALL[made], Made::ALL[made]);
        let mut texts = built.texts();
        for (which, harm) in harms {
            let text = [
                &mut texts.iptables, &mut texts.ip6tables, &mut texts.ipset, &mut texts.ebtables,
            ].into_iter().nth(which).expect("four");
            *text = harmed(text, &harm);
        }
        let recovered = recovered(&built, &texts);
        for doubt in said(&recovered) {
            prop_assert!(!doubt.contains('\n'), "{}", doubt);
        }
        // What is kept can be read again.
        let again = State::from_json(&recovered.state.to_json());
        prop_assert_eq!(again.map_err(|error| error.to_string()), Ok(recovered.state));
        let removal = removal(&dumps(&texts));
        for doubt in &removal.doubts {
            prop_assert!(!doubt.to_string().contains('\n'));
        }
    }
}

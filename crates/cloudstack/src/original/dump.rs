//! What `iptables-save`, `ip6tables-save`, `ebtables-save` and `ipset save` print, taken apart: tables,
//! chains, rules, sets. Of any host, with whatever else is on it.
//!
//! Total: a line that is none is kept apart, and said.
//! Knows nothing of: whose the objects are, what a rule means.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// The tables of one dump.
#[derive(Debug, Default)]
pub(crate) struct Tables<'a> {
    tables: BTreeMap<&'a str, Chains<'a>>,
    /// Tables that are there and that the tool can't show.
    pub(crate) hidden: Vec<&'a str>,
    /// Lines that are none.
    pub(crate) strange: Vec<&'a str>,
    /// The dump ends within a table.
    pub(crate) is_cut: bool,
}

/// The rules of a table by chain, in their order.
pub(crate) type Chains<'a> = BTreeMap<&'a str, Vec<Rule<'a>>>;

/// One rule.
#[derive(Clone, Debug)]
pub(crate) struct Rule<'a> {
    /// As printed, behind the chain's name: what the tool takes to delete it.
    pub(crate) text: &'a str,
    /// What it asks of a packet, in the order of the text.
    pub(crate) matches: Vec<Clause<'a>>,
    /// From `-j` or `-g` on.
    pub(crate) target: Vec<Cow<'a, str>>,
}

/// An option with its values, such as `--match-set i-2-10-VM src`.
#[derive(Clone, Debug)]
pub(crate) struct Clause<'a> {
    pub(crate) negated: bool,
    /// The option first; never empty.
    pub(crate) words: Vec<Cow<'a, str>>,
}

/// A set of addresses.
#[derive(Debug, Default)]
pub(crate) struct Set<'a> {
    /// What it was created as: `hash:ip`, `family`, `inet`, ...; empty where nothing says so.
    pub(crate) kind: Vec<&'a str>,
    /// In the order of the text.
    pub(crate) members: Vec<&'a str>,
}

impl<'a> Tables<'a> {
    /// Reads what `iptables-save` or `ip6tables-save` printed, with counters or without.
    pub(crate) fn of_iptables(text: &'a str) -> Self {
        let mut read = Self::read(text);
        read.is_cut |= !text.is_empty() && !text.ends_with('\n');
        read
    }

    /// Reads what `ebtables-save` printed: it has no word for the end of a table.
    pub(crate) fn of_ebtables(text: &'a str) -> Self {
        let mut read = Self::read(text);
        read.is_cut = !text.is_empty() && !text.ends_with('\n');
        read
    }

    fn read(text: &'a str) -> Self {
        let mut read = Self::default();
        let mut table: Option<&mut Chains<'a>> = None;
        for line in text.lines() {
            let line = line.trim_end();
            if let Some(name) = line.strip_prefix('*') {
                read.is_cut = true;
                table = Some(read.tables.entry(name).or_default());
            } else if line == "COMMIT" {
                read.is_cut = false;
                table = None;
            } else if line.is_empty() || line.starts_with('#') {
                read.hidden.extend(hidden_table(line));
            } else if let (Some(chains), Some(name)) = (&mut table, line.strip_prefix(':')) {
                let name = name.split(' ').next().unwrap_or_default();
                chains.entry(name).or_default();
            } else if let (Some(chains), Some((chain, rule))) = (&mut table, appended(line)) {
                chains.entry(chain).or_default().push(Rule::new(rule));
            } else {
                read.strange.push(line);
            }
        }
        read
    }

    /// Each table with its chains.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a str, &Chains<'a>)> {
        self.tables.iter().map(|(name, chains)| (*name, chains))
    }

    /// The chains of a table; `None` where it isn't there.
    pub(crate) fn table(&self, name: &str) -> Option<&Chains<'a>> {
        self.tables.get(name)
    }
}

/// `# Table `filter' is incompatible, use 'nft' tool.`
fn hidden_table(comment: &str) -> Option<&str> {
    let (_, rest) = comment.split_once("Table `")?;
    let (table, rest) = rest.split_once('\'')?;
    rest.contains("incompatible").then_some(table)
}

/// Chain and rule of `-A CHAIN RULE`, with or without counters before it.
fn appended(line: &str) -> Option<(&str, &str)> {
    let line = match line.strip_prefix('[') {
        Some(rest) => rest.split_once("] ")?.1,
        None => line,
    };
    let rest = line.strip_prefix("-A ")?;
    Some(rest.split_once(' ').unwrap_or((rest, "")))
}

impl<'a> Rule<'a> {
    fn new(text: &'a str) -> Self {
        let mut rule = Self {
            text,
            matches: Vec::new(),
            target: Vec::new(),
        };
        let mut negated = false;
        let mut words = words(text).into_iter();
        while let Some((is_quoted, word)) = words.next() {
            match &*word {
                _ if is_quoted => rule.push_value(word),
                "-j" | "-g" => {
                    rule.target.push(word);
                    rule.target.extend(words.by_ref().map(|(_, word)| word));
                }
                "!" => match rule.matches.last_mut() {
                    // ebtables may have it behind the option.
                    Some(clause) if clause.words.len() == 1 && !clause.is_bare() => {
                        clause.negated = true;
                    }
                    Some(_) | None => negated = true,
                },
                option if option.starts_with('-') => {
                    let mut clause = Clause {
                        negated: std::mem::take(&mut negated),
                        words: vec![word],
                    };
                    // Somebody's text, which may look like anything, and may need no quotes.
                    if matches!(&*clause.words[0], "--comment" | "--log-prefix") {
                        clause.words.extend(words.next().map(|(_, word)| word));
                    }
                    rule.matches.push(clause);
                }
                _ => rule.push_value(word),
            }
        }
        rule
    }

    fn push_value(&mut self, word: Cow<'a, str>) {
        match self.matches.last_mut() {
            Some(clause) => clause.words.push(word),
            None => self.matches.push(Clause {
                negated: false,
                words: vec![word],
            }),
        }
    }

    /// The chain or target that it leads to, without options of its own.
    pub(crate) fn leads_to(&self) -> Option<&str> {
        self.target.get(1).map(|word| &**word)
    }

    /// What follows an option that isn't negated.
    pub(crate) fn value(&self, option: &str) -> Option<&str> {
        let clause = self.matches.iter().find(|clause| clause.option() == option);
        clause.filter(|clause| !clause.negated)?.value()
    }

    /// Each of its words.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        let matches = self.matches.iter().flat_map(|clause| &clause.words);
        matches.chain(&self.target).map(|word| &**word)
    }
}

impl Clause<'_> {
    pub(crate) fn option(&self) -> &str {
        &self.words[0]
    }

    /// The first value.
    pub(crate) fn value(&self) -> Option<&str> {
        self.words.get(1).map(|word| &**word)
    }

    /// Options that iptables prints without a value, and a `!` may follow.
    fn is_bare(&self) -> bool {
        let option = self.option();
        option == "--syn" || option.starts_with("--physdev-is-")
    }
}

/// With its words as they are meant, without quotes.
impl fmt::Display for Clause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.negated {
            f.write_str("! ")?;
        }
        f.write_str(&self.words.join(" "))
    }
}

/// By blanks; what is in quotes is one word, in which a backslash quotes the next character. With
/// whether it was in quotes.
fn words(text: &str) -> Vec<(bool, Cow<'_, str>)> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (is_quoted, word);
        (is_quoted, (word, rest)) = match rest.strip_prefix('"') {
            Some(quoted) => (true, unquoted(quoted)),
            None => {
                let (word, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                (false, (Cow::Borrowed(word), rest))
            }
        };
        words.push((is_quoted, word));
        rest = rest.trim_start();
    }
    words
}

/// The text up to the closing quote, and what follows.
fn unquoted(text: &str) -> (Cow<'_, str>, &str) {
    let mut word = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (word.into(), &text[at + 1..]),
            '\\' => word.extend(chars.next().map(|(_, c)| c)),
            c => word.push(c),
        }
    }
    (word.into(), "")
}

/// Reads what `ipset save` printed, in any order.
pub(crate) fn sets(text: &str) -> BTreeMap<&str, Set<'_>> {
    let mut sets: BTreeMap<&str, Set<'_>> = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("create"), Some(name)) => sets.entry(name).or_default().kind.extend(words),
            (Some("add"), Some(name)) => sets.entry(name).or_default().members.extend(words.next()),
            _ => {}
        }
    }
    sets
}

impl Set<'_> {
    /// Created as this type and family.
    pub(crate) fn is(&self, kind: &str, family: &str) -> bool {
        let of_family = self.kind.windows(2).any(|two| two == ["family", family]);
        self.kind.first() == Some(&kind) && of_family
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A rule's clauses and target, one after the other.
    fn check(rule: &str, expected: &[&str]) {
        let line = format!("-A CHAIN {rule}");
        let (chain, text) = appended(&line).expect("a rule");
        assert_eq!((chain, text), ("CHAIN", rule));
        let rule = Rule::new(text);
        let mut seen: Vec<String> = rule.matches.iter().map(Clause::to_string).collect();
        seen.push(rule.target.join(" "));
        assert_eq!(seen, expected, "{text}");
    }

    #[test]
    fn a_rule_is_clauses_and_a_target() {
        check("-j DROP", &["-j DROP"]);
        check(
            "-s 10.0.0.0/8 -p tcp -m tcp --dport 22 -j MARK --set-xmark 0x1/0x1",
            &[
                "-s 10.0.0.0/8",
                "-p tcp",
                "-m tcp",
                "--dport 22",
                "-j MARK --set-xmark 0x1/0x1",
            ],
        );
        check(
            "-m physdev --physdev-is-bridged -m set ! --match-set x src -g y",
            &[
                "-m physdev",
                "--physdev-is-bridged",
                "-m set",
                "! --match-set x src",
                "-g y",
            ],
        );
        check(
            "-p ARP --arp-ip-src ! 10.1.1.1 -j DROP",
            &["-p ARP", "! --arp-ip-src 10.1.1.1", "-j DROP"],
        );
        check(
            "-m physdev --physdev-is-in ! --physdev-is-out",
            &["-m physdev", "--physdev-is-in", "! --physdev-is-out", ""],
        );
        check("", &[""]);
        check("! -j", &["-j"]);
    }

    #[test]
    fn a_comment_is_no_jump() {
        check(
            r#"-m comment --comment "say \"-j BF-x\"" -j ACCEPT"#,
            &["-m comment", r#"--comment say "-j BF-x""#, "-j ACCEPT"],
        );
        check(
            "-m comment --comment -j -j ACCEPT",
            &["-m comment", "--comment -j", "-j ACCEPT"],
        );
        check(
            r#"-m string --string "-j" --algo bm -j mine"#,
            &["-m string", "--string -j", "--algo bm", "-j mine"],
        );
        check(
            r#"-m comment --comment "x"#,
            &["-m comment", "--comment x", ""],
        );
    }

    #[test]
    fn tables_are_read_with_whatever_is_around_them() {
        let text = "# Generated by x\n# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n\
            # Table `mangle' is incompatible, use 'nft' tool.\n*filter\n:FORWARD ACCEPT [0:0]\n:mine - [0:0]\n\
            [3:180] -A FORWARD -i a -j mine\n-A other -j DROP\nnonsense\nCOMMIT\n*raw\nCOMMIT\n";
        let read = Tables::of_iptables(text);
        let names: Vec<&str> = read.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["filter", "raw"]);
        let filter = read.table("filter").expect("there");
        let chains: Vec<(&str, usize)> = filter.iter().map(|(n, r)| (*n, r.len())).collect();
        assert_eq!(chains, [("FORWARD", 1), ("mine", 0), ("other", 1)]);
        assert_eq!(filter["FORWARD"][0].leads_to(), Some("mine"));
        assert_eq!(
            (read.hidden, read.strange),
            (vec!["mangle"], vec!["nonsense"])
        );
        assert!(!read.is_cut);
    }

    #[test]
    fn a_dump_that_is_cut_says_so() {
        let whole = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -j DROP\nCOMMIT\n";
        assert!(!Tables::of_iptables(whole).is_cut);
        assert!(!Tables::of_iptables("").is_cut);
        for cut in 1..whole.len() {
            assert!(Tables::of_iptables(&whole[..cut]).is_cut, "{cut}");
        }
        assert!(!Tables::of_ebtables("*nat\n:x ACCEPT\n").is_cut);
        assert!(Tables::of_ebtables("*nat\n:x ACC").is_cut);
    }

    #[test]
    fn sets_come_in_any_order() {
        let text = "add a 10.1.1.1\ncreate a hash:ip family inet hashsize 1024\nadd a 10.1.1.2 timeout 3\n\
            create b hash:net family inet6\nadd\ncreate\n";
        let sets = sets(text);
        assert_eq!(sets["a"].members, ["10.1.1.1", "10.1.1.2"]);
        assert!(sets["a"].is("hash:ip", "inet") && !sets["a"].is("hash:ip", "inet6"));
        assert!(sets["b"].is("hash:net", "inet6") && sets["b"].members.is_empty());
        assert_eq!(sets.len(), 2);
    }
}

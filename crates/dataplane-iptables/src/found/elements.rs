//! The elements of ipsets, in one form whoever writes them.
//!
//! ipset prints names for protocols and leaves out the length of a whole address; what it counts is of no
//! interest here.

use super::protocols::Protocols;
use crate::parts::IpSet;
use model::Prefix;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Elements, with what is said of them: a comment, a mark.
pub(crate) type SetElements = BTreeMap<String, String>;

/// What `ipset save` prints, by set.
pub(crate) fn parse(saved: &str) -> BTreeMap<String, SetElements> {
    let protocols = Protocols::read();
    let mut sets: BTreeMap<String, SetElements> = BTreeMap::new();
    for line in saved.lines() {
        let Some((verb, rest)) = line.split_once(' ') else {
            continue;
        };
        let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        match verb {
            "create" if super::is_ours(name) => drop(sets.entry(name.to_owned()).or_default()),
            "add" if super::is_ours(name) => {
                let (element, said) = rest.split_once(' ').unwrap_or((rest, ""));
                let elements = sets.entry(name.to_owned()).or_default();
                elements.insert(canonical(element, &protocols), uncounted(said));
            }
            _ => {}
        }
    }
    sets
}

/// Our sets out of what `ipset save` prints, for `ipset restore`, as if nothing had been counted.
pub(crate) fn ours_uncounted(saved: &str) -> String {
    let mut ours = String::new();
    for line in saved.lines() {
        let mut words = line.splitn(3, ' ');
        if let (Some(verb), Some(name)) = (words.next(), words.next())
            && super::is_ours(name)
        {
            let rest = uncounted(words.next().unwrap_or_default());
            let _ = writeln!(ours, "{verb} {name} {rest}");
        }
    }
    ours
}

/// What a set of ours is to hold.
pub(crate) fn expected(set: &IpSet) -> SetElements {
    let elements = set.elements().into_iter();
    elements
        .map(|(element, said)| (element.to_string(), said.to_string()))
        .collect()
}

/// A rule's counters, by what is said of the element.
pub(crate) fn counts(saved: &str) -> impl Iterator<Item = (&str, u64, u64)> {
    saved.lines().filter_map(|line| {
        let mut words = line.split(' ').skip_while(|word| *word != "packets");
        let packets = words.nth(1)?.parse().ok()?;
        let bytes = words.nth(1)?.parse().ok()?;
        let comment = line.split_once(" comment \"")?.1;
        Some((comment.strip_suffix('"')?, packets, bytes))
    })
}

fn uncounted(said: &str) -> String {
    let mut words = said.split(' ').peekable();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "packets" | "bytes" => drop(words.next()),
            other => kept.push(other),
        }
    }
    kept.join(" ")
}

fn canonical(element: &str, protocols: &Protocols) -> String {
    let (net, behind) = element.split_once(',').unwrap_or((element, ""));
    let net = match net.parse::<Prefix>() {
        Ok(prefix) => prefix.to_string(),
        Err(_) => net.to_owned(),
    };
    if behind.is_empty() {
        return net;
    }
    let named = behind.split_once(':').and_then(|(name, l4_port)| {
        let number = protocols.number(name)?;
        Some(format!("{number}:{l4_port}"))
    });
    format!("{net},{}", named.unwrap_or_else(|| behind.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_the_same_however_they_are_written() {
        let saved = "\
create pc-1-in4-port hash:net,port family inet hashsize 64 maxelem 4194304 counters comment
add pc-1-in4-port 10.0.0.0/24,tcp:80 packets 7 bytes 99 comment \"web/http\"
add pc-1-in4-port 10.0.0.1,gre:0 packets 0 bytes 0 comment \"web/a b\"
create pc-to-4 hash:net,iface family inet hashsize 64 maxelem 4194304 skbinfo
add pc-to-4 10.0.0.1,br0 skbmark 0x1001001
create other hash:ip family inet
add other 10.0.0.1
";
        let pairs = |of: &[(&str, &str)]| -> SetElements {
            let each = of.iter();
            each.map(|(e, s)| ((*e).to_owned(), (*s).to_owned()))
                .collect()
        };
        let expected = BTreeMap::from([
            (
                "pc-1-in4-port".to_owned(),
                pairs(&[
                    ("10.0.0.0/24,6:80", "comment \"web/http\""),
                    ("10.0.0.1,47:0", "comment \"web/a b\""),
                ]),
            ),
            (
                "pc-to-4".to_owned(),
                pairs(&[("10.0.0.1,br0", "skbmark 0x1001001")]),
            ),
        ]);
        assert_eq!(parse(saved), expected);
        let uncounted = ours_uncounted(saved);
        assert_eq!(parse(&uncounted), expected);
        assert_eq!(counts(&uncounted).count(), 0);
        let counted: Vec<_> = counts(saved).collect();
        assert_eq!(counted, [("web/http", 7, 99), ("web/a b", 0, 0)]);
    }
}

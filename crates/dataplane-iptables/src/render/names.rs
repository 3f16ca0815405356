//! How what is ours is called. Sets have at most 31 characters, chains 28.
//!
//! Nothing that a user named gets into a name, and into a comment only what can't end it.

use model::{Direction, Family, RuleRef};
use std::hash::{DefaultHasher, Hash, Hasher};

pub(crate) fn digit(family: Family) -> char {
    match family {
        Family::V4 => '4',
        Family::V6 => '6',
    }
}

pub(crate) fn way(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "in",
        Direction::Egress => "out",
    }
}

/// Where a packet goes that a rule of a stateful group permits.
pub(crate) fn start(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "pc-in-start",
        Direction::Egress => "pc-out-start",
    }
}

pub(crate) fn profile_chain(direction: Direction, number: u16) -> String {
    format!("pc-{}-{number}", way(direction))
}

/// The root of the way to the profiles' chains.
pub(crate) fn dispatch(direction: Direction) -> String {
    format!("pc-{}-by", way(direction))
}

/// The rule's name; a digest of one that iptables or ipset might read as more than a name.
pub(crate) fn comment(rule: &RuleRef) -> String {
    let text = rule.to_string();
    let safe = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'.' | b'_' | b'-' | b':');
    if text.len() <= 200 && text.bytes().all(safe) {
        return text;
    }
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("rule:{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C12: what the tools would read as more than a name.
    #[test]
    fn a_hostile_name_reaches_no_tool() {
        let of = |group: &str, rule: &str| {
            comment(&RuleRef {
                group: group.into(),
                rule: rule.into(),
            })
        };
        assert_eq!(of("web", "http.80.v4"), "web/http.80.v4");
        for name in [
            "a\" -j ACCEPT",
            "a\nCOMMIT",
            "# a",
            "a b",
            "a\\",
            "ä",
            "",
            &"a".repeat(300),
        ] {
            let said = of("web", name);
            let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b':' | b'/');
            assert!(said.len() < 30 && said.bytes().all(plain), "{name}: {said}");
        }
        assert_ne!(of("web", "a b"), of("web", "a c"));
    }
}

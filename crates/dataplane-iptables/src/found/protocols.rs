//! Protocols by the names that iptables and ipset print: the C library's, and a few of their own.

use std::collections::HashMap;

pub(crate) struct Protocols(HashMap<String, u8>);

impl Protocols {
    pub(crate) fn read() -> Self {
        Self::parse(&std::fs::read_to_string("/etc/protocols").unwrap_or_default())
    }

    /// A host without the file has few names.
    fn parse(text: &str) -> Self {
        const OWN: [(&str, u8); 9] = [
            ("icmp", 1),
            ("tcp", 6),
            ("udp", 17),
            ("esp", 50),
            ("ah", 51),
            ("icmpv6", 58),
            ("ipv6-icmp", 58),
            ("sctp", 132),
            ("udplite", 136),
        ];
        let line = |line: &str| {
            let mut words = line.split_whitespace();
            let name = words.next().filter(|name| !name.starts_with('#'))?;
            Some((name.to_owned(), words.next()?.parse().ok()?))
        };
        let own = OWN
            .iter()
            .map(|(name, number)| ((*name).to_owned(), *number));
        Self(own.chain(text.lines().filter_map(line)).collect())
    }

    pub(crate) fn number(&self, name: &str) -> Option<u8> {
        name.parse().ok().or_else(|| self.0.get(name).copied())
    }

    /// A rule of iptables with its protocol as a number.
    pub(crate) fn in_numbers(&self, rule: &str) -> String {
        let mut words = Vec::new();
        for word in rule.split(' ') {
            let number = match words.last().map(String::as_str) {
                Some("-p") => self.number(word),
                _ => None,
            };
            words.push(number.map_or_else(|| word.to_owned(), |n| n.to_string()));
        }
        words.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbers() {
        let protocols = Protocols::parse("# all\ndccp 33 DCCP # more\nip\t0\tIP\n");
        let check = |rule: &str, expected: &str| assert_eq!(protocols.in_numbers(rule), expected);
        check("-p dccp -g pc-pass", "-p 33 -g pc-pass");
        check(
            "-m mark -p tcp -m tcp --dport 7",
            "-m mark -p 6 -m tcp --dport 7",
        );
        check("-p 200 -j ACCEPT", "-p 200 -j ACCEPT");
        check("-j ACCEPT", "-j ACCEPT");
    }
}

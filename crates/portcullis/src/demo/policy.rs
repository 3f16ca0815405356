//! The policy file of the demo, and how it is edited: by lines, as people do.

/// Also `examples/demo.yaml`.
pub(crate) const POLICY: &str = include_str!("../../../../examples/demo.yaml");

const FROM_WEB: &str = "      - { name: from-web, from: web, protocol: tcp, ports: 8080 }\n";
const HTTPS: &str = "      - { name: https, from: any, protocol: tcp, ports: 443 }\n";
const ERRORS: &str = "\
\x20     - { name: unreachable, from: any, protocol: icmp destination-unreachable }
      - { name: too-big, from: any, protocol: icmp packet-too-big }
      - { name: exceeded, from: any, protocol: icmp time-exceeded }
      - { name: bad-header, from: any, protocol: icmp parameter-problem }
";
const WEB2_GROUPS: &str = "[10.0.0.12, fd00:d::12], groups: [web, managed]";
const WEB2_IN_APP: &str = "[10.0.0.12, fd00:d::12], groups: [web, managed, app]";

/// Nobody may reach the app tier's 8080 any more.
pub(crate) fn without_from_web() -> String {
    edit(FROM_WEB, "")
}

/// ICMP errors come in to the web tier by rules, whatever they are about.
pub(crate) fn errors_to_web() -> String {
    edit(HTTPS, &format!("{HTTPS}{ERRORS}"))
}

/// web2 is of the app tier as well.
pub(crate) fn web2_in_app() -> String {
    edit(WEB2_GROUPS, WEB2_IN_APP)
}

fn edit(line: &str, instead: &str) -> String {
    assert_eq!(POLICY.matches(line).count(), 1, "the policy has: {line}");
    POLICY.replace(line, instead)
}

use super::*;
use crate::{Answer, OracleJudge};
use model::Capabilities;

const HEAD: &str = "
base: |
  version: 1
  networks: { lan: { subnets: [10.0.0.0/24] } }
  ports: { a: { mac: 52:54:00:00:00:0a, addresses: 10.0.0.10, groups: g } }
policies:
  main: |
    groups: { g: { rules: [{ name: out, to: any }] } }
scenarios:
";

fn file(steps: &str) -> String {
    let steps: String = steps
        .lines()
        .map(|line| format!("      {}\n", line.trim()))
        .collect();
    format!("{HEAD}  - name: one\n    says: it\n    steps: |\n{steps}")
}

fn check_bad(text: &str, line: usize, what: &str) {
    let bad = parse(text, "x.yaml").expect_err(text);
    assert_eq!(bad.line, line, "{bad}");
    assert!(bad.what.contains(what), "{bad}");
}

fn judged(steps: &str, judge: &mut dyn Subject) -> Result<Ran, Box<Failure>> {
    let scenarios = parse(&file(steps), "x.yaml").unwrap_or_else(|bad| panic!("{bad}"));
    run(&scenarios[0], judge)
}

fn oracle() -> OracleJudge {
    OracleJudge::new(here(), Capabilities::ALL)
}

#[test]
fn a_scenario_says_what_it_does() {
    let ran = judged(
        "from a: udp 10.0.0.10:1 -> 192.0.2.1:2 => pass rule g/out.v4 # a comment
         # another
         to a: udp 192.0.2.1:2 -> 10.0.0.10:1 => pass live
         repeat 3 to a: udp 192.0.2.1:{n} -> 10.0.0.10:9 => drop no-rule
         wait 211s
         to a: udp 192.0.2.1:2 -> 10.0.0.10:1 => drop
         unplug a
         from a: rarp => drop not-ready",
        &mut oracle(),
    );
    assert_eq!(ran.map(|ran| ran.packets), Ok(7));
}

#[test]
fn a_step_that_goes_otherwise_fails_by_line_and_reason() {
    let steps = "from a: udp 10.0.0.10:1 -> 192.0.2.1:2 => pass
                 from a: udp 10.0.0.10:1 -> 192.0.2.1:2 => pass live";
    let failure = judged(steps, &mut oracle()).expect_err("it passes by a rule");
    assert_eq!(failure.place, "x.yaml:14");
    assert!(failure.seen.contains("Rule"), "{failure}");
    for wrong in [
        "pass",
        "pass fragment",
        "drop spoofed-mac",
        "pass rule g/out.v4",
    ] {
        let steps = format!("from a: udp 10.0.0.11:1 -> 192.0.2.1:2 => {wrong}");
        judged(&steps, &mut oracle()).expect_err(wrong);
    }
}

#[test]
fn a_verdict_that_the_contract_leaves_open_has_no_place_in_a_scenario() {
    let steps = "from a: udp 10.0.0.10:1 -> 192.0.2.1:2 => pass
                 wait 40s
                 to a: udp 192.0.2.1:2 -> 10.0.0.10:1 => drop";
    let failure = judged(steps, &mut oracle()).expect_err("around the timeout");
    assert!(failure.seen.contains("left open"), "{failure}");
}

#[test]
fn a_change_that_changes_nothing_fails() {
    for step in ["forget h", "unplug b", "remove g/none", "join b g"] {
        judged(step, &mut oracle()).expect_err(step);
    }
}

#[test]
fn what_could_not_be_shown_is_counted() {
    struct Blind;
    impl Subject for Blind {
        fn name(&self) -> String {
            "blind".to_owned()
        }
        fn reset(&mut self) {}
        fn apply(&mut self, _: &Inventory) {}
        fn advance(&mut self, _: Duration) {}
        fn send(&mut self, _: &PortId, _: Direction, _: &[u8]) -> Seen {
            Seen::Unshown("it sees nothing")
        }
        fn trace(&self) -> Vec<String> {
            Vec::new()
        }
    }
    let scenarios = parse(&file("repeat 2 from a: rarp => pass"), "x.yaml").expect("a scenario");
    let ran = run(&scenarios[0], &mut Blind).expect("nothing was shown");
    assert_eq!(ran.unshown, [("it sees nothing", 2)].into());
}

#[test]
fn reasons_are_compared_as_far_as_they_are_told() {
    let rule = |name: &str| RuleRef {
        group: "g".into(),
        rule: name.into(),
    };
    let pass = |reason| Answer::from(Verdict::Pass(reason)).verdict;
    let seen = pass(PassReason::Rule(rule("a")));
    assert!(Outcome::Pass(None).allows(&seen));
    assert!(Outcome::Pass(Some(Why::Rule(None))).allows(&seen));
    assert!(Outcome::Pass(Some(Why::Rule(Some(rule("a"))))).allows(&seen));
    assert!(!Outcome::Pass(Some(Why::Rule(Some(rule("b"))))).allows(&seen));
    assert!(!Outcome::Pass(Some(Why::Live(None))).allows(&seen));
    assert!(!Outcome::Drop(None).allows(&seen));
}

#[test]
fn mistakes_in_a_file_are_named_with_their_line() {
    check_bad(&file("form a: rarp => pass"), 13, "no such step");
    check_bad(&file("from a: rarp"), 13, "=> OUTCOME");
    check_bad(
        &file("\nfrom a: rarp => drop nothing"),
        14,
        "no drop reason",
    );
    check_bad(&file("from a: rarp => pass by luck"), 13, "no such outcome");
    check_bad(&file("from a: tcp 10.0.0.1 => pass"), 13, "`->`");
    check_bad(&file("wait 5"), 13, "31s");
    check_bad(&file("policy other"), 13, "no policy `other`");
    check_bad("scenarios: []", 1, "`policies` is missing");
    check_bad(
        "policies: {}\nscenarios: []\nmore: 1",
        3,
        "unknown field `more`",
    );
    check_bad(
        "policies:\n  main: |\n    nonsense\nscenarios: []",
        3,
        "a policy file is a map",
    );
}

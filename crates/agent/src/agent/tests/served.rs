//! Policy from a server.

use super::*;

pub(super) fn at(commit: u64) -> Revision {
    Revision { epoch: 7, commit }
}

pub(super) fn replaced(commit: u64, text: &str) -> Event {
    let mut inventory = policy(text).inventory;
    inventory.revision = at(commit);
    Event::InventoryReplaced(inventory)
}

/// Ports that are like this now: `web:tap1`; and one that goes: `-web:`.
pub(super) fn changed(commit: u64, text: &str) -> Event {
    let (gone, come): (Vec<&str>, Vec<&str>) =
        text.split_whitespace().partition(|w| w.starts_with('-'));
    let come = policy(&come.join(" ")).inventory.ports;
    let gone = gone
        .iter()
        .map(|word| (PortId::new(word[1..].trim_end_matches(':')), None));
    Event::InventoryChanged(InventoryChange {
        revision: at(commit),
        ports: come
            .into_iter()
            .map(|(id, port)| (id, Some(port)))
            .chain(gone)
            .collect(),
        ..InventoryChange::default()
    })
}

fn unreached() -> Event {
    Event::ServerUnreached("no route".to_owned())
}

fn save() -> Event {
    Event::TimerFired(Timer::Save)
}

/// The cache gets the revision and the ports' names.
fn encoding() -> Config {
    let encode = |inventory: &Inventory| {
        let ports: Vec<&str> = inventory.ports.keys().map(PortId::as_str).collect();
        format!("{} {}", inventory.revision, ports.join(" ")).into_bytes()
    };
    Config {
        encode: Some(Encode::new(encode)),
        ..config()
    }
}

#[test]
fn nothing_is_changed_before_the_server_has_said_all() {
    check(
        &["apply"],
        vec![
            (listed(&[(7, "tap1")]), &[]),
            (changed(3, "web:tap1"), &[]),
            (replaced(4, "db:tap1"), &["apply 7.4 [db=tap1@7] closed []"]),
        ],
    );
    check(
        &["apply"],
        vec![
            (replaced(4, "db:tap1"), &[]),
            (changed(5, "web:tap2"), &[]),
            (
                listed(&[(7, "tap1"), (8, "tap2")]),
                &["apply 7.5 [db=tap1@7 web=tap2@8] closed []"],
            ),
        ],
    );
}

#[test]
fn what_comes_during_an_apply_is_one_more() {
    let taps = [(7, "tap1"), (8, "tap2"), (9, "tap3")];
    let agent = check(
        &["apply"],
        vec![
            (listed(&taps), &[]),
            (
                replaced(1, "web:tap1"),
                &["apply 7.1 [web=tap1@7] closed []"],
            ),
            (changed(2, "db:tap2"), &[]),
            (changed(3, "app:tap3 -web:"), &[]),
            (
                applied(),
                &["apply 7.3 [app=tap3@9 db=tap2@8] closed [tap1]"],
            ),
            // What a server says anew makes what came before it nothing.
            (changed(4, "web:tap1"), &[]),
            (replaced(5, "db:tap2 app:tap3"), &[]),
            (changed(6, "-app:"), &[]),
            (applied(), &["apply 7.6 [db=tap2@8] closed [tap1 tap3]"]),
            (changed(8, "web:tap1"), &[]),
        ],
    );
    let snapshot = agent.snapshot(MS);
    assert_eq!(snapshot.source, Some(Source::Server));
    assert_eq!(
        (snapshot.read, snapshot.applied),
        (Some(at(8)), Some(at(3)))
    );
}

#[test]
fn what_concerns_other_hosts_is_not_applied() {
    check(
        &["apply", "say NothingToApply"],
        vec![
            (listed(&[(7, "tap1")]), &[]),
            (
                replaced(1, "web:tap1"),
                &["apply 7.1 [web=tap1@7] closed []"],
            ),
            (applied(), &[]),
            (changed(2, ""), &["say NothingToApply"]),
            (changed(3, "-nobody:"), &["say NothingToApply"]),
            (replaced(4, "web:tap1"), &["say NothingToApply"]),
        ],
    );
}

#[test]
fn the_cache_is_written_some_time_after_the_first_change() {
    check_config(
        encoding(),
        &["timer Save", "save"],
        vec![
            (listed(&[(7, "tap1")]), &[]),
            (replaced(1, "web:tap1"), &[]),
            (applied(), &["timer Save 5000"]),
            (changed(2, "db:tap2"), &[]),
            (applied(), &[]),
            (save(), &["save 7.2"]),
            (changed(3, ""), &["timer Save 5000"]),
            (save(), &["save 7.3"]),
        ],
    );
}

#[test]
fn the_cache_gets_what_is_in_force_and_not_what_waits() {
    let mut agent = check_config(
        encoding(),
        &["timer Save", "save"],
        vec![
            (listed(&[(7, "tap1")]), &[]),
            (replaced(1, "web:tap1"), &[]),
            (applied(), &["timer Save 5000"]),
            (changed(2, "db:tap2"), &[]),
            (changed(3, "app:tap3"), &[]),
            (save(), &[]),
        ],
    );
    let effects = agent.step(MS, applied());
    let saved: Vec<&[u8]> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::SaveCache { text, .. } => Some(&**text),
            _ => None,
        })
        .collect();
    assert_eq!(saved, [b"7.2 db web"]);
}

#[test]
fn what_the_cache_lacks_is_written_at_the_end() {
    check_config(
        encoding(),
        &["save", "exit"],
        vec![
            (listed(&[]), &[]),
            (replaced(1, "web:tap1"), &[]),
            (applied(), &[]),
            (Event::StopAsked, &["save 7.1", "exit Stopped"]),
        ],
    );
    check_config(
        encoding(),
        &["save", "exit"],
        vec![
            (listed(&[]), &[]),
            (replaced(1, "web:tap1"), &[]),
            (applied(), &[]),
            (save(), &["save 7.1"]),
            (Event::StopAsked, &["exit Stopped"]),
        ],
    );
    // Whether it is in force isn't known.
    check_config(
        encoding(),
        &["save", "exit"],
        vec![
            (listed(&[]), &[]),
            (replaced(1, "web:tap1"), &[]),
            (applied(), &[]),
            (changed(2, "db:tap2"), &[]),
            (Event::StopAsked, &["exit Stopped"]),
        ],
    );
}

#[test]
fn without_a_server_the_cached_policy_is_enforced_until_there_is_one() {
    let agent = check_config(
        encoding(),
        &[
            "apply",
            "say EnforcingCached",
            "say ServerUnreached",
            "exit",
            "timer Save",
        ],
        vec![
            (cached("web:tap1"), &[]),
            (listed(&[(7, "tap1")]), &[]),
            (
                unreached(),
                &[
                    "say ServerUnreached",
                    "say EnforcingCached",
                    "apply 0.41 [web=tap1@7] closed []",
                ],
            ),
            (applied(), &[]),
            (unreached(), &[]),
            (replaced(3, "db:tap1"), &["apply 7.3 [db=tap1@7] closed []"]),
            (applied(), &["timer Save 5000"]),
            (unreached(), &["say ServerUnreached"]),
        ],
    );
    assert_eq!(agent.snapshot(MS).policy_errors, ["no route"]);
    // And without one there is nothing to do but wait.
    check(
        &["apply", "say EnforcingCached", "exit"],
        vec![
            (listed(&[(7, "tap1")]), &[]),
            (unreached(), &[]),
            (replaced(3, "db:tap1"), &["apply 7.3 [db=tap1@7] closed []"]),
        ],
    );
}

#[test]
fn findings_of_changes_are_known_when_asked_for_and_told_later() {
    let agent = check_config(
        encoding(),
        &["say PolicyCompiled", "say NewFindings"],
        vec![
            (listed(&[]), &[]),
            (replaced(1, "web:tap1"), &["say PolicyCompiled"]),
            (applied(), &[]),
            (changed(2, "db:tap1"), &[]),
            (applied(), &[]),
            (save(), &["say NewFindings"]),
            (changed(3, ""), &[]),
            (save(), &[]),
        ],
    );
    let findings = agent.snapshot(MS).findings;
    assert!(
        findings.iter().any(|f| f.contains("both name device tap1")),
        "{findings:?}"
    );
}

use super::*;
use crate::testing::{Servers, admin, port};
use model::{GroupId, ProjectId};
use store::{KeyPrefix, Store};

const HERE: &str = "here";
const THERE: &str = "there";

/// Servers of these runs are there: `one` as the first, `other` as the second.
async fn servers() -> Servers {
    let servers = Servers::open().await;
    for run in [HERE, THERE] {
        let name = format!("{run}:9696");
        let run = run.to_owned();
        servers.put(&Running { run, name }).await;
    }
    servers
}

async fn put_port(servers: &Servers, id: &str, host: &str) -> u64 {
    let mut port = port(id, &ProjectId::from("p"), &[] as &[GroupId]);
    let binding = crate::objects::Binding {
        host: HostId::from(host),
        device: None,
        moving: None,
        profile: BTreeMap::new(),
        vnic_type: "normal".into(),
    };
    port.binding = Some(binding.into());
    servers.put(&port).await;
    servers.one.state().ports[id].modified
}

fn connection(started_ms: u64, turn: u64) -> Connection {
    Connection {
        started_ms,
        number: 7,
        turn,
    }
}

/// All of the host's ports, as of this commit.
fn heard(connection: Connection, applied: u64) -> Heard {
    let applied = Revision {
        epoch: 1,
        commit: applied,
    };
    Heard {
        host: HostId::from("h"),
        connection,
        is_connected: true,
        software: "test".to_owned(),
        report: Some(Reported {
            applied,
            not_enforced: BTreeMap::new(),
        }),
    }
}

fn lacking(mut heard: Heard, port: &str, lack: Lack) -> Heard {
    let why = "so".to_owned();
    let report = heard.report.as_mut().expect("it has one");
    let not = NotEnforced { lack, why };
    report.not_enforced.insert(PortId::from(port), not);
    heard
}

/// And both servers have seen it.
async fn tell(servers: &Servers, run: &str, heard: &Heard) {
    let control = match run {
        HERE => &servers.one,
        _ => &servers.other,
    };
    let told = control.tell(run, std::slice::from_ref(heard)).await;
    assert_eq!(told.expect("memory answers"), 1);
    servers.settle().await;
}

fn told(servers: &Servers) -> Told {
    let state = servers.other.state();
    let told = state.told_by(&HostId::from("h"));
    told.expect("it has told").clone()
}

#[tokio::test]
async fn a_record_changes_when_what_it_says_of_a_port_does() {
    let servers = servers().await;
    let first = put_port(&servers, "o1", "h").await;
    let commits = || servers.one.state().revision.commit;
    let check = async |what: &str, heard: &Heard, writes: u64, enforced: u64| {
        let before = commits();
        tell(&servers, HERE, heard).await;
        assert_eq!(commits() - before, writes, "{what}");
        assert_eq!(told(&servers).enforced, enforced, "{what}");
    };
    let at = |commit| heard(connection(1, 1), commit);
    let silent = Heard {
        report: None,
        ..at(0)
    };
    check("it follows", &silent, 1, 0).await;
    check("not as far as the port", &at(first - 1), 0, 0).await;
    check("as far", &at(first), 1, first).await;
    check("further", &at(first + 5), 0, first).await;
    put_port(&servers, "o2", "elsewhere").await;
    check("another host's port", &at(commits()), 0, first).await;
    let second = put_port(&servers, "o2", "h").await;
    check("before it came", &at(second - 1), 0, first).await;
    let refused = lacking(at(second), "o2", Lack::Refused);
    check("refused", &refused, 1, second).await;
    check("no news", &refused, 0, second).await;
    let strange = lacking(refused.clone(), "o9", Lack::Absent);
    check("a port that isn't the host's", &strange, 0, second).await;
    check("enforced", &at(second), 1, second).await;
    // An agent that begins with what it kept is where it was, and not where it has been.
    let earlier = Heard {
        connection: connection(2, 1),
        ..at(first)
    };
    check("an earlier policy", &earlier, 1, first).await;
    let gone = Heard {
        is_connected: false,
        ..earlier
    };
    check("gone, and enforcing", &gone, 1, first).await;
    assert_eq!(told(&servers).server, None);
    let copy = servers.one.state();
    assert!(copy.policy_revision < copy.revision);
    assert_eq!(copy.policy_revision.commit, second);
}

#[tokio::test]
async fn c9_what_an_earlier_connection_says_is_not_written_for_a_later_one() {
    let servers = servers().await;
    let commit = put_port(&servers, "o1", "h").await;
    let later = heard(connection(2, 1), commit);
    tell(&servers, HERE, &later).await;
    let check = async |what: &str, run: &str, heard: &Heard, expected: &str| {
        tell(&servers, run, heard).await;
        let told = told(&servers);
        let (server, turn) = (told.server.unwrap_or_default(), told.connection.turn);
        assert_eq!(format!("{server} {turn}"), expected, "{what}");
    };
    let earlier = heard(connection(1, 9), commit);
    check("an earlier run", THERE, &earlier, "here 1").await;
    let over = heard(connection(2, 2), commit);
    check("it has gone over", THERE, &over, "there 2").await;
    check("not heard of it yet", HERE, &later, "there 2").await;
    let gone = Heard {
        is_connected: false,
        ..later.clone()
    };
    check("heard of the end alone", HERE, &gone, "there 2").await;
    // That server is no more: whom it followed is nobody's.
    let key = servers.one.state().servers[THERE].key();
    servers.write(Transaction::new().delete(key)).await;
    assert_eq!(servers.one.state().followed(&HostId::from("h")), None);
    check("the earlier run is all there is", HERE, &earlier, "here 9").await;
}

/// Neither has seen what the other does.
#[tokio::test]
async fn c9_of_two_servers_that_write_at_once_the_later_connection_is_told() {
    for turn in 0..20 {
        let servers = servers().await;
        let commit = put_port(&servers, "o1", "h").await;
        let (earlier, later) = (connection(1, turn), connection(2, 0));
        let (earlier, later) = (heard(earlier, commit), heard(later, commit));
        let [one, other] = match turn % 2 {
            0 => [&earlier, &later],
            _ => [&later, &earlier],
        }
        .map(std::slice::from_ref);
        let told_at_once = tokio::join!(
            servers.one.tell(HERE, one),
            servers.other.tell(THERE, other)
        );
        assert!(matches!(told_at_once, (Ok(1), Ok(1))), "{told_at_once:?}");
        servers.settle().await;
        assert_eq!(told(&servers).connection, later.connection);
    }
}

#[tokio::test]
async fn what_was_told_before_a_restore_says_nothing() {
    let servers = servers().await;
    let commit = put_port(&servers, "o1", "h").await;
    tell(&servers, HERE, &heard(connection(2, 1), commit)).await;
    let mut restored = servers.listed().await;
    restored.revision.epoch += 1;
    let host = HostId::from("h");
    assert_eq!(restored.told_by(&host), None);
    assert_eq!(restored.follows_elsewhere(&host, THERE), None);
    // What a host reports by the old commits neither; it isn't fenced by its former self.
    let stale = heard(connection(1, 1), commit);
    let decided = super::tell(&restored, THERE, std::slice::from_ref(&stale));
    let write = decided.transaction.writes().values().next();
    let Some(store::Write::Put(value)) = write else {
        panic!("{write:?}");
    };
    let text = String::from_utf8_lossy(value);
    assert!(text.contains(r#""epoch":2,"enforced":0}"#), "{text}");
}

#[tokio::test]
async fn more_than_a_record_holds_is_not_enforced() {
    let servers = servers().await;
    let mut last = 0;
    let mut much = heard(connection(1, 1), u64::MAX >> 1);
    for n in 0..300 {
        let id = format!("o{n}");
        last = put_port(&servers, &id, "h").await;
        much = lacking(much, &id, Lack::Refused);
    }
    let report = much.report.as_mut().expect("it has one");
    report.applied.commit = last;
    for not in report.not_enforced.values_mut() {
        not.why = "x".repeat(500);
    }
    tell(&servers, HERE, &much).await;
    let told = told(&servers);
    assert_eq!((told.enforced, told.not_enforced.len()), (0, 0));
}

#[tokio::test]
async fn many_hosts_are_told_of_in_few_commits() {
    let servers = servers().await;
    let before = servers.one.state().revision.commit;
    let many: Vec<Heard> = (0..1_000)
        .map(|n| Heard {
            host: HostId::new(format!("h{n}")),
            ..heard(connection(1, 1), 1)
        })
        .collect();
    let mut rest = &many[..];
    while !rest.is_empty() {
        let done = servers.one.tell(HERE, rest).await.expect("memory answers");
        rest = &rest[done..];
    }
    let state = servers.one.state();
    assert_eq!(state.told.len(), many.len());
    assert_eq!(state.revision.commit - before, 10);
}

#[tokio::test]
async fn a_host_that_is_deleted_has_told_nothing() {
    let servers = servers().await;
    tell(&servers, HERE, &heard(connection(1, 1), 1)).await;
    let deleted = servers.one.delete_host(&admin(), "h").await;
    deleted.expect("only what it has told is there");
    let listing = servers.store.list(&KeyPrefix::all()).await;
    let listing = listing.expect("memory answers");
    let of_host = listing.records.iter().map(|record| record.key.as_str());
    assert_eq!(of_host.filter(|key| key.ends_with("/h")).count(), 0);
}

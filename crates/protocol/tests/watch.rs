//! Agents follow servers, over real connections with real certificates.

mod support;

use distribution::Distribution;
use model::{HostId, Inventory, PortId, Revision};
use protocol::ca::{self, CaError};
use protocol::{
    Credentials, Elsewhere, Event, Feed, Followed, Lag, Limits, PortReport, PortState, Report,
    digest,
};
use std::collections::BTreeMap;
use std::time::Duration;
use support::random::{Dice, change, inventory};
use support::{Agent, Node, Pki, Proxy, Treatment, day, in_time, limits, past, until};

/// A random inventory with something for `h1` in it.
fn some_inventory(seed: u64) -> Inventory {
    let mut made = inventory(&mut Dice(seed));
    let mut port = support::random::port(&mut Dice(seed), "own");
    port.host = Some("h1".into());
    port.network = "n1".into();
    made.ports.insert("own".into(), port);
    let network = support::random::network(&mut Dice(seed), "n1");
    made.networks.insert("n1".into(), network);
    made
}

fn part(whole: &Inventory, host: &str) -> Inventory {
    let mut distribution = Distribution::default();
    distribution.replace(whole.clone());
    distribution.subscribe(&HostId::from(host))
}

/// The store, as far as servers hear of it.
struct Store {
    dice: Dice,
    whole: Inventory,
}

impl Store {
    fn new(seed: u64) -> Self {
        Self {
            dice: Dice(seed),
            whole: some_inventory(seed),
        }
    }

    async fn open(&self, node: &Node) {
        node.watchers.feed(Feed::Replaced(self.whole.clone())).await;
    }

    async fn change(&mut self, nodes: &[&Node]) {
        let change = change(&mut self.dice, &self.whole);
        self.whole.change(change.clone());
        for node in nodes {
            node.watchers.feed(Feed::Changed(change.clone())).await;
        }
    }

    /// One that `h1` hears of.
    async fn change_own(&mut self, nodes: &[&Node]) {
        let mut change = model::InventoryChange {
            revision: self.whole.revision,
            ..Default::default()
        };
        change.revision.commit += 1;
        let mut port = self.whole.ports["own"].clone();
        port.dhcp_server = !port.dhcp_server;
        change.ports.insert("own".into(), Some(port));
        self.whole.change(change.clone());
        for node in nodes {
            node.watchers.feed(Feed::Changed(change.clone())).await;
        }
    }

    /// The agent has what `h1` needs, at the newest revision.
    async fn check(&self, agent: &mut Agent) {
        agent.until_at(self.whole.revision).await;
        assert_eq!(agent.policy, Some(part(&self.whole, "h1")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o6_hosts_get_their_parts_and_what_changes() {
    let pki = Pki::new();
    for seed in 0..6 {
        let mut store = Store::new(seed);
        let node = Node::start(&pki).await;
        store.open(&node).await;
        let mut agents = ["h1", "h2", "h9"].map(|host| {
            let agent = Agent::start(&node.address, host, pki.host(host));
            (host, agent)
        });
        for _ in 0..60 {
            store.change(&[&node]).await;
        }
        for (host, agent) in &mut agents {
            agent.until_at(store.whole.revision).await;
            assert_eq!(
                agent.policy,
                Some(part(&store.whole, host)),
                "{host}, seed {seed}"
            );
            assert_eq!(agent.replaced(), 1, "{host}, seed {seed}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o5_who_has_its_part_goes_on_with_it() {
    let pki = Pki::new();
    let mut store = Store::new(1);
    let node = Node::start(&pki).await;
    store.open(&node).await;
    let mut agent = Agent::start(&node.address, "h1", pki.host("h1"));
    store.check(&mut agent).await;
    let kept = agent.policy.clone().expect("it was checked");
    drop(agent);
    // Nothing that concerns it has happened, whatever the revision.
    store.whole.revision.commit += 5;
    store.open(&node).await;
    let again = |kept| {
        let servers = [node.address.as_str()];
        Agent::with(&servers, "h1", pki.host("h1"), 2, Some(kept))
    };
    let mut agent = again(kept.clone());
    store.check(&mut agent).await;
    assert_eq!((agent.connected(), agent.replaced()), (1, 0));
    store.change_own(&[&node]).await;
    store.check(&mut agent).await;
    assert_eq!(agent.replaced(), 0);
    drop(agent);
    // What it has isn't what it needs: by its content, even if the revision were the same.
    let mut agent = again(kept.clone());
    store.check(&mut agent).await;
    assert_eq!(agent.replaced(), 1);
    drop(agent);
    let mut wrong = kept;
    wrong.revision = store.whole.revision;
    let mut agent = again(wrong);
    agent
        .until("the whole part", |agent| agent.replaced() == 1)
        .await;
    store.check(&mut agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o5_a_server_without_policy_tells_none() {
    let pki = Pki::new();
    let store = Store::new(2);
    let node = Node::start(&pki).await;
    let kept = part(&store.whole, "h1");
    let servers = [node.address.as_str()];
    let mut agent = Agent::with(&servers, "h1", pki.host("h1"), 1, Some(kept));
    agent.until_disconnected("no policy yet").await;
    assert_eq!((agent.replaced(), agent.connected()), (0, 0));
    store.open(&node).await;
    store.check(&mut agent).await;
    assert_eq!(agent.replaced(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_has_a_later_store_s_policy_is_told_what_to_do() {
    let pki = Pki::new();
    let store = Store::new(2);
    let node = Node::start(&pki).await;
    store.open(&node).await;
    let mut kept = part(&store.whole, "h1");
    kept.revision.epoch += 1;
    let servers = [node.address.as_str()];
    let mut agent = Agent::with(&servers, "h1", pki.host("h1"), 1, Some(kept));
    agent
        .until_disconnected("make a backup of it and restore that")
        .await;
    assert_eq!(agent.replaced(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn o6_revisions_do_not_go_back() {
    let pki = Pki::new();
    let mut store = Store::new(3);
    let [ahead, behind] = [Node::start(&pki).await, Node::start(&pki).await];
    store.open(&ahead).await;
    store.open(&behind).await;
    store.change_own(&[&ahead]).await;
    let mut agent = Agent::start(&ahead.address, "h1", pki.host("h1"));
    store.check(&mut agent).await;
    let kept = agent.policy.clone();
    drop(agent);
    let servers = [behind.address.as_str()];
    let mut agent = Agent::with(&servers, "h1", pki.host("h1"), 2, kept);
    agent.until_disconnected("If it stays so").await;
    assert_eq!(agent.replaced(), 0);
    store.open(&behind).await;
    store.check(&mut agent).await;
    // What came before is left out, whether a change or all of it.
    let mut old = store.whole.clone();
    old.revision.commit -= 1;
    old.ports.clear();
    behind.watchers.feed(Feed::Replaced(old)).await;
    store.change_own(&[&behind]).await;
    store.check(&mut agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o6_a_new_epoch_is_said_and_told_as_a_whole() {
    let pki = Pki::new();
    let mut store = Store::new(4);
    let node = Node::start(&pki).await;
    store.open(&node).await;
    let mut agent = Agent::start(&node.address, "h1", pki.host("h1"));
    store.check(&mut agent).await;
    let from = store.whole.revision;
    store.whole.revision = Revision {
        epoch: from.epoch + 1,
        commit: 1,
    };
    let to = store.whole.revision;
    store.open(&node).await;
    store.check(&mut agent).await;
    let [
        ..,
        Event::NewEpoch { from: old, to: new },
        Event::Replaced(_),
    ] = &agent.events[..]
    else {
        panic!("{:?}", agent.events.last());
    };
    assert_eq!((*old, *new), (from, to));
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_of_two_agents_with_one_name_the_later_follows() {
    let pki = Pki::new();
    let mut store = Store::new(5);
    let node = Node::start(&pki).await;
    store.open(&node).await;
    let servers = [node.address.as_str()];
    let start = |started_ms| Agent::with(&servers, "h1", pki.host("h1"), started_ms, None);
    let mut older = start(1_000);
    store.check(&mut older).await;
    let mut later = start(2_000);
    store.check(&mut later).await;
    let (followed, _) = older.end().await;
    assert!(matches!(followed, Followed::Fenced { .. }), "{followed:?}");
    // One that comes late is turned away, and has learned nothing.
    let (followed, events) = start(1_500).end().await;
    assert!(matches!(followed, Followed::Fenced { .. }), "{followed:?}");
    assert!(events.is_empty(), "{events:?}");
    store.change_own(&[&node]).await;
    store.check(&mut later).await;
    assert!(later.is_following());
    assert_eq!(later.connected(), 1);
    let status = node.watchers.host(&"h1".into()).expect("it follows");
    assert_eq!((status.fenced, status.is_connected), (2, true));
    assert_eq!(status.instance.started_ms, 2_000);
}

/// The same agent on a second connection isn't another agent.
#[tokio::test(flavor = "multi_thread")]
async fn c9_an_agent_that_comes_again_is_not_fenced() {
    let pki = Pki::new();
    let store = Store::new(6);
    let node = Node::start(&pki).await;
    store.open(&node).await;
    let proxy = Proxy::start(&node.address, &[]).await;
    let servers = [proxy.address.as_str(), node.address.as_str()];
    let mut agent = Agent::with(&servers, "h1", pki.host("h1"), 1, None);
    store.check(&mut agent).await;
    // The server doesn't know yet that the first connection is dead.
    proxy.silence();
    agent
        .until("another connection", |agent| agent.connected() == 2)
        .await;
    let status = node.watchers.host(&"h1".into()).expect("it follows");
    assert_eq!(status.fenced, 0);
}

/// What a store between them would do: each server hears of who follows the other.
fn introduce(nodes: [&Node; 2]) {
    let [one, other] = nodes.map(|node| node.watchers.clone());
    for (from, to) in [(one.clone(), other.clone()), (other, one)] {
        tokio::spawn(async move {
            loop {
                let followed = from.news().await.into_iter().filter_map(|host| {
                    let status = from.host(&host)?;
                    let connection = status.is_connected.then(|| status.connection());
                    Some((host, connection))
                });
                to.elsewhere(Elsewhere::Changed(followed.collect())).await;
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_of_two_agents_at_two_servers_the_later_follows() {
    let pki = Pki::new();
    let mut store = Store::new(7);
    let (one, other) = (Node::start(&pki).await, Node::start(&pki).await);
    let nodes = [&one, &other];
    for node in nodes {
        store.open(node).await;
    }
    introduce(nodes);
    let start = |node: &Node, started_ms| {
        let servers = [node.address.as_str()];
        Agent::with(&servers, "h1", pki.host("h1"), started_ms, None)
    };
    let mut older = start(&one, 1_000);
    store.check(&mut older).await;
    let mut later = start(&other, 2_000);
    store.check(&mut later).await;
    let (followed, _) = older.end().await;
    assert!(matches!(followed, Followed::Fenced { .. }), "{followed:?}");
    // One that comes late is turned away by the server that the later one doesn't follow.
    let (followed, events) = start(&one, 1_500).end().await;
    assert!(matches!(followed, Followed::Fenced { .. }), "{followed:?}");
    assert!(events.is_empty(), "{events:?}");
    store.change_own(&nodes).await;
    store.check(&mut later).await;
    assert!(later.is_following());
    // The other server is told of nobody any more: the later agent is no more, and its host may have another.
    drop(later);
    until("nobody follows", || {
        let status = other.watchers.host(&"h1".into());
        status.is_some_and(|status| !status.is_connected)
    })
    .await;
    one.watchers
        .elsewhere(Elsewhere::All(BTreeMap::new()))
        .await;
    let mut again = start(&one, 1_700);
    store.check(&mut again).await;
}

/// Also when the server that it left takes its connection for alive.
#[tokio::test(flavor = "multi_thread")]
async fn c9_an_agent_that_goes_over_is_not_fenced_by_itself() {
    let pki = Pki::new();
    let mut store = Store::new(8);
    let (one, other) = (Node::start(&pki).await, Node::start(&pki).await);
    let nodes = [&one, &other];
    for node in nodes {
        store.open(node).await;
    }
    introduce(nodes);
    let proxy = Proxy::start(&one.address, &[]).await;
    let servers = [proxy.address.as_str(), other.address.as_str()];
    let mut agent = Agent::with(&servers, "h1", pki.host("h1"), 1, None);
    store.check(&mut agent).await;
    proxy.silence();
    agent
        .until("another connection", |agent| agent.connected() == 2)
        .await;
    until("the first server knows", || {
        let status = one.watchers.host(&"h1".into());
        status.is_some_and(|status| !status.is_connected)
    })
    .await;
    store.change_own(&nodes).await;
    store.check(&mut agent).await;
    for node in nodes {
        let status = node.watchers.host(&"h1".into()).expect("it followed");
        assert_eq!(status.fenced, 0);
    }
}

/// What no host can need is told with the heartbeat, and not by itself.
#[tokio::test(flavor = "multi_thread")]
async fn progress_that_concerns_nobody_is_no_message() {
    let pki = Pki::new();
    let mut store = Store::new(9);
    let limits = Limits {
        heartbeat: Duration::from_secs(3_600),
        ..limits()
    };
    let node = Node::with(&pki, &pki.server(), limits.clone()).await;
    store.open(&node).await;
    let mut agent = Agent::start(&node.address, "h1", pki.host("h1"));
    store.check(&mut agent).await;
    let from = store.whole.revision.commit;
    for _ in 0..20 {
        store.whole.revision.commit += 1;
        let revision = store.whole.revision;
        node.watchers.feed(Feed::Progress(revision)).await;
        tokio::time::sleep(2 * limits.progress).await;
    }
    assert_eq!(node.watchers.committed(), store.whole.revision);
    store.change_own(&[&node]).await;
    store.check(&mut agent).await;
    let between = agent.events.iter().filter(|event| match event {
        Event::Progress(at) => (from + 1..=from + 20).contains(&at.commit),
        _ => false,
    });
    assert_eq!(between.count(), 0);
}

/// The connection is cut before anything is said, and the alert may get lost.
const TLS: &str = "transport error";

async fn check_refused(node: &Node, host: &str, credentials: Credentials, why: &str) {
    let mut agent = Agent::start(&node.address, host, credentials);
    agent.until_disconnected(why).await;
    assert_eq!((agent.connected(), agent.policy.is_some()), (0, false));
    assert_eq!(node.watchers.hosts(), BTreeMap::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_a_host_is_told_nothing_without_its_own_certificate() {
    let pki = Pki::new();
    let store = Store::new(7);
    let node = Node::start(&pki).await;
    store.open(&node).await;
    // A genuine certificate, and another host's name; case counts.
    check_refused(&node, "h1", pki.host("h2"), "not for host \"h1\"").await;
    check_refused(&node, "H1", pki.host("h1"), "not for host \"H1\"").await;
    check_refused(&node, "", pki.host("h1"), "not for host").await;
    // Signed by somebody else, though we know whom to trust.
    let foreign = Credentials {
        authority: pki.0.certificate.clone(),
        ..Pki::new().host("h1")
    };
    check_refused(&node, "h1", foreign, TLS).await;
    let expired = ca::host(&pki.0, "h1", past()).expect("a plain name");
    check_refused(&node, "h1", pki.credentials(expired), TLS).await;
    // A server's certificate is for servers.
    let server = ca::server(&pki.0, &["h1"], day()).expect("a plain name");
    check_refused(&node, "h1", pki.credentials(server), TLS).await;
}

async fn check_impostor(pki: &Pki, identity: &ca::Signed, why: &str) {
    let store = Store::new(8);
    let node = Node::with(pki, identity, limits()).await;
    store.open(&node).await;
    let kept = part(&store.whole, "h1");
    let servers = [node.address.as_str()];
    let mut agent = Agent::with(&servers, "h1", pki.host("h1"), 1, Some(kept.clone()));
    agent.until_disconnected(why).await;
    assert_eq!(agent.connected(), 0);
    assert_eq!(agent.policy, Some(kept));
}

#[tokio::test(flavor = "multi_thread")]
async fn c10_nobody_else_passes_for_a_server() {
    let pki = Pki::new();
    check_impostor(&pki, &Pki::new().server(), "BadSignature").await;
    let host = ca::host(&pki.0, "127.0.0.1", day()).expect("a plain name");
    check_impostor(&pki, &host, "extended key usage").await;
    let expired = ca::server(&pki.0, &["127.0.0.1"], past()).expect("plain names");
    check_impostor(&pki, &expired, "expired").await;
    let elsewhere = ca::server(&pki.0, &["192.0.2.1", "other"], day()).expect("plain names");
    check_impostor(&pki, &elsewhere, "not valid for name").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c10_what_happens_to_bytes_on_the_way_changes_no_policy() {
    use Treatment::{Cut, Double, Flip, Pass, Silence, Trickle};
    let pki = Pki::new();
    let mut store = Store::new(9);
    let node = Node::start(&pki).await;
    store.open(&node).await;
    let ends = [0, 1, 2, 700, 2_500, 4_000, 6_000];
    let spoilt = ends.map(|at| [Cut(at), Double(at), Flip(at)]);
    let mut treatments: Vec<Treatment> = spoilt.into_iter().flatten().collect();
    treatments.extend([Silence(3_000), Silence(0), Trickle, Pass]);
    let proxy = Proxy::start(&node.address, &treatments).await;
    let mut agent = Agent::start(&proxy.address, "h1", pki.host("h1"));
    // On each connection there is something to send, until it breaks.
    for _ in 0..treatments.len() - 2 {
        let ended = agent.reasons().count();
        loop {
            store.change_own(&[&node]).await;
            let revision = store.whole.revision;
            agent
                .until("the change, or the end", |agent| {
                    agent.revision() == revision || agent.reasons().count() > ended
                })
                .await;
            if agent.reasons().count() > ended {
                break;
            }
            assert_eq!(agent.policy, Some(part(&store.whole, "h1")));
        }
    }
    store.change_own(&[&node]).await;
    store.check(&mut agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o5_when_a_server_is_silent_the_next_one_is_asked() {
    let pki = Pki::new();
    let mut store = Store::new(10);
    let [first, second] = [Node::start(&pki).await, Node::start(&pki).await];
    store.open(&first).await;
    store.open(&second).await;
    let proxy = Proxy::start(&first.address, &[]).await;
    let servers = [proxy.address.as_str(), second.address.as_str()];
    let mut agent = Agent::with(&servers, "h1", pki.host("h1"), 1, None);
    store.check(&mut agent).await;
    proxy.silence();
    agent
        .until("the second server", |agent| agent.connected() == 2)
        .await;
    store.change_own(&[&first, &second]).await;
    store.check(&mut agent).await;
    let status = second
        .watchers
        .host(&"h1".into())
        .expect("it follows there");
    assert_eq!(status.resyncs, 0, "what it had was what it needed");
}

#[tokio::test(flavor = "multi_thread")]
async fn o10_a_server_that_stops_sends_its_agents_elsewhere() {
    let pki = Pki::new();
    let mut store = Store::new(11);
    let [first, second] = [Node::start(&pki).await, Node::start(&pki).await];
    store.open(&first).await;
    store.open(&second).await;
    let servers = [first.address.as_str(), second.address.as_str()];
    let mut agent = Agent::with(&servers, "h1", pki.host("h1"), 1, None);
    store.check(&mut agent).await;
    first.stop().await;
    agent.until_disconnected("this server stops").await;
    store.change_own(&[&second]).await;
    store.check(&mut agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_say_how_far_hosts_and_ports_are() {
    let pki = Pki::new();
    let mut store = Store::new(12);
    let node = Node::start(&pki).await;
    store.open(&node).await;
    let (host, port) = (HostId::from("h1"), PortId::from("own"));
    assert_eq!(node.watchers.lag(&host), Lag::Unknown);
    let mut agent = Agent::start(&node.address, "h1", pki.host("h1"));
    store.check(&mut agent).await;
    let applied = store.whole.revision;
    let report = |ports| Report { applied, ports };
    agent.reports.send_replace(Some(report(BTreeMap::new())));
    until("the first report", || {
        node.watchers.lag(&host) == Lag::Commits(0)
    })
    .await;
    assert_eq!(node.watchers.enforced(&host, &port), Some(applied));
    for _ in 0..3 {
        store.change_own(&[&node]).await;
    }
    until("the lag", || node.watchers.lag(&host) == Lag::Commits(3)).await;
    let refused = PortReport {
        state: PortState::Refused,
        enforced: None,
        why: "too many ranges".to_owned(),
    };
    let refused = report([(port.clone(), refused)].into());
    agent.reports.send_replace(Some(refused.clone()));
    until("the refused port", || {
        let status = node.watchers.host(&host);
        status.and_then(|status| status.report) == Some(refused.clone())
    })
    .await;
    assert_eq!(node.watchers.enforced(&host, &port), None);
    store.check(&mut agent).await;
    let status = node.watchers.host(&host).expect("it follows");
    assert_eq!(
        (status.sent, status.is_connected),
        (Some(store.whole.revision), true)
    );
    drop(agent);
    until("the end", || {
        let status = node.watchers.host(&host);
        status.is_some_and(|status| !status.is_connected)
    })
    .await;
}

#[test]
fn certificates_have_names() {
    let pki = Pki::new();
    for name in ["", "a\nb", "hôte"] {
        let refused = ca::host(&pki.0, name, day());
        assert!(matches!(refused, Err(CaError::Name { .. })), "{name:?}");
    }
    assert!(matches!(
        ca::server(&pki.0, &[], day()),
        Err(CaError::Nameless)
    ));
    let broken = ca::Signed {
        certificate: pki.0.key.clone(),
        key: pki.0.certificate.clone(),
    };
    assert!(matches!(
        ca::host(&broken, "h1", day()),
        Err(CaError::Authority(_))
    ));
}

#[test]
fn a_digest_is_the_same_for_what_server_and_agent_have() {
    let store = Store::new(13);
    assert_eq!(
        digest(&part(&store.whole, "h1")),
        digest(&part(&store.whole, "h1"))
    );
    assert_ne!(
        digest(&part(&store.whole, "h1")),
        digest(&part(&store.whole, "h9"))
    );
}

#[tokio::test]
async fn without_servers_there_is_nothing_to_follow() {
    let pki = Pki::new();
    let agent = Agent::with(&[], "h1", pki.host("h1"), 1, None);
    let (followed, events) = in_time("the end", agent.end()).await;
    assert_eq!(followed, Followed::NoServers);
    assert!(events.is_empty());
}

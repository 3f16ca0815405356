//! Streams that no honest server sends, and clients that no agent is.

mod support;

use distribution::{Distribution, difference};
use model::{DeviceMatch, Inventory, InventoryChange, MacAddr, Port, PortId, Revision};
use prost::Message;
use protocol::messages as m;
use protocol::messages::from_server::Said;
use protocol::messages::watch_client::WatchClient;
use protocol::messages::watch_server::{Watch, WatchServer};
use protocol::{Credentials, Event, Feed, Limits};
use std::sync::Mutex;
use support::{Agent, Node, Pki, in_time, limits, until};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};

/// Says on each connection what it is told to, and then nothing.
struct Scripted {
    scripts: Mutex<Vec<Vec<m::FromServer>>>,
    open: Mutex<Vec<mpsc::Sender<Result<m::FromServer, Status>>>>,
}

#[tonic::async_trait]
impl Watch for Scripted {
    type FollowStream = ReceiverStream<Result<m::FromServer, Status>>;

    async fn follow(
        &self,
        _: Request<Streaming<m::FromAgent>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let script = self.scripts.lock().expect("no panic").pop();
        let script = script.ok_or_else(|| Status::unavailable("the end of the script"))?;
        let (messages, stream) = mpsc::channel(100);
        for message in script {
            messages.try_send(Ok(message)).expect("there is room");
        }
        self.open.lock().expect("no panic").push(messages);
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type CarryStream = ReceiverStream<Result<m::Arrived, Status>>;

    async fn carry(
        &self,
        _: Request<Streaming<m::FromCarrier>>,
    ) -> Result<Response<Self::CarryStream>, Status> {
        Err(Status::unimplemented("it isn't in the script"))
    }
}

async fn scripted(pki: &Pki, scripts: Vec<Vec<m::FromServer>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port is free");
    let address = listener.local_addr().expect("it is bound").to_string();
    let identity = pki.server();
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(identity.certificate, identity.key))
        .client_ca_root(Certificate::from_pem(&pki.0.certificate));
    let service = WatchServer::new(Scripted {
        scripts: Mutex::new(scripts.into_iter().rev().collect()),
        open: Mutex::default(),
    });
    let mut server = Server::builder().tls_config(tls).expect("a certificate");
    let served = server.add_service(service);
    tokio::spawn(served.serve_with_incoming(TcpListenerStream::new(listener)));
    address
}

/// In order from the first on.
fn numbered(said: Vec<Said>) -> Vec<m::FromServer> {
    let numbers = 1..;
    let said = said.into_iter().zip(numbers);
    said.map(|(said, sequence)| m::FromServer {
        sequence,
        said: Some(said),
    })
    .collect()
}

fn revision(epoch: u64, commit: u64) -> Option<m::Revision> {
    Some(m::Revision { epoch, commit })
}

fn welcome() -> Said {
    Said::Welcome(m::Welcome {
        version: 1,
        server: "scripted".to_owned(),
        revision: revision(1, 1),
    })
}

fn begin(epoch: u64, commit: u64) -> Said {
    Said::Begin(m::Begin {
        revision: revision(epoch, commit),
    })
}

/// A group of this name.
fn objects(group: &str) -> Vec<u8> {
    let group = m::Group {
        id: group.to_owned(),
        stateful: true,
        ..m::Group::default()
    };
    m::Objects {
        groups: vec![group],
        ..m::Objects::default()
    }
    .encode_to_vec()
}

fn chunk(group: &str) -> Said {
    Said::Chunk(objects(group))
}

fn end(chunks: u64) -> Said {
    Said::End(m::End { chunks })
}

fn change(commit: u64, group: &str) -> Said {
    Said::Change(m::Change {
        revision: revision(1, commit),
        objects: objects(group),
    })
}

fn progress(epoch: u64, commit: u64) -> Said {
    Said::Progress(m::Progress {
        revision: revision(epoch, commit),
    })
}

/// The groups that are there in the end, and why the connection ended. Before, there is `kept` at 1.5.
async fn check(pki: &Pki, script: Vec<m::FromServer>, groups: &[&str], why: &str) {
    let address = scripted(pki, vec![script]).await;
    let mut kept = Inventory::default();
    kept.change(group_put("kept"));
    kept.revision = Revision {
        epoch: 1,
        commit: 5,
    };
    let servers = [address.as_str()];
    let mut agent = Agent::with(&servers, "h1", pki.host("h1"), 1, Some(kept));
    agent.until_disconnected("end of the script").await;
    let first = agent.reasons().next().map(str::to_owned);
    assert!(
        first.as_ref().is_some_and(|first| first.contains(why)),
        "{first:?}: {why}"
    );
    let policy = agent.policy.as_ref().expect("it had one");
    let seen: Vec<&str> = policy.groups.keys().map(|id| id.as_str()).collect();
    assert_eq!(seen, groups, "{why}");
}

fn group_put(id: &str) -> InventoryChange {
    let group = model::SecurityGroup {
        id: id.into(),
        project: None,
        name: String::new(),
        stateful: true,
        tag: None,
        rules: Default::default(),
    };
    InventoryChange {
        groups: [(id.into(), Some(group))].into(),
        ..InventoryChange::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o6_what_is_out_of_order_ends_the_connection_and_changes_nothing() {
    let pki = Pki::new();
    let in_order = || vec![welcome(), begin(1, 6), chunk("a"), chunk("b"), end(2)];
    let with = |more: Vec<Said>| numbered(in_order().into_iter().chain(more).collect());
    let without = |missing: usize| {
        let mut script = with(vec![]);
        script.remove(missing);
        script
    };
    // In order, to see that these tests could fail.
    let closing = Said::Closing(m::Closing {
        reason: m::ClosingReason::Shutdown.into(),
        why: "enough".to_owned(),
    });
    let good = vec![change(7, "c"), progress(1, 9), change(10, "d"), closing];
    check(&pki, with(good), &["a", "b", "c", "d"], "enough").await;

    for missing in 0..4 {
        check(&pki, without(missing), &["kept"], "was due").await;
    }
    let mut doubled = with(vec![]);
    doubled.insert(3, doubled[2].clone());
    check(&pki, doubled, &["kept"], "message 3 came where 4 was due").await;
    let mut swapped = with(vec![change(7, "c"), change(8, "d")]);
    swapped.swap(5, 6);
    check(&pki, swapped, &["a", "b"], "message 7 came where 6 was due").await;

    // Numbers are right, and the server is wrong.
    let whole = |said: Vec<Said>| numbered([vec![welcome()], said].concat());
    check(
        &pki,
        whole(vec![begin(1, 6), chunk("a"), end(2)]),
        &["kept"],
        "1 pieces of 2",
    )
    .await;
    check(
        &pki,
        whole(vec![begin(1, 6), chunk("a"), begin(1, 6)]),
        &["kept"],
        "begin",
    )
    .await;
    check(
        &pki,
        whole(vec![begin(1, 6), change(7, "a")]),
        &["kept"],
        "isn't due: change",
    )
    .await;
    check(
        &pki,
        whole(vec![begin(1, 6), progress(1, 7)]),
        &["kept"],
        "isn't due: progress",
    )
    .await;
    check(
        &pki,
        whole(vec![begin(1, 4), chunk("a"), end(1)]),
        &["kept"],
        "we are at 1.5",
    )
    .await;
    check(
        &pki,
        whole(vec![begin(0, 9), chunk("a"), end(1)]),
        &["kept"],
        "we are at 1.5",
    )
    .await;
    check(
        &pki,
        whole(vec![progress(1, 4)]),
        &["kept"],
        "we are at 1.5",
    )
    .await;
    check(&pki, whole(vec![progress(2, 1)]), &["kept"], "new epoch").await;
    check(
        &pki,
        whole(vec![change(6, "a")]),
        &["kept"],
        "isn't due: change",
    )
    .await;
    check(&pki, whole(vec![chunk("a")]), &["kept"], "isn't due: chunk").await;
    check(&pki, whole(vec![end(0)]), &["kept"], "isn't due: end").await;
    check(
        &pki,
        whole(vec![progress(1, 5), change(5, "a")]),
        &["kept"],
        "where we are",
    )
    .await;
    check(
        &pki,
        whole(vec![welcome()]),
        &["kept"],
        "isn't due: welcome",
    )
    .await;
    check(
        &pki,
        numbered(vec![begin(1, 6)]),
        &["kept"],
        "isn't due: begin",
    )
    .await;
    let broken = Said::Chunk(vec![0xff]);
    check(
        &pki,
        whole(vec![begin(1, 6), broken]),
        &["kept"],
        "can't be read",
    )
    .await;
    let said = None;
    let unknown = vec![m::FromServer { sequence: 1, said }];
    check(&pki, unknown, &["kept"], "doesn't have").await;
    let other = Said::Welcome(m::Welcome {
        version: 2,
        ..m::Welcome::default()
    });
    check(&pki, numbered(vec![other]), &["kept"], "version 2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_said_and_left_out() {
    let pki = Pki::new();
    let rule = m::Rule {
        id: "new".to_owned(),
        direction: 77,
        ..m::Rule::default()
    };
    let group = m::Group {
        id: "a".to_owned(),
        rules: vec![rule],
        ..m::Group::default()
    };
    let objects = m::Objects {
        groups: vec![group],
        ..m::Objects::default()
    };
    let chunk = Said::Chunk(objects.encode_to_vec());
    let script = numbered(vec![welcome(), begin(1, 6), chunk, end(1)]);
    let address = scripted(&pki, vec![script]).await;
    let mut agent = Agent::start(&address, "h1", pki.host("h1"));
    agent
        .until("all of it", |agent| agent.replaced() == 1)
        .await;
    let refused = agent.events.iter().find_map(|event| match event {
        Event::Refused(refused) => Some(refused.iter().map(ToString::to_string).collect()),
        _ => None,
    });
    let expected = "rule a/new can't be read (its direction is unknown): it is left out";
    assert_eq!(refused, Some(vec![expected.to_owned()]));
    assert!(
        agent.policy.as_ref().expect("it came").groups["a"]
            .rules
            .is_empty()
    );
}

/// Takes messages one by one, with the smallest windows.
struct Slow {
    heard: Streaming<m::FromServer>,
    _saying: mpsc::Sender<m::FromAgent>,
}

fn hello(host: &str, version_min: u32) -> m::FromAgent {
    m::FromAgent {
        said: Some(m::from_agent::Said::Hello(m::Hello {
            host: host.to_owned(),
            version_min,
            version_max: 9,
            ..m::Hello::default()
        })),
    }
}

impl Slow {
    async fn start(
        address: &str,
        credentials: Credentials,
        first: m::FromAgent,
    ) -> Result<Self, Status> {
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(credentials.authority))
            .identity(Identity::from_pem(credentials.certificate, credentials.key));
        let endpoint = Endpoint::from_shared(format!("https://{address}")).expect("an address");
        let endpoint = endpoint
            .initial_stream_window_size(65_535)
            .initial_connection_window_size(65_535);
        let channel = endpoint
            .tls_config(tls)
            .expect("certificates")
            .connect()
            .await;
        let channel = channel.expect("the server is there");
        let (saying, said) = mpsc::channel(1);
        saying.try_send(first).expect("there is room");
        let followed = WatchClient::new(channel)
            .follow(ReceiverStream::new(said))
            .await?;
        Ok(Self {
            heard: followed.into_inner(),
            _saying: saying,
        })
    }

    async fn next(&mut self) -> Said {
        let heard = in_time("a message", self.heard.message()).await;
        let message = heard.expect("a sound stream").expect("it goes on");
        message.said.expect("a known message")
    }

    /// Until the policy is at this revision: how many changes and how many whole parts came.
    async fn read_to(&mut self, revision: Revision, policy: &mut Inventory) -> [usize; 2] {
        let mut counts = [0; 2];
        while policy.revision != revision {
            match self.next().await {
                Said::Begin(_) => *policy = Inventory::default(),
                Said::Chunk(bytes) => apply(policy, None, &bytes),
                Said::End(_) => counts[1] += 1,
                Said::Change(change) => {
                    counts[0] += 1;
                    apply(policy, change.revision, &change.objects);
                }
                Said::Progress(progress) => policy.revision = read(progress.revision),
                other => panic!("{other:?}"),
            }
        }
        counts
    }
}

fn read(revision: Option<m::Revision>) -> Revision {
    let m::Revision { epoch, commit } = revision.expect("there is one");
    Revision { epoch, commit }
}

/// As the agent does.
fn apply(policy: &mut Inventory, revision: Option<m::Revision>, bytes: &[u8]) {
    let objects = m::Objects::decode(bytes).expect("objects");
    let kept = m::Kept {
        revision: Some(revision.unwrap_or_default()),
        objects: Some(objects.clone()),
    };
    let (put, refused) = protocol::decode(&kept.encode_to_vec()).expect("an inventory");
    assert_eq!(refused, []);
    let mut change = difference(&Inventory::default(), put);
    let gone = objects.ports_gone.iter();
    change
        .ports
        .extend(gone.map(|id| (PortId::from(id.as_str()), None)));
    if revision.is_none() {
        change.revision = policy.revision;
    }
    policy.change(change);
}

/// Ports of `h1`, with long names.
fn port(number: usize) -> Port {
    Port {
        id: PortId::new(format!("port-{number:0>100}")),
        network: "net".into(),
        host: Some("h1".into()),
        device: DeviceMatch::Mac,
        moving: None,
        mac: MacAddr::ZERO,
        fixed_addresses: Default::default(),
        address_pairs: Default::default(),
        groups: Default::default(),
        port_security: true,
        dhcp_server: false,
        router: false,
    }
}

const CHANGES: usize = 6_000;

/// The slow client has its part; then comes more than all windows hold.
async fn overwhelmed(pki: &Pki, limits: Limits) -> (Node, Slow, Inventory, Inventory) {
    let node = Node::with(pki, &pki.server(), limits).await;
    let mut whole = Inventory::default();
    whole.revision.epoch = 1;
    node.watchers.feed(Feed::Replaced(whole.clone())).await;
    let mut slow = Slow::start(&node.address, pki.host("h1"), hello("h1", 1))
        .await
        .expect("it is welcome");
    let mut policy = Inventory::default();
    assert!(matches!(slow.next().await, Said::Welcome(_)));
    let first = whole.revision;
    while policy.revision != first {
        if let Said::End(_) = slow.next().await {
            policy.revision = first;
        }
    }
    for number in 0..CHANGES {
        let port = port(number % 1_000);
        let stays = number < 5_500;
        let change = InventoryChange {
            revision: Revision {
                epoch: 1,
                commit: number as u64 + 1,
            },
            ports: [(port.id.clone(), stays.then_some(port))].into(),
            ..InventoryChange::default()
        };
        // So that each is another.
        let change = InventoryChange {
            ports: change
                .ports
                .into_iter()
                .map(|(id, port)| {
                    let port = port.map(|port| Port {
                        mac: MacAddr([2, 0, 0, 0, (number >> 8) as u8, number as u8]),
                        ..port
                    });
                    (id, port)
                })
                .collect(),
            ..change
        };
        whole.change(change.clone());
        node.watchers.feed(Feed::Changed(change)).await;
    }
    let last = whole.revision;
    until("all of the feed", || node.watchers.committed() == last).await;
    (node, slow, whole, policy)
}

fn part(whole: &Inventory) -> Inventory {
    let mut distribution = Distribution::default();
    distribution.replace(whole.clone());
    distribution.subscribe(&"h1".into())
}

#[tokio::test(flavor = "multi_thread")]
async fn o14_what_waits_for_a_slow_agent_is_merged() {
    let pki = Pki::new();
    let (_node, mut slow, whole, mut policy) = overwhelmed(&pki, limits()).await;
    let [changes, parts] = slow.read_to(whole.revision, &mut policy).await;
    assert_eq!(policy, part(&whole));
    assert_eq!(parts, 0);
    assert!(changes < CHANGES / 2, "{changes} messages");
}

#[tokio::test(flavor = "multi_thread")]
async fn o14_an_agent_that_is_too_slow_gets_its_part_anew() {
    let pki = Pki::new();
    let limits = Limits {
        waiting_objects: 100,
        ..limits()
    };
    let (node, mut slow, whole, mut policy) = overwhelmed(&pki, limits).await;
    let [_, parts] = slow.read_to(whole.revision, &mut policy).await;
    assert_eq!(policy, part(&whole));
    assert!(parts > 0);
    let status = node.watchers.host(&"h1".into()).expect("it follows");
    assert!(status.resyncs > 1, "{status:?}");
}

/// An agent that takes nothing doesn't keep others from their parts.
#[tokio::test(flavor = "multi_thread")]
async fn c8_a_part_that_is_not_taken_is_given_up() {
    let pki = Pki::new();
    let limits = Limits {
        parts_at_once: 1,
        part: std::time::Duration::from_millis(300),
        ..limits()
    };
    let node = Node::with(&pki, &pki.server(), limits).await;
    let mut whole = Inventory::default();
    whole.revision.epoch = 1;
    for number in 0..20_000 {
        let port = port(number);
        whole.ports.insert(port.id.clone(), port);
    }
    node.watchers.feed(Feed::Replaced(whole.clone())).await;
    let slow = Slow::start(&node.address, pki.host("h1"), hello("h1", 1)).await;
    let _slow = slow.expect("it is welcome");
    let mut other = Agent::start(&node.address, "h2", pki.host("h2"));
    other.until_at(whole.revision).await;
    until("the end of the slow one", || {
        let status = node.watchers.host(&"h1".into());
        status.is_some_and(|status| !status.is_connected)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o10_versions_that_have_nothing_in_common_are_told_apart() {
    let pki = Pki::new();
    let node = Node::start(&pki).await;
    node.watchers
        .feed(Feed::Replaced(Inventory::default()))
        .await;
    let newer = Slow::start(&node.address, pki.host("h1"), hello("h1", 2)).await;
    let status = newer.err().expect("it is refused");
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status}");
    let both = Slow::start(&node.address, pki.host("h1"), hello("h1", 1)).await;
    let welcome = both.expect("it speaks ours, too").next().await;
    assert!(
        matches!(welcome, Said::Welcome(m::Welcome { version: 1, .. })),
        "{welcome:?}"
    );
    let report = m::FromAgent {
        said: Some(m::from_agent::Said::Report(m::Report::default())),
    };
    let rude = Slow::start(&node.address, pki.host("h1"), report).await;
    let status = rude.err().expect("it is refused");
    assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
}

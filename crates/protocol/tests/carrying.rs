//! Flows of ports that are being migrated, between agents and servers with real connections.

mod support;

use distribution::Distribution;
use model::{HostId, Inventory, PortId};
use protocol::messages as m;
use protocol::messages::from_carrier::Said;
use protocol::messages::watch_client::WatchClient;
use protocol::{Arrived, Carrier, Credentials, Departed, Departures, Feed, Moves};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{Agent, Node, Pki, limits, until};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// What servers on one store share: the port `p` goes from `h1` to `h2`, and nothing else goes anywhere.
#[derive(Default)]
struct Shelf(Mutex<Vec<Arrived>>);

#[tonic::async_trait]
impl Moves for Shelf {
    async fn departed(&self, from: &HostId, departed: Departed) -> Result<(), String> {
        if from.as_str() != "h1" || departed.port.as_str() != "p" {
            return Err("it isn't on its way from there".to_owned());
        }
        self.0.lock().expect("no panic").push(Arrived {
            id: departed.part.to_string(),
            port: departed.port,
            flows: departed.flows,
            age: departed.age,
        });
        Ok(())
    }

    async fn arrived(&self, to: &HostId, seen: &mut BTreeSet<String>) -> Arrived {
        loop {
            let next = {
                let all = self.0.lock().expect("no panic");
                let mut all = all.iter().filter(|_| to.as_str() == "h2");
                all.find(|arrived| !seen.contains(&arrived.id)).cloned()
            };
            if let Some(next) = next {
                seen.insert(next.id.clone());
                return next;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn taken(&self, to: &HostId, id: &str) {
        assert_eq!(to.as_str(), "h2");
        self.0.lock().expect("no panic").retain(|it| it.id != id);
    }
}

async fn node(pki: &Pki, moves: Option<Arc<dyn Moves>>) -> Node {
    let node = Node::carrying(pki, &pki.server(), limits(), moves).await;
    let nothing = Inventory::default();
    node.watchers.feed(Feed::Replaced(nothing)).await;
    node
}

type Heard = Arc<Mutex<Vec<Arrived>>>;

fn agent(pki: &Pki, node: &Node, host: &str) -> (Agent, Departures, Heard) {
    let heard = Heard::default();
    let hears = heard.clone();
    let (departures, carrier) =
        Carrier::new(move |arrived| hears.lock().expect("no panic").push(arrived));
    let servers = [node.address.as_str()];
    let agent = Agent::carrying(&servers, host, pki.host(host), 1, None, Some(carrier));
    (agent, departures, heard)
}

fn departed(port: &str, part: u32) -> Departed {
    Departed {
        port: PortId::from(port),
        part,
        flows: format!("{port}{part}").into_bytes(),
        age: Duration::from_secs(2),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o11_flows_reach_the_new_host_by_its_own_server() {
    let pki = Pki::new();
    let shelf = Arc::new(Shelf::default());
    let first = node(&pki, Some(shelf.clone())).await;
    let second = node(&pki, Some(shelf.clone())).await;
    let (_old, departures, none) = agent(&pki, &first, "h1");
    let (_new, others, heard) = agent(&pki, &second, "h2");
    // What isn't the host's to hand on stops nothing behind it.
    assert!(others.send(departed("p", 7)));
    for sent in [departed("p", 0), departed("q", 8), departed("p", 1)] {
        assert!(departures.send(sent));
    }
    until("both parts", || heard.lock().expect("no panic").len() == 2).await;
    until("they are taken", || {
        shelf.0.lock().expect("no panic").is_empty()
    })
    .await;
    let heard = heard.lock().expect("no panic");
    let flows = heard.iter().map(|arrived| arrived.flows.as_slice());
    assert_eq!(Vec::from_iter(flows), [b"p0", b"p1"]);
    let aged = |arrived: &Arrived| arrived.age >= Duration::from_secs(2);
    assert!(heard.iter().all(aged), "the time before counts");
    assert!(none.lock().expect("no panic").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_carries_nothing_is_followed() {
    let pki = Pki::new();
    let node = node(&pki, None).await;
    let (mut agent, departures, _) = agent(&pki, &node, "h1");
    assert!(departures.send(departed("p", 0)));
    agent
        .until("its part", |agent| agent.policy.is_some())
        .await;
    let part = Distribution::default().subscribe(&HostId::from("h1"));
    assert_eq!(agent.policy, Some(part));
    assert!(agent.is_following());
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_nobody_carries_for_another_host() {
    let pki = Pki::new();
    let shelf = Arc::new(Shelf::default());
    let node = node(&pki, Some(shelf.clone())).await;
    for (certificate, named) in [("h2", "h1"), ("h1", "h2"), ("h1", "")] {
        let refused = carry_as(&node, pki.host(certificate), named).await;
        let why = refused.expect_err("it isn't that host");
        assert!(why.message().contains("not for host"), "{why}");
    }
    carry_as(&node, pki.host("h1"), "h1")
        .await
        .expect("it is that host");
}

async fn carry_as(node: &Node, credentials: Credentials, named: &str) -> Result<(), tonic::Status> {
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&credentials.authority))
        .identity(Identity::from_pem(
            &credentials.certificate,
            &credentials.key,
        ));
    let address = format!("https://{}", node.address);
    let endpoint = Endpoint::from_shared(address).expect("an address");
    let endpoint = endpoint.tls_config(tls).expect("certificates");
    let channel = endpoint.connect().await.expect("the server is there");
    let (saying, said) = mpsc::channel(1);
    let said_first = m::FromCarrier {
        said: Some(Said::Host(named.to_owned())),
    };
    saying.try_send(said_first).expect("there is room");
    let mut client = WatchClient::new(channel);
    client.carry(ReceiverStream::new(said)).await.map(drop)
}

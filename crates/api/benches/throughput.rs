//! How much a server takes by HTTP, with the store in a file and with etcd: `cargo bench -p portcullis-api`; with one
//! of them: `... -- file` or `... -- etcd`.
//!
//! Goals: with the file 500 rules a second by one client, 2,000 by eight; with etcd 60 % of what its bare transactions
//! reach that write the same; 300 ports; a list of 1,000 rules in 15 ms.

#[path = "../../store-etcd/tests/etcd/server.rs"]
#[allow(dead_code, reason = "the tests do more to it")]
mod server;

use api::{Api, Audit, Bounds, Identity, Limits, NothingEnforced};
use bytes::Bytes;
use control::Control;
use control::objects::{Quota, Resource};
use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use store::Store;
use store::embedded::Embedded;
use tokio::net::{TcpListener, TcpStream};

/// One connection that is kept.
struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    async fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address)
            .await
            .expect("the server listens");
        stream.set_nodelay(true).expect("it is a TCP connection");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("it is HTTP");
        tokio::spawn(connection);
        Self { sender }
    }

    async fn ask(&mut self, method: Method, path: &str, body: &str) -> Bytes {
        let request = Request::builder()
            .method(method)
            .uri(format!("/v2.0/{path}"));
        let request = request
            .header("host", "localhost")
            .body(Full::new(Bytes::from(body.to_owned())));
        let request = request.expect("it is a request");
        // The connection has to be done with the answer before.
        self.sender.ready().await.expect("the server listens");
        let answer = self
            .sender
            .send_request(request)
            .await
            .expect("there is an answer");
        let status = answer.status();
        let body = answer
            .into_body()
            .collect()
            .await
            .expect("it is whole")
            .to_bytes();
        assert!(
            status.is_success(),
            "{status} {}",
            String::from_utf8_lossy(&body)
        );
        body
    }

    async fn make(&mut self, path: &str, one: &str, body: Value) -> String {
        let body = self
            .ask(Method::POST, path, &json!({ one: body }).to_string())
            .await;
        let made: Value = serde_json::from_slice(&body).expect("it is JSON");
        made[one]["id"].as_str().expect("it has an id").to_owned()
    }
}

async fn serve(store: Arc<dyn Store>, directory: &Path) -> SocketAddr {
    let unbounded = Quota::of(Resource::ALL.map(|resource| (resource, -1)));
    let control = Control::open_with(store, Vec::new(), unbounded).await;
    let audit = std::fs::File::create(directory.join("audit")).expect("the directory is ours");
    let api = Api {
        copies: None,
        control: Arc::new(control.expect("the store is ours")),
        identity: Identity::Nobody {
            project: "default".into(),
        },
        limits: Limits::default(),
        audit: Audit::new(audit),
        enforcement: Arc::new(NothingEnforced),
        public_url: None,
        secure: false,
    };
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("the loopback is there");
    let address = listener.local_addr().expect("it is bound");
    let router = api::router(Arc::new(api));
    let forever = std::future::pending();
    tokio::spawn(api::serve(
        listener,
        None,
        router,
        Bounds::default(),
        forever,
    ));
    address
}

fn tell(what: &str, count: usize, took: Duration) {
    println!("{what}: {:.0} per second", rate(count, took));
}

fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

/// Each client has a group of its own. The groups, and rules per second.
async fn rules(address: SocketAddr, clients: usize, each: usize) -> (Vec<String>, f64) {
    let began = Instant::now();
    let tasks = Vec::from_iter((0..clients).map(|_| {
        tokio::spawn(async move {
            let mut client = Client::new(address).await;
            let group = client
                .make("security-groups", "security_group", json!({}))
                .await;
            for port in 1..=each {
                let rule = json!({
                    "security_group_id": group, "direction": "ingress", "protocol": "tcp",
                    "port_range_min": port, "port_range_max": port,
                });
                client
                    .make("security-group-rules", "security_group_rule", rule)
                    .await;
            }
            group
        })
    }));
    let mut groups = Vec::new();
    for task in tasks {
        groups.push(task.await.expect("the client is done"));
    }
    (groups, rate(clients * each, began.elapsed()))
}

async fn ports(address: SocketAddr, clients: usize, each: usize) {
    let mut client = Client::new(address).await;
    let network = client.make("networks", "network", json!({})).await;
    let subnet = json!({"network_id": network, "ip_version": 4, "cidr": "10.0.0.0/16"});
    client.make("subnets", "subnet", subnet).await;
    let began = Instant::now();
    let tasks = Vec::from_iter((0..clients).map(|_| {
        let network = network.clone();
        tokio::spawn(async move {
            let mut client = Client::new(address).await;
            for _ in 0..each {
                client
                    .make("ports", "port", json!({ "network_id": network }))
                    .await;
            }
        })
    }));
    for task in tasks {
        task.await.expect("the client is done");
    }
    tell(
        &format!("ports, {clients} clients"),
        clients * each,
        began.elapsed(),
    );
}

async fn lists(address: SocketAddr, group: &str) {
    const TIMES: u32 = 50;
    let mut client = Client::new(address).await;
    let path = format!("security-group-rules?security_group_id={group}&limit=1000");
    client.ask(Method::GET, &path, "").await;
    let began = Instant::now();
    for _ in 0..TIMES {
        client.ask(Method::GET, &path, "").await;
    }
    let each = began.elapsed() / TIMES;
    println!("list of 1,000 rules: {:.1} ms", each.as_secs_f64() * 1000.0);
}

/// Transactions that write what the creation of a rule does, by as many clients. Each run has a name of its own.
async fn bare(url: &str, run: &str, clients: usize, each: usize) -> f64 {
    let client = etcd_client::Client::connect([url], None).await;
    let client = client.expect("it serves");
    let began = Instant::now();
    let tasks = Vec::from_iter((0..clients).map(|who| {
        let (mut client, names) = (client.clone(), format!("{run}-{who}"));
        tokio::spawn(async move {
            for number in 0..each {
                let made = client.txn(rule_written(&names, number)).await;
                assert!(made.expect("it serves").succeeded());
            }
        })
    }));
    for task in tasks {
        task.await.expect("the client is done");
    }
    rate(clients * each, began.elapsed())
}

/// The rule, and what says that there is none like it.
fn rule_written(who: &str, number: usize) -> Txn {
    let names = ["rule", "held"].map(|kind| format!("bare/{kind}/{who}/{number}"));
    let absent = |name: &String| Compare::create_revision(name.clone(), CompareOp::Equal, 0);
    let put = |name: &String, bytes| TxnOp::put(name.clone(), vec![b'r'; bytes], None);
    Txn::new()
        .when([absent(&names[0]), absent(&names[1])])
        .and_then([put(&names[0], 300), put(&names[1], 40)])
}

/// In turns with bare transactions: what else the machine does meanwhile is much the same for both.
async fn beside_bare(address: SocketAddr, url: &str, clients: usize, each: usize) {
    const ROUNDS: usize = 9;
    let mut rates = [Vec::new(), Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        let run = format!("{clients}-{round}");
        let bare = bare(url, &run, clients, each).await;
        let (_, rules) = rules(address, clients, each).await;
        for (rates, rate) in rates.iter_mut().zip([bare, rules, 100.0 * rules / bare]) {
            rates.push(rate);
        }
    }
    let [bare, rules, share] = rates.map(median);
    println!(
        "rules, {clients} clients: {rules:.0} per second, {share:.0} % of bare transactions, {bare:.0} \
         (medians of {ROUNDS})"
    );
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}

async fn all(address: SocketAddr) {
    let (groups, one) = rules(address, 1, 2_000).await;
    let (_, eight) = rules(address, 8, 1_000).await;
    println!("rules, 1 clients: {one:.0} per second");
    println!("rules, 8 clients: {eight:.0} per second");
    lists(address, &groups[0]).await;
    ports(address, 1, 500).await;
    ports(address, 8, 250).await;
}

async fn in_a_file() {
    println!("the store in a file");
    let directory = tempfile::tempdir().expect("there is room");
    let file = Embedded::open(&directory.path().join("store")).expect("the directory is ours");
    all(serve(Arc::new(file), directory.path()).await).await;
}

async fn in_etcd() {
    println!("the store in etcd");
    let directory = tempfile::tempdir().expect("there is room");
    let server = server::Server::start();
    let store = Arc::new(server.connect().await);
    let address = serve(store, directory.path()).await;
    beside_bare(address, &server.url(), 1, 400).await;
    beside_bare(address, &server.url(), 8, 250).await;
    all(address).await;
}

#[tokio::main]
async fn main() {
    let asked = Vec::from_iter(std::env::args().skip(1).filter(|a| !a.starts_with('-')));
    let wanted = |what: &str| asked.is_empty() || asked.iter().any(|asked| asked == what);
    if wanted("file") {
        in_a_file().await;
    }
    if wanted("etcd") {
        in_etcd().await;
    }
}

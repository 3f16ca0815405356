//! How much a server takes by HTTP, with the store in a file: `cargo bench -p portcullis-api`.
//!
//! Goals: 500 rules a second by one client, 2,000 by eight, 300 ports, a list of 1,000 rules in 15 ms.

use api::{Api, Audit, Bounds, Identity, Limits, NothingEnforced};
use bytes::Bytes;
use control::Control;
use control::objects::{Quota, Resource};
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
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

async fn serve(directory: &Path) -> SocketAddr {
    let store = Embedded::open(&directory.join("store")).expect("the directory is ours");
    let unbounded = Quota::of(Resource::ALL.map(|resource| (resource, -1)));
    let control = Control::open_with(Arc::new(store), Vec::new(), unbounded).await;
    let audit = std::fs::File::create(directory.join("audit")).expect("the directory is ours");
    let api = Api {
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
    println!(
        "{what}: {:.0} per second",
        count as f64 / took.as_secs_f64()
    );
}

/// Each client has a group of its own.
async fn rules(address: SocketAddr, clients: usize, each: usize) -> Vec<String> {
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
    tell(
        &format!("rules, {clients} clients"),
        clients * each,
        began.elapsed(),
    );
    groups
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

#[tokio::main]
async fn main() {
    let directory = tempfile::tempdir().expect("there is room");
    let address = serve(directory.path()).await;
    let groups = rules(address, 1, 2_000).await;
    rules(address, 8, 1_000).await;
    lists(address, &groups[0]).await;
    ports(address, 1, 500).await;
    ports(address, 8, 250).await;
}

//! Servers, agents and a proxy between them, in one process, with real certificates.

#![allow(dead_code, reason = "each test file uses a part")]

#[path = "../../../distribution/tests/support/mod.rs"]
pub(crate) mod random;

use model::{HostId, Inventory, Revision};
use protocol::ca::{self, Signed, Validity};
use protocol::{
    Carrier, Credentials, Event, FollowConfig, Followed, Instance, Limits, Moves, Report, Timing,
    Watchers, follow, serve,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

/// Long enough to be sure that it won't come.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) async fn in_time<T>(what: &str, happens: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, happens).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: it doesn't happen"),
    }
}

/// Asks again and again.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    in_time(what, async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) struct Pki(pub(crate) Signed);

impl Pki {
    pub(crate) fn new() -> Self {
        Self(ca::authority("test", day()).expect("a plain name"))
    }

    pub(crate) fn server(&self) -> Signed {
        ca::server(&self.0, &["127.0.0.1", "localhost"], day()).expect("plain names")
    }

    pub(crate) fn host(&self, host: &str) -> Credentials {
        let signed = ca::host(&self.0, host, day()).expect("a plain name");
        self.credentials(signed)
    }

    pub(crate) fn credentials(&self, signed: Signed) -> Credentials {
        Credentials {
            authority: self.0.certificate.clone(),
            certificate: signed.certificate,
            key: signed.key,
        }
    }
}

pub(crate) fn day() -> Validity {
    Validity::lasting(Duration::from_secs(86_400))
}

/// Until an hour ago.
pub(crate) fn past() -> Validity {
    let hour = Duration::from_secs(3_600);
    let now = std::time::SystemTime::now();
    Validity {
        from: now - 2 * hour,
        until: now - hour,
    }
}

pub(crate) struct Node {
    pub(crate) address: String,
    pub(crate) watchers: Watchers,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Node {
    pub(crate) async fn start(pki: &Pki) -> Self {
        Self::with(pki, &pki.server(), limits()).await
    }

    pub(crate) async fn with(pki: &Pki, identity: &Signed, limits: Limits) -> Self {
        Self::carrying(pki, identity, limits, None).await
    }

    pub(crate) async fn carrying(
        pki: &Pki,
        identity: &Signed,
        limits: Limits,
        moves: Option<Arc<dyn Moves>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let watchers = Watchers::start(limits);
        let (stop, stopped) = oneshot::channel::<()>();
        let (identity, authority) = (identity.clone(), pki.0.certificate.clone());
        let of_task = watchers.clone();
        let task = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            let served = serve(listener, &identity, &authority, of_task, moves, stopped).await;
            served.expect("the certificates are in order");
        });
        Self {
            address,
            watchers,
            stop: Some(stop),
            task,
        }
    }

    pub(crate) async fn stop(mut self) {
        self.stop.take().map(|stop| stop.send(()));
        in_time("the server stops", self.task)
            .await
            .expect("no panic");
    }
}

pub(crate) fn limits() -> Limits {
    Limits {
        progress: Duration::from_millis(20),
        ..Limits::default()
    }
}

pub(crate) fn timing() -> Timing {
    Timing {
        keepalive: Duration::from_millis(200),
        keepalive_answer: Duration::from_millis(400),
        first_pause: Duration::from_millis(20),
        longest_pause: Duration::from_millis(100),
        ..Timing::default()
    }
}

/// Applies what it hears, and minds the order.
pub(crate) struct Agent {
    pub(crate) policy: Option<Inventory>,
    pub(crate) events: Vec<Event>,
    pub(crate) reports: watch::Sender<Option<Report>>,
    heard: mpsc::UnboundedReceiver<Event>,
    task: JoinHandle<Followed>,
    may_change_epoch: bool,
}

impl Agent {
    pub(crate) fn start(server: &str, host: &str, credentials: Credentials) -> Self {
        Self::with(&[server], host, credentials, 1, None)
    }

    pub(crate) fn with(
        servers: &[&str],
        host: &str,
        credentials: Credentials,
        started_ms: u64,
        kept: Option<Inventory>,
    ) -> Self {
        Self::carrying(servers, host, credentials, started_ms, kept, None)
    }

    pub(crate) fn carrying(
        servers: &[&str],
        host: &str,
        credentials: Credentials,
        started_ms: u64,
        kept: Option<Inventory>,
        carrier: Option<Carrier>,
    ) -> Self {
        let (reports, newest) = watch::channel(None);
        let (tell, heard) = mpsc::unbounded_channel();
        let config = FollowConfig {
            servers: servers.iter().map(|server| (*server).to_owned()).collect(),
            host: HostId::from(host),
            instance: Instance {
                started_ms,
                number: 7,
            },
            credentials,
            kept: kept.clone(),
            reports: newest,
            carrier,
            software: "test".to_owned(),
            timing: timing(),
        };
        // Who listens may be gone before the agent is.
        let task = tokio::spawn(follow(config, move |event| drop(tell.send(event))));
        Self {
            policy: kept,
            events: Vec::new(),
            reports,
            heard,
            task,
            may_change_epoch: false,
        }
    }

    pub(crate) async fn until(&mut self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        in_time(what, async {
            while !is_so(self) {
                let event = self.heard.recv().await;
                self.hear(event.unwrap_or_else(|| panic!("{what}: the agent has ended")));
            }
        })
        .await;
    }

    fn hear(&mut self, event: Event) {
        let before = self.revision();
        match &event {
            Event::Replaced(part) => self.policy = Some(part.clone()),
            Event::Changed(change) => {
                let policy = self.policy.as_mut().expect("a change is of something");
                policy.change(change.clone());
            }
            Event::Progress(revision) => {
                self.policy.as_mut().expect("of something").revision = *revision;
            }
            Event::NewEpoch { .. } => self.may_change_epoch = true,
            Event::Connected { .. } | Event::Refused(_) | Event::Disconnected { .. } => {}
        }
        let after = self.revision();
        assert!(after >= before, "it went back from {before} to {after}");
        if after.epoch != before.epoch && before != Revision::default() {
            assert!(
                std::mem::take(&mut self.may_change_epoch),
                "{before} to {after}"
            );
        }
        self.events.push(event);
    }

    pub(crate) fn revision(&self) -> Revision {
        self.policy
            .as_ref()
            .map(|policy| policy.revision)
            .unwrap_or_default()
    }

    pub(crate) async fn until_at(&mut self, revision: Revision) {
        let what = format!("being at {revision}");
        self.until(&what, |agent| agent.revision() == revision)
            .await;
    }

    pub(crate) async fn until_disconnected(&mut self, because: &str) {
        let what = format!("a connection that ends as {because:?}");
        self.until(&what, |agent| {
            agent.reasons().any(|why| why.contains(because))
        })
        .await;
    }

    pub(crate) fn reasons(&self) -> impl Iterator<Item = &str> {
        self.events.iter().filter_map(|event| match event {
            Event::Disconnected { why, .. } => Some(why.as_str()),
            _ => None,
        })
    }

    pub(crate) fn replaced(&self) -> usize {
        let whole = |event: &&Event| matches!(event, Event::Replaced(_));
        self.events.iter().filter(whole).count()
    }

    pub(crate) fn connected(&self) -> usize {
        let connected = |event: &&Event| matches!(event, Event::Connected { .. });
        self.events.iter().filter(connected).count()
    }

    /// For good.
    pub(crate) async fn end(mut self) -> (Followed, Vec<Event>) {
        let followed = in_time("following ends", &mut self.task).await;
        while let Ok(event) = self.heard.try_recv() {
            self.events.push(event);
        }
        let events = std::mem::take(&mut self.events);
        (followed.expect("no panic"), events)
    }

    pub(crate) fn is_following(&self) -> bool {
        !self.task.is_finished()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What becomes of the bytes that the server sends on one connection; so many of them pass first.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Treatment {
    Pass,
    Cut(usize),
    /// The piece that comes then is sent twice.
    Double(usize),
    /// A bit is another. TLS doesn't look at all of them (a record's version, say), so the connection
    /// is cut a while later if it goes on.
    Flip(usize),
    /// In small pieces, with pauses.
    Trickle,
    /// The connection stays, and nothing comes any more.
    Silence(usize),
}

/// What passes after a bit was flipped.
const AFTER_FLIP: usize = 10_000;

/// One treatment per connection, in this order; then all pass.
pub(crate) struct Proxy {
    pub(crate) address: String,
    silence: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(target: &str, treatments: &[Treatment]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let address = listener.local_addr().expect("it is bound").to_string();
        let target = target.to_owned();
        let waiting: Vec<Treatment> = treatments.iter().rev().copied().collect();
        let waiting = Arc::new(Mutex::new(waiting));
        let (silence, silent) = watch::channel(false);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let next = waiting.lock().expect("no panic").pop();
                let treatment = next.unwrap_or(Treatment::Pass);
                let (target, silent) = (target.clone(), silent.clone());
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(target).await {
                        carry(client, server, treatment, silent).await;
                    }
                });
            }
        });
        Self {
            address,
            silence,
            task,
        }
    }

    /// Connections stay, and nothing passes any more.
    pub(crate) fn silence(&self) {
        self.silence.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn carry(
    client: TcpStream,
    server: TcpStream,
    treatment: Treatment,
    mut silent: watch::Receiver<bool>,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async { tokio::io::copy(&mut from_client, &mut to_server).await };
    let down = async {
        let mut passed = 0;
        let mut bytes = vec![0; 2_048];
        loop {
            let read = from_server.read(&mut bytes).await?;
            if read == 0 {
                return to_client.shutdown().await;
            }
            let piece = &mut bytes[..read];
            let due = |after: usize| passed <= after && passed + read > after;
            match treatment {
                Treatment::Pass => to_client.write_all(piece).await?,
                Treatment::Cut(after) if due(after) => {
                    to_client.write_all(&piece[..after - passed]).await?;
                    return to_client.shutdown().await;
                }
                Treatment::Double(after) if due(after) => {
                    to_client.write_all(piece).await?;
                    to_client.write_all(piece).await?;
                }
                Treatment::Flip(after) if due(after) => {
                    piece[after - passed] ^= 1;
                    to_client.write_all(piece).await?;
                }
                Treatment::Flip(after) if passed > after + AFTER_FLIP => {
                    return to_client.shutdown().await;
                }
                Treatment::Silence(after) if passed + read > after => {}
                Treatment::Trickle => {
                    for small in piece.chunks(97) {
                        to_client.write_all(small).await?;
                        tokio::time::sleep(Duration::from_millis(1)).await;
                    }
                }
                Treatment::Cut(_)
                | Treatment::Double(_)
                | Treatment::Flip(_)
                | Treatment::Silence(_) => to_client.write_all(piece).await?,
            }
            passed += read;
        }
    };
    let silenced = async { silent.wait_for(|silent| *silent).await.is_ok() };
    // Either way over is the end of both; silence is held as long as the test lasts.
    let is_silent = tokio::select! {
        _ = up => false,
        _ = down => false,
        is_silent = silenced => is_silent,
    };
    if is_silent {
        std::future::pending().await
    }
}

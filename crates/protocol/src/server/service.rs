//! The service: who may follow, and the stream of one connection.

use crate::bytes::{chunks, digest};
use crate::ca::Signed;
use crate::certificate;
use crate::messages as m;
use crate::messages::from_agent::Said as Heard;
use crate::messages::from_server::Said;
use crate::messages::watch_server::{Watch, WatchServer};
use crate::server::carrying::{self, Moves};
use crate::server::outbox::{Closing, Next, Outbox};
use crate::server::table;
use crate::server::watchers::{Limits, Subscriber, Unwelcome, Watchers};
use crate::{Connection, Instance, LARGEST_MESSAGE, VERSIONS, put, read};
use model::{HostId, Inventory, InventoryChange, Revision};
use prost::Message;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, warn};

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the server's certificate or key can't be used: {0}")]
    Tls(#[source] tonic::transport::Error),
    #[error("the watch service ended: {0}")]
    Serve(#[source] tonic::transport::Error),
}

/// How soon a peer has to say what is due.
const GREETING: Duration = Duration::from_secs(10);
const KEEPALIVE: Duration = Duration::from_secs(5);
/// On one connection: an agent has one for policy and one for flows.
const STREAMS: u32 = 4;

/// Until `stop` is there; agents are told, then. `authority` is the certificate of whoever signs hosts' certificates.
/// `moves`: who keeps flows on their way between hosts; `None`: nobody.
pub async fn serve(
    listener: TcpListener,
    identity: &Signed,
    authority: &str,
    watchers: Watchers,
    moves: Option<Arc<dyn Moves>>,
    stop: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(&identity.certificate, &identity.key))
        .client_ca_root(Certificate::from_pem(authority))
        .timeout(GREETING);
    let stopping = watch::Sender::new(false);
    let service = WatchServer::new(Service {
        watchers: watchers.clone(),
        moves,
        stopping: stopping.subscribe(),
    });
    let service = service
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(LARGEST_MESSAGE);
    let router = Server::builder()
        .tls_config(tls)
        .map_err(ServeError::Tls)?
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(STREAMS)
        .tcp_nodelay(true)
        .add_service(service);
    let stop = async move {
        stop.await;
        stopping.send_replace(true);
        watchers.shutdown().await;
    };
    let incoming = TcpListenerStream::new(listener);
    let served = router.serve_with_incoming_shutdown(incoming, stop).await;
    served.map_err(ServeError::Serve)
}

struct Service {
    watchers: Watchers,
    moves: Option<Arc<dyn Moves>>,
    stopping: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl Watch for Service {
    type FollowStream = ReceiverStream<Result<m::FromServer, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<m::FromAgent>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let names = names(&request);
        let mut said = request.into_inner();
        let hello = hello(&mut said).await?;
        check_host(&names, &hello.host)?;
        let version = version(&hello)?;
        let subscriber = subscriber(&hello, &self.watchers.shared.limits);
        let (messages, stream) = mpsc::channel(1);
        let revision = match self.watchers.subscribe(subscriber.clone()).await {
            Ok(revision) => revision,
            Err(fenced @ Unwelcome::Fenced { .. }) => {
                // As the one that was there would be told.
                let reason = m::ClosingReason::Fenced;
                let why = fenced.to_string();
                let mut writer = Writer::new(self.watchers.clone(), subscriber, messages);
                writer.close(Closing { reason, why }).await;
                return Ok(Response::new(ReceiverStream::new(stream)));
            }
            Err(not @ (Unwelcome::NotReady | Unwelcome::Stopping | Unwelcome::Late)) => {
                return Err(Status::unavailable(not.to_string()));
            }
        };
        let writer = Writer::new(self.watchers.clone(), subscriber.clone(), messages);
        tokio::spawn(listen(self.watchers.clone(), subscriber, said));
        tokio::spawn(writer.run(version, revision, hello));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type CarryStream = ReceiverStream<Result<m::Arrived, Status>>;

    async fn carry(
        &self,
        request: Request<Streaming<m::FromCarrier>>,
    ) -> Result<Response<Self::CarryStream>, Status> {
        let Some(moves) = self.moves.clone() else {
            return Err(Status::unimplemented("flows aren't carried here"));
        };
        let names = names(&request);
        let mut said = request.into_inner();
        let host = carrying::host(&mut said, GREETING).await?;
        check_host(&names, host.as_str())?;
        let stream = carrying::carry(moves, host, said, self.stopping.clone());
        Ok(Response::new(stream))
    }
}

/// Without a certificate nobody gets as far as this.
fn names<T>(request: &Request<Streaming<T>>) -> Vec<String> {
    let certificates = request.peer_certs().unwrap_or_default();
    let own = certificates.first();
    own.map(|own| certificate::names(own)).unwrap_or_default()
}

async fn hello(said: &mut Streaming<m::FromAgent>) -> Result<m::Hello, Status> {
    let first = tokio::time::timeout(GREETING, said.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("there was no hello"))??;
    match first.and_then(|first| first.said) {
        Some(Heard::Hello(hello)) => Ok(hello),
        Some(Heard::Report(_)) | None => {
            Err(Status::invalid_argument("the first message is no hello"))
        }
    }
}

fn check_host(names: &[String], host: &str) -> Result<(), Status> {
    if names.iter().any(|name| name == host) {
        return Ok(());
    }
    warn!(
        host,
        ?names,
        "an agent said a host name that its certificate isn't for"
    );
    let text = format!("the certificate is for {names:?} and not for host {host:?}");
    Err(Status::permission_denied(text))
}

pub(crate) fn subscriber(hello: &m::Hello, limits: &Limits) -> Subscriber {
    let instance = hello.instance.unwrap_or_default();
    Subscriber {
        host: HostId::from(hello.host.as_str()),
        connection: Connection {
            instance: Instance {
                started_ms: instance.started_ms,
                number: instance.number,
            },
            turn: hello.turn,
        },
        software: hello.software.clone(),
        outbox: Arc::new(Outbox::new(limits.waiting_objects)),
    }
}

/// The newest that both speak.
pub(super) fn version(hello: &m::Hello) -> Result<u32, Status> {
    let common = hello.version_max.min(*VERSIONS.end());
    if common >= hello.version_min.max(*VERSIONS.start()) {
        return Ok(common);
    }
    let text = format!(
        "the agent speaks versions {} to {} of the protocol, and this server {} to {}",
        hello.version_min,
        hello.version_max,
        VERSIONS.start(),
        VERSIONS.end()
    );
    Err(Status::failed_precondition(text))
}

/// What the agent says after hello, until it says no more.
async fn listen(watchers: Watchers, subscriber: Subscriber, mut said: Streaming<m::FromAgent>) {
    let closing = subscriber.outbox.closed();
    tokio::pin!(closing);
    loop {
        let heard = tokio::select! {
            heard = said.message() => heard,
            _ = &mut closing => break,
        };
        let report = match heard {
            Ok(Some(m::FromAgent {
                said: Some(Heard::Report(report)),
            })) => table::report(report),
            Ok(Some(_)) => None,
            Ok(None) | Err(_) => break,
        };
        let Some(report) = report else {
            let host = &subscriber.host;
            warn!(%host, "an agent's message can't be read: it is left out");
            continue;
        };
        watchers.report(&subscriber, report).await;
    }
    watchers.gone(&subscriber).await;
    // The writer, if it still waits.
    let reason = m::ClosingReason::Unspecified;
    subscriber.outbox.close(reason, "the agent says no more");
}

struct Writer {
    watchers: Watchers,
    subscriber: Subscriber,
    messages: mpsc::Sender<Result<m::FromServer, Status>>,
    sequence: u64,
}

/// The agent doesn't take what is sent, or isn't there any more.
struct Gone;

impl Writer {
    fn new(
        watchers: Watchers,
        subscriber: Subscriber,
        messages: mpsc::Sender<Result<m::FromServer, Status>>,
    ) -> Self {
        Self {
            watchers,
            subscriber,
            messages,
            sequence: 0,
        }
    }

    async fn run(mut self, version: u32, revision: Revision, hello: m::Hello) {
        let mut known = Some(Known::of(&hello));
        let mut ended = self.say(welcome(version, revision)).await;
        while let Ok(()) = ended {
            ended = match self.subscriber.outbox.next().await {
                Next::WantsPart => self.sync(known.take()).await,
                Next::Part(part) => self.tell(*part).await,
                Next::Change(change) => {
                    let revision = change.revision;
                    self.say_up_to(revision, changed(change)).await
                }
                Next::Progress(revision) => self.progress(revision).await,
                Next::Close(closing) => {
                    self.close(closing).await;
                    Err(Gone)
                }
            };
        }
        self.watchers.gone(&self.subscriber).await;
        let why = "the stream has ended";
        self.subscriber
            .outbox
            .close(m::ClosingReason::Unspecified, why);
        debug!(host = %self.subscriber.host, "an agent's stream has ended");
    }

    /// A part takes memory until it is sent: so few at the same time, and not for long.
    async fn sync(&mut self, known: Option<Known>) -> Result<(), Gone> {
        let watchers = self.watchers.clone();
        let shared = &watchers.shared;
        let outbox = Arc::clone(&self.subscriber.outbox);
        let _permit = tokio::select! {
            permit = shared.parts.acquire() => permit.expect("it is never closed"),
            closing = outbox.closed() => {
                self.close(closing).await;
                return Err(Gone);
            }
        };
        let part = loop {
            self.watchers.make_part(&self.subscriber).await;
            match outbox.part().await {
                Next::Part(part) => break *part,
                // So much has changed meanwhile.
                Next::WantsPart => {}
                Next::Close(closing) => {
                    self.close(closing).await;
                    return Err(Gone);
                }
                Next::Change(_) | Next::Progress(_) => unreachable!("a part was asked for"),
            }
        };
        match known.map_or(Start::Anew, |known| known.start(&part)) {
            Start::Anew => {}
            Start::AsItIs => return self.progress(part.revision).await,
            Start::Elsewhere(why) => {
                self.end(Status::unavailable(why)).await;
                return Err(Gone);
            }
        }
        let told = tokio::time::timeout(shared.limits.part, self.tell(part)).await;
        told.unwrap_or_else(|_| {
            let host = &self.subscriber.host;
            warn!(%host, "an agent didn't take its policy in time: its connection is closed");
            Err(Gone)
        })
    }

    async fn tell(&mut self, part: Inventory) -> Result<(), Gone> {
        let revision = part.revision;
        let host = &self.subscriber.host;
        let table = &self.watchers.shared.table;
        table.update(host, |status| status.resyncs += 1);
        for said in whole(part) {
            self.say(said).await?;
        }
        self.is_told(revision);
        Ok(())
    }

    async fn progress(&mut self, revision: Revision) -> Result<(), Gone> {
        self.say_up_to(revision, progress(revision)).await
    }

    async fn close(&mut self, closing: Closing) {
        // It is closed whether it hears that or not.
        let _ = self.say(closed(closing)).await;
    }

    async fn say_up_to(&mut self, revision: Revision, said: Said) -> Result<(), Gone> {
        self.say(said).await?;
        self.is_told(revision);
        Ok(())
    }

    fn is_told(&self, revision: Revision) {
        let host = &self.subscriber.host;
        let table = &self.watchers.shared.table;
        table.update(host, |status| status.sent = Some(revision));
    }

    async fn say(&mut self, said: Said) -> Result<(), Gone> {
        self.sequence += 1;
        let message = m::FromServer {
            sequence: self.sequence,
            said: Some(said),
        };
        let limit = self.watchers.shared.limits.message;
        let sent = tokio::time::timeout(limit, self.messages.send(Ok(message))).await;
        match sent {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }

    async fn end(&mut self, status: Status) {
        let limit = self.watchers.shared.limits.message;
        // The same.
        let _ = tokio::time::timeout(limit, self.messages.send(Err(status))).await;
    }
}

pub(super) fn welcome(version: u32, revision: Revision) -> Said {
    Said::Welcome(m::Welcome {
        version,
        server: concat!("portcullis ", env!("CARGO_PKG_VERSION")).to_owned(),
        revision: Some(put::revision(revision)),
    })
}

pub(super) fn whole(part: Inventory) -> impl Iterator<Item = Said> {
    let begin = Said::Begin(m::Begin {
        revision: Some(put::revision(part.revision)),
    });
    let chunks = chunks(part);
    let end = Said::End(m::End {
        chunks: chunks.len() as u64,
    });
    let chunks = chunks.into_iter().map(Said::Chunk);
    std::iter::once(begin)
        .chain(chunks)
        .chain(std::iter::once(end))
}

pub(super) fn changed(change: InventoryChange) -> Said {
    Said::Change(m::Change {
        revision: Some(put::revision(change.revision)),
        objects: put::objects(change).encode_to_vec(),
    })
}

pub(super) fn progress(revision: Revision) -> Said {
    Said::Progress(m::Progress {
        revision: Some(put::revision(revision)),
    })
}

pub(super) fn closed(closing: Closing) -> Said {
    Said::Closing(m::Closing {
        reason: closing.reason.into(),
        why: closing.why,
    })
}

/// What the agent says it has.
pub(super) struct Known {
    revision: Option<Revision>,
    digest: Vec<u8>,
}

pub(super) enum Start {
    /// With all of the part.
    Anew,
    /// It has just this.
    AsItIs,
    /// It has what this server hasn't got yet.
    Elsewhere(String),
}

/// For whoever looks after the host.
fn behind(server: Revision, host: Revision) -> String {
    if server.epoch == host.epoch {
        return format!(
            "this server is at {server}, behind {host}, which the host has. If it stays so, the server's store was \
             put back by other means than `portcullis restore`, which has to be run for hosts to follow it"
        );
    }
    format!(
        "this server is at {server}, behind {host}, which the host has of a store that was made or restored later. \
         If this server's store is the right one, make a backup of it and restore that: it is the latest then"
    )
}

impl Known {
    pub(super) fn of(hello: &m::Hello) -> Self {
        Self {
            revision: read::revision(hello.revision),
            digest: hello.digest.clone(),
        }
    }

    pub(super) fn start(self, part: &Inventory) -> Start {
        let Some(revision) = self.revision else {
            return Start::Anew;
        };
        if revision > part.revision {
            return Start::Elsewhere(behind(part.revision, revision));
        }
        let is_same = revision.epoch == part.revision.epoch && self.digest == digest(part);
        if is_same { Start::AsItIs } else { Start::Anew }
    }
}

//! The agent's end: follows one of several servers, and says what happens.
//!
//! ```text
//!            +-> connect -> hello -> welcome -> whole part | what we have holds -> changes, progress -+
//!            |                                                                                        |
//!  next server, after a pause if all of them failed  <----------  lost, or anything out of order  <---+
//!                                                                 fenced: the end
//! ```
//! Invariants: what is kept changes by a whole part, or by the change that follows on it; its revision never goes
//! back within an epoch, and its epoch never goes back. Whatever is doubtful ends the connection and changes nothing.

use crate::carrier::Carrier;
use crate::messages as m;
use crate::messages::from_agent::Said as Saying;
use crate::messages::from_server::Said;
use crate::messages::watch_client::WatchClient;
use crate::read::Refused;
use crate::server::Report;
use crate::{Instance, LARGEST_MESSAGE, VERSIONS, bytes, pause, put, read};
use model::{HostId, Inventory, InventoryChange, Revision};
use prost::Message;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Status, Streaming};

pub struct FollowConfig {
    /// `host:port`; tried in this order, the first one again after the last.
    pub servers: Vec<String>,
    pub host: HostId,
    pub instance: Instance,
    pub credentials: Credentials,
    /// The last good policy, if there is one.
    pub kept: Option<Inventory>,
    /// The newest is sent; `None`: nothing yet.
    pub reports: watch::Receiver<Option<Report>>,
    /// For flows of ports that are being migrated; `None`: they are lost.
    pub carrier: Option<Carrier>,
    /// For people.
    pub software: String,
    pub timing: Timing,
}

/// As PEM.
#[derive(Clone)]
pub struct Credentials {
    /// The certificate of whoever signs servers' certificates.
    pub authority: String,
    pub certificate: String,
    pub key: String,
}

#[derive(Clone, Copy, Debug)]
pub struct Timing {
    pub connect: Duration,
    /// How often a silent connection is tried, and how soon it has to answer.
    pub keepalive: Duration,
    pub keepalive_answer: Duration,
    /// A server that answers on the connection and says nothing for so long is no server.
    pub silence: Duration,
    /// Before the first try of another server, at most.
    pub first_pause: Duration,
    pub longest_pause: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            keepalive: Duration::from_secs(1),
            keepalive_answer: Duration::from_millis(500),
            silence: Duration::from_secs(30),
            first_pause: Duration::from_millis(200),
            longest_pause: Duration::from_secs(30),
        }
    }
}

#[derive(Clone, Debug)]
pub enum Event {
    Connected {
        server: String,
        version: u32,
    },
    /// Comes before what it is about.
    Refused(Vec<Refused>),
    /// The store was restored: all of the policy comes next, by commits that may have been given before.
    NewEpoch {
        from: Revision,
        to: Revision,
    },
    Replaced(Inventory),
    Changed(InventoryChange),
    /// What is here holds at this revision as well.
    Progress(Revision),
    Disconnected {
        server: String,
        why: String,
    },
}

/// Why following has ended for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// Another agent with this host name started later. A human has to look: there are two.
    Fenced {
        server: String,
        why: String,
    },
    NoServers,
}

/// Ends only as [`Followed`] says. Keeps a copy of the inventory, to say what it has when it connects again.
pub async fn follow(mut config: FollowConfig, mut on_event: impl FnMut(Event)) -> Followed {
    let mut carrier = config.carrier.take();
    let mut follower = Follower {
        kept: config.kept.take(),
        config,
        connections: 0,
    };
    let mut failures = 0u32;
    let mut turn = 0;
    loop {
        let Some(server) = follower.server(turn) else {
            return Followed::NoServers;
        };
        let started = Instant::now();
        let why = match follower
            .session(&server, &mut on_event, carrier.as_mut())
            .await
        {
            End::Fenced(why) => return Followed::Fenced { server, why },
            End::Lost(why) => {
                failures = match started.elapsed() > STEADY {
                    true => 0,
                    false => failures.saturating_add(1),
                };
                why
            }
            End::Wrong(why) => {
                failures = failures.saturating_add(1);
                why
            }
        };
        on_event(Event::Disconnected { server, why });
        tokio::time::sleep(follower.pause(failures)).await;
        turn += 1;
    }
}

/// A connection that lasted less is as good as none.
const STEADY: Duration = Duration::from_secs(1);

pub(crate) struct Follower {
    pub(crate) config: FollowConfig,
    pub(crate) kept: Option<Inventory>,
    pub(crate) connections: u64,
}

pub(crate) enum End {
    Lost(String),
    /// What came can't be.
    Wrong(String),
    Fenced(String),
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        // The text alone leaves out what the transport found.
        let cause = std::error::Error::source(&status).map(chain);
        let text = cause.unwrap_or_else(|| status.message().to_owned());
        End::Lost(format!("{}: {text}", status.code()))
    }
}

/// Errors with what caused them. Some say that themselves.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    text
}

fn wrong<T>(why: impl Into<String>) -> Result<T, End> {
    Err(End::Wrong(why.into()))
}

impl Follower {
    fn server(&self, turn: usize) -> Option<String> {
        let servers = &self.config.servers;
        servers.get(turn.checked_rem(servers.len())?).cloned()
    }

    /// As long as not all servers failed, the next one is tried at once, but not by all agents at the same time.
    fn pause(&self, failures: u32) -> Duration {
        let timing = &self.config.timing;
        let rounds = failures / u32::try_from(self.config.servers.len()).unwrap_or(u32::MAX);
        match rounds {
            0 => pause::up_to(timing.first_pause),
            rounds => pause::backoff(rounds, timing.first_pause, timing.longest_pause),
        }
    }

    async fn session(
        &mut self,
        server: &str,
        on_event: &mut impl FnMut(Event),
        carrier: Option<&mut Carrier>,
    ) -> End {
        self.connections += 1;
        let connected = tokio::time::timeout(self.config.timing.connect, self.connect(server));
        let channel = match connected.await {
            Ok(Ok(channel)) => channel,
            Ok(Err(error)) => return End::Lost(chain(&error)),
            Err(_) => return End::Lost("no connection in time".to_owned()),
        };
        let host = self.config.host.clone();
        let beside = channel.clone();
        let carrying = async {
            match carrier {
                Some(carrier) => carrier.carry(beside, &host).await,
                None => std::future::pending().await,
            }
        };
        let ended = tokio::select! {
            ended = self.converse(server, channel, on_event) => ended,
            never = carrying => match never {},
        };
        match ended {
            Ok(never) => match never {},
            Err(end) => end,
        }
    }

    async fn connect(&self, server: &str) -> Result<Channel, tonic::transport::Error> {
        let Credentials {
            authority,
            certificate,
            key,
        } = &self.config.credentials;
        let timing = &self.config.timing;
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(authority))
            .identity(Identity::from_pem(certificate, key));
        Endpoint::from_shared(format!("https://{server}"))?
            .connect_timeout(timing.connect)
            .http2_keep_alive_interval(timing.keepalive)
            .keep_alive_timeout(timing.keepalive_answer)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
            .tls_config(tls)?
            .connect()
            .await
    }

    async fn converse(
        &mut self,
        server: &str,
        channel: Channel,
        on_event: &mut impl FnMut(Event),
    ) -> Result<std::convert::Infallible, End> {
        let (saying, said) = mpsc::channel(1);
        let hello = Saying::Hello(self.hello());
        let hello = m::FromAgent { said: Some(hello) };
        saying.try_send(hello).expect("there is room for one");
        let mut client = WatchClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE);
        let silence = self.config.timing.silence;
        let answer = client.follow(ReceiverStream::new(said));
        let answer = tokio::time::timeout(silence, answer).await;
        let answer = answer.map_err(|_| End::Lost("no answer in time".to_owned()))?;
        let mut heard: Streaming<m::FromServer> = answer?.into_inner();
        let mut session = Session::default();
        let mut reports = self.config.reports.clone();
        reports.mark_changed();
        let mut report = None;
        let mut last_heard = Instant::now();
        loop {
            let message = tokio::select! {
                message = tokio::time::timeout_at(last_heard + silence, heard.message()) => message,
                permit = saying.reserve(), if report.is_some() => {
                    if let (Ok(permit), Some(report)) = (permit, report.take()) {
                        let said = Some(Saying::Report(report));
                        permit.send(m::FromAgent { said });
                    }
                    continue;
                }
                Ok(()) = reports.changed() => {
                    let newest = reports.borrow_and_update();
                    report = newest.as_ref().map(crate::server::report_message);
                    continue;
                }
            };
            let message = message.map_err(|_| End::Lost("silence".to_owned()))?;
            let Some(message) = message? else {
                return Err(End::Lost("the server ended the stream".to_owned()));
            };
            last_heard = Instant::now();
            self.hear(server, &mut session, message, on_event)?;
        }
    }

    pub(crate) fn hello(&self) -> m::Hello {
        let Instance { started_ms, number } = self.config.instance;
        m::Hello {
            host: self.config.host.to_string(),
            instance: Some(m::Instance { started_ms, number }),
            version_min: *VERSIONS.start(),
            version_max: *VERSIONS.end(),
            revision: self.kept.as_ref().map(|kept| put::revision(kept.revision)),
            digest: self
                .kept
                .as_ref()
                .map(|kept| bytes::digest(kept).to_vec())
                .unwrap_or_default(),
            software: self.config.software.clone(),
            turn: self.connections,
        }
    }

    pub(crate) fn hear(
        &mut self,
        server: &str,
        session: &mut Session,
        message: m::FromServer,
        on_event: &mut impl FnMut(Event),
    ) -> Result<(), End> {
        session.sequence += 1;
        if message.sequence != session.sequence {
            let expected = session.sequence;
            let seen = message.sequence;
            return wrong(format!("message {seen} came where {expected} was due"));
        }
        let Some(said) = message.said else {
            return wrong("a message of a kind that this version doesn't have");
        };
        match (std::mem::replace(&mut session.state, State::Start), said) {
            (_, Said::Closing(closing)) => return Err(closed(closing)),
            (State::Start, Said::Welcome(welcome)) => {
                if !VERSIONS.contains(&welcome.version) {
                    return wrong(format!("version {} of the protocol", welcome.version));
                }
                on_event(Event::Connected {
                    server: server.to_owned(),
                    version: welcome.version,
                });
                session.state = State::Welcome;
            }
            (State::Welcome | State::Synced, Said::Begin(begin)) => {
                let revision = self.not_back(begin.revision)?;
                session.state = State::Part(Box::new(Assembly::new(revision)));
            }
            (State::Part(mut assembly), Said::Chunk(chunk)) => {
                assembly.add(&chunk)?;
                session.state = State::Part(assembly);
            }
            (State::Part(assembly), Said::End(end)) => {
                self.replace(assembly.whole(end.chunks)?, on_event);
                session.state = State::Synced;
            }
            (State::Welcome | State::Synced, Said::Progress(progress)) => {
                self.progress(progress.revision, on_event)?;
                session.state = State::Synced;
            }
            (State::Synced, Said::Change(change)) => {
                self.change(change, on_event)?;
                session.state = State::Synced;
            }
            (State::Start | State::Welcome | State::Part(_) | State::Synced, said) => {
                let name = name(&said);
                return wrong(format!("a message that isn't due: {name}"));
            }
        }
        Ok(())
    }

    /// The same revision once more may be a whole part with what was refused, or forgotten.
    fn not_back(&self, revision: Option<m::Revision>) -> Result<Revision, End> {
        let Some(revision) = read::revision(revision) else {
            return wrong("a message without a revision");
        };
        match self.kept.as_ref().map(|kept| kept.revision) {
            Some(kept) if revision < kept => {
                wrong(format!("the server is at {revision}, and we are at {kept}"))
            }
            Some(_) | None => Ok(revision),
        }
    }

    /// On what is kept, in the same epoch.
    fn goes_on(
        &mut self,
        revision: Option<m::Revision>,
    ) -> Result<(Revision, &mut Inventory), End> {
        let revision = self.not_back(revision)?;
        match &mut self.kept {
            Some(kept) if kept.revision.epoch == revision.epoch => Ok((revision, kept)),
            Some(_) => wrong("a new epoch without the whole policy"),
            None => wrong("news on a policy that isn't here"),
        }
    }

    fn replace(&mut self, (inventory, refused): Whole, on_event: &mut impl FnMut(Event)) {
        let to = inventory.revision;
        let from = self.kept.as_ref().map(|kept| kept.revision);
        if let Some(from) = from.filter(|from| from.epoch != to.epoch) {
            on_event(Event::NewEpoch { from, to });
        }
        say_refused(refused, on_event);
        self.kept = Some(inventory.clone());
        on_event(Event::Replaced(inventory));
    }

    fn change(&mut self, change: m::Change, on_event: &mut impl FnMut(Event)) -> Result<(), End> {
        let objects = objects(&change.objects)?;
        let (revision, kept) = self.goes_on(change.revision)?;
        if revision == kept.revision {
            return wrong(format!("a change at {revision}, where we are"));
        }
        let (change, refused) = read::change(objects);
        let change = InventoryChange { revision, ..change };
        kept.change(change.clone());
        say_refused(refused, on_event);
        on_event(Event::Changed(change));
        Ok(())
    }

    fn progress(
        &mut self,
        revision: Option<m::Revision>,
        on_event: &mut impl FnMut(Event),
    ) -> Result<(), End> {
        let (revision, kept) = self.goes_on(revision)?;
        kept.revision = revision;
        on_event(Event::Progress(revision));
        Ok(())
    }
}

#[derive(Default)]
pub(crate) struct Session {
    sequence: u64,
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    Start,
    Welcome,
    /// A part is on its way; what is kept stays till it is whole.
    Part(Box<Assembly>),
    Synced,
}

type Whole = (Inventory, Vec<Refused>);

struct Assembly {
    inventory: Inventory,
    refused: Vec<Refused>,
    chunks: u64,
}

impl Assembly {
    fn new(revision: Revision) -> Self {
        Self {
            inventory: Inventory {
                revision,
                ..Inventory::default()
            },
            refused: Vec::new(),
            chunks: 0,
        }
    }

    fn add(&mut self, chunk: &[u8]) -> Result<(), End> {
        let (change, refused) = read::change(objects(chunk)?);
        let revision = self.inventory.revision;
        self.inventory
            .change(InventoryChange { revision, ..change });
        self.refused.extend(refused);
        self.chunks += 1;
        Ok(())
    }

    fn whole(self, chunks: u64) -> Result<Whole, End> {
        if self.chunks != chunks {
            let seen = self.chunks;
            return wrong(format!("{seen} pieces of {chunks} came"));
        }
        Ok((self.inventory, self.refused))
    }
}

fn objects(bytes: &[u8]) -> Result<m::Objects, End> {
    let read = m::Objects::decode(bytes);
    read.map_err(|error| End::Wrong(format!("objects that can't be read: {error}")))
}

fn say_refused(refused: Vec<Refused>, on_event: &mut impl FnMut(Event)) {
    if !refused.is_empty() {
        on_event(Event::Refused(refused));
    }
}

fn closed(closing: m::Closing) -> End {
    let why = format!("closed by the server: {}", closing.why);
    match closing.reason() {
        m::ClosingReason::Fenced => End::Fenced(closing.why),
        m::ClosingReason::Replaced | m::ClosingReason::Shutdown | m::ClosingReason::Unspecified => {
            End::Lost(why)
        }
    }
}

fn name(said: &Said) -> &'static str {
    match said {
        Said::Welcome(_) => "welcome",
        Said::Begin(_) => "begin",
        Said::Chunk(_) => "chunk",
        Said::End(_) => "end",
        Said::Change(_) => "change",
        Said::Progress(_) => "progress",
        Said::Closing(_) => "closing",
    }
}

//! The server's end without sockets, tasks and clocks: who drives it says when, and carries the bytes. For simulations.
//!
//! Place on the line: store commit -> **watch** -> inventory.
//! The keeper, the outboxes, and what is said, byte for byte, are those of the service. What isn't here takes time
//! there: how long a message may take, and how many parts are made at once.
//! Knows nothing of: certificates; who says hello is believed.

use crate::messages as m;
use crate::messages::from_agent::Said as Heard;
use crate::messages::from_server::Said;
use crate::server::outbox::{Closing, Next};
use crate::server::service::{
    Known, Start, changed, closed, progress, subscriber, version, welcome, whole,
};
use crate::server::table::{self, HostStatus};
use crate::server::watchers::{Command, Elsewhere, Feed, Keeper, Limits, Subscriber, Unwelcome};
use distribution::Work;
use model::{HostId, Inventory};
use prost::Message as _;
use std::collections::{BTreeSet, VecDeque};

pub struct Desk {
    keeper: Keeper,
}

/// One agent's connection.
pub struct Line {
    subscriber: Subscriber,
    known: Option<Known>,
    sequence: u64,
    said: VecDeque<Said>,
    ended: bool,
}

/// One message of the stream, encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: MessageKind,
    pub bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageKind {
    Welcome,
    /// A piece of a whole part, its begin or its end.
    Part,
    Change,
    Progress,
    Closing,
}

/// The agent is to try again, or another server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotTaken(String);

impl Desk {
    pub fn new(limits: Limits) -> Self {
        Self {
            keeper: Keeper::new(limits),
        }
    }

    /// Hosts that are told something of it.
    pub fn feed(&mut self, feed: Feed) -> Vec<HostId> {
        self.keeper.take(feed)
    }

    /// What follows other servers.
    pub fn hear_of(&mut self, elsewhere: Elsewhere) {
        self.keeper.obey(Command::Elsewhere(elsewhere));
    }

    /// What has been done so far to find whom to tell what.
    pub fn work(&self) -> Work {
        self.keeper.work()
    }

    /// Hosts of which other servers have to hear, since the last time.
    pub fn news(&self) -> BTreeSet<HostId> {
        self.keeper.shared.take_concerned()
    }

    pub fn concern(&self, hosts: impl IntoIterator<Item = HostId>) {
        self.keeper.shared.concern_all(hosts);
    }

    pub fn status(&self, host: &HostId) -> Option<HostStatus> {
        self.keeper.shared.table.hosts().get(host).cloned()
    }

    pub fn connect(&mut self, hello: &[u8]) -> Result<Line, NotTaken> {
        let said = m::FromAgent::decode(hello).ok().and_then(|from| from.said);
        let Some(Heard::Hello(hello)) = said else {
            return Err(NotTaken("the first message is no hello".to_owned()));
        };
        let version = version(&hello).map_err(|status| NotTaken(status.message().to_owned()))?;
        let subscriber = subscriber(&hello, &self.keeper.shared.limits);
        let (first, ended) = match self.keeper.subscribe(subscriber.clone()) {
            Ok(revision) => (welcome(version, revision), false),
            Err(fenced @ Unwelcome::Fenced { .. }) => {
                let reason = m::ClosingReason::Fenced;
                let why = fenced.to_string();
                (closed(Closing { reason, why }), true)
            }
            Err(not) => return Err(NotTaken(not.to_string())),
        };
        Ok(Line {
            subscriber,
            known: Some(Known::of(&hello)),
            sequence: 0,
            said: [first].into(),
            ended,
        })
    }

    /// As if it had been sent all of its part as of now: of hosts that nobody simulates.
    pub fn follow_from_now(&mut self, line: &Line) {
        self.keeper.follow_from_now(&line.subscriber);
    }

    /// What is said next, if there is anything to say.
    pub fn next(&mut self, line: &mut Line) -> Option<Message> {
        if line.said.is_empty() && !line.ended {
            self.say(line);
        }
        let said = line.said.pop_front()?;
        line.sequence += 1;
        let kind = kind(&said);
        let message = m::FromServer {
            sequence: line.sequence,
            said: Some(said),
        };
        Some(Message {
            kind,
            bytes: message.encode_to_vec(),
        })
    }

    fn say(&mut self, line: &mut Line) {
        let Some(next) = line.subscriber.outbox.at_once() else {
            return;
        };
        match next {
            Next::WantsPart => {
                if let Some(part) = self.part(line) {
                    let known = line.known.take();
                    match known.map_or(Start::Anew, |known| known.start(&part)) {
                        Start::Anew => line.said.extend(whole(part)),
                        Start::AsItIs => line.said.push_back(progress(part.revision)),
                        Start::Elsewhere(_) => line.ended = true,
                    }
                }
            }
            Next::Part(part) => line.said.extend(whole(*part)),
            Next::Change(change) => line.said.push_back(changed(change)),
            Next::Progress(revision) => line.said.push_back(progress(revision)),
            Next::Close(closing) => {
                line.said.push_back(closed(closing));
                line.ended = true;
            }
        }
    }

    /// All that the host needs, as of now. What it will be told comes after it, as if it had been sent.
    pub fn part(&mut self, line: &Line) -> Option<Inventory> {
        self.keeper.obey(Command::MakePart(line.subscriber.clone()));
        match line.subscriber.outbox.at_once()? {
            Next::Part(part) => Some(*part),
            Next::WantsPart | Next::Change(_) | Next::Progress(_) | Next::Close(_) => None,
        }
    }

    /// What the agent says after hello.
    pub fn hear(&mut self, line: &Line, said: &[u8]) {
        let said = m::FromAgent::decode(said).ok().and_then(|from| from.said);
        if let Some(Heard::Report(report)) = said
            && let Some(report) = table::report(report)
        {
            let report = Command::Report(line.subscriber.clone(), report);
            self.keeper.obey(report);
        }
    }

    pub fn gone(&mut self, line: &Line) {
        self.keeper.obey(Command::Gone(line.subscriber.clone()));
    }

    /// `anyway`: even if nothing has happened since the last time.
    pub fn tell_progress(&mut self, anyway: bool) {
        self.keeper.tell_progress(anyway);
    }
}

impl Line {
    /// What was said last is as if it hadn't been: a server that forgets leaves no gap.
    pub fn unsay(&mut self) {
        self.sequence -= 1;
    }

    /// The server says no more on it.
    pub fn is_ended(&self) -> bool {
        self.ended && self.said.is_empty()
    }
}

fn kind(said: &Said) -> MessageKind {
    match said {
        Said::Welcome(_) => MessageKind::Welcome,
        Said::Begin(_) | Said::Chunk(_) | Said::End(_) => MessageKind::Part,
        Said::Change(_) => MessageKind::Change,
        Said::Progress(_) => MessageKind::Progress,
        Said::Closing(_) => MessageKind::Closing,
    }
}

//! The agent's end without sockets and clocks: who drives it brings the bytes. For simulations.
//!
//! Place on the line: store commit -> **watch** -> inventory.
//! What is said and heard, and what of it is refused, is [`crate::follow`]'s.

use crate::client::{End, Follower, Session};
use crate::messages as m;
use crate::messages::from_agent::Said;
use crate::server::{Report, report_message};
use crate::{Credentials, Event, FollowConfig, Instance, Timing};
use model::{HostId, Inventory};
use prost::Message;
use tokio::sync::watch;

pub struct Listener {
    follower: Follower,
    session: Session,
}

/// Why a connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Lost(String),
    /// What came can't be, or isn't due.
    Wrong(String),
    /// For good.
    Fenced(String),
}

impl Listener {
    /// `kept`: the last good policy, if there is one.
    pub fn new(host: HostId, instance: Instance, kept: Option<Inventory>) -> Self {
        let config = FollowConfig {
            servers: Vec::new(),
            host,
            instance,
            credentials: Credentials {
                authority: String::new(),
                certificate: String::new(),
                key: String::new(),
            },
            kept: None,
            reports: watch::channel(None).1,
            software: String::new(),
            timing: Timing::default(),
            carrier: None,
        };
        Self {
            follower: Follower {
                config,
                kept,
                connections: 0,
            },
            session: Session::default(),
        }
    }

    /// Begins a connection; the first thing to say.
    pub fn hello(&mut self) -> Vec<u8> {
        self.session = Session::default();
        self.follower.connections += 1;
        let said = Some(Said::Hello(self.follower.hello()));
        m::FromAgent { said }.encode_to_vec()
    }

    pub fn hear(&mut self, message: &[u8], mut on_event: impl FnMut(Event)) -> Result<(), Ended> {
        let message = m::FromServer::decode(message);
        let message = message.map_err(|error| Ended::Lost(error.to_string()))?;
        let heard = self
            .follower
            .hear("", &mut self.session, message, &mut on_event);
        heard.map_err(|end| match end {
            End::Lost(why) => Ended::Lost(why),
            End::Wrong(why) => Ended::Wrong(why),
            End::Fenced(why) => Ended::Fenced(why),
        })
    }

    pub fn report(report: &Report) -> Vec<u8> {
        let said = Some(Said::Report(report_message(report)));
        m::FromAgent { said }.encode_to_vec()
    }
}

//! Flows of ports that are being migrated, at both ends: the agent's, as bytes, in parts that a server takes; the
//! server's, to and from the store.
//!
//! Place on the line: beside it, from one host's plane to another's.

use ::control::{Changed, Control, MOST_PARTS, Observer, State};
use agent::{Event, Input, Mailbox};
use async_trait::async_trait;
use dataplane::PortFlows;
use model::{HostId, PortId};
use protocol::{Arrived, Carrier, Departed, Departures, Moves};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{debug, info, warn};

/// So many are no more bytes than one record of the store holds.
const FLOWS_OF_A_PART: usize = 2_500;
const AGAIN: Duration = Duration::from_secs(1);
const SWEEP: Duration = Duration::from_secs(10);

/// What comes goes into the agent's mailbox.
pub(crate) fn carrier(mailbox: Mailbox) -> (Departures, Carrier) {
    Carrier::new(move |arrived| match PortFlows::from_bytes(&arrived.flows) {
        Ok(flows) => {
            let flows = flows.aged(arrived.age);
            mailbox.send(Input::Event(Event::FlowsArrived(arrived.port, flows)));
        }
        Err(error) => {
            let port = &arrived.port;
            warn!(%port, %error, "flows from the port's earlier host can't be read: its connections begin anew");
        }
    })
}

pub(crate) fn depart(departures: &Departures, port: &PortId, flows: &PortFlows) {
    for (part, flows) in (0..).zip(flows.parts(FLOWS_OF_A_PART)) {
        let departed = Departed {
            port: port.clone(),
            part,
            flows: flows.to_bytes(),
            age: Duration::ZERO,
        };
        if part >= MOST_PARTS || !departures.send(departed) {
            return warn!(%port, part, "more flows than are carried: the others begin anew at the port's new host");
        }
    }
}

/// The server's end. What is on its way is in the store, where every server finds it.
pub(crate) struct Carrying {
    pub(crate) control: Arc<Control>,
    pub(crate) news: watch::Receiver<()>,
}

/// Tells when there are flows on their way.
pub(crate) struct Noticing(pub(crate) watch::Sender<()>);

#[async_trait]
impl Observer for Noticing {
    fn listed(&mut self, _: &State) {
        self.0.send_replace(());
    }

    fn committed(&mut self, _: &State, changes: &[Changed]) {
        if changes.iter().any(|c| matches!(c, Changed::Flows(_))) {
            self.0.send_replace(());
        }
    }

    async fn pass_on(&mut self) {}
}

#[async_trait]
impl Moves for Carrying {
    async fn departed(&self, from: &HostId, departed: Departed) -> Result<(), String> {
        let Departed {
            port,
            part,
            flows,
            age,
        } = departed;
        let (told, bytes) = (port.clone(), flows.len());
        let departed = ::control::Departed {
            port,
            part,
            flows,
            age,
        };
        let kept = self.control.flows_departed(from, &departed).await;
        kept.map_err(|error| error.to_string())?;
        info!(%from, port = %told, part, bytes, "flows are on their way to the port's new host");
        Ok(())
    }

    async fn arrived(&self, to: &HostId, seen: &mut BTreeSet<String>) -> Arrived {
        let mut news = self.news.clone();
        loop {
            news.borrow_and_update();
            match self.control.flows_for(to, seen).await {
                Ok(Some(arrived)) => {
                    return Arrived {
                        id: arrived.id,
                        port: arrived.port,
                        flows: arrived.flows,
                        age: arrived.age,
                    };
                }
                // Whoever tells lives as long as the server.
                Ok(None) => drop(news.changed().await),
                Err(error) => {
                    warn!(%to, %error, "flows on their way can't be read; trying again");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn taken(&self, to: &HostId, id: &str) {
        if let Err(error) = self.control.flows_taken(to, id).await {
            debug!(%to, %error, "flows that were taken stay until they are swept");
        }
    }
}

/// What nobody takes goes; any server does it.
pub(crate) async fn sweep(control: Arc<Control>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        if let Err(error) = control.sweep_flows().await {
            debug!(%error, "flows that nobody took aren't swept");
        }
    }
}

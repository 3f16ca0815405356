//! The agent's end of flows on their way: it says what its leaving ports have, and hears what its arriving ones had.
//!
//! ```text
//! departing --> Departed --> server ... another server --> Arrived --> on_arrived
//!                                                    <-- Taken: the record goes
//! ```
//! Beside the stream of policy, on the same connection, as long as that lasts. What is lost costs connections.
//! Knows nothing of: what flows are, whose ports they are of.

use crate::messages as m;
use crate::messages::from_carrier::Said;
use crate::messages::watch_client::WatchClient;
use model::{HostId, PortId};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tracing::{debug, info};

/// Some of a port's flows. Each part is whole by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departed {
    pub port: PortId,
    pub part: u32,
    pub flows: Vec<u8>,
    /// For so long they have been on their way.
    pub age: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// No two have the same.
    pub id: String,
    pub port: PortId,
    pub flows: Vec<u8>,
    pub age: Duration,
}

pub struct Carrier {
    /// What is to be sent, and since when it waits.
    departing: mpsc::Receiver<(Departed, Instant)>,
    on_arrived: Box<dyn FnMut(Arrived) + Send + Sync>,
    /// Ids of the last ones that arrived: one that comes again is no news.
    known: VecDeque<String>,
}

/// Where an agent puts what is to be sent. Cheap to clone.
#[derive(Clone)]
pub struct Departures(mpsc::Sender<(Departed, Instant)>);

/// Parts that wait for a connection at most.
const MOST_WAITING: usize = 256;
const MOST_KNOWN: usize = 1_024;
const AGAIN: Duration = Duration::from_secs(1);

impl Departures {
    /// Whether there is room for it.
    pub fn send(&self, departed: Departed) -> bool {
        self.0.try_send((departed, Instant::now())).is_ok()
    }
}

impl Carrier {
    pub fn new(on_arrived: impl FnMut(Arrived) + Send + Sync + 'static) -> (Departures, Self) {
        let (sender, departing) = mpsc::channel(MOST_WAITING);
        let carrier = Self {
            departing,
            on_arrived: Box::new(on_arrived),
            known: VecDeque::new(),
        };
        (Departures(sender), carrier)
    }

    /// As long as the connection is of use; dropped with it.
    pub(crate) async fn carry(&mut self, channel: Channel, host: &HostId) -> Infallible {
        loop {
            match self.converse(channel.clone(), host).await {
                Ok(()) => debug!("the server carries no more flows"),
                Err(status) if status.code() == Code::Unimplemented => {
                    info!("this server carries no flows: live migrations go on without them");
                    return std::future::pending().await;
                }
                Err(status) => debug!(%status, "flows aren't carried"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn converse(&mut self, channel: Channel, host: &HostId) -> Result<(), Status> {
        let (saying, said) = mpsc::channel(4);
        let first = from_agent(Said::Host(host.to_string()));
        saying.try_send(first).expect("there is room for one");
        let mut client = WatchClient::new(channel);
        let mut heard = client.carry(ReceiverStream::new(said)).await?.into_inner();
        loop {
            let next = tokio::select! {
                message = heard.message() => match message? {
                    Some(arrived) => self.hear(arrived),
                    None => return Ok(()),
                },
                Some((departed, since)) = self.departing.recv() => Said::Departed(m::Departed {
                    port: departed.port.to_string(),
                    part: departed.part,
                    flows: departed.flows,
                    age_ms: (departed.age + since.elapsed()).as_millis() as u64,
                }),
            };
            if saying.send(from_agent(next)).await.is_err() {
                return Ok(());
            }
        }
    }

    /// What is to be answered.
    fn hear(&mut self, arrived: m::Arrived) -> Said {
        let id = arrived.id.clone();
        if !self.known.contains(&id) {
            if self.known.len() == MOST_KNOWN {
                self.known.pop_front();
            }
            self.known.push_back(id.clone());
            (self.on_arrived)(Arrived {
                id: arrived.id,
                port: PortId::from(arrived.port.as_str()),
                flows: arrived.flows,
                age: Duration::from_millis(arrived.age_ms),
            });
        }
        Said::Taken(id)
    }
}

fn from_agent(said: Said) -> m::FromCarrier {
    m::FromCarrier { said: Some(said) }
}

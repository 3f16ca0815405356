//! Flows of ports that are being migrated: from the old host's stream to whoever keeps them, and from there to the new
//! host's.
//!
//! Invariants: a host speaks for itself alone. Whether a port is its own to hand on is asked of who keeps them.
//! Knows nothing of: what flows are, where they are kept; the stream of policy.

use crate::carrier::{Arrived, Departed};
use crate::messages as m;
use crate::messages::from_carrier::Said;
use model::{HostId, PortId};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};
use tracing::{debug, warn};

/// Keeps flows on their way, for this server and others.
#[tonic::async_trait]
pub trait Moves: Send + Sync {
    /// `Err`: why they don't go on, such as that the port isn't this host's, or doesn't go anywhere.
    async fn departed(&self, from: &HostId, departed: Departed) -> Result<(), String>;

    /// The next for this host that isn't in `seen`, which forgets those that are gone. Waits for it.
    async fn arrived(&self, to: &HostId, seen: &mut BTreeSet<String>) -> Arrived;

    /// It is the host's now.
    async fn taken(&self, to: &HostId, id: &str);
}

pub(super) async fn host(
    said: &mut Streaming<m::FromCarrier>,
    within: Duration,
) -> Result<HostId, Status> {
    let first = tokio::time::timeout(within, said.message()).await;
    let first = first.map_err(|_| Status::deadline_exceeded("no host was named"))??;
    match first.and_then(|first| first.said) {
        Some(Said::Host(host)) => Ok(HostId::from(host.as_str())),
        Some(Said::Departed(_) | Said::Taken(_)) | None => {
            Err(Status::invalid_argument("the first message names no host"))
        }
    }
}

/// Until the agent says no more, or the server stops.
pub(super) fn carry(
    moves: Arc<dyn Moves>,
    host: HostId,
    said: Streaming<m::FromCarrier>,
    mut stopping: watch::Receiver<bool>,
) -> ReceiverStream<Result<m::Arrived, Status>> {
    let (messages, stream) = mpsc::channel(1);
    tokio::spawn(async move {
        tokio::select! {
            () = hear(&*moves, &host, said) => {}
            () = hand_on(&*moves, &host, messages) => {}
            _ = stopping.wait_for(|stopping| *stopping) => {}
        }
        debug!(%host, "no more flows come from this agent");
    });
    ReceiverStream::new(stream)
}

async fn hear(moves: &dyn Moves, host: &HostId, mut said: Streaming<m::FromCarrier>) {
    while let Ok(Some(message)) = said.message().await {
        match message.said {
            Some(Said::Departed(departed)) => {
                let departed = Departed {
                    port: PortId::from(departed.port.as_str()),
                    part: departed.part,
                    flows: departed.flows,
                    age: Duration::from_millis(departed.age_ms),
                };
                let port = departed.port.clone();
                if let Err(why) = moves.departed(host, departed).await {
                    warn!(%host, %port, why, "flows don't go on to the port's new host: its connections begin anew there");
                }
            }
            Some(Said::Taken(id)) => moves.taken(host, &id).await,
            Some(Said::Host(_)) | None => {
                warn!(%host, "a message about flows can't be read: it is left out");
            }
        }
    }
}

async fn hand_on(
    moves: &dyn Moves,
    host: &HostId,
    messages: mpsc::Sender<Result<m::Arrived, Status>>,
) {
    let mut seen = BTreeSet::new();
    loop {
        let arrived = moves.arrived(host, &mut seen).await;
        let message = m::Arrived {
            id: arrived.id,
            port: arrived.port.to_string(),
            flows: arrived.flows,
            age_ms: u64::try_from(arrived.age.as_millis()).unwrap_or(u64::MAX),
        };
        if messages.send(Ok(message)).await.is_err() {
            return;
        }
    }
}

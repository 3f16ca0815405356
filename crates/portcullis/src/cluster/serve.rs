//! A server from its parts, until it is stopped.

use super::carry::{Carrying, Noticing, sweep};
use super::enforced::Enforced;
use super::feed::Feeding;
use super::told::{Telling, be_present, tell};
use crate::failure::Failure;
use crate::policy_source::this_host;
use ::control::told::Running;
use ::control::{Control, Copies, Observer, ids};
use api::{Api, Audit, Bounds, Identity, Limits};
use protocol::ca::Signed;
use protocol::{Moves, Watchers};
use rustls::ServerConfig;
use std::net::SocketAddr;
use std::sync::Arc;
use store::Store;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::info;

pub(crate) struct Serving {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) copies: Option<Copies>,
    pub(crate) identity: Identity,
    pub(crate) audit: Audit,
    /// For clients of the API.
    pub(crate) api: TcpListener,
    pub(crate) api_tls: Option<Arc<ServerConfig>>,
    pub(crate) public_url: Option<String>,
    /// For agents; `None`: there are none.
    pub(crate) agents: Option<(TcpListener, AgentsTls)>,
}

/// Our certificate for agents, and who signs theirs.
pub(crate) struct AgentsTls {
    pub(crate) server: Signed,
    pub(crate) authority: String,
}

/// Told to all parts at once.
#[derive(Clone)]
pub(crate) struct Stop(watch::Sender<bool>);

impl Stop {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }

    async fn stopped(self) {
        let mut stopping = self.0.subscribe();
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}

/// Until `stop`. What is being answered then still is, and agents are told to go elsewhere.
pub(crate) async fn serve(serving: Serving, stop: Stop) -> Result<(), Failure> {
    let watchers = Watchers::start(protocol::Limits::default());
    let running = Running {
        run: ids::new_id(),
        name: name(&serving.api)?,
    };
    let feeding = Feeding::new(watchers.clone());
    let telling = Telling::new(watchers.clone(), running.run.clone());
    let (noticing, news) = watch::channel(());
    let observers: Vec<Box<dyn Observer>> = vec![
        Box::new(feeding),
        Box::new(telling),
        Box::new(Noticing(noticing)),
    ];
    let control = Control::open(serving.store.clone(), observers);
    let control = Arc::new(control.await.map_err(Failure::system)?);
    // They end with this function.
    let mut aside = JoinSet::new();
    aside.spawn(tell(control.clone(), watchers.clone(), running.run.clone()));
    aside.spawn(be_present(serving.store, running));
    aside.spawn(sweep(control.clone()));
    let carrying = Carrying {
        control: control.clone(),
        news,
    };
    let api = Arc::new(Api {
        control,
        identity: serving.identity,
        limits: Limits::default(),
        audit: serving.audit,
        enforcement: Arc::new(Enforced(watchers.clone())),
        copies: serving.copies,
        public_url: serving.public_url,
        secure: serving.api_tls.is_some(),
    });
    let mut parts = JoinSet::new();
    let told = stop.clone();
    let agents = serving.agents.as_ref().map(|(listener, _)| listener);
    info!(
        api = address(&serving.api),
        agents = agents.map(address),
        "serving"
    );
    if let Some((listener, tls)) = serving.agents {
        let stopped = stop.clone().stopped();
        parts.spawn(async move {
            let (server, authority) = (&tls.server, &tls.authority);
            let moves: Arc<dyn Moves> = Arc::new(carrying);
            let served =
                protocol::serve(listener, server, authority, watchers, Some(moves), stopped);
            served.await.map_err(Failure::system)
        });
    }
    let stopped = stop.clone().stopped();
    parts.spawn(async move {
        let router = api::router(api);
        api::serve(
            serving.api,
            serving.api_tls,
            router,
            Bounds::default(),
            stopped,
        )
        .await;
        Ok(())
    });
    // One that ends by itself ends the others.
    let mut outcome = Ok(());
    while let Some(ended) = parts.join_next().await {
        told.stop();
        let ended = ended.map_err(|e| Failure::Internal(e.into())).flatten();
        outcome = outcome.and(ended);
    }
    outcome
}

/// For people: which of the servers this is.
fn name(api: &TcpListener) -> Result<String, Failure> {
    let port = api.local_addr().map_err(Failure::system)?.port();
    Ok(format!("{}:{port}", this_host(None)?))
}

fn address(listener: &TcpListener) -> String {
    let address = listener
        .local_addr()
        .map(|address: SocketAddr| address.to_string());
    address.unwrap_or_default()
}

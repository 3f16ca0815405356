//! `server`: the API that policy is written by, and the service that hosts follow.

use crate::cluster::identity::IdentityArgs;
use crate::cluster::store_choice::StoreArgs;
use crate::cluster::{AgentsTls, Serving, Stop, certificates, serve};
use crate::commands::agent::{Servers, enforce_from};
use crate::enforce::EnforceArgs;
use crate::failure::Failure;
use crate::logging;
use crate::policy_source::this_host;
use api::{Audit, Identity};
use clap::Args;
use clap::builder::FalseyValueParser;
use model::HostId;
use protocol::Credentials;
use protocol::ca::{self, CaError, Signed, Validity};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

/// Serve a cluster: the API for its policy, and the stream that hosts' agents follow
///
/// The API is OpenStack Networking's, as far as security groups go: the `openstack` client, Terraform and Ansible
/// work as they are. What is asked for is in the store; a server has no state of its own, so with etcd several run
/// side by side. Without a server hosts enforce what they enforced.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis server                                          API on 127.0.0.1:9696, no agents
  portcullis server --listen-agents 0.0.0.0:9697             with ca.pem, server.pem, server.key from `portcullis ca`
  portcullis server --all-in-one                             one host: it enforces here what its API is told
  portcullis server --store etcd:https://10.0.0.1:2379,https://10.0.0.2:2379 --etcd-ca etcd-ca.pem ...
  openstack --os-auth-type none --os-endpoint http://127.0.0.1:9696 security group list

SIGTERM or Ctrl-C: what is being answered still is, and agents go to another server.
A store that isn't there is made, empty, with a warning: hosts that follow then close what it doesn't have.

Exit codes: 0 stopped, 2 usage, 4 the store, an address or a certificate can't be used.")]
pub(crate) struct ServerArgs {
    /// Where clients of the API come
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9696",
        env = "PORTCULLIS_LISTEN"
    )]
    listen: SocketAddr,

    /// Our certificate for the API (PEM); without one it is HTTP
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_key",
        env = "PORTCULLIS_TLS_CERT"
    )]
    tls_cert: Option<PathBuf>,

    /// Its key (PEM)
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_cert",
        env = "PORTCULLIS_TLS_KEY"
    )]
    tls_key: Option<PathBuf>,

    /// How clients see this server, for links, if that isn't how they ask: https://network.example
    #[arg(long, value_name = "URL", env = "PORTCULLIS_PUBLIC_URL")]
    public_url: Option<String>,

    /// Where hosts' agents come; without it there are none
    #[arg(long, value_name = "ADDRESS:PORT", env = "PORTCULLIS_LISTEN_AGENTS")]
    listen_agents: Option<SocketAddr>,

    /// Who signs hosts' certificates (PEM)
    #[arg(
        long,
        value_name = "FILE",
        default_value = "ca.pem",
        env = "PORTCULLIS_CLUSTER_CA"
    )]
    ca: PathBuf,

    /// Our certificate for agents (PEM)
    #[arg(
        long,
        value_name = "FILE",
        default_value = "server.pem",
        env = "PORTCULLIS_CLUSTER_CERT"
    )]
    cert: PathBuf,

    /// Its key (PEM)
    #[arg(
        long,
        value_name = "FILE",
        default_value = "server.key",
        env = "PORTCULLIS_CLUSTER_KEY"
    )]
    key: PathBuf,

    #[command(flatten)]
    store: StoreArgs,

    #[command(flatten)]
    identity: IdentityArgs,

    /// Append a line of JSON for each request that changes something: who, what, before, after
    #[arg(long, value_name = "FILE", env = "PORTCULLIS_AUDIT")]
    audit: Option<PathBuf>,

    /// Enforce on this host as well: server and agent in one. They end together, at `portcullis detach` too
    #[arg(long, conflicts_with = "listen_agents", value_parser = FalseyValueParser::new(), env = "PORTCULLIS_ALL_IN_ONE")]
    all_in_one: bool,

    /// With --all-in-one: this host's id, as in the binding of its ports [default: the machine's name]
    #[arg(
        long,
        value_name = "NAME",
        requires = "all_in_one",
        env = "PORTCULLIS_HOST"
    )]
    host: Option<String>,

    #[command(flatten, next_help_heading = "With --all-in-one, and the log")]
    enforce: EnforceArgs,
}

pub(crate) fn run(args: ServerArgs) -> Result<(), Failure> {
    logging::start(args.enforce.log.clone());
    let runtime = runtime()?;
    let stop = Stop::new();
    if args.all_in_one {
        return all_in_one(&args, &runtime, stop);
    }
    if let Some(option) = args.enforce.for_agents() {
        return Err(Failure::Usage(format!(
            "{option} is for a server that enforces as well: --all-in-one"
        )));
    }
    runtime.block_on(async {
        let agents = match args.listen_agents {
            Some(address) => Some((listen(address).await?, agents_tls(&args)?)),
            None => None,
        };
        let serving = serving(&args, agents).await?;
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::system)?;
        let stopping = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            stopping.stop();
        });
        serve(serving, stop).await
    })
}

/// The agent follows over the loopback as any other would, by certificates that live as long as the process.
fn all_in_one(args: &ServerArgs, runtime: &Runtime, stop: Stop) -> Result<(), Failure> {
    let host = this_host(args.host.as_deref())?;
    let (tls, credentials) = passing_certificates(&host).map_err(Failure::system)?;
    let (serving, address) = runtime.block_on(async {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).await?;
        let address = listener.local_addr().map_err(Failure::system)?;
        let serving = serving(args, Some((listener, tls))).await?;
        Ok::<_, Failure>((serving, address))
    })?;
    let served = runtime.spawn(serve(serving, stop.clone()));
    let servers = Servers {
        addresses: vec![address.to_string()],
        credentials,
    };
    let enforced = enforce_from(servers, host, &args.enforce, runtime);
    stop.stop();
    let served = runtime.block_on(served);
    let served = served.map_err(|e| Failure::Internal(e.into())).flatten();
    enforced.and(served)
}

fn passing_certificates(host: &HostId) -> Result<(AgentsTls, Credentials), CaError> {
    let long = Validity::lasting(Duration::from_secs(36_500 * 24 * 60 * 60));
    let authority = ca::authority("Portcullis, all in one", long)?;
    let server = ca::server(&authority, &["127.0.0.1"], long)?;
    let Signed { certificate, key } = ca::host(&authority, host.as_str(), long)?;
    let tls = AgentsTls {
        server,
        authority: authority.certificate.clone(),
    };
    let credentials = Credentials {
        authority: authority.certificate,
        certificate,
        key,
    };
    Ok((tls, credentials))
}

pub(crate) fn runtime() -> Result<Runtime, Failure> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let built = builder.enable_all().build();
    built.map_err(|e| Failure::System(format!("starting threads: {e}")))
}

/// Everything that may be refused comes before anything is served.
async fn serving(
    args: &ServerArgs,
    agents: Option<(TcpListener, AgentsTls)>,
) -> Result<Serving, Failure> {
    let identity = args.identity.identity()?;
    may_listen(&identity, args.listen)?;
    let api_tls = match (&args.tls_cert, &args.tls_key) {
        (Some(certificate), Some(key)) => {
            certificates::signed(certificate, key)?;
            Some(api::tls(certificate, key).map_err(Failure::system)?)
        }
        _ => None,
    };
    let (store, copies) = args.store.open().await?;
    Ok(Serving {
        store,
        copies,
        identity,
        audit: audit(args.audit.as_deref())?,
        api: listen(args.listen).await?,
        api_tls,
        public_url: args.public_url.clone(),
        agents,
    })
}

fn may_listen(identity: &Identity, at: SocketAddr) -> Result<(), Failure> {
    let allowed = identity.may_listen(at);
    allowed.map_err(|e| Failure::Usage(format!("{e} (--identity, --listen)")))
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|e| Failure::System(format!("listening on {address}: {e}")))
}

fn agents_tls(args: &ServerArgs) -> Result<AgentsTls, Failure> {
    let made = |failure: Failure| {
        let text = failure.text();
        Failure::System(format!("{text}; `portcullis ca` makes what agents need"))
    };
    Ok(AgentsTls {
        server: certificates::signed(&args.cert, &args.key).map_err(made)?,
        authority: certificates::authority(&args.ca).map_err(made)?,
    })
}

fn audit(path: Option<&Path>) -> Result<Audit, Failure> {
    let Some(path) = path else {
        return Ok(Audit::new(io::sink()));
    };
    let audit = Audit::append_to(path);
    audit.map_err(|e| Failure::System(format!("opening {}: {e}", path.display())))
}

//! `agent`: enforces on this host what a server says.

use crate::cluster::{Following, carrier, certificates, depart, follow, report};
use crate::commands::server::runtime;
use crate::enforce::{EnforceArgs, Enforcing, enforce};
use crate::failure::Failure;
use crate::logging;
use crate::policy_source::{served_parser, this_host};
use crate::served_policy;
use agent::{Encode, Event, Input, Mailbox, PolicySource};
use clap::Args;
use model::HostId;
use protocol::ca::Signed;
use protocol::{Credentials, Report};
use std::path::PathBuf;
use tokio::runtime::Runtime;
use tokio::sync::{oneshot, watch};
use tracing::error;

/// Enforce on this host what a server of the cluster says
///
/// Follows one of the servers, and goes to another if it is lost. What is enforced stays, with servers or without,
/// and when the agent ends. After a reboot the last policy is enforced before a server answers. A host is told what
/// its own ports need, and proves by its certificate which host it is.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis agent --server ctl1:9697 --server ctl2:9697    with ca.pem, HOST.pem and HOST.key from `portcullis ca`
  portcullis agent --server ctl1:9697 --plane ovs
  portcullis agent --server ctl1:9697 --confirm 60          removed again unless you `portcullis confirm`

Exit codes: 0 stopped, 1 rolled back, 4 the system refused.")]
pub(crate) struct AgentArgs {
    /// A server's address for agents; the first that answers is followed. Several: given again, or with commas
    #[arg(
        long = "server",
        value_name = "HOST:PORT",
        required = true,
        value_delimiter = ',',
        env = "PORTCULLIS_SERVERS"
    )]
    servers: Vec<String>,

    /// This host's id, as in the binding of its ports [default: the machine's name]
    #[arg(long, value_name = "NAME", env = "PORTCULLIS_HOST")]
    host: Option<String>,

    /// Who signs servers' certificates (PEM)
    #[arg(
        long,
        value_name = "FILE",
        default_value = "ca.pem",
        env = "PORTCULLIS_CLUSTER_CA"
    )]
    ca: PathBuf,

    /// This host's certificate (PEM) [default: HOST.pem]
    #[arg(long, value_name = "FILE", env = "PORTCULLIS_CLUSTER_CERT")]
    cert: Option<PathBuf>,

    /// Its key (PEM) [default: HOST.key]
    #[arg(long, value_name = "FILE", env = "PORTCULLIS_CLUSTER_KEY")]
    key: Option<PathBuf>,

    #[command(flatten)]
    enforce: EnforceArgs,
}

pub(crate) fn run(args: AgentArgs) -> Result<(), Failure> {
    logging::start(args.enforce.log.clone());
    let host = this_host(args.host.as_deref())?;
    let beside = |suffix: &str| PathBuf::from(format!("{host}.{suffix}"));
    let certificate = args.cert.clone().unwrap_or_else(|| beside("pem"));
    let key = args.key.clone().unwrap_or_else(|| beside("key"));
    let Signed { certificate, key } = certificates::signed(&certificate, &key)?;
    let credentials = Credentials {
        authority: certificates::authority(&args.ca)?,
        certificate,
        key,
    };
    let servers = Servers {
        addresses: args.servers,
        credentials,
    };
    enforce_from(servers, host, &args.enforce, &runtime()?)
}

pub(crate) struct Servers {
    pub(crate) addresses: Vec<String>,
    pub(crate) credentials: Credentials,
}

/// Until the agent is stopped.
pub(crate) fn enforce_from(
    servers: Servers,
    host: HostId,
    args: &EnforceArgs,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let instance = args.instance.instance()?;
    let decode = served_parser(&host, args.inspection);
    let cached = agent::cached_policy(&instance, &decode).map(|(policy, _)| policy.inventory);
    let (mailbox, inputs) = Mailbox::new();
    let (told, reports) = watch::channel(None);
    let from = servers.addresses.join(",").into();
    let (departures, carrier) = carrier(mailbox.clone());
    let following = Following {
        servers: servers.addresses,
        host: host.clone(),
        inspection: args.inspection,
        credentials: servers.credentials,
        kept: cached.clone(),
        reports,
        mailbox: mailbox.clone(),
        carrier,
        begun: instance.cache_path().with_extension("begun"),
    };
    let enforcing = Enforcing {
        host,
        instance,
        policy: PolicySource::Server {
            encode: Encode::new(served_policy::encode),
            decode,
            tell: Box::new(move |progress| tell(&told, report(progress))),
            departed: Box::new(move |port, flows| depart(&departures, &port, &flows)),
        },
        from,
        cached,
        mailbox: mailbox.clone(),
        inputs,
    };
    // Dropped when nothing is enforced from here any more; what is heard of servers then is no news.
    let (_enforcing, ended) = oneshot::channel::<()>();
    enforce(args, enforcing, || {
        runtime.spawn(async move {
            // Whoever starts it again would fence the other one in turn: so it stays, and says so.
            let why = tokio::select! {
                biased;
                _ = ended => return,
                why = follow(following) => why,
            };
            error!(why, "no longer following; what is enforced stays");
            mailbox.send(Input::Event(Event::ServerUnreached(why)));
        });
    })
}

fn tell(told: &watch::Sender<Option<Report>>, report: Option<Report>) {
    told.send_if_modified(|last| {
        let differs = *last != report;
        *last = report;
        differs
    });
}

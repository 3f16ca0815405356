//! A record that lives as long as its lease, and a task that renews the lease.
//!
//! ```text
//! grant -> keep: renew each third of the time to live -+-> guard dropped: revoke
//!                                                      +-> refused, or too long without an answer: lost
//! ```
//! Knows nothing of: what is announced.

use crate::call::{CallError, Calls, commit_error};
use async_trait::async_trait;
use etcd_client::{Client, LeaseKeepAliveStream, LeaseKeeper};
use model::Revision;
use std::time::Duration;
use store::{CommitError, Presence};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

pub(crate) struct Lease {
    pub(crate) id: i64,
    /// What etcd has made of it: it has a least one of its own.
    ttl: Duration,
    /// It has lived at least since then.
    renewed: Instant,
}

struct Kept {
    revision: Revision,
    is_lost: watch::Receiver<bool>,
    /// Dropped with the guard.
    _guard: oneshot::Sender<()>,
}

/// A lease whose record isn't written goes by itself.
pub(crate) async fn grant(
    client: &Client,
    calls: Calls,
    ttl: Duration,
) -> Result<Lease, CommitError> {
    let renewed = Instant::now();
    let seconds = ttl.as_secs_f64().ceil().max(1.0) as i64;
    let grant = || {
        let mut leases = client.lease_client();
        async move { leases.grant(seconds, None).await }
    };
    let granted = calls.ask(grant).await;
    // A lease without a record changes nothing, so whatever has become of it, nothing has happened.
    let granted = granted.map_err(|error| match commit_error(error) {
        CommitError::Unknown(why) => CommitError::Unavailable(why),
        other => other,
    })?;
    Ok(Lease {
        id: granted.id(),
        ttl: Duration::from_secs(granted.ttl().max(1) as u64),
        renewed,
    })
}

pub(crate) fn keep(
    client: Client,
    calls: Calls,
    lease: Lease,
    revision: Revision,
) -> impl Presence + use<> {
    let (guard, dropped) = oneshot::channel();
    let (lost, is_lost) = watch::channel(false);
    tokio::spawn(renew_until(client, calls, lease, dropped, lost));
    Kept {
        revision,
        is_lost,
        _guard: guard,
    }
}

#[async_trait]
impl Presence for Kept {
    fn revision(&self) -> Revision {
        self.revision
    }

    async fn lost(&mut self) {
        // An error: the task has ended, so nobody renews any more.
        let _ = self.is_lost.wait_for(|lost| *lost).await;
    }
}

async fn renew_until(
    client: Client,
    calls: Calls,
    lease: Lease,
    dropped: oneshot::Receiver<()>,
    lost: watch::Sender<bool>,
) {
    let id = lease.id;
    tokio::select! {
        () = renew(&client, calls, lease) => {
            lost.send_replace(true);
        }
        _ = dropped => {
            let revoke = || {
                let mut leases = client.lease_client();
                async move { leases.revoke(id).await }
            };
            // If it can't be revoked, it ends by itself.
            let _ = calls.ask(revoke).await;
        }
    }
}

/// Until it has ended, or must be taken to have.
async fn renew(client: &Client, calls: Calls, mut lease: Lease) {
    let mut stream = None;
    loop {
        tokio::time::sleep_until(lease.renewed + lease.ttl / 3).await;
        let asked = Instant::now();
        let deadline = lease.renewed + lease.ttl;
        let renewed = renew_once(client, calls, lease.id, &mut stream);
        match tokio::time::timeout_at(deadline, renewed).await {
            Ok(Renewal::Done) => lease.renewed = asked,
            Ok(Renewal::Refused) | Err(_) => return,
            Ok(Renewal::Failed) => {
                stream = None;
                let pause = (lease.ttl / 10).min(Duration::from_secs(1));
                if Instant::now() + pause >= deadline {
                    return;
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
}

enum Renewal {
    Done,
    /// etcd knows it no more.
    Refused,
    /// To be tried again: nothing but time is lost by that.
    Failed,
}

type Stream = Option<(LeaseKeeper, LeaseKeepAliveStream)>;

async fn renew_once(client: &Client, calls: Calls, id: i64, stream: &mut Stream) -> Renewal {
    let Some((keeper, answers)) = stream else {
        let open = || {
            let mut leases = client.lease_client();
            async move { leases.keep_alive(id).await }
        };
        return match calls.ask(open).await {
            Ok(opened) => {
                *stream = Some(opened);
                Renewal::Done
            }
            Err(CallError::Etcd(etcd_client::Error::LeaseKeepAliveError(why)))
                if why == "lease not found" =>
            {
                Renewal::Refused
            }
            Err(_) => Renewal::Failed,
        };
    };
    if calls.wait_for(keeper.keep_alive()).await.is_err() {
        return Renewal::Failed;
    }
    match calls.wait_for(answers.message()).await {
        Ok(Some(answer)) if answer.ttl() > 0 => Renewal::Done,
        Ok(Some(_)) => Renewal::Refused,
        Ok(None) | Err(_) => Renewal::Failed,
    }
}

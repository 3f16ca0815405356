//! The store of a cluster: etcd, 3.4 or later.
//!
//! Place on the line: **store commit -> watch**.
//!
//! ```text
//! ROOT/epoch          format and epoch; every transaction compares it
//! ROOT/mark           written when a watch begins, which knows by it when it is current
//! ROOT/records/KEY    the value; created, modified and commit are etcd's revisions
//! ```
//! etcd does consensus, durability and history. Ours is to say no more than it has said: a write is sent
//! once, and if no answer comes, the outcome isn't known. No call waits longer than the timeout.
//!
//! Transactions that wait at the same time are one commit where that makes no difference to them (`join.rs`).
//!
//! Commit numbers are shared with whoever else uses that etcd, so they have gaps.
//!
//! Deliberately not here: snapshots. etcd's own are taken and restored with its tools; after a restore
//! [`Etcd::renew_epoch`] tells every watcher.
//!
//! Knows nothing of: what a record says, other back ends.
//!
//! Source: etcd's API guarantees and API reference, v3.4. Tried with 3.4.23.

#![forbid(unsafe_code)]

mod call;
mod commits;
mod epoch;
mod join;
mod layout;
mod listing;
mod presence;
mod transaction;
mod watch;

pub use call::ConnectError;

use async_trait::async_trait;
use call::{Calls, read_error};
use commits::Commits;
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use layout::Layout;
use model::Revision;
use std::sync::Arc;
use std::time::Duration;
use store::{
    CommitError, Key, KeyPrefix, Presence, ReadError, Reader, Record, Store, Transaction, Value,
    Watch,
};

pub struct Etcd {
    client: Client,
    layout: Layout,
    calls: Calls,
    commits: Arc<Commits>,
    is_new: bool,
}

#[derive(Clone, Debug)]
pub struct Config {
    /// One URL for each member, such as `https://10.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// For `https`.
    pub tls: Option<Tls>,
    /// Everything of ours is below it. No slash at its end.
    pub root: String,
    pub user: Option<(String, String)>,
    /// No call takes longer. A connection is taken to be lost when nothing comes for so long after it was
    /// asked for a sign of life.
    pub timeout: Duration,
    /// How often a connection is asked for a sign of life. etcd wants no less than 5 s, if it isn't told
    /// otherwise.
    pub sign_of_life: Duration,
}

/// As PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Who signs the members' certificates.
    pub ca: String,
    /// Our own certificate and its key, for members that ask for one.
    pub client: Option<(String, String)>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoints: vec!["http://127.0.0.1:2379".to_owned()],
            tls: None,
            root: "/portcullis".to_owned(),
            user: None,
            timeout: Duration::from_secs(5),
            sign_of_life: Duration::from_secs(10),
        }
    }
}

impl Tls {
    fn options(self) -> TlsOptions {
        let options = TlsOptions::new().ca_certificate(Certificate::from_pem(self.ca));
        match self.client {
            Some((certificate, key)) => options.identity(Identity::from_pem(certificate, key)),
            None => options,
        }
    }
}

impl Etcd {
    /// Makes the store if there is none below the root.
    pub async fn connect(config: Config) -> Result<Self, ConnectError> {
        let calls = Calls::new(config.timeout, config.endpoints.len());
        let options = ConnectOptions::new()
            .with_connect_timeout(config.timeout)
            .with_keep_alive(config.sign_of_life, config.timeout)
            .with_keep_alive_while_idle(true)
            // A member that has lost the others must not leave its watchers waiting.
            .with_require_leader(true);
        let options = match config.user {
            // A call with an old token is refused before anything is done, so that one is sent again.
            Some((name, password)) => options
                .with_user(name, password)
                .with_auto_token_refresh(true),
            None => options,
        };
        let options = match config.tls {
            Some(tls) => options.with_tls(tls.options()),
            None => options,
        };
        let connected = calls.wait_for(Client::connect(config.endpoints, Some(options)));
        let client = connected.await?;
        let layout = Layout::new(&config.root);
        let (epoch, is_new) = epoch::read_or_make(&client, &layout, calls).await?;
        let commits = Commits::new(client.clone(), layout.clone(), calls, epoch);
        Ok(Self {
            client,
            layout,
            calls,
            commits: Arc::new(commits),
            is_new,
        })
    }

    /// Whether it was made by this connection, and so is empty.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// To be called once after etcd itself was restored from a snapshot: commits after the snapshot are
    /// lost and their numbers will be given a second time, so whoever has seen them must list again.
    pub async fn renew_epoch(&self) -> Result<Revision, CommitError> {
        let (old, new, commit) = epoch::renew(&self.client, &self.layout, self.calls).await?;
        self.commits.renewed(old, new);
        Ok(Revision {
            epoch: new.0,
            commit,
        })
    }
}

#[async_trait]
impl Store for Etcd {
    async fn read_all(&self, prefix: &KeyPrefix, reader: &mut dyn Reader) -> Result<(), ReadError> {
        listing::read_all(&self.client, &self.layout, self.calls, prefix, reader).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Record>, ReadError> {
        let kv = self.client.kv_client();
        let got = self.calls.get(&kv, self.layout.record(key), None);
        let mut got = got.await.map_err(read_error)?;
        let found = got.take_kvs().pop();
        found.map(|kv| self.layout.read_record(kv)).transpose()
    }

    async fn commit(&self, transaction: Transaction) -> Result<Revision, CommitError> {
        transaction.check_size()?;
        self.commits.commit(transaction).await
    }

    async fn watch(
        &self,
        prefix: &KeyPrefix,
        after: Revision,
    ) -> Result<Box<dyn Watch>, ReadError> {
        let began = watch::begin(&self.client, &self.layout, self.calls, prefix, after);
        Ok(Box::new(began.await?))
    }

    async fn announce(
        &self,
        key: &Key,
        value: Value,
        ttl: Duration,
    ) -> Result<Box<dyn Presence>, CommitError> {
        let put = Transaction::new().put(key.clone(), value);
        put.check_size()?;
        let lease = presence::grant(&self.client, self.calls, ttl).await?;
        let revision = self.commits.commit_leased(&put, lease.id).await?;
        let kept = presence::keep(self.client.clone(), self.calls, lease, revision);
        Ok(Box::new(kept))
    }

    /// etcd forgets for all who use it.
    async fn compact(&self, before: u64) -> Result<(), ReadError> {
        let newest = epoch::read(&self.client, &self.layout, self.calls).await?.1;
        // etcd keeps the changes of the commit that it is told; a watch begins with them.
        let through = before.min(newest).saturating_sub(1);
        if through == 0 {
            return Ok(());
        }
        let compacted = self.calls.ask(|| {
            let mut kv = self.client.kv_client();
            async move { kv.compact(through as i64, None).await }
        });
        match compacted.await {
            Ok(_) => Ok(()),
            Err(error) if call::is_compacted(&error) => Ok(()),
            Err(error) => Err(read_error(error)),
        }
    }
}

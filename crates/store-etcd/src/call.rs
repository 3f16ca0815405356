//! One call to etcd: not longer than the timeout, and what its failure means.
//!
//! Knows nothing of: what is asked.

use etcd_client::{Error, GetOptions, GetResponse, KvClient, Txn, TxnResponse};
use std::error::Error as _;
use std::fmt;
use std::time::Duration;
use store::{CommitError, ReadError};
use tokio::time::Instant;
use tonic::{Code, Status};

#[derive(Clone, Copy)]
pub(crate) struct Calls {
    timeout: Duration,
    /// The client takes members by chance, those that are down as well.
    attempts: usize,
}

/// So many for each member: that all of them go to the one that is down doesn't happen.
const ATTEMPTS_EACH: usize = 5;

#[derive(Debug)]
pub(crate) enum CallError {
    Etcd(Error),
    /// No answer within the timeout.
    Silence(Duration),
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("etcd can't be reached: {0}")]
    Unavailable(String),
    #[error("etcd refuses: {0}")]
    Refused(String),
    #[error(
        "the store in etcd has format {format}, this program knows {known} at most: a newer Portcullis has \
         made it, use that one"
    )]
    Newer { format: u64, known: u64 },
    #[error("{key} in etcd is not of Portcullis: {value:?}")]
    NotOurs { key: String, value: String },
}

impl Calls {
    pub(crate) fn new(timeout: Duration, members: usize) -> Self {
        let attempts = ATTEMPTS_EACH * members;
        Self { timeout, attempts }
    }

    pub(crate) fn timeout(self) -> Duration {
        self.timeout
    }

    /// No longer than until then; `None` if that is over.
    pub(crate) fn until(self, end: Instant) -> Option<Self> {
        let timeout = end.checked_duration_since(Instant::now())?;
        let timeout = timeout.min(self.timeout);
        Some(Self { timeout, ..self })
    }

    pub(crate) async fn get(
        self,
        kv: &KvClient,
        key: String,
        options: Option<GetOptions>,
    ) -> Result<GetResponse, CallError> {
        let call = || {
            let (mut kv, key, options) = (kv.clone(), key.clone(), options.clone());
            async move { kv.get(key, options).await }
        };
        self.ask(call).await
    }

    pub(crate) async fn txn(self, kv: &KvClient, txn: Txn) -> Result<TxnResponse, CallError> {
        let call = || {
            let (mut kv, txn) = (kv.clone(), txn.clone());
            async move { kv.txn(txn).await }
        };
        self.ask(call).await
    }

    /// Sent once: what is tried again has found nobody to send to.
    pub(crate) async fn ask<T, F>(self, mut call: impl FnMut() -> F) -> Result<T, CallError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let attempts = async {
            for _ in 1..self.attempts {
                match call().await {
                    Err(Error::GRpcStatus(status)) if never_connected(&status) => {}
                    answer => return answer,
                }
            }
            call().await
        };
        self.wait_for(attempts).await
    }

    pub(crate) async fn wait_for<T>(
        self,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, CallError> {
        match tokio::time::timeout(self.timeout, answer).await {
            Ok(answer) => answer.map_err(CallError::Etcd),
            Err(_) => Err(CallError::Silence(self.timeout)),
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Etcd(Error::GRpcStatus(status)) => {
                write!(f, "{:?}: {}", status.code(), status.message())?;
                let mut source = status.source();
                while let Some(error) = source {
                    write!(f, ": {error}")?;
                    source = error.source();
                }
                Ok(())
            }
            Self::Etcd(error) => write!(f, "{error}"),
            Self::Silence(timeout) => write!(f, "no answer within {timeout:?}"),
        }
    }
}

impl From<CallError> for ConnectError {
    fn from(error: CallError) -> Self {
        match read_error(error) {
            ReadError::Unavailable(why) => Self::Unavailable(why),
            ReadError::Broken(why) => Self::Refused(why),
        }
    }
}

/// What a failed read means.
pub(crate) fn read_error(error: CallError) -> ReadError {
    let why = error.to_string();
    match status(&error).map(Status::code) {
        Some(
            Code::DataLoss
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::InvalidArgument
            | Code::Unimplemented,
        ) => ReadError::Broken(why),
        _ => ReadError::Unavailable(why),
    }
}

/// What a failed write means. Only what etcd says before it does anything, and a connection that never was,
/// mean that nothing has happened.
///
/// Source: etcd's `rpctypes/error.go`. "database space exceeded" isn't judged here: a write that fills the
/// quota is done, and then refused.
pub(crate) fn commit_error(error: CallError) -> CommitError {
    let why = error.to_string();
    let Some(status) = status(&error) else {
        return CommitError::Unknown(why);
    };
    match status.code() {
        Code::Unavailable if never_connected(status) => CommitError::Unavailable(why),
        // We ask for a leader, and a member without one refuses at its door.
        Code::Unavailable if status.message() == "etcdserver: no leader" => {
            CommitError::Unavailable(why)
        }
        Code::ResourceExhausted if status.message().contains("too many requests") => {
            CommitError::Unavailable(why)
        }
        Code::DataLoss
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::InvalidArgument
        | Code::Unimplemented => CommitError::Broken(why),
        _ => CommitError::Unknown(why),
    }
}

pub(crate) fn is_full(error: &CallError) -> bool {
    status(error).is_some_and(|status| {
        status.code() == Code::ResourceExhausted
            && status.message().contains("database space exceeded")
    })
}

pub(crate) fn is_compacted(error: &CallError) -> bool {
    status(error).is_some_and(|status| {
        status.code() == Code::OutOfRange && status.message().contains("has been compacted")
    })
}

fn status(error: &CallError) -> Option<&Status> {
    match error {
        CallError::Etcd(Error::GRpcStatus(status)) => Some(status),
        _ => None,
    }
}

fn never_connected(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

//! A copy of the server's store, to whoever is an admin: a file for `portcullis restore`.
//!
//! ```text
//! GET /portcullis/v1/backup    -> Content-Length, x-portcullis-sha256, x-portcullis-revision, the file
//! ```
//! Invariants: who has so many bytes, with that digest, has it whole; one that was cut short has not. Who doesn't take
//! it is cut off, as nobody else gets a copy meanwhile.
//! Knows nothing of: what is in the file.

use crate::fault::Fault;
use crate::front::Api;
use crate::policy::admin;
use crate::serve::Answer;
use axum::body::Body;
use bytes::Bytes;
use control::{Caller, Copied, CopyError};
use http::{HeaderName, HeaderValue, StatusCode, header};
use hyper::body::{Body as HttpBody, Frame};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};

const SHA256: HeaderName = HeaderName::from_static("x-portcullis-sha256");
const REVISION: HeaderName = HeaderName::from_static("x-portcullis-revision");

const CHUNK_BYTES: usize = 256 * 1024;
/// So many wait for the connection.
const CHUNKS: usize = 4;

pub(crate) async fn backup(api: &Api, who: &Caller) -> Result<Answer, Fault> {
    admin(who, "get_backup")?;
    let copies = api.copies.as_ref().ok_or_else(|| {
        let says = "The server's store is an etcd: its own tools make a snapshot of it.";
        Fault::new(StatusCode::CONFLICT, "NoBackupOfEtcd", says)
    })?;
    let copied = copies.make().await.map_err(refused)?;
    let (copied, measured) = spawn_blocking(move || measured(copied))
        .await
        .map_err(|panic| unavailable(&panic))?
        .map_err(|error| unavailable(&error))?;
    info!(revision = %copied.revision, user = who.user, bytes = measured.bytes, "a backup is sent");
    let headers = vec![
        (
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/octet-stream"),
        ),
        (header::CONTENT_LENGTH, HeaderValue::from(measured.bytes)),
        (SHA256, text(&measured.sha256)),
        (REVISION, text(&copied.revision.to_string())),
    ];
    let (to, chunks) = mpsc::channel(CHUNKS);
    tokio::spawn(send(copied, to, api.limits.taking_time));
    Ok(Answer::content(Body::new(Chunks(chunks)), headers))
}

/// As they are read.
struct Chunks(Receiver<io::Result<Bytes>>);

impl HttpBody for Chunks {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let next = self.0.poll_recv(cx);
        next.map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}

struct Measured {
    bytes: u64,
    sha256: String,
}

/// The file, to be read from its beginning.
fn measured(mut copied: Copied) -> io::Result<(Copied, Measured)> {
    let mut digest = Sha256::new();
    let mut bytes = 0;
    while let Some(chunk) = next(&mut copied.file)? {
        digest.update(&chunk);
        bytes += chunk.len() as u64;
    }
    copied.file.rewind()?;
    let digits = digest.finalize();
    let digits = digits.iter().map(|byte| format!("{byte:02x}"));
    let sha256 = digits.collect();
    Ok((copied, Measured { bytes, sha256 }))
}

async fn send(mut copied: Copied, to: Sender<io::Result<Bytes>>, patience: Duration) {
    loop {
        let read = spawn_blocking(move || {
            let chunk = next(&mut copied.file);
            (copied, chunk)
        });
        let chunk;
        (copied, chunk) = match read.await {
            Ok(read) => read,
            Err(panic) => return warn!(%panic, "the copy of the store can't be read"),
        };
        let chunk = match chunk {
            Ok(Some(chunk)) => chunk,
            Ok(None) => return,
            Err(error) => {
                warn!(%error, "the copy of the store can't be read");
                return drop(to.try_send(Err(error)));
            }
        };
        match timeout(patience, to.send(Ok(chunk))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return warn!("a backup was not taken to its end: the client went"),
            Err(_) => {
                // The answer ends short of its length, and so the connection.
                return warn!("a backup was not taken to its end: the client is too slow");
            }
        }
    }
}

fn next(file: &mut File) -> io::Result<Option<Bytes>> {
    let mut chunk = Vec::with_capacity(CHUNK_BYTES);
    file.take(CHUNK_BYTES as u64).read_to_end(&mut chunk)?;
    Ok((!chunk.is_empty()).then(|| chunk.into()))
}

fn refused(error: CopyError) -> Fault {
    match error {
        CopyError::Busy => {
            let says = "Another backup is being made or sent: one at a time.";
            Fault::new(StatusCode::CONFLICT, "BackupUnderWay", says)
        }
        CopyError::Store(_) | CopyError::Io { .. } | CopyError::Ended(_) => unavailable(&error),
    }
}

/// Admins may know why: the disk is full, most likely.
fn unavailable(why: &dyn std::fmt::Display) -> Fault {
    warn!(%why, "there is no backup");
    Fault::unavailable(format!("There is no backup: {why}."))
}

fn text(of: &str) -> HeaderValue {
    HeaderValue::try_from(of).expect("digits, letters and signs")
}

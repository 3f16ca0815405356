//! Connections: HTTP/1.1 on a listener, with TLS or without, each bounded in time and together in number.
//!
//! ```text
//! listener -> a place among `connections` -> TLS handshake -> requests, one after the other -> end
//! ```
//! At the bound the next client waits in the kernel's queue. Who is slow with a handshake or a request's head is cut
//! off, and so is who keeps a connection and asks nothing.
//! Knows nothing of: what is asked.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub connections: usize,
    /// For a request's head, and for a connection without any.
    pub head_time: Duration,
    pub handshake_time: Duration,
    /// What is being answered when the server stops has so long.
    pub last_answers: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 4096,
            head_time: Duration::from_secs(30),
            handshake_time: Duration::from_secs(10),
            last_answers: Duration::from_secs(10),
        }
    }
}

/// A request's line and headers together.
const MOST_HEAD_BYTES: usize = 64 * 1024;
const MOST_HEADERS: usize = 100;
/// After the listener has failed: out of file descriptors, say.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the certificate or the key in {path} can't be read: {source}")]
    Read {
        path: PathBuf,
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    #[error("the certificate and the key can't be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// From files in PEM: the server's certificate with those above it, and its key.
pub fn tls(certificates: &Path, key: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let wrong = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Read { path, source }
    };
    let chain = CertificateDer::pem_file_iter(certificates).map_err(wrong(certificates))?;
    let chain = chain
        .collect::<Result<Vec<_>, _>>()
        .map_err(wrong(certificates))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(wrong(key))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(Arc::new(config))
}

/// Until `shutdown` is done; then what is being answered still is.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    bounds: Bounds,
    shutdown: impl Future<Output = ()>,
) {
    let tls = tls.map(TlsAcceptor::from);
    let places = Arc::new(Semaphore::new(bounds.connections));
    let open = GracefulShutdown::new();
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            next = next => next,
            () = &mut shutdown => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(cause) => {
                lost(&cause);
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let connection = Connection {
            router: router.clone(),
            bounds,
            watcher: open.watcher(),
        };
        let tls = tls.clone();
        tokio::spawn(async move {
            let _place = place;
            connection.accept(stream, tls).await;
        });
    }
    drop(listener);
    if timeout(bounds.last_answers, open.shutdown()).await.is_err() {
        warn!("connections were cut off: the server stops");
    }
}

fn lost(cause: &io::Error) {
    warn!(%cause, "a connection can't be accepted");
}

struct Connection {
    router: Router,
    bounds: Bounds,
    watcher: hyper_util::server::graceful::Watcher,
}

impl Connection {
    async fn accept(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        // Answers are small, and written whole.
        let _ = stream.set_nodelay(true);
        let Some(tls) = tls else {
            return self.serve(stream).await;
        };
        match timeout(self.bounds.handshake_time, tls.accept(stream)).await {
            Ok(Ok(stream)) => self.serve(stream).await,
            Ok(Err(cause)) => debug!(%cause, "a TLS handshake failed"),
            Err(_) => debug!("a TLS handshake took too long"),
        }
    }

    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) {
        let service = TowerToHyperService::new(self.router);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.bounds.head_time)
            .max_buf_size(MOST_HEAD_BYTES)
            .max_headers(MOST_HEADERS)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(cause) = self.watcher.watch(connection).await {
            debug!(%cause, "a connection ended");
        }
    }
}

//! A server for one test: on a port of its own, with a store of its own, gone with the test.

use crate::client::Client;
use api::{Api, Audit, Bounds, Enforcement, Identity, Limits, PortStatus};
use control::objects::{Quota, Resource};
use control::{Control, Copies};
use model::{HostId, PortId, Revision};
use serde_json::Value;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use store::Store;
use store::embedded::Embedded;
use store::memory::Memory;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) struct Bed {
    pub(crate) address: SocketAddr,
    pub(crate) audit: Lines,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<()>,
}

/// What tests vary.
pub(crate) struct Plan {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) copies: Option<Copies>,
    pub(crate) identity: Identity,
    pub(crate) limits: Limits,
    pub(crate) bounds: Bounds,
    pub(crate) quota: Quota,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
}

/// For TLS, signed by itself; in files as long as it is held.
pub(crate) struct Certificate {
    pub(crate) made: rcgen::CertifiedKey<rcgen::KeyPair>,
    pub(crate) file: PathBuf,
    pub(crate) key: PathBuf,
    _directory: TempDir,
}

/// What was written to the audit log.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

/// Ports called so have a host that says so.
struct ByName;

impl Enforcement for ByName {
    fn port(&self, host: &HostId, _: &PortId, _: Revision) -> Option<PortStatus> {
        (host.as_str() != "elsewhere").then_some(PortStatus::Active)
    }

    fn is_connected(&self, host: &HostId) -> bool {
        host.as_str() == "alive"
    }
}

impl Default for Plan {
    /// Who asks is said in headers; nobody meets a quota by accident.
    fn default() -> Self {
        Self {
            store: Arc::new(Memory::new()),
            copies: None,
            identity: Identity::Headers,
            limits: Limits::default(),
            bounds: Bounds::default(),
            quota: Quota::of(Resource::ALL.map(|resource| (resource, -1))),
            tls: None,
        }
    }
}

impl Plan {
    pub(crate) fn embedded(path: &Path) -> Self {
        let store = Embedded::open(path).expect("the directory is ours");
        let store = Arc::new(store);
        Self {
            copies: Some(Copies::new(store.clone(), path)),
            store,
            ..Self::default()
        }
    }

    pub(crate) async fn start(self) -> Bed {
        let control = Control::open_with(self.store, Vec::new(), self.quota).await;
        let audit = Lines::default();
        let api = Arc::new(Api {
            control: Arc::new(control.expect("the store is ours")),
            identity: self.identity,
            limits: self.limits,
            audit: Audit::new(audit.clone()),
            enforcement: Arc::new(ByName),
            copies: self.copies,
            public_url: None,
            secure: self.tls.is_some(),
        });
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the loopback is there");
        let address = listener.local_addr().expect("it is bound");
        let (stop, stopped) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let router = api::router(api);
        let server = tokio::spawn(api::serve(
            listener,
            self.tls,
            router,
            self.bounds,
            shutdown,
        ));
        Bed {
            address,
            audit,
            stop: Some(stop),
            server,
        }
    }
}

impl Bed {
    pub(crate) async fn new() -> Self {
        Plan::default().start().await
    }

    pub(crate) fn admin(&self) -> Client {
        Client::new(self.address).says("admin", "admins", "admin")
    }

    /// In the project of the same name.
    pub(crate) fn member(&self, project: &str) -> Client {
        Client::new(self.address).says("somebody", project, "member")
    }

    pub(crate) fn reader(&self, project: &str) -> Client {
        Client::new(self.address).says("somebody", project, "reader")
    }

    /// Once all that was asked is answered, and the store is let go.
    pub(crate) async fn stop(mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        (&mut self.server).await.expect("the server stops");
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Certificate {
    pub(crate) fn of_localhost() -> Self {
        let directory = tempfile::tempdir().expect("there is room");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]);
        let made = made.expect("it can be made");
        let file = directory.path().join("cert.pem");
        let key = directory.path().join("key.pem");
        std::fs::write(&file, made.cert.pem()).expect("it is ours");
        std::fs::write(&key, made.signing_key.serialize_pem()).expect("it is ours");
        Self {
            made,
            file,
            key,
            _directory: directory,
        }
    }

    pub(crate) fn tls(&self) -> Arc<rustls::ServerConfig> {
        api::tls(&self.file, &self.key).expect("both are there")
    }
}

impl Lines {
    pub(crate) fn all(&self) -> Vec<Value> {
        let bytes = self.0.lock().expect("nothing panics while it is held");
        let lines = String::from_utf8(bytes.clone()).expect("it is text");
        let line = |line: &str| serde_json::from_str(line).expect("a line is JSON");
        lines.lines().map(line).collect()
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("nothing panics while it is held")
            .extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! A member that shows a certificate, and asks for one.

use crate::server::Server;
use crate::words::{commit, key, put, within};
use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use store::Store;
use store_etcd::{ConnectError, Etcd, Tls};
use tempfile::TempDir;

struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        let issuer = Issuer::new(params, key);
        Self {
            certificate,
            issuer,
        }
    }

    /// A certificate for this address, and its key.
    fn sign(&self) -> (String, String) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address");
        let signed = params.signed_by(&key, &self.issuer).expect("a certificate");
        (signed.pem(), key.serialize_pem())
    }
}

fn write(directory: &TempDir, name: &str, text: &str) -> String {
    let path = directory.path().join(name);
    std::fs::write(&path, text).expect("a file");
    path.display().to_string()
}

/// Served by one authority; asked by who believes in `believed` and shows `client`.
async fn check(
    server: &Server,
    believed: &Authority,
    client: Option<(String, String)>,
    expected: bool,
) {
    let mut config = server.config();
    config.tls = Some(Tls {
        ca: believed.certificate.pem(),
        client,
    });
    match within(Etcd::connect(config)).await {
        Ok(store) => {
            assert!(expected, "connected");
            let revision = commit(&store, put("a", "1")).await;
            let record = store.get(&key("a")).await.expect("it answers");
            assert_eq!(record.map(|record| record.modified), Some(revision.commit));
        }
        Err(ConnectError::Unavailable(why)) => assert!(!expected, "{why}"),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn both_ends_prove_who_they_are() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let directory = tempfile::tempdir().expect("a directory");
    let (certificate, private) = ours.sign();
    let certificate = write(&directory, "server.pem", &certificate);
    let private = write(&directory, "server.key", &private);
    let ca = write(&directory, "ca.pem", &ours.certificate.pem());
    let server = Server::start_with(&[
        "--client-cert-auth",
        "--trusted-ca-file",
        &ca,
        "--cert-file",
        &certificate,
        "--key-file",
        &private,
    ]);
    check(&server, &ours, Some(ours.sign()), true).await;
    check(&server, &ours, None, false).await;
    check(&server, &ours, Some(theirs.sign()), false).await;
    check(&server, &theirs, Some(ours.sign()), false).await;
}

//! Connections: TLS, slow clients, many of them, and the end.

use crate::bed::{Bed, Certificate, Plan};
use api::{Bounds, Limits};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const SOON: Duration = Duration::from_millis(100);
const HEAD: &str = "x-user-id: u\r\nx-project-id: p\r\nx-roles: member\r\nhost: h\r\n";

async fn connect(bed: &Bed) -> TcpStream {
    TcpStream::connect(bed.address)
        .await
        .expect("the server listens")
}

/// All that comes until the server closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end, too.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8_lossy(&bytes).into_owned()
}

#[tokio::test]
async fn clients_come_by_tls() {
    let own = Certificate::of_localhost();
    let plan = Plan {
        tls: Some(own.tls()),
        ..Plan::default()
    };
    let bed = plan.start().await;
    let mut roots = RootCertStore::empty();
    roots
        .add(own.made.cert.der().clone())
        .expect("it is a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("they are there")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").expect("it is a name");
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, connect(&bed).await)
        .await;
    let mut stream = stream.expect("the handshake is done");
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await
        .expect("it is taken");
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.contains("https://localhost/v2.0/"),
        "links say so: {answer}"
    );
    // Without TLS there is no answer.
    let mut plain = connect(&bed).await;
    plain
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .expect("it is taken");
    assert!(!rest(&mut plain).await.contains("HTTP/1.1"));
    assert!(api::tls(&own.key, &own.file).is_err());
}

#[tokio::test]
async fn who_is_slow_is_cut_off() {
    let plan = Plan {
        bounds: Bounds {
            head_time: SOON,
            ..Bounds::default()
        },
        limits: Limits {
            body_time: SOON,
            ..Limits::default()
        },
        ..Plan::default()
    };
    let bed = plan.start().await;
    let mut head = connect(&bed).await;
    head.write_all(b"GET / HTTP/1.1\r\nhost:")
        .await
        .expect("it is taken");
    assert!(!rest(&mut head).await.contains("200"));
    let mut body = connect(&bed).await;
    let request =
        format!("POST /v2.0/security-groups HTTP/1.1\r\n{HEAD}content-length: 100\r\n\r\n{{");
    body.write_all(request.as_bytes())
        .await
        .expect("it is taken");
    let answer = rest(&mut body).await;
    assert!(
        answer.starts_with("HTTP/1.1 408") && answer.contains("HTTPRequestTimeout"),
        "{answer}"
    );
    // Who keeps a connection and asks nothing.
    let mut idle = connect(&bed).await;
    idle.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        .await
        .expect("it is taken");
    assert!(rest(&mut idle).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn what_is_too_long_is_refused() {
    let bed = Bed::new().await;
    let long = "x".repeat(1 << 20);
    for request in [
        format!("GET /{long} HTTP/1.1\r\nhost: h\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: h\r\nx-long: {long}\r\n\r\n"),
        "GET / HTTP/1.1\r\n".to_owned() + &"a: b\r\n".repeat(1000) + "\r\n",
        "GET / HTTP/9\r\n\r\n".to_owned(),
    ] {
        let mut stream = connect(&bed).await;
        let _ = stream.write_all(request.as_bytes()).await;
        let answer = rest(&mut stream).await;
        let refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(refused, "{:.100}: {:.200}", request, answer);
    }
    bed.member("alice").get("security-groups").await.done(200);
}

#[tokio::test]
async fn who_isnt_known_sends_no_body() {
    let bed = Bed::new().await;
    let mut stream = connect(&bed).await;
    let request =
        "POST /v2.0/security-groups HTTP/1.1\r\nhost: h\r\ncontent-length: 16000000\r\n\r\n";
    stream
        .write_all(request.as_bytes())
        .await
        .expect("it is taken");
    let mut answer = [0; 12];
    stream
        .read_exact(&mut answer)
        .await
        .expect("it is answered before the body");
    assert_eq!(&answer, b"HTTP/1.1 401");
}

#[tokio::test]
async fn at_the_bound_the_next_waits() {
    let plan = Plan {
        bounds: Bounds {
            connections: 1,
            ..Bounds::default()
        },
        ..Plan::default()
    };
    let bed = plan.start().await;
    let mut first = connect(&bed).await;
    first
        .write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        .await
        .expect("it is taken");
    let mut answer = [0; 12];
    first.read_exact(&mut answer).await.expect("it is answered");
    let mut second = connect(&bed).await;
    second
        .write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n")
        .await
        .expect("it is taken");
    drop(first);
    assert!(rest(&mut second).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn the_end_waits_for_answers_only() {
    let bed = Bed::new().await;
    let mut idle = connect(&bed).await;
    idle.write_all(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
        .await
        .expect("it is taken");
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.expect("it is answered");
    bed.stop().await;
    assert!(
        !rest(&mut idle).await.is_empty(),
        "the rest of the answer, and the end"
    );
}

//! Tokens of Keystone, against a server of our own that speaks the two endpoints we use. No real one was at hand.

use crate::bed::{Bed, Certificate, Plan};
use crate::client::Client;
use api::{Identity, Keystone, KeystoneSettings};
use axum::Router;
use axum::body::{Body, to_bytes};
use http::{Method, Request, Response};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What it was asked: methods and tokens.
#[derive(Default)]
struct Seen {
    logins: usize,
    validations: Vec<String>,
    /// Tokens of ours that it takes no more.
    revoked: bool,
    broken: bool,
}

struct Double {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    server: JoinHandle<()>,
    /// If it is asked by TLS.
    certificate: Option<Certificate>,
}

impl Double {
    async fn new() -> Self {
        Self::with(None).await
    }

    async fn with(certificate: Option<Certificate>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("the loopback is there");
        let address = listener.local_addr().expect("it is bound");
        let seen = Arc::new(Mutex::new(Seen::default()));
        let state = seen.clone();
        let router = Router::new().fallback(move |request| speak(state.clone(), request));
        let bounds = api::Bounds::default();
        let server = tokio::spawn(api::serve(
            listener,
            certificate.as_ref().map(Certificate::tls),
            router,
            bounds,
            std::future::pending(),
        ));
        Self {
            address,
            seen,
            server,
            certificate,
        }
    }

    async fn bed(&self) -> Bed {
        let scheme = match &self.certificate {
            Some(_) => "https",
            None => "http",
        };
        let settings = KeystoneSettings {
            auth_url: format!("{scheme}://localhost:{}/v3", self.address.port()),
            user: "portcullis".into(),
            user_domain: "Default".into(),
            password: "secret".into(),
            project: "service".into(),
            project_domain: "Default".into(),
            ca_file: self.certificate.as_ref().map(|own| own.file.clone()),
        };
        let keystone = Keystone::new(settings).expect("it is an address");
        let plan = Plan {
            identity: Identity::Keystone(Box::new(keystone)),
            ..Plan::default()
        };
        plan.start().await
    }

    fn tell<T>(&self, with: impl FnOnce(&mut Seen) -> T) -> T {
        with(&mut self.seen.lock().expect("nothing panics while it is held"))
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn speak(seen: Arc<Mutex<Seen>>, request: Request<Body>) -> Response<Body> {
    assert_eq!(request.uri().path(), "/v3/auth/tokens");
    let (head, body) = request.into_parts();
    let body = to_bytes(body, 10_000).await.expect("it is short");
    let mut seen = seen.lock().expect("nothing panics while it is held");
    let answer = |status: u16, body: Value| {
        let answer = Response::builder().status(status);
        let answer = answer.header("x-subject-token", "ours");
        answer
            .body(Body::from(body.to_string()))
            .expect("it is an answer")
    };
    if seen.broken {
        return answer(500, json!({}));
    }
    if head.method == Method::POST {
        let login: Value = serde_json::from_slice(&body).expect("it is JSON");
        let user = &login["auth"]["identity"]["password"]["user"];
        assert_eq!(
            (&user["name"], &user["password"]),
            (&json!("portcullis"), &json!("secret"))
        );
        assert_eq!(login["auth"]["scope"]["project"]["name"], "service");
        seen.logins += 1;
        seen.revoked = false;
        return answer(201, json!({"token": {}}));
    }
    assert_eq!(head.headers["x-auth-token"], "ours");
    if seen.revoked {
        return answer(401, json!({}));
    }
    let token = head.headers["x-subject-token"]
        .to_str()
        .expect("it is text")
        .to_owned();
    seen.validations.push(token.clone());
    let role = match token.as_str() {
        "alice" => "member",
        "root" => "admin",
        "guest" => "stranger",
        _ => return answer(404, json!({"error": {}})),
    };
    let token = json!({
        "user": {"id": token}, "project": {"id": "p"}, "roles": [{"name": role}],
        "expires_at": "2999-01-01T00:00:00.000000Z",
    });
    answer(200, json!({ "token": token }))
}

#[tokio::test]
async fn keystone_says_who_has_a_token() {
    let double = Double::new().await;
    let bed = double.bed().await;
    let with = |token: &str| Client::new(bed.address).with("x-auth-token", token);
    let made = with("alice")
        .post("security-groups", json!({"security_group": {}}))
        .await
        .done(201);
    assert_eq!(made.body["security_group"]["project_id"], "p");
    let host = json!({"agent": {}});
    with("alice")
        .put("agents/h", host.clone())
        .await
        .refused(403, "PolicyNotAuthorized");
    with("root").put("agents/h", host).await.done(200);
    for stranger in ["nobody", "guest"] {
        with(stranger)
            .get("security-groups")
            .await
            .refused(401, "HTTPUnauthorized");
    }
    Client::new(bed.address)
        .get("security-groups")
        .await
        .refused(401, "HTTPUnauthorized");
    // Yes is remembered, no is not.
    with("nobody")
        .get("security-groups")
        .await
        .refused(401, "HTTPUnauthorized");
    let (logins, validations) = double.tell(|seen| (seen.logins, seen.validations.clone()));
    assert_eq!(logins, 1);
    assert_eq!(validations, ["alice", "root", "nobody", "guest", "nobody"]);
}

#[tokio::test]
async fn keystone_is_asked_by_tls_and_has_to_be_itself() {
    let own = Certificate::of_localhost();
    let double = Double::with(Some(own)).await;
    let bed = double.bed().await;
    let alice = |bed: &Bed| Client::new(bed.address).with("x-auth-token", "alice");
    alice(&bed).get("security-groups").await.done(200);
    let mut other = Double::with(Some(Certificate::of_localhost())).await;
    other.certificate = Some(Certificate::of_localhost());
    let bed = other.bed().await;
    let refused = alice(&bed).get("security-groups").await;
    refused.refused(503, "HTTPServiceUnavailable");
    assert_eq!(
        other.tell(|seen| seen.logins),
        0,
        "our password went nowhere"
    );
}

#[tokio::test]
async fn our_own_token_is_had_anew() {
    let double = Double::new().await;
    let bed = double.bed().await;
    let with = |token: &str| Client::new(bed.address).with("x-auth-token", token);
    with("alice").get("security-groups").await.done(200);
    double.tell(|seen| seen.revoked = true);
    with("root").get("security-groups").await.done(200);
    assert_eq!(double.tell(|seen| seen.logins), 2);
}

#[tokio::test]
async fn without_keystone_nobody_new_is_let_in() {
    let double = Double::new().await;
    let bed = double.bed().await;
    let with = |token: &str| Client::new(bed.address).with("x-auth-token", token);
    with("alice").get("security-groups").await.done(200);
    double.tell(|seen| seen.broken = true);
    with("root")
        .get("security-groups")
        .await
        .refused(503, "HTTPServiceUnavailable");
    with("alice").get("security-groups").await.done(200);
}

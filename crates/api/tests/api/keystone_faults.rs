//! What a Keystone says that is broken: no real one can be made to, so these answers come from a server of our own.
//! All else about Keystone is tried with the real service (`keystone.rs`).

use crate::bed::Plan;
use crate::client::Client;
use api::{Identity, Keystone, KeystoneSettings};
use axum::Router;
use axum::body::Body;
use http::{Method, Request, Response};
use serde_json::json;
use tokio::net::TcpListener;

const OURS: Option<&str> = Some("ours");

/// Status, `X-Subject-Token`, body.
type Says = (u16, Option<&'static str>, String);

fn answer((status, subject, body): Says) -> Response<Body> {
    let mut answer = Response::builder().status(status);
    if let Some(subject) = subject {
        answer = answer.header("x-subject-token", subject);
    }
    answer.body(Body::from(body)).expect("it is an answer")
}

/// What a client is told if that is the answer to our password, and that to whose its token is.
async fn check(login: Says, validation: Says, expected: (u16, &str)) {
    let listener = TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.expect("the loopback is there");
    let address = listener.local_addr().expect("it is bound");
    let said = format!("{login:?} {validation:.60?}");
    let router = Router::new().fallback(move |request: Request<Body>| async move {
        assert_eq!(request.uri().path(), "/v3/auth/tokens");
        answer(match *request.method() {
            Method::POST => login,
            _ => validation,
        })
    });
    let stop = std::future::pending();
    let server = tokio::spawn(api::serve(listener, None, router, Default::default(), stop));
    let settings = KeystoneSettings {
        auth_url: format!("http://{address}"),
        user: "portcullis".into(),
        user_domain: "Default".into(),
        password: "secret".into(),
        project: "service".into(),
        project_domain: "Default".into(),
        ca_file: None,
    };
    let keystone = Keystone::new(settings).expect("it is an address");
    let plan = Plan {
        identity: Identity::Keystone(Box::new(keystone)),
        ..Plan::default()
    };
    let bed = plan.start().await;
    let client = Client::new(bed.address).with("x-auth-token", "a-token");
    let got = client.get("security-groups").await;
    let kind = got.body["NeutronError"]["type"].as_str();
    let got = (got.status.as_u16(), kind.unwrap_or_default());
    assert_eq!(got, expected, "{said}");
    server.abort();
}

#[tokio::test]
async fn a_keystone_that_is_broken_lets_nobody_in() {
    let fine = || (201, OURS, json!({"token": {}}).to_string());
    let roles = json!([{"name": "admin"}]);
    let named = json!({
        "user": {"id": "u"}, "project": {"id": "p"}, "roles": roles,
        "expires_at": "2999-01-01T00:00:00.000000Z",
    });
    let named = || (200, None, json!({ "token": named }).to_string());
    let (unknown, unavailable) = ((401, "HTTPUnauthorized"), (503, "HTTPServiceUnavailable"));
    // So it would be in order.
    check(fine(), named(), (200, "")).await;

    let nothing = || (500, None, String::new());
    check(nothing(), named(), unavailable).await;
    check((201, None, String::new()), named(), unavailable).await;
    check(fine(), nothing(), unavailable).await;
    // Our token is taken no more, nor is the next: we ask for one again, and no more than that.
    check(fine(), (401, None, String::new()), unavailable).await;
    check(fine(), (302, None, String::new()), unavailable).await;
    // Longer than any token is described.
    check(fine(), (200, None, " ".repeat(1 << 21)), unavailable).await;
    // Yes, and it names nobody.
    for named in ["", "{", "[]", r#"{"token": {}}"#, r#"{"token": null}"#] {
        check(fine(), (200, None, named.into()), unknown).await;
    }
}

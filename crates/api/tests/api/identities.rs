//! Who asks.

use crate::bed::Plan;
use crate::client::Client;
use api::{Identity, Tokens};

async fn tries(identity: Identity, rows: &[(&[(&str, &str)], u16)]) {
    let plan = Plan {
        identity,
        ..Plan::default()
    };
    let bed = plan.start().await;
    for (headers, status) in rows {
        let client = Client::new(bed.address);
        let client = headers
            .iter()
            .fold(client, |client, (name, value)| client.with(name, value));
        for path in ["security-groups", "security-groups/x", "nothing"] {
            let answer = client.get(path).await;
            let expected = match (status, path) {
                (200, "security-groups") => 200,
                (200, _) => 404,
                (status, _) => *status,
            };
            assert_eq!(
                answer.status, expected,
                "{path} {headers:?}: {}",
                answer.body
            );
            if expected == 401 {
                assert!(answer.headers.contains_key("www-authenticate"));
            }
        }
        client.get("/").await.done(200);
        client.get("/openapi.json").await.done(200);
    }
}

#[tokio::test]
async fn nobody_is_asked() {
    let nobody = Identity::Nobody {
        project: "default".into(),
    };
    tries(nobody, &[(&[], 200), (&[("x-auth-token", "any")], 200)]).await;
}

#[tokio::test]
async fn tokens_are_in_a_file() {
    let file = tempfile::NamedTempFile::new().expect("there is room");
    std::fs::write(file.path(), "0123456789abcdef alice p1 member\n").expect("it is ours");
    let tokens = Tokens::read(file.path()).expect("it is a file of tokens");
    tries(
        Identity::Tokens(tokens),
        &[
            (&[], 401),
            (&[("x-auth-token", "")], 401),
            (&[("x-auth-token", "0123456789abcdee")], 401),
            (&[("x-auth-token", "0123456789abcdef")], 200),
            (&[("authorization", "Bearer 0123456789abcdef")], 200),
            (
                &[
                    ("x-user-id", "a"),
                    ("x-project-id", "p"),
                    ("x-roles", "admin"),
                ],
                401,
            ),
        ],
    )
    .await;
}

#[tokio::test]
async fn a_proxy_says_who_it_is() {
    tries(
        Identity::Headers,
        &[
            (&[], 401),
            (&[("x-user-id", "a"), ("x-project-id", "p")], 401),
            (
                &[
                    ("x-user-id", "a"),
                    ("x-project-id", "p"),
                    ("x-roles", "stranger"),
                ],
                401,
            ),
            (
                &[
                    ("x-user-id", "a"),
                    ("x-project-id", "p"),
                    ("x-roles", "reader"),
                ],
                200,
            ),
        ],
    )
    .await;
}

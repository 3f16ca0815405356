//! Tokens of a real Keystone (the Makefile names its version), of users with passwords, projects and roles.

pub(crate) mod service;

use crate::bed::{Bed, Certificate};
use crate::client::{Answer, Client};
use crate::clients::{program, run};
use serde_json::json;
use service::{ACCOUNT, Account, Service, driver};
use std::time::{Duration, Instant};
use tokio::process::Command;

async fn lists(bed: &Bed, token: &str) -> Answer {
    let client = Client::new(bed.address).with("x-auth-token", token);
    client.get("security-groups").await
}

#[track_caller]
fn is_nobodys(answer: Answer) {
    answer.refused(401, "HTTPUnauthorized");
}

#[track_caller]
fn cannot_be_told(answer: Answer) {
    answer.refused(503, "HTTPServiceUnavailable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_come_by_their_passwords_and_may_what_their_roles_say() {
    let keystone = Service::start().await;
    let bed = keystone.bed().await;
    let mut sdk = Command::new(program("python"));
    sdk.arg("-Wignore").arg(driver()).arg(keystone.url());
    let said = run(sdk).await.unwrap_or_else(|said| panic!("{said}"));
    assert!(said.ends_with("done\n"), "{said}");
    // Not of a project, or without a role that says something to us; and what is no token.
    is_nobodys(lists(&bed, &keystone.unscoped_token("alice").await).await);
    is_nobodys(lists(&bed, &keystone.token("guest", "red").await).await);
    is_nobodys(lists(&bed, "no-token").await);
    is_nobodys(lists(&bed, &"x".repeat(5000)).await);
    is_nobodys(Client::new(bed.address).get("security-groups").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_token_goes_on_only_where_it_was_just_known() {
    let keystone = Service::start().await;
    let bed = keystone.bed().await;
    let token = keystone.token("alice", "red").await;
    lists(&bed, &token).await.done(200);
    keystone.revoke(&token, "alice", "red").await;
    let asked = keystone.asked();
    lists(&bed, &token).await.done(200);
    assert_eq!(
        keystone.asked(),
        asked,
        "what it has just said is remembered"
    );
    let other = keystone.bed_as(ACCOUNT).await;
    is_nobodys(lists(&other, &token).await);
    // By our password, and about the token.
    assert_eq!(keystone.asked(), asked + 2);
    is_nobodys(lists(&other, &token).await);
    assert_eq!(
        keystone.asked(),
        asked + 3,
        "what is no token isn't remembered"
    );
    lists(&other, &keystone.token("alice", "red").await)
        .await
        .done(200);
}

/// Theirs, though it was remembered, and ours, which is had anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_end() {
    let live = Duration::from_secs(15);
    let keystone = Service::start_with(live, None).await;
    let bed = keystone.bed().await;
    let first = keystone.token("alice", "red").await;
    let issued = Instant::now();
    lists(&bed, &first).await.done(200);
    // Counted in whole seconds.
    tokio::time::sleep_until((issued + live + Duration::from_secs(1)).into()).await;
    is_nobodys(lists(&bed, &first).await);
    let second = keystone.token("alice", "red").await;
    lists(&bed, &second).await.done(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_keystone_those_it_has_just_named_go_on_and_nobody_else() {
    let mut keystone = Service::start().await;
    let bed = keystone.bed().await;
    let alice = keystone.token("alice", "red").await;
    let root = keystone.token("root", "red").await;
    lists(&bed, &alice).await.done(200);
    keystone.kill().await;
    lists(&bed, &alice).await.done(200);
    let member = Client::new(bed.address).with("x-auth-token", &alice);
    let group = json!({"security_group": {"name": "made without"}});
    member.post("security-groups", group).await.done(201);
    cannot_be_told(lists(&bed, &root).await);
    cannot_be_told(lists(&bed, "no-token").await);
    keystone.restart().await;
    lists(&bed, &root).await.done(200);
    is_nobodys(lists(&bed, "no-token").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_keystone_does_not_know_lets_nobody_in() {
    let own = Certificate::of_localhost();
    let keystone = Service::start_with(Duration::from_secs(3600), Some(own)).await;
    let bed = keystone.bed().await;
    let alice = keystone.token("alice", "red").await;
    lists(&bed, &alice).await.done(200);
    let wrong_password = Account {
        password: "guessed",
        ..ACCOUNT
    };
    let bed = keystone.bed_as(wrong_password).await;
    cannot_be_told(lists(&bed, &alice).await);
    cannot_be_told(lists(&bed, "no-token").await);
    // It may come, and not ask whose a token is.
    let without_role = Account {
        user: "outsider",
        password: "outsider's",
    };
    let bed = keystone.bed_as(without_role).await;
    cannot_be_told(lists(&bed, &alice).await);
    // Nor has it any faith in a Keystone that others have signed.
    let others = Certificate::of_localhost();
    let bed = keystone.bed_that_trusts(ACCOUNT, Some(&others)).await;
    let asked = keystone.asked();
    assert!(asked > 0, "it says what it is asked");
    cannot_be_told(lists(&bed, &alice).await);
    assert_eq!(keystone.asked(), asked, "our password went nowhere");
}

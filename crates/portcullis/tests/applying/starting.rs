//! How a server starts: on which store, with which files, by which options, and when it does not.

use crate::{BIN, Site, check};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A server that has to refuse. One that serves in its place is ended, and is no refusal.
fn refuses(dir: &Path, arguments: &[&str], code: i32, says: &[&str]) -> String {
    let mut command = Command::new("timeout");
    command.args(["20", BIN, "server", "--listen", "127.0.0.1:0"]);
    command.args(arguments).current_dir(dir);
    check(&command.output().expect("the binary runs"), code, says)
}

fn ca(dir: &Path, words: &[&str]) {
    let mut command = Command::new(BIN);
    command.arg("ca").args(words).current_dir(dir);
    check(&command.output().expect("the binary runs"), 0, &[]);
}

#[test]
fn a_new_store_is_told_of_and_an_old_one_is_not() {
    let mut site = Site::new();
    let warned = "made a new, empty store";
    assert!(site.began.contains(warned), "{}", site.began);
    assert!(site.began.contains("WARN"), "{}", site.began);
    site.go_on_with("file:store");
    assert!(!site.began.contains(warned), "{}", site.began);
}

#[test]
fn a_path_without_its_directory_is_no_store() {
    let dir = tempfile::tempdir().expect("a directory");
    let says = ["there is no directory nowhere/at", "make the directory"];
    let store = ["--store", "file:nowhere/at/store"];
    refuses(dir.path(), &store, 4, &says);
    assert!(!dir.path().join("nowhere").exists());
}

#[test]
fn a_damaged_store_is_told_with_what_to_do_and_a_damaged_backup_as_one() {
    let mut site = Site::new();
    site.check(&["backup", "policy.backup"], 0, &[]);
    site.stop();
    for name in ["store", "policy.backup"] {
        let path = site.dir.path().join(name);
        let mut bytes = fs::read(&path).expect("it is there");
        bytes.truncate(bytes.len() / 2);
        fs::write(&path, bytes).expect("it is ours");
    }
    let dir = site.dir.path();
    let says = ["the store store is damaged", "Stop the service first"];
    refuses(dir, &["--store", "file:store"], 4, &says);
    let mut restore = Command::new(BIN);
    restore.args(["restore", "policy.backup", "--store", "file:other"]);
    let output = restore.current_dir(dir).output().expect("the binary runs");
    let says = [
        "the backup policy.backup is damaged",
        "nothing was restored",
    ];
    let said = check(&output, 4, &says);
    assert!(!said.contains("Move it away"), "{said}");
}

#[test]
fn a_certificate_or_key_that_fits_nothing_is_named_before_anything_is_served() {
    let dir = tempfile::tempdir().expect("a directory");
    let dir = dir.path();
    ca(dir, &["init"]);
    ca(dir, &["server", "127.0.0.1"]);
    ca(dir, &["host", "h1"]);
    fs::write(
        dir.join("bad.pem"),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    )
    .expect("it can be written");
    let agents = ["--store", "file:store", "--listen-agents", "127.0.0.1:0"];
    let tls = ["--tls-cert", "server.pem", "--tls-key", "h1.key"];
    let mut wrong: Vec<(&[&str], &[&str])> = vec![
        (
            &["--key", "h1.key"],
            &["h1.key", "not the key of server.pem"],
        ),
        (
            &["--key", "server.pem"],
            &["server.pem", "there is no key in it"],
        ),
        (
            &["--cert", "server.key"],
            &["server.key", "there is no certificate in it"],
        ),
        (
            &["--ca", "ca.key"],
            &["ca.key", "there is no certificate in it"],
        ),
        (&["--ca", "bad.pem"], &["bad.pem can't be used"]),
        (
            &["--ca", "away.pem"],
            &["reading away.pem", "portcullis ca"],
        ),
    ];
    wrong.push((&tls, &["h1.key", "not the key of server.pem"]));
    for (arguments, says) in wrong {
        let said = refuses(dir, &[&agents, arguments].concat(), 4, says);
        assert!(!said.contains("serving"), "{said}");
    }
    let mut agent = Command::new("timeout");
    agent.args([
        "20",
        BIN,
        "agent",
        "--server",
        "127.0.0.1:1",
        "--host",
        "h1",
    ]);
    agent.args(["--key", "server.key"]).current_dir(dir);
    let output = agent.output().expect("the binary runs");
    check(&output, 4, &["server.key", "not the key of h1.pem"]);
}

#[test]
fn options_of_an_agent_are_refused_where_there_is_none() {
    let dir = tempfile::tempdir().expect("a directory");
    for option in [&["--confirm", "20"][..], &["--direct"], &["--guard-bridge"]] {
        let arguments = [&["--store", "file:store"], option].concat();
        refuses(dir.path(), &arguments, 2, &[option[0], "--all-in-one"]);
    }
    assert!(!dir.path().join("store").exists());
}

#[test]
fn what_a_unit_says_in_the_environment_counts() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut command = Command::new("timeout");
    command.args(["20", BIN, "server"]).current_dir(dir.path());
    command.envs([
        ("PORTCULLIS_LISTEN", "127.0.0.1:0"),
        ("PORTCULLIS_STORE", "file:store"),
        ("PORTCULLIS_IDENTITY", "token"),
        ("PORTCULLIS_TOKENS", "tokens-that-are-away"),
    ]);
    let output = command.output().expect("the binary runs");
    check(&output, 4, &["tokens-that-are-away"]);
}

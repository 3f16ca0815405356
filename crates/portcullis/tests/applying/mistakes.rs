//! What an operator mistypes or leaves out: it is said, and nothing else is done in its place.

use crate::{BIN, POLICY, Site, apply, check};
use std::process::Command;

#[test]
fn a_dry_run_of_delete_removes_nothing() {
    let site = Site::new();
    site.file(POLICY);
    site.check(&apply(&[]), 0, &[]);
    for words in [
        ["delete", "port", "vm1", "--dry-run"],
        ["delete", "--dry-run", "port", "vm1"],
    ] {
        let said = site.check(&words, 0, &["port/vm1 would be removed"]);
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    site.check(&["delete", "port", "vm9", "--dry-run"], 1, &["vm9"]);
    let of_file = ["delete", "-f", "site.yaml", "--dry-run"];
    site.check(&of_file, 0, &["port/vm1 removed (dry run)"]);
    let dry = ["delete", "host", "h1", "--dry-run"];
    site.check(&dry, 0, &["host/h1 would be removed"]);
    site.check(&["get", "port", "vm1"], 0, &["10.9.0.1"]);
    site.check(&apply(&[]), 0, &["10 unchanged"]);
}

#[test]
fn a_host_is_deleted_as_other_objects_are() {
    let site = Site::new();
    site.file(POLICY);
    site.check(&apply(&[]), 0, &["host/h1 created"]);
    site.check(&["delete", "hosts", "h1"], 0, &["host/h1 removed"]);
    site.check(&["delete", "host", "h1"], 1, &["h1"]);
    site.check(&apply(&[]), 0, &["host/h1 created", "9 unchanged"]);
}

#[test]
fn a_file_that_is_not_there_removes_nothing() {
    let site = Site::new();
    site.file(POLICY);
    site.check(&apply(&[]), 0, &[]);
    site.check(&["delete", "-f", "stie.yaml"], 4, &["stie.yaml"]);
}

#[test]
fn an_empty_id_is_none() {
    let site = Site::new();
    for words in [
        ["get", "port", ""],
        ["get", "groups", ""],
        ["get", "hosts", ""],
        ["delete", "port", ""],
    ] {
        site.check(&words, 2, &["an id is empty"]);
    }
}

#[test]
fn a_server_without_http_is_told_apart_from_one_that_is_away() {
    let mut command = Command::new(BIN);
    command.args(["get", "ports", "--server", "127.0.0.1:9696"]);
    let output = command.output().expect("the binary runs");
    let says = ["127.0.0.1:9696", "http://", "https://"];
    check(&output, 2, &says);
}

#[test]
fn explain_says_of_a_cluster_that_it_has_no_such_port() {
    let site = Site::new();
    let packet = ["--ingress", "tcp 10.0.0.5:40000 -> 10.9.0.1:443"];
    let explain = |port| [&["explain", "--port", port][..], &packet].concat();
    let said = site.check(&explain("vm9"), 2, &["no port vm9 in http", "it has none"]);
    assert!(!said.contains("on host"), "{said}");
    site.file(POLICY);
    site.check(&apply(&[]), 0, &[]);
    site.check(&explain("vm9"), 2, &["there are: vm1, vm2"]);
}

#[test]
fn ports_on_a_host_that_nobody_enforces_are_told() {
    let site = Site::new();
    site.file(POLICY);
    let warned = "host h1: no agent has followed from it yet, so its 2 ports are enforced nowhere";
    site.check(&apply(&["--dry-run"]), 0, &[warned]);
    site.check(&apply(&[]), 0, &[warned]);
    let (without_ports, _) = POLICY.split_once("ports:\n  vm1").expect("it has ports");
    site.file(without_ports);
    let said = site.check(&apply(&[]), 0, &["unchanged"]);
    assert!(!said.contains("enforced nowhere"), "{said}");
}

//! Backups of a server's store, stopped or not, and stores from them.

use crate::support::interrupt;
use crate::{BIN, POLICY, Site, apply, check};
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

fn of_store(site: &Site, words: &[&str], store: &str) -> Output {
    let mut command = Command::new(BIN);
    command.args(words).args(["--store", store]);
    command.current_dir(site.dir.path());
    command.output().expect("the binary runs")
}

#[test]
fn a_store_is_restored_from_a_backup() {
    let mut site = Site::new();
    site.file(POLICY);
    site.check(&apply(&[]), 0, &["group/web created"]);
    let backup = of_store(&site, &["backup", "policy.backup"], "file:store");
    check(&backup, 4, &["in use by another process", "--server"]);
    site.stop();
    let backup = of_store(&site, &["backup", "policy.backup"], "file:store");
    check(&backup, 0, &["policy.backup: all up to revision"]);
    let again = of_store(&site, &["backup", "policy.backup"], "file:store");
    check(&again, 4, &["policy.backup"]);
    let none = of_store(&site, &["backup", "other.backup"], "file:elsewhere");
    check(&none, 4, &["there is no store"]);

    let over = of_store(&site, &["restore", "policy.backup"], "file:store");
    check(
        &over,
        4,
        &["is there already, and nothing is written over it"],
    );
    let restored = of_store(&site, &["restore", "policy.backup"], "file:other");
    check(&restored, 0, &["hosts take all their policy anew"]);
    site.go_on_with("file:other");
    site.check(&apply(&[]), 0, &["10 unchanged"]);
    for (words, says) in [
        (vec!["restore"], "which backup"),
        (vec!["restore", "policy.backup"], "etcd's own tools"),
        (vec!["backup", "policy.backup"], "etcdctl snapshot save"),
    ] {
        let store = if says == "which backup" {
            "file:other"
        } else {
            "etcd:http://127.0.0.1:1"
        };
        check(&of_store(&site, &words, store), 2, &[says]);
    }
}

/// Each policy is one commit: so the restored store has one of the two, whole.
#[test]
fn a_running_server_is_backed_up() {
    let mut site = Site::new();
    let other = POLICY.replace("443", "444").replace("5432", "5433");
    for (name, text) in [("one.yaml", POLICY), ("other.yaml", &other)] {
        fs::write(site.dir.path().join(name), text).expect("it can be written");
    }
    let put = |site: &Site, name: &str, more: &[&str]| {
        let words = ["apply", "--host", "h1", "--label", "site", "-f", name];
        site.check(&[&words[..], more].concat(), 0, &[])
    };
    put(&site, "one.yaml", &[]);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                put(&site, "other.yaml", &[]);
                put(&site, "one.yaml", &[]);
            }
        });
        for n in 0..5 {
            let backup = format!("{n}.backup");
            site.check(&["backup", &backup], 0, &["all up to revision"]);
        }
        done.store(true, Ordering::Relaxed);
    });
    let mode = fs::metadata(site.dir.path().join("0.backup"))
        .expect("it is there")
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let over = site.check(&["backup", "0.backup"], 4, &["is there already"]);
    assert!(over.contains("0.backup"), "{over}");
    for n in 0..5 {
        let restore = ["restore", &format!("{n}.backup")];
        let store = format!("file:restored{n}");
        check(&of_store(&site, &restore, &store), 0, &["revision"]);
        site.go_on_with(&store);
        let unchanged = |name: &str| put(&site, name, &["--dry-run"]).starts_with("10 unchanged\n");
        assert!(unchanged("one.yaml") != unchanged("other.yaml"), "{n}");
    }
}

/// Between the command and the server: hands on so many bytes of the answer, and spoils the last of them.
fn relay(to: String, bytes: usize, spoils: bool) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.expect("it is a connection");
            let mut server = TcpStream::connect(&to).expect("the server listens");
            let mut asks = client.try_clone().expect("there are descriptors");
            let mut asked = server.try_clone().expect("there are descriptors");
            thread::spawn(move || io::copy(&mut asks, &mut asked));
            let mut answer = vec![0; bytes];
            let mut there = 0;
            while let Ok(read @ 1..) = server.read(&mut answer[there..]) {
                there += read;
            }
            if spoils && there == bytes {
                answer[bytes - 1] ^= 1;
            }
            let _ = client.write_all(&answer[..there]);
            if spoils {
                let _ = io::copy(&mut server, &mut client);
            }
            let _ = client.shutdown(Shutdown::Both);
        }
    });
    format!("http://{address}")
}

#[test]
fn what_did_not_come_whole_is_no_backup() {
    let site = Site::new();
    site.file(POLICY);
    site.check(&apply(&[]), 0, &[]);
    let server = site.url.trim_start_matches("http://");
    let tries = [
        (0, false, "asking http"),
        (100, false, "asking http"),
        (5_000, false, "there is no backup"),
        (5_000, true, "is not what it has"),
    ];
    for (bytes, spoils, says) in tries {
        let mut command = Command::new(BIN);
        command.args(["backup", "policy.backup", "--server"]);
        command.arg(relay(server.to_owned(), bytes, spoils));
        command.current_dir(site.dir.path());
        check(&command.output().expect("the binary runs"), 4, &[says]);
        for left in ["policy.backup", "policy.backup.new"] {
            assert!(!site.dir.path().join(left).exists(), "{left} after {bytes}");
        }
    }
    // What one that was killed has left is in nobody's way.
    fs::write(site.dir.path().join("policy.backup.new"), "half").expect("it is ours");
    site.check(&["backup", "policy.backup"], 0, &["all up to revision"]);
    site.check(
        &["backup", "nowhere/policy.backup"],
        4,
        &["nowhere/policy.backup.new"],
    );
}

#[test]
fn a_backup_that_is_interrupted_leaves_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let hangs = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = hangs.local_addr().expect("it is bound");
    let mut command = Command::new(BIN);
    command.args(["backup", "policy.backup", "--server"]);
    command.arg(format!("http://{address}"));
    let mut backup = command
        .current_dir(dir.path())
        .spawn()
        .expect("the binary runs");
    let _asks = hangs.accept().expect("it asks, and has its file by then");
    let new = dir.path().join("policy.backup.new");
    assert!(new.exists());
    interrupt(&backup);
    let ended = backup.wait().expect("it is ours");
    assert_eq!(ended.signal(), Some(2), "{ended}");
    assert!(!new.exists());
}

#[test]
fn only_admins_get_a_backup() {
    let tokens = "token-of-an-admin p1 ann admin\ntoken-of-a-member p2 bob member\n";
    let site = Site::with(tokens, &["--identity", "token", "--tokens", "tokens"]);
    site.check(&["backup", "b"], 4, &["wants to know who we are"]);
    let backup = ["backup", "b", "--token-file", "token"];
    for (token, code, says) in [
        ("token-of-nobody-here", 4, "doesn't know our token"),
        ("token-of-a-member", 4, "doesn't allow it"),
        ("token-of-an-admin", 0, "all up to revision"),
    ] {
        fs::write(site.dir.path().join("token"), token).expect("it can be written");
        site.check(&backup, code, &[says]);
    }
}

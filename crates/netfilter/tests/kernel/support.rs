//! A namespace per test, and the tools that are the second opinion.

use std::io::{self, Write};
use std::net::UdpSocket;
use std::process::{Command, Stdio};
use std::thread;

/// Runs a test on a thread of its own, in a new network namespace with its loopback up.
pub(crate) fn alone(test: impl FnOnce() + Send + 'static) {
    let ran = thread::spawn(|| {
        // SAFETY: takes no pointers; it moves just this thread, which ends here.
        let moved = unsafe { libc::unshare(libc::CLONE_NEWNET) };
        let error = io::Error::last_os_error();
        assert_eq!(moved, 0, "a new network namespace (needs root): {error}");
        tool("ip link set lo up");
        test();
    })
    .join();
    if let Err(panic) = ran {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command line, words apart by blanks, in this thread's namespace; what it printed.
pub(crate) fn tool(line: &str) -> String {
    tool_fed(line, "")
}

pub(crate) fn tool_fed(line: &str, input: &str) -> String {
    let mut words = line.split_whitespace();
    let program = words.next().expect("a program");
    let mut child = Command::new(program)
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{line}: {e}"));
    let mut stdin = child.stdin.take().expect("it was piped");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    let output = child.wait_with_output().expect("it ran");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {complaints}");
    String::from_utf8(output.stdout).expect("text")
}

/// So many UDP datagrams by the loopback, to somebody who takes them.
pub(crate) fn datagrams(to: &str, count: usize) {
    let taker = UdpSocket::bind((to, 0)).expect("a port");
    let sender = UdpSocket::bind((to, 0)).expect("a port");
    let to = taker.local_addr().expect("it is bound");
    for _ in 0..count {
        sender.send_to(&[0; 8], to).expect("the loopback is up");
        taker.recv(&mut [0; 8]).expect("it has arrived");
    }
}

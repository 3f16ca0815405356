//! With a thread that plays the switch.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::thread;

use super::*;

const PATIENCE: Duration = Duration::from_millis(200);
const REQUEST: [u8; 8] = [5, 20, 0, 8, 0, 0, 0, 1];
const REPLY: [u8; 8] = [5, 21, 0, 8, 0, 0, 0, 1];

/// What one does with the barrier that it asks for, when the switch does this.
fn with_switch<T: Send + 'static>(
    name: &str,
    switch: impl FnOnce(UnixStream) -> T + Send + 'static,
) -> (Connection, thread::JoinHandle<T>) {
    let unique = format!("portcullis-openflow-{}-{name}", std::process::id());
    let socket: PathBuf = std::env::temp_dir().join(unique);
    let listener = UnixListener::bind(&socket).expect("a socket");
    let played = thread::spawn(move || switch(listener.accept().expect("a client").0));
    let connection = Connection::open(&socket, PATIENCE).expect("somebody listens");
    let _ = std::fs::remove_file(&socket);
    (connection, played)
}

fn ask(connection: &mut Connection, request: &[u8]) -> io::Result<()> {
    connection.exchange(request, |header, _| {
        Ok(if header.kind == REPLY[1] {
            Answer::Complete
        } else {
            Answer::ToCome
        })
    })
}

#[test]
fn an_echo_request_is_answered_while_waiting() {
    let (mut connection, switch) = with_switch("echo", |mut stream| {
        let mut request = [0; 8];
        stream.read_exact(&mut request).expect("a request");
        stream
            .write_all(&[5, 2, 0, 10, 0, 0, 0, 9, 0xab, 0xcd])
            .expect("it is read");
        let mut echo = [0; 10];
        stream.read_exact(&mut echo).expect("an echo");
        // In two pieces.
        stream.write_all(&REPLY[..3]).expect("it is read");
        thread::sleep(PATIENCE / 10);
        stream.write_all(&REPLY[3..]).expect("it is read");
        echo
    });
    ask(&mut connection, &REQUEST).expect("an answer");
    let echo = switch.join().expect("the switch is done");
    assert_eq!(echo, [5, 3, 0, 10, 0, 0, 0, 9, 0xab, 0xcd]);
}

/// It reads nothing before all that it has to say was read.
#[test]
fn a_switch_that_writes_first_is_not_waited_for() {
    const MUCH: usize = 4 << 20;
    let (mut connection, switch) = with_switch("full", |mut stream| {
        for _ in 0..MUCH / 64 {
            let mut error = [0; 64];
            error[..8].copy_from_slice(&[5, 1, 0, 64, 0, 0, 0, 7]);
            stream.write_all(&error).expect("it is read");
        }
        let mut request = vec![0; MUCH];
        stream.read_exact(&mut request).expect("a request");
        stream.write_all(&REPLY).expect("it is read");
    });
    ask(&mut connection, &REQUEST.repeat(MUCH / 8)).expect("an answer");
    switch.join().expect("the switch is done");
}

#[test]
fn silence_is_an_error_and_stays_one() {
    let (mut connection, switch) = with_switch("silent", |mut stream| {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("nothing more comes");
    });
    let silent = ask(&mut connection, &REQUEST).expect_err("no answer comes");
    assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
    let later = ask(&mut connection, &REQUEST).expect_err("it is broken");
    assert_eq!(later.kind(), io::ErrorKind::NotConnected);
    drop(connection);
    switch.join().expect("the switch is done");
}

#[test]
fn a_header_that_is_too_short_is_an_error() {
    let (mut connection, switch) = with_switch("short", |mut stream| {
        stream
            .write_all(&[5, 1, 0, 7, 0, 0, 0, 1])
            .expect("it is read");
        stream
    });
    let bad = ask(&mut connection, &REQUEST).expect_err("such a length can't be");
    assert_eq!(bad.kind(), io::ErrorKind::InvalidData);
    drop(switch.join().expect("the switch is done"));
}

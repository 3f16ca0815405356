//! JSON values back to back on a unix socket, as both protocols have them: nothing separates them.

use serde_json::{Value, json};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// For so long the other end may say nothing when it has been asked.
pub const SILENCE: Duration = Duration::from_secs(5);

/// One value is at most as long as this: a dump of about a million connections.
const LONGEST: usize = 256 << 20;

const READ_AT_ONCE: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Stream {
    socket: UnixStream,
    /// What was read and not yet taken.
    buffer: Vec<u8>,
    scan: Scan,
}

/// How far into the buffer the value that it begins with has been followed.
#[derive(Debug, Default)]
struct Scan {
    at: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Stream {
    pub(crate) fn connect(socket: &Path) -> io::Result<Self> {
        let socket = UnixStream::connect(socket)?;
        socket.set_write_timeout(Some(SILENCE))?;
        Ok(Self {
            socket,
            buffer: Vec::new(),
            scan: Scan::default(),
        })
    }

    pub(crate) fn send(&mut self, value: &Value) -> io::Result<()> {
        self.socket.write_all(value.to_string().as_bytes())
    }

    /// The next value; an error of kind `TimedOut` after this long without a byte.
    pub(crate) fn receive(&mut self, silence: Duration) -> io::Result<Value> {
        self.socket.set_read_timeout(Some(silence))?;
        loop {
            if let Some(value) = self.take()? {
                return Ok(value);
            }
            self.read().map_err(|error| match error.kind() {
                io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
                _ => error,
            })?;
        }
    }

    /// The server asks now and then whether we are alive. True if this was such a question; it is answered.
    pub(crate) fn answer_echo(&mut self, message: &Value) -> io::Result<bool> {
        if message["method"] != "echo" {
            return Ok(false);
        }
        let answer =
            json!({"id": message["id"], "result": message["params"], "error": Value::Null});
        self.send(&answer)?;
        Ok(true)
    }

    fn read(&mut self) -> io::Result<()> {
        if self.buffer.len() > LONGEST {
            return Err(garbled("a message without an end"));
        }
        let before = self.buffer.len();
        self.buffer.resize(before + READ_AT_ONCE, 0);
        let read = loop {
            match self.socket.read(&mut self.buffer[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        self.buffer.truncate(before + *read.as_ref().unwrap_or(&0));
        match read? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The value that the buffer begins with, if it is complete.
    fn take(&mut self) -> io::Result<Option<Value>> {
        let Some(end) = self.scan.end(&self.buffer)? else {
            return Ok(None);
        };
        let value = serde_json::from_slice(&self.buffer[..end]);
        self.buffer.drain(..end);
        self.scan = Scan::default();
        value.map(Some).map_err(io::Error::from)
    }
}

impl Scan {
    /// Where the first value ends: an object or an array, for nothing else is said. Looks at each byte once,
    /// however many reads it takes to have it all; whether it is good JSON is for the parser to say.
    fn end(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        while let Some(&byte) = bytes.get(self.at) {
            self.at += 1;
            if self.in_string {
                self.in_string = self.escaped || byte != b'"';
                self.escaped = !self.escaped && byte == b'\\';
                continue;
            }
            match byte {
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' if self.depth == 1 => return Ok(Some(self.at)),
                b'}' | b']' if self.depth > 1 => self.depth -= 1,
                b' ' | b'\t' | b'\r' | b'\n' => {}
                _ if self.depth == 0 => return Err(garbled("neither an object nor an array")),
                b'"' => self.in_string = true,
                _ => {}
            }
        }
        Ok(None)
    }
}

pub(crate) fn garbled(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Stream, UnixStream) {
        let (socket, other) = UnixStream::pair().expect("a pair");
        let stream = Stream {
            socket,
            buffer: Vec::new(),
            scan: Scan::default(),
        };
        (stream, other)
    }

    fn told(pieces: &[&[u8]]) -> io::Result<Vec<Value>> {
        let (mut stream, mut other) = pair();
        let mut values = Vec::new();
        for piece in pieces {
            other.write_all(piece)?;
            loop {
                match stream.receive(Duration::from_millis(1)) {
                    Ok(value) => values.push(value),
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => break,
                    Err(error) => return Err(error),
                }
            }
        }
        drop(other);
        match stream.receive(SILENCE) {
            Ok(value) => panic!("{value} was taken from nowhere"),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(values),
            Err(error) => Err(error),
        }
    }

    #[test]
    fn values_are_found_wherever_the_stream_is_cut() {
        let text = br#"{"a":"}\"{[\\"} [1,[{}]]{"b":{"c":null}}"#;
        let expected = [
            json!({"a": "}\"{[\\"}),
            json!([1, [{}]]),
            json!({"b": {"c": null}}),
        ];
        for cut in 0..text.len() {
            let (first, second) = text.split_at(cut);
            assert_eq!(told(&[first, second]).expect("good"), expected, "{cut}");
        }
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        let texts: [&[u8]; 6] = [b"hello", b"}", b"{]", b"{\"a\"}", b"7", b"[\xff]"];
        for text in texts {
            assert!(told(&[text]).is_err(), "{text:?}");
        }
        let deep = [b'['; 1000].into_iter().chain([b']'; 1000]);
        assert!(told(&[&deep.collect::<Vec<_>>()]).is_err());
    }

    #[test]
    fn who_asks_whether_we_are_alive_is_told() {
        let (mut stream, mut other) = pair();
        let asked = br#"{"id":"echo","method":"echo","params":[7]}"#;
        other.write_all(asked).expect("sent");
        let message = stream.receive(SILENCE).expect("a value");
        assert!(stream.answer_echo(&message).expect("sent"));
        drop(stream);
        let mut answer = String::new();
        other.read_to_string(&mut answer).expect("text");
        assert_eq!(answer, r#"{"error":null,"id":"echo","result":[7]}"#);
    }

    #[test]
    fn silence_is_an_error_of_its_own() {
        let (mut stream, _other) = pair();
        let error = stream.receive(Duration::from_millis(1));
        assert_eq!(error.expect_err("silence").kind(), io::ErrorKind::TimedOut);
    }
}

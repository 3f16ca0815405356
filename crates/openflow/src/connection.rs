//! A connection to a switch as messages: sends requests while it takes what comes, until the answer is there.
//!
//! Whoever only writes while the switch only writes waits for ever: a long request meets many errors.
//! So both directions are served at once. After an error nobody knows where in the stream we are,
//! so such a connection says no from then on.
//! Knows nothing of: what the messages say, but echo requests, which it answers.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::codec::message::{ECHO_REPLY, ECHO_REQUEST, Header, read_header};
use crate::codec::{HEADER, message};

#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    /// Read, and of it already taken.
    received: Vec<u8>,
    taken: usize,
    to_send: Vec<u8>,
    sent: usize,
    /// How long nothing may happen.
    patience: Duration,
    broken: bool,
}

/// Whether the answer is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Complete,
    ToCome,
}

/// However much the switch says meanwhile. A bundle of 10,000 flows takes 0.1 s.
const EXCHANGE_AT_MOST: Duration = Duration::from_secs(60);

const READ_AT_ONCE: usize = 1 << 16;

impl Connection {
    pub(crate) fn open(socket: &Path, patience: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            received: Vec::new(),
            taken: 0,
            to_send: Vec::new(),
            sent: 0,
            patience,
            broken: false,
        })
    }

    /// Sends it and gives each message that comes to `take`, until that says that the answer is complete.
    pub(crate) fn exchange(
        &mut self,
        request: &[u8],
        take: impl FnMut(Header, &[u8]) -> io::Result<Answer>,
    ) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::new(
                io::ErrorKind::NotConnected,
                "the connection to the switch is broken since an earlier error",
            ));
        }
        let exchanged = self.send_and_take(request, take);
        self.broken = exchanged.is_err();
        exchanged
    }

    fn send_and_take(
        &mut self,
        request: &[u8],
        mut take: impl FnMut(Header, &[u8]) -> io::Result<Answer>,
    ) -> io::Result<()> {
        self.to_send.extend(request);
        let mut answer = Answer::ToCome;
        let begin = Instant::now();
        while begin.elapsed() < EXCHANGE_AT_MOST {
            while let Some((header, body)) = self.next_message()? {
                if header.kind == ECHO_REQUEST {
                    let body = self.received[body].to_vec();
                    let reply = &mut self.to_send;
                    message(reply, header.version, ECHO_REPLY, header.xid, |out| {
                        out.extend(body)
                    });
                } else if answer == Answer::ToCome {
                    answer = take(header, &self.received[body])?;
                }
            }
            if answer == Answer::Complete && self.to_send.is_empty() {
                return Ok(());
            }
            self.wait()?;
            self.send()?;
            self.receive()?;
        }
        Err(io::Error::new(
            io::ErrorKind::TimedOut,
            format!("the switch says much, but no answer within {EXCHANGE_AT_MOST:?}"),
        ))
    }

    /// Where in `received` its body is.
    fn next_message(&mut self) -> io::Result<Option<(Header, std::ops::Range<usize>)>> {
        let Some(header) = self.received[self.taken..].first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let header = read_header(*header)?;
        let end = self.taken + usize::from(header.length);
        if end > self.received.len() {
            return Ok(None);
        }
        let body = self.taken + HEADER..end;
        self.taken = end;
        Ok(Some((header, body)))
    }

    fn wait(&self) -> io::Result<()> {
        let mut events = PollFlags::IN;
        if !self.to_send.is_empty() {
            events |= PollFlags::OUT;
        }
        let timeout = Timespec {
            tv_sec: self.patience.as_secs().cast_signed(),
            tv_nsec: self.patience.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&self.stream, events)], Some(&timeout)) {
            Ok(0) => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the switch didn't answer within {:?}", self.patience),
            )),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        while self.sent < self.to_send.len() {
            match self.stream.write(&self.to_send[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if for_now(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.to_send.clear();
        self.sent = 0;
        Ok(())
    }

    /// What there is now, up to a limit, so that sending gets its turn.
    fn receive(&mut self) -> io::Result<()> {
        self.received.drain(..self.taken);
        self.taken = 0;
        let before = self.received.len();
        self.received.resize(before + READ_AT_ONCE, 0);
        let read = self.stream.read(&mut self.received[before..]);
        self.received
            .truncate(before + read.as_ref().map_or(0, |count| *count));
        match read {
            Ok(0) => Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the switch closed the connection",
            )),
            Ok(_) => Ok(()),
            Err(error) if for_now(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn for_now(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests;

//! Real sockets: attempts to reach a service, and connections whose two ends are both in our hands.
//!
//! Knows nothing of: what is expected to come through.

use super::cast::{Role, Service};
use super::machines::Machines;
use crate::failure::Failure;
use model::Family;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// An answer that is meant to come, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);
/// One that isn't. What passes at all passes in well under a millisecond.
pub(crate) const IN_VAIN: Duration = Duration::from_millis(400);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) from: Role,
    pub(crate) to: Role,
    pub(crate) service: Service,
    pub(crate) family: Family,
}

impl Attempt {
    /// All at once, each waiting as long as its own patience; whether each got an answer.
    pub(crate) fn make_all(
        machines: &Machines,
        attempts: &[(Attempt, Duration)],
    ) -> Result<Vec<bool>, Failure> {
        std::thread::scope(|scope| {
            let make = |&(attempt, patience): &(Attempt, Duration)| {
                scope.spawn(move || attempt.make(machines, patience))
            };
            let threads: Vec<_> = attempts.iter().map(make).collect();
            let joined = threads.into_iter().map(|thread| {
                let result = thread.join();
                result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            joined.collect()
        })
    }

    /// One connection or ping. Waiting for nothing ends early.
    pub(crate) fn make(self, machines: &Machines, patience: Duration) -> Result<bool, Failure> {
        let vm = machines.vm(self.from);
        let address = self.to.address(self.family);
        let Some(port) = self.service.l4_port() else {
            return Ok(vm.ping(address, patience)?.is_some());
        };
        match vm.tcp_connect((address, port).into(), patience) {
            Ok(_) => Ok(true),
            Err(error) => match error.kind() {
                // Somebody there answered.
                ErrorKind::ConnectionRefused => Ok(true),
                ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::HostUnreachable => {
                    Ok(false)
                }
                _ => Err(Failure::System(format!("demo: {self}: {error}"))),
            },
        }
    }
}

impl std::fmt::Display for Attempt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Attempt {
            from,
            to,
            service,
            family,
        } = self;
        write!(f, "{from} -> {to}, {service}, {}", family_name(*family))
    }
}

pub(crate) fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// An open TCP connection. What one end was given to send and the other has not got yet is on its way
/// or held up; TCP sends it again until it gets through.
pub(crate) struct Conversation {
    client: End,
    server: End,
}

struct End {
    stream: TcpStream,
    sent: u64,
    received: u64,
}

impl Conversation {
    pub(crate) fn open(machines: &Machines, attempt: Attempt) -> Result<Self, Failure> {
        let failed = |e: io::Error| Failure::System(format!("demo: opening {attempt}: {e}"));
        let port = attempt.service.l4_port().expect("only TCP has connections");
        let address = SocketAddr::from((attempt.to.address(attempt.family), port));
        let client = machines.vm(attempt.from).tcp_connect(address, PATIENCE);
        let client = End::new(client.map_err(failed)?).map_err(failed)?;
        let here = client.stream.local_addr().map_err(failed)?;
        let server = accept_from(machines.listener(attempt.to, attempt.service), here);
        let server = End::new(server.map_err(failed)?).map_err(failed)?;
        Ok(Self { client, server })
    }

    /// The client's end.
    pub(crate) fn client(&self) -> Result<SocketAddr, Failure> {
        let here = self.client.stream.local_addr();
        here.map_err(|e| Failure::System(format!("demo: a connection's own address: {e}")))
    }

    /// Something more to send, both ways.
    pub(crate) fn speak(&mut self) -> io::Result<()> {
        self.client.send()?;
        self.server.send()
    }

    /// Does everything that was sent arrive, both ways?
    pub(crate) fn all_arrives(&mut self, patience: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + patience;
        let there = self.server.receive(self.client.sent, deadline)?;
        let back = self.client.receive(self.server.sent, deadline)?;
        Ok(there && back)
    }

    /// A word each way.
    pub(crate) fn goes_on(&mut self, patience: Duration) -> io::Result<bool> {
        self.speak()?;
        self.all_arrives(patience)
    }

    /// Bytes that were received so far, by both ends; takes what is there now.
    pub(crate) fn received(&mut self) -> io::Result<u64> {
        self.all_arrives(Duration::ZERO)?;
        Ok(self.client.received + self.server.received)
    }
}

impl End {
    fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            sent: 0,
            received: 0,
        })
    }

    fn send(&mut self) -> io::Result<()> {
        const WORD: &[u8] = b"portcullis";
        self.stream.write_all(WORD)?;
        self.sent += WORD.len() as u64;
        Ok(())
    }

    fn receive(&mut self, until: u64, deadline: Instant) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        while self.received < until {
            let left = deadline.saturating_duration_since(Instant::now());
            // A time-out of zero would be none at all.
            self.stream
                .set_read_timeout(Some(left.max(Duration::from_micros(100))))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => self.received += bytes as u64,
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if left.is_zero() {
                        return Ok(false);
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

/// The connection of this client; those of clients that have gone are in the queue before it.
fn accept_from(listener: &TcpListener, client: SocketAddr) -> io::Result<TcpStream> {
    loop {
        let (stream, from) = listener.accept()?;
        if from.ip().to_canonical() == client.ip() && from.port() == client.port() {
            return Ok(stream);
        }
    }
}

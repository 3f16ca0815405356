//! Real sockets that say who answers, and streams of datagrams.
//!
//! Knows nothing of: what is expected to come through.

use super::super::traffic::{IN_VAIN, family_name};
use super::cast::{Machine, Service};
use super::stage::Stage;
use crate::failure::Failure;
use conformance::lab::{LabError, PacketSocket, Vm};
use model::Family;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use wire::build;

/// An answer that is meant to come is asked for again, as any client does.
const TRIES: usize = 5;
const EACH: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Attempt {
    pub(crate) from: Machine,
    pub(crate) to: Machine,
    pub(crate) service: Service,
    pub(crate) family: Family,
}

/// Answers with the machine's name for as long as the process lives: machines of two tenants have one address.
pub(crate) fn serve(vm: &Vm, machine: Machine) -> Result<(), LabError> {
    let name = machine.to_string();
    let (listener, said) = (vm.tcp_listen(80)?, name.clone());
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            // A client that is gone is its own matter.
            let _ = stream.write_all(said.as_bytes());
        }
    });
    for l4_port in [53, 514] {
        let (socket, said) = (vm.udp(l4_port)?, name.clone());
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            loop {
                if let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(said.as_bytes(), from);
                }
            }
        });
    }
    Ok(())
}

impl Attempt {
    /// All at once; who answered each.
    pub(crate) fn make_all(
        stage: &Stage,
        attempts: &[(Attempt, bool)],
    ) -> Result<Vec<Option<String>>, Failure> {
        thread::scope(|scope| {
            let make = |&(attempt, meant): &(Attempt, bool)| {
                scope.spawn(move || attempt.make(stage, meant))
            };
            let threads: Vec<_> = attempts.iter().map(make).collect();
            let joined = threads.into_iter().map(|thread| {
                let result = thread.join();
                result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            joined.collect()
        })
    }

    /// Who answered. What is meant to pass is waited for.
    fn make(self, stage: &Stage, meant: bool) -> Result<Option<String>, Failure> {
        let (tries, each) = match meant {
            true => (TRIES, EACH),
            false => (1, IN_VAIN),
        };
        for _ in 0..tries {
            if let Some(answer) = self.ask(stage, each)? {
                return Ok(Some(answer));
            }
        }
        Ok(None)
    }

    fn ask(self, stage: &Stage, patience: Duration) -> Result<Option<String>, Failure> {
        let vm = stage.vm(self.from);
        let address = self.to.address(self.family);
        let answer = match self.service {
            Service::Ping => {
                let answered = vm.ping(address, patience)?.is_some();
                // Echo replies have no room for a name.
                return Ok(answered.then(|| self.to.to_string()));
            }
            Service::Http => tcp(vm, (address, 80).into(), patience),
            Service::Dns => udp(vm, (address, 53).into(), patience),
            Service::Syslog => udp(vm, (address, 514).into(), patience),
        };
        match answer {
            Ok(name) => Ok(Some(name)),
            Err(error) => match error.kind() {
                ErrorKind::TimedOut | ErrorKind::WouldBlock | ErrorKind::HostUnreachable => {
                    Ok(None)
                }
                _ => Err(Failure::System(format!("demo: {self}: {error}"))),
            },
        }
    }
}

fn tcp(vm: &Vm, to: SocketAddr, patience: Duration) -> io::Result<String> {
    let mut stream: TcpStream = vm.tcp_connect(to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    let mut name = String::new();
    stream.read_to_string(&mut name)?;
    Ok(name)
}

fn udp(vm: &Vm, to: SocketAddr, patience: Duration) -> io::Result<String> {
    let here: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = vm.run(|| UdpSocket::bind((here, 0)))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"who are you?")?;
    let mut buffer = [0; 64];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
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

/// A datagram exactly as a machine would send it.
pub(crate) fn datagram(from: Machine, to: Machine, source: u16, destination: u16) -> Vec<u8> {
    let datagram = build::ip(from.v4().into(), to.v4().into()).udp(source, destination);
    datagram.macs(from.mac(), to.mac()).bytes()
}

/// Equal datagrams from one machine to another, and when each arrived.
pub(crate) struct Stream {
    stopping: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    arrivals: Arc<Mutex<Vec<Instant>>>,
    threads: Vec<JoinHandle<Result<(), LabError>>>,
}

impl Stream {
    const EVERY: Duration = Duration::from_millis(2);

    pub(crate) fn begin(
        stage: &Stage,
        from: Machine,
        to: Machine,
        source: u16,
        destination: u16,
    ) -> Result<Self, Failure> {
        let sender = stage.vm(from).open_packets()?;
        let receiver = stage.vm(to).open_packets()?;
        let frame = datagram(from, to, source, destination);
        let mut stream = Self {
            stopping: Arc::default(),
            sent: Arc::default(),
            arrivals: Arc::default(),
            threads: Vec::new(),
        };
        stream.receive(receiver, frame.clone());
        stream.send(sender, frame);
        Ok(stream)
    }

    fn send(&mut self, socket: PacketSocket, frame: Vec<u8>) {
        let (stopping, sent) = (Arc::clone(&self.stopping), Arc::clone(&self.sent));
        self.threads.push(thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                socket.send(&frame)?;
                sent.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Self::EVERY);
            }
            Ok(())
        }));
    }

    fn receive(&mut self, socket: PacketSocket, frame: Vec<u8>) {
        let (stopping, arrivals) = (Arc::clone(&self.stopping), Arc::clone(&self.arrivals));
        self.threads.push(thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                let seen = socket.wait_for(Duration::from_millis(20), |seen| seen == frame)?;
                if seen.is_some() {
                    let mut arrivals = arrivals.lock().unwrap_or_else(PoisonError::into_inner);
                    arrivals.push(Instant::now());
                }
            }
            Ok(())
        }));
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    pub(crate) fn arrived(&self) -> u64 {
        self.with(|arrivals| arrivals.len() as u64)
    }

    /// The last one until now.
    pub(crate) fn last(&self) -> Option<Instant> {
        self.with(|arrivals| arrivals.last().copied())
    }

    /// The first one after a moment.
    pub(crate) fn first_after(&self, moment: Instant) -> Option<Instant> {
        self.with(|arrivals| arrivals.iter().find(|at| **at > moment).copied())
    }

    fn with<T>(&self, look: impl FnOnce(&[Instant]) -> T) -> T {
        look(&self.arrivals.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits for the next one; `is cut` if so many more are sent without one that arrives.
    pub(crate) fn state(&self) -> &'static str {
        const IN_VAIN: u64 = 100;
        let (now, enough) = (Instant::now(), self.sent() + IN_VAIN);
        while self.sent() < enough {
            if self.first_after(now).is_some() {
                return "goes on";
            }
            thread::sleep(Self::EVERY);
        }
        "is cut"
    }

    pub(crate) fn wait_for_more(&self, count: u64) {
        let enough = self.sent() + count;
        while self.sent() < enough && self.threads.iter().all(|thread| !thread.is_finished()) {
            thread::sleep(Self::EVERY);
        }
    }

    /// Ends it; whether both ends could do their work all the time.
    pub(crate) fn end(mut self) -> Result<(), Failure> {
        self.stopping.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("it has nothing to panic about")?;
        }
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

//! What goes on while a host changes hands: connections that must not break, packets that must pass, and those
//! that must not.

use crate::bed::{Bed, SILENCE};
use model::{Family, MacAddr};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A connection, by the end that says something.
pub(crate) struct Connection {
    what: String,
    says: TcpStream,
    hears: TcpStream,
}

/// How long TCP may need for what is lost once.
const PATIENCE: Duration = Duration::from_secs(3);

impl Connection {
    /// `answers`: the side that was connected to is the one that goes on speaking.
    pub(crate) fn open(bed: &Bed, from: &str, to: &str, l4_port: u16, answers: bool) -> Vec<Self> {
        let open = |family| {
            let (client, server) = (bed.vm(from), bed.vm(to));
            let listener = server.tcp_listen(l4_port).expect("a free port");
            let at = SocketAddr::new(server.address(family).expect("one of each family"), l4_port);
            let what = format!("{from} to {to}, {at}");
            let client = client.tcp_connect(at, SILENCE);
            let client = client.unwrap_or_else(|error| panic!("{what}: {error}"));
            let (server, _) = listener.accept().expect("it is connected");
            let (says, hears) = if answers {
                (server, client)
            } else {
                (client, server)
            };
            hears.set_read_timeout(Some(PATIENCE)).expect("a time");
            says.set_nodelay(true).expect("TCP");
            let mut connection = Self { what, says, hears };
            connection.say();
            connection
        };
        Family::BOTH.map(open).into()
    }

    /// How long it took.
    pub(crate) fn say(&mut self) -> Duration {
        let (began, mut heard) = (Instant::now(), [0; 10]);
        let said = self.says.write_all(b"portcullis");
        let heard = said.and_then(|()| self.hears.read_exact(&mut heard));
        heard.unwrap_or_else(|error| panic!("{}: {error}", self.what));
        began.elapsed()
    }

    /// Nothing is heard of it any more.
    pub(crate) fn assert_cut(mut self) {
        self.hears.set_read_timeout(Some(SILENCE)).expect("a time");
        self.says.write_all(b"portcullis").expect("there is room");
        let heard = self.hears.read(&mut [0; 10]);
        assert!(heard.is_err(), "{}: {heard:?}", self.what);
    }
}

/// All that goes on by itself until it is ended.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    talks: Vec<JoinHandle<Duration>>,
    senders: Vec<JoinHandle<()>>,
    forbidden: Vec<(String, UdpSocket)>,
    asked: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    askers: Vec<JoinHandle<()>>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Passed {
    /// The longest that a connection stood still.
    pub(crate) longest: Duration,
    /// New flows that are permitted and had no answer in time.
    pub(crate) lost: u64,
}

const PACE: Duration = Duration::from_millis(2);

impl Traffic {
    pub(crate) fn new() -> Self {
        Self {
            stop: Arc::default(),
            talks: Vec::new(),
            senders: Vec::new(),
            forbidden: Vec::new(),
            asked: Arc::default(),
            lost: Arc::default(),
            askers: Vec::new(),
        }
    }

    pub(crate) fn talk(&mut self, connections: Vec<Connection>) {
        for mut connection in connections {
            let stop = self.stop.clone();
            self.talks.push(thread::spawn(move || {
                let mut longest = Duration::ZERO;
                while !stop.load(Ordering::Relaxed) {
                    longest = longest.max(connection.say());
                    thread::sleep(PACE);
                }
                longest
            }));
        }
    }

    /// A new flow again and again, each of which has to be answered.
    pub(crate) fn ask(&mut self, bed: &Bed, from: &str, to: &str, l4_port: u16) {
        for family in Family::BOTH {
            let (client, server) = (bed.vm(from), bed.vm(to));
            let at = SocketAddr::new(server.address(family).expect("one of each family"), l4_port);
            let (stop, asked, lost) = (self.stop.clone(), self.asked.clone(), self.lost.clone());
            self.askers.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    asked.fetch_add(1, Ordering::Relaxed);
                    if !client.udp_echo(at, SILENCE).expect("a socket") {
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                    thread::sleep(PACE);
                }
            }));
        }
    }

    /// Goes on until so many were asked for; whoever stops asking before tells why at the end.
    pub(crate) fn go_on(&self, asked: u64) {
        let ask = || !self.askers.iter().any(JoinHandle::is_finished);
        while self.asked.load(Ordering::Relaxed) < asked && ask() {
            thread::sleep(PACE);
        }
    }

    /// Datagrams that nobody may ever get.
    pub(crate) fn forbid(&mut self, bed: &Bed, from: &str, to: &str, l4_port: u16) {
        let receiver = bed.vm(to).udp(l4_port).expect("a free port");
        let what = format!("{from} to {to}, UDP {l4_port}");
        for family in Family::BOTH {
            let at = SocketAddr::new(
                bed.vm(to).address(family).expect("one of each family"),
                l4_port,
            );
            let sender = bed.vm(from).udp(0).expect("a free port");
            let at = match at {
                // The socket is of both families.
                SocketAddr::V4(at) => SocketAddr::new(at.ip().to_ipv6_mapped().into(), at.port()),
                SocketAddr::V6(_) => at,
            };
            self.send(move || drop(sender.send_to(b"never", at)));
        }
        self.forbidden.push((what, receiver));
    }

    /// As somebody else, to a port that the VM itself may ask.
    pub(crate) fn forbid_spoofed(&mut self, bed: &Bed, from: &str, to: &str, l4_port: u16) {
        let (sender, receiver) = (bed.vm(from), bed.vm(to));
        let packets = sender.open_packets().expect("root");
        let frame = |src: &str, mac: MacAddr, family| {
            let src = src.parse().expect("an address");
            let packet =
                wire::build::ip(src, receiver.address(family).expect("one of each family"));
            packet
                .udp(40_000, l4_port)
                .macs(mac, receiver.mac())
                .bytes()
        };
        let other = MacAddr([0x02, 0, 0, 0, 0, 0x77]);
        let frames = [
            frame("10.1.0.77", sender.mac(), Family::V4),
            frame("fd00:1::77", sender.mac(), Family::V6),
            frame("10.1.0.10", other, Family::V4),
        ];
        self.send(move || {
            for frame in &frames {
                packets.send(frame).expect("the device is up");
            }
        });
        let what = format!("{from} as somebody else, to {to}, UDP {l4_port}");
        let receiver = receiver.udp(l4_port).expect("a free port");
        self.forbidden.push((what, receiver));
    }

    fn send(&mut self, mut send: impl FnMut() + Send + 'static) {
        let stop = self.stop.clone();
        self.senders.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                send();
                thread::sleep(PACE);
            }
        }));
    }

    pub(crate) fn end(mut self) -> Passed {
        self.stop.store(true, Ordering::Relaxed);
        for ended in self.senders.drain(..).chain(self.askers.drain(..)) {
            ended.join().expect("no panic");
        }
        let talks = self.talks.drain(..);
        let talks = talks.map(|talk| talk.join().expect("it goes on"));
        let longest = talks.max().unwrap_or_default();
        for (what, socket) in self.forbidden.drain(..) {
            socket.set_nonblocking(true).expect("a socket");
            let got = socket.recv_from(&mut [0; 64]);
            let nothing = matches!(&got, Err(error) if error.kind() == ErrorKind::WouldBlock);
            assert!(nothing, "{what}: {got:?}");
        }
        Passed {
            longest,
            lost: self.lost.load(Ordering::Relaxed),
        }
    }
}

/// Also after a failure the threads end.
impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

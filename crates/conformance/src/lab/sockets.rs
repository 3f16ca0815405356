//! Real sockets inside VMs: what applications do.

use super::{LabError, Vm, failed};
use model::Family;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Sends back whatever comes. Stops when dropped; connections that are open go on until their client ends
/// them.
pub struct EchoServer {
    stopping: Arc<AtomicBool>,
    wake: Wake,
    thread: Option<JoinHandle<()>>,
}

/// What one machine asks of another, which serves just that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Ping,
    Udp(u16),
    Tcp(u16),
}

enum Wake {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Vm {
    /// Its first of a family.
    pub fn address(&self, family: Family) -> Result<IpAddr, LabError> {
        let mut addresses = self.addresses().iter();
        let found = addresses.find(|address| Family::of(**address) == family);
        found.copied().ok_or_else(|| {
            let none = io::Error::from(io::ErrorKind::AddrNotAvailable);
            failed(format!("{}: an address of {family}", self.name()))(none)
        })
    }

    /// Whether it has an answer from another machine in time.
    pub fn is_answered(
        &self,
        server: &Vm,
        family: Family,
        asked: Asked,
        timeout: Duration,
    ) -> Result<bool, LabError> {
        let address = server.address(family)?;
        match asked {
            Asked::Ping => Ok(self.ping(address, timeout)?.is_some()),
            Asked::Udp(l4_port) => {
                let _serving = server.serve_udp(l4_port)?;
                self.udp_echo(SocketAddr::new(address, l4_port), timeout)
            }
            Asked::Tcp(l4_port) => {
                let _serving = server.serve_tcp(l4_port)?;
                Ok(self.tcp_echo(SocketAddr::new(address, l4_port), timeout))
            }
        }
    }

    pub fn tcp_listen(&self, l4_port: u16) -> Result<TcpListener, LabError> {
        self.run(|| bound(|| TcpListener::bind(("::", l4_port))))
            .map_err(failed(format!(
                "{}: listening on TCP {l4_port}",
                self.name()
            )))
    }

    /// Connects, or says how it failed: a drop looks like a time-out.
    pub fn tcp_connect(&self, to: SocketAddr, timeout: Duration) -> io::Result<TcpStream> {
        self.run(|| TcpStream::connect_timeout(&to, timeout))
    }

    /// A UDP socket of both families; port 0 takes a free one.
    pub fn udp(&self, l4_port: u16) -> Result<UdpSocket, LabError> {
        self.run(|| bound(|| UdpSocket::bind(("::", l4_port))))
            .map_err(failed(format!(
                "{}: a UDP socket on {l4_port}",
                self.name()
            )))
    }

    /// Answers on a TCP port, in both families.
    pub fn serve_tcp(&self, l4_port: u16) -> Result<EchoServer, LabError> {
        let listener = self.tcp_listen(l4_port)?;
        let step = || failed(format!("{}: serving TCP {l4_port}", self.name()));
        let wake = Wake::Tcp(listener.try_clone().map_err(step())?);
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = stopping.clone();
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                if let Ok(stream) = stream {
                    std::thread::spawn(move || echo(stream));
                }
            }
        });
        Ok(EchoServer {
            stopping,
            wake,
            thread: Some(thread),
        })
    }

    /// Answers on a UDP port, in both families.
    pub fn serve_udp(&self, l4_port: u16) -> Result<EchoServer, LabError> {
        let socket = self.udp(l4_port)?;
        let step = || failed(format!("{}: serving UDP {l4_port}", self.name()));
        let wake = Wake::Udp(socket.try_clone().map_err(step())?);
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = stopping.clone();
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while !stop.load(Ordering::Acquire) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer)
                    && !stop.load(Ordering::Acquire)
                {
                    // A client that is gone is its own matter.
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        });
        Ok(EchoServer {
            stopping,
            wake,
            thread: Some(thread),
        })
    }

    /// Whether a datagram to an echo server comes back in time.
    pub fn udp_echo(&self, to: SocketAddr, timeout: Duration) -> Result<bool, LabError> {
        let asked = self.run(|| {
            let here: IpAddr = match to {
                SocketAddr::V4(_) => [0, 0, 0, 0].into(),
                SocketAddr::V6(_) => [0u16; 8].into(),
            };
            let socket = UdpSocket::bind((here, 0))?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(timeout))?;
            socket.send(b"portcullis")?;
            let mut buffer = [0; 64];
            answered(|| socket.recv(&mut buffer)).map(|length| length.is_some())
        });
        asked.map_err(failed(format!("{}: asking {to} by UDP", self.name())))
    }

    /// Whether a TCP connection to an echo server opens and answers in time.
    pub fn tcp_echo(&self, to: SocketAddr, timeout: Duration) -> bool {
        let asked = || {
            let mut stream = TcpStream::connect_timeout(&to, timeout)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.write_all(b"portcullis")?;
            stream.read_exact(&mut [0; 10])
        };
        self.run(asked).is_ok()
    }

    /// Pings once; the time it took, or `None` when no answer comes in time.
    pub fn ping(&self, to: IpAddr, timeout: Duration) -> Result<Option<Duration>, LabError> {
        let asked = self.run(|| ping(to, timeout));
        asked.map_err(failed(format!("{}: ping {to}", self.name())))
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        match &self.wake {
            // SAFETY: takes no pointers; the descriptor is open. It ends a blocked accept.
            Wake::Tcp(listener) => unsafe {
                libc::shutdown(listener.as_raw_fd(), libc::SHUT_RDWR);
            },
            Wake::Udp(socket) => {
                let here = socket.local_addr().map(|address| address.port());
                let here = here.and_then(|port| socket.send_to(&[], ("::ffff:127.0.0.1", port)));
                here.expect("the loopback device takes a datagram");
            }
        }
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server's thread doesn't panic");
        }
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
}

/// An ICMP socket that needs no raw access: the kernel fills in the identifier and keeps others' answers
/// away.
fn ping(to: IpAddr, timeout: Duration) -> io::Result<Option<Duration>> {
    let (family, protocol, request) = match to {
        IpAddr::V4(_) => (libc::AF_INET, libc::IPPROTO_ICMP, 8),
        IpAddr::V6(_) => (libc::AF_INET6, libc::IPPROTO_ICMPV6, 128),
    };
    // SAFETY: takes no pointers; the result is checked and owned by nobody else. A datagram socket of
    // any kind may be handled as a UdpSocket.
    let socket = unsafe {
        match libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol) {
            -1 => return Err(io::Error::last_os_error()),
            fd => UdpSocket::from_raw_fd(fd),
        }
    };
    socket.set_read_timeout(Some(timeout))?;
    let begun = Instant::now();
    socket.send_to(&[request, 0, 0, 0, 0, 0, 0, 1, 0x70, 0x63], (to, 0))?;
    let answer = answered(|| socket.recv(&mut [0; 64]))?;
    Ok(answer.map(|_| begun.elapsed()))
}

/// A port that was just given up may be held for a moment by a process that is being started elsewhere: until
/// it runs its program, it has all that is open here.
fn bound<T>(bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let begun = Instant::now();
    loop {
        match bind() {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse
                    && begun.elapsed() < Duration::from_secs(2) =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

/// No answer is an answer too, also when an ICMP error says so.
fn answered(mut receive: impl FnMut() -> io::Result<usize>) -> io::Result<Option<usize>> {
    use io::ErrorKind::{
        ConnectionRefused, HostUnreachable, Interrupted, NetworkUnreachable, TimedOut, WouldBlock,
    };
    loop {
        match receive() {
            Ok(length) => return Ok(Some(length)),
            Err(error) => match error.kind() {
                // With a time-out the kernel doesn't go on by itself.
                Interrupted => {}
                WouldBlock | TimedOut | ConnectionRefused | HostUnreachable
                | NetworkUnreachable => {
                    return Ok(None);
                }
                _ => return Err(error),
            },
        }
    }
}

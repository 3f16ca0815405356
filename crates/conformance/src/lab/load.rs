//! Traffic by the second: TCP connections, bulk TCP; and what it takes to measure other traffic.
//!
//! Everything is bounded in time and stays inside namespaces. Rates are of one run on one machine;
//! compare them with others of the same run.

use super::{LabError, Namespace, failed};
use std::io::{self, Read, Write};
use std::mem::{size_of, zeroed};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

/// How many of something happened in how long.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rate {
    pub count: u64,
    pub seconds: f64,
}

impl Rate {
    pub fn per_second(&self) -> f64 {
        self.count as f64 / self.seconds
    }
}

/// Connects, asks for one byte, reads it and the end; one connection after the other. Client and
/// server share one processor, so that the rate says what a connection costs it.
pub fn tcp_connections(
    client: &Namespace,
    server: &Namespace,
    at: SocketAddr,
    processor: usize,
    time: Duration,
) -> Result<Rate, LabError> {
    let listener = listen(server, at)?;
    let deadline = Instant::now() + time;
    std::thread::scope(|scope| {
        let served = scope.spawn(|| serve(&listener, processor, deadline));
        let rate = client.run(|| {
            pin(processor)?;
            let started = Instant::now();
            let mut count = 0;
            while Instant::now() < deadline {
                ask(at).map_err(failed("a TCP connection"))?;
                count += 1;
            }
            let seconds = started.elapsed().as_secs_f64();
            Ok(Rate { count, seconds })
        });
        served
            .join()
            .expect("the server has nothing to panic about")?;
        rate
    })
}

/// Until nobody has come for a while after the deadline.
fn serve(listener: &TcpListener, processor: usize, deadline: Instant) -> Result<(), LabError> {
    pin(processor)?;
    loop {
        let mut stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                return Err(failed("accepting")(error));
            }
            Err(_) if Instant::now() > deadline => return Ok(()),
            Err(_) => continue,
        };
        let mut byte = [0];
        // The server ends first: the client's port is free at once.
        if stream.read(&mut byte).is_ok() {
            drop(stream.write_all(b"a"));
        }
    }
}

/// A listener whose `accept` gives up after 0.1 s.
fn listen(server: &Namespace, at: SocketAddr) -> Result<TcpListener, LabError> {
    let listener = server
        .run(|| TcpListener::bind(at))
        .map_err(failed("listening"))?;
    let patience = libc::timeval {
        tv_sec: 0,
        tv_usec: 100_000,
    };
    // SAFETY: the option's value is alive, and of the size said.
    let set = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            std::ptr::from_ref(&patience).cast(),
            size_of::<libc::timeval>() as u32,
        )
    };
    match set {
        0 => Ok(listener),
        _ => Err(failed("listening")(io::Error::last_os_error())),
    }
}

fn ask(at: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(2))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"?")?;
    let mut answer = [0; 8];
    while stream.read(&mut answer)? > 0 {}
    Ok(())
}

/// Bytes that one TCP connection moved.
pub fn tcp_bulk(
    client: &Namespace,
    server: &Namespace,
    at: SocketAddr,
    time: Duration,
) -> Result<Rate, LabError> {
    let listener = listen(server, at)?;
    std::thread::scope(|scope| {
        let received = scope.spawn(|| -> Result<Rate, LabError> {
            pin(1)?;
            let (mut stream, _) = listener.accept().map_err(failed("accepting"))?;
            stream
                .set_read_timeout(Some(Duration::from_secs(2)))
                .map_err(failed("accepting"))?;
            let mut buffer = vec![0; 256 << 10];
            let started = Instant::now();
            let mut count = 0;
            loop {
                match stream.read(&mut buffer).map_err(failed("reading"))? {
                    0 => break,
                    bytes => count += bytes as u64,
                }
            }
            let seconds = started.elapsed().as_secs_f64();
            Ok(Rate { count, seconds })
        });
        let sent = client.run(|| -> Result<(), LabError> {
            pin(0)?;
            let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(2))
                .map_err(failed("a TCP connection"))?;
            let chunk = vec![0; 256 << 10];
            let deadline = Instant::now() + time;
            while Instant::now() < deadline {
                stream.write_all(&chunk).map_err(failed("writing"))?;
            }
            Ok(())
        });
        let received = received
            .join()
            .expect("the receiver has nothing to panic about");
        sent.and(received)
    })
}

/// Packets that a device of the calling thread's namespace has received.
pub fn received(device: &str) -> Result<u64, LabError> {
    let step = || failed(format!("the counters of {device}"));
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").map_err(step())?;
    let line = table
        .lines()
        .find_map(|l| l.trim().strip_prefix(device)?.strip_prefix(':'));
    line.and_then(|counters| counters.split_whitespace().nth(1)?.parse().ok())
        .ok_or_else(|| step()(io::ErrorKind::NotFound.into()))
}

/// Binds the calling thread to one processor.
pub fn pin(processor: usize) -> Result<(), LabError> {
    // SAFETY: a zeroed set is an empty one; the call reads it.
    let pinned = unsafe {
        let mut set: libc::cpu_set_t = zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set)
    };
    match pinned {
        0 => Ok(()),
        _ => Err(failed(format!("binding to processor {processor}"))(
            io::Error::last_os_error(),
        )),
    }
}

//! Inside a machine, or a namespace: a server that echoes, and a client that says whether its bytes came back.
//!
//! The lab's own program is in the machine's RAM disk; the console calls it as `portcullis-vmlab
//! guest ...`. Its exit status is the answer: 0, all came back; 1, they didn't in time.

use crate::Failure;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

pub(crate) fn main(arguments: &[String]) -> Result<bool, Failure> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["serve", ref ports @ ..] => serve(ports),
        ["tcp", to, port, bytes, limit_ms] => {
            let limit = Duration::from_millis(number(limit_ms)?);
            let sent = number(bytes)?;
            Ok(report(tcp(address(to, port)?, sent, limit)))
        }
        ["udp", to, port, bytes, limit_ms] => {
            let limit = Duration::from_millis(number(limit_ms)?);
            let sent = number(bytes)?;
            Ok(report(udp(address(to, port)?, sent, limit)))
        }
        ["probe-once", to, port] => {
            let limit = Duration::from_secs(2);
            Ok(TcpStream::connect_timeout(&address(to, port)?, limit).is_ok())
        }
        ["hold", to, port, file] => hold(address(to, port)?, file),
        ["many", to, port, count, file] => many(address(to, port)?, number(count)?, file),
        ["probe", to, open, closed, file] => probe(address(to, open)?, address(to, closed)?, file),
        _ => Err(Failure::new(format!("guest: unknown: {words:?}"))),
    }
}

/// Echoes on these ports, TCP and UDP, of both families, in the background; returns once it listens.
fn serve(ports: &[&str]) -> Result<bool, Failure> {
    for port in ports {
        let at = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), number(port)?);
        let listener = TcpListener::bind(at).map_err(|e| Failure::new(format!("{at}: {e}")))?;
        let socket = UdpSocket::bind(at).map_err(|e| Failure::new(format!("{at}: {e}")))?;
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || echo(stream));
            }
        });
        thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok((bytes, from)) = socket.recv_from(&mut buffer) {
                // What doesn't get back is the client's to notice.
                let _ = socket.send_to(&buffer[..bytes], from);
            }
        });
    }
    println!("listening");
    loop {
        thread::park();
    }
}

fn echo(mut stream: TcpStream) {
    let mut buffer = vec![0; 65_536];
    while let Ok(bytes @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..bytes]).is_err() {
            return;
        }
    }
}

fn report(result: std::io::Result<()>) -> bool {
    match &result {
        Ok(()) => println!("came back"),
        Err(error) => println!("{error}"),
    }
    result.is_ok()
}

/// Sends so many bytes while the same come back. No pause in either may be longer than the limit.
fn tcp(to: SocketAddr, bytes: u64, limit: Duration) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let mut sender = stream.try_clone()?;
    let sending = thread::spawn(move || {
        for chunk in Pattern::new(bytes) {
            sender.write_all(&chunk)?;
        }
        sender.shutdown(Shutdown::Write)
    });
    for chunk in Pattern::new(bytes) {
        let mut got = vec![0; chunk.len()];
        stream.read_exact(&mut got)?;
        if got != chunk {
            return Err(std::io::Error::other(
                "other bytes came back than were sent",
            ));
        }
    }
    sending.join().expect("it doesn't panic")
}

fn udp(to: SocketAddr, bytes: u64, limit: Duration) -> std::io::Result<()> {
    let any: IpAddr = if to.is_ipv4() {
        [0, 0, 0, 0].into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_read_timeout(Some(limit))?;
    socket.connect(to)?;
    let sent: Vec<u8> = Pattern::new(bytes).flatten().collect();
    socket.send(&sent)?;
    let mut got = vec![0; 65_536];
    let length = socket.recv(&mut got)?;
    if got[..length] == sent {
        Ok(())
    } else {
        Err(std::io::Error::other(
            "other bytes came back than were sent",
        ))
    }
}

/// Keeps a connection busy for ever: a byte each 20 ms. The file says how many were sent and came
/// back, as two numbers.
fn hold(to: SocketAddr, file: &str) -> Result<bool, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("hold {to}: {error}"));
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10)).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .map_err(failed)?;
    let (mut sent, mut back) = (0_u64, 0_u64);
    loop {
        // A full send buffer blocks; one byte at a time fills none.
        stream.write_all(b"x").map_err(failed)?;
        sent += 1;
        let mut buffer = [0; 4096];
        if let Ok(bytes @ 1..) = stream.read(&mut buffer) {
            back += bytes as u64;
            // The read came back at once: this keeps the pace.
            thread::sleep(Duration::from_millis(20));
        }
        write_whole(file, &format!("{sent} {back}\n"))?;
    }
}

/// Keeps many connections busy for ever: a number to and fro twice a second on each. The file says how
/// many are up, the fewest exchanges of any, and how many were cut.
fn many(to: SocketAddr, count: u32, file: &str) -> Result<bool, Failure> {
    let cut = Arc::new(AtomicU64::new(0));
    let exchanges: Vec<Arc<AtomicU64>> = (0..count).map(|_| Arc::default()).collect();
    for done in &exchanges {
        let (done, cut) = (done.clone(), cut.clone());
        let stream = TcpStream::connect_timeout(&to, Duration::from_secs(10));
        let stream = stream.map_err(|error| Failure::new(format!("many {to}: {error}")))?;
        thread::spawn(move || {
            // Whatever ends it: nobody closes these connections on purpose.
            let _ = exchange(stream, &done);
            cut.fetch_add(1, Ordering::Relaxed);
        });
    }
    loop {
        let fewest = exchanges
            .iter()
            .map(|done| done.load(Ordering::Relaxed))
            .min();
        let cut = cut.load(Ordering::Relaxed);
        write_whole(file, &format!("{count} {} {cut}\n", fewest.unwrap_or(0)))?;
        thread::sleep(Duration::from_millis(50));
    }
}

fn exchange(mut stream: TcpStream, done: &AtomicU64) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    loop {
        let number = done.load(Ordering::Relaxed).to_be_bytes();
        let mut back = [0; 8];
        stream.write_all(&number)?;
        stream.read_exact(&mut back)?;
        if back != number {
            return Err(std::io::Error::other("another number came back"));
        }
        done.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(500));
    }
}

/// Knocks for ever, at a port that is permitted and at one that isn't. The file says how often, and
/// how often the first was dropped and the second was not.
fn probe(open: SocketAddr, closed: SocketAddr, file: &str) -> Result<bool, Failure> {
    let (mut probes, mut dropped, mut leaked) = (0_u64, 0_u64, 0_u64);
    loop {
        probes += 1;
        if TcpStream::connect_timeout(&open, Duration::from_millis(900)).is_err() {
            dropped += 1;
        }
        // A refusal is an answer, too: the packet arrived.
        match TcpStream::connect_timeout(&closed, Duration::from_millis(50)) {
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {}
            Ok(_) | Err(_) => leaked += 1,
        }
        write_whole(file, &format!("{probes} {dropped} {leaked}\n"))?;
    }
}

/// A reader sees the old content or the new one.
fn write_whole(file: &str, content: &str) -> Result<(), Failure> {
    let new = format!("{file}.new");
    let written = std::fs::write(&new, content).and_then(|()| std::fs::rename(&new, file));
    written.map_err(|error| Failure::new(format!("{file}: {error}")))
}

/// Bytes that don't repeat soon, in chunks.
struct Pattern {
    left: u64,
    state: u64,
}

impl Pattern {
    fn new(bytes: u64) -> Self {
        Pattern {
            left: bytes,
            state: 0x9e37_79b9_7f4a_7c15,
        }
    }
}

impl Iterator for Pattern {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let size = self.left.min(65_536);
        self.left -= size;
        let mut chunk = Vec::with_capacity(65_536);
        while (chunk.len() as u64) < size {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            chunk.extend(self.state.to_le_bytes());
        }
        chunk.truncate(usize::try_from(size).expect("at most 65,536"));
        (size > 0).then_some(chunk)
    }
}

fn address(to: &str, port: &str) -> Result<SocketAddr, Failure> {
    let to: IpAddr = to
        .parse()
        .map_err(|_| Failure::new(format!("no address: {to}")))?;
    Ok(SocketAddr::new(to, number(port)?))
}

fn number<N: std::str::FromStr>(word: &str) -> Result<N, Failure> {
    word.parse()
        .map_err(|_| Failure::new(format!("no number: {word}")))
}

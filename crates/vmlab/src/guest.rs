//! Inside a machine: a server that echoes, and a client that says whether its bytes came back.
//!
//! The lab's own program is in the machine's RAM disk; the console calls it as `portcullis-vmlab
//! guest ...`. Its exit status is the answer: 0, all came back; 1, they didn't in time.

use crate::Failure;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
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
        ["hold", to, port, file] => hold(address(to, port)?, file),
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
        let new = format!("{file}.new");
        std::fs::write(&new, format!("{sent} {back}\n")).map_err(failed)?;
        std::fs::rename(&new, file).map_err(failed)?;
    }
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

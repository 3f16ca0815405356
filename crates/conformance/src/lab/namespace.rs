//! Network namespaces, and running things in them.

use super::{LabError, failed};
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Write};
use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A network namespace, which exists while a clone of this, a thread or a socket is in it.
#[derive(Clone, Debug)]
pub struct Namespace {
    handle: Arc<OwnedFd>,
}

/// What a network card may do in the kernel's stead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    TxChecksum,
    /// Cutting large TCP packets.
    Tso,
    /// Cutting large packets, late in the stack.
    Gso,
    /// Joining small packets.
    Gro,
}

impl Namespace {
    pub fn new() -> Result<Self, LabError> {
        let made = thread::spawn(|| {
            // SAFETY: takes no pointers; it moves just this thread, which ends here.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            Self::current()
        });
        made.join()
            .expect("the thread has nothing to panic about")
            .map_err(failed("a new network namespace (needs root)"))
    }

    /// The one that the calling thread is in.
    pub fn current() -> io::Result<Self> {
        let handle = File::open("/proc/thread-self/ns/net")?;
        Ok(Self {
            handle: Arc::new(handle.into()),
        })
    }

    /// Runs a closure in it, on a thread of its own. Sockets opened there, and processes started there,
    /// are in the namespace for good. A panic goes on in the caller.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let ran = thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter();
                    work()
                })
                .join()
        });
        ran.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Like [`Namespace::run`], without waiting.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let namespace = self.clone();
        thread::spawn(move || {
            namespace.enter();
            work()
        })
    }

    /// Runs lines of `ip -batch` in it.
    pub fn ip(&self, lines: &str) -> Result<(), LabError> {
        let done = self.run(|| batch(lines));
        done.map_err(failed(format!("`ip -batch` of:\n{}\n", lines.trim_end())))
    }

    /// Writes a file below `/proc/sys`.
    pub fn sysctl(&self, path: &str, value: &str) -> Result<(), LabError> {
        let file = format!("/proc/sys/{path}");
        self.run(|| std::fs::write(&file, value))
            .map_err(failed(format!("{file} = {value}")))
    }

    /// The number of one of its devices.
    pub fn ifindex(&self, device: &str) -> Result<u32, LabError> {
        self.run(|| ifindex(device))
            .map_err(failed(format!("the number of {device}")))
    }

    /// Turns an offload of one of its devices on or off.
    pub fn offload(&self, device: &str, offload: Offload, on: bool) -> Result<(), LabError> {
        self.run(|| set_offload(device, offload, on))
            .map_err(failed(format!("{offload:?} of {device}: {on}")))
    }

    /// Makes sure that a device that was set up passes packets: the kernel does what follows from a
    /// carrier (queues, a bridge port's state) some time later, unless somebody asks for the link.
    pub fn settle(&self, device: &str) -> Result<(), LabError> {
        const ETHTOOL_GLINK: u32 = 0x0a;
        let linked = self.run(|| ethtool(device, ETHTOOL_GLINK, 0));
        match linked.map_err(failed(format!("the link of {device}")))? {
            0 => Err(failed(format!("the link of {device}"))(
                io::ErrorKind::NetworkDown.into(),
            )),
            _ => Ok(()),
        }
    }

    /// Waits until a device is asked for these IPv6 addresses: the kernel joins their solicited-node groups
    /// on a queue that all namespaces share, and that is behind when many of them come and go.
    pub fn wait_for_solicited(&self, device: &str, addresses: &[Ipv6Addr]) -> Result<(), LabError> {
        let step = || failed(format!("{device} to be asked for {addresses:?}"));
        let groups: Vec<String> = addresses.iter().map(solicited_node_group).collect();
        let begun = Instant::now();
        loop {
            let joined = self.run(|| std::fs::read_to_string("/proc/thread-self/net/igmp6"));
            let joined = joined.map_err(step())?;
            let is_joined = |group: &String| {
                joined.lines().any(|line| {
                    let mut fields = line.split_whitespace().skip(1);
                    fields.next() == Some(device) && fields.next() == Some(group)
                })
            };
            if groups.iter().all(is_joined) {
                return Ok(());
            }
            if begun.elapsed() > Duration::from_secs(20) {
                return Err(step()(io::ErrorKind::TimedOut.into()));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// A path to it that holds while this process lives.
    pub fn path(&self) -> String {
        let process = std::process::id();
        format!("/proc/{process}/fd/{}", self.handle.as_raw_fd())
    }

    /// Moves the calling thread into it, for good. Just a system call.
    pub(super) fn join(&self) -> io::Result<()> {
        // SAFETY: takes no pointers; the descriptor is open as long as `self`.
        match unsafe { libc::setns(self.handle.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn enter(&self) {
        self.join()
            .expect("whoever could make the namespace can enter it");
    }
}

/// RFC 4291, 2.7.1; as `/proc/net/igmp6` writes it.
fn solicited_node_group(address: &Ipv6Addr) -> String {
    let [.., a, b, c] = address.octets();
    format!("ff0200000000000000000001ff{a:02x}{b:02x}{c:02x}")
}

/// In the namespace of the calling thread.
pub(super) fn ifindex(device: &str) -> io::Result<u32> {
    let name = CString::new(device)?;
    // SAFETY: a string that ends with 0.
    match unsafe { libc::if_nametoindex(name.as_ptr()) } {
        0 => Err(io::Error::last_os_error()),
        index => Ok(index),
    }
}

fn set_offload(device: &str, offload: Offload, on: bool) -> io::Result<()> {
    // linux/ethtool.h: ETHTOOL_STXCSUM, STSO, SGSO, SGRO.
    let command = match offload {
        Offload::TxChecksum => 0x17,
        Offload::Tso => 0x1f,
        Offload::Gso => 0x24,
        Offload::Gro => 0x2c,
    };
    ethtool(device, command, on.into()).map(|_| ())
}

/// One question or order of the kind that carries one number; the number that comes back.
fn ethtool(device: &str, command: u32, data: u32) -> io::Result<u32> {
    #[repr(C)]
    struct EthtoolValue {
        command: u32,
        data: u32,
    }
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    let mut value = EthtoolValue { command, data };
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: all zeros is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(device.bytes().take(15)) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: the request and the value that it points to live through the call.
    match unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &mut request) } {
        0 => Ok(value.data),
        _ => Err(io::Error::last_os_error()),
    }
}

fn batch(lines: &str) -> io::Result<()> {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut stdin = ip.stdin.take().expect("it was piped");
    stdin.write_all(lines.as_bytes())?;
    drop(stdin);
    let output = ip.wait_with_output()?;
    match output.status.success() {
        true => Ok(()),
        false => Err(io::Error::other(text(&output.stderr))),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

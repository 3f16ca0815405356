//! Exact frames: sent and received as they are on the device.

use super::namespace::ifindex;
use super::{LabError, failed};
use model::MacAddr;
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use wire::build;

/// Sends frames out of one device and captures what comes in there (not what goes out).
#[derive(Debug)]
pub struct PacketSocket {
    socket: OwnedFd,
    device: String,
}

/// An end of a line, where frames are sent and received exactly as they are.
pub trait FrameEnd {
    fn device(&self) -> &str;

    fn send(&self, frame: &[u8]) -> Result<(), LabError>;

    /// The next frame that came in; `None` when none comes in time.
    fn receive(&self, timeout: Duration) -> Result<Option<Vec<u8>>, LabError>;
}

/// One of those that may get a probe.
pub struct Receiver<'a> {
    pub name: &'a str,
    pub end: &'a dyn FrameEnd,
    pub addressed: bool,
}

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    Arrived,
    /// What was sent behind it arrived.
    Missing,
}

/// How long what certainly arrives may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(2);

/// Sends frames, and behind them a marker that every policy lets through; no frame of theirs that isn't
/// there when the marker arrives ever will be. Nothing is waited for longer than that takes.
///
/// The marker is a RARP announcement of `marker_mac`: for what a port sends, a MAC of the port.
pub fn probe(
    sender: &dyn FrameEnd,
    receiver: &dyn FrameEnd,
    frames: &[Vec<u8>],
    marker_mac: MacAddr,
) -> Result<Vec<Arrival>, LabError> {
    probe_by(1, sender, receiver, frames, marker_mac)
}

/// The same where a packet of a kind that has just been seen can be overtaken by one of a new kind, as in an Open
/// vSwitch: another marker goes behind the first if something is missing then, and is of no new kind any more.
pub fn probe_by(
    markers: u32,
    sender: &dyn FrameEnd,
    receiver: &dyn FrameEnd,
    frames: &[Vec<u8>],
    marker_mac: MacAddr,
) -> Result<Vec<Arrival>, LabError> {
    // A frame waits in the queue of the processor that sent it: one processor keeps the order.
    let _pinned = Pinned::here();
    for frame in frames {
        sender.send(frame)?;
    }
    let mut arrivals = vec![Arrival::Missing; frames.len()];
    let deadline = Instant::now() + PATIENCE;
    let left = || deadline.saturating_duration_since(Instant::now());
    for _ in 0..markers {
        let marker = marker(marker_mac);
        sender.send(&marker)?;
        loop {
            let Some(seen) = receiver.receive(left())? else {
                let step = format!(
                    "the marker from {} to {}: nothing arrives at all",
                    sender.device(),
                    receiver.device()
                );
                return Err(failed(step)(io::ErrorKind::TimedOut.into()));
            };
            if seen == marker {
                break;
            }
            let missing =
                |i: &usize| arrivals[*i] == Arrival::Missing && is_same(&frames[*i], &seen);
            if let Some(i) = (0..frames.len()).find(missing) {
                arrivals[i] = Arrival::Arrived;
            }
        }
        if !arrivals.contains(&Arrival::Missing) {
            break;
        }
    }
    Ok(arrivals)
}

/// Who of several gets a frame: each is to get the markers. Rounds of them end early when all whom it is
/// `addressed` to have it.
pub fn probe_many(
    markers: u32,
    sender: &dyn FrameEnd,
    receivers: &[Receiver<'_>],
    frame: &[u8],
    marker_mac: MacAddr,
) -> Result<Vec<bool>, LabError> {
    let _pinned = Pinned::here();
    sender.send(frame)?;
    let mut arrived = vec![false; receivers.len()];
    for _ in 0..markers {
        let marker = marker(marker_mac);
        sender.send(&marker)?;
        for (receiver, arrived) in receivers.iter().zip(&mut arrived) {
            let deadline = Instant::now() + PATIENCE;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let Some(seen) = receiver.end.receive(left)? else {
                    let step = format!("the marker for {}: nothing arrives at all", receiver.name);
                    return Err(failed(step)(io::ErrorKind::TimedOut.into()));
                };
                if seen == marker {
                    break;
                }
                *arrived |= is_same(frame, &seen);
            }
        }
        let missing = |(receiver, arrived): (&Receiver<'_>, &bool)| receiver.addressed && !arrived;
        if !receivers.iter().zip(&arrived).any(missing) {
            break;
        }
    }
    Ok(arrived)
}

/// Whether a marker arrives in this time: what was sent before it, and is on its way, is gone then.
pub fn is_through(
    sender: &dyn FrameEnd,
    receiver: &dyn FrameEnd,
    marker_mac: MacAddr,
    within: Duration,
) -> Result<bool, LabError> {
    let marker = marker(marker_mac);
    sender.send(&marker)?;
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match receiver.receive(left)? {
            Some(seen) if seen == marker => return Ok(true),
            Some(_) => {}
            None => return Ok(false),
        }
    }
}

/// Another than any before.
fn marker(mac: MacAddr) -> Vec<u8> {
    static MARKERS: AtomicU64 = AtomicU64::new(0);
    let number = MARKERS.fetch_add(1, Ordering::Relaxed);
    let nonce = [&number.to_be_bytes()[..], &std::process::id().to_be_bytes()].concat();
    build::rarp(mac).trailer(&nonce).bytes()
}

/// The kernel's IP code cuts off what stands behind a packet's end.
fn is_same(sent: &[u8], seen: &[u8]) -> bool {
    let length = |at: usize| {
        sent.get(at..at + 2)
            .map(|b| usize::from(u16::from_be_bytes([b[0], b[1]])))
    };
    let end = match sent.get(12..14) {
        Some([0x08, 0x00]) => length(16).map(|length| 14 + length),
        Some([0x86, 0xdd]) => length(18).map(|length| 14 + 40 + length),
        _ => None,
    };
    sent == seen || end.is_some_and(|end| sent.get(..end) == Some(seen))
}

impl PacketSocket {
    /// On a device of the namespace that the calling thread is in.
    pub fn open(device: &str) -> Result<Self, LabError> {
        open(device)
            .map(|socket| Self {
                socket,
                device: device.to_owned(),
            })
            .map_err(failed(format!("a packet socket on {device}")))
    }

    /// Sends one frame. The kernel refuses frames shorter than 14 bytes or longer than the MTU allows.
    pub fn send(&self, frame: &[u8]) -> Result<(), LabError> {
        // SAFETY: pointer and length are the slice's; the kernel only reads.
        let sent = unsafe {
            libc::send(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
            )
        };
        if sent < 0 {
            let step = format!("sending {} bytes out of {}", frame.len(), self.device);
            return Err(failed(step)(io::Error::last_os_error()));
        }
        Ok(())
    }

    /// The next frame that came in; `None` when none comes in time.
    pub fn receive(&self, timeout: Duration) -> Result<Option<Vec<u8>>, LabError> {
        self.receive_until(Instant::now() + timeout)
    }

    /// The first frame that `wanted` says yes to, others are passed over.
    pub fn wait_for(
        &self,
        timeout: Duration,
        mut wanted: impl FnMut(&[u8]) -> bool,
    ) -> Result<Option<Vec<u8>>, LabError> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.receive_until(deadline)? {
                Some(frame) if wanted(&frame) => return Ok(Some(frame)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    fn receive_until(&self, deadline: Instant) -> Result<Option<Vec<u8>>, LabError> {
        let step = || failed(format!("receiving on {}", self.device));
        loop {
            if let Some(frame) = receive_now(&self.socket).map_err(step())? {
                return Ok(Some(frame));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let mut poll = libc::pollfd {
                fd: self.socket.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            let left_ms = left.as_millis().min(60_000) as libc::c_int + 1;
            // SAFETY: one entry, which lives through the call.
            if unsafe { libc::poll(&mut poll, 1, left_ms) } < 0 {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(step()(error));
                }
            }
        }
    }
}

impl FrameEnd for PacketSocket {
    fn device(&self) -> &str {
        &self.device
    }

    fn send(&self, frame: &[u8]) -> Result<(), LabError> {
        self.send(frame)
    }

    fn receive(&self, timeout: Duration) -> Result<Option<Vec<u8>>, LabError> {
        self.receive(timeout)
    }
}

fn open(device: &str) -> io::Result<OwnedFd> {
    let every = (libc::ETH_P_ALL as u16).to_be();
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // Of no protocol until it is bound, so that nothing of other devices comes in.
    // SAFETY: takes no pointers; the result is checked and owned by nobody else.
    let socket = unsafe {
        match libc::socket(libc::AF_PACKET, kind, 0) {
            -1 => return Err(io::Error::last_os_error()),
            fd => OwnedFd::from_raw_fd(fd),
        }
    };
    option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1)?;
    option(&socket, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
    option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20)?;
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = every;
    address.sll_ifindex = ifindex(device)? as i32;
    // SAFETY: the pointer is to a sockaddr_ll, and the length is its size.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        )
    };
    match bound {
        0 => Ok(socket),
        _ => Err(io::Error::last_os_error()),
    }
}

fn option(socket: &OwnedFd, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: pointer and size are those of an int that lives through the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as u32,
        )
    };
    match set {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// What is in the queue, with its VLAN tag put back: the kernel hands that over apart.
fn receive_now(socket: &OwnedFd) -> io::Result<Option<Vec<u8>>> {
    let mut frame = vec![0u8; 1 << 16];
    let mut control = [0u64; 16];
    let mut part = libc::iovec {
        iov_base: frame.as_mut_ptr().cast(),
        iov_len: frame.len(),
    };
    // SAFETY: all zeros is a valid msghdr; its pointers are to buffers of the given lengths that live
    // through the call, and the control buffer is aligned for headers.
    let (length, tag) = unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of::<[u64; 16]>();
        let length = libc::recvmsg(socket.as_raw_fd(), &mut message, 0);
        if length < 0 {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
                // The device was taken down; what is still queued comes first.
                _ if error.raw_os_error() == Some(libc::ENETDOWN) => Ok(None),
                _ => Err(error),
            };
        }
        (length as usize, vlan_tag(&message))
    };
    frame.truncate(length);
    if let Some((protocol, control)) = tag
        && frame.len() >= 12
    {
        let tag = [protocol.to_be_bytes(), control.to_be_bytes()].concat();
        frame.splice(12..12, tag);
    }
    Ok(Some(frame))
}

/// # Safety
/// The message was filled in by `recvmsg`, and its control buffer lives.
unsafe fn vlan_tag(message: &libc::msghdr) -> Option<(u16, u16)> {
    // SAFETY: as the caller promises; the macros walk headers inside the buffer.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if ((*header).cmsg_level, (*header).cmsg_type)
                == (libc::SOL_PACKET, libc::PACKET_AUXDATA)
            {
                let data: libc::tpacket_auxdata = libc::CMSG_DATA(header)
                    .cast::<libc::tpacket_auxdata>()
                    .read_unaligned();
                let valid = data.tp_status & libc::TP_STATUS_VLAN_VALID != 0;
                let protocol = match data.tp_status & libc::TP_STATUS_VLAN_TPID_VALID {
                    0 => 0x8100,
                    _ => data.tp_vlan_tpid,
                };
                return valid.then_some((protocol, data.tp_vlan_tci));
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    None
}

/// Holds the calling thread on the processor that it is on.
struct Pinned {
    before: libc::cpu_set_t,
}

impl Pinned {
    fn here() -> Self {
        // SAFETY: all zeros is an empty set; pointers are to sets that live through the calls.
        unsafe {
            let mut before: libc::cpu_set_t = zeroed();
            let mut one: libc::cpu_set_t = zeroed();
            libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut before);
            libc::CPU_SET(libc::sched_getcpu().max(0) as usize, &mut one);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &one);
            Self { before }
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: the pointer is to a set that lives through the call.
        unsafe {
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &self.before);
        }
    }
}

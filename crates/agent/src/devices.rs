//! The devices of this host, as the kernel tells them by netlink.
//!
//! Place on the line: devices -> **events**.
//!
//! One socket, subscribed before the other asks for the list, tells every change since. When the
//! kernel had to drop messages (ENOBUFS) everything is listed anew, so nothing is missed for good.
//! Only the network namespace of the calling thread is seen.
//! Knows nothing of: ports, policies, which device is ours.

pub use crate::link::Link;
use crate::link::{LinkMessage, messages};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// All there are; replaces what was told before.
    Listed(Vec<Link>),
    Seen(Link),
    Gone {
        ifindex: u32,
    },
}

#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}; devices that come and go are not seen")]
pub struct LinkError {
    step: &'static str,
    source: io::Error,
}

/// Room for changes that wait to be read: a host that starts a thousand VMs sends bursts. Capped at the
/// kernel's rmem_max; beyond it changes are dropped, and everything is listed anew.
pub const ROOM_BYTES: usize = 4 << 20;

/// Tells all devices, then each change, until `tell` says `false`. Doesn't return otherwise unless
/// netlink fails.
pub fn follow(room_bytes: usize, mut tell: impl FnMut(LinkEvent) -> bool) -> Result<(), LinkError> {
    let failed = |step| {
        move |e: Errno| LinkError {
            step,
            source: e.into(),
        }
    };
    let subscription = open(RTMGRP_LINK).map_err(failed("subscribing to device changes"))?;
    rustix::net::sockopt::set_socket_recv_buffer_size(&subscription, room_bytes)
        .map_err(failed("making room for device changes"))?;
    let mut events = vec![LinkEvent::Listed(list()?)];
    let mut buffer = vec![0; RECEIVE_BYTES];
    loop {
        for event in events.drain(..) {
            if !tell(event) {
                return Ok(());
            }
        }
        match rustix::net::recv(&subscription, buffer.as_mut_slice(), RecvFlags::empty()) {
            Ok((length, _)) => {
                for message in messages(&buffer[..length]) {
                    match message {
                        LinkMessage::There(link) => events.push(LinkEvent::Seen(link)),
                        LinkMessage::Gone { ifindex } => events.push(LinkEvent::Gone { ifindex }),
                        LinkMessage::Done | LinkMessage::Answer(_) | LinkMessage::Other => {}
                    }
                }
            }
            Err(Errno::NOBUFS) => {
                // What still waits is older than what was lost: told after the list, it could bring
                // back a device that is gone.
                while !matches!(
                    rustix::net::recv(&subscription, buffer.as_mut_slice(), RecvFlags::DONTWAIT),
                    Err(Errno::WOULDBLOCK)
                ) {}
                events.push(LinkEvent::Listed(list()?));
            }
            Err(Errno::INTR) => {}
            Err(e) => return Err(failed("reading device changes")(e)),
        }
    }
}

/// Tells whether devices came, went or changed.
pub struct Changes(OwnedFd);

impl Changes {
    pub fn subscribe() -> Result<Self, LinkError> {
        let socket = open(RTMGRP_LINK).map_err(|e| LinkError {
            step: "subscribing to device changes",
            source: e.into(),
        })?;
        Ok(Self(socket))
    }

    /// Since it was last asked. Perhaps something that is of no interest; but never too little.
    pub fn any(&mut self) -> bool {
        let mut buffer = [0; 64];
        let mut any = false;
        loop {
            match rustix::net::recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT) {
                Err(Errno::WOULDBLOCK) => return any,
                // Some were dropped.
                Ok(_) | Err(Errno::NOBUFS | Errno::INTR) => any = true,
                Err(_) => return true,
            }
        }
    }
}

/// All devices of this network namespace.
pub fn list() -> Result<Vec<Link>, LinkError> {
    let failed = |e: Errno| LinkError {
        step: "listing the devices",
        source: e.into(),
    };
    let socket = open(0).map_err(failed)?;
    let mut request = Vec::with_capacity(LIST_BYTES as usize);
    request.extend(LIST_BYTES.to_ne_bytes());
    request.extend(RTM_GETLINK.to_ne_bytes());
    request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    request.resize(32, 0);
    // What each device has counted is a fifth of the list, and nobody asks for it.
    request.extend(8u16.to_ne_bytes());
    request.extend(IFLA_EXT_MASK.to_ne_bytes());
    request.extend(RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
    rustix::net::send(&socket, &request, SendFlags::empty()).map_err(failed)?;

    let mut links = Vec::new();
    let mut buffer = vec![0; RECEIVE_BYTES];
    loop {
        let (length, _) = rustix::net::recv(&socket, buffer.as_mut_slice(), RecvFlags::empty())
            .map_err(failed)?;
        for message in messages(&buffer[..length]) {
            match message {
                LinkMessage::There(link) => links.push(link),
                LinkMessage::Done => return Ok(links),
                LinkMessage::Answer(code) => {
                    return Err(failed(Errno::from_raw_os_error(code.saturating_neg())));
                }
                LinkMessage::Gone { .. } | LinkMessage::Other => {}
            }
        }
    }
}

/// The kernel fills at most 32 KiB per datagram of a list.
const RECEIVE_BYTES: usize = 64 << 10;
const RTMGRP_LINK: u32 = 1;
const RTM_GETLINK: u16 = 18;
/// Header, `ifinfomsg`, and one attribute of 4 bytes.
const LIST_BYTES: u32 = 40;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_DUMP: u16 = 0x300;

fn open(groups: u32) -> rustix::io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // The routing protocol is number 0, which rustix spells as none.
        None,
    )?;
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

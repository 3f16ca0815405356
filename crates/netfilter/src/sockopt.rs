//! The questions of iptables-legacy, which are socket options. The one unsafe call of this crate.
//!
//! Source: linux/netfilter_ipv4/ip_tables.h, linux/netfilter_ipv6/ip6_tables.h.

use model::Family;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use std::io;

/// Both families have the same numbers, at their own level.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Question {
    /// IPT_SO_GET_INFO, IP6T_SO_GET_INFO
    Info,
    /// IPT_SO_GET_ENTRIES, IP6T_SO_GET_ENTRIES
    Entries,
}

/// Any socket of the family will do; it belongs to the namespace of the thread.
pub(crate) fn open(family: Family) -> io::Result<OwnedFd> {
    let family = match family {
        Family::V4 => AddressFamily::INET,
        Family::V6 => AddressFamily::INET6,
    };
    let kind = SocketType::DGRAM;
    Ok(rustix::net::socket_with(
        family,
        kind,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// The kernel reads the question from the buffer and puts its answer over it.
pub(crate) fn ask(
    socket: &OwnedFd,
    family: Family,
    question: Question,
    buffer: &mut [u8],
) -> io::Result<()> {
    let level = match family {
        Family::V4 => libc::IPPROTO_IP,
        Family::V6 => libc::IPPROTO_IPV6,
    };
    let option = match question {
        Question::Info => 64,
        Question::Entries => 65,
    };
    let mut length = libc::socklen_t::try_from(buffer.len())
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the pointers are to a buffer of `length` bytes and to that length, both ours alone and
    // alive through the call. The kernel answers these two options only if `length` is exactly what the
    // answer takes, and writes no more; any bytes are valid in the buffer.
    let answered = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    match answered {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

//! A netlink socket to netfilter: requests out, answers in.
//!
//! The kernel works on requests within `send`, so their answers wait in the socket when it returns, and
//! the next part of a list when the part before is fetched. Nothing here ever blocks.

use crate::codec::{Content, Message, Requests, messages};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::io;

/// As many requests as may be sent together: were all of them refused, the answers (under 1 KiB of
/// the kernel's accounting each) would still fill just a third of a socket's usual room.
pub(crate) const REQUESTS_AT_ONCE: usize = 64;

/// Lists that change while they are read are read again, this often.
const TRIES: usize = 5;

/// What can be sent at once without asking for more room.
const PLAIN_BYTES: usize = 64 << 10;

/// The kernel fills at most 32 KiB per datagram of a list.
const RECEIVE_BYTES: usize = 64 << 10;

pub(crate) struct Socket {
    descriptor: OwnedFd,
    buffer: Vec<u8>,
}

impl Socket {
    pub(crate) fn open() -> io::Result<Self> {
        let descriptor = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(NETFILTER),
        )?;
        rustix::net::bind(&descriptor, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self {
            descriptor,
            buffer: vec![0; RECEIVE_BYTES],
        })
    }

    /// What became of each request: 0, or an error number. An error from here says that not all of
    /// them were answered: some may have been done.
    pub(crate) fn execute(&mut self, requests: Requests) -> io::Result<Vec<i32>> {
        let count = requests.len();
        self.send_all(&requests.answered_at_the_end(), count)
    }

    /// All of them or none are done; `Err` is why not, with which of them was refused first.
    pub(crate) fn execute_as_one(
        &mut self,
        requests: Requests,
        subsystem: u8,
    ) -> Result<(), (usize, io::Error)> {
        let count = requests.len();
        let answers = self.send_all(&requests.in_one_transaction(subsystem), count);
        let errnos = answers.map_err(|error| (0, error))?;
        match errnos.iter().position(|errno| *errno != 0) {
            Some(place) => Err((place, io::Error::from_raw_os_error(errnos[place]))),
            None => Ok(()),
        }
    }

    /// For one message of so many bytes.
    fn make_room(&self, bytes: usize) -> io::Result<()> {
        // What the kernel keeps with it counts, too.
        rustix::net::sockopt::set_socket_send_buffer_size_force(&self.descriptor, 2 * bytes)?;
        Ok(())
    }

    /// The answers to so many requests, of which the last one is answered in any case.
    fn send_all(&mut self, bytes: &[u8], count: usize) -> io::Result<Vec<i32>> {
        let mut errnos = vec![0; count];
        let Some(last) = count.checked_sub(1) else {
            return Ok(errnos);
        };
        if bytes.len() > PLAIN_BYTES {
            self.make_room(bytes.len())?;
        }
        self.send(bytes)?;
        let mut answered_last = false;
        while !answered_last {
            let datagram = match self.receive() {
                // Refused as a whole, without a look at each: the first one's answer is all there is.
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => match errnos[0] {
                    0 => return Err(no_answer()),
                    errno => return Err(io::Error::from_raw_os_error(errno)),
                },
                other => other?,
            };
            for Message { seq, content, .. } in messages(datagram) {
                let place = seq as usize;
                if let (Content::Answer { errno }, Some(slot)) = (content, errnos.get_mut(place)) {
                    *slot = errno;
                    answered_last |= place == last;
                }
            }
        }
        Ok(errnos)
    }

    /// The one object that a question is answered with.
    pub(crate) fn ask<T>(
        &mut self,
        question: Requests,
        read: impl Fn(u8, &[u8]) -> Option<T>,
    ) -> io::Result<T> {
        self.send(&question.bytes())?;
        let datagram = self.receive().map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock => no_answer(),
            _ => e,
        })?;
        for message in messages(datagram) {
            match message.content {
                Content::Object { family, attributes } => {
                    return read(family, attributes).ok_or_else(unreadable);
                }
                Content::Answer { errno } | Content::Done { errno } if errno != 0 => {
                    return Err(io::Error::from_raw_os_error(errno));
                }
                Content::Answer { .. } | Content::Done { .. } | Content::Cut => {}
            }
        }
        Err(no_answer())
    }

    /// Tells each object of a list. `tell` says `false` for one that it can't read, which fails the
    /// whole: what isn't seen would not be acted on.
    fn list(
        &mut self,
        request: &[u8],
        tell: &mut dyn FnMut(u8, &[u8]) -> bool,
    ) -> io::Result<Listed> {
        self.send(request)?;
        let mut listed = Listed::Whole;
        loop {
            let datagram = self.receive().map_err(|e| match e.kind() {
                io::ErrorKind::WouldBlock => no_answer(),
                _ => e,
            })?;
            for message in messages(datagram) {
                if message.interrupted {
                    listed = Listed::Interrupted;
                }
                match message.content {
                    Content::Object { family, attributes } => {
                        if !tell(family, attributes) {
                            return Err(unreadable());
                        }
                    }
                    Content::Done { errno: 0 } => return Ok(listed),
                    Content::Done { errno } | Content::Answer { errno } if errno != 0 => {
                        return Err(io::Error::from_raw_os_error(errno));
                    }
                    Content::Done { .. } | Content::Answer { .. } => {}
                    Content::Cut => return Err(unreadable()),
                }
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        loop {
            match rustix::net::send(&self.descriptor, bytes, SendFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    fn receive(&mut self) -> io::Result<&[u8]> {
        loop {
            let buffer = self.buffer.as_mut_slice();
            match rustix::net::recv(&self.descriptor, buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) => return Ok(&self.buffer[..length]),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

#[derive(Clone, Copy)]
enum Listed {
    Whole,
    Interrupted,
}

/// Tells each object of a list, on a socket of its own. A list that the kernel says has changed under
/// the reading is told again from its beginning, at most five times in all; then it is an error.
pub(crate) fn list(request: Requests, mut tell: impl FnMut(u8, &[u8]) -> bool) -> io::Result<()> {
    let request = request.bytes();
    until_whole(|| Socket::open()?.list(&request, &mut tell))
}

fn until_whole(mut attempt: impl FnMut() -> io::Result<Listed>) -> io::Result<()> {
    for _ in 0..TRIES {
        match attempt()? {
            Listed::Whole => return Ok(()),
            Listed::Interrupted => {}
        }
    }
    Err(Errno::INTR.into())
}

fn no_answer() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel gave no answer")
}

fn unreadable() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "an answer that its header files don't explain",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list that is interrupted so often: how often it is read, and whether it is whole then.
    fn check(interruptions: usize, reads: usize, whole: bool) {
        let mut seen = 0;
        let listed = until_whole(|| {
            seen += 1;
            Ok(match seen <= interruptions {
                true => Listed::Interrupted,
                false => Listed::Whole,
            })
        });
        assert_eq!((seen, listed.is_ok()), (reads, whole));
    }

    #[test]
    fn an_interrupted_list_is_read_again_and_not_for_ever() {
        check(0, 1, true);
        check(TRIES - 1, TRIES, true);
        check(TRIES, TRIES, false);
    }
}

//! Tap devices: the VM's end is a file, as an emulator has it.

use super::packets::FrameEnd;
use super::{LabError, failed};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::mem::zeroed;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::{Duration, Instant};

/// A tap device and the file that stands for its VM. The device goes with it.
#[derive(Debug)]
pub struct Tap {
    device: String,
    file: File,
}

impl Tap {
    /// Makes one in the namespace that the calling thread is in.
    pub(super) fn open(device: &str) -> Result<Self, LabError> {
        Self::open_as(device, None)
    }

    /// Makes one in the namespace that the calling thread is in, with this index. It is down.
    pub fn open_numbered(device: &str, ifindex: u32) -> Result<Self, LabError> {
        Self::open_as(device, Some(ifindex))
    }

    fn open_as(device: &str, ifindex: Option<u32>) -> Result<Self, LabError> {
        let step = || failed(format!("the tap device {device}"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open("/dev/net/tun")
            .map_err(step())?;
        if let Some(ifindex) = ifindex {
            // SAFETY: the number lives through the call, which reads just it.
            let taken = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFINDEX, &ifindex) };
            if taken != 0 {
                return Err(step()(io::Error::last_os_error()));
            }
        }
        // SAFETY: all zeros is a valid ifreq.
        let mut request: libc::ifreq = unsafe { zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(device.bytes().take(15)) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as i16;
        // SAFETY: the request lives through the call, which reads and writes just it.
        let made = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) };
        match made {
            0 => Ok(Self {
                device: device.to_owned(),
                file,
            }),
            _ => Err(step()(io::Error::last_os_error())),
        }
    }

    /// Its device in the host namespace.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Sends a frame as the VM.
    pub fn send(&self, frame: &[u8]) -> Result<(), LabError> {
        let sent = (&self.file).write_all(frame);
        sent.map_err(failed(format!("sending as the VM behind {}", self.device)))
    }

    /// The next frame that the VM would receive; `None` when none comes in time.
    pub fn receive(&self, timeout: Duration) -> Result<Option<Vec<u8>>, LabError> {
        let deadline = Instant::now() + timeout;
        let mut frame = vec![0; 1 << 16];
        loop {
            match (&self.file).read(&mut frame) {
                Ok(length) => {
                    frame.truncate(length);
                    return Ok(Some(frame));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    let step = format!("receiving as the VM behind {}", self.device);
                    return Err(failed(step)(error));
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let mut poll = libc::pollfd {
                fd: self.file.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            // SAFETY: one entry, which lives through the call.
            unsafe { libc::poll(&mut poll, 1, left.as_millis().min(60_000) as i32 + 1) };
        }
    }
}

impl FrameEnd for Tap {
    fn device(&self) -> &str {
        self.device()
    }

    fn send(&self, frame: &[u8]) -> Result<(), LabError> {
        self.send(frame)
    }

    fn receive(&self, timeout: Duration) -> Result<Option<Vec<u8>>, LabError> {
        self.receive(timeout)
    }
}

//! Samples of dropped packets, out of the ring that the hooks write.

use crate::layout::{DIR_INGRESS, Event, Shared};
use libbpf_sys::{ring_buffer__consume, ring_buffer__free, ring_buffer__new};
use model::{Direction, DropReason, PortId};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::raw::{c_int, c_void};
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropSample {
    /// Of the monotonic clock.
    pub time: Duration,
    /// `None`: a device without a port.
    pub port: Option<PortId>,
    pub direction: Direction,
    pub reason: DropReason,
    /// The frame's length, and its first bytes.
    pub length: u32,
    pub frame: Vec<u8>,
}

/// What has come since the last call, in order. `port` names who is in a slot.
pub(crate) fn consume(
    ring: &OwnedFd,
    port: impl Fn(u32) -> Option<PortId>,
) -> io::Result<Vec<DropSample>> {
    let mut raw: Vec<(Event, Vec<u8>)> = Vec::new();
    // SAFETY: the callback gets the pointer back, while `raw` is there and not otherwise used.
    let answer = unsafe {
        let buffer = ring_buffer__new(
            ring.as_raw_fd(),
            Some(collect),
            std::ptr::from_mut(&mut raw).cast(),
            std::ptr::null(),
        );
        if buffer.is_null() {
            return Err(io::Error::last_os_error());
        }
        let answer = ring_buffer__consume(buffer);
        ring_buffer__free(buffer);
        answer
    };
    crate::table::check(answer)?;
    let samples = raw.into_iter().filter_map(|(event, frame)| {
        let reason = u8::try_from(event.reason)
            .ok()
            .and_then(DropReason::from_number)?;
        Some(DropSample {
            time: Duration::from_nanos(event.time_ns),
            port: port(event.slot),
            direction: if event.direction == DIR_INGRESS {
                Direction::Ingress
            } else {
                Direction::Egress
            },
            reason,
            length: event.length,
            frame,
        })
    });
    Ok(samples.collect())
}

unsafe extern "C" fn collect(
    context: *mut c_void,
    data: *mut c_void,
    size: libbpf_sys::size_t,
) -> c_int {
    // SAFETY: `consume` gave this pointer; the ring gives `size` bytes of a sample.
    let (samples, bytes) = unsafe {
        (
            &mut *context.cast::<Vec<(Event, Vec<u8>)>>(),
            std::slice::from_raw_parts(data.cast::<u8>(), size as usize),
        )
    };
    if let Some((event, frame)) = bytes.split_at_checked(size_of::<Event>())
        && let Some(event) = Event::from_bytes(event)
    {
        let captured = frame.len().min(event.captured as usize);
        samples.push((event, frame[..captured].to_vec()));
    }
    0
}

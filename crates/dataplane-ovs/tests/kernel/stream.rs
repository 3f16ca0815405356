//! A stream of equal datagrams from one VM to another, and when each arrived.

use crate::bed::{Bed, is_same};
use conformance::lab::PacketSocket;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub(crate) struct Stream {
    stopping: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    arrivals: Arc<Mutex<Vec<Instant>>>,
    threads: Vec<JoinHandle<()>>,
}

/// What certainly arrives does so within this on a busy machine.
const PATIENCE: Duration = Duration::from_secs(5);

impl Stream {
    pub(crate) fn begin(bed: &Bed, from: &str, to: &str, frame: Vec<u8>, every: Duration) -> Self {
        Self::between(bed.packets(from), bed.packets(to), frame, every)
    }

    pub(crate) fn between(
        from: PacketSocket,
        to: PacketSocket,
        frame: Vec<u8>,
        every: Duration,
    ) -> Self {
        let mut stream = Self {
            stopping: Arc::default(),
            sent: Arc::default(),
            arrivals: Arc::default(),
            threads: Vec::new(),
        };
        stream.receive(to, frame.clone());
        stream.send(from, frame, every);
        stream
    }

    fn send(&mut self, socket: PacketSocket, frame: Vec<u8>, every: Duration) {
        let (stopping, sent) = (Arc::clone(&self.stopping), Arc::clone(&self.sent));
        self.threads.push(thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                socket.send(&frame).expect("sent");
                sent.fetch_add(1, Ordering::Relaxed);
                thread::sleep(every);
            }
        }));
    }

    fn receive(&mut self, socket: PacketSocket, frame: Vec<u8>) {
        let (stopping, arrivals) = (Arc::clone(&self.stopping), Arc::clone(&self.arrivals));
        self.threads.push(thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                let seen = socket.wait_for(Duration::from_millis(20), |seen| is_same(&frame, seen));
                if seen.expect("a socket").is_some() {
                    arrivals.lock().expect("nobody panics").push(Instant::now());
                }
            }
        }));
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Until so many more were sent.
    pub(crate) fn wait_for_more(&self, count: u64) {
        let enough = self.sent() + count;
        while self.sent() < enough {
            thread::sleep(Duration::from_millis(2));
        }
    }

    pub(crate) fn arrived(&self) -> usize {
        self.arrivals.lock().expect("nobody panics").len()
    }

    /// The last one until now.
    pub(crate) fn last(&self) -> Option<Instant> {
        self.arrivals.lock().expect("nobody panics").last().copied()
    }

    /// The first one after a moment.
    pub(crate) fn first_after(&self, moment: Instant) -> Option<Instant> {
        let arrivals = self.arrivals.lock().expect("nobody panics");
        arrivals.iter().find(|arrival| **arrival > moment).copied()
    }

    /// Waits for the next one.
    pub(crate) fn flows(&self) -> bool {
        let now = Instant::now();
        while now.elapsed() < PATIENCE {
            if self.first_after(now).is_some() {
                return true;
            }
            thread::sleep(Duration::from_millis(2));
        }
        false
    }

    /// Nothing of it arrives for a while.
    pub(crate) fn is_silent(&self) -> bool {
        let before = self.arrived();
        thread::sleep(Duration::from_millis(200));
        self.arrived() == before
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            // A second panic would hide the first.
            assert!(ended.is_ok() || thread::panicking(), "a socket failed");
        }
    }
}

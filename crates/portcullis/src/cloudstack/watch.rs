//! Looks after what is in force, between the calls: what others change is put right, VMs' devices that come
//! again are armed, and flows are counted. Nothing needs it: calls enforce by themselves.
//!
//! It works under the lock of the calls, for some milliseconds at a time; what a call does in between is
//! noticed by the state's file.

use super::config::Config;
use super::host::{self, CloudHost};
use super::release::Leaving;
use crate::failure::Failure;
use crate::plane::LivePlane;
use agent::Link;
use agent::devices::Changes;
use cloudstack::State;
use dataplane::{ApplyError, Drift};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

const EVERY: Duration = Duration::from_millis(500);
const TEND_EVERY: Duration = Duration::from_secs(1);

/// Until told to stop; enforcement stays.
pub(crate) fn watch(config: &Config, stop: &Arc<AtomicBool>) -> Result<(), Failure> {
    let mut watched: Option<Watched> = None;
    let mut complaint = String::new();
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        match look(config, &mut watched) {
            Ok(()) => complaint.clear(),
            Err(failure) => {
                watched = None;
                let text = failure.text();
                if text != complaint {
                    tracing::error!(error = %text, "not looked after; it is tried again");
                    complaint = text;
                }
            }
        }
        std::thread::sleep(EVERY.saturating_sub(began.elapsed()));
    }
    Ok(())
}

/// What is in force, as of the state's file at a time.
struct Watched {
    stamp: Option<SystemTime>,
    state: State,
    links: BTreeMap<u32, Link>,
    moves: Changes,
    plane: Box<dyn LivePlane>,
    /// Of nft's rules, when the drop for devices that nobody has told of was last looked at.
    generation: Option<u32>,
    next_tend: Instant,
}

fn look(config: &Config, watched: &mut Option<Watched>) -> Result<(), Failure> {
    // A call that is at work looks for itself.
    let Some(host) = CloudHost::try_enter(config.clone())? else {
        return Ok(());
    };
    if matches!(host.leaving(), Some(Leaving::Switched(_) | Leaving::Left)) {
        *watched = None;
        return Ok(());
    }
    let path = host::state_path(&host.instance);
    let stamp = stamp(&path);
    if watched
        .as_ref()
        .is_none_or(|watched| watched.stamp != stamp)
    {
        *watched = match host.state()? {
            Some(state) => Some(Watched {
                stamp,
                plane: host.plane(&state)?,
                state,
                links: BTreeMap::new(),
                moves: Changes::subscribe().map_err(Failure::system)?,
                generation: None,
                next_tend: Instant::now(),
            }),
            None => None,
        };
    }
    match watched {
        Some(watched) => watched.look_after(&host),
        None => Ok(()),
    }
}

impl Watched {
    fn look_after(&mut self, host: &CloudHost) -> Result<(), Failure> {
        let moved = self.devices_moved()?;
        let drift = self.plane.audit().map_err(Failure::system)?;
        let changed = drift.iter().any(|drift| match drift {
            Drift::Detached { .. } | Drift::Changed { .. } => true,
            Drift::NotFirst { .. } => false,
        });
        if changed {
            for drift in &drift {
                tracing::warn!(?drift, "host not as it was left");
            }
        }
        let guarded = self.is_guarded(host)?;
        if !guarded {
            tracing::warn!("devices that nobody has told of were not closed");
            host.forget_guard();
        }
        let repair = changed || !guarded;
        if moved || repair {
            let target = host.target(&self.state, &self.links);
            let report = host.enforce_target(&mut *self.plane, target, &self.links)?;
            let (writes, took_ms) = (report.writes, report.took.as_millis());
            if writes > 0 {
                tracing::info!(writes, took_ms, repair, "in force");
            }
        }
        if Instant::now() >= self.next_tend {
            self.next_tend = Instant::now() + TEND_EVERY;
            self.plane
                .tend()
                .map_err(|error: ApplyError| Failure::system(error))?;
        }
        Ok(())
    }

    /// Lists them only if the kernel has told of something.
    fn devices_moved(&mut self) -> Result<bool, Failure> {
        if !self.moves.any() && !self.links.is_empty() {
            return Ok(false);
        }
        let links = host::links()?;
        let moved = links != self.links;
        self.links = links;
        Ok(moved)
    }

    /// Looks only if somebody has changed any of nft's rules.
    fn is_guarded(&mut self, host: &CloudHost) -> Result<bool, Failure> {
        let now = netfilter::generation::nft().ok();
        let seen = std::mem::replace(&mut self.generation, now);
        match now.is_some() && now == seen {
            true => Ok(true),
            false => host.guard_is_in_place(),
        }
    }
}

/// The state's file is replaced as a whole by each call that changes it.
fn stamp(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|data| data.modified()).ok()
}

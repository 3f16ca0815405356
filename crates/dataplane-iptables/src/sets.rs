//! Changes to address sets: made without starting ipset.
//!
//! Place on the line: plan -> **step** -> the kernel.
//! Knows nothing of: what the sets are for.

use crate::parts::IpSet;
use netfilter::Error;
use netfilter::ipset::{Changes, Element, Said};
use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SetChange {
    /// With its elements. One that is left of this name is emptied first.
    Create(String, IpSet),
    /// In the place of another one of this name, which rules may refer to: that is never empty.
    Replace(String, IpSet),
    Add(String, Vec<(Element, Said)>),
    Delete(String, Vec<Element>),
    Destroy(String),
}

/// For how long a set that should be out of use may be in use.
const PATIENCE: Duration = Duration::from_secs(2);
const BLINK: Duration = Duration::from_micros(200);

const ASIDE: &str = "pc-aside";
const MOST_ELEMENTS: u32 = 4_194_304;

impl SetChange {
    /// How many objects it changes.
    pub(crate) fn writes(&self) -> u64 {
        let count = match self {
            SetChange::Create(_, set) | SetChange::Replace(_, set) => 1 + set.len(),
            SetChange::Add(_, elements) => elements.len(),
            SetChange::Delete(_, elements) => elements.len(),
            SetChange::Destroy(_) => 1,
        };
        count as u64
    }

    fn write(&self, changes: &mut Changes) {
        match self {
            SetChange::Create(name, set) => create(changes, name, set),
            SetChange::Replace(name, set) => {
                create(changes, ASIDE, set);
                changes.swap(ASIDE, name);
                changes.destroy(ASIDE);
            }
            SetChange::Add(name, elements) => changes.add(name, elements),
            SetChange::Delete(name, elements) => changes.delete(name, elements),
            SetChange::Destroy(name) => changes.destroy(name),
        }
    }
}

fn create(changes: &mut Changes, name: &str, set: &IpSet) {
    let (kind, carries) = (set.content.kind(), set.content.carries());
    changes.create(name, kind, set.family, carries, MOST_ELEMENTS);
    changes.flush(name);
    let elements: Vec<(Element, Said)> = set.elements().into_iter().collect();
    changes.add(name, &elements);
}

/// What is destroyed is destroyed last.
pub(crate) fn make(changes: &[SetChange]) -> Result<(), Error> {
    let is_destroyed = |change: &&SetChange| matches!(change, SetChange::Destroy(_));
    let (gone, rest): (Vec<&SetChange>, Vec<&SetChange>) = changes.iter().partition(is_destroyed);
    let mut requests = Changes::default();
    for change in rest {
        change.write(&mut requests);
    }
    requests.execute()?;
    let give_up = Instant::now() + PATIENCE;
    gone.into_iter()
        .try_for_each(|change| destroy(change, give_up))
}

/// A rule of nftables that is gone lets go of its sets a moment later.
fn destroy(change: &SetChange, give_up: Instant) -> Result<(), Error> {
    loop {
        let mut requests = Changes::default();
        change.write(&mut requests);
        match requests.execute() {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < give_up => {
                thread::sleep(BLINK);
            }
            done => return done,
        }
    }
}

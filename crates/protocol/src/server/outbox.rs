//! What waits for one connection. It never grows without bound: changes that wait are merged, and beyond a bound
//! they are forgotten, and the host gets its whole part again.

use crate::messages::ClosingReason;
use model::{Inventory, InventoryChange, Revision};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use tokio::sync::Notify;

pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    news: Notify,
    /// So many objects wait at most.
    bound: usize,
}

struct Waiting {
    /// What the host has, or is being sent, isn't what the changes are based on.
    is_stale: bool,
    part: Option<Inventory>,
    /// It was here, and is forgotten: whoever waits for it has to ask again.
    is_part_lost: bool,
    /// Merged, as far as that can be said in one.
    changes: VecDeque<InventoryChange>,
    progress: Option<Revision>,
    closing: Option<Closing>,
}

#[derive(Clone, Debug)]
pub(crate) struct Closing {
    pub(crate) reason: ClosingReason,
    pub(crate) why: String,
}

pub(crate) enum Next {
    /// Ask for the part; it comes by [`Outbox::put_part`].
    WantsPart,
    Part(Box<Inventory>),
    Change(InventoryChange),
    Progress(Revision),
    Close(Closing),
}

impl Outbox {
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            waiting: Mutex::new(Waiting {
                is_stale: true,
                part: None,
                is_part_lost: false,
                changes: VecDeque::new(),
                progress: None,
                closing: None,
            }),
            news: Notify::new(),
            bound,
        }
    }

    /// As of this moment: changes from now on come after it.
    pub(crate) fn put_part(&self, part: Inventory) {
        self.update(|waiting| {
            waiting.is_stale = false;
            waiting.is_part_lost = false;
            waiting.changes.clear();
            waiting.progress = None;
            waiting.part = Some(part);
        });
    }

    /// The host has its part as of this moment.
    pub(crate) fn begin_now(&self) {
        self.put_part(Inventory::default());
        self.update(|waiting| waiting.part = None);
    }

    /// Whether it was too much.
    pub(crate) fn put_change(&self, change: InventoryChange) -> bool {
        let bound = self.bound;
        self.update(|waiting| {
            if waiting.is_stale {
                return false;
            }
            waiting.progress = None;
            waiting.add(change);
            let is_too_much = waiting.changes.iter().map(size).sum::<usize>() > bound;
            if is_too_much {
                waiting.forget();
            }
            is_too_much
        })
    }

    pub(crate) fn put_progress(&self, revision: Revision) {
        self.update(|waiting| {
            if !waiting.is_stale {
                waiting.progress = Some(revision);
            }
        });
    }

    /// All that it has is of no use any more.
    pub(crate) fn resync(&self) {
        self.update(Waiting::forget);
    }

    pub(crate) fn close(&self, reason: ClosingReason, why: impl Into<String>) {
        let why = why.into();
        self.update(|waiting| {
            waiting.closing.get_or_insert(Closing { reason, why });
        });
    }

    pub(crate) async fn next(&self) -> Next {
        loop {
            let news = self.news.notified();
            if let Some(next) = self.at_once() {
                return next;
            }
            news.await;
        }
    }

    /// `None`: nothing waits.
    pub(crate) fn at_once(&self) -> Option<Next> {
        self.waiting().take()
    }

    /// The part that was asked for, or that it has to be asked for again, or the end.
    pub(crate) async fn part(&self) -> Next {
        loop {
            let news = self.news.notified();
            {
                let mut waiting = self.waiting();
                if let Some(closing) = waiting.closing.clone() {
                    return Next::Close(closing);
                }
                if let Some(part) = waiting.part.take() {
                    return Next::Part(Box::new(part));
                }
                if std::mem::take(&mut waiting.is_part_lost) {
                    return Next::WantsPart;
                }
            }
            news.await;
        }
    }

    /// As soon as it is to be closed.
    pub(crate) async fn closed(&self) -> Closing {
        loop {
            let news = self.news.notified();
            if let Some(closing) = self.waiting().closing.clone() {
                return closing;
            }
            news.await;
        }
    }

    fn update<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let done = change(&mut self.waiting());
        self.news.notify_waiters();
        done
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        let locked = self.waiting.lock();
        locked.expect("nobody panics who holds this lock")
    }
}

impl Waiting {
    fn take(&mut self) -> Option<Next> {
        if let Some(closing) = self.closing.clone() {
            return Some(Next::Close(closing));
        }
        if let Some(part) = self.part.take() {
            return Some(Next::Part(Box::new(part)));
        }
        if self.is_stale {
            return Some(Next::WantsPart);
        }
        if let Some(change) = self.changes.pop_front() {
            return Some(Next::Change(change));
        }
        self.progress.take().map(Next::Progress)
    }

    fn add(&mut self, change: InventoryChange) {
        let Some(last) = self.changes.back_mut() else {
            return self.changes.push_back(change);
        };
        if let Err(apart) = distribution::merge(last, change) {
            self.changes.push_back(*apart);
        }
    }

    fn forget(&mut self) {
        self.is_stale = true;
        self.is_part_lost |= self.part.take().is_some();
        self.changes.clear();
        self.progress = None;
    }
}

/// In objects; the change itself counts, so that empty ones don't pile up.
fn size(change: &InventoryChange) -> usize {
    let put = change.groups.values().flatten();
    1 + change.hosts.len()
        + change.networks.len()
        + change.ports.len()
        + change.groups.len()
        + put.map(|group| group.rules.len()).sum::<usize>()
        + change.rules.len()
        + change.address_groups.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{HostId, NetworkId};

    fn gone(id: &str, commit: u64) -> InventoryChange {
        InventoryChange {
            revision: Revision { epoch: 1, commit },
            networks: [(NetworkId::from(id), None)].into(),
            ..InventoryChange::default()
        }
    }

    /// In words, all that comes out until it is empty.
    fn emptied(outbox: &Outbox) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(next) = outbox.waiting().take() {
            seen.push(match next {
                Next::WantsPart => {
                    seen.push("wants part".to_owned());
                    return seen;
                }
                Next::Part(part) => format!("part {}", part.revision),
                Next::Change(change) => format!("change {} of {}", change.revision, size(&change)),
                Next::Progress(revision) => format!("progress {revision}"),
                Next::Close(closing) => {
                    seen.push(format!("close {}", closing.why));
                    return seen;
                }
            });
        }
        seen
    }

    fn check(does: impl FnOnce(&Outbox), expected: &[&str]) {
        let outbox = Outbox::new(4);
        does(&outbox);
        assert_eq!(emptied(&outbox), expected);
    }

    #[test]
    fn what_waits_is_merged_and_beyond_the_bound_forgotten() {
        check(|_| {}, &["wants part"]);
        check(
            |outbox| {
                assert!(!outbox.put_change(gone("before", 1)));
                outbox.put_part(Inventory::default());
            },
            &["part 0.0"],
        );
        check(
            |outbox| {
                outbox.put_part(Inventory::default());
                outbox.put_change(gone("a", 1));
                outbox.put_progress(Revision {
                    epoch: 1,
                    commit: 2,
                });
                outbox.put_change(gone("a", 3));
                outbox.put_change(gone("b", 4));
            },
            &["part 0.0", "change 1.4 of 3"],
        );
        check(
            |outbox| {
                outbox.put_part(Inventory::default());
                assert!(matches!(outbox.waiting().take(), Some(Next::Part(_))));
                let too_much = ["a", "b", "c", "d"].map(|id| outbox.put_change(gone(id, 1)));
                assert_eq!(too_much, [false, false, false, true]);
                outbox.put_progress(Revision {
                    epoch: 1,
                    commit: 2,
                });
            },
            &["wants part"],
        );
        check(
            |outbox| {
                outbox.put_part(Inventory::default());
                outbox.put_progress(Revision {
                    epoch: 1,
                    commit: 2,
                });
            },
            &["part 0.0", "progress 1.2"],
        );
        check(
            |outbox| {
                outbox.close(ClosingReason::Fenced, "first");
                outbox.close(ClosingReason::Shutdown, "second");
                let host = (HostId::from("h"), None);
                outbox.put_change(InventoryChange {
                    hosts: [host].into(),
                    ..InventoryChange::default()
                });
            },
            &["close first"],
        );
    }

    /// Else whoever waits for it would wait forever, and others for him.
    #[tokio::test]
    async fn a_part_that_is_forgotten_has_to_be_asked_for_again() {
        let outbox = Outbox::new(1);
        outbox.put_part(Inventory::default());
        assert!(outbox.put_change(gone("a", 1)));
        assert!(matches!(outbox.part().await, Next::WantsPart));
        outbox.put_part(Inventory::default());
        assert!(matches!(outbox.part().await, Next::Part(_)));
    }
}

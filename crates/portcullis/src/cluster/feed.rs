//! From the copy of the store to those who watch: each commit as a change of the inventory.
//!
//! Place on the line: store commit -> **watch** -> inventory.
//! Who watches slowly slows the copy down, and with it whoever changes something: nothing piles up.

use ::control::{Changed, Observer, State, inventory_change, inventory_of};
use async_trait::async_trait;
use protocol::{Feed, Watchers};

pub(crate) struct Feeding {
    watchers: Watchers,
    next: Option<Feed>,
}

impl Feeding {
    pub(crate) fn new(watchers: Watchers) -> Self {
        Self {
            watchers,
            next: None,
        }
    }
}

#[async_trait]
impl Observer for Feeding {
    fn listed(&mut self, state: &State) {
        self.next = Some(Feed::Replaced(inventory_of(state)));
    }

    fn committed(&mut self, state: &State, changes: &[Changed]) {
        let revision = state.revision;
        self.next = Some(match changes.iter().any(Changed::is_policy) {
            true => Feed::Changed(inventory_change(state, revision, changes)),
            false => Feed::Progress(revision),
        });
    }

    async fn pass_on(&mut self) {
        if let Some(feed) = self.next.take() {
            self.watchers.feed(feed).await;
        }
    }
}

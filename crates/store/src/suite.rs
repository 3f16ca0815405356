//! What every back end must do: the tests of the seam, run by each back end's own tests with
//! [`conformance!`](crate::conformance).
//!
//! A check gets a fresh, empty store. Commit numbers of a back end may have gaps: checks compare them, and
//! don't count.
//!
//! Knows nothing of: any back end.

mod commits;
mod presence;
mod races;
pub mod random;
mod together;
mod tools;
mod watches;

pub use commits::*;
pub use presence::*;
pub use races::*;
pub use together::*;
pub use watches::*;

/// Makes a test of each check. `$fresh` is an async function that gives a store and what must outlive it:
/// `(Arc<dyn Store>, impl Sized)`.
#[macro_export]
macro_rules! conformance {
    ($fresh:path) => {
        $crate::conformance!(@each $fresh:
            a_record_is_read_as_it_was_written,
            a_listing_is_of_one_revision_and_in_order,
            a_large_listing_is_whole,
            a_transaction_is_all_or_nothing,
            what_changes_nothing_makes_no_commit,
            each_condition_is_judged,
            what_is_too_large_is_refused,
            the_largest_transaction_is_possible,
            a_large_transaction_is_all_or_nothing,
            a_watcher_sees_whole_commits_in_order,
            a_watcher_begins_where_it_is_told,
            a_watcher_is_told_that_it_is_current,
            a_watcher_sees_its_prefix_only,
            a_watcher_far_behind_catches_up,
            a_slow_watcher_misses_nothing,
            a_compacted_watch_ends,
            another_epoch_ends_a_watch,
            a_presence_goes_with_its_guard,
            a_presence_is_kept_alive,
            a_presence_that_was_replaced_takes_nothing_away,
            of_conflicting_commits_exactly_one_wins,
            concurrent_counters_lose_nothing,
            a_listing_and_a_watch_from_it_miss_nothing,
            those_that_come_together_are_each_whole,
            of_those_that_come_together_only_the_late_are_refused,
            what_excludes_each_other_is_not_done_together,
            what_is_written_otherwise_has_another_revision,
            a_random_history_is_as_in_memory,
        );
    };
    (@each $fresh:path: $($check:ident),+ $(,)?) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $check() {
            let (store, _keep) = $fresh().await;
            $crate::suite::$check(store).await;
        }
    )+};
}

pub use random::a_random_history_is_as_in_memory;

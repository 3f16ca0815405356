//! The suite on the store in a file, and what only a file can suffer.

mod backups;
mod bed;
mod damage;
mod full_disk;
mod kill;
mod restarts;

use bed::Bed;
use std::sync::Arc;
use store::Store;

async fn fresh() -> (Arc<dyn Store>, Bed) {
    let bed = Bed::new();
    (Arc::new(bed.open()), bed)
}

store::conformance!(fresh);

#[tokio::test]
async fn random_histories_are_as_in_memory() {
    for seed in 2..12 {
        let (store, _bed) = fresh().await;
        store::suite::random::compare(&*store, seed).await;
    }
}

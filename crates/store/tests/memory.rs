//! The suite on the store in memory.

use std::sync::Arc;
use store::Store;
use store::memory::Memory;

async fn fresh() -> (Arc<dyn Store>, ()) {
    (Arc::new(Memory::new()), ())
}

store::conformance!(fresh);

//! The suite on a real etcd, and what only a server over a network can do to us.

mod bounds;
mod cluster;
mod epochs;
mod outages;
mod presence;
mod server;
mod tls;
mod together;
mod words;

use server::Server;
use std::sync::Arc;
use store::Store;

async fn fresh() -> (Arc<dyn Store>, Server) {
    let server = Server::start();
    let store = server.connect().await;
    (Arc::new(store), server)
}

store::conformance!(fresh);

#[tokio::test]
async fn random_histories_are_as_in_memory() {
    for seed in 2..6 {
        let (store, _server) = fresh().await;
        store::suite::random::compare(&*store, seed).await;
    }
}

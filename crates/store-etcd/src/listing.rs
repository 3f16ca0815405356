//! A listing, in pages of one revision: a message has its bounds.
//!
//! Knows nothing of: what changes meanwhile; etcd keeps the revision.

use crate::call::{CallError, Calls, is_compacted, read_error};
use crate::epoch::{Epoch, found, newest};
use crate::layout::Layout;
use etcd_client::{Client, GetOptions, GetResponse, KvClient, Txn, TxnOp, TxnOpResponse};
use model::Revision;
use store::{KeyPrefix, MOST_VALUE_BYTES, ReadError, Reader};

/// Records in a message, so that the largest ones fit.
const PAGE: usize = 500;
const MOST_MESSAGE_BYTES: usize = PAGE * (MOST_VALUE_BYTES + 4096);

/// If the revision is compacted between two pages, it is begun anew, so many times.
const ATTEMPTS: usize = 3;

pub(crate) async fn read_all(
    client: &Client,
    layout: &Layout,
    calls: Calls,
    prefix: &KeyPrefix,
    reader: &mut dyn Reader,
) -> Result<(), ReadError> {
    let kv = client
        .kv_client()
        .max_decoding_message_size(MOST_MESSAGE_BYTES);
    for _ in 1..ATTEMPTS {
        match attempt(&kv, layout, calls, prefix, reader).await {
            Err(Failure::Call(error)) if is_compacted(&error) => {}
            done => return done.map_err(Failure::into_read_error),
        }
    }
    let last = attempt(&kv, layout, calls, prefix, reader).await;
    last.map_err(Failure::into_read_error)
}

enum Failure {
    Call(CallError),
    Read(ReadError),
}

impl Failure {
    fn into_read_error(self) -> ReadError {
        match self {
            Self::Call(error) => read_error(error),
            Self::Read(error) => error,
        }
    }
}

async fn attempt(
    kv: &KvClient,
    layout: &Layout,
    calls: Calls,
    prefix: &KeyPrefix,
    reader: &mut dyn Reader,
) -> Result<(), Failure> {
    let (begin, end) = layout.records(prefix);
    let (epoch, mut page) = first_page(kv, layout, calls, &begin, &end).await?;
    let revision = Revision {
        epoch: epoch.0,
        commit: newest(&page),
    };
    reader.begin(revision);
    loop {
        let mut last = None;
        let is_last = !page.more();
        for found in page.take_kvs() {
            let record = layout.read_record(found).map_err(Failure::Read)?;
            last = Some(record.key.clone());
            reader.take(record);
        }
        let Some(last) = last.filter(|_| !is_last) else {
            return Ok(());
        };
        // The next key there can be.
        let next = format!("{}\0", layout.record(&last));
        let options = options(&end).with_revision(revision.commit as i64);
        let got = calls.get(kv, next, Some(options));
        page = got.await.map_err(Failure::Call)?;
    }
}

/// With the epoch, of the same revision.
async fn first_page(
    kv: &KvClient,
    layout: &Layout,
    calls: Calls,
    begin: &str,
    end: &str,
) -> Result<(Epoch, GetResponse), Failure> {
    let both = Txn::new().and_then([
        TxnOp::get(layout.epoch(), None),
        TxnOp::get(begin, Some(options(end))),
    ]);
    let answer = calls.txn(kv, both);
    let answer = answer.await.map_err(Failure::Call)?;
    let mut reads = answer.op_responses().into_iter();
    let (Some(TxnOpResponse::Get(epoch)), Some(TxnOpResponse::Get(mut page))) =
        (reads.next(), reads.next())
    else {
        let why = "etcd's answer has other parts than were asked for".to_owned();
        return Err(Failure::Read(ReadError::Broken(why)));
    };
    // The parts have no header of their own.
    page.0.header = answer.0.header;
    match found(&epoch, layout) {
        Ok(Some(epoch)) => Ok((epoch, page)),
        Ok(None) => {
            let why = "the epoch was deleted".to_owned();
            Err(Failure::Read(ReadError::Broken(why)))
        }
        Err(error) => Err(Failure::Read(ReadError::Broken(error.to_string()))),
    }
}

fn options(end: &str) -> GetOptions {
    GetOptions::new().with_range(end).with_limit(PAGE as i64)
}

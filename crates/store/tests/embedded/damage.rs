//! Files that are not what the store has written. Each is refused, with what to do, or is whole all the
//! same: never half of it, never a panic.

use crate::bed::{Bed, commit, contents, put};
use std::fs;
use std::path::Path;
use store::embedded::{Embedded, OpenError};

#[tokio::test]
async fn a_file_that_is_cut_short_is_refused() {
    let (bed, whole, _) = made().await;
    let ends = (0..whole.len()).step_by(whole.len() / 50 + 1);
    for end in ends.chain([1, 319, 320, 4096, whole.len() - 1]) {
        fs::write(bed.store(), &whole[..end]).expect("it can be written");
        let error = Embedded::open(&bed.store()).err();
        check(&error.unwrap_or_else(|| panic!("cut at {end}")));
    }
}

#[tokio::test]
async fn a_file_of_others_is_refused_and_stays() {
    let bed = Bed::new();
    for text in [&b""[..], b"x", &[0; 10_000], &b"hello ".repeat(5000)] {
        fs::write(bed.store(), text).expect("it can be written");
        let error = Embedded::open(&bed.store()).err().expect("no store");
        check(&error);
        assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
        assert!(fs::read(bed.store()).expect("the file") == text);
    }
    let directory = Embedded::open(bed.store().parent().expect("a directory"));
    let error = directory.err().expect("a directory is no file");
    assert!(matches!(error, OpenError::Io { .. }), "{error}");
}

/// Wherever a byte changes: it is noticed, or nobody needs it.
#[tokio::test]
async fn flipped_bytes_are_noticed_or_harmless() {
    let (bed, whole, expected) = made().await;
    let (mut noticed, mut harmless) = (0, 0);
    // Of the file's header each byte, of what follows some.
    let header = (0..320).flat_map(|at| [(at, 1 << (at % 8)), (at, 0xff)]);
    let places = header.chain((320..whole.len()).step_by(293).map(|at| (at, 0xff)));
    for (at, bits) in places {
        let mut bytes = whole.clone();
        bytes[at] ^= bits;
        fs::write(bed.store(), &bytes).expect("it can be written");
        match Embedded::open(&bed.store()) {
            Err(error) => {
                check(&error);
                noticed += 1;
            }
            Ok(store) => {
                let there = contents(&store).await;
                assert!(there == expected, "the byte at {at} changed what is there");
                harmless += 1;
            }
        }
    }
    assert!(noticed > 100, "{noticed} noticed, {harmless} harmless");
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let (bed, _, _) = made().await;
    set_meta(&bed.store(), "format", 2);
    let error = Embedded::open(&bed.store()).err().expect("it is newer");
    assert!(
        matches!(error, OpenError::Newer { format: 2, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("a newer Portcullis"));
}

#[test]
fn a_database_of_others_is_refused() {
    let bed = Bed::new();
    drop(redb::Database::create(bed.store()).expect("a database"));
    let error = Embedded::open(&bed.store()).err().expect("no store");
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error}");
}

/// A store of several pages, its bytes, and what is in it.
async fn made() -> (Bed, Vec<u8>, Vec<(String, String)>) {
    let bed = Bed::new();
    let store = bed.open();
    for n in 0..40 {
        commit(&store, put(&format!("key/{n}"), &"value".repeat(100))).await;
    }
    let expected = contents(&store).await;
    drop(store);
    let bytes = fs::read(bed.store()).expect("the file");
    (bed, bytes, expected)
}

fn check(error: &OpenError) {
    let advice = match error {
        OpenError::Damaged { .. } => "restore the last backup",
        OpenError::NotAStore { .. } => "Is it the right path?",
        OpenError::Newer { .. } => "use that one",
        other => panic!("another reason: {other}"),
    };
    assert!(error.to_string().contains(advice), "{error}");
}

fn set_meta(path: &Path, name: &str, number: u64) {
    let database = redb::Database::open(path).expect("a database");
    let writing = database.begin_write().expect("it can be written");
    {
        let meta: redb::TableDefinition<&str, u64> = redb::TableDefinition::new("meta");
        let mut table = writing.open_table(meta).expect("a table");
        table.insert(name, number).expect("it can be written");
    }
    writing.commit().expect("it can be written");
}

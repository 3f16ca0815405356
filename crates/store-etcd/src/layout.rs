//! Where things are in etcd, and how they are read.
//!
//! Knows nothing of: calls.

use etcd_client::KeyValue;
use store::{Key, KeyPrefix, ReadError, Record};

#[derive(Clone)]
pub(crate) struct Layout {
    root: String,
}

/// What a key below the root is.
pub(crate) enum Place {
    Epoch,
    Mark,
    Record(Key),
}

impl Layout {
    pub(crate) fn new(root: &str) -> Self {
        Self {
            root: root.trim_end_matches('/').to_owned(),
        }
    }

    pub(crate) fn epoch(&self) -> String {
        format!("{}/epoch", self.root)
    }

    pub(crate) fn mark(&self) -> String {
        format!("{}/mark", self.root)
    }

    pub(crate) fn record(&self, key: &Key) -> String {
        format!("{}/records/{key}", self.root)
    }

    /// Begin and end of a range; the end is not in it.
    pub(crate) fn everything(&self) -> (String, String) {
        range(format!("{}/", self.root))
    }

    pub(crate) fn records(&self, prefix: &KeyPrefix) -> (String, String) {
        range(format!("{}/records/{prefix}", self.root))
    }

    pub(crate) fn place(&self, key: &[u8]) -> Result<Place, ReadError> {
        let text = std::str::from_utf8(key).ok();
        let below = text
            .and_then(|text| text.strip_prefix(&self.root))
            .and_then(|text| text.strip_prefix('/'));
        match below.map(|below| (below, below.strip_prefix("records/"))) {
            Some(("epoch", _)) => Ok(Place::Epoch),
            Some(("mark", _)) => Ok(Place::Mark),
            Some((_, Some(record))) => match Key::new(record) {
                Ok(key) => Ok(Place::Record(key)),
                Err(error) => Err(ReadError::Broken(error.to_string())),
            },
            _ => Err(not_ours(key)),
        }
    }

    pub(crate) fn read_record(&self, kv: KeyValue) -> Result<Record, ReadError> {
        let Place::Record(key) = self.place(kv.key())? else {
            return Err(not_ours(kv.key()));
        };
        Ok(Record {
            key,
            created: kv.create_revision() as u64,
            modified: kv.mod_revision() as u64,
            value: kv.into_key_value().1.into(),
        })
    }
}

fn not_ours(key: &[u8]) -> ReadError {
    let key = String::from_utf8_lossy(key);
    ReadError::Broken(format!("{key} is no key of ours"))
}

fn range(begin: String) -> (String, String) {
    let path = begin.strip_suffix('/').expect("all of ours end with one");
    // The character after the slash.
    let end = format!("{path}0");
    (begin, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_from_where_they_were_put() {
        let key = |text| Key::new(text).expect("a key");
        for root in ["/portcullis", "/portcullis/", "p", "/a/b"] {
            let layout = Layout::new(root);
            for text in ["port/1", "records", "epoch", "mark/x"] {
                let at = layout.record(&key(text));
                let place = layout.place(at.as_bytes()).expect("ours");
                assert!(matches!(place, Place::Record(k) if k == key(text)), "{at}");
                let (begin, end) = layout.everything();
                assert!(begin <= at && at < end, "{at}");
            }
            let epoch = layout.place(layout.epoch().as_bytes());
            assert!(matches!(epoch, Ok(Place::Epoch)));
            let mark = layout.place(layout.mark().as_bytes());
            assert!(matches!(mark, Ok(Place::Mark)));
        }
        let layout = Layout::new("/portcullis");
        for at in [
            "/portcullis/other",
            "/portcullisx/mark",
            "/portcullis/records/",
        ] {
            assert!(layout.place(at.as_bytes()).is_err(), "{at}");
        }
    }
}

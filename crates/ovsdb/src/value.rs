//! The database's notation of sets, maps and references (RFC 7047, 5.1), read and written.
//!
//! A set of one is written as that one, also by the server: `["set", []]`, `7`, `["set", [7, 8]]`.

use crate::DatabaseError;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A row of a table as a select tells it.
pub(crate) struct Row<'a> {
    pub(crate) table: &'static str,
    pub(crate) columns: &'a Value,
}

impl<'a> Row<'a> {
    pub(crate) fn uuid(&self) -> Result<String, DatabaseError> {
        let value = self.column("_uuid")?;
        as_uuid(value).ok_or_else(|| self.unreadable("_uuid"))
    }

    pub(crate) fn text(&self, column: &'static str) -> Result<String, DatabaseError> {
        self.one(column, as_text)
    }

    pub(crate) fn one<T>(
        &self,
        column: &'static str,
        atom: impl Fn(&Value) -> Option<T>,
    ) -> Result<T, DatabaseError> {
        atom(self.column(column)?).ok_or_else(|| self.unreadable(column))
    }

    /// Of a set that has at most one.
    pub(crate) fn optional<T>(
        &self,
        column: &'static str,
        atom: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, DatabaseError> {
        Ok(self.set(column, atom)?.pop())
    }

    pub(crate) fn set<T>(
        &self,
        column: &'static str,
        atom: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<T>, DatabaseError> {
        let value = self.column(column)?;
        let read = match tagged(value, "set") {
            Some(Value::Array(members)) => members.iter().map(&atom).collect(),
            Some(_) => None,
            None => atom(value).map(|one| vec![one]),
        };
        read.ok_or_else(|| self.unreadable(column))
    }

    pub(crate) fn map<K: Ord, V>(
        &self,
        column: &'static str,
        key: impl Fn(&Value) -> Option<K>,
        value: impl Fn(&Value) -> Option<V>,
    ) -> Result<BTreeMap<K, V>, DatabaseError> {
        let pair = |pair: &Value| match pair.as_array()?.as_slice() {
            [k, v] => Some((key(k)?, value(v)?)),
            _ => None,
        };
        let pairs = tagged(self.column(column)?, "map").and_then(Value::as_array);
        let read = pairs.and_then(|pairs| pairs.iter().map(pair).collect());
        read.ok_or_else(|| self.unreadable(column))
    }

    pub(crate) fn texts(
        &self,
        column: &'static str,
    ) -> Result<BTreeMap<String, String>, DatabaseError> {
        self.map(column, as_text, as_text)
    }

    fn column(&self, column: &'static str) -> Result<&'a Value, DatabaseError> {
        let columns = self.columns;
        columns.get(column).ok_or_else(|| self.unreadable(column))
    }

    fn unreadable(&self, column: &'static str) -> DatabaseError {
        let table = self.table;
        DatabaseError::Unreadable { table, column }
    }
}

pub(crate) fn as_text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

pub(crate) fn as_uuid(value: &Value) -> Option<String> {
    tagged(value, "uuid").and_then(as_text)
}

pub(crate) fn as_u16(value: &Value) -> Option<u16> {
    value.as_u64()?.try_into().ok()
}

pub(crate) fn as_u32(value: &Value) -> Option<u32> {
    value.as_u64()?.try_into().ok()
}

pub(crate) fn uuid(uuid: &str) -> Value {
    json!(["uuid", uuid])
}

/// A row that the same transaction inserts under this name.
pub(crate) fn named(name: &str) -> Value {
    json!(["named-uuid", name])
}

pub(crate) fn set(members: impl IntoIterator<Item = Value>) -> Value {
    json!(["set", members.into_iter().collect::<Vec<_>>()])
}

pub(crate) fn map<K: Into<Value>, V: Into<Value>>(
    pairs: impl IntoIterator<Item = (K, V)>,
) -> Value {
    let pairs = pairs.into_iter().map(|(k, v)| json!([k.into(), v.into()]));
    json!(["map", pairs.collect::<Vec<_>>()])
}

/// What stands behind the tag.
fn tagged<'a>(value: &'a Value, tag: &str) -> Option<&'a Value> {
    match value.as_array()?.as_slice() {
        [first, rest] if first == tag => Some(rest),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(columns: &Value) -> Row<'_> {
        Row {
            table: "T",
            columns,
        }
    }

    #[test]
    fn sets_and_maps_are_read_in_each_of_their_forms() {
        let columns = json!({
            "none": ["set", []], "one": 7, "two": ["set", [7, 8]], "ref": ["uuid", "a-b"],
            "map": ["map", [["k", "v"]]], "empty": ["map", []],
        });
        let row = row(&columns);
        assert!(row.set("none", as_u16).expect("a set").is_empty());
        assert_eq!(row.set("one", as_u16).expect("a set"), [7]);
        assert_eq!(row.set("two", as_u16).expect("a set"), [7, 8]);
        assert_eq!(row.set("ref", as_uuid).expect("a set"), ["a-b"]);
        assert_eq!(row.optional("none", as_u16).expect("a set"), None);
        assert_eq!(row.texts("map").expect("a map")["k"], "v");
        assert!(row.texts("empty").expect("a map").is_empty());
    }

    #[test]
    fn what_is_something_else_is_unreadable() {
        let columns =
            json!({"a": ["set", 3], "b": -1, "c": ["map", [["k"]]], "d": null, "e": 65536});
        let row = row(&columns);
        for column in ["a", "b", "c", "d", "e", "absent"] {
            let error = row.set(column, as_u16).expect_err("no numbers");
            assert!(error.to_string().contains(column), "{error}");
            assert!(row.texts(column).is_err(), "{column}");
            assert!(row.text(column).is_err(), "{column}");
        }
    }
}

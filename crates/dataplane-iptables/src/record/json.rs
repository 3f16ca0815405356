//! JSON written straight into text: a value in memory for each of thousands of things would cost more than all
//! else that a record does.
//!
//! Knows nothing of: what is written.

use serde_json::Value;
use std::fmt::{Display, Write as _};

#[derive(Default)]
pub(super) struct Json(pub(super) String);

/// Its name, and who writes its value.
type Field<'a> = (&'a str, &'a dyn Fn(&mut Json));

impl Json {
    /// What looks the same in JSON: numbers, and values.
    pub(super) fn plain(&mut self, value: impl Display) {
        let _ = write!(self.0, "{value}");
    }

    pub(super) fn text(&mut self, text: &str) {
        let is_plain = |b| matches!(b, b' '..=b'~') && !matches!(b, b'"' | b'\\');
        match text.bytes().all(is_plain) {
            true => {
                self.0.push('"');
                self.0.push_str(text);
                self.0.push('"');
            }
            false => self.plain(Value::from(text)),
        }
    }

    pub(super) fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        write: impl Fn(&mut Self, T),
    ) {
        self.0.push('[');
        for (i, item) in items.into_iter().enumerate() {
            if i > 0 {
                self.0.push(',');
            }
            write(self, item);
        }
        self.0.push(']');
    }

    /// A list of two unlike things.
    pub(super) fn pair(&mut self, first: impl FnOnce(&mut Self), second: impl FnOnce(&mut Self)) {
        self.0.push('[');
        first(self);
        self.0.push(',');
        second(self);
        self.0.push(']');
    }

    pub(super) fn object(&mut self, fields: &[Field<'_>]) {
        self.0.push('{');
        for (i, (name, write)) in fields.iter().enumerate() {
            if i > 0 {
                self.0.push(',');
            }
            self.text(name);
            self.0.push(':');
            write(self);
        }
        self.0.push('}');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_json() {
        let mut json = Json::default();
        json.object(&[
            ("none", &|json| json.list(Vec::<u8>::new(), Json::plain)),
            ("two", &|json| {
                json.list(["a", "b \"\\\n\u{e9}"], Json::text)
            }),
            ("pair", &|json| {
                json.pair(|json| json.plain(7), |json| json.plain(Value::Null))
            }),
        ]);
        let expected = json!({ "none": [], "two": ["a", "b \"\\\n\u{e9}"], "pair": [7, null] });
        let read: Value = serde_json::from_str(&json.0).expect("it is JSON");
        assert_eq!(read, expected);
    }
}

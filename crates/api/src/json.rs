//! JSON from strangers: bounded in depth and in values, so that 16 MiB of brackets aren't a gigabyte here.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::fmt;

/// The deepest that any request of ours is has 5.
pub(crate) const MOST_DEPTH: usize = 16;
/// Of all kinds together, in one body.
pub(crate) const MOST_VALUES: usize = 200_000;

/// The text says where it isn't JSON, or which bound it breaks.
pub(crate) fn read(bytes: &[u8]) -> Result<Value, String> {
    let left = Cell::new(MOST_VALUES);
    let mut from = serde_json::Deserializer::from_slice(bytes);
    let bounded = Bounded {
        depth: MOST_DEPTH,
        left: &left,
    };
    let value = bounded.deserialize(&mut from).map_err(|e| e.to_string())?;
    from.end().map_err(|e| e.to_string())?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Bounded<'a> {
    /// How much deeper it may go.
    depth: usize,
    left: &'a Cell<usize>,
}

impl Bounded<'_> {
    fn one<E: Error>(&self) -> Result<(), E> {
        match self.left.get() {
            0 => Err(E::custom(format_args!("more than {MOST_VALUES} values"))),
            left => {
                self.left.set(left - 1);
                Ok(())
            }
        }
    }

    fn deeper<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1);
        let depth = depth.ok_or_else(|| E::custom(format_args!("deeper than {MOST_DEPTH}")))?;
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        self.one()?;
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = from.next_element_seed(deeper)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let deeper = self.deeper()?;
        let mut values = Map::new();
        while let Some(name) = from.next_key::<String>()? {
            values.insert(name, from.next_value_seed(deeper)?);
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_json_is_read_as_it_is() {
        for text in [
            "null",
            "true",
            "-1",
            "1.5",
            "18446744073709551615",
            "\"\\u00e9\"",
            "[]",
            r#"{"a":[1,{"b":null}],"c":"d"}"#,
        ] {
            let plain: Value = serde_json::from_str(text).expect("it is JSON");
            assert_eq!(read(text.as_bytes()), Ok(plain), "{text}");
        }
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "",
            "{",
            "{}}",
            "[1,]",
            "{\"a\"}",
            "nul",
            "\"\u{1}\"",
            "1e999",
        ] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
        assert!(read(b"\"\xff\"").is_err());
    }

    #[test]
    fn bounds_hold() {
        let nested = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(read(nested(MOST_DEPTH).as_bytes()).is_ok());
        let deep = read(nested(MOST_DEPTH + 1).as_bytes()).expect_err("it is too deep");
        assert!(deep.contains("deeper"), "{deep}");
        let wide = |values: usize| format!("[{}0]", "0,".repeat(values - 2));
        assert!(read(wide(MOST_VALUES).as_bytes()).is_ok());
        let wide = read(wide(MOST_VALUES + 1).as_bytes()).expect_err("it is too wide");
        assert!(wide.contains("more than"), "{wide}");
    }
}

//! What attributes objects have: the one definition that requests are checked by, lists are filtered by, answers
//! are put together by and the OpenAPI document is made of.
//!
//! Shape only: whether a value makes sense beside others is the use case's to say.

use serde_json::{Value, json};

#[derive(Debug)]
pub(crate) struct Attribute {
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) post: Post,
    pub(crate) put: bool,
    /// Lists can be filtered by it.
    pub(crate) filter: bool,
    /// Nobody else sees it.
    pub(crate) admins: bool,
    pub(crate) says: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Post {
    No,
    May,
    Must,
}

#[derive(Debug)]
pub(crate) enum Shape {
    /// So many characters at most.
    Text(usize),
    /// Of an object. Any text: what can't be an id is one of an object that isn't there.
    Id,
    Flag,
    Whole {
        least: i64,
        most: i64,
    },
    /// A number, or text; the use case says which.
    NumberOrText,
    /// In any case of letters.
    OneOf(&'static [&'static str]),
    /// In any case of letters, with `:` or `-`.
    Mac,
    /// A name in any case of letters; `any` is null.
    Protocol,
    Time,
    OrNull(&'static Shape),
    List(&'static Shape),
    Record(&'static [Attribute]),
    /// Names with values of any kind.
    Anything,
}

/// What a text can have by default.
pub(crate) const NAME: Shape = Shape::Text(255);
pub(crate) const TEXT_OR_NULL: Shape = Shape::OrNull(&NAME);
pub(crate) const ID_OR_NULL: Shape = Shape::OrNull(&Shape::Id);

/// Shown, and nothing else.
pub(crate) const fn shown(name: &'static str, shape: Shape, says: &'static str) -> Attribute {
    let filter = !matches!(shape, Shape::Record(_) | Shape::Anything);
    Attribute {
        name,
        shape,
        post: Post::No,
        put: false,
        filter,
        admins: false,
        says,
    }
}

impl Attribute {
    /// May be given at creation.
    pub(crate) const fn given(mut self) -> Self {
        self.post = Post::May;
        self
    }

    pub(crate) const fn required(mut self) -> Self {
        self.post = Post::Must;
        self
    }

    /// May be changed.
    pub(crate) const fn changed(mut self) -> Self {
        self.put = true;
        self
    }

    pub(crate) const fn unfiltered(mut self) -> Self {
        self.filter = false;
        self
    }

    pub(crate) const fn for_admins(mut self) -> Self {
        self.admins = true;
        self
    }
}

impl Shape {
    /// Why it isn't of this shape, as Neutron says it.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        let not = |what: &str| Err(format!("'{}' is not {what}", short(value)));
        match (self, value) {
            (Shape::Text(most), Value::String(text)) => longer(text, *most),
            (Shape::Id, Value::String(text)) => longer(text, 255),
            (Shape::Time, Value::String(_)) => Ok(()),
            (Shape::Mac, Value::String(text)) => longer(text, 255),
            (Shape::Text(_) | Shape::Id | Shape::Time | Shape::Mac, _) => not("a valid string"),
            (Shape::Flag, value) => match flag(value) {
                Some(_) => Ok(()),
                None => not("a valid boolean value"),
            },
            (Shape::Whole { least, most }, value) => match whole(value) {
                None => not("an integer"),
                Some(number) if number < *least => Err(format!(
                    "'{number}' is too small - must be at least '{least}'"
                )),
                Some(number) if number > *most => Err(format!(
                    "'{number}' is too large - must be no larger than '{most}'"
                )),
                Some(_) => Ok(()),
            },
            (Shape::NumberOrText | Shape::Protocol, Value::String(text)) => longer(text, 255),
            (Shape::NumberOrText | Shape::Protocol, Value::Number(_)) => Ok(()),
            (Shape::NumberOrText | Shape::Protocol, _) => not("a valid string"),
            (Shape::OneOf(names), value) => match one_of(names, value) {
                Some(_) => Ok(()),
                None => not(&format!("in {}", listed(names))),
            },
            (Shape::OrNull(_), Value::Null) => Ok(()),
            (Shape::OrNull(shape), value) => shape.check(value),
            (Shape::List(shape), Value::Array(values)) => {
                values.iter().try_for_each(|value| shape.check(value))
            }
            (Shape::List(_), _) => not("a list"),
            (Shape::Record(fields), Value::Object(values)) => {
                let known = |name: &str| fields.iter().any(|field| field.name == name);
                if let Some(unknown) = values.keys().find(|name| !known(name)) {
                    return Err(format!("Unexpected key '{}'", cut(unknown)));
                }
                fields
                    .iter()
                    .try_for_each(|field| match values.get(field.name) {
                        Some(value) => field.shape.check(value),
                        None if field.post == Post::Must => {
                            Err(format!("'{}' is missing", field.name))
                        }
                        None => Ok(()),
                    })
            }
            (Shape::Anything, Value::Object(_)) => Ok(()),
            (Shape::Record(_) | Shape::Anything, _) => not("a dictionary"),
        }
    }

    /// In JSON Schema, of what is answered.
    pub(crate) fn schema(&self) -> Value {
        match self {
            Shape::Text(most) => json!({"type": "string", "maxLength": most}),
            Shape::Id | Shape::Mac => json!({"type": "string"}),
            Shape::Time => json!({"type": "string", "format": "date-time"}),
            Shape::Flag => json!({"type": "boolean"}),
            Shape::Whole { least, most } => {
                json!({"type": "integer", "minimum": least, "maximum": most})
            }
            Shape::NumberOrText | Shape::Protocol => json!({"type": ["string", "integer"]}),
            Shape::OneOf(names) => json!({"type": "string", "enum": names}),
            Shape::OrNull(shape) => json!({"anyOf": [shape.schema(), {"type": "null"}]}),
            Shape::List(shape) => json!({"type": "array", "items": shape.schema()}),
            Shape::Record(fields) => record(fields),
            Shape::Anything => json!({"type": "object"}),
        }
    }

    /// A filter's text, as the attribute's own value would be written.
    pub(crate) fn filter(&self, text: &str) -> String {
        match self {
            Shape::Flag => match flag(&Value::String(text.to_owned())) {
                Some(flag) => flag.to_string(),
                None => text.to_owned(),
            },
            Shape::OneOf(names) => {
                let name = names.iter().find(|name| name.eq_ignore_ascii_case(text));
                name.map_or_else(|| text.to_owned(), ToString::to_string)
            }
            Shape::Mac => text.to_ascii_lowercase().replace('-', ":"),
            Shape::Protocol => match text.to_ascii_lowercase() {
                any if any == "any" => String::new(),
                name => name,
            },
            Shape::OrNull(shape) | Shape::List(shape) => shape.filter(text),
            Shape::Text(_)
            | Shape::Id
            | Shape::Whole { .. }
            | Shape::NumberOrText
            | Shape::Time
            | Shape::Record(_)
            | Shape::Anything => text.to_owned(),
        }
    }
}

fn record(fields: &[Attribute]) -> Value {
    let properties = fields.iter().map(|field| {
        let schema = described(field.shape.schema(), field.says);
        (field.name.to_owned(), schema)
    });
    let required = fields.iter().filter(|field| field.post == Post::Must);
    let required: Vec<_> = required.map(|field| field.name).collect();
    let properties: serde_json::Map<_, _> = properties.collect();
    json!({
        "type": "object", "properties": properties, "required": required, "additionalProperties": false,
    })
}

pub(crate) fn described(mut schema: Value, says: &str) -> Value {
    if !says.is_empty() {
        schema["description"] = says.into();
    }
    schema
}

/// What people write for yes and no.
pub(crate) fn flag(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(flag) => Some(*flag),
        Value::Number(number) => match number.as_u64() {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        Value::String(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => None,
        },
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

pub(crate) fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64(),
        Value::String(text) => text.parse().ok(),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

pub(crate) fn one_of(names: &[&'static str], value: &Value) -> Option<&'static str> {
    let text = value.as_str()?;
    let mut names = names.iter().copied();
    names.find(|name| name.eq_ignore_ascii_case(text))
}

fn longer(text: &str, most: usize) -> Result<(), String> {
    match text.chars().count() > most {
        true => Err(format!("'{}' exceeds maximum length of {most}", cut(text))),
        false => Ok(()),
    }
}

/// As people of Python write lists.
pub(crate) fn listed<T: AsRef<str>>(names: &[T]) -> String {
    let names: Vec<_> = names
        .iter()
        .map(|name| format!("'{}'", name.as_ref()))
        .collect();
    format!("[{}]", names.join(", "))
}

/// For texts of errors: they go into answers and logs.
fn short(value: &Value) -> String {
    match value {
        Value::String(text) => cut(text).to_owned(),
        other => cut(&other.to_string()).to_owned(),
    }
}

pub(crate) fn cut(text: &str) -> &str {
    match text.char_indices().nth(300) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAIR: &[Attribute] = &[
        shown("ip_address", NAME, "").required(),
        shown("mac_address", TEXT_OR_NULL, "").given(),
    ];

    fn check(shape: &Shape, value: Value, expected: Result<(), &str>) {
        let got = shape.check(&value);
        assert_eq!(
            got.as_ref().map_err(String::as_str),
            expected.as_ref().map_err(|e| &**e),
            "{value}"
        );
    }

    #[test]
    fn values_have_their_attributes_shape() {
        check(&Shape::Text(3), json!("abc"), Ok(()));
        check(&Shape::Text(3), json!("äöü"), Ok(()));
        check(
            &Shape::Text(3),
            json!("abcd"),
            Err("'abcd' exceeds maximum length of 3"),
        );
        check(&NAME, json!(1), Err("'1' is not a valid string"));
        check(&NAME, json!(null), Err("'null' is not a valid string"));
        check(&TEXT_OR_NULL, json!(null), Ok(()));
        check(&Shape::Flag, json!("True"), Ok(()));
        check(&Shape::Flag, json!(0), Ok(()));
        check(
            &Shape::Flag,
            json!("perhaps"),
            Err("'perhaps' is not a valid boolean value"),
        );
        check(
            &Shape::Flag,
            json!(2),
            Err("'2' is not a valid boolean value"),
        );
        let ports = Shape::Whole { least: 0, most: 9 };
        check(&ports, json!(9), Ok(()));
        check(&ports, json!("9"), Ok(()));
        check(
            &ports,
            json!(10),
            Err("'10' is too large - must be no larger than '9'"),
        );
        check(
            &ports,
            json!(-1),
            Err("'-1' is too small - must be at least '0'"),
        );
        check(&ports, json!(1.5), Err("'1.5' is not an integer"));
        check(&ports, json!(true), Err("'true' is not an integer"));
        check(&Shape::OneOf(&["IPv4", "IPv6"]), json!("ipv6"), Ok(()));
        check(
            &Shape::OneOf(&["IPv4", "IPv6"]),
            json!("ip"),
            Err("'ip' is not in ['IPv4', 'IPv6']"),
        );
        check(
            &Shape::NumberOrText,
            json!(["tcp"]),
            Err("'[\"tcp\"]' is not a valid string"),
        );
        check(
            &Shape::List(&NAME),
            json!(["a", 1]),
            Err("'1' is not a valid string"),
        );
        check(&Shape::List(&NAME), json!("a"), Err("'a' is not a list"));
        check(&Shape::Anything, json!([]), Err("'[]' is not a dictionary"));
    }

    #[test]
    fn records_have_their_fields() {
        let pair = Shape::Record(PAIR);
        check(&pair, json!({"ip_address": "10.0.0.1"}), Ok(()));
        check(
            &pair,
            json!({"ip_address": "10.0.0.1", "mac_address": null}),
            Ok(()),
        );
        check(&pair, json!({}), Err("'ip_address' is missing"));
        check(
            &pair,
            json!({"ip_address": "", "x": 1}),
            Err("Unexpected key 'x'"),
        );
        check(&pair, json!("x"), Err("'x' is not a dictionary"));
    }

    #[test]
    fn texts_in_errors_are_short() {
        let long = Value::String("ä".repeat(100_000));
        assert!(NAME.check(&long).expect_err("it is too long").len() < 1_000);
        let wide = Value::Array(vec![json!("x"); 10_000]);
        assert!(NAME.check(&wide).expect_err("it is no text").len() < 1_000);
    }
}

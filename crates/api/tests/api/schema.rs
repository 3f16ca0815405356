//! Whether an answer is what the OpenAPI document says: as much of JSON Schema as the document uses.

use http::{Method, StatusCode};
use serde_json::Value;
use std::sync::LazyLock;

pub(crate) static DOCUMENT: LazyLock<Value> = LazyLock::new(api::document);

/// `path` may have a query. Every refusal has one form.
pub(crate) fn answer(
    method: &Method,
    path: &str,
    status: StatusCode,
    body: &Value,
) -> Result<(), String> {
    if status.is_client_error() || status.is_server_error() {
        if *method == Method::HEAD {
            return Ok(());
        }
        return check(&DOCUMENT["components"]["schemas"]["refusal"], body);
    }
    let operation = operation(method, path).ok_or("the document has no such operation")?;
    let response = &operation["responses"][status.as_str()];
    if response.is_null() {
        return Err(format!("the document has no answer {status}"));
    }
    match &response["content"]["application/json"]["schema"] {
        Value::Null if body.is_null() => Ok(()),
        Value::Null => Err("the document has no body".into()),
        schema => check(schema, body),
    }
}

pub(crate) fn operation(method: &Method, path: &str) -> Option<&'static Value> {
    let path = match path.split('?').next()? {
        "/" => "/",
        "/v2.0" | "/v2.0/" => "/v2.0/",
        path => path.trim_end_matches('/'),
    };
    let plain = path
        .strip_suffix(".json")
        .filter(|_| path != "/openapi.json")
        .unwrap_or(path);
    let fits = |template: &str| {
        let (template, path) = (template.split('/'), plain.split('/'));
        template.clone().count() == path.clone().count()
            && template
                .zip(path)
                .all(|(t, p)| t == p || t.starts_with('{') && !p.is_empty())
    };
    let paths = DOCUMENT["paths"].as_object()?;
    // A plain name before a parameter.
    let mut fitting: Vec<_> = paths
        .iter()
        .filter(|(template, _)| fits(template))
        .collect();
    fitting.sort_by_key(|(template, _)| template.matches('{').count());
    let (_, item) = fitting.first()?;
    item.get(method.as_str().to_ascii_lowercase())
}

pub(crate) fn resolve(schema: &Value) -> &Value {
    match schema["$ref"].as_str() {
        Some(reference) => {
            let pointer = reference.trim_start_matches('#');
            DOCUMENT
                .pointer(pointer)
                .unwrap_or_else(|| panic!("{reference} leads nowhere"))
        }
        None => schema,
    }
}

pub(crate) fn check(schema: &Value, value: &Value) -> Result<(), String> {
    let schema = resolve(schema);
    for keyword in schema.as_object().into_iter().flat_map(|s| s.keys()) {
        let known = [
            "type",
            "properties",
            "required",
            "additionalProperties",
            "items",
            "anyOf",
            "enum",
            "minimum",
            "maximum",
            "maxLength",
            "format",
            "description",
        ];
        assert!(
            known.contains(&keyword.as_str()),
            "{keyword} isn't checked here"
        );
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let all: Vec<_> = any.iter().map(|one| check(one, value)).collect();
        if !all.iter().any(Result::is_ok) {
            return Err(format!("none of {all:?}"));
        }
    }
    types(schema, value)?;
    if let Some(names) = schema["enum"].as_array()
        && !names.contains(value)
    {
        return Err(format!("{value} is not in {names:?}"));
    }
    match value {
        Value::Object(values) => object(schema, values),
        Value::Array(values) => values.iter().try_for_each(|value| match &schema["items"] {
            Value::Null => Ok(()),
            items => check(items, value),
        }),
        Value::Number(number) => {
            let number = number.as_i64().ok_or("it is too large")?;
            let least = schema["minimum"]
                .as_i64()
                .is_none_or(|least| number >= least);
            let most = schema["maximum"].as_i64().is_none_or(|most| number <= most);
            (least && most)
                .then_some(())
                .ok_or_else(|| format!("{number} is out of bounds"))
        }
        Value::String(text) => {
            let most = schema["maxLength"].as_u64().unwrap_or(u64::MAX);
            let fits = text.chars().count() as u64 <= most;
            fits.then_some(())
                .ok_or_else(|| format!("{text} is too long"))
        }
        Value::Null | Value::Bool(_) => Ok(()),
    }
}

fn types(schema: &Value, value: &Value) -> Result<(), String> {
    let is = |kind: &Value| match kind.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        other => panic!("{other:?} isn't checked here"),
    };
    let fits = match &schema["type"] {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(is),
        kind => is(kind),
    };
    fits.then_some(())
        .ok_or_else(|| format!("{value} is no {}", schema["type"]))
}

fn object(schema: &Value, values: &serde_json::Map<String, Value>) -> Result<(), String> {
    let required = schema["required"].as_array().into_iter().flatten();
    for name in required.filter_map(Value::as_str) {
        if !values.contains_key(name) {
            return Err(format!("{name} is missing"));
        }
    }
    for (name, value) in values {
        match schema["properties"].get(name) {
            Some(schema) => check(schema, value).map_err(|why| format!("{name}: {why}"))?,
            None if schema["additionalProperties"] == false => {
                return Err(format!("{name} is unexpected"));
            }
            None => {}
        }
    }
    Ok(())
}

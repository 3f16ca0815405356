//! What a request's body asks for: the root object, one or many, every value checked by its attribute.
//!
//! Knows nothing of: what the attributes mean.

use crate::attribute::{self, Attribute, Post, cut};
use crate::fault::Fault;
use crate::json;
use model::ProjectId;
use serde_json::{Map, Value};

/// An object's attributes as somebody gave them. Each is known, may be given here, and has its shape.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Body {
    values: Map<String, Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Post,
    Put,
}

/// What a body is for: names of its root, and attributes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected {
    pub(crate) one: &'static str,
    pub(crate) many: &'static str,
    pub(crate) attributes: &'static [Attribute],
}

/// What was posted: answered in the same form.
#[derive(Debug, PartialEq)]
pub(crate) enum Posted {
    One(Body),
    Many(Vec<Body>),
}

impl Expected {
    pub(crate) fn post(&self, bytes: &[u8]) -> Result<Posted, Fault> {
        let mut root = root(bytes)?;
        if let Some(one) = root.remove(self.one) {
            return self.body(one, Verb::Post).map(Posted::One);
        }
        match root.remove(self.many) {
            Some(Value::Array(many)) if many.is_empty() => Err(self.not_found()),
            Some(Value::Array(many)) => {
                let bodies = many.into_iter().map(|one| match one {
                    // Each may be wrapped, as a single one is.
                    Value::Object(mut wrapped)
                        if wrapped.len() == 1 && wrapped.contains_key(self.one) =>
                    {
                        let one = wrapped.remove(self.one).unwrap_or_default();
                        self.body(one, Verb::Post)
                    }
                    one => self.body(one, Verb::Post),
                });
                bodies.collect::<Result<_, _>>().map(Posted::Many)
            }
            _ => Err(self.not_found()),
        }
    }

    pub(crate) fn put(&self, bytes: &[u8]) -> Result<Body, Fault> {
        match root(bytes)?.remove(self.one) {
            Some(one) => self.body(one, Verb::Put),
            None => Err(self.not_found()),
        }
    }

    fn body(&self, value: Value, verb: Verb) -> Result<Body, Fault> {
        let Value::Object(mut values) = value else {
            return Err(self.not_found());
        };
        self.known(&values)?;
        projects(&mut values)?;
        self.allowed(&values, verb)?;
        for attribute in self.attributes {
            if let Some(value) = values.get(attribute.name) {
                let checked = attribute.shape.check(value);
                checked.map_err(|why| Fault::input(attribute.name, why))?;
            }
        }
        Ok(Body { values })
    }

    fn known(&self, values: &Map<String, Value>) -> Result<(), Fault> {
        let unknown = values.keys().filter(|name| self.attribute(name).is_none());
        let unknown: Vec<_> = unknown.map(|name| cut(name)).collect();
        match unknown.is_empty() {
            true => Ok(()),
            false => {
                let names = unknown.join(", ");
                let names = cut(&names);
                Err(Fault::bad(format!("Unrecognized attribute(s) '{names}'")))
            }
        }
    }

    fn allowed(&self, values: &Map<String, Value>, verb: Verb) -> Result<(), Fault> {
        for attribute in self.attributes {
            let name = attribute.name;
            let given = values.contains_key(name);
            let message = match (verb, attribute.post, given) {
                (Verb::Post, Post::Must, false) => {
                    format!("Failed to parse request. Required attribute '{name}' not specified")
                }
                (Verb::Post, Post::No, true) => format!("Attribute '{name}' not allowed in POST"),
                (Verb::Put, _, true) if !attribute.put => {
                    format!("Cannot update read-only attribute {name}")
                }
                _ => continue,
            };
            return Err(Fault::bad(message));
        }
        Ok(())
    }

    fn attribute(&self, name: &str) -> Option<&'static Attribute> {
        self.attributes
            .iter()
            .find(|attribute| attribute.name == name)
    }

    fn not_found(&self) -> Fault {
        Fault::bad(format!("Unable to find '{}' in request body", self.one))
    }
}

/// The body's object.
pub(crate) fn root(bytes: &[u8]) -> Result<Map<String, Value>, Fault> {
    match json::read(bytes) {
        Ok(Value::Object(root)) => Ok(root),
        Ok(_) => Err(Fault::bad("Resource body required")),
        Err(why) => Err(Fault::malformed(why)),
    }
}

/// A list of texts that is the body's only member: of sub-resources.
pub(crate) fn bare(bytes: &[u8], attribute: &Attribute) -> Result<Vec<String>, Fault> {
    let name = attribute.name;
    let mut root = root(bytes)?;
    let list = root.remove(name);
    let missing = || Fault::bad(format!("Unable to find '{name}' in request body"));
    let list = list.ok_or_else(missing)?;
    if let Some(unknown) = root.keys().next() {
        let unknown = cut(unknown);
        return Err(Fault::bad(format!("Unrecognized attribute(s) '{unknown}'")));
    }
    attribute
        .shape
        .check(&list)
        .map_err(|why| Fault::input(name, why))?;
    let texts = list.as_array().into_iter().flatten();
    Ok(texts
        .filter_map(|text| text.as_str().map(str::to_owned))
        .collect())
}

/// Two names for one thing.
fn projects(values: &mut Map<String, Value>) -> Result<(), Fault> {
    let Some(tenant) = values.remove("tenant_id") else {
        return Ok(());
    };
    match values.get("project_id") {
        Some(project) if *project != tenant => {
            Err(Fault::bad("'project_id' and 'tenant_id' do not match"))
        }
        _ => {
            values.insert("project_id".into(), tenant);
            Ok(())
        }
    }
}

impl Body {
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// `None` also for null.
    fn value(&self, name: &str) -> Option<&Value> {
        self.values.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        Some(self.value(name)?.as_str()?.to_owned())
    }

    pub(crate) fn text_or_empty(&self, name: &str) -> String {
        self.text(name).unwrap_or_default()
    }

    /// Numbers as their digits.
    pub(crate) fn written(&self, name: &str) -> Option<String> {
        match self.value(name)? {
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    pub(crate) fn raw(&self, name: &str) -> Option<&Value> {
        self.value(name)
    }

    pub(crate) fn flag(&self, name: &str) -> Option<bool> {
        attribute::flag(self.value(name)?)
    }

    pub(crate) fn whole(&self, name: &str) -> Option<i64> {
        attribute::whole(self.value(name)?)
    }

    pub(crate) fn one_of(&self, name: &str, names: &[&'static str]) -> Option<&'static str> {
        attribute::one_of(names, self.value(name)?)
    }

    pub(crate) fn texts(&self, name: &str) -> Option<Vec<String>> {
        let texts = self.value(name)?.as_array()?.iter();
        Some(
            texts
                .filter_map(|text| text.as_str().map(str::to_owned))
                .collect(),
        )
    }

    /// A list of records.
    pub(crate) fn records(&self, name: &str) -> Option<Vec<Body>> {
        let records = self.value(name)?.as_array()?.iter();
        let records = records.filter_map(|record| record.as_object());
        let body = |values: &Map<_, _>| Body {
            values: values.clone(),
        };
        Some(records.map(body).collect())
    }

    pub(crate) fn project(&self) -> Option<ProjectId> {
        let project = self.text("project_id")?;
        Some(ProjectId::from(project.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attribute::{NAME, Shape, shown};

    const THING: Expected = Expected {
        one: "thing",
        many: "things",
        attributes: &[
            shown("id", Shape::Id, ""),
            shown("name", NAME, "").given().changed(),
            shown("where", NAME, "").required(),
            shown("project_id", NAME, "").given(),
            shown("tenant_id", NAME, "").given(),
        ],
    };

    fn message<T: std::fmt::Debug>(result: Result<T, Fault>) -> String {
        result.map_or_else(|fault| fault.message, |body| format!("taken: {body:?}"))
    }

    fn post(text: &str, expected: &str) {
        let got = message(THING.post(text.as_bytes()));
        assert!(got.contains(expected), "{text}: {got}");
    }

    #[test]
    fn what_is_posted_has_a_root_and_known_attributes() {
        post(r#"{"thing": {"where": "here"}}"#, "taken: One");
        post(
            r#"{"things": [{"where": "here"}, {"thing": {"where": "there"}}]}"#,
            "taken: Many",
        );
        post(
            r#"{"things": []}"#,
            "Unable to find 'thing' in request body",
        );
        post(r#"{"things": {"where": "here"}}"#, "Unable to find 'thing'");
        post(r#"{"other": {}}"#, "Unable to find 'thing'");
        post(r#"{"thing": []}"#, "Unable to find 'thing'");
        post("[]", "Resource body required");
        post("", "Malformed request body");
        post(
            r#"{"thing": {"colour": 1, "size": 2}}"#,
            "Unrecognized attribute(s) 'colour, size'",
        );
        post(
            r#"{"thing": {"where": "", "id": "1"}}"#,
            "Attribute 'id' not allowed in POST",
        );
        post(
            r#"{"thing": {}}"#,
            "Required attribute 'where' not specified",
        );
        post(
            r#"{"thing": {"where": 1}}"#,
            "Invalid input for where. Reason: '1' is not a valid string.",
        );
        post(
            r#"{"thing": {"where": "", "project_id": "a", "tenant_id": "b"}}"#,
            "'project_id' and 'tenant_id' do not match",
        );
    }

    #[test]
    fn what_is_read_only_stays() {
        let put = |text: &str| message(THING.put(text.as_bytes()));
        assert!(put(r#"{"thing": {"name": "new"}}"#).contains("taken"));
        assert_eq!(
            put(r#"{"thing": {"where": "x"}}"#),
            "Cannot update read-only attribute where"
        );
        assert_eq!(
            put(r#"{"thing": {"id": "x"}}"#),
            "Cannot update read-only attribute id"
        );
    }

    #[test]
    fn a_tenant_is_a_project() {
        let body = THING.post(br#"{"thing": {"where": "", "tenant_id": "a"}}"#);
        let Ok(Posted::One(body)) = body else {
            panic!("{body:?}");
        };
        assert_eq!(body.project(), Some("a".into()));
    }
}

//! The OpenAPI 3.1 document: the tables and routes, written down for machines.
//!
//! Made of what requests are checked by, so it can't say anything else. Served at `/openapi.json`.

use crate::attribute::{Attribute, Post, described};
use crate::kinds::{Kind, Table};
use crate::resources::bindings::EXPECTED as BINDING;
use crate::resources::quotas;
use crate::resources::tags::TAGS;
use crate::routes::Route;
use http::Method;
use serde_json::{Map, Value, json};

pub fn document() -> Value {
    let mut paths = Map::new();
    for (path, route) in Route::every() {
        let operations = route.methods().into_iter().map(|method| {
            let name = method.as_str().to_ascii_lowercase();
            (name, operation(&route, &method))
        });
        let mut item = Map::from_iter(operations);
        item.insert("parameters".into(), in_path(&path));
        paths.insert(path, Value::Object(item));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Portcullis",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Security groups by the OpenStack Networking API v2.0",
        },
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-Auth-Token"},
            },
        },
        "security": [{"token": []}],
    })
}

fn in_path(path: &str) -> Value {
    let names = ["id", "tag", "host"]
        .into_iter()
        .filter(|name| path.contains(&format!("{{{name}}}")));
    let parameter =
        |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
    names.map(parameter).collect()
}

fn operation(route: &Route, method: &Method) -> Value {
    let mut operation = json!({
        "summary": summary(route, method),
        "responses": responses(route, method),
    });
    if (route, method) == (&Route::Apply, &Method::POST) {
        operation["requestBody"] = json!({"required": true, "content": {"application/yaml": {}}});
    }
    if let Some(body) = request(route, method) {
        operation["requestBody"] = json!({"required": true, "content": content(body)});
    }
    let parameters = parameters(route, method);
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if route.is_open() {
        operation["security"] = json!([]);
    }
    operation
}

fn summary(route: &Route, method: &Method) -> String {
    let verb = match *method {
        Method::POST => "Create",
        Method::PUT => "Change",
        Method::DELETE => "Delete",
        _ => "Show",
    };
    match route {
        Route::Versions => "The versions of the API".into(),
        Route::Document => "This document".into(),
        Route::Version => "The kinds of objects".into(),
        Route::Extensions | Route::Extension(_) => "What is served beside the core".into(),
        Route::All(kind) | Route::One(kind, _) => format!("{verb}: {}", kind.table().says),
        Route::Addresses(_, action) => format!("Address groups: {}", action.path()),
        Route::Bindings(_) | Route::Binding(..) => {
            format!("{verb}: a port's bindings, by host")
        }
        Route::Activate(..) => "The port is on that host from now on".into(),
        Route::Tags(kind, _) | Route::Tag(kind, ..) => {
            format!("{verb}: tags of {}", kind.table().many)
        }
        Route::Apply if *method == Method::DELETE => "Remove all that has a label".into(),
        Route::Apply => "Put a policy file onto the cluster".into(),
        Route::Inventory => "All that hosts are told, as the watch protocol encodes it".into(),
        Route::Hosts => "Hosts, and what they enforce".into(),
        Route::Status => "Where the server is, and how much there is".into(),
        Route::Backup => "A copy of the server's store, for `portcullis restore`".into(),
        Route::Quotas => "Quotas of all projects that have their own".into(),
        Route::Quota(_) => format!("{verb}: the quota of a project"),
        Route::QuotaDefault(_) => "The quota of projects that have no own".into(),
        Route::QuotaDetails(_) => "The quota of a project, and what is used".into(),
    }
}

/// With its status.
fn responses(route: &Route, method: &Method) -> Value {
    let (status, body) = match (route, method) {
        (Route::All(kind), &Method::GET) => (200, Some(list(kind.table()))),
        (Route::All(kind), _) => {
            let table = kind.table();
            let one = rooted(table.one, named(table.one));
            let many = rooted(table.many, array(named(table.one)));
            (201, Some(json!({"anyOf": [one, many]})))
        }
        (
            Route::One(..)
            | Route::Binding(..)
            | Route::Quota(_)
            | Route::Tags(..)
            | Route::Tag(..),
            &Method::DELETE,
        ) => (204, None),
        (Route::Bindings(_), &Method::GET) => {
            let many = array(named(&format!("{}_fields", BINDING.one)));
            (200, Some(rooted(BINDING.many, many)))
        }
        (Route::Bindings(_), _) => (201, Some(rooted(BINDING.one, named(BINDING.one)))),
        (Route::Binding(..) | Route::Activate(..), _) => {
            (200, Some(rooted(BINDING.one, named(BINDING.one))))
        }
        (Route::One(kind, _), &Method::GET) => {
            let table = kind.table();
            (200, Some(rooted(table.one, named(&part(table)))))
        }
        (Route::One(kind, _), _) => (200, Some(rooted(kind.table().one, named(kind.table().one)))),
        (Route::Addresses(..), _) => {
            let one = Kind::Addresses.table().one;
            (200, Some(rooted(one, named(one))))
        }
        (Route::Tag(..), &Method::PUT) => (201, None),
        (Route::Tag(..), _) => (204, None),
        (Route::Tags(..), _) => (200, Some(rooted("tags", TAGS.shape.schema()))),
        (Route::Quota(_) | Route::QuotaDefault(_), _) => {
            (200, Some(rooted("quota", named("quota"))))
        }
        (Route::QuotaDetails(_), _) => (200, Some(rooted("quota", named("quota_details")))),
        (Route::Quotas, _) => (200, Some(rooted("quotas", array(named("quota_of"))))),
        (Route::Apply | Route::Hosts | Route::Status, _) => (200, Some(json!({"type": "object"}))),
        (Route::Inventory | Route::Backup, _) => (200, None),
        (Route::Extensions, _) => (200, Some(rooted("extensions", array(named("extension"))))),
        (Route::Extension(_), _) => (200, Some(rooted("extension", named("extension")))),
        (Route::Versions, _) => (
            200,
            Some(rooted("versions", array(json!({"type": "object"})))),
        ),
        (Route::Version, _) => (
            200,
            Some(rooted("resources", array(json!({"type": "object"})))),
        ),
        (Route::Document, _) => (200, Some(json!({"type": "object"}))),
    };
    let mut response = json!({"description": "Done"});
    if let Some(body) = body {
        response["content"] = content(body);
    }
    match route {
        Route::Inventory => response["content"] = json!({"application/x-protobuf": {}}),
        Route::Backup => response["content"] = json!({"application/octet-stream": {}}),
        _ => {}
    }
    let refusal = json!({"description": "Refused", "content": content(named("refusal"))});
    json!({ status.to_string(): response, "default": refusal })
}

fn request(route: &Route, method: &Method) -> Option<Value> {
    match (route, method) {
        (Route::All(kind), &Method::POST) => {
            let table = kind.table();
            let new = named(&format!("{}_new", table.one));
            let many = rooted(table.many, array(new.clone()));
            Some(json!({"anyOf": [rooted(table.one, new), many]}))
        }
        (Route::One(kind, _), &Method::PUT) => {
            let one = kind.table().one;
            Some(rooted(one, named(&format!("{one}_change"))))
        }
        (Route::Bindings(_), &Method::POST) => {
            let new = named(&format!("{}_new", BINDING.one));
            Some(rooted(BINDING.one, new))
        }
        (Route::Binding(..), &Method::PUT) => {
            let change = named(&format!("{}_change", BINDING.one));
            Some(rooted(BINDING.one, change))
        }
        (Route::Quota(_), &Method::PUT) => Some(rooted("quota", named("quota_change"))),
        (Route::Tags(..), &Method::PUT) => Some(rooted("tags", TAGS.shape.schema())),
        (Route::Addresses(..), _) => {
            let texts = array(json!({"type": "string"}));
            Some(rooted("addresses", texts))
        }
        _ => None,
    }
}

fn parameters(route: &Route, method: &Method) -> Vec<Value> {
    let query = |name: &str, schema: Value| json!({"name": name, "in": "query", "schema": schema});
    let text = || json!({"type": "string"});
    let texts = || array(text());
    match (route, method) {
        (Route::All(kind), &Method::GET) => {
            let attributes = kind.table().attributes;
            let filters = attributes.iter().filter(|a| a.filter);
            let mut all: Vec<Value> = filters.map(|a| query(a.name, texts())).collect();
            let has = |name: &str| attributes.iter().any(|a| a.name == name);
            if has("tags") {
                let more = ["tags-any", "not-tags", "not-tags-any"];
                all.extend(more.map(|name| query(name, text())));
            }
            if has("fixed_ips") {
                all.push(query("fixed_ips", texts()));
            }
            all.extend(["fields", "sort_key", "sort_dir"].map(|name| query(name, texts())));
            all.push(query("limit", json!({"type": "integer", "minimum": 0})));
            all.push(query("marker", text()));
            all.push(query("page_reverse", json!({"type": "boolean"})));
            all
        }
        (Route::Apply, method) => {
            let names: &[&str] = match *method == Method::POST {
                true => &["label", "project", "host", "prune", "dry_run"],
                false => &["label", "project", "dry_run"],
            };
            names.iter().map(|name| query(name, text())).collect()
        }
        (Route::Bindings(_), &Method::GET) => {
            let filters = BINDING.attributes.iter().filter(|a| a.filter);
            let filters = filters.map(|a| query(a.name, texts()));
            filters.chain([query("fields", texts())]).collect()
        }
        (Route::One(..), &Method::GET) => vec![query("fields", texts())],
        (Route::One(..), _) => {
            let says = "revision_number=N: only if the object is as it was then";
            vec![json!({"name": "If-Match", "in": "header", "schema": text(), "description": says})]
        }
        _ => Vec::new(),
    }
}

fn schemas() -> Value {
    let mut schemas = Map::new();
    for kind in Kind::ALL {
        let table = kind.table();
        let attributes = table.attributes;
        let mut add = |name: String, schema| drop(schemas.insert(name, schema));
        let always = |a: &Attribute| !a.admins;
        add(table.one.into(), object(attributes, |_| true, always));
        add(part(table), object(attributes, |_| true, |_| false));
        if table.create {
            let (may, must) = (
                |a: &Attribute| a.post != Post::No,
                |a: &Attribute| a.post == Post::Must,
            );
            add(format!("{}_new", table.one), object(attributes, may, must));
        }
        if table.update {
            let change = object(attributes, |a| a.put, |_| false);
            add(format!("{}_change", table.one), change);
        }
    }
    let (one, attributes) = (BINDING.one, BINDING.attributes);
    let whole = object(attributes, |_| true, |_| true);
    schemas.insert(one.into(), whole);
    let some = object(attributes, |_| true, |_| false);
    schemas.insert(format!("{one}_fields"), some);
    let new = object(attributes, |a| a.post != Post::No, |a| a.post == Post::Must);
    schemas.insert(format!("{one}_new"), new);
    let change = object(attributes, |a| a.put, |_| false);
    schemas.insert(format!("{one}_change"), change);
    let (limits, change) = (quotas::LIMITS, quotas::EXPECTED.attributes);
    schemas.insert("quota".into(), object(limits, |_| true, |_| true));
    schemas.insert("quota_change".into(), object(change, |_| true, |_| false));
    let mut of = object(limits, |_| true, |_| true);
    for name in ["project_id", "tenant_id"] {
        of["properties"][name] = json!({"type": "string"});
    }
    schemas.insert("quota_of".into(), of);
    schemas.insert("quota_details".into(), quota_details());
    schemas.insert("extension".into(), extension());
    schemas.insert("refusal".into(), refusal());
    Value::Object(schemas)
}

fn object(
    attributes: &[Attribute],
    may: impl Fn(&Attribute) -> bool,
    must: impl Fn(&Attribute) -> bool,
) -> Value {
    let there = attributes.iter().filter(|a| may(a));
    let properties = there.map(|a| (a.name.to_owned(), described(a.shape.schema(), a.says)));
    let required = attributes.iter().filter(|a| must(a)).map(|a| a.name);
    json!({
        "type": "object",
        "properties": Map::from_iter(properties),
        "required": Vec::from_iter(required),
        "additionalProperties": false,
    })
}

fn list(table: &Table) -> Value {
    let link = json!({
        "type": "object",
        "properties": {"rel": {"type": "string", "enum": ["next", "previous"]}, "href": {"type": "string"}},
        "required": ["rel", "href"],
    });
    json!({
        "type": "object",
        "properties": {
            table.many: array(named(&part(table))),
            format!("{}_links", table.many): array(link),
        },
        "required": [table.many],
        "additionalProperties": false,
    })
}

/// What is shown where only some fields are asked for.
fn part(table: &Table) -> String {
    format!("{}_fields", table.one)
}

fn quota_details() -> Value {
    let number = json!({"type": "integer"});
    let detail = json!({
        "type": "object",
        "properties": {"limit": number, "used": number, "reserved": number},
        "required": ["limit", "used", "reserved"],
    });
    let names = quotas::LIMITS.iter().map(|a| a.name);
    let properties = names.map(|name| (name.to_owned(), detail.clone()));
    json!({"type": "object", "properties": Map::from_iter(properties)})
}

fn extension() -> Value {
    let names = ["alias", "name", "description", "updated"];
    let properties = names.map(|name| (name.to_owned(), json!({"type": "string"})));
    json!({"type": "object", "properties": Map::from_iter(properties), "required": names})
}

fn refusal() -> Value {
    let names = ["type", "message", "detail"];
    let properties = names.map(|name| (name.to_owned(), json!({"type": "string"})));
    let error = json!({
        "type": "object", "properties": Map::from_iter(properties), "required": names,
    });
    rooted("NeutronError", error)
}

fn rooted(name: &str, schema: Value) -> Value {
    json!({
        "type": "object",
        "properties": { name: schema },
        "required": [name],
        "additionalProperties": false,
    })
}

fn array(items: Value) -> Value {
    json!({"type": "array", "items": items})
}

fn named(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn content(schema: Value) -> Value {
    json!({"application/json": {"schema": schema}})
}

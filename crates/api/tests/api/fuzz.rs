//! Requests made of the document, right and then spoilt, from a fixed seed: no 5xx, and every refusal has its form.
//! (The client checks the forms; see client.rs.)

use crate::bed::Bed;
use crate::schema::{DOCUMENT, resolve};
use bytes::Bytes;
use http::Method;
use serde_json::{Map, Value, json};

const CASES: usize = 3_000;
const SEED: u64 = 0x5eed;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

struct Fuzz {
    random: Random,
    /// Of objects that were there at some time.
    ids: Vec<String>,
}

const TEXTS: &[&str] = &[
    "",
    "default",
    "web",
    "tcp",
    "icmp",
    "10.0.0.0/24",
    "10.0.0.5",
    "fd00::/64",
    "fd00::1",
    "02:00:00:00:00:01",
    "PARENT",
    "*",
    "alice",
    "network:dhcp",
    "0",
    "-1",
    "65536",
    "\u{0}",
    "ä\u{202e}",
    "a/b",
    "../..",
    "%00",
    "'; --",
    "1e309",
    "::ffff:10.0.0.1",
    "0.0.0.0/0",
    "١٢",
    "true",
    "null",
];

impl Fuzz {
    fn text(&mut self) -> String {
        match self.random.below(10) {
            0..4 if !self.ids.is_empty() => self.random.pick(&self.ids).clone(),
            9 if self.random.one_in(20) => "x".repeat(300),
            _ => (*self.random.pick(TEXTS)).to_owned(),
        }
    }

    fn number(&mut self) -> Value {
        let numbers = [
            0,
            1,
            4,
            6,
            22,
            80,
            255,
            256,
            65_535,
            65_536,
            -1,
            i64::MAX,
            i64::MIN,
        ];
        match self.random.below(12) {
            0 => json!(1.5),
            1 => json!(u64::MAX),
            2 => json!(1e300),
            _ => json!(self.random.pick(&numbers)),
        }
    }

    /// Of the schema's shape.
    fn right(&mut self, schema: &Value) -> Value {
        let schema = resolve(schema);
        if let Some(any) = schema["anyOf"].as_array() {
            let one = self.random.pick(any).clone();
            return self.right(&one);
        }
        if let Some(names) = schema["enum"].as_array() {
            return self.random.pick(names).clone();
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => self.random.pick(kinds).clone(),
            kind => kind.clone(),
        };
        match kind.as_str() {
            Some("object") => self.object(schema),
            Some("array") => {
                let length = self.random.below(4);
                (0..length).map(|_| self.right(&schema["items"])).collect()
            }
            Some("integer") => self.number(),
            Some("boolean") => self.random.one_in(2).into(),
            Some("null") => Value::Null,
            _ => self.text().into(),
        }
    }

    fn object(&mut self, schema: &Value) -> Value {
        let Some(properties) = schema["properties"].as_object() else {
            let name = self.text();
            return json!({"device": self.text(), name: self.any(2)});
        };
        let required = |name: &str| {
            let required = schema["required"].as_array();
            required.is_some_and(|names| names.iter().any(|known| known == name))
        };
        let mut object = Map::new();
        for (name, schema) in properties {
            if required(name) || self.random.one_in(3) {
                object.insert(name.clone(), self.right(schema));
            }
        }
        Value::Object(object)
    }

    /// Of no shape.
    fn any(&mut self, depth: usize) -> Value {
        match self.random.below(if depth == 0 { 5 } else { 7 }) {
            0 => Value::Null,
            1 => self.random.one_in(2).into(),
            2 => self.number(),
            3 | 4 => self.text().into(),
            5 => (0..self.random.below(3))
                .map(|_| self.any(depth - 1))
                .collect(),
            _ => json!({ self.text(): self.any(depth - 1) }),
        }
    }

    /// Something in it is another thing, gone, or too much.
    fn spoil(&mut self, value: &mut Value) {
        match value {
            Value::Object(values) if !values.is_empty() && !self.random.one_in(4) => {
                let names: Vec<String> = values.keys().cloned().collect();
                let name = self.random.pick(&names).clone();
                match self.random.below(6) {
                    0 => drop(values.remove(&name)),
                    1 => drop(values.insert(self.text(), self.any(2))),
                    _ => self.spoil(&mut values[&name]),
                }
            }
            Value::Array(values) if !values.is_empty() && !self.random.one_in(4) => {
                let at = self.random.below(values.len());
                match self.random.below(4) {
                    0 => values.push(values[at].clone()),
                    _ => self.spoil(&mut values[at]),
                }
            }
            other => *other = self.any(3),
        }
    }

    fn path(&mut self, template: &str, operation: &Value) -> String {
        let mut path = template.to_owned();
        for name in ["{id}", "{tag}", "{host}"] {
            let text = self.text();
            let escaped = form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            path = path.replace(name, &escaped.replace('+', "%20"));
        }
        if path.contains("//") {
            path = path.replace("//", "/x/");
        }
        let parameters = operation["parameters"].as_array().into_iter().flatten();
        let mut query = form_urlencoded::Serializer::new(String::new());
        for parameter in parameters.filter(|parameter| parameter["in"] == "query") {
            if self.random.one_in(12) {
                let name = parameter["name"].as_str().unwrap_or_default();
                query.append_pair(name, &self.text());
            }
        }
        let query = query.finish();
        match query.is_empty() {
            true => path,
            false => format!("{path}?{query}"),
        }
    }
}

#[tokio::test]
async fn no_request_is_our_fault() {
    let bed = Bed::new().await;
    let mut operations = Vec::new();
    for (path, item) in DOCUMENT["paths"].as_object().expect("it is an object") {
        for method in [Method::GET, Method::POST, Method::PUT, Method::DELETE] {
            if let Some(operation) = item.get(method.as_str().to_ascii_lowercase()) {
                // Creation more often: what isn't there can't be asked for.
                let often = if method == Method::POST { 6 } else { 1 };
                operations.extend(vec![(path.clone(), method, operation.clone()); often]);
            }
        }
    }
    let mut fuzz = Fuzz {
        random: Random(SEED),
        ids: Vec::new(),
    };
    let (mut done, mut refused) = (0, 0);
    for case in 0..CASES {
        let (template, method, operation) = fuzz.random.pick(&operations).clone();
        let path = fuzz.path(&template, &operation);
        let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
        let body = match schema {
            Value::Null => Bytes::new(),
            schema => {
                let mut body = fuzz.right(schema);
                for _ in 0..fuzz.random.below(3) {
                    fuzz.spoil(&mut body);
                }
                let mut text = body.to_string().into_bytes();
                if fuzz.random.one_in(20) {
                    let at = fuzz.random.below(text.len());
                    text[at] = fuzz.random.next() as u8;
                }
                text.into()
            }
        };
        let client = match fuzz.random.below(4) {
            0 => bed.member("alice"),
            1 => bed.reader("alice"),
            _ => bed.admin(),
        };
        let answer = client.send(method.clone(), &path, body).await;
        let status = answer.status.as_u16();
        assert!(
            status < 500,
            "case {case}: {method} {path}: {}",
            answer.body
        );
        match status {
            200..300 => done += 1,
            _ => refused += 1,
        }
        fuzz.ids.extend(ids(&answer.body));
        let surplus = fuzz.ids.len().saturating_sub(200);
        fuzz.ids.drain(..surplus);
    }
    // Both sides of every check are met.
    assert!(
        done > CASES / 10 && refused > CASES / 10,
        "{done} done, {refused} refused"
    );
    bed.admin().get("security-groups").await.done(200);
}

/// Of objects that were made, or shown; hosts of bindings.
fn ids(body: &Value) -> Vec<String> {
    let objects = body.as_object().into_iter().flat_map(|body| body.values());
    let ids = objects.filter_map(|object| object["id"].as_str().or(object["host"].as_str()));
    ids.map(str::to_owned).collect()
}

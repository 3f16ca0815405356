//! The schema takes every good file and refuses what a schema can refuse, and so agrees with `parse`.

use portcullis_policyfile::{SCHEMA, parse};
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// As an editor reads YAML: by the core schema of YAML 1.2.
fn json(text: &str) -> Value {
    let mut events = Parser::new_from_str(text).map(|e| e.expect("YAML").0);
    events.next();
    events.next();
    let first = events.next().expect("a document");
    value(first, &mut events)
}

fn value<'a>(event: Event<'a>, events: &mut impl Iterator<Item = Event<'a>>) -> Value {
    match event {
        Event::Scalar(text, ScalarStyle::Plain, ..) => plain(&text),
        Event::Scalar(text, ..) => Value::String(text.into_owned()),
        Event::SequenceStart(..) => {
            let mut items = Vec::new();
            loop {
                match events.next().expect("an item") {
                    Event::SequenceEnd => return Value::Array(items),
                    event => items.push(value(event, events)),
                }
            }
        }
        Event::MappingStart(..) => {
            let mut map = Map::new();
            loop {
                let key = match events.next().expect("a key") {
                    Event::MappingEnd => return Value::Object(map),
                    Event::Scalar(text, ..) => text.into_owned(),
                    event => panic!("{event:?} as a key"),
                };
                let event = events.next().expect("a value");
                map.insert(key, value(event, events));
            }
        }
        event => panic!("{event:?} as a value"),
    }
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => match (text.parse::<u64>(), text.strip_prefix("0x")) {
            (Ok(number), _) => number.into(),
            (_, Some(hex)) => u64::from_str_radix(hex, 16).expect("hexadecimal").into(),
            _ => Value::String(text.to_owned()),
        },
    }
}

fn schema_takes(text: &str) -> Result<(), String> {
    let schema: Value = serde_json::from_str(SCHEMA).expect("JSON");
    let schema = jsonschema::validator_for(&schema).expect("a JSON schema");
    schema
        .validate(&json(text))
        .map_err(|e| format!("{e} at {}", e.instance_path()))
}

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(folder);
    let mut files: Vec<_> = folder
        .read_dir()
        .expect("a folder")
        .map(|f| f.expect("a file").path())
        .collect();
    files.sort();
    files
}

#[test]
fn the_examples_are_good_and_the_schema_takes_them() {
    let examples = files("examples");
    assert!(examples.len() >= 4);
    for path in examples {
        let text = std::fs::read_to_string(&path).expect("a file");
        let name = path.display().to_string();
        let host = if name.ends_with("hosts.yaml") {
            "rack1-b"
        } else {
            "here"
        };
        parse(&text, &name, &host.into()).unwrap_or_else(|e| panic!("{e}"));
        schema_takes(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

/// Both take it, or both refuse it.
fn check(text: &str, good: bool) {
    let file = format!("version: 1\n{text}\n");
    let parsed = parse(&file, "policy.yaml", &"here".into());
    assert_eq!(parsed.is_ok(), good, "parse of {file}: {parsed:?}");
    let schema = schema_takes(&file);
    assert_eq!(schema.is_ok(), good, "schema of {file}: {schema:?}");
}

fn rule(rule: &str, good: bool) {
    check(&format!("groups: {{ web: {{ rules: [{rule}] }} }}"), good);
}

fn port(fields: &str, good: bool) {
    check(
        &format!(
            "networks: {{ lan: }}\ngroups: {{ web: }}\nports: {{ vm1: {{ mac: 52:54:00:00:00:01, {fields} }} }}"
        ),
        good,
    );
}

#[test]
fn parse_and_schema_agree() {
    check("", true);
    check("ports:", true);
    check("prots: {}", false);
    check("ports: []", false);
    check(
        "networks: { lan: { subnets: 10.0.0.0/24, vni: 7, mtu: 1500, eui64-only: on } }",
        true,
    );
    check("networks: { lan: { subnets: [10.0.0.0/33] } }", false);
    check("networks: { lan: { mtu: 12 } }", false);
    check("groups: { any: }", false);
    check("groups: { 10.0.0.1: }", false);
    check("groups: { a b: }", false);
    check("groups: { web: { tag: 0 } }", false);
    check(
        "groups: { web: { stateless: true, tag: 65535, rules: } }",
        true,
    );
    check("groups: { web: { rules: { from: any } } }", false);
    check(
        "address-groups: { office: [192.0.2.1, 2001:db8::/32, ::/0] , nobody: [] }",
        true,
    );
    check("address-groups: { office: [somewhere] }", false);
    check(
        "settings: { elision: on, budgets: { flows-per-port: 5 }, ethertypes: [0x88cc, 35021] }",
        true,
    );
    check("settings: { elision: maybe }", false);
    check("settings: { ethertypes: [0x05ff] }", false);
    check("settings: { timeouts: { udp: 0 } }", false);
    check(
        "hosts: { here: { tunnel-address: 192.0.2.1, peer-trust: tag } }",
        true,
    );
    check("hosts: { here: { peer-trust: yes } }", false);
    rule("{ from: any }", true);
    rule(
        "{ to: [web, 10.0.0.0/8, fd00::5], protocol: [tcp, 17], ports: [22, 8000-8099] }",
        true,
    );
    rule("{ from: any, protocol: icmp 3/4 }", true);
    rule(
        "{ from: any, protocol: icmp  echo-request, family: ipv4, name: ping }",
        true,
    );
    rule("{ }", false);
    rule("{ from: any, to: any }", false);
    rule("{ from: [] }", false);
    rule("{ from: any, ports: 22 }", false);
    rule("{ from: any, protocol: tcp, ports: 65536 }", false);
    rule("{ from: any, protocol: tcp, ports: '22,80' }", false);
    rule("{ from: any, protocol: 256 }", false);
    rule("{ from: any, protocol: tcp/22 }", false);
    rule("{ from: any, family: v4 }", false);
    rule("{ from: any, name: a.b }", false);
    rule("{ from: 10.0.0.300 }", false);
    rule("allow", false);
    port(
        "device: vnet*, addresses: [10.0.0.5, fd00::5], groups: web, router: off",
        true,
    );
    port(
        "pairs: [10.0.1.0/24, { prefix: fd00::/64, mac: 00:00:5e:00:01:0a }]",
        true,
    );
    port("pairs: [{ mac: 00:00:5e:00:01:0a }]", false);
    port("device: a-name-too-long-for-linux", false);
    port("device: ..", false);
    port("iface-id: 0c7c1a9e-52f1-4f5c-9d3e-7b1f6f1a2b3c", true);
    port("iface-id: 'a b'", false);
    port(&format!("iface-id: {}", "x".repeat(512)), true);
    port(&format!("iface-id: {}", "x".repeat(513)), false);
    port("iface-id: a, device: tap1", false);
    port("addresses: 10.0.0.5/24", false);
    port("groups: [any]", false);
    port("port-security: maybe", false);
    port("mac-address: 1", false);
    check("networks: { lan: }\nports: { vm1: { } }", false);
    check(
        "networks: { lan: }\nports: { vm1: { mac: 52:54:00:00:00 } }",
        false,
    );
}

#[test]
fn the_schema_takes_what_parse_takes_of_the_corpus() {
    let mut good = 0;
    for path in files("fuzz/corpus/policyfile") {
        let Ok(text) = std::fs::read_to_string(&path) else {
            continue;
        };
        let name = path.display().to_string();
        if parse(&text, &name, &"here".into()).is_ok() {
            schema_takes(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
            good += 1;
        }
    }
    assert!(good >= 5);
}

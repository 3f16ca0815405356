//! The reader, the schema and the document name the same fields and errors.

use crate::draft::*;
use crate::error::ErrorKind;
use std::collections::BTreeSet;

const DOCUMENT: &str = include_str!("../../../docs/policy-file.md");

/// A map of the grammar: where the schema has it, the document's section about it, its fields.
const MAPS: [(&str, &[&str]); 10] = [
    ("", FILE_FIELDS),
    ("/$defs/settings", SETTINGS_FIELDS),
    ("/$defs/settings/properties/timeouts", TIMEOUT_FIELDS),
    ("/$defs/settings/properties/budgets", BUDGET_FIELDS),
    ("/$defs/host", HOST_FIELDS),
    ("/$defs/network", NETWORK_FIELDS),
    ("/$defs/group", GROUP_FIELDS),
    ("/$defs/rule", RULE_FIELDS),
    ("/$defs/port", PORT_FIELDS),
    ("/$defs/pair/anyOf/1", PAIR_FIELDS),
];

#[test]
fn the_schema_has_the_fields_that_are_read() {
    let schema: serde_json::Value = serde_json::from_str(crate::SCHEMA).expect("JSON");
    for (place, fields) in MAPS {
        let properties = schema.pointer(&format!("{place}/properties"));
        let properties = properties.and_then(|p| p.as_object()).expect(place);
        let described: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        assert_eq!(described, fields.iter().copied().collect(), "{place}");
    }
}

#[test]
fn the_document_has_every_field_and_every_class_of_error() {
    for (_, fields) in MAPS {
        for field in fields {
            let row = format!("| `{field}` |");
            assert!(DOCUMENT.contains(&row), "no row for the field {field}");
        }
    }
    for kind in ErrorKind::ALL {
        let row = format!("| `{}` | {} |", kind.name(), kind.meaning());
        assert!(DOCUMENT.contains(&row), "no row: {row}");
    }
}

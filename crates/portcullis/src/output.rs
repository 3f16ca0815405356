//! Answers as tables, JSON or YAML.
//!
//! Every list-like command makes one JSON value by hand; JSON and YAML print it, tables are made from
//! it. So the three never disagree, and no type of the model is serialized by itself.

use clap::ValueEnum;
use comfy_table::{Cell, Color, Table, presets};
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{IsTerminal, Write};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    #[default]
    Table,
    /// A table with more columns.
    Wide,
    Json,
    Yaml,
}

#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct FormatArgs {
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// Prints the value, or what `table` makes of it (`true`: wide).
pub(crate) fn print(format: Format, value: &Value, table: impl FnOnce(&Value, bool) -> String) {
    let text = match format {
        Format::Table => table(value, false),
        Format::Wide => table(value, true),
        Format::Json => {
            let mut text = format!("{value:#}");
            text.push('\n');
            text
        }
        Format::Yaml => yaml(value),
    };
    say(&text);
}

/// To stdout. Whoever reads it may stop early (`| head`), and then there is no more to do.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    if out
        .write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .is_err()
    {
        std::process::exit(0);
    }
}

pub(crate) fn colourful() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// Columns without borders, as `ip` and `kubectl` print them.
pub(crate) struct Columns {
    table: Table,
    colour: bool,
}

/// What a cell says beside its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Good,
    Doubtful,
    Bad,
}

impl Columns {
    pub(crate) fn new(header: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING);
        table.set_header(header);
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        Self {
            table,
            colour: colourful(),
        }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = (String, Tone)>) {
        let cell = |(text, tone): (String, Tone)| {
            let cell = Cell::new(text);
            match tone {
                Tone::Good if self.colour => cell.fg(Color::Green),
                Tone::Doubtful if self.colour => cell.fg(Color::Yellow),
                Tone::Bad if self.colour => cell.fg(Color::Red),
                Tone::Plain | Tone::Good | Tone::Doubtful | Tone::Bad => cell,
            }
        };
        let cells: Vec<Cell> = cells.into_iter().map(cell).collect();
        self.table.add_row(cells);
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for line in self.table.lines() {
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }
}

/// The text in a field of an object, or `-`.
pub(crate) fn text(value: &Value, field: &str) -> String {
    match &value[field] {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Block style; JSON's strings are YAML's double-quoted ones.
fn yaml(value: &Value) -> String {
    let mut text = String::new();
    yaml_into(&mut text, value, 0);
    text
}

fn yaml_into(text: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                let key = yaml_scalar(&Value::String(key.clone()));
                yaml_field(text, &format!("{indent}{key}:"), value, depth + 1);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut inner = String::new();
                yaml_into(&mut inner, item, depth + 1);
                // The first line of the item stands behind the dash.
                let inner = inner.trim_start();
                let _ = write!(text, "{indent}- {inner}");
            }
        }
        scalar => {
            let _ = writeln!(text, "{indent}{}", yaml_scalar(scalar));
        }
    }
}

fn yaml_field(text: &mut String, head: &str, value: &Value, depth: usize) {
    let nested = match value {
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    };
    if nested {
        let _ = writeln!(text, "{head}");
        yaml_into(text, value, depth);
    } else {
        let _ = writeln!(text, "{head} {}", yaml_scalar(value));
    }
}

/// Plain where no reader of YAML can take it for anything but this text.
fn yaml_scalar(value: &Value) -> String {
    let Value::String(text) = value else {
        return value.to_string();
    };
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'/');
    let letter_first = text.bytes().next().is_some_and(|b| b.is_ascii_alphabetic());
    let reserved = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let plain = letter_first
        && text.bytes().all(word)
        && !reserved.contains(&text.to_ascii_lowercase().as_str());
    match plain {
        true => text.clone(),
        false => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn yaml_quotes_what_could_be_read_as_something_else() {
        let value = json!({
            "plain": "web-1", "number": 7, "looks-like": "7", "no": "no", "none": null,
            "address": "fd00::1", "list": [{"a": 1, "b": []}, "x", [1, 2]], "empty": {},
        });
        let expected = "\
address: \"fd00::1\"
empty: {}
list:
  - a: 1
    b: []
  - x
  - - 1
    - 2
looks-like: \"7\"
\"no\": \"no\"
none: null
number: 7
plain: web-1
";
        assert_eq!(yaml(&value), expected);
    }

    #[test]
    fn columns_are_aligned_and_without_blanks_at_the_end() {
        let mut columns = Columns::new(&["PORT", "STATE"]);
        columns.row([
            ("database".to_owned(), Tone::Plain),
            ("enforced".to_owned(), Tone::Good),
        ]);
        columns.row([("web".to_owned(), Tone::Plain), (String::new(), Tone::Bad)]);
        let expected = "PORT      STATE\ndatabase  enforced\nweb\n";
        assert_eq!(columns.text(), expected);
    }
}

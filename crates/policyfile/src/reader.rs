//! Walks a file's YAML events: maps with known fields, maps by name, lists, single values.
//!
//! Place on the line: text -> **reader** -> draft -> resolve -> inventory.
//! Reads events rather than a tree, so that a file of 10,000 ports costs little more than its text,
//! and a hostile one nothing but its length. Refuses the parts of YAML that a policy doesn't need.
//! Knows nothing of: what any field means.

use crate::error::{Complaint, ErrorKind, Log, Place, Position, Stop, quoted};
use crate::nearest::suggestion;
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};
use std::borrow::Cow;
use std::collections::HashMap;

/// Maps and lists inside one another; the grammar itself needs 8.
const MAX_DEPTH: usize = 32;

/// A single value as it stands in the file.
#[derive(Clone, Debug)]
pub(crate) struct Text<'a> {
    pub(crate) value: Cow<'a, str>,
    pub(crate) at: Place,
    plain: bool,
}

impl Text<'_> {
    /// What YAML takes for "no value".
    fn is_null(&self) -> bool {
        self.plain && matches!(&*self.value, "" | "~" | "null" | "Null" | "NULL")
    }
}

/// The fields that a map had, by their index in its list of fields.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Present(u32);

impl Present {
    pub(crate) fn has(self, fields: &[&str], field: &str) -> bool {
        fields
            .iter()
            .position(|f| *f == field)
            .is_some_and(|i| self.0 & (1 << i) != 0)
    }
}

pub(crate) struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    ahead: Option<(Event<'a>, Place)>,
    depth: usize,
    pub(crate) log: Log<'a>,
}

/// What comes next, so that a caller can choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Value,
    List,
    Map,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            parser: Parser::new_from_str(text),
            ahead: None,
            depth: 0,
            log: Log::new(text),
        }
    }

    /// Reads the whole file, whose one document `body` reads.
    pub(crate) fn document(
        &mut self,
        body: impl FnOnce(&mut Self) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        self.next()?; // Every stream begins with its start.
        let (event, _) = self.next()?;
        if event == Event::StreamEnd {
            let advice = "begin with `version: 1`; docs/policy-file.md has examples";
            let empty = Complaint::new(ErrorKind::Empty, "the file is empty", advice);
            self.log.note(None, empty)?;
            return Err(Stop);
        }
        body(self)?;
        self.next()?; // The document's end.
        let (event, at) = self.next()?;
        if event != Event::StreamEnd {
            let what = "a second YAML document begins here";
            let advice = "a policy is one document: remove the `---`";
            self.note(at, ErrorKind::Documents, what, advice)?;
        }
        Ok(())
    }

    /// A map whose fields are known. Says what is unknown or doubled. No value is an empty map.
    pub(crate) fn fields(
        &mut self,
        what: &str,
        fields: &'static [&'static str],
        mut each: impl FnMut(&mut Self, &'static str, Place) -> Result<(), Stop>,
    ) -> Result<Present, Stop> {
        let mut present = Present::default();
        self.map(what, |reader, key| {
            let Some(i) = fields.iter().position(|f| *f == key.value) else {
                reader.unknown_field(what, fields, &key)?;
                return reader.skip();
            };
            if present.0 & (1 << i) != 0 {
                reader.duplicate_key(&key, None)?;
                return reader.skip();
            }
            present.0 |= 1 << i;
            each(reader, fields[i], key.at)
        })?;
        Ok(present)
    }

    /// A map by names of the file's own. Says what is doubled; passes on even bad names, so that
    /// what refers to them isn't blamed.
    pub(crate) fn named(
        &mut self,
        what: &str,
        mut each: impl FnMut(&mut Self, Text<'a>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let mut seen: HashMap<Cow<'a, str>, Place> = HashMap::new();
        self.map(what, |reader, key| {
            if let Some(first) = seen.insert(key.value.clone(), key.at) {
                reader.duplicate_key(&key, Some(first))?;
                return reader.skip();
            }
            each(reader, key)
        })
    }

    /// A list, or one item that stands for a list of one. No value is an empty list.
    pub(crate) fn items(
        &mut self,
        mut each: impl FnMut(&mut Self) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        match self.peek()? {
            (Event::SequenceStart(..), _) => {
                self.next()?;
                while !matches!(self.peek()?.0, Event::SequenceEnd) {
                    each(self)?;
                }
                self.next()?;
                Ok(())
            }
            (Event::Scalar(value, style, ..), _) => {
                let plain = *style == ScalarStyle::Plain;
                if plain && matches!(&**value, "" | "~" | "null" | "Null" | "NULL") {
                    self.next()?;
                    return Ok(());
                }
                each(self)
            }
            _ => each(self),
        }
    }

    /// A single value; `None` (and a complaint) if there is none.
    pub(crate) fn text(&mut self, what: &str) -> Result<Option<Text<'a>>, Stop> {
        let shape = self.shape()?;
        if shape != Shape::Value {
            self.wrong_shape(what, "a single value", shape)?;
            return Ok(None);
        }
        let text = self.take_text()?;
        if text.is_null() {
            let message = format!("{what} has no value");
            let advice = "give it one, or remove it";
            self.note(text.at, ErrorKind::WrongShape, message, advice)?;
            return Ok(None);
        }
        Ok(Some(text))
    }

    /// A single value in the grammar of `parse`.
    pub(crate) fn parsed<T>(
        &mut self,
        what: &str,
        parse: impl FnOnce(&str) -> Result<T, Complaint>,
    ) -> Result<Option<(T, Place)>, Stop> {
        let Some(text) = self.text(what)? else {
            return Ok(None);
        };
        match parse(&text.value) {
            Ok(value) => Ok(Some((value, text.at))),
            Err(complaint) => {
                self.log.note(Some(text.at), complaint)?;
                Ok(None)
            }
        }
    }

    pub(crate) fn shape(&mut self) -> Result<Shape, Stop> {
        Ok(match self.peek()?.0 {
            Event::MappingStart(..) => Shape::Map,
            Event::SequenceStart(..) => Shape::List,
            _ => Shape::Value,
        })
    }

    /// Where the next value begins.
    pub(crate) fn place(&mut self) -> Result<Place, Stop> {
        Ok(self.peek()?.1)
    }

    pub(crate) fn note(
        &mut self,
        at: Place,
        kind: ErrorKind,
        what: impl Into<String>,
        advice: impl Into<String>,
    ) -> Result<(), Stop> {
        self.log.note(Some(at), Complaint::new(kind, what, advice))
    }

    /// Complains about the next value, and steps over it.
    pub(crate) fn wrong_shape(
        &mut self,
        what: &str,
        expected: &str,
        seen: Shape,
    ) -> Result<(), Stop> {
        let seen = match seen {
            Shape::Value => "a single value",
            Shape::List => "a list",
            Shape::Map => "a map",
        };
        let at = self.peek()?.1;
        let message = format!("{what} is {expected}, and this is {seen}");
        let advice = format!("write {expected} here; docs/policy-file.md has examples");
        self.note(at, ErrorKind::WrongShape, message, advice)?;
        self.skip()
    }

    fn map(
        &mut self,
        what: &str,
        mut each: impl FnMut(&mut Self, Text<'a>) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        match self.shape()? {
            Shape::Map => {}
            Shape::List => return self.wrong_shape(what, "a map", Shape::List),
            Shape::Value => {
                let text = self.take_text()?;
                if text.is_null() {
                    return Ok(());
                }
                let message = format!(
                    "{what} is a map, and this is the value {}",
                    quoted(&text.value)
                );
                let advice = "write `key: value` pairs, indented under it or in { }";
                return self.note(text.at, ErrorKind::WrongShape, message, advice);
            }
        }
        self.next()?;
        while !matches!(self.peek()?.0, Event::MappingEnd) {
            let shape = self.shape()?;
            if shape != Shape::Value {
                self.wrong_shape("a key", "a single value", shape)?;
                self.skip()?;
                continue;
            }
            let key = self.take_text()?;
            if key.plain && key.value == "<<" {
                self.refuse_anchor(key.at, "a merge key")?;
                self.skip()?;
                continue;
            }
            each(self, key)?;
        }
        self.next()?;
        Ok(())
    }

    /// Steps over a whole value.
    fn skip(&mut self) -> Result<(), Stop> {
        let mut open = 0usize;
        loop {
            match self.next()?.0 {
                Event::MappingStart(..) | Event::SequenceStart(..) => open += 1,
                Event::MappingEnd | Event::SequenceEnd => open -= 1,
                _ => {}
            }
            if open == 0 {
                return Ok(());
            }
        }
    }

    fn unknown_field(
        &mut self,
        what: &str,
        fields: &'static [&'static str],
        key: &Text<'a>,
    ) -> Result<(), Stop> {
        let message = format!("{what} has no field {}", quoted(&key.value));
        let advice = suggestion(&key.value, "fields", fields.iter().copied());
        self.note(key.at, ErrorKind::UnknownField, message, advice)
    }

    fn duplicate_key(&mut self, key: &Text<'a>, first: Option<Place>) -> Result<(), Stop> {
        let message = format!("{} stands here twice", quoted(&key.value));
        let advice = match first {
            Some(first) => format!(
                "the first is in line {}; rename or remove one",
                first.line()
            ),
            None => "remove one of them".to_owned(),
        };
        self.note(key.at, ErrorKind::DuplicateKey, message, advice)
    }

    fn take_text(&mut self) -> Result<Text<'a>, Stop> {
        match self.next()? {
            (Event::Scalar(value, style, ..), at) => Ok(Text {
                value,
                at,
                plain: style == ScalarStyle::Plain,
            }),
            (_, at) => {
                let advice = "check the brackets and the indentation around this place";
                self.note(at, ErrorKind::Syntax, "a value is missing here", advice)?;
                Err(Stop)
            }
        }
    }

    fn peek(&mut self) -> Result<&(Event<'a>, Place), Stop> {
        if self.ahead.is_none() {
            self.ahead = Some(self.pull()?);
        }
        Ok(self.ahead.as_ref().expect("it was just filled"))
    }

    fn next(&mut self) -> Result<(Event<'a>, Place), Stop> {
        match self.ahead.take() {
            Some(next) => Ok(next),
            None => self.pull(),
        }
    }

    /// The one place where events come from; refuses what is refused everywhere.
    fn pull(&mut self) -> Result<(Event<'a>, Place), Stop> {
        let (event, span) = match self.parser.next_event() {
            Some(Ok(next)) => next,
            Some(Err(error)) => return Err(self.syntax_error(&error)),
            None => return Ok((Event::StreamEnd, Place::default())),
        };
        let at = place(span);
        let (anchor, tagged) = match &event {
            Event::Scalar(_, _, anchor, tag) => (*anchor, tag.is_some()),
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => {
                self.depth += 1;
                (*anchor, tag.is_some())
            }
            Event::SequenceEnd | Event::MappingEnd => {
                self.depth -= 1;
                (0, false)
            }
            Event::Alias(_) => {
                self.refuse_anchor(at, "an alias")?;
                return Err(Stop);
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => (0, false),
        };
        if anchor != 0 {
            self.refuse_anchor(at, "an anchor")?;
            return Err(Stop);
        }
        if tagged {
            let advice = "remove the word that begins with `!`; quote a text that begins so";
            self.note(at, ErrorKind::Tag, "a YAML tag stands before this", advice)?;
            return Err(Stop);
        }
        if self.depth > MAX_DEPTH {
            let what = format!("more than {MAX_DEPTH} lists and maps inside one another");
            let advice = "check the brackets and the indentation around this place";
            self.note(at, ErrorKind::TooDeep, what, advice)?;
            return Err(Stop);
        }
        Ok((event, at))
    }

    fn refuse_anchor(&mut self, at: Place, what: &str) -> Result<(), Stop> {
        let what = format!("{what} of YAML is refused");
        let advice = "write the values out (groups and address groups are there to share them); quote a text that begins with `*` or `&`";
        self.note(at, ErrorKind::Anchor, what, advice)
    }

    fn syntax_error(&mut self, error: &ScanError) -> Stop {
        let mark = error.marker();
        let at = place(Span::empty(*mark));
        let info = error.info();
        let advice = if info.contains("unknown anchor") {
            "quote a text that begins with `*`"
        } else if info.contains("tab") {
            "indent with spaces"
        } else {
            "check the indentation, brackets and quotes here and in the lines above; quote texts with `: `, `#` or `*`"
        };
        let complaint = Complaint::new(ErrorKind::Syntax, format!("not YAML: {info}"), advice);
        // Reading ends here in any case.
        let _ = self.log.note(Some(at), complaint);
        Stop
    }
}

/// Text of several lines is pointed at by its first character.
fn place(span: Span) -> Place {
    let one_line = span.start.line() == span.end.line();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place {
        position: Position {
            line: count(span.start.line().max(1)),
            column: count(span.start.col() + 1),
        },
        width: if one_line { count(span.len()) } else { 1 },
    }
}

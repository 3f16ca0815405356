//! What is wrong in a policy file, where, and what to do about it.

use std::fmt;

/// A place in the file, both counted from 1; the column in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Everything found wrong in one file, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Errors {
    pub file: String,
    pub errors: Vec<Error>,
    /// There are more: reading stopped at [`crate::MAX_ERRORS`].
    pub more: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub kind: ErrorKind,
    /// `None` where the file as a whole is meant.
    pub position: Option<Position>,
    pub what: String,
    /// What to do; may be empty.
    pub advice: String,
    /// The offending line, perhaps cut, and where in it to point.
    pub excerpt: Option<Excerpt>,
}

/// A line of the file that fits a terminal, with the part to point at (in characters).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    pub text: String,
    pub start: usize,
    pub width: usize,
}

macro_rules! error_kinds {
    ($($variant:ident $name:literal $meaning:literal,)+) => {
        /// The classes of errors. Names are stable: scripts may use them (docs/policy-file.md).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorKind { $(#[doc = $meaning] $variant,)+ }

        impl ErrorKind {
            pub const ALL: &'static [ErrorKind] = &[$(ErrorKind::$variant,)+];

            pub fn name(self) -> &'static str {
                match self { $(ErrorKind::$variant => $name,)+ }
            }

            /// One sentence for people.
            pub fn meaning(self) -> &'static str {
                match self { $(ErrorKind::$variant => $meaning,)+ }
            }
        }
    };
}

error_kinds! {
    NotUtf8 "not-utf8" "The file is not UTF-8 text.",
    TooLarge "too-large" "The file is over 64 MiB.",
    Empty "empty" "The file holds nothing but comments.",
    Syntax "syntax" "The file is not YAML: a bracket or quote that isn't closed, a wrong indent, a tab.",
    TooDeep "too-deep" "Lists and maps are nested deeper than any policy needs.",
    Anchor "anchor" "A YAML anchor, alias or merge key; they are refused because a few lines of them can stand for gigabytes.",
    Tag "tag" "A YAML tag such as `!!str`.",
    Documents "documents" "The file holds more than one YAML document.",
    Version "version" "`version` is not one that this program reads.",
    WrongShape "wrong-shape" "A map, a list or a single value stands where another of them belongs.",
    UnknownField "unknown-field" "A map has no field of this name.",
    MissingField "missing-field" "A field that is needed is not there.",
    DuplicateKey "duplicate-key" "The same key stands twice in one map.",
    BadName "bad-name" "A name is empty, too long, reserved, or has characters that names can't have.",
    BadValue "bad-value" "A field takes one of a few words, and this is none of them.",
    BadNumber "bad-number" "Not a number, or outside of the field's bounds.",
    BadAddress "bad-address" "Not an IP address or prefix, or one that can't be used here.",
    HostBits "host-bits" "Bits are set behind a prefix's length.",
    WrongFamily "wrong-family" "A rule joins things of IPv4 with things of IPv6 and could never match.",
    BadMac "bad-mac" "Not a MAC address, or one that no port can have.",
    BadDevice "bad-device" "Not a name that a network device can have.",
    BadInterfaceId "bad-iface-id" "Not an id that an interface of a switch can have.",
    DeviceTwice "device-twice" "A port has both `device` and `iface-id`.",
    BadProtocol "bad-protocol" "Not a protocol's name or number, or one that rules can't name.",
    BadIcmp "bad-icmp" "Not an ICMP type, or not one of the rule's family.",
    BadPorts "bad-ports" "Not a port or range of ports 0-65535, or a range that ends before it begins.",
    PortsWithoutProtocol "ports-without-protocol" "A rule has ports and no protocol that has ports.",
    BadEthertype "bad-ethertype" "Not an ethertype that can be let through.",
    Direction "direction" "A rule has neither `from` nor `to`, or both.",
    UnknownGroup "unknown-group" "No group (or, in a rule, address group) has this name.",
    UnknownNetwork "unknown-network" "No network has this name.",
    UnknownHost "unknown-host" "No host has this name.",
    DuplicateName "duplicate-name" "A group and an address group, or two rules of a group, have one name.",
    DuplicateMac "duplicate-mac" "Two ports of a network have one MAC.",
    DuplicateAddress "duplicate-address" "Two ports of a scope have one address.",
    DuplicateDevice "duplicate-device" "Two ports of a host have one device, or one `iface-id`.",
    DuplicateTag "duplicate-tag" "Two groups have one tag.",
    TooManyGroups "too-many-groups" "A port is in more than 10,000 groups.",
    TooManyRules "too-many-rules" "A rule's lists multiply to more than 10,000 rules, or the file's to more than 1,000,000.",
    TooManyValues "too-many-values" "A list is longer than it may be.",
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Errors {
    /// Writes one error as it is shown to people.
    fn write(&self, f: &mut fmt::Formatter<'_>, error: &Error) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if let Some(position) = error.position {
            write!(f, ":{position}")?;
        }
        write!(f, ": {} [{}]", error.what, error.kind)?;
        if let (Some(position), Some(excerpt)) = (error.position, &error.excerpt) {
            let number = position.line.to_string();
            let margin = number.len() + 2;
            write!(f, "\n  {number} | {}", excerpt.text)?;
            write!(f, "\n{:margin$} | {:start$}", "", "", start = excerpt.start)?;
            write!(f, "{}", "^".repeat(excerpt.width))?;
        }
        if !error.advice.is_empty() {
            write!(f, "\n  {}", error.advice)?;
        }
        Ok(())
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.errors.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            self.write(f, error)?;
        }
        if self.more {
            write!(f, "\n{}: there are more errors behind these", self.file)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// What a leaf of the grammar has against a text; the reader adds the place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) kind: ErrorKind,
    pub(crate) what: String,
    pub(crate) advice: String,
}

impl Complaint {
    pub(crate) fn new(kind: ErrorKind, what: impl Into<String>, advice: impl Into<String>) -> Self {
        let (what, advice) = (what.into(), advice.into());
        Self { kind, what, advice }
    }
}

/// A stretch of one line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) position: Position,
    /// Characters; 0 points at one character all the same.
    pub(crate) width: u32,
}

impl Place {
    pub(crate) fn line(self) -> u32 {
        self.position.line
    }
}

/// Reading can't go on, or needn't: what is wrong has been noted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop;

/// Collects complaints, with their places and lines.
pub(crate) struct Log<'a> {
    text: &'a str,
    errors: Vec<Error>,
    more: bool,
}

impl<'a> Log<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let errors = Vec::new();
        let more = false;
        Self { text, errors, more }
    }

    /// Stops the reading at the bound.
    pub(crate) fn note(&mut self, at: Option<Place>, complaint: Complaint) -> Result<(), Stop> {
        if self.errors.len() == crate::MAX_ERRORS {
            self.more = true;
            return Err(Stop);
        }
        let Complaint { kind, what, advice } = complaint;
        self.errors.push(Error {
            kind,
            position: at.map(|p| p.position),
            what,
            advice,
            excerpt: at.and_then(|p| excerpt(self.text, p)),
        });
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.errors.len()
    }

    pub(crate) fn into_errors(mut self, file: &str) -> Errors {
        self.errors.sort_by_key(|e| e.position);
        Errors {
            file: file.to_owned(),
            errors: self.errors,
            more: self.more,
        }
    }
}

/// Just behind a text.
pub(crate) fn end_of(text: &str) -> Place {
    let breaks = text.bytes().filter(|b| *b == b'\n').count();
    let last = text.rsplit('\n').next().unwrap_or_default();
    let count = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
    let position = Position {
        line: count(breaks),
        column: count(last.chars().count()),
    };
    Place { position, width: 1 }
}

/// Quotes a text of the file for a message: no control characters, and not too long.
pub(crate) fn quoted(text: &str) -> String {
    const MAX_CHARS: usize = 70;
    let mut out = String::from("`");
    for (i, c) in text.chars().enumerate() {
        if i == MAX_CHARS {
            out.push('…');
            break;
        }
        if c.is_control() || is_invisible(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out.push('`');
    out
}

/// The line, cut to what fits a terminal around the place, with what would garble one replaced.
fn excerpt(text: &str, at: Place) -> Option<Excerpt> {
    const MAX_CHARS: usize = 100;
    const BEFORE: usize = 50;
    let line = nth_line(text, at.line())?;
    let column = at.position.column.saturating_sub(1) as usize;
    let skipped = column.saturating_sub(BEFORE);
    let skipped = if skipped < BEFORE { 0 } else { skipped };
    let mut shown = String::new();
    if skipped > 0 {
        shown.push('…');
    }
    let mut rest = line.chars().skip(skipped);
    for c in rest.by_ref().take(MAX_CHARS) {
        shown.push(match c {
            '\t' => ' ',
            c if c.is_control() || is_invisible(c) => '\u{fffd}',
            c => c,
        });
    }
    if rest.next().is_some() {
        shown.push('…');
    }
    let length = shown.chars().count();
    let start = (column - skipped + usize::from(skipped > 0)).min(length);
    let width = (at.width as usize).clamp(1, (length - start).max(1));
    Some(Excerpt {
        text: shown,
        start,
        width,
    })
}

/// Line breaks are those of YAML.
fn nth_line(text: &str, number: u32) -> Option<&str> {
    let mut rest = text;
    for _ in 1..number {
        let end = rest.find(['\n', '\r'])?;
        let crlf = rest[end..].starts_with("\r\n");
        rest = &rest[end + 1 + usize::from(crlf)..];
    }
    let end = rest.find(['\n', '\r']).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// Characters that change how the text around them is shown, or show nothing.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

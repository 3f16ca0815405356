//! What the demo prints, and the one place where verdicts are counted.
//!
//! Knows nothing of: what is judged, and how it was seen.

use crate::failure::Failure;
use crate::output::{Columns, Tone, colourful};
use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

pub(crate) struct Report {
    acts: usize,
    verdicts: usize,
    unexpected: Vec<String>,
    colour: bool,
}

/// A table of verdicts: what was tried, what was expected, what was seen.
pub(crate) struct Rows(Columns);

impl Report {
    pub(crate) fn new() -> Self {
        Self {
            acts: 0,
            verdicts: 0,
            unexpected: Vec::new(),
            colour: colourful(),
        }
    }

    /// Every verdict of the demo comes by here; the tone to show what was seen in.
    pub(crate) fn verdict(
        &mut self,
        what: impl Display,
        expected: impl Display,
        seen: impl Display,
    ) -> Tone {
        self.verdicts += 1;
        let (expected, seen) = (expected.to_string(), seen.to_string());
        if expected == seen {
            return Tone::Good;
        }
        let told = format!("{what}: expected {expected}, seen {seen}");
        self.unexpected.push(told);
        Tone::Bad
    }

    /// A verdict that is a row of a table, too.
    pub(crate) fn row(
        &mut self,
        rows: &mut Rows,
        what: impl Display,
        expected: impl Display,
        seen: impl Display,
    ) {
        let tone = self.verdict(&what, &expected, &seen);
        rows.0.row([
            (what.to_string(), Tone::Plain),
            (expected.to_string(), Tone::Plain),
            (seen.to_string(), tone),
        ]);
    }

    /// A new act begins.
    pub(crate) fn act(&mut self, title: &str) -> Result<(), Failure> {
        self.acts += 1;
        let (on, off) = match self.colour {
            true => ("\x1b[1m", "\x1b[0m"),
            false => ("", ""),
        };
        print(&format!("\n{on}{}  {title}{off}\n", self.acts))
    }

    pub(crate) fn line(&self, text: impl Display) -> Result<(), Failure> {
        print(&indented(&text.to_string()))
    }

    pub(crate) fn table(&self, columns: &Columns) -> Result<(), Failure> {
        print(&indented(&columns.text()))
    }

    pub(crate) fn rows(&self, rows: &Rows) -> Result<(), Failure> {
        self.table(&rows.0)
    }

    /// The last words: what was not as expected, and the count.
    pub(crate) fn end(&self, took: Duration) -> Result<(), Failure> {
        let mut text = format!("\n{:.1} s\n", took.as_secs_f64());
        for told in &self.unexpected {
            text += &format!("not as expected: {told}\n");
        }
        let good = self.verdicts - self.unexpected.len();
        let (on, off) = match (self.colour, self.unexpected.is_empty()) {
            (false, _) => ("", ""),
            (true, true) => ("\x1b[1;32m", "\x1b[0m"),
            (true, false) => ("\x1b[1;31m", "\x1b[0m"),
        };
        let count = format!("{good} of {} verdicts as expected", self.verdicts);
        print(&format!("{text}{on}{count}{off}\n"))?;
        match self.unexpected.is_empty() {
            true => Ok(()),
            false => Err(Failure::No(String::new())),
        }
    }
}

impl Rows {
    pub(crate) fn new(what: &str) -> Self {
        Self(Columns::new(&[what, "EXPECTED", "SEEN"]))
    }
}

/// Of a duration that people read.
pub(crate) fn ms(time: Duration) -> String {
    format!("{:.0} ms", time.as_secs_f64() * 1e3)
}

fn indented(text: &str) -> String {
    let lines = text.lines().map(|line| match line {
        "" => "\n".to_owned(),
        line => format!("   {line}\n"),
    });
    lines.collect()
}

/// Who reads may stop; the demo then ends, and cleans up.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|e| Failure::System(format!("printing: {e}; the demo has ended early")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_verdict_that_is_not_as_expected_fails_the_demo() {
        let mut report = Report::new();
        assert_eq!(report.verdict("a", "passes", "passes"), Tone::Good);
        assert!(report.end(Duration::ZERO).is_ok());
        assert_eq!(report.verdict("b", "dropped", "passes"), Tone::Bad);
        assert!(matches!(report.end(Duration::ZERO), Err(Failure::No(_))));
        assert_eq!(report.unexpected, ["b: expected dropped, seen passes"]);
    }
}

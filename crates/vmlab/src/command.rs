//! Commands of the host, run to their end.

use crate::Failure;
use std::process::Command;

pub(crate) fn run(command: &mut Command) -> Result<(), Failure> {
    output(command).map(drop)
}

/// What it printed. A status other than 0 is a failure, with what it said.
pub(crate) fn output(command: &mut Command) -> Result<String, Failure> {
    let words = words(command);
    let result = command.output();
    let output = result.map_err(|error| Failure::new(format!("{words}: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(format!(
            "{words}: {}: {}",
            output.status,
            said.trim()
        )));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
    words.join(" ")
}

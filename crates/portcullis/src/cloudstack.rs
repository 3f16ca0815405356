//! In the place of CloudStack's `security_group.py`: one short process for each call of its agent.
//!
//! ```text
//! words -> command --+
//!                    +--> state -> inventory -> compile -> target -> the plane -> state's file, the script's logs
//! libvirt, devices --+
//! ```
//! Calls queue: one is at work at a time, and none while the script itself is. What a call says is in force when
//! it returns; one that fails says so in a line and leaves what was in force.
//! Place on the line: around it, at the operator's end.
//! Knows nothing of: what the words mean (the crate `cloudstack`), how verdicts are made.

mod adopt;
mod call;
mod config;
mod host;
mod libvirt;
mod original;
mod release;
mod watch;

pub(crate) use adopt::{Adopted, adopt, recover};
pub(crate) use config::{Config, PATH as CONFIG_PATH};
pub(crate) use host::{CloudHost, state_path};
pub(crate) use release::{Leaving, end_release, release};
pub(crate) use watch::watch;

use crate::failure::Failure;
use crate::logging;
use crate::output;
use call::Answer;
use cloudstack::arguments::{self, ArgumentError};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

/// Names under which the program is the script.
const NAMES: [&str; 2] = ["security_group.py", "security_group"];

/// Whether the program was started as the script.
pub(crate) fn is_script(program: Option<&OsStr>) -> bool {
    let name = program.map(Path::new).and_then(Path::file_name);
    name.is_some_and(|name| NAMES.iter().any(|known| *known == name))
}

/// As the script: its words, its exit codes, one line on standard error when something is wrong.
pub(crate) fn script(words: &[OsString]) -> ExitCode {
    tell(Config::read_given().map_err(Refusal::from), words)
}

pub(crate) fn answer(config: &Path, words: &[OsString]) -> ExitCode {
    tell(Config::read(config).map_err(Refusal::from), words)
}

fn tell(config: Result<Config, Refusal>, words: &[OsString]) -> ExitCode {
    match config.and_then(|config| ask(config, words)) {
        Ok(answer) => {
            if let Some(line) = answer.line {
                output::say(&format!("{line}\n"));
            }
            ExitCode::from(answer.code)
        }
        Err(Refusal { code, what }) => {
            let line: Vec<&str> = what.split_whitespace().collect();
            eprintln!("security groups: {}", line.join(" "));
            ExitCode::from(code)
        }
    }
}

/// A call that was not carried out; what was in force is.
struct Refusal {
    code: u8,
    what: String,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self {
            code: 1,
            what: failure.text(),
        }
    }
}

fn ask(config: Config, words: &[OsString]) -> Result<Answer, Refusal> {
    let words: Vec<String> = words
        .iter()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let command = arguments::parse(&words).map_err(|error| Refusal {
        code: match error {
            // As the script has it; the agent knows success and failure.
            ArgumentError::UnknownCommand(_) | ArgumentError::Value { .. } => 1,
            _ => 2,
        },
        what: error.to_string(),
    })?;
    logging::start_in(&config.log_file);
    let _call = tracing::info_span!("call", command = words[0]).entered();
    let host = CloudHost::enter(config)?;
    let answer = call::carry_out(&host, &command);
    if let Err(failure) = &answer {
        tracing::error!(error = %failure.text(), "refused");
    }
    Ok(answer?)
}

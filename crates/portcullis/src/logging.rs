//! Logs go to stderr: what commands answer is on stdout.

use clap::ValueEnum;
use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Mutex;
use tracing_subscriber::EnvFilter;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One line per event: time, level, message, fields.
    Text,
    /// One JSON object per line.
    Json,
}

/// For processes whose stderr somebody else reads: into a file that is there already, or can be made. Without
/// one nothing is logged.
pub(crate) fn start_in(file: &Path) {
    let options = OpenOptions::new().append(true).create(true).open(file);
    if let Ok(file) = options {
        let builder = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_writer(Mutex::new(file))
            .with_ansi(false)
            .with_target(false);
        builder.init();
    }
}

pub(crate) fn start(format: LogFormat, filter: EnvFilter) {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false);
    match format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

//! Logs go to stderr: what commands answer is on stdout.

use clap::{Args, ValueEnum};
use std::fs::OpenOptions;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Mutex;
use tracing_subscriber::EnvFilter;

/// Of commands that go on until they are stopped.
#[derive(Args, Clone, Debug)]
pub(crate) struct LogArgs {
    /// How the log looks
    #[arg(
        long,
        value_enum,
        default_value = "text",
        env = "PORTCULLIS_LOG_FORMAT"
    )]
    log_format: LogFormat,

    /// How much is logged: error, warn, info, debug (each device, samples of dropped packets), trace
    #[arg(
        long,
        value_name = "LEVEL",
        default_value = "info",
        env = "PORTCULLIS_LOG"
    )]
    log_level: EnvFilter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
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

pub(crate) fn start(args: LogArgs) {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(args.log_level)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false);
    match args.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

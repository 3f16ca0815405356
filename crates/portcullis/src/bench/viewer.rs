//! Who started the bench: sees how far it is, and may end it.

use anyhow::{Context, ensure};
use comfy_table::{Row, Table, presets};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::fmt::Display;
use std::io::{IsTerminal, stderr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) struct Viewer {
    /// Set by Ctrl-C and its kin: what is being measured ends, and what was built for it is removed.
    interrupted: Arc<AtomicBool>,
    /// What is being done has a line there, one at a time.
    terminal: bool,
}

impl Viewer {
    pub(super) fn new() -> anyhow::Result<Self> {
        let interrupted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&interrupted))
                .context("watching for signals")?;
        }
        Ok(Self {
            interrupted,
            terminal: stderr().is_terminal(),
        })
    }

    /// Something begins, unless it is all to end.
    pub(super) fn step(&self, what: impl Display) -> anyhow::Result<()> {
        ensure!(!self.is_interrupted(), "interrupted");
        if self.terminal {
            eprint!("\r\x1b[K{what} ...");
        }
        Ok(())
    }

    pub(super) fn show(&self, title: &str, table: &Table) {
        self.clear();
        println!("\n{title}\n{table}");
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

/// Columns, and no lines between them.
pub(super) fn table(header: impl Into<Row>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header);
    table
}

impl Drop for Viewer {
    fn drop(&mut self) {
        self.clear();
    }
}

//! What people do to a command that runs.

use std::process::{Child, Command};

/// Ctrl-C, to it alone.
pub(crate) fn interrupt(child: &Child) {
    let kill = format!("kill -INT {}", child.id());
    let killed = Command::new("sh").args(["-c", &kill]).status();
    assert!(killed.expect("there is a shell").success());
}

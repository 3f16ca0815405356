//! Every scenario, by the eBPF programs as the kernel has loaded them; and those of change once more,
//! with another process in control after each change.

mod common;
#[path = "common/loaded.rs"]
mod loaded;

use common::{every, exit};
use loaded::{Control, check_scenarios_under};
use std::process::ExitCode;

fn main() -> ExitCode {
    let stays = check_scenarios_under(Control::Stays, every);
    let restarts = check_scenarios_under(Control::Restarts, |s| &*s.file == "change.yaml");
    exit(stays && restarts)
}

//! Every scenario, by the eBPF programs as the kernel has loaded them; and those of flows that die and
//! come back once more, with another process in control after each change.

mod common;
#[path = "common/loaded.rs"]
mod loaded;

use common::{every, exit};
use loaded::{Control, check_scenarios_under};
use std::process::ExitCode;

fn main() -> ExitCode {
    let stays = check_scenarios_under(Control::Stays, every);
    let restarts = check_scenarios_under(Control::Restarts, |scenario| {
        ["revive", "comes back"]
            .iter()
            .any(|word| scenario.name.contains(word))
    });
    exit(stays && restarts)
}

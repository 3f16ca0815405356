//! Every scenario on the wire: exact frames through the Open vSwitch plane, on veths and taps.

mod common;
#[path = "common/switch.rs"]
mod switch;

use common::{check_scenarios, every};
use portcullis_conformance::scenario::DeviceKind;
use std::process::ExitCode;

fn main() -> ExitCode {
    let all = [DeviceKind::Veth, DeviceKind::Tap].map(|devices| {
        println!("\n{devices:?}, Open vSwitch");
        check_scenarios(every, move |ask| {
            switch::with_plane(devices, |wire| ask(wire))
        })
    });
    common::exit(all.iter().all(|good| *good))
}

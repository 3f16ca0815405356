//! The oracle's answer to every scenario.

mod common;

use model::Capabilities;
use portcullis_conformance::OracleJudge;
use portcullis_conformance::scenario::here;
use std::process::ExitCode;

fn main() -> ExitCode {
    common::check_every_scenario(|ask| {
        ask(&mut OracleJudge::new(here(), Capabilities::ALL).explaining());
    })
}

//! The oracle's answer to every scenario.

mod common;

use model::Capabilities;
use portcullis_conformance::OracleJudge;
use portcullis_conformance::scenario::here;
use std::process::ExitCode;

fn main() -> ExitCode {
    common::exit(common::check_scenarios(common::every, |ask| {
        ask(&mut OracleJudge::new(here(), Capabilities::ALL).explaining());
    }))
}

//! Every scenario, by the plane in memory that interprets a compiled view.

mod common;

use portcullis_conformance::ModelPlaneJudge;
use portcullis_conformance::scenario::here;
use std::process::ExitCode;

fn main() -> ExitCode {
    common::exit(common::check_scenarios(common::every, |ask| {
        ask(&mut ModelPlaneJudge::new(here()));
    }))
}

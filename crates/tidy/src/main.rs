//! Prints what is untidy in the repository that this was built from; exit status 1 if anything is.

use portcullis_tidy::{Repository, check};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let repository = match Repository::read(&root) {
        Ok(repository) => repository,
        Err(error) => {
            eprintln!("tidy: {error}");
            return ExitCode::from(2);
        }
    };
    let complaints = check(&repository);
    for complaint in &complaints {
        eprintln!("{complaint}");
    }
    match complaints.len() {
        0 => ExitCode::SUCCESS,
        count => {
            eprintln!("tidy: {count} complaints");
            ExitCode::FAILURE
        }
    }
}

//! The repository that these sources stand in is tidy.

use portcullis_tidy::{Repository, check};
use std::path::Path;

#[test]
fn nothing_to_complain_about() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let repository = Repository::read(&root).expect("the repository can be read");
    let complaints = check(&repository);
    let lines: Vec<String> = complaints.iter().map(|c| c.to_string()).collect();
    assert!(complaints.is_empty(), "\n{}", lines.join("\n"));
}

//! A policy that a document shows is one that `portcullis check` takes.

use model::HostId;
use portcullis_tidy::Repository;
use std::path::Path;

#[test]
fn policies_in_documents_are_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let repository = Repository::read(&root).expect("the repository can be read");
    let mut policies = 0;
    for (path, text) in &repository.texts {
        let ours = !path.contains('/') || path.starts_with("docs/");
        if !ours || !path.ends_with(".md") {
            continue;
        }
        for block in yaml_blocks(text).filter(|block| block.starts_with("version:")) {
            policies += 1;
            if let Err(errors) = policyfile::parse(block, path, &HostId::new("host-a")) {
                panic!("a policy in {path}:\n{errors}");
            }
        }
    }
    assert!(policies > 0, "the README shows one");
}

fn yaml_blocks(text: &str) -> impl Iterator<Item = &str> {
    let blocks = text.split("```yaml\n").skip(1);
    blocks.filter_map(|rest| rest.split("\n```").next())
}

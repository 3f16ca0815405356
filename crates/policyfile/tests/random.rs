//! Whatever the bytes, there is an answer, and the same one twice.

use portcullis_policyfile::parse_bytes;
use proptest::prelude::*;
use std::path::Path;

fn answers(bytes: &[u8]) {
    let host = "here".into();
    let first = parse_bytes(bytes, "random.yaml", &host);
    assert_eq!(first, parse_bytes(bytes, "random.yaml", &host));
    if let Err(errors) = first {
        assert!(!errors.errors.is_empty());
        assert!(errors.to_string().starts_with("random.yaml"));
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files: Vec<_> = ["examples", "fuzz/corpus/policyfile"]
        .iter()
        .flat_map(|folder| root.join(folder).read_dir().expect("a folder"))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.sort();
    let files: Vec<_> = files
        .iter()
        .map(|f| std::fs::read(f).expect("a file"))
        .collect();
    assert!(files.len() > 10);
    files
}

/// Pieces of the grammar, so that random files get past its first lines.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "version: 1\n",
        "ports:",
        "groups:",
        "networks:",
        "rules:",
        "- ",
        "from: ",
        "to: ",
        "any",
        "protocol: ",
        "icmp ",
        "3/4",
        "tcp",
        "ports: ",
        "8000-80",
        "{ ",
        " }",
        "[",
        "]",
        ", ",
        ": ",
        "\n",
        "\n  ",
        "\n    ",
        "mac: 52:54:00:00:00:01",
        "addresses: ",
        "10.0.0.1",
        "fd00::/8",
        "'",
        "\"",
        "\\u0000",
        "&a ",
        "*a",
        "<<: ",
        "!!str ",
        "|\n",
        "# ",
        "\t",
        "\r",
        "\0",
        "---\n",
        "...\n",
        "\u{feff}",
        "\u{85}",
        "\u{2028}",
        "é",
        "web",
        "? ",
    ];
    prop::sample::select(words.to_vec()).prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn random_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        answers(&bytes);
    }

    #[test]
    fn random_words_are_answered(words in prop::collection::vec(piece(), 0..60)) {
        answers(words.concat().as_bytes());
    }

    #[test]
    fn damaged_files_are_answered(
        pick in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), piece(), 0usize..9), 1..6),
        end in any::<prop::sample::Index>(),
    ) {
        let files = corpus();
        let mut bytes = files[pick.index(files.len())].clone();
        for (at, piece, gone) in edits {
            let at = at.index(bytes.len() + 1);
            let end = (at + gone).min(bytes.len());
            bytes.splice(at..end, piece.bytes());
        }
        answers(&bytes);
        answers(&bytes[..end.index(bytes.len() + 1)]);
    }
}

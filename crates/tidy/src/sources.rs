//! Sources, file by file: length, words that mean "not finished", paths of somebody's machine, and a
//! head on every crate.

use crate::repository::Repository;
use crate::{Complaint, complaint};

const MOST_LINES: usize = 800;

/// Taken apart here, so that this file isn't about itself.
const UNFINISHED: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("to", "do!"),
    concat!("unimplem", "ented!"),
];
const OF_A_MACHINE: [&str; 3] = [
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/wo", "rk/"),
];

const KINDS: [&str; 9] = [
    ".rs", ".c", ".h", ".md", ".toml", ".yaml", ".json", ".service", "Makefile",
];

pub(crate) fn check(repository: &Repository) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (path, text) in &repository.texts {
        let script = text.starts_with("#!/");
        if !script && !KINDS.iter().any(|kind| path.ends_with(kind)) {
            continue;
        }
        // What a fuzzer found is not ours to word.
        if path.starts_with("fuzz/corpus/") {
            continue;
        }
        complaints.extend(words(path, text));
        complaints.extend(length(path, text));
        complaints.extend(head(path, text));
    }
    complaints
}

fn words(path: &str, text: &str) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let place = || format!("{path}:{}", index + 1);
        for word in UNFINISHED.iter().filter(|word| has_word(line, word)) {
            complaints.push(complaint(
                place(),
                format!("`{word}`: finish it or drop it"),
            ));
        }
        for word in OF_A_MACHINE.iter().filter(|word| has_path(line, word)) {
            complaints.push(complaint(
                place(),
                format!("`{word}` is a path of one machine"),
            ));
        }
    }
    complaints
}

fn has_word(line: &str, word: &str) -> bool {
    let letter = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(letter) && (word.ends_with('!') || !after.is_some_and(letter))
    })
}

/// At the path's beginning: `/srv/x/work/y` isn't meant.
fn has_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "._-}".contains(c))
    })
}

fn length(path: &str, text: &str) -> Option<Complaint> {
    let code = [".rs", ".c", ".h"].iter().any(|kind| path.ends_with(kind));
    let lines = text.lines().count();
    (code && lines > MOST_LINES).then(|| {
        let text = format!("{lines} lines, more than {MOST_LINES}: split it by stage or by verb");
        complaint(path, text)
    })
}

/// A crate says what it is for before anything else.
fn head(path: &str, text: &str) -> Option<Complaint> {
    let root = path.starts_with("crates/")
        && (path.ends_with("/src/lib.rs") || path.ends_with("/src/main.rs"));
    (root && !text.starts_with("//! "))
        .then(|| complaint(path, "no head: begin with `//!` and the crate's purpose"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_text(path: &str, text: &str, expected: usize) {
        let mut repository = Repository::default();
        repository.texts.insert(path.to_owned(), text.to_owned());
        let complaints = check(&repository);
        assert_eq!(complaints.len(), expected, "{text}: {complaints:?}");
    }

    #[test]
    fn what_is_not_finished_is_found_as_a_word() {
        for word in UNFINISHED {
            check_text("crates/a/src/b.rs", &format!("// {word}: later"), 1);
        }
        check_text("crates/a/src/b.rs", "let mutatodo = 1; // XXXL", 0);
    }

    #[test]
    fn paths_of_a_machine_are_found_at_their_beginning() {
        for path in OF_A_MACHINE {
            check_text("docs/x.md", &format!("look into {path}main"), 1);
            check_text("docs/x.md", &format!("look into /srv{path}main"), 0);
        }
    }

    #[test]
    fn a_file_has_one_idea() {
        check_text("crates/a/src/b.rs", &"x\n".repeat(MOST_LINES), 0);
        check_text("crates/a/src/b.rs", &"x\n".repeat(MOST_LINES + 1), 1);
        check_text("docs/x.md", &"x\n".repeat(MOST_LINES + 1), 0);
    }

    #[test]
    fn a_crate_has_a_head() {
        check_text("crates/a/src/lib.rs", "//! Does a.\n", 0);
        check_text("crates/a/src/lib.rs", "mod b;\n", 1);
    }
}

//! A file that no `mod` reaches compiles never and tests nothing, and looks as if it did.

use crate::repository::Repository;
use crate::{Complaint, complaint};
use std::collections::BTreeSet;

pub(crate) fn check(repository: &Repository) -> Vec<Complaint> {
    let mut reached = BTreeSet::new();
    for root in repository
        .packages
        .iter()
        .flat_map(|package| &package.roots)
    {
        reach(repository, root, true, &mut reached);
    }
    // Not in the workspace, so cargo doesn't tell: its manifest names each target's file.
    for root in fuzz_targets(repository.text("fuzz/Cargo.toml")) {
        reach(repository, &root, true, &mut reached);
    }
    let rust = |path: &&String| {
        path.ends_with(".rs") && (path.starts_with("crates/") || path.starts_with("fuzz/"))
    };
    let files = repository.files.iter().filter(rust);
    files
        .filter(|path| !reached.contains(*path))
        .map(|path| complaint(path, "no `mod` leads to this file"))
        .collect()
}

fn fuzz_targets(manifest: &str) -> Vec<String> {
    let files = manifest.lines().filter_map(|line| {
        let file = line.strip_prefix("path = \"")?.strip_suffix('"')?;
        Some(format!("fuzz/{file}"))
    });
    files.collect()
}

/// `is_root`: the file's modules are its neighbours; else they are in a directory of its name.
fn reach(repository: &Repository, path: &str, is_root: bool, reached: &mut BTreeSet<String>) {
    if !repository.files.contains(path) || !reached.insert(path.to_owned()) {
        return;
    }
    let (directory, file) = path.rsplit_once('/').expect("below crates/");
    let stem = file.strip_suffix(".rs").unwrap_or(file);
    let home = if is_root || stem == "mod" {
        directory.to_owned()
    } else {
        format!("{directory}/{stem}")
    };
    for module in modules(repository.text(path)) {
        match module {
            Module::Named(name) => {
                reach(repository, &format!("{home}/{name}.rs"), false, reached);
                reach(repository, &format!("{home}/{name}/mod.rs"), false, reached);
            }
            // A file in place of a module's body, or of some lines: its own modules are beside it.
            Module::At(file) => reach(repository, &join(directory, &file), true, reached),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Module {
    Named(String),
    At(String),
}

/// Line by line, as rustfmt sets them: `mod x;` with whatever visibility, inside `mod y { }` too,
/// `#[path = "..."]` before it, `include!("...rs")`.
fn modules(text: &str) -> Vec<Module> {
    let mut found = Vec::new();
    let mut path = None;
    // Modules whose braces are open, with the indentation that closes them.
    let mut around: Vec<(usize, String)> = Vec::new();
    for line in text.lines() {
        let indentation = line.len() - line.trim_start().len();
        let line = line.trim();
        if around
            .last()
            .is_some_and(|(closing, _)| *closing == indentation)
            && line == "}"
        {
            around.pop();
        } else if let Some(rest) = line.strip_prefix("#[path = \"") {
            path = rest.split('"').next().map(str::to_owned);
        } else if let Some((_, rest)) = line.split_once("include!(\"") {
            found.extend(
                rest.split('"')
                    .next()
                    .map(|file| Module::At(file.to_owned())),
            );
        } else if let Some(name) = declared(line, ";") {
            let outer: String = around.iter().map(|(_, name)| format!("{name}/")).collect();
            let named = Module::Named(format!("{outer}{name}"));
            found.push(path.take().map_or(named, Module::At));
        } else if let Some(name) = declared(line, " {") {
            around.push((indentation, name));
        }
    }
    found
}

/// The name in `pub(...) mod name` with this end.
fn declared(line: &str, end: &str) -> Option<String> {
    let line = match line.strip_prefix("pub") {
        Some(rest) => {
            rest.split_once("mod ")
                .filter(|(visibility, _)| {
                    let visibility = visibility.trim();
                    visibility.is_empty()
                        || visibility.starts_with('(') && visibility.ends_with(')')
                })?
                .1
        }
        None => line.strip_prefix("mod ")?,
    };
    let name = line.strip_suffix(end)?;
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    name.chars().all(is_name).then(|| name.to_owned())
}

fn join(directory: &str, file: &str) -> String {
    let mut parts: Vec<&str> = directory.split('/').collect();
    for part in file.split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repository::Package;

    fn check_files(files: &[(&str, &str)], expected: &[&str]) {
        let mut repository = Repository::default();
        for (path, text) in files {
            repository.files.insert(path.to_string());
            repository.texts.insert(path.to_string(), text.to_string());
        }
        repository.packages.push(Package {
            roots: vec!["crates/a/src/lib.rs".to_owned()],
            ..Package::default()
        });
        let places: Vec<String> = check(&repository).into_iter().map(|c| c.place).collect();
        assert_eq!(places, expected);
    }

    #[test]
    fn modules_lead_from_the_root_down() {
        check_files(
            &[
                ("crates/a/src/lib.rs", "mod b;\npub(crate) mod c;\n"),
                ("crates/a/src/b.rs", "#[cfg(test)]\nmod tests;\n"),
                ("crates/a/src/b/tests.rs", ""),
                ("crates/a/src/c/mod.rs", "pub mod d;"),
                ("crates/a/src/c/d.rs", ""),
            ],
            &[],
        );
    }

    #[test]
    fn a_file_that_is_not_declared_is_found() {
        check_files(
            &[
                ("crates/a/src/lib.rs", "// mod b;\nmod c { }\n"),
                ("crates/a/src/b.rs", ""),
                ("crates/a/src/c.rs", ""),
            ],
            &["crates/a/src/b.rs", "crates/a/src/c.rs"],
        );
    }

    #[test]
    fn a_module_in_braces_has_its_modules_in_a_directory_of_its_name() {
        check_files(
            &[
                ("crates/a/src/lib.rs", "mod b {\n    mod c;\n}\nmod d;\n"),
                ("crates/a/src/b/c.rs", ""),
                ("crates/a/src/d.rs", ""),
            ],
            &[],
        );
    }

    #[test]
    fn a_path_attribute_and_an_include_lead_to_their_files() {
        check_files(
            &[
                (
                    "crates/a/src/lib.rs",
                    "#[path = \"../shared/b.rs\"]\nmod x;\ninclude!(\"c.rs\");\n",
                ),
                ("crates/a/shared/b.rs", ""),
                ("crates/a/src/c.rs", ""),
            ],
            &[],
        );
    }

    #[test]
    fn a_fuzz_target_must_be_in_its_manifest() {
        check_files(
            &[
                ("crates/a/src/lib.rs", ""),
                ("fuzz/Cargo.toml", "path = \"fuzz_targets/one.rs\""),
                (
                    "fuzz/fuzz_targets/one.rs",
                    "#[path = \"../checks/one.rs\"]\nmod checks;",
                ),
                ("fuzz/checks/one.rs", ""),
                ("fuzz/fuzz_targets/two.rs", ""),
            ],
            &["fuzz/fuzz_targets/two.rs"],
        );
    }
}

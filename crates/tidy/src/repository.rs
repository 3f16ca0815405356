//! Reads what the checks look at: the texts of the tree, and what cargo knows of the workspace.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

/// Shape: paths are relative to the root, with `/`.
#[derive(Debug, Default)]
pub struct Repository {
    pub texts: BTreeMap<String, String>,
    /// All files, also those that are no text.
    pub files: BTreeSet<String>,
    pub packages: Vec<Package>,
}

/// A crate of the workspace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Package {
    /// The directory under `crates/`: what the crate is called in the project.
    pub name: String,
    /// Crates of the workspace that it is built on, tests aside.
    pub inside: BTreeSet<String>,
    /// Crates of others that it is built on, tests aside.
    pub outside: BTreeSet<String>,
    /// Where each of its targets begins: library, binaries, tests, build script.
    pub roots: Vec<String>,
}

/// Neither built things nor git's own.
const SKIPPED: [&str; 3] = ["target", ".git", "node_modules"];

impl Repository {
    pub fn read(root: &Path) -> io::Result<Self> {
        let root = root.canonicalize()?;
        let mut repository = Repository::default();
        read_directory(&root, "", &mut repository)?;
        repository.packages = packages(&root)?;
        Ok(repository)
    }

    /// Of a file that isn't there: nothing, and the checks complain about what they miss in it.
    pub fn text(&self, path: &str) -> &str {
        self.texts.get(path).map_or("", String::as_str)
    }
}

fn read_directory(root: &Path, below: &str, into: &mut Repository) -> io::Result<()> {
    for entry in fs::read_dir(root.join(below))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() {
            name.clone()
        } else {
            format!("{below}/{name}")
        };
        if entry.file_type()?.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                read_directory(root, &path, into)?;
            }
        } else {
            if let Ok(text) = String::from_utf8(fs::read(entry.path())?) {
                into.texts.insert(path.clone(), text);
            }
            into.files.insert(path);
        }
    }
    Ok(())
}

fn packages(root: &Path) -> io::Result<Vec<Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(root)
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!(
            "cargo metadata failed: {}",
            String::from_utf8_lossy(&output.stderr)
        )));
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let listed = metadata["packages"].as_array().expect("cargo lists them");
    Ok(listed.iter().map(|value| package(root, value)).collect())
}

fn package(root: &Path, value: &Value) -> Package {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let relative = |path: String| {
        let path = Path::new(&path).strip_prefix(root).map(Path::to_owned);
        path.expect("the workspace is below its root")
            .to_string_lossy()
            .into_owned()
    };
    let directory = |manifest: &str| {
        let parent = Path::new(manifest).parent().and_then(Path::file_name);
        parent
            .expect("a manifest is in a directory")
            .to_string_lossy()
            .into_owned()
    };
    let mut package = Package {
        name: directory(&text(&value["manifest_path"])),
        ..Package::default()
    };
    for dependency in value["dependencies"].as_array().into_iter().flatten() {
        if dependency["kind"] == "dev" {
            continue;
        }
        match dependency["path"].as_str() {
            Some(path) => {
                let manifest = format!("{path}/Cargo.toml");
                package.inside.insert(directory(&manifest));
            }
            None => {
                package.outside.insert(text(&dependency["name"]));
            }
        }
    }
    for target in value["targets"].as_array().into_iter().flatten() {
        package.roots.push(relative(text(&target["src_path"])));
    }
    package
}

//! OpenStack's command line client, as it is installed: nothing of it is ours.
//!
//! It is `$PORTCULLIS_OPENSTACK`, or in target/venv, where `make setup-test` puts it, or in the path.
//! Knows nothing of: what it is asked for.

use crate::failure::Failure;
use conformance::lab::Namespace;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Before the words of each request.
pub(crate) const HOW: [&str; 4] = [
    "--os-auth-type",
    "none",
    "--os-endpoint",
    "http://127.0.0.1:9696",
];

pub(crate) struct Client {
    program: PathBuf,
    host: Namespace,
}

impl Client {
    /// One that runs.
    pub(crate) fn find(host: &Namespace) -> Option<Self> {
        let named = std::env::var_os("PORTCULLIS_OPENSTACK").map(PathBuf::from);
        let built = std::env::current_dir().map(|here| here.join("target/venv/bin/openstack"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let in_path = std::env::split_paths(&path).map(|directory| directory.join("openstack"));
        let program = match named {
            Some(program) => Some(program),
            None => built.into_iter().chain(in_path).find(|path| path.exists()),
        };
        let client = Self {
            program: program?,
            host: host.clone(),
        };
        client.run(&["--version"]).is_ok().then_some(client)
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    /// The id of what these words make.
    pub(crate) fn make(&self, words: &str) -> Result<String, Failure> {
        let mut all = HOW.to_vec();
        all.extend(words.split(' '));
        all.extend(["-f", "value", "-c", "id"]);
        self.run(&all)
    }

    fn run(&self, words: &[&str]) -> Result<String, Failure> {
        let failed = |why: &str| {
            let words = words.join(" ");
            Failure::System(format!("demo: openstack {words}: {why}"))
        };
        let mut command = Command::new(&self.program);
        command.args(words);
        for (name, _) in std::env::vars_os() {
            // A cloud that the user works with is another one.
            if name.to_string_lossy().starts_with("OS_") {
                command.env_remove(name);
            }
        }
        let output = self.host.run(|| command.output());
        let output = output.map_err(|e| failed(&e.to_string()))?;
        match output.status.success() {
            true => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            false => Err(failed(String::from_utf8_lossy(&output.stderr).trim())),
        }
    }
}

//! A Keystone of the test's own: the real service, on the loopback, in a directory that goes with the test.

use crate::bed::{Bed, Certificate, Plan};
use crate::clients::{program, run};
use api::{Identity, Keystone, KeystoneSettings};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

pub(crate) struct Service {
    directory: TempDir,
    /// How long its tokens live.
    tokens_live: Duration,
    /// If it is asked by TLS.
    certificate: Option<Certificate>,
    port: u16,
    process: Option<(Child, BufReader<ChildStdout>)>,
}

/// By whom a server of ours asks it.
#[derive(Clone, Copy)]
pub(crate) struct Account {
    pub(crate) user: &'static str,
    pub(crate) password: &'static str,
}

pub(crate) const ACCOUNT: Account = Account {
    user: "portcullis",
    password: "portcullis's",
};

const AN_HOUR: Duration = Duration::from_secs(3600);

fn script(name: &str) -> PathBuf {
    let scripts = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/keystone/");
    PathBuf::from(format!("{scripts}{name}.py"))
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::start_with(AN_HOUR, None).await
    }

    pub(crate) async fn start_with(
        tokens_live: Duration,
        certificate: Option<Certificate>,
    ) -> Self {
        let mut service = Self {
            directory: tempfile::tempdir().expect("there is room"),
            tokens_live,
            certificate,
            port: 0,
            process: None,
        };
        service.spawn().await;
        service
    }

    /// Where it was before, with what it had.
    pub(crate) async fn restart(&mut self) {
        assert!(self.process.is_none(), "it was killed");
        self.spawn().await;
    }

    pub(crate) async fn kill(&mut self) {
        let (mut process, _) = self.process.take().expect("it runs");
        process.kill().await.expect("it is ours");
    }

    async fn spawn(&mut self) {
        let mut command = Command::new(program("python"));
        command.arg("-Wignore").arg(script("serve"));
        command.arg(self.directory.path());
        command.arg(self.port.to_string());
        command.arg(self.tokens_live.as_secs().to_string());
        if let Some(own) = &self.certificate {
            command.arg(&own.file).arg(&own.key);
        }
        let output = std::fs::File::create(self.directory.path().join("said"));
        command.stderr(output.expect("it is ours"));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut process = command.kill_on_drop(true).spawn().expect("it can be run");
        let mut said = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut line = String::new();
        said.read_line(&mut line).await.expect("it is text");
        let port = line.trim().strip_prefix("listens on ");
        let port = port.unwrap_or_else(|| panic!("Keystone doesn't start: {}", self.said()));
        self.port = port.parse().expect("it is a port");
        self.process = Some((process, said));
    }

    pub(crate) fn url(&self) -> String {
        let scheme = if self.certificate.is_some() {
            "https"
        } else {
            "http"
        };
        format!("{scheme}://localhost:{}/v3", self.port)
    }

    /// How often it was asked for a token, or whose one is.
    pub(crate) fn asked(&self) -> usize {
        let said = self.said();
        let about_tokens = |line: &&str| line.contains("/v3/auth/tokens HTTP/");
        said.lines().filter(about_tokens).count()
    }

    /// What it has said since it was started.
    fn said(&self) -> String {
        let said = std::fs::read_to_string(self.directory.path().join("said"));
        said.unwrap_or_default()
    }

    /// A server that asks it by the account, and takes its word. The catalog says where the server is.
    pub(crate) async fn bed(&self) -> Bed {
        let bed = self.bed_as(ACCOUNT).await;
        let mut people = Command::new(program("python"));
        people.arg("-Wignore").arg(script("people"));
        people
            .arg(self.url())
            .arg(format!("http://{}", bed.address));
        run(people).await.unwrap_or_else(|said| panic!("{said}"));
        bed
    }

    /// Another server; not in the catalog.
    pub(crate) async fn bed_as(&self, account: Account) -> Bed {
        self.bed_that_trusts(account, self.certificate.as_ref())
            .await
    }

    pub(crate) async fn bed_that_trusts(
        &self,
        account: Account,
        certificate: Option<&Certificate>,
    ) -> Bed {
        let settings = KeystoneSettings {
            auth_url: self.url(),
            user: account.user.into(),
            user_domain: "Default".into(),
            password: account.password.into(),
            project: "service".into(),
            project_domain: "Default".into(),
            ca_file: certificate.map(|certificate| certificate.file.clone()),
        };
        let keystone = Keystone::new(settings).expect("it is an address");
        let plan = Plan {
            identity: Identity::Keystone(Box::new(keystone)),
            ..Plan::default()
        };
        plan.start().await
    }

    /// A token as its user gets one.
    pub(crate) async fn token(&self, user: &str, project: &str) -> String {
        let scope = [
            "--os-project-name",
            project,
            "--os-project-domain-id",
            "default",
        ];
        self.issued(user, &scope).await
    }

    /// Of a user, for no project.
    pub(crate) async fn unscoped_token(&self, user: &str) -> String {
        self.issued(user, &[]).await
    }

    async fn issued(&self, user: &str, scope: &[&str]) -> String {
        let mut issue = self.openstack(user);
        issue
            .args(scope)
            .args(["token", "issue", "-f", "value", "-c", "id"]);
        let said = run(issue).await.unwrap_or_else(|said| panic!("{said}"));
        said.trim().to_owned()
    }

    pub(crate) async fn revoke(&self, token: &str, user: &str, project: &str) {
        let mut revoke = self.openstack(user);
        revoke.args([
            "--os-project-name",
            project,
            "--os-project-domain-id",
            "default",
        ]);
        revoke.args(["token", "revoke", token]);
        run(revoke).await.unwrap_or_else(|said| panic!("{said}"));
    }

    fn openstack(&self, user: &str) -> Command {
        let mut command = Command::new(program("openstack"));
        command.args(["--os-auth-type", "v3password", "--os-auth-url", &self.url()]);
        command.args(["--os-username", user, "--os-password", &format!("{user}'s")]);
        command.args(["--os-user-domain-id", "default", "--insecure"]);
        command
    }
}

pub(crate) fn driver() -> PathBuf {
    script("drive")
}

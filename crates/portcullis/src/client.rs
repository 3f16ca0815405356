//! A server's API, asked by the commands: one request at a time, and what went wrong in words.
//!
//! Knows nothing of: what is asked for.

use crate::failure::Failure;
use clap::Args;
use model::{HostId, Inventory};
use serde_json::Value;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body, RequestBuilder, http::Response};

/// The server that is asked.
#[derive(Args, Clone, Debug)]
pub(crate) struct ClientArgs {
    /// The server's API
    #[arg(long, value_name = "URL", default_value = USUAL, env = SERVER)]
    server: String,

    #[command(flatten)]
    access: AccessArgs,
}

/// For commands that ask this host unless told otherwise.
#[derive(Args, Clone, Debug)]
pub(crate) struct MaybeServerArgs {
    /// Ask this server, about the whole cluster: http://127.0.0.1:9696
    #[arg(long, value_name = "URL")]
    server: Option<String>,

    #[command(flatten)]
    access: AccessArgs,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct AccessArgs {
    /// Who we are: a file with a token [env: PORTCULLIS_TOKEN has the token itself]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,

    /// Who signs the server's certificate, where the usual authorities don't (PEM)
    #[arg(
        long = "ca",
        id = "server_ca",
        value_name = "FILE",
        env = "PORTCULLIS_CA"
    )]
    ca: Option<PathBuf>,
}

const USUAL: &str = "http://127.0.0.1:9696";
const SERVER: &str = "PORTCULLIS_SERVER";
const TOKEN: &str = "PORTCULLIS_TOKEN";
const CONNECTS: Duration = Duration::from_secs(30);
/// A server that has no answer in 60 s says so itself. One that doesn't is stuck.
const ANSWERS: Duration = Duration::from_secs(75);
/// A large policy takes a while to come.
const PATIENCE: Duration = Duration::from_secs(300);
const MOST_ANSWER_BYTES: u64 = 1 << 30;

pub(crate) struct Client {
    server: String,
    token: Option<String>,
    agent: Agent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Delete,
}

impl ClientArgs {
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Client::new(&self.server, &self.access)
    }
}

impl MaybeServerArgs {
    /// `None`: this host is meant.
    pub(crate) fn client(&self) -> Result<Option<Client>, Failure> {
        let server = self.server.as_ref();
        server
            .map(|server| Client::new(server, &self.access))
            .transpose()
    }
}

impl Client {
    fn new(server: &str, access: &AccessArgs) -> Result<Self, Failure> {
        Self::with(server, access, ANSWERS)
    }

    /// `answers`: the time in which an answer has to begin.
    fn with(server: &str, access: &AccessArgs, answers: Duration) -> Result<Self, Failure> {
        if !["http://", "https://"]
            .iter()
            .any(|scheme| server.starts_with(scheme))
        {
            return Err(Failure::Usage(format!(
                "the server {server:?} has to begin with http:// or https://"
            )));
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECTS))
            .timeout_send_body(Some(answers))
            .timeout_recv_response(Some(answers))
            .timeout_global(Some(PATIENCE))
            .user_agent(concat!("portcullis/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &access.ca {
            let roots = roots(path)?;
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Self {
            server: server.trim_end_matches('/').to_owned(),
            token: token(access)?,
            agent: config.build().into(),
        })
    }

    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// `path` with its query, from the slash on.
    pub(crate) fn ask(&self, verb: Verb, path: &str) -> Result<Value, Failure> {
        let bytes = self.bytes(verb, path)?;
        self.json(&bytes)
    }

    /// A policy, whole: however long it takes, since a server that is asked again goes on where it is. `None`: one of
    /// nothing.
    pub(crate) fn declare(&self, path: &str, policy: Option<&[u8]>) -> Result<Value, Failure> {
        let url = self.url(path);
        let ask = || match policy {
            Some(policy) => {
                let request = self.known(self.agent.post(&url));
                let request = request.header("content-type", "application/yaml");
                request.send(policy)
            }
            None => self.known(self.agent.delete(&url)).call(),
        };
        let begun = Instant::now();
        loop {
            let (status, body) = self.whole(ask())?;
            if status != 504 || kind(&body) != api::STILL_AT_IT {
                return self.json(&self.fine(status, body)?);
            }
            let server = &self.server;
            let seconds = begun.elapsed().as_secs();
            eprintln!("{server} is still at it after {seconds} s: a large policy takes a while");
        }
    }

    /// What all hosts together are told.
    pub(crate) fn inventory(&self) -> Result<Inventory, Failure> {
        let bytes = self.bytes(Verb::Get, "/portcullis/v1/inventory")?;
        let decoded = protocol::decode(&bytes);
        let (inventory, refused) =
            decoded.map_err(|e| Failure::System(format!("{}: {e}", self.server)))?;
        match refused.is_empty() {
            true => Ok(inventory),
            false => Err(Failure::System(format!(
                "{} is newer than this program, which doesn't understand {} objects of its policy",
                self.server,
                refused.len()
            ))),
        }
    }

    /// As it comes; in this time it has to begin.
    pub(crate) fn download(&self, path: &str, begins: Duration) -> Result<Response<Body>, Failure> {
        let request = self.known(self.agent.get(self.url(path))).config();
        let request = request.timeout_global(None).timeout_connect(Some(CONNECTS));
        let request = request.timeout_recv_response(Some(begins)).build();
        let mut answer = request.call().map_err(|error| self.unreachable(&error))?;
        match answer.status().as_u16() {
            200 => Ok(answer),
            status => {
                let body = answer.body_mut().read_to_vec();
                Err(self.refusal(status, &body.unwrap_or_default()))
            }
        }
    }

    fn bytes(&self, verb: Verb, path: &str) -> Result<Vec<u8>, Failure> {
        let url = self.url(path);
        let request = match verb {
            Verb::Get => self.agent.get(url),
            Verb::Delete => self.agent.delete(url),
        };
        let (status, body) = self.whole(self.known(request).call())?;
        self.fine(status, body)
    }

    /// With who we are.
    fn known<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.token {
            Some(token) => request.header("x-auth-token", token),
            None => request,
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    fn whole(
        &self,
        answer: Result<Response<Body>, ureq::Error>,
    ) -> Result<(u16, Vec<u8>), Failure> {
        let mut answer = answer.map_err(|error| self.unreachable(&error))?;
        let status = answer.status().as_u16();
        let body = answer.body_mut().with_config().limit(MOST_ANSWER_BYTES);
        let body = body
            .read_to_vec()
            .map_err(|error| self.unreachable(&error))?;
        Ok((status, body))
    }

    fn fine(&self, status: u16, body: Vec<u8>) -> Result<Vec<u8>, Failure> {
        match status {
            200..=299 => Ok(body),
            status => Err(self.refusal(status, &body)),
        }
    }

    fn json(&self, bytes: &[u8]) -> Result<Value, Failure> {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        let read = serde_json::from_slice(bytes);
        read.map_err(|e| Failure::System(format!("{} is no Portcullis server: {e}", self.server)))
    }

    fn unreachable(&self, error: &ureq::Error) -> Failure {
        let server = &self.server;
        Failure::System(match error {
            ureq::Error::Io(io) if io.kind() == std::io::ErrorKind::ConnectionRefused => {
                format!("nobody listens at {server}: is the server running, and is --server right?")
            }
            ureq::Error::Timeout(ureq::Timeout::Connect) => {
                format!(
                    "nobody answers at {server}: is it the right address, and is there a way to it?"
                )
            }
            ureq::Error::Timeout(_) => format!(
                "{server} took the question and gave no answer in time: the server hangs, or has too much to do. \
                 Whether it still does what was asked isn't known"
            ),
            ureq::Error::HostNotFound => format!("{server}: there is no such host"),
            error => format!("asking {server}: {error}"),
        })
    }

    fn refusal(&self, status: u16, body: &[u8]) -> Failure {
        let server = &self.server;
        let answer: Value = serde_json::from_slice(body).unwrap_or_default();
        let said = answer["NeutronError"]["message"]
            .as_str()
            .unwrap_or_default();
        let kind = kind(body);
        match status {
            401 => Failure::System(match self.token {
                Some(_) => format!("{server} doesn't know our token"),
                None => format!("{server} wants to know who we are: --token-file, or {TOKEN}"),
            }),
            403 => Failure::System(format!("{server} doesn't allow it: {said}")),
            400 if kind == "InvalidPolicy" => Failure::Policy(said.to_owned()),
            400..=499 if !said.is_empty() => Failure::No(said.to_owned()),
            _ if said.is_empty() => {
                Failure::System(format!("{server} answers with status {status}"))
            }
            _ => Failure::System(format!("{server}: {said}")),
        }
    }
}

/// Of a refusal.
fn kind(body: &[u8]) -> String {
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    let kind = answer["NeutronError"]["type"].as_str();
    kind.unwrap_or_default().to_owned()
}

fn token(access: &AccessArgs) -> Result<Option<String>, Failure> {
    let text = match &access.token_file {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|e| Failure::System(format!("reading {}: {e}", path.display())))?,
        None => std::env::var(TOKEN).unwrap_or_default(),
    };
    let token = text.trim();
    Ok((!token.is_empty()).then(|| token.to_owned()))
}

fn roots(path: &PathBuf) -> Result<RootCerts, Failure> {
    let wrong = |why: String| Failure::System(format!("{}: {why}", path.display()));
    let pem = std::fs::read(path).map_err(|e| wrong(e.to_string()))?;
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| wrong(e.to_string()))? {
            certificates.push(certificate);
        }
    }
    match certificates.is_empty() {
        true => Err(wrong("there is no certificate in it".to_owned())),
        false => Ok(RootCerts::new_with_certs(&certificates)),
    }
}

/// For queries: what isn't plain is written as its bytes.
pub(crate) fn escaped(text: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    let bytes = text.bytes();
    bytes
        .map(|b| match plain(&b) {
            true => char::from(b).to_string(),
            false => format!("%{b:02X}"),
        })
        .collect()
}

/// As the file would leave the server's policy, if nothing else were removed.
pub(crate) fn with_file(
    mut inventory: Inventory,
    bytes: &[u8],
    file: &str,
    host: &HostId,
) -> Result<Inventory, Failure> {
    let read = policyfile::parse_whole(bytes, file, host);
    let read = read
        .map_err(|errors| Failure::Policy(errors.to_string()))?
        .inventory;
    inventory.hosts.extend(read.hosts);
    inventory.networks.extend(read.networks);
    inventory.address_groups.extend(read.address_groups);
    inventory.groups.extend(read.groups);
    inventory.ports.extend(read.ports);
    Ok(inventory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;

    #[test]
    fn a_server_that_hangs_is_told_of() {
        // The kernel takes connections for it, as for a process that was stopped.
        let hangs = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = format!("http://{}", hangs.local_addr().expect("it is bound"));
        let access = AccessArgs {
            token_file: None,
            ca: None,
        };
        let answers = Duration::from_millis(100);
        let client = Client::with(&server, &access, answers).expect("an address");
        let large = vec![b' '; 16 << 20];
        for asked in [
            client.ask(Verb::Get, "/"),
            client.declare("/", Some(&large)),
        ] {
            let text = asked.expect_err("nobody answers").text();
            assert!(text.contains("gave no answer in time"), "{text}");
        }
    }

    #[test]
    fn a_policy_that_takes_long_is_asked_for_again() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let server = format!("http://{}", listener.local_addr().expect("it is bound"));
        let serving = std::thread::spawn(move || {
            let later = r#"{"NeutronError": {"type": "RequestGoesOn", "message": "later"}}"#;
            for (status, body) in [
                ("504 Gateway Timeout", later),
                ("200 OK", r#"{"objects": []}"#),
            ] {
                let (mut stream, _) = listener.accept().expect("it is asked");
                let mut asked = [0; 4096];
                let length = stream.read(&mut asked).expect("a request");
                assert!(asked[..length].starts_with(b"DELETE /policy "));
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
                )
                .expect("written");
            }
        });
        let access = AccessArgs {
            token_file: None,
            ca: None,
        };
        let client = Client::with(&server, &access, Duration::from_secs(10)).expect("an address");
        let done = client.declare("/policy", None).expect("it is done at last");
        assert_eq!(done, serde_json::json!({"objects": []}));
        serving.join().expect("it was asked twice");
    }
}

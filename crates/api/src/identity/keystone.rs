//! Keystone says who has a token: we ask it with a token of our own, and remember its answer for a short time.
//!
//! ```text
//! POST {auth_url}/v3/auth/tokens   our password                          -> X-Subject-Token: our token
//! GET  {auth_url}/v3/auth/tokens   X-Auth-Token: ours, X-Subject-Token   -> user, project, roles
//! ```
//! Invariants: a token is taken for at most `REMEMBERED` after Keystone said yes, and not after it ends; that is how
//! long a revoked one goes on. What isn't known is not remembered, so nobody fills the memory with guesses.

use super::highest;
use crate::fault::Fault;
use crate::{json, times};
use bytes::Bytes;
use control::Caller;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use model::ProjectId;
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tracing::{debug, warn};

#[derive(Clone, Debug)]
pub struct KeystoneSettings {
    /// With or without `/v3` at its end.
    pub auth_url: String,
    pub user: String,
    pub user_domain: String,
    pub password: String,
    pub project: String,
    pub project_domain: String,
    /// In PEM; the system's own without.
    pub ca_file: Option<PathBuf>,
}

pub struct Keystone {
    settings: KeystoneSettings,
    endpoint: Endpoint,
    tls: Option<TlsConnector>,
    known: Mutex<Known>,
    /// Our own token. Held while it is asked for, so that one asks for all.
    own: AsyncMutex<Option<String>>,
    asking: Semaphore,
}

#[derive(Debug, thiserror::Error)]
pub enum KeystoneError {
    #[error("{0} is no address of Keystone: http://host:port or https://host is expected")]
    Url(String),
    #[error("the certificates in {path} can't be used: {what}")]
    Certificates { path: PathBuf, what: String },
}

/// So long its word is taken for a token.
const REMEMBERED: Duration = Duration::from_secs(60);
const MOST_REMEMBERED: usize = 10_000;
const MOST_ASKING: usize = 16;
const PATIENCE: Duration = Duration::from_secs(10);
const MOST_ANSWER_BYTES: usize = 1 << 20;

struct Endpoint {
    host: String,
    port: u16,
    secure: bool,
    path: String,
}

/// Two hashes under secrets of this process stand for a token: memory that leaks shows none.
type Digest = (u64, u64);

struct Known {
    secrets: (RandomState, RandomState),
    callers: HashMap<Digest, (Caller, Instant)>,
}

struct Answer {
    status: StatusCode,
    subject: Option<String>,
    body: Bytes,
}

impl Keystone {
    pub fn new(settings: KeystoneSettings) -> Result<Self, KeystoneError> {
        let endpoint = Endpoint::of(&settings.auth_url)
            .ok_or_else(|| KeystoneError::Url(settings.auth_url.clone()))?;
        let tls = match endpoint.secure {
            true => Some(connector(settings.ca_file.as_ref())?),
            false => None,
        };
        Ok(Self {
            settings,
            endpoint,
            tls,
            known: Mutex::new(Known::new()),
            own: AsyncMutex::new(None),
            asking: Semaphore::new(MOST_ASKING),
        })
    }

    pub(super) async fn caller(&self, token: &str) -> Result<Caller, Fault> {
        if let Some(caller) = self.known().get(token, Instant::now()) {
            return Ok(caller);
        }
        let asked = timeout(PATIENCE, self.ask(token)).await;
        let said = match asked {
            Ok(Ok(said)) => said,
            Ok(Err(what)) => return Err(unavailable(&what)),
            Err(_) => return Err(unavailable("it does not answer")),
        };
        let (caller, for_how_long) = said.ok_or_else(Fault::unauthorized)?;
        let until = Instant::now() + for_how_long.min(REMEMBERED);
        self.known().put(token, caller.clone(), until);
        Ok(caller)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("nothing panics while it is held")
    }

    /// `None`: no token of anybody's.
    async fn ask(&self, token: &str) -> Result<Option<(Caller, Duration)>, String> {
        let _asking = self.asking.acquire().await.map_err(|e| e.to_string())?;
        let own = self.own_token(None).await?;
        let mut answer = self.validate(&own, token).await?;
        if answer.status == StatusCode::UNAUTHORIZED {
            // It is ours that isn't taken any more.
            let own = self.own_token(Some(&own)).await?;
            answer = self.validate(&own, token).await?;
        }
        match answer.status {
            StatusCode::OK => Ok(caller(&answer.body)),
            StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => Ok(None),
            other => Err(format!("it answers {other} when asked for a token")),
        }
    }

    async fn validate(&self, own: &str, token: &str) -> Result<Answer, String> {
        let headers = [("x-auth-token", own), ("x-subject-token", token)];
        self.call(Method::GET, &headers, Bytes::new()).await
    }

    /// `refused`: the one that was taken no more.
    async fn own_token(&self, refused: Option<&str>) -> Result<String, String> {
        let mut own = self.own.lock().await;
        match &*own {
            Some(token) if Some(token.as_str()) != refused => return Ok(token.clone()),
            Some(_) | None => *own = None,
        }
        let login = Bytes::from(self.login().to_string());
        let answer = self.call(Method::POST, &[], login).await?;
        let token = match (answer.status, answer.subject) {
            (StatusCode::CREATED | StatusCode::OK, Some(token)) => token,
            (status, _) => return Err(format!("it answers {status} to our own password")),
        };
        debug!("Keystone gave this server a token");
        *own = Some(token.clone());
        Ok(token)
    }

    fn login(&self) -> Value {
        let settings = &self.settings;
        json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": settings.user,
                "domain": {"name": settings.user_domain},
                "password": settings.password,
            }}},
            "scope": {"project": {
                "name": settings.project,
                "domain": {"name": settings.project_domain},
            }},
        }})
    }

    async fn call(
        &self,
        method: Method,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, String> {
        let endpoint = &self.endpoint;
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await;
        let stream = stream.map_err(|e| e.to_string())?;
        let request = self
            .request(method, headers, body)
            .map_err(|e| e.to_string())?;
        match &self.tls {
            None => exchange(stream, request).await,
            Some(tls) => {
                let name =
                    ServerName::try_from(endpoint.host.clone()).map_err(|e| e.to_string())?;
                let stream = tls.connect(name, stream).await.map_err(|e| e.to_string())?;
                exchange(stream, request).await
            }
        }
    }

    fn request(
        &self,
        method: Method,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let endpoint = &self.endpoint;
        let mut request = Request::builder()
            .method(method)
            .uri(&endpoint.path)
            .header("host", format!("{}:{}", endpoint.host, endpoint.port))
            .header("content-type", "application/json")
            .header("accept", "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(body))
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|e| e.to_string())?;
    // Ends with the sender: one request per connection.
    tokio::spawn(connection);
    let answer = sender
        .send_request(request)
        .await
        .map_err(|e| e.to_string())?;
    let status = answer.status();
    let subject = answer.headers().get("x-subject-token");
    let subject = subject
        .and_then(|token| token.to_str().ok())
        .map(str::to_owned);
    let body = Limited::new(answer.into_body(), MOST_ANSWER_BYTES)
        .collect()
        .await;
    Ok(Answer {
        status,
        subject,
        body: body.map_err(|e| e.to_string())?.to_bytes(),
    })
}

/// What Keystone says of a token: a token of a project, with a role of ours, or of nobody.
fn caller(body: &[u8]) -> Option<(Caller, Duration)> {
    let token = json::read(body).ok()?;
    let token = token.get("token")?;
    let roles = token.get("roles")?.as_array()?;
    let roles = roles.iter().filter_map(|role| role.get("name")?.as_str());
    let project = token.get("project")?.get("id")?.as_str()?;
    let caller = Caller {
        user: token.get("user")?.get("id")?.as_str()?.to_owned(),
        project: ProjectId::from(control::ids::is_id(project).then_some(project)?),
        role: highest(roles)?,
    };
    let ends = times::read(token.get("expires_at")?.as_str()?)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    let left = ends.checked_sub(now).filter(|left| *left > 0)?;
    Some((caller, Duration::from_secs(left)))
}

/// The caller isn't at fault. Why is for the log.
fn unavailable(what: &str) -> Fault {
    warn!(what, "Keystone can't be asked: nobody new is let in");
    Fault::unavailable("The identity service can't be asked.")
}

fn connector(ca_file: Option<&PathBuf>) -> Result<TlsConnector, KeystoneError> {
    let mut roots = RootCertStore::empty();
    let wrong = |what: String| KeystoneError::Certificates {
        path: ca_file
            .cloned()
            .unwrap_or_else(|| "the system's store".into()),
        what,
    };
    let certificates = match ca_file {
        Some(path) => {
            let all = CertificateDer::pem_file_iter(path).map_err(|e| wrong(e.to_string()))?;
            all.collect::<Result<Vec<_>, _>>()
                .map_err(|e| wrong(e.to_string()))?
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(certificates);
    if roots.is_empty() {
        return Err(wrong("there is none".into()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|e| wrong(e.to_string()))?;
    let config = config.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Endpoint {
    fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let secure = match uri.scheme_str()? {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix("/v3").unwrap_or(path);
        Some(Self {
            host: uri.host()?.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            secure,
            path: format!("{path}/v3/auth/tokens"),
        })
    }
}

impl Known {
    fn new() -> Self {
        Self {
            secrets: Default::default(),
            callers: HashMap::new(),
        }
    }

    fn digest(&self, token: &str) -> Digest {
        let hash = |secret: &RandomState| {
            let mut hasher = secret.build_hasher();
            hasher.write(token.as_bytes());
            hasher.finish()
        };
        (hash(&self.secrets.0), hash(&self.secrets.1))
    }

    fn get(&self, token: &str, now: Instant) -> Option<Caller> {
        let (caller, until) = self.callers.get(&self.digest(token))?;
        (now < *until).then(|| caller.clone())
    }

    /// Once it is full, what has ended goes; and all, if nothing has.
    fn put(&mut self, token: &str, caller: Caller, until: Instant) {
        if self.callers.len() >= MOST_REMEMBERED {
            let now = Instant::now();
            self.callers.retain(|_, (_, until)| now < *until);
            if self.callers.len() >= MOST_REMEMBERED {
                self.callers.clear();
            }
        }
        let digest = self.digest(token);
        self.callers.insert(digest, (caller, until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::Role;

    fn endpoint(url: &str, expected: Option<(&str, u16, bool, &str)>) {
        let got = Endpoint::of(url);
        let got = got
            .as_ref()
            .map(|e| (e.host.as_str(), e.port, e.secure, e.path.as_str()));
        assert_eq!(got, expected, "{url}");
    }

    #[test]
    fn keystone_is_at_its_address() {
        endpoint(
            "http://k:5000/v3",
            Some(("k", 5000, false, "/v3/auth/tokens")),
        );
        endpoint(
            "https://k/identity/",
            Some(("k", 443, true, "/identity/v3/auth/tokens")),
        );
        endpoint(
            "http://[::1]:5000",
            Some(("::1", 5000, false, "/v3/auth/tokens")),
        );
        endpoint("ftp://k", None);
        endpoint("k:5000", None);
    }

    #[test]
    fn what_keystone_says_is_a_caller_or_nobody() {
        let said = |token: Value| caller(json!({ "token": token }).to_string().as_bytes());
        let full = json!({
            "user": {"id": "u"}, "project": {"id": "p"}, "roles": [{"name": "member"}],
            "expires_at": "2999-01-01T00:00:00.000000Z",
        });
        let (who, _) = said(full.clone()).expect("it is a caller");
        assert_eq!((who.user.as_str(), who.role), ("u", Role::Member));
        for missing in ["user", "project", "roles", "expires_at"] {
            let mut token = full.clone();
            token
                .as_object_mut()
                .expect("it is an object")
                .remove(missing);
            assert!(said(token).is_none(), "{missing}");
        }
        let mut ended = full;
        ended["expires_at"] = "2000-01-01T00:00:00Z".into();
        assert!(said(ended).is_none());
    }

    #[test]
    fn what_is_remembered_is_bounded_and_ends() {
        let who = Caller {
            user: "u".into(),
            project: "p".into(),
            role: Role::Reader,
        };
        let now = Instant::now();
        let mut known = Known::new();
        for token in 0..MOST_REMEMBERED * 2 + 1 {
            known.put(&token.to_string(), who.clone(), now + REMEMBERED);
            assert!(known.callers.len() <= MOST_REMEMBERED);
        }
        let last = (MOST_REMEMBERED * 2).to_string();
        assert_eq!(known.get(&last, now), Some(who));
        assert_eq!(known.get(&last, now + REMEMBERED), None);
    }
}

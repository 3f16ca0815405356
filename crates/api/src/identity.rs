//! Who asks: from a request's headers to a caller, or nobody.
//!
//! Knows nothing of: what callers may.

mod keystone;
mod tokens;

pub use keystone::{Keystone, KeystoneError, KeystoneSettings};
pub use tokens::{Tokens, TokensError};

use crate::fault::Fault;
use control::{Caller, Role};
use http::HeaderMap;
use http::uri::Authority;
use model::ProjectId;
use std::net::{IpAddr, SocketAddr};

pub enum Identity {
    /// Everybody is the admin of one project: on the loopback only.
    Nobody {
        project: ProjectId,
    },
    /// Tokens from a file.
    Tokens(Tokens),
    /// A proxy has asked who it is, and says so in headers. Whoever else reaches the server is who they like.
    Headers,
    Keystone(Box<Keystone>),
}

#[derive(Debug, thiserror::Error)]
#[error(
    "without authentication the server listens on the loopback only, and {0} isn't there: choose another identity, or 127.0.0.1"
)]
pub struct NotLoopback(pub SocketAddr);

impl Identity {
    /// To be asked before the server listens there.
    pub fn may_listen(&self, at: SocketAddr) -> Result<(), NotLoopback> {
        match self {
            Identity::Nobody { .. } if !at.ip().is_loopback() => Err(NotLoopback(at)),
            Identity::Nobody { .. }
            | Identity::Tokens(_)
            | Identity::Headers
            | Identity::Keystone(_) => Ok(()),
        }
    }

    pub(crate) async fn caller(&self, headers: &HeaderMap) -> Result<Caller, Fault> {
        match self {
            Identity::Nobody { .. } if !is_from_here(headers) => Err(Fault::unauthorized()),
            Identity::Nobody { project } => Ok(Caller {
                user: "admin".into(),
                project: project.clone(),
                role: Role::Admin,
            }),
            Identity::Tokens(tokens) => {
                let caller = token(headers).and_then(|token| tokens.caller(token));
                caller.ok_or_else(Fault::unauthorized)
            }
            Identity::Headers => said(headers).ok_or_else(Fault::unauthorized),
            Identity::Keystone(keystone) => {
                let token = token(headers).ok_or_else(Fault::unauthorized)?;
                keystone.caller(token).await
            }
        }
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty()).then_some(value)
}

fn token(headers: &HeaderMap) -> Option<&str> {
    header(headers, "x-auth-token").or_else(|| {
        let (scheme, token) = header(headers, "authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    })
}

/// A page in a browser on this host reaches the loopback, too: by its own script, which says where it is from, or
/// under its own name, which it lets lead here.
fn is_from_here(headers: &HeaderMap) -> bool {
    let host = header(headers, "host").and_then(|host| host.parse::<Authority>().ok());
    let is_ours = host.is_some_and(|host| {
        let name = host.host().trim_matches(['[', ']']);
        let address = name.parse::<IpAddr>();
        name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|a| a.is_loopback())
    });
    is_ours && !headers.contains_key("origin")
}

fn said(headers: &HeaderMap) -> Option<Caller> {
    let project = header(headers, "x-project-id").or_else(|| header(headers, "x-tenant-id"));
    let project = project.filter(|project| control::ids::is_id(project))?;
    let roles = header(headers, "x-roles").unwrap_or_default();
    Some(Caller {
        user: header(headers, "x-user-id")?.to_owned(),
        project: ProjectId::from(project),
        role: highest(roles.split(','))?,
    })
}

/// Roles that we don't know give nothing: who has no other isn't let in.
fn highest<'a>(roles: impl IntoIterator<Item = &'a str>) -> Option<Role> {
    let role = |name: &str| match name.trim().to_ascii_lowercase().as_str() {
        "admin" => Some(Role::Admin),
        "member" => Some(Role::Member),
        "reader" => Some(Role::Reader),
        _ => None,
    };
    roles.into_iter().filter_map(role).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            headers.insert(*name, value.parse().expect("it is a header's value"));
        }
        headers
    }

    fn check(of: &[(&'static str, &str)], expected: Option<(&str, &str, Role)>) {
        let got = said(&headers(of));
        let got = got
            .as_ref()
            .map(|c| (c.user.as_str(), c.project.as_str(), c.role));
        assert_eq!(got, expected, "{of:?}");
    }

    #[test]
    fn a_proxy_says_who_it_is() {
        let user = ("x-user-id", "u");
        let project = ("x-project-id", "p");
        check(
            &[user, project, ("x-roles", "reader,Member,x")],
            Some(("u", "p", Role::Member)),
        );
        check(
            &[user, project, ("x-roles", "member, admin")],
            Some(("u", "p", Role::Admin)),
        );
        check(
            &[user, ("x-tenant-id", "p"), ("x-roles", "reader")],
            Some(("u", "p", Role::Reader)),
        );
        check(&[user, project, ("x-roles", "administrator")], None);
        check(&[user, project], None);
        check(&[user, ("x-roles", "admin")], None);
        check(&[project, ("x-roles", "admin")], None);
        for no_project in [" ", "a/b"] {
            check(
                &[user, ("x-project-id", no_project), ("x-roles", "admin")],
                None,
            );
        }
    }

    #[test]
    fn a_token_is_in_either_header() {
        assert_eq!(token(&headers(&[("x-auth-token", "t")])), Some("t"));
        assert_eq!(token(&headers(&[("authorization", "Bearer t")])), Some("t"));
        assert_eq!(token(&headers(&[("authorization", "Basic t")])), None);
        assert_eq!(token(&headers(&[])), None);
    }

    #[test]
    fn a_page_in_a_browser_is_not_from_here() {
        let from_here = |of: &[(&'static str, &str)]| is_from_here(&headers(of));
        for host in ["127.0.0.1:9696", "localhost", "LOCALHOST:1", "[::1]:9696"] {
            assert!(from_here(&[("host", host)]), "{host}");
            assert!(!from_here(&[
                ("host", host),
                ("origin", "http://localhost")
            ]));
        }
        for host in [
            "rebound.example:9696",
            "10.0.0.1",
            "localhost.example",
            "x@y",
            "",
        ] {
            assert!(!from_here(&[("host", host)]), "{host}");
        }
        assert!(!from_here(&[]));
    }

    #[test]
    fn nobody_is_asked_on_the_loopback_only() {
        let nobody = Identity::Nobody {
            project: "p".into(),
        };
        let at = |text: &str| text.parse().expect("it is an address");
        assert!(nobody.may_listen(at("127.0.0.1:9696")).is_ok());
        assert!(nobody.may_listen(at("[::1]:9696")).is_ok());
        assert!(nobody.may_listen(at("0.0.0.0:9696")).is_err());
        assert!(nobody.may_listen(at("10.0.0.1:9696")).is_err());
        assert!(Identity::Headers.may_listen(at("0.0.0.0:9696")).is_ok());
    }
}

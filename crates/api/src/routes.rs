//! Which addresses there are: from a path to what is meant, and the methods that it has.
//!
//! Nothing is kept of a path that isn't one of these.

use crate::kinds::Kind;
use crate::resources::addresses::Action;
use http::Method;
use percent_encoding::percent_decode_str;

/// What a request's path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Versions,
    /// The OpenAPI document.
    Document,
    Version,
    Extensions,
    Extension(String),
    All(Kind),
    One(Kind, String),
    Addresses(String, Action),
    /// Of a port: all, that on a host, and that the port goes there.
    Bindings(String),
    Binding(String, String),
    Activate(String, String),
    Tags(Kind, String),
    Tag(Kind, String, String),
    Quotas,
    Quota(String),
    QuotaDefault(String),
    QuotaDetails(String),
    /// A policy file that is put onto the cluster.
    Apply,
    /// All that hosts are told.
    Inventory,
    /// Hosts, and what is enforced on them.
    Hosts,
    Status,
    /// The server's store, in a file.
    Backup,
}

pub(crate) const VERSION: &str = "v2.0";

impl Route {
    pub(crate) fn of(path: &str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut segments = Vec::new();
        for segment in path.split('/').take(7) {
            segments.push(percent_decode_str(segment).decode_utf8().ok()?.into_owned());
        }
        // A tag may be called anything.
        if !(segments.len() == 5 && segments[3] == "tags")
            && let Some(last) = segments.last_mut()
            && let Some(plain) = last.strip_suffix(".json")
            && last != "openapi.json"
        {
            *last = plain.to_owned();
        }
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        match segments[..] {
            [""] => Some(Self::Versions),
            ["openapi.json"] => Some(Self::Document),
            [VERSION] => Some(Self::Version),
            [VERSION, ref rest @ ..] => Self::of_version(rest),
            ["portcullis", "v1", own] => Self::own(own),
            _ => None,
        }
    }

    fn own(name: &str) -> Option<Self> {
        Some(match name {
            "apply" => Self::Apply,
            "inventory" => Self::Inventory,
            "hosts" => Self::Hosts,
            "status" => Self::Status,
            "backup" => Self::Backup,
            _ => return None,
        })
    }

    fn of_version(segments: &[&str]) -> Option<Self> {
        match *segments {
            ["extensions"] => return Some(Self::Extensions),
            ["extensions", alias] => return Some(Self::Extension(alias.into())),
            ["quotas"] => return Some(Self::Quotas),
            ["quotas", project] => return Some(Self::Quota(project.into())),
            ["quotas", project, "default"] => return Some(Self::QuotaDefault(project.into())),
            ["quotas", project, "details"] => return Some(Self::QuotaDetails(project.into())),
            _ => {}
        }
        let (path, rest) = segments.split_first()?;
        let kind = Kind::of_path(path)?;
        let tags = kind.table().tags;
        Some(match *rest {
            [] => Self::All(kind),
            [id] => Self::One(kind, id.into()),
            [id, "tags"] if tags => Self::Tags(kind, id.into()),
            [id, "tags", tag] if tags && !tag.is_empty() => Self::Tag(kind, id.into(), tag.into()),
            [port, "bindings"] if kind == Kind::Port => Self::Bindings(port.into()),
            [port, "bindings", host] if kind == Kind::Port => {
                Self::Binding(port.into(), host.into())
            }
            [port, "bindings", host, "activate"] if kind == Kind::Port => {
                Self::Activate(port.into(), host.into())
            }
            [id, action] if kind == Kind::Addresses => {
                let action = Action::ALL.into_iter().find(|a| a.path() == action)?;
                Self::Addresses(id.into(), action)
            }
            _ => return None,
        })
    }

    pub(crate) fn methods(&self) -> Vec<Method> {
        let of = |pairs: &[(bool, Method)]| {
            let there = pairs.iter().filter(|(there, _)| *there);
            there.map(|(_, method)| method.clone()).collect()
        };
        let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
        match self {
            Self::Versions
            | Self::Document
            | Self::Version
            | Self::Extensions
            | Self::Extension(_)
            | Self::Quotas
            | Self::QuotaDefault(_)
            | Self::QuotaDetails(_)
            | Self::Inventory
            | Self::Hosts
            | Self::Status
            | Self::Backup => vec![get],
            Self::Apply => vec![post, delete],
            Self::All(kind) => of(&[(true, get), (kind.table().create, post)]),
            Self::One(kind, _) => {
                let table = kind.table();
                of(&[(true, get), (table.update, put), (table.delete, delete)])
            }
            Self::Addresses(..) | Self::Activate(..) => vec![put],
            Self::Bindings(_) => vec![get, post],
            Self::Binding(..) | Self::Tags(..) | Self::Tag(..) | Self::Quota(_) => {
                vec![get, put, delete]
            }
        }
    }

    /// Those that anybody may ask for: clients do before they have a token.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Versions | Self::Document)
    }

    /// As the document has it; one of each there is.
    pub(crate) fn every() -> Vec<(String, Self)> {
        let id = || "{id}".to_owned();
        let mut routes = vec![
            ("/".to_owned(), Self::Versions),
            ("/openapi.json".to_owned(), Self::Document),
        ];
        let mut add = |path: String, route| routes.push((format!("/{VERSION}/{path}"), route));
        add(String::new(), Self::Version);
        add("extensions".into(), Self::Extensions);
        add("extensions/{id}".into(), Self::Extension(id()));
        for kind in Kind::ALL {
            let table = kind.table();
            let path = table.path;
            add(path.into(), Self::All(kind));
            add(format!("{path}/{{id}}"), Self::One(kind, id()));
            if table.tags {
                add(format!("{path}/{{id}}/tags"), Self::Tags(kind, id()));
                let tag = Self::Tag(kind, id(), "{tag}".into());
                add(format!("{path}/{{id}}/tags/{{tag}}"), tag);
            }
        }
        let host = || "{host}".to_owned();
        add("ports/{id}/bindings".into(), Self::Bindings(id()));
        let one = "ports/{id}/bindings/{host}";
        add(one.into(), Self::Binding(id(), host()));
        add(format!("{one}/activate"), Self::Activate(id(), host()));
        for action in Action::ALL {
            let path = format!("{}/{{id}}/{}", Kind::Addresses.table().path, action.path());
            add(path, Self::Addresses(id(), action));
        }
        add("quotas".into(), Self::Quotas);
        add("quotas/{id}".into(), Self::Quota(id()));
        add("quotas/{id}/default".into(), Self::QuotaDefault(id()));
        add("quotas/{id}/details".into(), Self::QuotaDetails(id()));
        let own = [
            ("apply", Self::Apply),
            ("inventory", Self::Inventory),
            ("hosts", Self::Hosts),
            ("status", Self::Status),
            ("backup", Self::Backup),
        ];
        routes.extend(own.map(|(name, route)| (format!("/portcullis/v1/{name}"), route)));
        routes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, expected: Option<Route>) {
        assert_eq!(Route::of(path), expected, "{path}");
    }

    #[test]
    fn paths_are_routes() {
        let one = |id: &str| Some(Route::One(Kind::Group, id.into()));
        check("/", Some(Route::Versions));
        check("/v2.0", Some(Route::Version));
        check("/v2.0/", Some(Route::Version));
        check("/v2.0/security-groups", Some(Route::All(Kind::Group)));
        check("/v2.0/security-groups.json", Some(Route::All(Kind::Group)));
        check("/v2.0/security-groups/", Some(Route::All(Kind::Group)));
        check("/v2.0/security-groups/a", one("a"));
        check("/v2.0/security-groups/a.json", one("a"));
        check("/v2.0/security-groups/a%20b%2Fc", one("a b/c"));
        check(
            "/v2.0/security-groups/a/tags.json",
            Some(Route::Tags(Kind::Group, "a".into())),
        );
        let tag = Route::Tag(Kind::Group, "a".into(), "x.json".into());
        check("/v2.0/security-groups/a/tags/x.json", Some(tag));
        check(
            "/v2.0/quotas/p/details.json",
            Some(Route::QuotaDetails("p".into())),
        );
        let add = Route::Addresses("a".into(), Action::Add);
        check("/v2.0/address-groups/a/add_addresses", Some(add));
        let on = |host: &str| Some(Route::Binding("p".into(), host.into()));
        check("/v2.0/ports/p/bindings/", Some(Route::Bindings("p".into())));
        check("/v2.0/ports/p/bindings/a.example", on("a.example"));
        check("/v2.0/ports/p/bindings/activate", on("activate"));
        let activate = Route::Activate("p".into(), "h".into());
        check("/v2.0/ports/p/bindings/h/activate", Some(activate));
        check("/openapi.json", Some(Route::Document));
    }

    #[test]
    fn other_paths_are_none() {
        for path in [
            "",
            "/v3",
            "/v2.0/routers",
            "/v2.0/ports/a/b",
            "/v2.0/networks/a/bindings",
            "/v2.0/ports/a/bindings/h/b",
            "/v2.0/agents/a/tags",
            "/v2.0/a/b/c/d/e/f/g/h",
            "/v2.0//",
            "//v2.0",
            "/v2.0/security-groups/%ff",
            "/v2.0/address-groups/a/drop_addresses",
        ] {
            check(path, None);
        }
    }

    #[test]
    fn every_route_is_where_it_says() {
        for (path, route) in Route::every() {
            check(&path, Some(route));
        }
    }
}

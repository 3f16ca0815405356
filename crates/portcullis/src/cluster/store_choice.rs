//! Which store: a file of this server's own, or an etcd that servers share.

use crate::failure::Failure;
use clap::Args;
use control::Copies;
use std::fmt::{self, Display, Formatter};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use store::Store;
use store::embedded::Embedded;
use store_etcd::{Config, Etcd, Tls};
use tracing::warn;

#[derive(Args, Clone, Debug)]
pub(crate) struct StoreArgs {
    /// Where policy is kept: `file:PATH`, for one server; or `etcd:URL[,URL...][/ROOT]`, for several
    #[arg(
        long,
        value_name = "STORE",
        default_value_t = StoreChoice::File(USUAL.into()),
        env = "PORTCULLIS_STORE"
    )]
    pub(crate) store: StoreChoice,

    /// Who signs the certificates of etcd's members (PEM), for https
    #[arg(long, value_name = "FILE", env = "PORTCULLIS_ETCD_CA")]
    etcd_ca: Option<PathBuf>,

    /// Our certificate for etcd, where its members ask for one (PEM)
    #[arg(long, value_name = "FILE", requires_all = ["etcd_key", "etcd_ca"], env = "PORTCULLIS_ETCD_CERT")]
    etcd_cert: Option<PathBuf>,

    /// Its key (PEM)
    #[arg(
        long,
        value_name = "FILE",
        requires = "etcd_cert",
        env = "PORTCULLIS_ETCD_KEY"
    )]
    etcd_key: Option<PathBuf>,

    /// A file with `NAME:PASSWORD`, where etcd asks who we are
    #[arg(long, value_name = "FILE", env = "PORTCULLIS_ETCD_USER")]
    etcd_user: Option<PathBuf>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StoreChoice {
    File(PathBuf),
    Etcd {
        endpoints: Vec<String>,
        root: String,
    },
}

const ROOT: &str = "/portcullis";
const USUAL: &str = "/var/lib/portcullis/store";

impl FromStr for StoreChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is neither file:PATH nor etcd:URL[,URL...][/ROOT]");
        match text.split_once(':').ok_or_else(wrong)? {
            ("file", path) if !path.is_empty() => Ok(Self::File(path.into())),
            ("etcd", urls) => etcd(urls).ok_or_else(wrong),
            _ => Err(wrong()),
        }
    }
}

impl Display for StoreChoice {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{}", path.display()),
            Self::Etcd { endpoints, root } => write!(f, "etcd:{}{root}", endpoints.join(",")),
        }
    }
}

/// What is behind the last member's host and port is the root.
fn etcd(urls: &str) -> Option<StoreChoice> {
    let (urls, root) = match urls.rfind("://").map(|at| at + 3) {
        Some(host) => match urls[host..].find('/') {
            Some(slash) => urls.split_at(host + slash),
            None => (urls, ROOT),
        },
        None => return None,
    };
    let endpoints: Vec<String> = urls.split(',').map(str::to_owned).collect();
    let is_url = |url: &String| {
        let rest = url
            .strip_prefix("http://")
            .or_else(|| url.strip_prefix("https://"));
        rest.is_some_and(|host| !host.is_empty() && !host.contains('/'))
    };
    let root = root.trim_end_matches('/');
    let root = if root.is_empty() { ROOT } else { root };
    endpoints.iter().all(is_url).then(|| StoreChoice::Etcd {
        endpoints,
        root: root.to_owned(),
    })
}

impl StoreArgs {
    /// The store, and who copies it, where that is ours to do.
    pub(crate) async fn open(&self) -> Result<(Arc<dyn Store>, Option<Copies>), Failure> {
        match &self.store {
            StoreChoice::File(path) => {
                let is_new = !path.exists();
                let store = open_file(path)?;
                self.tell_if(is_new);
                let copies = Copies::new(store.clone(), path);
                Ok((store, Some(copies)))
            }
            StoreChoice::Etcd { .. } => {
                let etcd = self.connect().await?;
                self.tell_if(etcd.is_new());
                Ok((Arc::new(etcd), None))
            }
        }
    }

    /// It may be that it is elsewhere, or was moved away.
    fn tell_if(&self, is_new: bool) {
        if is_new {
            warn!(
                store = %self.store,
                "made a new, empty store: hosts that follow this server will close all their ports that it doesn't \
                 have. If there should be a policy, stop the server, and restore a backup"
            );
        }
    }

    /// To etcd, which is what was chosen.
    pub(crate) async fn connect(&self) -> Result<Etcd, Failure> {
        let StoreChoice::Etcd { endpoints, root } = &self.store else {
            return Err(Failure::Usage("--store is no etcd".to_owned()));
        };
        let config = Config {
            endpoints: endpoints.clone(),
            tls: self.tls()?,
            root: root.clone(),
            user: self.user()?,
            ..Config::default()
        };
        Etcd::connect(config).await.map_err(Failure::system)
    }

    fn tls(&self) -> Result<Option<Tls>, Failure> {
        let Some(ca) = &self.etcd_ca else {
            return Ok(None);
        };
        let client = match (&self.etcd_cert, &self.etcd_key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            _ => None,
        };
        let ca = read(ca)?;
        Ok(Some(Tls { ca, client }))
    }

    fn user(&self) -> Result<Option<(String, String)>, Failure> {
        let Some(path) = &self.etcd_user else {
            return Ok(None);
        };
        let text = read(path)?;
        let (name, password) = text.trim_end().split_once(':').ok_or_else(|| {
            Failure::Usage(format!("{}: NAME:PASSWORD is expected", path.display()))
        })?;
        Ok(Some((name.to_owned(), password.to_owned())))
    }
}

/// A directory is made for the usual place alone: a path that was given may be mistyped.
fn open_file(path: &Path) -> Result<Arc<Embedded>, Failure> {
    let dir = path.parent().filter(|dir| *dir != Path::new(""));
    if let Some(dir) = dir
        && !dir.is_dir()
    {
        let shown = dir.display();
        if path != Path::new(USUAL) {
            return Err(Failure::System(format!(
                "there is no directory {shown}, so no store in it: if the path is right, make the directory"
            )));
        }
        std::fs::create_dir_all(dir)
            .map_err(|e| Failure::System(format!("making {shown}: {e}")))?;
    }
    Embedded::open(path).map(Arc::new).map_err(Failure::system)
}

pub(crate) fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .map_err(|e| Failure::System(format!("reading {}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<StoreChoice>) {
        assert_eq!(text.parse().ok(), expected, "{text}");
    }

    fn members(endpoints: &[&str], root: &str) -> Option<StoreChoice> {
        Some(StoreChoice::Etcd {
            endpoints: endpoints.iter().map(|url| url.to_string()).collect(),
            root: root.to_owned(),
        })
    }

    #[test]
    fn a_store_is_a_file_or_an_etcd() {
        check("file:/a/b", Some(StoreChoice::File("/a/b".into())));
        check("etcd:http://a:1", members(&["http://a:1"], ROOT));
        check("etcd:http://a:1/", members(&["http://a:1"], ROOT));
        check(
            "etcd:https://a:1,https://b:2/x/y",
            members(&["https://a:1", "https://b:2"], "/x/y"),
        );
        for wrong in [
            "",
            "file:",
            "/a",
            "etcd:",
            "etcd:a:1",
            "etcd:http://a:1/x,http://b:2",
            "etcd:http://,http://b",
        ] {
            check(wrong, None);
        }
    }
}

//! Who asks the API, by configuration.

use super::store_choice::read;
use crate::failure::Failure;
use api::{Identity, Keystone, KeystoneSettings, Tokens};
use clap::{Args, ValueEnum};
use model::ProjectId;
use std::path::PathBuf;

#[derive(Args, Clone, Debug)]
pub(crate) struct IdentityArgs {
    /// Who clients of the API are
    #[arg(long, value_enum, default_value_t, env = "PORTCULLIS_IDENTITY")]
    identity: IdentityKind,

    /// With `none`: the project that everybody is the admin of
    #[arg(
        long,
        value_name = "ID",
        default_value = "admin",
        env = "PORTCULLIS_PROJECT"
    )]
    project: String,

    /// With `token`: a line each of TOKEN USER PROJECT ROLE[,ROLE] (docs/api.md)
    #[arg(
        long,
        value_name = "FILE",
        required_if_eq("identity", "token"),
        env = "PORTCULLIS_TOKENS"
    )]
    tokens: Option<PathBuf>,

    /// With `keystone`: where it is, such as https://keystone.example:5000
    #[arg(
        long,
        value_name = "URL",
        required_if_eq("identity", "keystone"),
        env = "PORTCULLIS_KEYSTONE"
    )]
    keystone: Option<String>,

    /// With `keystone`: a file with USER:PASSWORD of the account by which tokens are asked about
    #[arg(
        long,
        value_name = "FILE",
        required_if_eq("identity", "keystone"),
        env = "PORTCULLIS_KEYSTONE_USER"
    )]
    keystone_user: Option<PathBuf>,

    /// With `keystone`: the account's project
    #[arg(
        long,
        value_name = "NAME",
        default_value = "service",
        env = "PORTCULLIS_KEYSTONE_PROJECT"
    )]
    keystone_project: String,

    /// With `keystone`: the domain of account and project
    #[arg(
        long,
        value_name = "NAME",
        default_value = "Default",
        env = "PORTCULLIS_KEYSTONE_DOMAIN"
    )]
    keystone_domain: String,

    /// With `keystone`: who signs its certificate (PEM) [default: whom the system trusts]
    #[arg(long, value_name = "FILE", env = "PORTCULLIS_KEYSTONE_CA")]
    keystone_ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum IdentityKind {
    /// Everybody is admin; on the loopback only
    #[default]
    None,
    /// Tokens from a file
    Token,
    /// An authenticating proxy says it in X-User-Id, X-Project-Id, X-Roles. Nobody else may reach the server
    Headers,
    /// OpenStack's Keystone, v3
    Keystone,
}

impl IdentityArgs {
    pub(crate) fn identity(&self) -> Result<Identity, Failure> {
        Ok(match self.identity {
            IdentityKind::None => Identity::Nobody {
                project: ProjectId::from(self.project.as_str()),
            },
            IdentityKind::Token => {
                let path = self.tokens.as_deref().expect("clap asks for it");
                Identity::Tokens(Tokens::read(path).map_err(Failure::system)?)
            }
            IdentityKind::Headers => Identity::Headers,
            IdentityKind::Keystone => Identity::Keystone(Box::new(self.keystone()?)),
        })
    }

    fn keystone(&self) -> Result<Keystone, Failure> {
        let path = self.keystone_user.as_deref().expect("clap asks for it");
        let text = read(path)?;
        let (user, password) = text.trim_end().split_once(':').ok_or_else(|| {
            Failure::Usage(format!("{}: USER:PASSWORD is expected", path.display()))
        })?;
        let settings = KeystoneSettings {
            auth_url: self.keystone.clone().expect("clap asks for it"),
            user: user.to_owned(),
            user_domain: self.keystone_domain.clone(),
            password: password.to_owned(),
            project: self.keystone_project.clone(),
            project_domain: self.keystone_domain.clone(),
            ca_file: self.keystone_ca.clone(),
        };
        Keystone::new(settings).map_err(Failure::system)
    }
}

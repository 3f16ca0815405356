//! `ca`: the certificates by which servers and hosts know each other.

use crate::failure::Failure;
use clap::{Args, Subcommand};
use protocol::ca::{self, CaError, Signed, Validity};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Make the certificates of a cluster: its authority, its servers, its hosts
///
/// Any other authority is as good: servers and agents take PEM files. A host's certificate has the host's id as its
/// DNS name; a server tells that host's policy to nobody else. Nothing is written over.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  portcullis ca init                              ca.pem and ca.key here: once, and keep the key away from servers
  portcullis ca server 192.0.2.10 ctl1.example    server.pem, server.key: the names by which agents call it
  portcullis ca host rack1-a                      rack1-a.pem, rack1-a.key

Exit codes: 0 made, 2 a name can't be, 4 a file is there already or can't be written.")]
pub(crate) struct CaArgs {
    #[command(subcommand)]
    what: What,

    /// Where the files are
    #[arg(
        long,
        value_name = "DIR",
        default_value = ".",
        global = true,
        env = "PORTCULLIS_CA_DIR"
    )]
    dir: PathBuf,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The authority: ca.pem, ca.key
    Init {
        /// Valid for so long
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// A server's certificate: server.pem, server.key
    Server {
        /// Names and addresses by which agents call it
        #[arg(required = true, value_name = "NAME")]
        names: Vec<String>,
        /// Valid for so long
        #[arg(long, default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// A host's certificate: HOST.pem, HOST.key
    Host {
        host: String,
        /// Valid for so long
        #[arg(long, default_value_t = 825, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
}

pub(crate) fn run(args: CaArgs) -> Result<(), Failure> {
    let made = match args.what {
        What::Init { days } => (
            "ca".to_owned(),
            ca::authority("Portcullis", lasting(days)).map_err(refused)?,
        ),
        What::Server { names, days } => {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let signed = ca::server(&authority(&args.dir)?, &names, lasting(days));
            ("server".to_owned(), signed.map_err(refused)?)
        }
        What::Host { host, days } => {
            if host.contains('/') || host.starts_with('.') {
                return Err(Failure::Usage(format!("{host:?} is no name of a host")));
            }
            let signed = ca::host(&authority(&args.dir)?, &host, lasting(days));
            (host, signed.map_err(refused)?)
        }
    };
    let (name, signed) = made;
    // The key first: a certificate without it is of no use to anybody.
    write(&args.dir.join(format!("{name}.key")), &signed.key, 0o600)?;
    write(
        &args.dir.join(format!("{name}.pem")),
        &signed.certificate,
        0o644,
    )
}

fn lasting(days: u32) -> Validity {
    Validity::lasting(Duration::from_secs(u64::from(days) * 24 * 60 * 60))
}

fn authority(dir: &Path) -> Result<Signed, Failure> {
    let read = |name: &str| {
        let path = dir.join(name);
        std::fs::read_to_string(&path).map_err(|e| {
            Failure::System(format!(
                "reading {}: {e}; `portcullis ca init` makes an authority, --dir says where it is",
                path.display()
            ))
        })
    };
    Ok(Signed {
        certificate: read("ca.pem")?,
        key: read("ca.key")?,
    })
}

fn refused(error: CaError) -> Failure {
    match error {
        CaError::Name { .. } | CaError::Nameless => Failure::Usage(error.to_string()),
        CaError::Authority(_) | CaError::Make(_) => Failure::system(error),
    }
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()));
    match written {
        Ok(()) => {
            println!("{}", path.display());
            Ok(())
        }
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Err(Failure::System(format!(
            "{} is there already, and nothing is written over",
            path.display()
        ))),
        Err(e) => Err(Failure::System(format!("writing {}: {e}", path.display()))),
    }
}

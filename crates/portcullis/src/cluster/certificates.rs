//! Certificates and keys from files: what can't be used is said with the file and the reason, before anything is served
//! or followed.
//!
//! Knows nothing of: connections, whether the other end believes them.

use super::store_choice::read;
use crate::failure::Failure;
use protocol::ca::Signed;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys, RootCertStore};
use std::fmt::Display;
use std::path::Path;

/// A certificate and its key, of ours.
pub(crate) fn signed(certificate: &Path, key: &Path) -> Result<Signed, Failure> {
    let signed = Signed {
        certificate: read(certificate)?,
        key: read(key)?,
    };
    let chain = certificates(certificate, &signed.certificate)?;
    let private = PrivateKeyDer::from_pem_slice(signed.key.as_bytes());
    let private = private.map_err(|_| wrong(key, "there is no key in it (PEM)"))?;
    match CertifiedKey::from_der(chain, private, &default_provider()) {
        Ok(_) => Ok(signed),
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
            let why = format!("it is not the key of {}", certificate.display());
            Err(wrong(key, why))
        }
        Err(error) => {
            let why = format!("with the key {}: {error}", key.display());
            Err(wrong(certificate, why))
        }
    }
}

/// Who signs the others' certificates.
pub(crate) fn authority(path: &Path) -> Result<String, Failure> {
    let text = read(path)?;
    for certificate in certificates(path, &text)? {
        let added = RootCertStore::empty().add(certificate);
        added.map_err(|error| wrong(path, error))?;
    }
    Ok(text)
}

fn certificates(path: &Path, text: &str) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let found = found.map_err(|error| wrong(path, error))?;
    match found.is_empty() {
        true => Err(wrong(path, "there is no certificate in it (PEM)")),
        false => Ok(found),
    }
}

fn wrong(path: &Path, why: impl Display) -> Failure {
    Failure::System(format!("{} can't be used: {why}", path.display()))
}

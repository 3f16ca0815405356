//! A certificate authority of our own: its certificate, those of servers, those of hosts.
//!
//! A server's names are those by which agents call it. A host's is its id: the server tells the host's policy to
//! nobody else. Each kind is good for one end only: a host can't pass for a server, nor a server for a host.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

/// As PEM.
#[derive(Clone, Debug)]
pub struct Signed {
    pub certificate: String,
    /// Nobody else's to read.
    pub key: String,
}

#[derive(Clone, Copy, Debug)]
pub struct Validity {
    pub from: SystemTime,
    pub until: SystemTime,
}

#[derive(Debug, thiserror::Error)]
pub enum CaError {
    #[error("{name:?} can't stand in a certificate: it is empty, or not ASCII")]
    Name { name: String },
    #[error("no names are given for the server")]
    Nameless,
    #[error("the authority's certificate or key can't be read: {0}")]
    Authority(#[source] rcgen::Error),
    #[error("the certificate can't be made: {0}")]
    Make(#[source] rcgen::Error),
}

impl Validity {
    /// From a little before now, as clocks differ.
    pub fn lasting(duration: Duration) -> Self {
        let now = SystemTime::now();
        Self {
            from: now - Duration::from_secs(300),
            until: now + duration,
        }
    }
}

pub fn authority(name: &str, validity: Validity) -> Result<Signed, CaError> {
    let mut params = params(name, validity)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().map_err(CaError::Make)?;
    let signed = CertifiedIssuer::self_signed(params, key).map_err(CaError::Make)?;
    Ok(Signed {
        certificate: signed.pem(),
        key: signed.key().serialize_pem(),
    })
}

/// Names are those of DNS, or addresses.
pub fn server(authority: &Signed, names: &[&str], validity: Validity) -> Result<Signed, CaError> {
    let first = names.first().ok_or(CaError::Nameless)?;
    let mut params = params(first, validity)?;
    params.subject_alt_names = names
        .iter()
        .map(|name| match name.parse::<IpAddr>() {
            Ok(address) => Ok(SanType::IpAddress(address)),
            Err(_) => dns(name),
        })
        .collect::<Result<_, _>>()?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    sign(authority, params)
}

pub fn host(authority: &Signed, host: &str, validity: Validity) -> Result<Signed, CaError> {
    let mut params = params(host, validity)?;
    params.subject_alt_names = vec![dns(host)?];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    sign(authority, params)
}

fn params(name: &str, validity: Validity) -> Result<CertificateParams, CaError> {
    dns(name)?;
    let mut params = CertificateParams::default();
    params.not_before = validity.from.into();
    params.not_after = validity.until.into();
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn dns(name: &str) -> Result<SanType, CaError> {
    let refused = || CaError::Name {
        name: name.to_owned(),
    };
    if name.is_empty()
        || name
            .bytes()
            .any(|byte| !byte.is_ascii_graphic() && byte != b' ')
    {
        return Err(refused());
    }
    let text = name.try_into().map_err(|_| refused())?;
    Ok(SanType::DnsName(text))
}

fn sign(authority: &Signed, params: CertificateParams) -> Result<Signed, CaError> {
    let key = KeyPair::from_pem(&authority.key).map_err(CaError::Authority)?;
    let issuer =
        Issuer::from_ca_cert_pem(&authority.certificate, key).map_err(CaError::Authority)?;
    let key = KeyPair::generate().map_err(CaError::Make)?;
    let certificate = params.signed_by(&key, &issuer).map_err(CaError::Make)?;
    Ok(Signed {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

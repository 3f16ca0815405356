//! Whose certificate it is.

use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// The names that a certificate was given: its alternative ones, or if it has none the common one. Whether it is
/// genuine was asked before.
pub(crate) fn names(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Vec::new();
    };
    match certificate.subject_alternative_name() {
        Ok(Some(names)) => {
            let names = names.value.general_names.iter();
            let names = names.filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            });
            names.collect()
        }
        Ok(None) => {
            let names = certificate.subject().iter_common_name();
            let names = names.filter_map(|name| name.as_str().ok());
            names.map(str::to_owned).collect()
        }
        // Twice: then it is nobody's.
        Err(_) => Vec::new(),
    }
}

//! What must hold whatever text comes in: nothing panics, errors are few and each says where, and
//! the same text reads the same again.

use model::HostId;
use portcullis_policyfile::{MAX_ERRORS, parse_bytes};

pub(crate) fn check(bytes: &[u8]) {
    let host = HostId::new("host-a");
    let read = parse_bytes(bytes, "policy.yaml", &host);
    if let Err(errors) = &read {
        let _ = errors.to_string();
        assert!((1..=MAX_ERRORS).contains(&errors.errors.len()));
        // A position is of a line of the file, or of the end behind its last one.
        let lines = 2 + bytes
            .iter()
            .filter(|byte| **byte == b'\n' || **byte == b'\r')
            .count();
        for error in &errors.errors {
            assert!(!error.what.is_empty(), "{error:?}");
            let line = error.position.map_or(1, |position| position.line);
            assert!((1..=lines).contains(&(line as usize)), "{error:?}");
        }
    }
    assert_eq!(read, parse_bytes(bytes, "policy.yaml", &host));
}

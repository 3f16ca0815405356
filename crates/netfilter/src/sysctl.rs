//! Kernel settings below `/proc/sys`. Those of `net` are of the calling thread's network namespace.
//!
//! Paths have slashes (`net/ipv4/ip_forward`): a device's name may have dots in it.

use crate::Error;
use std::fs;

/// Without the line's end.
pub fn read(path: &str) -> Result<String, Error> {
    let file = file(path);
    match fs::read_to_string(&file) {
        Ok(text) => Ok(text.trim_end().to_owned()),
        Err(e) => Err(Error::new(format!("reading {file}"), e)),
    }
}

/// The setting is as it was, if this fails.
pub fn write(path: &str, value: &str) -> Result<(), Error> {
    let file = file(path);
    fs::write(&file, value).map_err(|e| Error::new(format!("writing {value} to {file}"), e))
}

fn file(path: &str) -> String {
    format!("/proc/sys/{path}")
}

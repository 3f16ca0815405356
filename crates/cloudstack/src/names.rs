//! Names that come from outside and go into files, commands and lines of text: of VMs, of devices, of
//! rule sets. Each is checked once, here.

use crate::words::quoted;
use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// A text that is no name of its kind. In one line; says what such a name looks like.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text} is no {what}")]
pub struct NameError {
    text: String,
    what: &'static str,
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident $what:literal $good:path;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Errors: the text is no such name.
            pub fn new(text: &str) -> Result<Self, NameError> {
                if $good(text) {
                    return Ok(Self(text.into()));
                }
                Err(NameError { text: quoted(text), what: $what })
            }

            /// The name itself.
            pub fn as_str(&self) -> &str { &self.0 }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.pad(&self.0) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }
        impl Borrow<str> for $name { fn borrow(&self) -> &str { &self.0 } }
    )+};
}

names! {
    /// A VM, as CloudStack and libvirt call it: `i-2-104-VM`, or with the guest's host name at its end.
    ///
    /// Letters, digits, `.`, `_` and `-` (ASCII), the first a letter or digit, at most 128: so `NAME.log`
    /// is a file's name and never a path, and no name is an option.
    VmName "name of a VM: at most 128 letters, digits, `.`, `_` or `-`" is_vm;
    /// A network device: a VM's interface on the host (`vnet0`), or a bridge (`cloudbr0`).
    ///
    /// As the kernel takes it, at most 15 bytes; of those only what a command or a file can't take for
    /// anything else: letters, digits, `.`, `_` and `-`, the first a letter or digit.
    DeviceName "name of a network device: at most 15 letters, digits, `.`, `_` or `-`" is_device;
    /// What the management server calls a set of rules: an MD5 in hexadecimal digits.
    ///
    /// Any letters, digits and `_`, at most 64; it comes back to the server between commas.
    Signature "signature: at most 64 letters, digits or `_`" is_signature;
}

fn is_vm(text: &str) -> bool {
    is_word(text, 128)
}

fn is_device(text: &str) -> bool {
    is_word(text, 15)
}

fn is_word(text: &str, longest: usize) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let begins = text
        .as_bytes()
        .first()
        .is_some_and(u8::is_ascii_alphanumeric);
    begins && text.len() <= longest && text.bytes().all(plain)
}

fn is_signature(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    !text.is_empty() && text.len() <= 64 && text.bytes().all(plain)
}

impl VmName {
    /// A guest of a tenant, by CloudStack's naming. The agent asks after the rules of these only.
    pub fn is_instance(&self) -> bool {
        self.0.starts_with("i-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, vm: bool, device: bool) {
        assert_eq!(VmName::new(text).is_ok(), vm, "{text:?} as a VM");
        assert_eq!(DeviceName::new(text).is_ok(), device, "{text:?}");
    }

    #[test]
    fn names_are_harmless() {
        check("i-2-104-VM", true, true);
        check("brbond0-304", true, true);
        check("bond0.304", true, true);
        check("i-1234-123456-my-host.example", true, false);
        check("vnet1234567890123", true, false);
        for bad in [
            "",
            ".",
            "..",
            "../etc",
            "a/b",
            "/a",
            "-A",
            "--vmname",
            ".hidden",
            "a b",
            "a\n",
            "a\0",
            "a,b",
            "a;b",
            "a$b",
            "a*",
            "a:b",
            "eth0@if2",
            "ä",
            "i-٢-1-VM",
        ] {
            check(bad, false, false);
        }
        check(&"x".repeat(128), true, false);
        check(&"x".repeat(129), false, false);
        check(&"x".repeat(15), true, true);
        check(&"x".repeat(16), true, false);
    }

    #[test]
    fn a_signature_fits_between_commas() {
        assert!(Signature::new("9a0364b9e99bb480dd25e1f0284c8555").is_ok());
        assert!(Signature::new("_initial_").is_ok());
        for bad in ["", "a,b", "a;b", "a\n", "é"] {
            assert!(Signature::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_error_is_one_line() {
        let error = VmName::new("../a\nb").expect_err("it is a path");
        assert_eq!(
            error.to_string(),
            "`../a\\u{a}b` is no name of a VM: at most 128 letters, digits, `.`, `_` or `-`"
        );
    }
}

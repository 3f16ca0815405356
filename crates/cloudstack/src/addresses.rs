//! The secondary addresses of a NIC, as `--nicsecips` lists them: `10.1.1.111;fd00::111;`.

use crate::words;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;

/// An element that is no address of a machine; quoted, in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no address that a VM can have")]
pub struct AddressError(pub String);

/// Reads a list of addresses of both families, joined by `;`.
///
/// It may end with `;` or not; empty elements and `0` stand for no address, anywhere. Doubled ones
/// count once.
/// Errors: one element that is no address refuses the list, as half of it would cut the VM off.
pub fn parse(text: &str) -> Result<BTreeSet<IpAddr>, AddressError> {
    text.split(';')
        .filter(|element| !matches!(*element, "" | "0"))
        .map(|element| words::address(element).ok_or_else(|| AddressError(words::quoted(element))))
        .collect()
}

/// The list as the agent writes it: each address followed by `;`; `0;` for none.
pub fn format(addresses: &BTreeSet<IpAddr>) -> String {
    if addresses.is_empty() {
        return "0;".to_owned();
    }
    addresses.iter().fold(String::new(), |mut out, address| {
        let _ = write!(out, "{address};"); // To a string, which can't fail.
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, &str>) {
        let seen = parse(text);
        let seen = match &seen {
            Ok(addresses) => Ok(format(addresses)),
            Err(AddressError(element)) => Err(element.as_str()),
        };
        assert_eq!(seen, expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn lists_come_in_several_dresses() {
        check("", Ok("0;"));
        check("0", Ok("0;"));
        check("0;", Ok("0;"));
        check(";;", Ok("0;"));
        check("10.1.1.111;", Ok("10.1.1.111;"));
        check("10.1.1.111", Ok("10.1.1.111;"));
        check(
            "10.1.1.112;10.1.1.111;fd00::111;",
            Ok("10.1.1.111;10.1.1.112;fd00::111;"),
        );
        check("0;;10.1.1.111;0;10.1.1.111", Ok("10.1.1.111;"));
    }

    #[test]
    fn what_is_no_address_refuses_the_list() {
        check("10.1.1.111;nonsense;", Err("`nonsense`"));
        check("10.1.1.0/24;", Err("`10.1.1.0/24`"));
        check("00;", Err("`00`"));
        check("0:", Err("`0:`"));
        check("10.1.1.111 ;", Err("`10.1.1.111 `"));
        check("::ffff:10.1.1.111;", Err("`::ffff:10.1.1.111`"));
    }
}

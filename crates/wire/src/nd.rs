//! What the guard looks at inside ICMPv6: neighbour discovery's target and options, and the group of
//! a multicast listener message.

use crate::parse::ipv6_address;
use model::MacAddr;
use std::net::Ipv6Addr;

pub const ROUTER_SOLICITATION: u8 = 133;
pub const ROUTER_ADVERTISEMENT: u8 = 134;
pub const NEIGHBOUR_SOLICITATION: u8 = 135;
pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
pub const REDIRECT: u8 = 137;

pub const LISTENER_QUERY: u8 = 130;
pub const LISTENER_REPORT: u8 = 131;
pub const LISTENER_DONE: u8 = 132;
pub const LISTENER_REPORT_V2: u8 = 143;

/// A neighbour discovery message whose fixed part is whole and whose options end where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Of a solicitation, an advertisement or a redirect.
    pub target: Option<Ipv6Addr>,
    options: &'a [u8],
}

pub const MAX_OPTIONS: usize = 64;

/// `payload` begins with the ICMPv6 header. `None` for other types, a message shorter than its fixed
/// part, too many options, an option of length 0, one beyond the end, and bytes behind the last one.
pub fn message(icmp_type: u8, payload: &[u8]) -> Option<Message<'_>> {
    let (fixed, has_target) = match icmp_type {
        ROUTER_SOLICITATION => (8, false),
        ROUTER_ADVERTISEMENT => (16, false),
        NEIGHBOUR_SOLICITATION | NEIGHBOUR_ADVERTISEMENT => (24, true),
        REDIRECT => (40, true),
        _ => return None,
    };
    let options = payload.get(fixed..)?;
    let mut rest = options;
    for _ in 0..MAX_OPTIONS {
        if rest.is_empty() {
            break;
        }
        let length = usize::from(*rest.get(1)?) * 8;
        rest = rest.get(length..).filter(|_| length > 0)?;
    }
    rest.is_empty().then_some(Message {
        target: has_target.then(|| ipv6_address(payload, 8)),
        options,
    })
}

impl Message<'_> {
    /// Every source and target link-layer address option is an Ethernet one and holds this MAC.
    pub fn speaks_for(&self, mac: MacAddr) -> bool {
        const SOURCE: u8 = 1;
        const TARGET: u8 = 2;
        let mut rest = self.options;
        while let [kind, units, ..] = *rest {
            let (option, after) = rest.split_at(usize::from(units) * 8);
            if matches!(kind, SOURCE | TARGET) && option[2..] != mac.0 {
                return false;
            }
            rest = after;
        }
        true
    }
}

/// The multicast address of a listener report or done (131, 132); `None` when it is cut short.
pub fn listener_group(payload: &[u8]) -> Option<Ipv6Addr> {
    (payload.len() >= 24).then(|| ipv6_address(payload, 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    /// A neighbour solicitation for 2001:db8::1 with these options; does it parse, and whose is it?
    fn check(options: &[u8], expected: Option<bool>) {
        let target: Ipv6Addr = "2001:db8::1".parse().expect("an address");
        let mut payload = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
        payload.extend(target.octets());
        payload.extend(options);
        let seen = message(NEIGHBOUR_SOLICITATION, &payload);
        assert_eq!(seen.map(|m| m.speaks_for(MAC)), expected, "{options:?}");
        if let Some(m) = seen {
            assert_eq!(m.target, Some(target));
        }
    }

    #[test]
    fn link_layer_options_name_one_mac() {
        check(&[], Some(true));
        check(&[1, 1, 2, 0, 0, 0, 0, 1], Some(true));
        check(&[2, 1, 2, 0, 0, 0, 0, 1], Some(true));
        check(&[1, 1, 2, 0, 0, 0, 0, 2], Some(false));
        check(
            &[14, 1, 9, 9, 9, 9, 9, 9, 1, 1, 2, 0, 0, 0, 0, 2],
            Some(false),
        );
        check(&[14, 1, 9, 9, 9, 9, 9, 9], Some(true));
    }

    #[test]
    fn a_link_layer_option_is_8_bytes_long() {
        check(
            &[1, 2, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            Some(false),
        );
    }

    #[test]
    fn options_end_where_the_message_ends() {
        check(&[1, 0, 2, 0, 0, 0, 0, 1], None);
        check(&[1, 2, 2, 0, 0, 0, 0, 1], None);
        check(&[1], None);
        check(&[1, 1, 2, 0, 0, 0, 0, 1, 0], None);
        check(&[14, 1, 0, 0, 0, 0, 0, 0].repeat(64), Some(true));
        check(&[14, 1, 0, 0, 0, 0, 0, 0].repeat(65), None);
    }

    #[test]
    fn fixed_parts_have_lengths() {
        for (icmp_type, fixed) in [(133, 8), (134, 16), (135, 24), (136, 24), (137, 40)] {
            assert!(message(icmp_type, &vec![0; fixed]).is_some(), "{icmp_type}");
            assert!(
                message(icmp_type, &vec![0; fixed - 1]).is_none(),
                "{icmp_type}"
            );
        }
        assert!(message(128, &[0; 40]).is_none());
        assert!(listener_group(&[0; 24]).is_some());
        assert!(listener_group(&[0; 23]).is_none());
    }
}

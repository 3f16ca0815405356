//! Zones of one direction alone, and an entry that the kernel made itself.

use super::{all, listed, timeless};
use crate::support::{alone, datagrams, tool, tool_fed};
use portcullis_netfilter::conntrack::{self, Filter, Outcome, Side};

/// Traffic whose zone is set by this statement makes an entry, which goes and comes back by us.
fn check(statement: &str, zone: u16, only: Option<Side>, looks: &'static str) {
    let rules = format!(
        "table inet t {{
            chain out {{ type filter hook output priority raw; ct {statement}; }}
            chain later {{ type filter hook output priority 0; ct state new counter; }}
        }}"
    );
    alone(move || {
        tool_fed("nft -f -", &rules);
        datagrams("127.0.0.1", 1);
        let [seen] = all()[..] else {
            panic!("one entry: {:?}", all())
        };
        assert_eq!((seen.zone, seen.zone_only), (zone, only));
        let told = || tool("conntrack -L");
        assert!(told().contains(looks), "{}", told());
        assert_eq!(
            listed(&Filter {
                zone: Some(zone),
                ..Filter::default()
            })
            .len(),
            1
        );
        assert_eq!(
            listed(&Filter {
                zone: Some(0),
                ..Filter::default()
            })
            .len(),
            0
        );

        conntrack::set_timeout(&seen, 600).unwrap();
        let seen = timeless(all()[0], 600);
        assert_eq!(conntrack::delete(&seen).unwrap(), Outcome::Done);
        assert_eq!(all(), []);
        assert_eq!(conntrack::create(&seen).unwrap(), Outcome::Done);
        assert_eq!(timeless(all()[0], 600), seen);
        assert!(told().contains(looks), "{}", told());
    });
}

#[test]
fn zones_of_both_directions_and_of_one() {
    check("zone set 7", 7, None, " zone=7 ");
    check(
        "original zone set 7",
        7,
        Some(Side::Original),
        " zone-orig=7 ",
    );
    check("reply zone set 7", 7, Some(Side::Reply), " zone-reply=7 ");
}

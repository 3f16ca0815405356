use super::*;
use crate::codec::tests::{bytes, damaged};

/// As Linux 6.18 told it, behind the netlink and netfilter headers: protocol, name, type, family,
/// revision, and in DATA the size of the hash, the most elements, bucket size, seed, references,
/// memory, elements.
const TOLD: &str = "
    05 00 01 00 06 00 00 00 09 00 02 00 70 63 2d 61 00 00 00 00
    12 00 03 00 68 61 73 68 3a 6e 65 74 2c 70 6f 72 74 00 00 00 05 00 05 00 02 00 00 00
    05 00 04 00 08 00 00 00 3c 00 07 80 08 00 12 40 00 00 04 00 08 00 13 40 00 01 00 00
    05 00 15 00 0c 00 00 00 08 00 11 40 c9 18 91 29 08 00 19 40 00 00 00 03
    08 00 1a 40 00 00 01 f8 08 00 18 40 00 00 00 01";

fn check(bytes: &[u8], expected: Option<Header>) {
    assert_eq!(read_header(bytes), expected);
}

#[test]
fn a_header_is_read_past_what_is_not_known() {
    let expected = Header {
        name: "pc-a".to_owned(),
        type_name: "hash:net,port".to_owned(),
        family: Some(Family::V4),
        elements: Some(1),
        references: 3,
    };
    check(&bytes(TOLD), Some(expected.clone()));
    let older = TOLD
        .replace("08 00 18 40 00 00 00 01", "")
        .replace("3c 00 07", "34 00 07");
    let elements = None;
    check(
        &bytes(&older),
        Some(Header {
            elements,
            ..expected
        }),
    );
}

#[test]
fn a_damaged_header_is_refused_or_another_one() {
    check(&[], None);
    for bytes in damaged(&bytes(TOLD)) {
        read_header(&bytes);
    }
}

#[test]
fn the_question_is_for_headers_alone() {
    let expected = "
        24 00 00 00 07 06 01 03 00 00 00 00 00 00 00 00 00 00 00 00
        05 00 01 00 06 00 00 00 08 00 06 40 00 00 00 04";
    assert_eq!(listing(None).bytes(), bytes(expected));
}

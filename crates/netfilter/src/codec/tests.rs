//! By hand-made bytes, in the order of little-endian machines where netlink takes the machine's.

use super::*;

/// Bytes from two hexadecimal digits each.
pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    hex.split_whitespace()
        .map(|pair| u8::from_str_radix(pair, 16).expect("two digits"))
        .collect()
}

/// Every beginning of it, and it with each byte made 0, 1 and 255.
pub(crate) fn damaged(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let cut = (0..bytes.len()).map(|length| bytes[..length].to_vec());
    let wrong = (0..bytes.len()).flat_map(|at| {
        [0, 1, 255].map(|value| {
            let mut bytes = bytes.to_vec();
            bytes[at] = value;
            bytes
        })
    });
    cut.chain(wrong)
}

const OBJECT: &str = "18 00 00 00 07 06 02 00 05 00 00 00 00 00 00 00 02 00 00 00 aa bb cc dd";
const DONE: &str = "14 00 00 00 03 00 02 00 05 00 00 00 00 00 00 00 00 00 00 00";
const REFUSED: &str = "14 00 00 00 02 00 00 00 07 00 00 00 00 00 00 00 fe ff ff ff";

fn check(hex: &str, expected: &[(u32, Content)]) {
    let bytes = bytes(hex);
    let seen: Vec<_> = messages(&bytes).map(|m| (m.seq, m.content)).collect();
    assert_eq!(seen, expected);
}

#[test]
fn a_datagram_is_read_message_by_message() {
    let object = Content::Object {
        family: 2,
        attributes: &[0xaa, 0xbb, 0xcc, 0xdd],
    };
    check(OBJECT, &[(5, object)]);
    check(DONE, &[(5, Content::Done { errno: 0 })]);
    check(
        REFUSED,
        &[(
            7,
            Content::Answer {
                errno: libc::ENOENT,
            },
        )],
    );
    check(
        &format!("{OBJECT} {DONE}"),
        &[(5, object), (5, Content::Done { errno: 0 })],
    );
}

#[test]
fn a_list_that_ended_by_an_error_says_so() {
    let failed = "14 00 00 00 03 00 02 00 05 00 00 00 00 00 00 00 f4 ff ff ff";
    check(
        failed,
        &[(
            5,
            Content::Done {
                errno: libc::ENOMEM,
            },
        )],
    );
    let says_nothing = "10 00 00 00 03 00 02 00 05 00 00 00 00 00 00 00";
    check(says_nothing, &[(5, Content::Done { errno: 0 })]);
    // The least number there is has no negation.
    let absurd = "14 00 00 00 02 00 00 00 07 00 00 00 00 00 00 00 00 00 00 80";
    check(absurd, &[(7, Content::Answer { errno: i32::MAX })]);
}

#[test]
fn an_interrupted_list_says_so() {
    let bytes = bytes("14 00 00 00 03 00 12 00 05 00 00 00 00 00 00 00 00 00 00 00");
    assert!(messages(&bytes).all(|message| message.interrupted));
}

#[test]
fn a_message_without_its_head_is_cut() {
    check(
        "12 00 00 00 07 06 02 00 05 00 00 00 00 00 00 00 02 00",
        &[(5, Content::Cut)],
    );
    check(
        "12 00 00 00 02 00 02 00 05 00 00 00 00 00 00 00 02 00",
        &[(5, Content::Cut)],
    );
}

#[test]
fn what_is_cut_short_or_lies_about_its_length_ends_the_reading() {
    check("", &[]);
    // Lengths of 0, of less than the header, of more than there is.
    for length in ["00 00 00 00", "0f 00 00 00", "19 00 00 00", "ff ff ff ff"] {
        check(&OBJECT.replacen("18 00 00 00", length, 1), &[]);
    }
    for bytes in damaged(&bytes(&format!("{OBJECT} {DONE}"))) {
        assert!(messages(&bytes).count() <= 2);
    }
}

#[test]
fn attributes_are_read_without_their_flags() {
    let row = bytes("05 00 01 80 aa 00 00 00 06 00 02 40 bb cc 00 00 04 00 03 00");
    let seen: Vec<_> = attributes(&row).collect();
    assert_eq!(seen, [(1, &[0xaa][..]), (2, &[0xbb, 0xcc]), (3, &[])]);
    assert_eq!(find(&row, 2).and_then(u16_value), Some(0xbbcc));
    assert_eq!(find(&row, 2).and_then(u32_value), None, "too short");
    assert_eq!(find(&row, 3).and_then(u8_value), None, "too short");
    assert_eq!(find(&row, 4), None);
}

#[test]
fn an_attribute_that_lies_about_its_length_ends_the_reading() {
    for hex in [
        "00 00 01 00 aa bb cc dd",
        "03 00 01 00 aa bb cc dd",
        "09 00 01 00 aa bb cc dd",
        "ff ff 01 00",
        "04 00 01",
        "",
    ] {
        assert_eq!(attributes(&bytes(hex)).count(), 0, "{hex}");
    }
}

#[test]
fn a_text_ends_at_its_first_zero() {
    assert_eq!(text_value(b"name\0rest"), "name");
    assert_eq!(text_value(b"name"), "name");
    assert_eq!(text_value(b"\xff\0"), "\u{fffd}");
}

#[test]
fn requests_are_numbered_padded_and_answered_at_the_end() {
    let mut requests = Requests::default();
    requests.push(0x0102, 0, 2, |body| body.put(1, &[0xaa]));
    requests.push(0x0100, NLM_F_CREATE, 10, |body| {
        body.nest(4, |body| body.put(2, &[0xbb, 0xcc]));
    });
    assert_eq!(requests.len(), 2);
    let expected = "
        1c 00 00 00 02 01 01 00 00 00 00 00 00 00 00 00 02 00 00 00 05 00 01 00 aa 00 00 00
        20 00 00 00 00 01 05 04 01 00 00 00 00 00 00 00 0a 00 00 00 0c 00 04 80
        06 00 02 00 bb cc 00 00";
    assert_eq!(requests.answered_at_the_end(), bytes(expected));
}

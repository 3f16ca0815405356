use super::*;

/// An entry of IPv4 whose length field may lie.
fn entry(says: u16, length: usize, fill: u8) -> Vec<u8> {
    let mut bytes = vec![fill; length];
    if let Some(field) = bytes.get_mut(90..92) {
        field.copy_from_slice(&says.to_ne_bytes());
    }
    bytes
}

fn info(entries: u32) -> Info {
    let mut info = info_question("filter").expect("a short name");
    info.0[INFO_ENTRIES_AT..INFO_SIZE_AT].copy_from_slice(&entries.to_ne_bytes());
    info
}

fn check(says: u32, entries: &[Vec<u8>], sound: bool) {
    let seen = digest(Family::V4, &info(says), &entries.concat());
    assert_eq!(seen.is_some(), sound);
}

#[test]
fn entries_that_add_up_are_hashed() {
    check(0, &[], true);
    check(1, &[entry(112, 112, 0)], true);
    check(2, &[entry(112, 112, 0), entry(152, 152, 0)], true);
}

#[test]
fn entries_that_do_not_add_up_are_refused() {
    check(1, &[], false);
    check(3, &[entry(112, 112, 0), entry(152, 152, 0)], false);
    // Lengths of 0, into the header, beyond the end; a rest too short to hold a length.
    for says in [0, 1, 92, 111, 113, u16::MAX] {
        check(1, &[entry(says, 112, 0)], false);
    }
    check(2, &[entry(112, 112, 0), vec![0; 91]], false);
    check(1, &[vec![0; 1]], false);
}

#[test]
fn every_byte_counts_but_the_counters() {
    let digest = |entry: &[u8]| digest(Family::V4, &info(1), entry).expect("sound");
    let plain = entry(160, 160, 0);
    for at in (0..160).filter(|at| !(90..92).contains(at)) {
        let mut other = plain.clone();
        other[at] = 1;
        let is_counter = (96..112).contains(&at);
        assert_eq!(digest(&other) == digest(&plain), is_counter, "byte {at}");
    }
}

#[test]
fn the_order_of_entries_counts() {
    let (a, b) = (entry(112, 112, 0), entry(112, 112, 1));
    let digest = |entries: &[&[u8]]| digest(Family::V4, &info(2), &entries.concat());
    assert_ne!(digest(&[&a, &b]), digest(&[&b, &a]));
}

#[test]
fn the_two_families_have_their_counters_elsewhere() {
    let mut bytes = vec![0; 168];
    bytes[142..144].copy_from_slice(&168u16.to_ne_bytes());
    let of = |bytes: &[u8]| digest(Family::V6, &info(1), bytes).expect("sound");
    let before = of(&bytes);
    bytes[152..168].fill(0xff);
    assert_eq!(of(&bytes), before);
}

#[test]
fn a_name_is_short() {
    assert!(info_question(&"n".repeat(31)).is_some());
    assert!(info_question(&"n".repeat(32)).is_none());
    let question = entries_question("filter", 512).expect("a short name");
    assert_eq!(question.len(), ENTRIES_HEADER + 512);
    assert_eq!(&question[..8], b"filter\0\0");
    assert_eq!(question[32..36], 512u32.to_ne_bytes());
}

//! A range of L4 ports as values with masks: OpenFlow has nothing else.

use model::L4PortRange;

/// The fewest that cover it exactly, in order: thirty at most.
pub(crate) fn masks(range: L4PortRange) -> Vec<(u16, u16)> {
    let (mut first, last) = (u32::from(range.first()), u32::from(range.last()));
    let mut masks = Vec::new();
    while first <= last {
        let aligned = first.trailing_zeros().min(16);
        let fits = (last - first + 1).ilog2();
        let bits = aligned.min(fits);
        masks.push((first as u16, (0xffff_u32 << bits) as u16));
        first += 1 << bits;
    }
    masks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(first: u16, last: u16, count: usize) {
        let range = L4PortRange::new(first, last).expect("in order");
        let masks = masks(range);
        assert_eq!(masks.len(), count, "{first}-{last}");
        for l4_port in 0..=u16::MAX {
            let hits = masks
                .iter()
                .filter(|(value, mask)| l4_port & mask == *value)
                .count();
            assert_eq!(hits, usize::from(range.contains(l4_port)), "{l4_port}");
        }
    }

    #[test]
    fn masks_cover_a_range_and_nothing_else() {
        check(80, 80, 1);
        check(0, 65_535, 1);
        check(1, 65_534, 30);
        check(8_000, 8_099, 3);
        check(0, 0, 1);
        check(65_535, 65_535, 1);
    }
}

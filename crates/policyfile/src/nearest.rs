//! Which name was probably meant.

/// The candidate with the fewest edits (insert, remove, replace or swap a character), if few enough
/// for a slip of the hand: one in three characters.
pub(crate) fn nearest<'c>(
    name: &str,
    candidates: impl IntoIterator<Item = &'c str>,
) -> Option<&'c str> {
    /// Beyond, a suggestion would cost more than it helps.
    const MAX_COMPARED: usize = 10_000;
    let name: Vec<char> = name.chars().take(80).collect();
    let allowed = (name.len() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .take(MAX_COMPARED)
        .filter(|c| c.len().abs_diff(name.len()) <= allowed)
        .map(|c| (edits(&name, c), c))
        .filter(|(edits, _)| *edits <= allowed)
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, c)| c)
}

/// For a message: the nearest candidate, or the first few of them.
pub fn suggestion<'c>(
    name: &str,
    what: &str,
    candidates: impl Iterator<Item = &'c str> + Clone,
) -> String {
    const SHOWN: usize = 8;
    if let Some(near) = nearest(name, candidates.clone()) {
        return format!("did you mean `{near}`?");
    }
    let shown: Vec<&str> = candidates.clone().take(SHOWN).collect();
    if shown.is_empty() {
        return format!("the file has no {what}");
    }
    let more = if candidates.count() > SHOWN {
        ", …"
    } else {
        ""
    };
    format!("{what} there are: {}{more}", shown.join(", "))
}

/// Edit distance with swaps of neighbours, upper and lower case taken as equal.
fn edits(name: &[char], other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=other.len()).collect();
    for i in 1..=name.len() {
        let mut row = vec![i; other.len() + 1];
        for j in 1..=other.len() {
            let same = name[i - 1].eq_ignore_ascii_case(&other[j - 1]);
            let replace = last[j - 1] + usize::from(!same);
            row[j] = replace.min(last[j] + 1).min(row[j - 1] + 1);
            let swap = i > 1 && j > 1 && name[i - 1] == other[j - 2] && name[i - 2] == other[j - 1];
            if swap {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, expected: Option<&str>) {
        let known = ["web", "db", "admin", "port-security", "ports"];
        assert_eq!(nearest(name, known), expected, "{name}");
    }

    #[test]
    fn a_slip_of_the_hand_is_recognized() {
        check("wbe", Some("web"));
        check("Web", Some("web"));
        check("port", Some("ports"));
        check("port_security", Some("port-security"));
        check("zzz", None);
        check("", None);
    }
}

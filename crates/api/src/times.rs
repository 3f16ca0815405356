//! Times as the API writes them: `2026-01-31T23:59:59Z`.

use control::objects::Seconds;

pub(crate) fn written(at: Seconds) -> String {
    let (year, month, day) = civil(at / 86_400);
    let second = at % 86_400;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Of RFC 3339, with or without fractions; what Keystone says of when a token ends.
pub(crate) fn read(text: &str) -> Option<Seconds> {
    let number = |at: std::ops::Range<usize>| text.get(at)?.parse::<u64>().ok();
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    let bytes = text.as_bytes();
    let shaped = separators.iter().all(|(at, b)| bytes.get(*at) == Some(b));
    if !shaped || !text.ends_with('Z') {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let clock = number(11..13)? * 3_600 + number(14..16)? * 60 + number(17..19)?;
    Some(days(year, month, day) * 86_400 + clock)
}

/// Years begin in March here, so that the leap day is a year's last. Days of months from March on are
/// 31, 30, 31, 30, 31, and again: 153 in five months.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // from the 1st of March of the year 0
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = match month {
        0..=9 => (month + 3, 0),
        _ => (month - 9, 1),
    };
    (era * 400 + year + next, month, day)
}

fn days(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = match month {
        3.. => (year, month - 3),
        _ => (year - 1, month + 9),
    };
    let (era, of_era) = (year / 400, year % 400);
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(at: Seconds, expected: &str) {
        assert_eq!(written(at), expected);
        assert_eq!(read(expected), Some(at));
    }

    #[test]
    fn times_are_written_and_read() {
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(1_709_164_800, "2024-02-29T00:00:00Z");
        check(1_735_689_599, "2024-12-31T23:59:59Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
    }

    #[test]
    fn each_day_has_its_own() {
        for day in 0..80_000 {
            let (year, month, of_month) = civil(day);
            assert_eq!(days(year, month, of_month), day);
        }
    }

    #[test]
    fn fractions_are_cut_and_nonsense_is_none() {
        assert_eq!(read("1970-01-01T00:00:01.999999Z"), Some(1));
        for text in [
            "",
            "1970-01-01",
            "1970-13-01T00:00:00Z",
            "19é0-01-01T00:00:00Z",
            "1970-01-01T00:00:00",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}

//! How long to wait before the next try. Agents are many, and lose a server at the same time: so by chance.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// Twice as long each time, up to a bound; between half of it and all of it.
pub(crate) fn backoff(failures: u32, first: Duration, longest: Duration) -> Duration {
    let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
    let whole = first.saturating_mul(doubled).min(longest);
    whole / 2 + up_to(whole / 2)
}

pub(crate) fn up_to(longest: Duration) -> Duration {
    longest.mul_f64(chance())
}

/// From 0 to 1. Each hasher of the standard library has keys at random.
fn chance() -> f64 {
    let number = RandomState::new().hash_one(0u8);
    (number >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(failures: u32, at_least_ms: u64, at_most_ms: u64) {
        let [first, longest] = [200, 30_000].map(Duration::from_millis);
        for _ in 0..100 {
            let pause = backoff(failures, first, longest);
            assert!(pause >= Duration::from_millis(at_least_ms), "{pause:?}");
            assert!(pause <= Duration::from_millis(at_most_ms), "{pause:?}");
        }
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        check(1, 100, 200);
        check(2, 200, 400);
        check(5, 1_600, 3_200);
        check(9, 15_000, 30_000);
        check(u32::MAX, 15_000, 30_000);
    }
}

//! What the rounds say: medians, and how sure they are.

use serde_json::{Value, json};

/// One figure over the rounds: its median, and an interval that holds the true one in at least 95 % of
/// all runs (by order statistics, so no distribution is assumed).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Median {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
}

impl Median {
    /// At least one sample; an interval of 95 % takes six.
    pub(super) fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let cut = outside(count);
        let middle = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0;
        Self {
            median: middle,
            low: sorted[cut],
            high: sorted[count - 1 - cut],
        }
    }

    pub(super) fn json(&self) -> Value {
        json!({ "median": self.median, "low": self.low, "high": self.high })
    }
}

/// How many samples at each end the interval leaves out: the most whose chance of hiding the median
/// there stays under 2.5 %.
fn outside(count: usize) -> usize {
    let mut cut = 0;
    let mut chance = 0.5f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut below = chance;
    // `below`: the chance that at most `cut` samples are below the median.
    while cut < (count - 1) / 2 {
        chance *= (count - cut) as f64 / (cut + 1) as f64;
        if below + chance > 0.025 {
            break;
        }
        below += chance;
        cut += 1;
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_samples_leave_one_out_at_each_end() {
        assert_eq!(outside(10), 1);
        assert_eq!(outside(5), 0);
        let samples: Vec<f64> = (1..=10).map(f64::from).collect();
        let median = Median::of(&samples);
        assert_eq!((median.low, median.median, median.high), (2.0, 5.5, 9.0));
    }
}

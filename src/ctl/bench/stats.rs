//! Latency histogram and medians: the arithmetic of the benchmark.
//!
//! Why an own one: a run of a minute records millions of latencies, and sorting them would cost
//! more memory than the servers under test. Values fall into buckets of equal width within each
//! power of two, so the relative error is bounded and memory is constant.
//!
//! How data passes: `record` on every operation, `quantile` once at the end.
//!
//! Invariants:
//! * A quantile is never below the true value, and at most 1/64 above it.
//! * The maximum is exact, and no quantile exceeds it.
//! * Memory is constant: 3,776 counters.
//!
//! Deliberately not here: units other than nanoseconds, and any clock.
//!
//! Sources: Gil Tene's HdrHistogram (the bucket layout).

/// Sub-buckets of each power of two, as a power of two: 64, which bounds the error at 1/64.
const SUB_BITS: u32 = 6;
/// Sub-buckets of each power of two.
const SUBS: usize = 1 << SUB_BITS;
/// Buckets that cover all of `u64`: the first two groups hold small values exactly.
const BUCKETS: usize = (64 - SUB_BITS as usize + 1) * SUBS;

/// Counts of latencies in nanoseconds.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max_ns: 0 }
    }
}

impl Histogram {
    /// Counts one latency of `ns` nanoseconds.
    pub fn record(&mut self, ns: u64) {
        if let Some(count) = self.counts.get_mut(bucket_of(ns)) {
            *count += 1;
            self.total += 1;
        }
        self.max_ns = self.max_ns.max(ns);
    }

    /// How many latencies were recorded.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// The longest latency in nanoseconds, 0 if none was recorded.
    #[must_use]
    pub fn max_ns(&self) -> u64 {
        self.max_ns
    }

    /// The latency in nanoseconds that a share of `thousandths` of all operations kept within,
    /// 0 if none was recorded.
    #[must_use]
    pub fn quantile_ns(&self, thousandths: u64) -> u64 {
        let wanted = (u128::from(self.total) * u128::from(thousandths)).div_ceil(1_000).max(1);
        let mut seen = 0_u128;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= wanted {
                return highest_of(bucket).min(self.max_ns);
            }
        }
        self.max_ns
    }
}

/// The bucket a value falls into.
fn bucket_of(value: u64) -> usize {
    let exponent = (u64::BITS - value.leading_zeros()).saturating_sub(SUB_BITS + 1);
    // After the shift the value has at most SUB_BITS + 1 bits, so it always fits.
    let mantissa = usize::try_from(value >> exponent).unwrap_or(usize::MAX);
    exponent as usize * SUBS + mantissa
}

/// The highest value that falls into a bucket.
fn highest_of(bucket: usize) -> u64 {
    let group = (bucket / SUBS).saturating_sub(1);
    let mantissa = (bucket - group * SUBS) as u64;
    // In 128 bits, because the end of the last bucket is 2^64 - 1.
    let above = u128::from(mantissa + 1) << group;
    u64::try_from(above - 1).unwrap_or(u64::MAX)
}

/// The median, the mean of the two middle values for an even count; `None` of nothing.
#[must_use]
pub fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = *sorted.get((sorted.len() - 1) / 2)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_ends_where_the_next_begins() {
        for bucket in 0..BUCKETS {
            let highest = highest_of(bucket);
            assert_eq!(bucket_of(highest), bucket, "highest {highest}");
            if highest < u64::MAX {
                assert_eq!(bucket_of(highest + 1), bucket + 1, "after {highest}");
            }
        }
        assert_eq!(highest_of(BUCKETS - 1), u64::MAX);
    }

    #[test]
    fn quantiles_are_within_a_sixty_fourth_of_the_truth() {
        let mut histogram = Histogram::default();
        let mut values = Vec::new();
        let mut value = 1_u64;
        for step in 0..10_000_u64 {
            value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(step | 1);
            values.push(value >> (20 + step % 40));
        }
        for value in &values {
            histogram.record(*value);
        }
        values.sort_unstable();
        for (thousandths, rank) in [(1, 10), (500, 5_000), (900, 9_000), (990, 9_900), (999, 9_990)]
        {
            let (truth, told) = (values[rank - 1], histogram.quantile_ns(thousandths));
            assert!(told >= truth && told - truth <= truth / 64, "{thousandths}: {truth} {told}");
        }
        assert_eq!(histogram.quantile_ns(1_000), *values.last().unwrap());
        assert_eq!(histogram.max_ns(), *values.last().unwrap());
        assert_eq!(histogram.total(), 10_000);
    }

    #[test]
    fn an_empty_histogram_says_zero() {
        assert_eq!(Histogram::default().quantile_ns(500), 0);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 4.0]), Some(4.0));
        assert_eq!(median(&[9.0, 1.0, 4.0, 5.0]), Some(4.5));
    }
}

//! Percentiles and confidence intervals.

/// The value below which `share` of the sorted values lie (nearest rank), 0 for none.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).or(sorted.last()).copied().unwrap_or_default()
}

/// The middle of values in any order.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile(&sorted, 0.5)
}

/// A ratio, and the interval that holds it with a confidence of 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Ratio {
    pub(crate) mean: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// How many times the rounds are drawn anew.
const DRAWS: usize = 10_000;

/// The geometric mean of the ratios of pairs, and its interval by the bootstrap (percentiles): each pair was measured one right after the
/// other, so that what slows the machine down for longer slows both.
pub(crate) fn ratio(pairs: &[(f64, f64)]) -> Ratio {
    let logs: Vec<f64> = pairs.iter().filter(|(one, other)| *one > 0.0 && *other > 0.0).map(|(one, other)| (one / other).ln()).collect();
    if logs.is_empty() {
        return Ratio { mean: f64::NAN, low: f64::NAN, high: f64::NAN };
    }
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / logs.len() as f64;
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut means: Vec<f64> = (0..DRAWS).map(|_| mean(&mut (0..logs.len()).map(|_| logs[random.below(logs.len())]))).collect();
    means.sort_by(f64::total_cmp);
    Ratio { mean: mean(&mut logs.iter().copied()).exp(), low: quantile(&means, 0.025).exp(), high: quantile(&means, 0.975).exp() }
}

/// xorshift64*: the same draws in each run.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    /// Below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }
}

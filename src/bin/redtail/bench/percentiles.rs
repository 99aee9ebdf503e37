//! Percentiles of many durations.

use serde_json::{Value as Json, json};
use std::fmt;
use std::time::Duration;

/// A distribution in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Percentiles {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
    pub count: usize,
}

impl Percentiles {
    pub fn of(mut samples: Vec<Duration>) -> Self {
        samples.sort_unstable();
        // The nearest rank: the smallest sample that is not below that share of all.
        let at = |share: usize| {
            let rank = (samples.len() * share).div_ceil(100).max(1) - 1;
            samples.get(rank).map_or(0.0, |d| d.as_secs_f64() * 1e3)
        };
        Self { p50: at(50), p90: at(90), p99: at(99), max: at(100), count: samples.len() }
    }

    /// What [`Percentiles::json`] made.
    pub fn from_json(said: &Json) -> Self {
        let number = |key: &str| said.get(key).and_then(Json::as_f64).unwrap_or_default();
        let count = said.get("count").and_then(Json::as_u64).and_then(|n| usize::try_from(n).ok());
        Self {
            p50: number("p50"),
            p90: number("p90"),
            p99: number("p99"),
            max: number("max"),
            count: count.unwrap_or_default(),
        }
    }

    pub fn json(&self) -> Json {
        let ms = |x: f64| (x * 1e4).round() / 1e4;
        json!({ "p50": ms(self.p50), "p90": ms(self.p90), "p99": ms(self.p99), "max": ms(self.max), "count": self.count })
    }
}

/// Shares at which a distribution is plotted: nines, in steps.
const SHARES: [f64; 22] = [
    0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995,
    0.998, 0.999, 0.9995, 0.9999,
];

/// A distribution as points `[share, milliseconds]`.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
pub fn curve(samples: &[Duration]) -> Json {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    let at = |share: f64| sorted.get(((sorted.len() as f64 * share).ceil() as usize).max(1) - 1);
    SHARES.iter().filter_map(|share| at(*share).map(|d| json!([share, d.as_secs_f64() * 1e3]))).collect()
}

/// Moments into which a run is divided for a plot over time.
const MOMENTS: usize = 160;

/// The longest of each moment of a run, as points `[seconds, milliseconds]`; samples come at this rate a second.
#[allow(clippy::cast_precision_loss)]
pub fn timeline(samples: &[Duration], rate: u32) -> Json {
    let width = samples.len().div_ceil(MOMENTS).max(1);
    let moments = samples.chunks(width).enumerate();
    let longest = |chunk: &[Duration]| chunk.iter().max().map_or(0.0, |d| d.as_secs_f64() * 1e3);
    moments.map(|(n, chunk)| json!([(n * width) as f64 / f64::from(rate), longest(chunk)])).collect()
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:.3} ms, p90 {:.3} ms, p99 {:.3} ms, max {:.3} ms",
            self.p50, self.p90, self.p99, self.max
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_nearest_ranks() {
        let p = Percentiles::of((1..=200).map(Duration::from_millis).collect());
        assert_eq!(p.json(), json!({ "p50": 100.0, "p90": 180.0, "p99": 198.0, "max": 200.0, "count": 200 }));
        assert_eq!(Percentiles::of(Vec::new()).count, 0);
    }

    #[test]
    fn a_timeline_has_the_longest_of_each_moment() {
        let samples: Vec<Duration> = (0..320).map(|n| Duration::from_millis(n % 100)).collect();
        let line = timeline(&samples, 100);
        assert_eq!(line.as_array().map(Vec::len), Some(160));
        assert_eq!((line.get(0), line.get(159)), (Some(&json!([0.0, 1.0])), Some(&json!([3.18, 19.0]))));
        assert_eq!(timeline(&[], 100), json!([]));
    }
}

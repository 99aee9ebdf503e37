//! How long to wait before trying again: exponential with jitter, and it never gives up.
//!
//! The only file that names `backoff`, which is unmaintained (deny.toml has the reason it is here).

use backoff::backoff::Backoff as _;
use backoff::{ExponentialBackoff, ExponentialBackoffBuilder};
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(5);

pub(crate) struct Retry(ExponentialBackoff);

impl Retry {
    pub fn new() -> Self {
        let builder = &mut ExponentialBackoffBuilder::new();
        builder.with_initial_interval(FIRST).with_max_interval(LONGEST).with_multiplier(2.0);
        // backoff's own default is to give up after 15 minutes.
        builder.with_randomization_factor(0.5).with_max_elapsed_time(None);
        Self(builder.build())
    }

    /// How long to wait before the next try.
    pub fn pause(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(LONGEST)
    }

    /// Something worked: the next failure starts with a short pause again.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_never_end() {
        let mut retry = Retry::new();
        let pauses: Vec<Duration> = (0..1_000).map(|_| retry.pause()).collect();
        assert!(pauses[0] <= FIRST * 2 && pauses.iter().all(|p| *p <= LONGEST * 2));
        assert!(pauses[999] >= LONGEST / 2);
        retry.reset();
        assert!(retry.pause() <= FIRST * 2);
    }
}

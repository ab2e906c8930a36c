//! How often something may be done: a token bucket, growing pauses, and jitter.

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

/// Tokens that come back at a steady rate.
#[derive(Debug)]
pub(super) struct TokenBucket {
    per_second: f64,
    burst: f64,
    tokens: f64,
    at: Option<Instant>,
}

impl TokenBucket {
    pub(super) fn new(per_second: f64, burst: u32) -> Self {
        Self {
            per_second,
            burst: f64::from(burst),
            tokens: f64::from(burst),
            at: None,
        }
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        self.take_spare(now, 0.0)
    }

    /// Takes a token, if more than this part of a burst is left for others.
    pub(super) fn take_spare(&mut self, now: Instant, reserve: f64) -> bool {
        let passed = self
            .at
            .map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.at = Some(self.at.map_or(now, |at| at.max(now)));
        self.tokens = self
            .per_second
            .mul_add(passed.as_secs_f64(), self.tokens)
            .min(self.burst);
        let taken = self.tokens >= self.burst.mul_add(reserve, 1.0);
        if taken {
            self.tokens -= 1.0;
        }
        taken
    }
}

/// Pauses that double with each failure in a row.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }

    /// It went well.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed: how long to wait, between a half and the whole of a doubling pause.
    pub(super) fn fail(&mut self, jitter: &mut Jitter) -> Duration {
        let factor = 1u32.checked_shl(self.failures.min(20)).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let pause = self.first.saturating_mul(factor).min(self.longest);
        jitter.between(pause / 2, pause)
    }
}

/// Spreads what many agents do over time. Nothing here need be unpredictable.
#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    /// One that starts elsewhere in every process.
    pub(super) fn new() -> Self {
        Self(RandomState::new().hash_one(std::process::id()))
    }

    /// The next random number.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        splitter_common::pick::mix(self.0)
    }

    /// A time between two.
    pub(super) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        // 24 bits are fine enough, and exact as a float.
        let part = (self.next() >> 40) as f64 / f64::from(1u32 << 24);
        least + most.saturating_sub(least).mul_f64(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_the_rate() {
        let start = Instant::now();
        let mut bucket = TokenBucket::new(10.0, 50);
        let at = |tenths: u64| start + Duration::from_millis(100 * tenths);
        assert_eq!((0..100).filter(|_| bucket.take(start)).count(), 50);
        let taken = (1..=100)
            .flat_map(|tenths| std::iter::repeat_n(tenths, 5))
            .filter(|tenths| bucket.take(at(*tenths)))
            .count();
        assert!((99..=100).contains(&taken), "{taken} in ten seconds");
    }

    #[test]
    fn pauses_grow_up_to_the_longest_and_start_again_after_a_success() {
        let mut jitter = Jitter(7);
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        for most in [1, 2, 4, 8, 16, 32, 60, 60] {
            let pause = backoff.fail(&mut jitter);
            let most = Duration::from_secs(most);
            assert!(pause >= most / 2 && pause <= most, "{pause:?} of {most:?}");
        }
        for _ in 0..100 {
            assert!(backoff.fail(&mut jitter) <= Duration::from_secs(60));
        }
        backoff.reset();
        assert!(backoff.fail(&mut jitter) <= Duration::from_secs(1));
    }
}

//! How long to wait before the API server is asked again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// Delay after the first failure.
const SHORTEST: Duration = Duration::from_millis(800);
/// No delay of our own is longer.
const LONGEST: Duration = Duration::from_secs(30);
/// Without a failure for so long, the next one is a first one again.
const QUIET: Duration = Duration::from_secs(120);
/// What the server asks for is obeyed up to here.
const LONGEST_ASKED_FOR: Duration = Duration::from_secs(120);

/// Delays that double with each failure, from 0.8 s to 30 s.
///
/// Only a complete list, or a long time without a failure, brings the first delay back: a
/// request that is accepted says nothing yet, and a server whose every answer breaks off
/// half-way must not be asked more often than one that refuses.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    failed: Option<Instant>,
}

impl Backoff {
    /// No failure yet.
    pub(super) const fn new() -> Self {
        Self {
            next: SHORTEST,
            failed: None,
        }
    }

    /// The delay after a failure at `now`. The server may have asked for a longer one.
    pub(super) fn after_failure(&mut self, now: Instant, asked_for: Option<Duration>) -> Duration {
        if self.failed.is_some_and(|before| now - before >= QUIET) {
            self.reset();
        }
        self.failed = Some(now);
        let delay = self.next;
        self.next = (delay * 2).min(LONGEST);
        // Between a half and the whole, so that agents that failed together do not come
        // back together.
        let own = delay / 2 + up_to(delay / 2);
        let asked_for = asked_for.unwrap_or_default().min(LONGEST_ASKED_FOR);
        if asked_for > own {
            // Never before the moment asked for, but not all agents at that moment.
            asked_for + up_to(SHORTEST)
        } else {
            own
        }
    }

    /// Everything was listed: the next failure is a first one.
    pub(super) const fn reset(&mut self) {
        self.next = SHORTEST;
        self.failed = None;
    }
}

/// A random time up to `most`. Nothing secret depends on it, so that the randomness of
/// the standard library's hash maps is good enough.
pub(super) fn up_to(most: Duration) -> Duration {
    let random = RandomState::new().hash_one(0) >> 32;
    most.mul_f64(random as f64 / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_half_a_minute() {
        let mut backoff = Backoff::new();
        let now = Instant::now();
        for whole in [0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0] {
            let delay = backoff.after_failure(now, None).as_secs_f64();
            assert!(
                (whole / 2.0..=whole + 1e-6).contains(&delay),
                "{delay} {whole}"
            );
        }
    }

    #[test]
    fn a_complete_list_or_a_long_quiet_time_starts_anew() {
        let mut backoff = Backoff::new();
        let start = Instant::now();
        for _ in 0..8 {
            backoff.after_failure(start, None);
        }
        let soon = start + QUIET - Duration::from_secs(1);
        assert!(backoff.after_failure(soon, None) >= LONGEST / 2);
        assert!(backoff.after_failure(soon + QUIET, None) <= SHORTEST);
        backoff.reset();
        assert!(backoff.after_failure(soon + QUIET, None) <= SHORTEST);
    }

    #[test]
    fn what_the_server_asks_for_is_obeyed_within_reason() {
        let mut backoff = Backoff::new();
        let now = Instant::now();
        let asked_for = |seconds| Some(Duration::from_secs(seconds));
        assert!(backoff.after_failure(now, asked_for(7)) >= Duration::from_secs(7));
        let delay = backoff.after_failure(now, asked_for(u64::MAX));
        assert!(delay <= LONGEST_ASKED_FOR + SHORTEST);
        for _ in 0..8 {
            backoff.after_failure(now, None);
        }
        assert!(backoff.after_failure(now, asked_for(1)) >= LONGEST / 2);
    }

    #[test]
    fn random_times_stay_within_their_bound_and_differ() {
        let most = Duration::from_secs(2);
        let times: Vec<_> = (0..100).map(|_| up_to(most)).collect();
        assert!(times.iter().all(|time| *time <= most));
        assert!(times.iter().any(|time| *time != times[0]));
        assert_eq!(up_to(Duration::ZERO), Duration::ZERO);
    }
}

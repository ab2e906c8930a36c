//! The results of the self-test so far.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::causes::with_causes;

use super::SelfTestError;

/// The results of the self-test; a handle that can be cloned.
#[derive(Clone, Debug, Default)]
pub struct SelfTestState(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    succeeded: Option<(Instant, SystemTime)>,
    /// Since when it fails, and why it last did.
    failing: Option<(Instant, String)>,
    failures: u64,
}

/// What [`SelfTestState`] says at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelfTestStatus {
    /// Time since it last passed; `None` before the first time.
    pub since_success: Option<Duration>,
    /// When it last passed.
    pub last_success: Option<SystemTime>,
    /// Why it fails; `None` if it passed when it was last run, or was not run yet.
    pub failure: Option<SelfTestFailure>,
    /// How often it has failed.
    pub failures: u64,
}

/// Why the self-test fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfTestFailure {
    /// Time since the first failure in a row.
    pub since: Duration,
    /// What the last one was, in a sentence for people.
    pub message: String,
}

impl SelfTestStatus {
    /// Whether it was run, and passed the last time.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.failure.is_none() && self.since_success.is_some()
    }
}

impl SelfTestState {
    /// What is the case now.
    #[must_use]
    pub fn status(&self) -> SelfTestStatus {
        let inner = self.lock();
        SelfTestStatus {
            since_success: inner.succeeded.map(|(at, _)| at.elapsed()),
            last_success: inner.succeeded.map(|(_, at)| at),
            failure: inner
                .failing
                .as_ref()
                .map(|(since, message)| SelfTestFailure {
                    since: since.elapsed(),
                    message: message.clone(),
                }),
            failures: inner.failures,
        }
    }

    /// Notes a result, and logs it if it is not what it was before.
    pub(super) fn record(&self, result: Result<(), SelfTestError>) {
        let mut inner = self.lock();
        match result {
            Ok(()) => {
                if inner.failing.take().is_some() || inner.succeeded.is_none() {
                    tracing::info!("self-test: a connection was split");
                }
                inner.succeeded = Some((Instant::now(), SystemTime::now()));
            }
            Err(error) => {
                let message = with_causes(&error);
                inner.failures += 1;
                let (since, before) = inner.failing.take().unzip();
                if before.as_ref() != Some(&message) {
                    tracing::warn!("self-test: {message}");
                }
                inner.failing = Some((since.unwrap_or_else(Instant::now), message));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every write is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_are_told_since_the_first_and_end_with_a_success() {
        let state = SelfTestState::default();
        assert_eq!(state.status(), SelfTestStatus::default());
        state.record(Err(SelfTestError::Stranger));
        let pause = Duration::from_millis(5);
        std::thread::sleep(pause);
        state.record(Err(SelfTestError::Helper("is gone".to_owned())));
        let status = state.status();
        let failure = status.failure.clone().expect("a failure");
        assert!(failure.since >= pause);
        assert!(failure.message.contains("is gone"), "{}", failure.message);
        assert!(!status.passes());

        state.record(Ok(()));
        let status = state.status();
        assert!(status.passes());
        assert_eq!((status.failures, status.failure), (2, None));
    }
}

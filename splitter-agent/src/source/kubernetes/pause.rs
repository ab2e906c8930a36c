//! Waiting before the API server is asked.

use std::future::pending;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// A wait until a moment, or until another feed reaches the server.
#[derive(Debug)]
pub(super) struct Pause {
    /// `None` if it is over.
    until: Option<Instant>,
    reached: Option<watch::Receiver<()>>,
}

impl Pause {
    /// A wait until a moment.
    pub(super) const fn until(moment: Instant) -> Self {
        Self {
            until: Some(moment),
            reached: None,
        }
    }

    /// The same, which is over earlier if another feed reaches the server.
    pub(super) const fn until_reached(moment: Instant, reached: watch::Receiver<()>) -> Self {
        Self {
            until: Some(moment),
            reached: Some(reached),
        }
    }

    /// When it is over at the latest; `None` if it is.
    pub(super) const fn end(&self) -> Option<Instant> {
        self.until
    }

    /// Waits for the rest of it. May be dropped at any time.
    ///
    /// Once it is over, this returns without a look at the clock: timers are as fine as a
    /// millisecond, and of a list an object arrives in a few hundredths of that.
    pub(super) async fn over(&mut self) {
        let Some(moment) = self.until else {
            return;
        };
        let reached = &mut self.reached;
        let early = async {
            match reached {
                Some(reached) => {
                    // It ends with the source.
                    let _ = reached.changed().await;
                }
                None => pending().await,
            }
        };
        tokio::select! {
            () = sleep_until(moment) => {}
            () = early => {}
        }
        *self = Self {
            until: None,
            reached: None,
        };
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use futures_util::poll;

    use super::*;

    #[tokio::test]
    async fn what_is_over_is_over_at_once_when_it_is_asked_again() {
        let mut pause = Pause::until(Instant::now());
        pause.over().await;
        assert_eq!(pause.end(), None);
        for _ in 0..100 {
            assert!(poll!(pin!(pause.over())).is_ready());
        }
    }

    #[tokio::test]
    async fn it_goes_on_when_it_was_dropped_and_ends_when_the_server_is_reached() {
        let reached = watch::Sender::new(());
        let moment = Instant::now() + Duration::from_secs(3600);
        let mut pause = Pause::until_reached(moment, reached.subscribe());
        for _ in 0..3 {
            assert!(poll!(pin!(pause.over())).is_pending());
            assert_eq!(pause.end(), Some(moment));
        }
        reached.send_replace(());
        pause.over().await;
        assert_eq!(pause.end(), None);
    }
}

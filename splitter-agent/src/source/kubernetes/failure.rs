//! What a failure to list or to watch means, and what to do about it.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use kube::core::Status;

use super::steps;

use crate::causes::with_causes;

/// The sort of a failure, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Code {
    /// The server answered with this HTTP status.
    Status(u16),
    /// The server could not be reached, or the connection broke.
    Connection,
    /// The answer was not what an API server says.
    Content,
    /// This client's credentials could not be read.
    Credentials,
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => write!(f, "{status}"),
            Self::Connection => f.write_str("connection"),
            Self::Content => f.write_str("content"),
            Self::Credentials => f.write_str("credentials"),
        }
    }
}

/// How to go on after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The same again: from where the watch broke off, if there is one.
    Again,
    /// List everything anew.
    List,
    /// List everything anew, this time not as a stream.
    ListAsAWhole,
    /// The same, for every kind and for a long time: this server cannot stream lists.
    NeverStream,
}

/// A failure to list or to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WatchFailure {
    /// Its sort.
    pub(super) code: Code,
    /// What happened, for people.
    pub(super) message: String,
    /// The delay that the server asks for.
    pub(super) asked_for: Option<Duration>,
    /// How to go on.
    pub(super) remedy: Remedy,
    /// Whether the server has not come to the resource version that it was asked for, as after
    /// its database was restored: what is known is of no use then.
    pub(super) is_ahead: bool,
}

impl WatchFailure {
    /// Judges an error. `streaming` says whether lists are streamed, `listing` whether the list
    /// was not complete yet.
    pub(super) fn of(error: &steps::Error, streaming: bool, listing: bool) -> Self {
        use steps::Error::{
            Broken, EndedAtOnce, FeedEvent, List, ListEnded, ListStalled, NoVersion, Start,
        };
        let cannot_stream = streaming && listing;
        match error {
            List(error) => Self::of_client(error),
            Broken(error) => {
                let failure = Self::of_client(error);
                let remedy = match failure.code {
                    // The watch would go on behind what could not be read.
                    Code::Content => Remedy::List,
                    _ => Remedy::Again,
                };
                Self { remedy, ..failure }
            }
            Start(error) => {
                let failure = Self::of_client(error);
                let remedy = match failure.code {
                    // The server does not know, or does not want, the parameters of
                    // a streamed list.
                    Code::Status(400 | 422) if cannot_stream => Remedy::NeverStream,
                    // What is asked for is too old.
                    Code::Status(410) => Remedy::List,
                    _ if failure.is_ahead => Remedy::List,
                    _ => Remedy::Again,
                };
                Self { remedy, ..failure }
            }
            FeedEvent(status) => {
                let failure = Self::of_status(status);
                let remedy = match status.code {
                    410 => Remedy::List,
                    _ if failure.is_ahead => Remedy::List,
                    // An etcd without progress notifications shows only here.
                    code if cannot_stream && !is_busy(code) => Remedy::ListAsAWhole,
                    _ => Remedy::Again,
                };
                Self { remedy, ..failure }
            }
            ListEnded => Self {
                // Perhaps it waited for a version that never came.
                is_ahead: true,
                ..Self::new(Code::Connection, "the list ended before it was complete")
            },
            ListStalled => Self {
                // Each further one would take as long to be found out.
                remedy: Remedy::NeverStream,
                is_ahead: true,
                ..Self::new(Code::Connection, "the list stopped before it was complete")
            },
            EndedAtOnce => Self::new(
                Code::Connection,
                "the watch ended at once and without having told anything",
            ),
            NoVersion => Self {
                remedy: Remedy::List,
                ..Self::new(Code::Content, "the answer has no resourceVersion")
            },
        }
    }

    fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            asked_for: None,
            remedy: Remedy::Again,
            is_ahead: false,
        }
    }

    /// Judges an error of a single request.
    pub(super) fn of_client(error: &kube::Error) -> Self {
        use kube::Error::{Api, Auth, FromUtf8, LinesCodecMaxLineLengthExceeded, SerdeError};
        let code = match error {
            Api(status) => return Self::of_status(status),
            SerdeError(_) | FromUtf8(_) | LinesCodecMaxLineLengthExceeded => Code::Content,
            Auth(_) => Code::Credentials,
            _ => Code::Connection,
        };
        Self::new(code, with_causes(error))
    }

    fn of_status(status: &Status) -> Self {
        let details = status.details.as_ref();
        let seconds = details.map_or(0, |details| details.retry_after_seconds);
        let message = match status.message.trim() {
            "" => Cow::Owned(format!("HTTP status {} {}", status.code, status.reason)),
            message => Cow::Borrowed(message),
        };
        let mut causes = details.into_iter().flat_map(|details| &details.causes);
        Self {
            asked_for: (seconds > 0).then(|| Duration::from_secs(seconds.into())),
            is_ahead: causes.any(|cause| cause.reason == "ResourceVersionTooLarge"),
            ..Self::new(Code::Status(status.code), message)
        }
    }

    /// Whether the server only asks to wait, as it does for a moment when it starts to
    /// serve a definition.
    pub(super) fn is_busy(&self) -> bool {
        self.code == Code::Status(429)
    }

    /// Whether this client is not allowed what it asked for.
    pub(super) fn is_forbidden(&self) -> bool {
        self.code == Code::Status(403)
    }
}

/// Whether the server could do at another moment what it cannot do now.
const fn is_busy(code: u16) -> bool {
    matches!(code, 429 | 503 | 504)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> Box<Status> {
        Box::new(Status {
            code,
            message: "no".to_owned(),
            ..Status::default()
        })
    }

    fn start_failed(code: u16) -> steps::Error {
        steps::Error::Start(kube::Error::Api(status(code)))
    }

    fn told(code: u16) -> steps::Error {
        steps::Error::FeedEvent(status(code))
    }

    #[test]
    fn a_server_that_does_not_know_streamed_lists_is_not_asked_for_them() {
        for error in [start_failed(422), start_failed(400)] {
            let remedy = |streaming, listing| WatchFailure::of(&error, streaming, listing).remedy;
            assert_eq!(remedy(true, true), Remedy::NeverStream);
            assert_eq!(remedy(false, true), Remedy::Again);
            assert_eq!(remedy(true, false), Remedy::Again);
        }
    }

    #[test]
    fn an_error_in_a_streamed_list_is_answered_with_one_that_is_not() {
        for error in [told(500), told(400)] {
            let remedy = |streaming, listing| WatchFailure::of(&error, streaming, listing).remedy;
            assert_eq!(remedy(true, true), Remedy::ListAsAWhole);
            assert_eq!(remedy(false, true), Remedy::Again);
            assert_eq!(remedy(true, false), Remedy::Again);
        }
    }

    #[test]
    fn a_streamed_list_that_stopped_is_not_streamed_again() {
        let failure = WatchFailure::of(&steps::Error::ListStalled, true, true);
        assert_eq!(failure.remedy, Remedy::NeverStream);
    }

    #[test]
    fn a_server_whose_database_was_restored_is_asked_for_what_it_has() {
        let mut behind = status(504);
        behind.details = serde_json::from_str(
            r#"{"causes": [{"reason": "ResourceVersionTooLarge", "message": "m"}]}"#,
        )
        .unwrap();
        for error in [
            steps::Error::Start(kube::Error::Api(behind.clone())),
            steps::Error::FeedEvent(behind),
        ] {
            let failure = WatchFailure::of(&error, true, false);
            assert!(failure.is_ahead);
            assert_eq!(failure.remedy, Remedy::List);
        }
        assert!(!WatchFailure::of(&told(504), true, false).is_ahead);
    }

    #[test]
    fn a_server_that_refuses_or_is_busy_may_be_able_to() {
        for code in [401, 403, 404, 429, 500, 503] {
            let failure = WatchFailure::of(&start_failed(code), true, true);
            assert_eq!(failure.remedy, Remedy::Again, "{code}");
            assert_eq!(failure.code, Code::Status(code));
            assert_eq!(failure.is_forbidden(), code == 403);
        }
        for code in [429, 503, 504] {
            let failure = WatchFailure::of(&told(code), true, true);
            assert_eq!(failure.remedy, Remedy::Again, "{code}");
        }
    }

    #[test]
    fn what_is_too_old_is_listed_anew_wherever_it_is_said() {
        for error in [start_failed(410), told(410)] {
            for (streaming, listing) in [(true, true), (true, false), (false, false)] {
                let failure = WatchFailure::of(&error, streaming, listing);
                assert_eq!(failure.remedy, Remedy::List);
            }
        }
    }

    #[test]
    fn the_delay_that_the_server_asks_for_is_seen() {
        let mut busy = status(429);
        assert_eq!(WatchFailure::of_status(&busy).asked_for, None);
        busy.details = serde_json::from_str(r#"{"retryAfterSeconds": 7}"#).unwrap();
        let failure = WatchFailure::of_client(&kube::Error::Api(busy));
        assert_eq!(failure.asked_for, Some(Duration::from_secs(7)));
    }

    #[test]
    fn what_is_no_answer_of_an_api_server_is_told_apart() {
        let garbage = serde_json::from_str::<u8>("<html>").unwrap_err();
        let garbage = steps::Error::Broken(kube::Error::SerdeError(garbage));
        let failure = WatchFailure::of(&garbage, true, false);
        assert_eq!(failure.code, Code::Content);
        assert_eq!(failure.remedy, Remedy::List);
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let failure = WatchFailure::of_client(&kube::Error::ReadEvents(refused));
        assert_eq!(failure.code, Code::Connection);
    }
}

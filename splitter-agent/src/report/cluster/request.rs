//! Requests to the API server: bounded in time, and what their failure means.

use std::future::Future;
use std::time::Duration;

use kube::core::Status;

use crate::causes::with_causes;

/// How long a request may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// It was not answered in time.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The API server refused it.
    #[error("{}", .0.message)]
    Refused(Box<Status>),
    /// It could not be sent, or its answer not be read.
    #[error("{}", with_causes(.0))]
    Transport(#[source] kube::Error),
}

/// What a failure means for what was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// The agent may not do that; everything like it fails until somebody changes its role.
    Forbidden,
    /// There is already such an object, or it is another by now.
    Conflict,
    /// There is no such object.
    NotFound,
    /// The API server will not take this, however often it is asked.
    Rejected,
    /// It may go well later.
    Passing,
}

/// Sends a request, for no longer than so much time.
pub(super) async fn send<T>(
    request: impl Future<Output = kube::Result<T>>,
    most: Duration,
) -> Result<T, RequestError> {
    let most = most.min(PATIENCE);
    match tokio::time::timeout(most, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(RequestError::Refused(status)),
        Ok(Err(error)) => Err(RequestError::Transport(error)),
        Err(_) => Err(RequestError::Timeout(most)),
    }
}

impl RequestError {
    /// For a metric.
    pub(super) fn code(&self) -> String {
        match self {
            Self::Timeout(_) => "timeout".to_owned(),
            Self::Refused(status) => status.code.to_string(),
            Self::Transport(_) => "transport".to_owned(),
        }
    }

    pub(super) fn meaning(&self) -> Meaning {
        let Self::Refused(status) = self else {
            return Meaning::Passing;
        };
        match status.code {
            // In a namespace that is being deleted nothing can be created: that is not for
            // want of a role, and other namespaces are not concerned.
            403 if has_cause(status, "NamespaceTerminating") => Meaning::Rejected,
            403 => Meaning::Forbidden,
            404 => Meaning::NotFound,
            409 => Meaning::Conflict,
            400 | 405 | 413 | 415 | 422 => Meaning::Rejected,
            _ => Meaning::Passing,
        }
    }
}

fn has_cause(status: &Status, reason: &str) -> bool {
    status
        .details
        .as_ref()
        .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == reason))
}

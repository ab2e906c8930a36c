//! Feedback to the cluster: Events on objects, and a status where they have one, written by
//! one agent for all.
//!
//! Every agent follows its [`DiagnosticStore`]; the one that holds the Lease writes. Diagnostics
//! depend on the objects alone, so they are the same whichever agent writes them.

mod candidate;
mod conditions;
mod election;
mod event;
mod findings;
mod lanes;
mod limit;
mod metrics;
mod parents;
mod request;
#[cfg(test)]
mod sample;
mod settle;
mod shared;
mod status;
mod writer;

use std::future::Future;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;

pub use findings::Pace;
pub use metrics::Metrics;

use self::candidate::Candidate;
use self::limit::Jitter;
use self::writer::Writer;
use super::DiagnosticStore;
pub use crate::source::kubernetes::{ServedVersion, ServedVersions};

/// Who writes: the reporting controller of Events, and the field manager of statuses.
pub const REPORTER: &str = "splitter.dev/agent";

/// How feedback is written.
#[derive(Clone, Debug, PartialEq)]
pub struct ReportSettings {
    /// The agent's namespace, where the Lease is.
    pub namespace: String,
    /// Name of the Lease.
    pub lease: String,
    /// Name of this agent among all others, best that of its pod. Should it be empty, a
    /// random one is used.
    pub identity: String,
    /// How long a leader that is silent is waited for; no less than a second. It renews its
    /// Lease four times as often, and gives up after two thirds of this.
    pub lease_duration: Duration,
    /// Longest pause between attempts while the API server does not answer or refuses.
    pub longest_pause: Duration,
    /// How often Events are written.
    pub pace: Pace,
}

impl ReportSettings {
    /// The defaults, for an agent of this name in this namespace.
    pub fn new(namespace: impl Into<String>, identity: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            lease: "splitter-agent".to_owned(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(60),
            longest_pause: Duration::from_secs(60),
            pace: Pace::default(),
        }
    }
}

/// Stands for election and, while elected, writes Events and statuses; until `shutdown` is
/// over. Then it gives the Lease back, which takes no longer than a few requests.
///
/// Nothing that the API server does makes this end or fail: what cannot be written is tried
/// again, with growing pauses, while it is still so.
pub async fn run(
    client: Client,
    store: DiagnosticStore,
    served: watch::Receiver<ServedVersions>,
    mut settings: ReportSettings,
    metrics: Metrics,
    shutdown: impl Future<Output = ()> + Send,
) {
    if settings.identity.is_empty() {
        // A holder without a name would be none.
        settings.identity = format!("agent-{:016x}", Jitter::new().next());
    }
    let mut candidate = Candidate::new(client.clone(), &settings, metrics.clone());
    let mut writer = Writer::new(
        client,
        &store,
        served,
        candidate.subscribe(),
        settings,
        metrics,
    );
    tokio::select! {
        () = candidate.campaign() => {}
        () = writer.write() => {}
        () = shutdown => {}
    }
    candidate.release().await;
}

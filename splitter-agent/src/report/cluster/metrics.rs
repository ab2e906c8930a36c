//! What feedback to the cluster tells of itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of what was written, and whether this agent is the one that writes; a handle
/// that can be cloned.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(super) events_written: Counter,
    pub(super) events_failed: Family<WriteFailure, Counter>,
    pub(super) statuses_written: Counter,
    pub(super) statuses_failed: Family<WriteFailure, Counter>,
    pub(super) leader: Gauge,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct WriteFailure {
    /// The HTTP status, `timeout`, or `transport` if there was no answer.
    pub(super) code: String,
}

impl Metrics {
    /// Whether this agent is the one that writes.
    pub(in crate::report) fn leads(&self) -> bool {
        self.leader.get() == 1
    }

    /// Adds every family to a registry, without a prefix.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "events_written",
            "Events created, or written again, by this agent as the leader",
            self.events_written.clone(),
        );
        registry.register(
            "events_failed",
            "Events that could not be written, by what the API server answered; all but \
             those it rejects are tried again",
            self.events_failed.clone(),
        );
        registry.register(
            "statuses_written",
            "Statuses of objects written by this agent as the leader",
            self.statuses_written.clone(),
        );
        registry.register(
            "statuses_failed",
            "Statuses that could not be written, by what the API server answered",
            self.statuses_failed.clone(),
        );
        registry.register(
            "leader",
            "1 if this agent writes Events and statuses for the whole cluster, else 0",
            self.leader.clone(),
        );
    }
}

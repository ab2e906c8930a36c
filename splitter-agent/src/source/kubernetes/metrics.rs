//! What can be measured of the connection to the API server.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::failure::Code;
use super::resource::CUSTOM_RESOURCE_DEFINITION;
use crate::objects::Kind;

/// Metrics of the Kubernetes source. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct SourceMetrics {
    restarts: Family<OfKind, Counter>,
    errors: Family<OfCode, Counter>,
    synced: Family<OfKind, Gauge>,
    objects: Family<OfKind, Gauge>,
    /// Whether the definition of each optional kind is followed; they share one series.
    definitions: Arc<Mutex<BTreeMap<Kind, bool>>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfKind {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfCode {
    kind: &'static str,
    code: Code,
}

impl EncodeLabelValue for Code {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.to_string().encode(encoder)
    }
}

impl SourceMetrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "watch_restarts",
            "Times that watching a kind of objects was taken up again, after a failure or because the server asked to list all of them anew",
            self.restarts.clone(),
        );
        registry.register(
            "watch_errors",
            "Failures to list or watch a kind of objects, by HTTP status or sort",
            self.errors.clone(),
        );
        registry.register(
            "source_synced",
            "Whether all objects of a kind are known and changes of them are being followed (1) or not (0)",
            self.synced.clone(),
        );
        registry.register(
            "objects",
            "Objects of a kind that exist as far as is known",
            self.objects.clone(),
        );
    }

    /// Makes a kind visible before anything is known of it.
    pub(super) fn begin(&self, kind: &'static str) {
        drop(self.restarts.get_or_create(&of(kind)));
        self.set_synced(kind, false);
    }

    /// A kind is of no interest any more: nothing is wrong if it is not followed.
    pub(super) fn end(&self, kind: &'static str) {
        self.synced.remove(&of(kind));
        self.objects.remove(&of(kind));
    }

    pub(super) fn restarted(&self, kind: &'static str) {
        self.restarts.get_or_create(&of(kind)).inc();
    }

    pub(super) fn failed(&self, kind: &'static str, code: Code) {
        self.errors.get_or_create(&OfCode { kind, code }).inc();
    }

    pub(super) fn set_synced(&self, kind: &'static str, synced: bool) {
        self.synced.get_or_create(&of(kind)).set(synced.into());
    }

    /// Whether it is followed how a kind is defined.
    pub(super) fn set_definition_synced(&self, kind: Kind, synced: bool) {
        let definitions = self.definitions.lock();
        let mut definitions = definitions.unwrap_or_else(PoisonError::into_inner);
        definitions.insert(kind, synced);
        let all = definitions.values().all(|synced| *synced);
        self.set_synced(CUSTOM_RESOURCE_DEFINITION.kind, all);
    }

    pub(super) fn set_objects(&self, kind: &'static str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.objects.get_or_create(&of(kind)).set(count);
    }
}

const fn of(kind: &'static str) -> OfKind {
    OfKind { kind }
}

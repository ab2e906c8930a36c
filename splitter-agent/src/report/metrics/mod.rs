//! Metrics, in the OpenMetrics text format.
//!
//! Everything that is in the maps is read from the maps when it is asked for, so that numbers
//! are the kernel's own and survive the agent. No label is called what Prometheus' target
//! labels are called (`namespace`, `service`, `pod`, ...): those would win.
//!
//! A cluster has as many series as nodes times what each writes, so a split has series of its own
//! on a node only where they say something there; [`Detail`] tells which. Sums are always written.

mod agent;
mod family;
mod outcomes;
mod process;
mod splits;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};

use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::datapath::PinDirectory;

use super::cluster;
use super::log::LogControl;
use super::{AgentState, DiagnosticStore, SelfTestState};

pub use splits::Detail;

/// What [`Metrics::encode`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What every metric's name begins with.
const PREFIX: &str = "splitter";

/// What the server tells of.
#[derive(Debug)]
pub struct Telemetry {
    /// Where the maps and links are pinned.
    pub pins: PinDirectory,
    /// What the agent is doing.
    pub agent_state: AgentState,
    /// Diagnostics of objects.
    pub diagnostics: DiagnosticStore,
    /// The result of the self-test; `None` if there is none.
    pub self_test: Option<SelfTestState>,
    /// The log; `None` if its level is not to be changed.
    pub log: Option<LogControl>,
    /// Metrics of others, such as a source's; from [`registry`].
    pub registry: Registry,
    /// Which splits have series of their own.
    pub detail: Detail,
    /// What writes to the cluster; `None` where there is no cluster. In one, the agent that leads
    /// tells of every split which generations there are.
    pub feedback: Option<cluster::Metrics>,
}

impl Telemetry {
    /// Without a self-test, a log and metrics of others.
    #[must_use]
    pub fn new(pins: PinDirectory, agent_state: AgentState, diagnostics: DiagnosticStore) -> Self {
        Self {
            pins,
            agent_state,
            diagnostics,
            self_test: None,
            log: None,
            registry: registry(),
            detail: Detail::default(),
            feedback: None,
        }
    }
}

/// An empty registry whose metrics' names begin with `splitter_`.
#[must_use]
pub fn registry() -> Registry {
    Registry::with_prefix(PREFIX)
}

/// Every metric.
#[derive(Debug)]
pub struct Metrics {
    own: Registry,
    process: Registry,
    /// Length of the text the last time.
    length: AtomicUsize,
}

impl Metrics {
    /// Metrics of what `telemetry` tells.
    #[must_use]
    pub fn new(telemetry: Telemetry) -> Self {
        let mut own = telemetry.registry;
        own.register(
            "build",
            "The agent's version",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        own.register(
            "sync_duration_seconds",
            "How long it took to bring the maps to what the source says",
            telemetry.agent_state.durations(),
        );
        own.register_collector(Box::new(agent::Agent {
            pins: telemetry.pins.clone(),
            agent_state: telemetry.agent_state.clone(),
            diagnostics: telemetry.diagnostics,
            self_test: telemetry.self_test,
        }));
        own.register_collector(Box::new(splits::Splits::new(
            telemetry.pins,
            telemetry.agent_state,
            telemetry.detail,
            telemetry.feedback,
        )));
        let mut process = Registry::default();
        process.register_collector(Box::new(process::Process));
        Self {
            own,
            process,
            length: AtomicUsize::new(0),
        }
    }

    /// Everything, as text. Takes time that grows with the number of splits, so not for an
    /// asynchronous task.
    ///
    /// # Errors
    ///
    /// If a metric cannot be written as text.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let length = self.length.load(Ordering::Relaxed);
        let mut text = String::with_capacity(length + length / 8);
        text::encode_registry(&mut text, &self.own)?;
        text::encode_registry(&mut text, &self.process)?;
        text::encode_eof(&mut text)?;
        self.length.store(text.len(), Ordering::Relaxed);
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_maps_the_agents_own_metrics_are_told_all_the_same() {
        let metrics = Metrics::new(Telemetry {
            self_test: Some(SelfTestState::default()),
            ..Telemetry::new(
                PinDirectory::new("/nowhere"),
                AgentState::default(),
                DiagnosticStore::default(),
            )
        });
        let text = metrics.encode().expect("text");
        for line in [
            "splitter_maps_readable 0",
            "splitter_object_changes_total 0",
            "splitter_self_test_success 0",
            "splitter_sync_duration_seconds_count 0",
            "# TYPE splitter_leaf_connections counter",
            "# TYPE process_cpu_seconds counter",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} not in:\n{text}");
        }
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}

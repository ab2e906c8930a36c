//! Metrics, in the OpenMetrics text format.
//!
//! Everything that is in the maps is read from the maps when it is asked for, so that numbers
//! are the kernel's own and survive the agent. No label is called what Prometheus' target
//! labels are called (`namespace`, `service`, `pod`, ...): those would win.

mod agent;
mod datapath;
mod family;
mod process;

use std::fmt;

use prometheus_client::encoding::text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::datapath::PinDirectory;

use super::log::LogControl;
use super::{Board, Progress, SelfTestState};

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
    pub progress: Progress,
    /// What is found about objects.
    pub board: Board,
    /// What came of the self-test; `None` where there is none.
    pub self_test: Option<SelfTestState>,
    /// The log; `None` if its level is not to be changed.
    pub log: Option<LogControl>,
    /// Metrics of others, such as a source's; from [`registry`].
    pub registry: Registry,
}

impl Telemetry {
    /// Without a self-test, a log and metrics of others.
    #[must_use]
    pub fn new(pins: PinDirectory, progress: Progress, board: Board) -> Self {
        Self {
            pins,
            progress,
            board,
            self_test: None,
            log: None,
            registry: registry(),
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
            telemetry.progress.durations(),
        );
        own.register_collector(Box::new(agent::Agent {
            pins: telemetry.pins.clone(),
            progress: telemetry.progress,
            board: telemetry.board,
            self_test: telemetry.self_test,
        }));
        own.register_collector(Box::new(datapath::Datapath {
            pins: telemetry.pins,
        }));
        let mut process = Registry::default();
        process.register_collector(Box::new(process::Process));
        Self { own, process }
    }

    /// Everything, as text. Takes time that grows with the number of splits, so not for an
    /// asynchronous task.
    ///
    /// # Errors
    ///
    /// None that is known.
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        text::encode_registry(&mut text, &self.own)?;
        text::encode_registry(&mut text, &self.process)?;
        text::encode_eof(&mut text)?;
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
                Progress::default(),
                Board::default(),
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

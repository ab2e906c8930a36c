//! The HTTP server and the self-test of a running agent.

use std::io;

use anyhow::Context;
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;

use crate::datapath::PinDirectory;
use crate::plan::{Frontend, PlannedSplit};
use crate::report::log::LogControl;
use crate::report::{Board, Listen, Progress, SelfTest, Server, Telemetry, metrics};

/// The HTTP server and the self-test, not yet at work.
pub(super) struct Reports {
    server: Server,
    self_test: SelfTest,
}

impl Reports {
    pub(super) fn start(address: Listen, peer_names: bool) -> anyhow::Result<Self> {
        Ok(Self {
            server: Server::bind(address)?,
            self_test: SelfTest::start(peer_names)
                .context("cannot listen on the loopback interface for the self-test")?,
        })
    }

    /// What the maps must hold for the self-test.
    pub(super) fn frontend(&self) -> (Frontend, PlannedSplit) {
        self.self_test.frontend()
    }

    /// Puts both to work; `register` adds what others measure.
    pub(super) fn serve(
        self,
        pins: PinDirectory,
        board: &Board,
        progress: &Progress,
        log: LogControl,
        register: impl FnOnce(&mut Registry),
    ) -> JoinHandle<io::Result<()>> {
        // The test goes on as long as the runtime.
        let (self_test, _task) = self.self_test.watch(progress);
        let mut registry = metrics::registry();
        register(&mut registry);
        self.server.serve(Telemetry {
            pins,
            progress: progress.clone(),
            board: board.clone(),
            self_test: Some(self_test),
            log: Some(log),
            registry,
        })
    }
}

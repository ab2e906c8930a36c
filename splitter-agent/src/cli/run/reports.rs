//! The HTTP server and the self-test of a running agent.

use std::io;

use anyhow::Context;
use tokio::task::JoinHandle;

use crate::plan::{Frontend, FrontendPlan};
use crate::report::{Listen, SelfTest, Server, Telemetry};

/// The HTTP server and the self-test, not yet at work.
pub(super) struct Reports {
    server: Server,
    self_test: SelfTest,
}

impl Reports {
    pub(super) fn start(address: Listen, keep_original_dst: bool) -> anyhow::Result<Self> {
        Ok(Self {
            server: Server::bind(address)?,
            self_test: SelfTest::start(keep_original_dst)
                .context("cannot listen on the loopback interface for the self-test")?,
        })
    }

    /// What the maps must hold for the self-test.
    pub(super) fn frontend(&self) -> (Frontend, FrontendPlan) {
        self.self_test.frontend()
    }

    /// Puts both to work, with what else there is to tell.
    pub(super) fn serve(self, telemetry: Telemetry) -> JoinHandle<io::Result<()>> {
        // The test goes on as long as the runtime.
        let (self_test, _task) = self.self_test.watch(&telemetry.agent_state);
        self.server.serve(Telemetry {
            self_test: Some(self_test),
            ..telemetry
        })
    }
}

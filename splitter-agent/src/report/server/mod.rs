//! The agent's HTTP server, for probes, for Prometheus, and for people with `kubectl`.
//!
//! | request | answer |
//! |---|---|
//! | `GET /livez` | 200, or 503 if a restart would help |
//! | `GET /readyz` | 200, or 503 if connections are not split |
//! | `GET /metrics` | OpenMetrics text |
//! | `GET /version` | the agent's version |
//! | `GET /log-level` | the log's filter |
//! | `PUT /log-level` | replaces it; from this machine's (or pod's) loopback interface only |
//!
//! Nothing here can hold up the agent: answers are read from shared state and from the pinned maps.
//! Each connection serves one request and lasts a few seconds at most.

mod connections;
mod listen;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use splitter_common::layout::LAYOUT_VERSION;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::datapath::{PinDirectory, attached_programs};

use super::health::{Health, liveness, readiness};
use super::log::LogControl;
use super::metrics::{self, Metrics, Telemetry};
use super::{AgentState, SelfTestState};

use connections::{Bounded, Peer};
pub use listen::Listen;

/// Longest body of a request, in bytes.
const BODY_LIMIT: usize = 4096;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The address cannot be listened on.
    #[error("cannot listen on {listen} for HTTP requests; give --listen another address")]
    Bind {
        /// The address.
        listen: Listen,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A listening socket, so that clients wait for [`Server::serve`].
#[derive(Debug)]
pub struct Server {
    listener: tokio::net::TcpListener,
    address: SocketAddr,
}

struct Shared {
    pins: PinDirectory,
    agent_state: AgentState,
    self_test: Option<SelfTestState>,
    log: Option<LogControl>,
    metrics: Metrics,
    /// One scrape at a time, however many ask.
    scrape: Arc<Semaphore>,
}

impl Server {
    /// Listens. Must be called in a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the address is not the machine's, or in use.
    pub fn bind(listen: Listen) -> Result<Self, ServerError> {
        let bind = || {
            let listener = listen.bind()?;
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok((tokio::net::TcpListener::from_std(listener)?, address))
        };
        let (listener, address) = bind().map_err(|source| ServerError::Bind { listen, source })?;
        Ok(Self { listener, address })
    }

    /// The address that is listened on, with the port that was chosen if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers probes, and nothing else, for a process that has done what it was for: it is
    /// alive and ready as long as it is there.
    #[must_use]
    pub fn serve_done(self) -> JoinHandle<io::Result<()>> {
        let done = || async { health(&Health::done()) };
        let router = Router::new()
            .route("/livez", get(done))
            .route("/readyz", get(done))
            .layer(axum::middleware::map_response(close));
        let service = router.into_make_service_with_connect_info::<Peer>();
        tokio::spawn(async move { axum::serve(Bounded::new(self.listener), service).await })
    }

    /// Answers requests from now on. The task ends only on a fatal error: the caller should wait
    /// for it and exit too.
    #[must_use]
    pub fn serve(self, telemetry: Telemetry) -> JoinHandle<io::Result<()>> {
        tracing::info!(address = %self.address, "answering HTTP requests");
        let shared = Shared {
            pins: telemetry.pins.clone(),
            agent_state: telemetry.agent_state.clone(),
            self_test: telemetry.self_test.clone(),
            log: telemetry.log.clone(),
            metrics: Metrics::new(telemetry),
            scrape: Arc::new(Semaphore::new(1)),
        };
        let router = Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(scrape))
            .route("/version", get(version))
            .route("/log-level", get(log_level).put(set_log_level))
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .layer(axum::middleware::map_response(close))
            .with_state(Arc::new(shared));
        let service = router.into_make_service_with_connect_info::<Peer>();
        tokio::spawn(async move { axum::serve(Bounded::new(self.listener), service).await })
    }
}

/// Says that the connection ends with this answer.
async fn close(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn livez(State(shared): State<Arc<Shared>>) -> Response {
    health(&liveness(&shared.agent_state.snapshot()))
}

async fn readyz(State(shared): State<Arc<Shared>>) -> Response {
    let status = shared.agent_state.snapshot();
    let self_test = shared.self_test.as_ref().map(SelfTestState::status);
    // A handful of system calls that wait for nothing.
    let programs = attached_programs(&shared.pins);
    health(&readiness(&status, &programs, self_test.as_ref()))
}

fn health(health: &Health) -> Response {
    let status = if health.healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    json(status, health)
}

async fn scrape(State(shared): State<Arc<Shared>>) -> Response {
    let Ok(permit) = Arc::clone(&shared.scrape).acquire_owned().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let scrape = tokio::task::spawn_blocking(move || {
        // Goes on even if the client is gone; the next one waits for it.
        let _permit = permit;
        shared.metrics.encode()
    });
    match scrape.await {
        Ok(Ok(text)) => ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        result => {
            tracing::warn!(?result, "cannot write the metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn version() -> Response {
    #[derive(Serialize)]
    struct Version {
        version: &'static str,
        /// Left out if the build did not know it.
        #[serde(skip_serializing_if = "str::is_empty")]
        commit: &'static str,
        layout: u32,
    }
    let version = Version {
        version: env!("CARGO_PKG_VERSION"),
        commit: crate::COMMIT,
        layout: LAYOUT_VERSION,
    };
    json(StatusCode::OK, &version)
}

#[derive(Serialize)]
struct LogLevel {
    filter: String,
}

async fn log_level(State(shared): State<Arc<Shared>>) -> Response {
    match &shared.log {
        Some(log) => {
            let filter = log.filter();
            json(StatusCode::OK, &LogLevel { filter })
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn set_log_level(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    filter: String,
) -> Response {
    let Some(log) = &shared.log else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if !peer.ip().to_canonical().is_loopback() {
        return error(
            StatusCode::FORBIDDEN,
            "the log level is changed from the agent's own loopback interface only; use \
             `kubectl port-forward` to the agent's pod, or a shell on its node, and send the \
             request to 127.0.0.1",
        );
    }
    let filter = filter.trim();
    match log.set(filter) {
        Ok(()) => {
            tracing::info!(filter, "log level changed");
            let filter = filter.to_owned();
            json(StatusCode::OK, &LogLevel { filter })
        }
        Err(wrong) => error(StatusCode::BAD_REQUEST, &wrong.to_string()),
    }
}

fn error(status: StatusCode, message: &str) -> Response {
    json(status, &serde_json::json!({ "error": message }))
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(body) => (status, [(CONTENT_TYPE, "application/json")], body + "\n").into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

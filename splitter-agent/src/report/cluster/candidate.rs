//! Stands for election, and stays the leader while the Lease can be renewed.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{GetParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;

use super::ReportSettings;
use super::election::{Action, Observed};
use super::limit::{Backoff, Jitter};
use super::metrics::Metrics;
use super::request::{Meaning, RequestError, send};

/// Until when this process leads; `None` while it does not. A process that acts as the leader
/// checks the clock, so that it stops in time even if the election is stuck.
pub(super) type Term = Option<Instant>;

/// A candidate for a Lease.
pub(super) struct Candidate {
    api: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
    lasts: Duration,
    observed: Observed,
    /// The Lease as the API server last gave it to us as ours.
    held: Option<Lease>,
    term: watch::Sender<Term>,
    metrics: Metrics,
    jitter: Jitter,
    backoff: Backoff,
    is_forbidden: bool,
}

impl Candidate {
    pub(super) fn new(client: Client, settings: &ReportSettings, metrics: Metrics) -> Self {
        let lasts = settings.lease_duration.max(Duration::from_secs(1));
        Self {
            api: Api::namespaced(client, &settings.namespace),
            namespace: settings.namespace.clone(),
            name: settings.lease.clone(),
            identity: settings.identity.clone(),
            lasts,
            observed: Observed::default(),
            held: None,
            term: watch::Sender::new(None),
            metrics,
            jitter: Jitter::new(),
            backoff: Backoff::new(lasts / 30, lasts),
            is_forbidden: false,
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Term> {
        self.term.subscribe()
    }

    /// Stands for election for ever. A follower asks for the Lease about once in three
    /// quarters of its duration, and is answered from the API server's cache; the leader
    /// renews it with one request each quarter.
    pub(super) async fn campaign(&mut self) {
        let pause = self.jitter.between(Duration::ZERO, self.lasts / 30);
        tokio::time::sleep(pause).await;
        loop {
            let pause = self.turn().await;
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks at the Lease once; how long until the next time.
    async fn turn(&mut self) -> Duration {
        match self.attempt().await {
            Ok(pause) => {
                if std::mem::take(&mut self.is_forbidden) {
                    tracing::info!(
                        lease = self.name,
                        "the agent is allowed to use its Lease again"
                    );
                }
                self.backoff.reset();
                pause
            }
            Err(error) => self.fail(&error),
        }
    }

    async fn attempt(&mut self) -> Result<Duration, RequestError> {
        let start = Instant::now();
        let lease = match self.held.take() {
            Some(lease) => Some(lease),
            None => self.look(start).await?,
        };
        let spec = lease
            .as_ref()
            .map(|lease| lease.spec.clone().unwrap_or_default());
        if self.observed.see(spec, Instant::now()) {
            tracing::debug!(
                lease = self.name,
                holder = self.observed.holder(),
                "the leader changed"
            );
        }
        let start = Instant::now();
        let action = self.observed.decide(&self.identity, self.lasts, start);
        if let Action::Wait(rest) = action {
            self.step_down("another agent is the leader");
            let look = self.jitter.between(self.lasts / 2, self.lasts);
            // A little later than the very moment, or all would ask at once.
            return Ok(look.min(rest + self.jitter.between(Duration::ZERO, self.lasts / 30)));
        }
        let proposal = self.proposal(lease, action == Action::Renew);
        let parameters = PostParams::default();
        let most = self.lasts / 6;
        let answer = if action == Action::Create {
            send(self.api.create(&parameters, &proposal), most).await
        } else {
            // It carries the version that was seen, so that of two only one gets it.
            send(self.api.replace(&self.name, &parameters, &proposal), most).await
        };
        match answer {
            Ok(lease) => {
                self.observed.see(lease.spec.clone(), Instant::now());
                self.held = Some(lease);
                self.lead(start);
                Ok(self.jitter.between(self.lasts / 5, self.lasts / 4))
            }
            Err(error)
                if matches!(error.meaning(), Meaning::Conflict)
                    || error.meaning() == Meaning::NotFound && action != Action::Create =>
            {
                // Somebody was faster, or it is gone: look again.
                tracing::debug!(lease = self.name, %error, "the Lease changed in the meantime");
                Ok(self.jitter.between(self.lasts / 60, self.lasts / 30))
            }
            Err(error) => Err(error),
        }
    }

    /// Asks for the Lease.
    async fn look(&self, now: Instant) -> Result<Option<Lease>, RequestError> {
        // A follower may read an old Lease: it cannot take it without the right version. A process
        // that believes it leads must read the current one.
        let parameters = if self.leads(now) {
            GetParams::default()
        } else {
            GetParams::any()
        };
        match send(self.api.get_with(&self.name, &parameters), self.lasts / 6).await {
            Ok(lease) => Ok(Some(lease)),
            Err(error) if error.meaning() == Meaning::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The Lease as ours; what others have written to it stays.
    fn proposal(&self, lease: Option<Lease>, is_renewal: bool) -> Lease {
        let now = MicroTime(Timestamp::now());
        let mut lease = lease.unwrap_or_else(|| Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: None,
        });
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if !is_renewal {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(
                spec.lease_transitions
                    .map_or(0, |transitions| transitions.saturating_add(1)),
            );
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = Some(i32::try_from(self.lasts.as_secs()).unwrap_or(i32::MAX));
        spec.renew_time = Some(now);
        lease
    }

    /// Leads, by a renewal that was asked for at this time. Others wait for the whole
    /// duration of the Lease, counted from a later moment.
    fn lead(&mut self, asked: Instant) {
        if self.term.borrow().is_none() {
            tracing::info!(
                lease = self.name,
                identity = self.identity,
                "this agent is the leader: it writes Events and statuses for the cluster"
            );
        }
        self.metrics.leader.set(1);
        self.term.send_replace(Some(asked + self.lasts * 2 / 3));
    }

    fn leads(&self, now: Instant) -> bool {
        self.term.borrow().is_some_and(|until| now < until)
    }

    fn step_down(&mut self, why: &str) {
        self.held = None;
        self.metrics.leader.set(0);
        if self.term.send_replace(None).is_some() {
            tracing::warn!(
                lease = self.name,
                "this agent is no longer the leader: {why}"
            );
        }
    }

    fn fail(&mut self, error: &RequestError) -> Duration {
        let now = Instant::now();
        if error.meaning() == Meaning::Forbidden {
            if !std::mem::replace(&mut self.is_forbidden, true) {
                tracing::warn!(
                    lease = self.name,
                    %error,
                    "the agent is not allowed to use its Lease, so it writes no Events; allow \
                     it to create `leases` in namespace {}, and to get and update this one",
                    self.namespace
                );
            }
        } else {
            tracing::debug!(lease = self.name, %error, "the Lease cannot be read or written");
        }
        let pause = self.backoff.fail(&mut self.jitter);
        let Some(until) = *self.term.borrow() else {
            return pause;
        };
        if now >= until {
            self.step_down("its Lease cannot be renewed");
            return pause;
        }
        // A leader has time for a few attempts only.
        pause.min(self.lasts / 10).min(until - now)
    }

    /// Gives the Lease back if it is ours, so that another need not wait.
    pub(super) async fn release(&mut self) {
        self.metrics.leader.set(0);
        if self.term.send_replace(None).is_none() {
            return;
        }
        // A renewal may have been under way, so the version may be another.
        for _ in 0..2 {
            let lease = match self.held.take() {
                Some(lease) => lease,
                None => match send(self.api.get(&self.name), self.lasts / 6).await {
                    Ok(lease) => lease,
                    Err(_) => break,
                },
            };
            if lease
                .spec
                .as_ref()
                .and_then(|spec| spec.holder_identity.as_ref())
                != Some(&self.identity)
            {
                return;
            }
            let mut lease = self.proposal(Some(lease), true);
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = None;
                spec.lease_duration_seconds = Some(1);
            }
            let parameters = PostParams::default();
            let request = self.api.replace(&self.name, &parameters, &lease);
            match send(request, self.lasts / 6).await {
                Ok(_) => {
                    tracing::info!(lease = self.name, "released the Lease");
                    return;
                }
                Err(error) if error.meaning() == Meaning::Conflict => {}
                Err(_) => break,
            }
        }
        tracing::warn!(
            lease = self.name,
            "cannot release the Lease; another agent takes it when it expires"
        );
    }
}

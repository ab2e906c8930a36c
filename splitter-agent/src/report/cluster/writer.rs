//! Writes what is due, while this process is the leader.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::watch;

use super::candidate::Term;
use super::event;
use super::findings::{self, Reconciler, Write};
use super::limit::{Backoff, Jitter};
use super::metrics::{Metrics, WriteFailure};
use super::request::{Meaning, RequestError, send};
use super::settle::Settler;
use super::shared::{self, Document};
use super::status::{self, Content, Known, Status, StatusOutcome, Statuses};
use super::{REPORTER, ReportSettings, ServedVersions};
use crate::objects::{Kind, ObjectName, StatusForm};
use crate::report::{DiagnosticStore, Subscriber};

/// How often the leader looks for what is due.
const TICK: Duration = Duration::from_millis(250);

/// The first pause after a failed request.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Writes Events and statuses.
pub(super) struct Writer {
    client: Client,
    diagnostics: Subscriber,
    served: watch::Receiver<ServedVersions>,
    term: watch::Receiver<Term>,
    settings: ReportSettings,
    metrics: Metrics,
    settler: Settler,
    reconciler: Reconciler,
    statuses: Statuses,
    jitter: Jitter,
    events: Lane,
    /// By kind.
    status_lanes: BTreeMap<Kind, Lane>,
    leads: bool,
}

/// One kind of requests: a failure of one makes the others of its kind wait.
#[derive(Debug)]
struct Lane {
    what: String,
    remedy: String,
    backoff: Backoff,
    rests_until: Option<Instant>,
    /// Whether its present failure is logged.
    is_told: bool,
}

impl Writer {
    pub(super) fn new(
        client: Client,
        store: &DiagnosticStore,
        served: watch::Receiver<ServedVersions>,
        term: watch::Receiver<Term>,
        settings: ReportSettings,
        metrics: Metrics,
    ) -> Self {
        Self {
            client,
            diagnostics: store.subscribe(),
            served,
            term,
            metrics,
            settler: Settler::new(settings.pace.settle),
            reconciler: Reconciler::new(settings.pace),
            statuses: Statuses::new(settings.pace),
            jitter: Jitter::new(),
            events: Lane::new(
                "Events".to_owned(),
                "allow the agent to create and patch `events.events.k8s.io` in all namespaces"
                    .to_owned(),
                settings.longest_pause,
            ),
            status_lanes: Kind::routes()
                .filter(|kind| kind.has_status())
                .map(|kind| (kind, Lane::of_statuses(kind, settings.longest_pause)))
                .collect(),
            settings,
            leads: false,
        }
    }

    /// Writes for ever.
    pub(super) async fn write(&mut self) {
        loop {
            self.look();
            if self.is_leader() {
                // Tools wait for statuses, people for Events.
                self.write_statuses().await;
                self.write_events().await;
                tokio::time::sleep(TICK).await;
            } else {
                self.wait().await;
            }
        }
    }

    /// As a follower: waits until something is to be noted.
    async fn wait(&mut self) {
        let settle = self.settings.pace.settle;
        tokio::select! {
            // That there is no sender means that there are no more terms.
            Ok(()) = wait_for_term(&mut self.term) => {}
            () = self.diagnostics.changed() => tokio::time::sleep(settle).await,
            () = tokio::time::sleep(settle), if self.settler.is_waiting() => {}
        }
    }

    /// Takes note of what is found about objects, and of an election.
    fn look(&mut self) {
        let now = Instant::now();
        let states = self.diagnostics.drain();
        self.statuses.note(states.iter().cloned(), now);
        self.settler.observe(states, now);
        self.reconciler.note(self.settler.settle(now), now);
        let leads = self.is_leader();
        if leads && !self.leads {
            self.reconciler.lead(now);
            self.statuses.lead(now);
        } else if self.leads && !leads {
            self.reconciler.follow();
        }
        self.leads = leads;
        if self.served.has_changed().unwrap_or(false) {
            self.served.mark_unchanged();
            self.statuses.lead(now);
        }
    }

    fn is_leader(&self) -> bool {
        !self.left().is_zero()
    }

    /// How long this process leads for certain.
    fn left(&self) -> Duration {
        self.term.borrow().map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now())
        })
    }

    async fn write_events(&mut self) {
        if self.events.rests(Instant::now()) {
            return;
        }
        for action in self.reconciler.step(Instant::now()) {
            let left = self.left();
            if left.is_zero() {
                return;
            }
            let answer = match &action.write {
                Write::Create { state, diagnostic } => {
                    let event = event::event(
                        &action.event,
                        state,
                        diagnostic,
                        &self.settings.identity,
                        Timestamp::now(),
                    );
                    self.create(&action.event, &event, left).await
                }
                Write::Repeat { count } => self.repeat(&action.event, *count, left).await,
            };
            let now = Instant::now();
            match answer {
                Ok(outcome) => {
                    if let findings::EventOutcome::Written(_) = outcome {
                        self.metrics.events_written.inc();
                    }
                    self.events.succeed();
                    self.reconciler.done(&action, outcome, now);
                }
                Err(error) => {
                    self.metrics
                        .events_failed
                        .get_or_create(&WriteFailure { code: error.code() })
                        .inc();
                    if error.meaning() == Meaning::Rejected {
                        tracing::warn!(event = %action.event, %error, "the API server rejected the Event");
                        self.reconciler
                            .done(&action, findings::EventOutcome::Rejected, now);
                        continue;
                    }
                    self.events.fail(&error, now, &mut self.jitter);
                    return;
                }
            }
        }
    }

    async fn create(
        &self,
        name: &ObjectName,
        event: &Event,
        left: Duration,
    ) -> Result<findings::EventOutcome, RequestError> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &name.namespace);
        match send(api.create(&PostParams::default(), event), left).await {
            Ok(_) => {
                tracing::debug!(event = %name, "wrote an Event");
                Ok(findings::EventOutcome::Written(Some(1)))
            }
            Err(error) => match error.meaning() {
                Meaning::Conflict => Ok(findings::EventOutcome::Present),
                // The namespace is gone, and its objects with it.
                Meaning::NotFound => Ok(findings::EventOutcome::Rejected),
                _ => Err(error),
            },
        }
    }

    /// Says again what an Event says. Its first writer may have been another agent; then
    /// only the API server knows its count, and gives it with the answer.
    async fn repeat(
        &self,
        name: &ObjectName,
        count: Option<i32>,
        left: Duration,
    ) -> Result<findings::EventOutcome, RequestError> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), &name.namespace);
        let parameters = PatchParams::default();
        let mut series = json!({ "lastObservedTime": MicroTime(Timestamp::now()) });
        if let Some(count) = count {
            series["count"] = json!(count.max(2));
        }
        let patch = json!({ "series": series });
        let mut answer = send(
            api.patch(&name.name, &parameters, &Patch::Merge(&patch)),
            left,
        )
        .await;
        if count.is_none() && matches!(&answer, Err(error) if error.meaning() == Meaning::Rejected)
        {
            // It was no series yet.
            series["count"] = json!(2);
            let patch = json!({ "series": series });
            answer = send(
                api.patch(&name.name, &parameters, &Patch::Merge(&patch)),
                left,
            )
            .await;
        }
        match answer {
            Ok(event) => {
                tracing::debug!(event = %name, "wrote an Event again");
                Ok(findings::EventOutcome::Written(
                    event.series.map(|series| series.count),
                ))
            }
            Err(error) if error.meaning() == Meaning::NotFound => {
                Ok(findings::EventOutcome::Missing)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes statuses, for a while: what is read is written at once, and Events wait meanwhile.
    async fn write_statuses(&mut self) {
        let end = Instant::now() + TICK * 2;
        while Instant::now() < end && self.write_some_statuses().await {
            self.look();
        }
    }

    /// Takes the next steps; whether there were any.
    async fn write_some_statuses(&mut self) -> bool {
        let served: ServedVersions = self.served.borrow().clone();
        let now = Instant::now();
        let lanes = &self.status_lanes;
        let actions = self.statuses.step(now, Timestamp::now(), |kind| {
            served.get(&kind).is_some_and(|served| served.has_status)
                && lanes.get(&kind).is_some_and(|lane| !lane.rests(now))
        });
        let has_actions = !actions.is_empty();
        for action in actions {
            let left = self.left();
            if left.is_zero() {
                return false;
            }
            let Some(kind) = action.object.known_kind() else {
                continue;
            };
            let Some((served, lane)) = served.get(&kind).zip(self.status_lanes.get(&kind)) else {
                continue;
            };
            if lane.rests(Instant::now()) {
                continue;
            }
            let resource = served.resource(kind);
            let answer = self.write_status(&resource, &action, left).await;
            let Some(lane) = self.status_lanes.get_mut(&kind) else {
                continue;
            };
            match answer {
                Ok(outcome) => {
                    if outcome == StatusOutcome::Written {
                        tracing::debug!(object = %action.object, "wrote a status");
                        self.metrics.statuses_written.inc();
                    }
                    lane.succeed();
                    self.statuses.done(&action, outcome, Instant::now());
                }
                Err(error) => {
                    self.metrics
                        .statuses_failed
                        .get_or_create(&WriteFailure { code: error.code() })
                        .inc();
                    if error.meaning() == Meaning::Rejected {
                        tracing::warn!(object = %action.object, %error, "the API server rejected the status");
                        let outcome = StatusOutcome::Stale;
                        self.statuses.done(&action, outcome, Instant::now());
                        continue;
                    }
                    lane.fail(&error, Instant::now(), &mut self.jitter);
                }
            }
        }
        has_actions
    }

    async fn write_status(
        &self,
        resource: &ApiResource,
        action: &status::Action,
        left: Duration,
    ) -> Result<StatusOutcome, RequestError> {
        let ObjectName { namespace, name } = &action.object.name;
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, resource);
        let merge = PatchParams {
            field_manager: Some(REPORTER.to_owned()),
            ..PatchParams::default()
        };
        // An object of the same name that is another has another uid, which is a conflict.
        let uid = &action.uid;
        let answer = match &action.write {
            Some(Content::Own(status)) => {
                let patch = Patch::Apply(json!({
                    "apiVersion": resource.api_version,
                    "kind": resource.kind,
                    "metadata": { "name": name, "uid": uid },
                    "status": status,
                }));
                let parameters = PatchParams::apply(REPORTER).force();
                send(api.patch_status(name, &parameters, &patch), left).await
            }
            Some(Content::Shared(replacement)) => {
                // With the version that was read, so that nothing of others is lost.
                let patch = Patch::Merge(json!({
                    "metadata": { "uid": uid, "resourceVersion": replacement.resource_version },
                    "status": { replacement.field: replacement.entries },
                }));
                send(api.patch_status(name, &merge, &patch), left).await
            }
            None => {
                // Changes nothing and is answered with the object. It needs no permission
                // but the one to write.
                let patch = Patch::Merge(json!({ "metadata": { "uid": uid } }));
                send(api.patch_status(name, &merge, &patch), left).await
            }
        };
        match (answer, &action.write) {
            (Ok(_), Some(_)) => Ok(StatusOutcome::Written),
            (Ok(object), None) => Ok(StatusOutcome::Read(read(&object, action.form))),
            (Err(error), write) => match (error.meaning(), write) {
                (Meaning::Conflict, Some(Content::Shared(_))) => Ok(StatusOutcome::Outdated),
                (Meaning::Conflict | Meaning::NotFound, _) => Ok(StatusOutcome::Stale),
                _ => Err(error),
            },
        }
    }
}

/// What an object has as its status.
fn read(object: &DynamicObject, form: StatusForm) -> Known {
    if shared::is_shared(form) {
        return Known::Shared(Box::new(Document::read(object, form)));
    }
    Known::Own(read_own(object))
}

/// The status of an object; an empty one if it is none that we could have written.
fn read_own(object: &DynamicObject) -> Status {
    object
        .data
        .get("status")
        .and_then(|status| Status::deserialize(status).ok())
        .unwrap_or_default()
}

async fn wait_for_term(term: &mut watch::Receiver<Term>) -> Result<(), watch::error::RecvError> {
    // A term that is over but not yet taken back is none.
    let has_begun = |term: &Term| term.is_some_and(|until| until > Instant::now());
    term.wait_for(has_begun).await.map(drop)
}

impl Lane {
    fn of_statuses(kind: Kind, longest: Duration) -> Self {
        let what = format!("statuses of {kind}s");
        let definition = kind.definition_name();
        let remedy = format!("allow the agent to patch `{definition}/status`");
        Self::new(what, remedy, longest)
    }

    fn new(what: String, remedy: String, longest: Duration) -> Self {
        Self {
            what,
            remedy,
            backoff: Backoff::new(FIRST_PAUSE.min(longest), longest),
            rests_until: None,
            is_told: false,
        }
    }

    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }

    fn succeed(&mut self) {
        self.backoff.reset();
        self.rests_until = None;
        if std::mem::take(&mut self.is_told) {
            tracing::info!("{} can be written again", self.what);
        }
    }

    fn fail(&mut self, error: &RequestError, now: Instant, jitter: &mut Jitter) {
        let pause = self.backoff.fail(jitter);
        self.rests_until = Some(now + pause);
        if std::mem::replace(&mut self.is_told, true) {
            tracing::debug!(%error, pause_seconds = pause.as_secs_f64(), "{} still cannot be written", self.what);
        } else if error.meaning() == Meaning::Forbidden {
            tracing::warn!(%error, "{} are forbidden; {}", self.what, self.remedy);
        } else {
            tracing::warn!(%error, "{} cannot be written; trying again", self.what);
        }
    }
}

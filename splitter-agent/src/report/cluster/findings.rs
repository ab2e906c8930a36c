//! Which Events are to be written: kept in step with what is said about objects, without
//! I/O.
//!
//! What stands is the truth. For each finding the [`Reconciler`] remembers whether its
//! Event is written; whatever goes wrong with a write, the finding is due until it went
//! well or no longer stands.
//!
//! A follower keeps what stands and nothing else. The leader keeps an Event that it wrote for as
//! long as the API server does, so that a finding that comes back continues the series; its pace
//! bounds how many those can be.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event;
use super::lanes::{Lane, Turns};
use super::limit::TokenBucket;
use crate::compile::{Diagnostic, Severity};
use crate::objects::{Kind, ObjectName, ObjectReference};
use crate::reason;
use crate::report::ObjectDiagnostics;

/// How often Events are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// How long an object must stand still before anything is written about it.
    pub settle: Duration,
    /// How long a condition must have lasted before its Event is written, if it is one that
    /// every rollout goes through, such as a leaf without a ready endpoint.
    pub patience: Duration,
    /// How much time lies between two writes about one finding, however often it comes
    /// and goes.
    pub repeat: Duration,
    /// How long after a write a finding that still stands is written again; less than the
    /// API server keeps Events.
    pub refresh: Duration,
    /// Most writes per second in the long run.
    pub per_second: f64,
    /// Most writes at once.
    pub burst: u32,
    /// How long an object of a new generation must stand still before its status is written:
    /// tools wait for that with every step of a rollout.
    pub prompt: Duration,
    /// Most requests for statuses per second in the long run.
    pub statuses_per_second: f64,
    /// Most requests for statuses at once.
    pub statuses_burst: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            settle: Duration::from_millis(1500),
            patience: Duration::from_secs(30),
            repeat: Duration::from_secs(60),
            refresh: Duration::from_secs(30 * 60),
            per_second: 10.0,
            burst: 50,
            prompt: Duration::from_millis(200),
            statuses_per_second: 50.0,
            statuses_burst: 200,
        }
    }
}

/// How long the API server keeps an Event after it was last written, by default.
const KEPT: Duration = Duration::from_secs(3600);

/// What is older than this when the agent becomes the leader was most likely written by the
/// leader before.
pub(super) const OLD: Duration = Duration::from_secs(300);

/// How long a finding rests whose Event the API server does not take.
const REJECTED: Duration = Duration::from_secs(600);

/// How many writes are decided on at once; what comes first can change in between.
const BATCH: usize = 10;

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Action {
    /// Namespace and name of the Event.
    pub(super) event: ObjectName,
    pub(super) write: Write,
}

/// What to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Write {
    /// A new Event.
    Create {
        state: Box<ObjectDiagnostics>,
        diagnostic: Box<Diagnostic>,
    },
    /// Repeat an Event; with its count, if that is known.
    Repeat { count: Option<i32> },
}

/// The result of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventOutcome {
    /// It is written; with the count that the API server returned, if it did.
    Written(Option<i32>),
    /// There was such an Event already.
    Present,
    /// There was no such Event any more.
    Missing,
    /// The API server rejects it, and would again.
    Rejected,
}

/// Keeps Events in step with findings.
#[derive(Debug)]
pub(super) struct Reconciler {
    pace: Pace,
    findings: BTreeMap<ObjectName, Finding>,
    /// The findings about each object that stand.
    objects: BTreeMap<ObjectReference, Vec<ObjectName>>,
    slots: HashMap<u64, Instant>,
    bucket: TokenBucket,
    turns: Turns,
    leads: bool,
    /// Whether anything was noted yet: what is noted first was there before this process.
    has_begun: bool,
}

#[derive(Debug)]
struct Finding {
    state: ObjectDiagnostics,
    diagnostic: Diagnostic,
    slot: u64,
    since: Instant,
    /// Since when the object has had this reason at this field, whatever the words and the
    /// generation were.
    lasts_since: Instant,
    stands: bool,
    /// Whether it is so new that no agent can have written its Event.
    is_new: bool,
    event: Event,
    /// How often it came back since that was last written.
    returned: i32,
    rests_until: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Unwritten,
    Written { at: Instant, count: Option<i32> },
}

/// What is written first when there is too much to write at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Urgency {
    Finding,
    Returned,
    Acceptance,
    UnconfirmedFinding,
    UnconfirmedAcceptance,
    Refresh,
}

impl Urgency {
    fn lane(self) -> Lane {
        match self {
            Self::Finding | Self::Returned | Self::Acceptance => Lane::Changed,
            Self::UnconfirmedFinding | Self::UnconfirmedAcceptance | Self::Refresh => {
                Lane::Unconfirmed
            }
        }
    }
}

impl Reconciler {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            pace,
            findings: BTreeMap::new(),
            objects: BTreeMap::new(),
            slots: HashMap::new(),
            bucket: TokenBucket::new(pace.per_second, pace.burst),
            turns: Turns::default(),
            leads: false,
            has_begun: false,
        }
    }

    /// Takes note that this process leads from now on: others have written in the
    /// meantime.
    pub(super) fn lead(&mut self, now: Instant) {
        self.follow();
        self.leads = true;
        for finding in self.findings.values_mut() {
            let is_old = now.saturating_duration_since(finding.since) >= OLD;
            finding.is_new &= !is_old;
            finding.returned = 0;
            finding.rests_until = None;
            finding.event = if is_old && finding.is_acceptance() {
                Event::Written {
                    at: now,
                    count: None,
                }
            } else {
                Event::Unwritten
            };
        }
    }

    /// Takes note that another leads, who keeps what is to be kept of the past.
    pub(super) fn follow(&mut self) {
        self.leads = false;
        self.findings.retain(|_, finding| finding.stands);
        self.slots.clear();
    }

    /// Takes note of how objects have come to stand.
    pub(super) fn note(
        &mut self,
        settled: impl IntoIterator<Item = (ObjectReference, Option<ObjectDiagnostics>)>,
        now: Instant,
    ) {
        let is_new = self.has_begun;
        for (object, state) in settled {
            self.has_begun = true;
            let before = self.objects.remove(&object).unwrap_or_default();
            let names = match &state {
                Some(state) => self.add(&object, state, &before, is_new, now),
                None => Vec::new(),
            };
            for gone in before {
                if !names.contains(&gone) {
                    self.fall(&gone, state.as_ref());
                }
            }
            if !names.is_empty() {
                self.objects.insert(object, names);
            }
        }
    }

    fn add(
        &mut self,
        object: &ObjectReference,
        state: &ObjectDiagnostics,
        before: &[ObjectName],
        is_new: bool,
        now: Instant,
    ) -> Vec<ObjectName> {
        let mut names = Vec::with_capacity(state.diagnostics.len());
        // An Event finds its object by the uid.
        if state.uid.is_empty() {
            return names;
        }
        for diagnostic in &*state.diagnostics {
            // Others are not ours to accept.
            if diagnostic.severity == Severity::Accepted
                && !object.known_kind().is_some_and(Kind::is_route)
            {
                continue;
            }
            let name = event::name(state, diagnostic);
            let lasts_since = before
                .iter()
                .filter_map(|name| self.findings.get(name))
                .find(|finding| finding.is_about(state, diagnostic))
                .map_or(now, |finding| finding.lasts_since);
            self.findings
                .entry(name.clone())
                .and_modify(|finding| {
                    if !finding.stands {
                        finding.stands = true;
                        finding.since = now;
                        finding.lasts_since = lasts_since;
                        if !finding.is_acceptance() {
                            finding.returned = finding.returned.saturating_add(1);
                        }
                    }
                })
                .or_insert_with(|| Finding {
                    slot: event::slot(state, diagnostic),
                    state: ObjectDiagnostics {
                        diagnostics: Arc::default(),
                        weights: Box::default(),
                        ..state.clone()
                    },
                    diagnostic: diagnostic.clone(),
                    since: now,
                    lasts_since,
                    stands: true,
                    is_new,
                    event: Event::Unwritten,
                    returned: 0,
                    rests_until: None,
                });
            names.push(name);
        }
        names
    }

    /// Takes note that a finding no longer stands, now that its object stands like this. It is
    /// kept only where it may come back and continue an Event of this process.
    fn fall(&mut self, name: &ObjectName, now_stands: Option<&ObjectDiagnostics>) {
        let Some(finding) = self.findings.get_mut(name) else {
            return;
        };
        let is_past = now_stands.is_some_and(|state| {
            (&state.uid, state.generation) != (&finding.state.uid, finding.state.generation)
        });
        if self.leads && !is_past && matches!(finding.event, Event::Written { .. }) {
            finding.stands = false;
        } else {
            self.findings.remove(name);
        }
    }

    /// What to write now. Each action is to be followed by [`Self::done`] if it was tried;
    /// what was not is due again.
    pub(super) fn step(&mut self, now: Instant) -> Vec<Action> {
        self.forget(now);
        let mut due: Vec<(Urgency, Instant, &ObjectName, &Finding)> = self
            .findings
            .iter()
            .filter_map(|(name, finding)| {
                let urgency = finding.urgency(&self.pace, now)?;
                Some((urgency, finding.since, name, finding))
            })
            .filter(|(_, _, _, finding)| !self.slots.contains_key(&finding.slot))
            .collect();
        // They come in the order of their names, and a stable sort keeps it: to compare names is
        // what would take long where thousands are due since the same moment.
        due.sort_by_key(|(urgency, since, _, _)| (*urgency, *since));
        let (changed, unconfirmed): (Vec<_>, Vec<_>) = due
            .into_iter()
            .partition(|(urgency, ..)| urgency.lane() == Lane::Changed);
        let (mut changed, mut unconfirmed) = (
            changed.into_iter().peekable(),
            unconfirmed.into_iter().peekable(),
        );
        let mut slots = BTreeSet::new();
        let mut actions = Vec::new();
        while actions.len() < BATCH {
            let next = self.turns.next(&mut changed, &mut unconfirmed);
            let Some((lane, (_, _, name, finding))) = next else {
                break;
            };
            if !slots.insert(finding.slot) {
                continue;
            }
            if !self.bucket.take(now) {
                break;
            }
            self.turns.took(lane);
            actions.push(Action {
                event: name.clone(),
                write: finding.write(),
            });
        }
        actions
    }

    /// Records the result of an action.
    pub(super) fn done(&mut self, action: &Action, outcome: EventOutcome, now: Instant) {
        let Some(finding) = self.findings.get_mut(&action.event) else {
            return;
        };
        match outcome {
            EventOutcome::Written(count) => {
                finding.event = Event::Written { at: now, count };
                finding.returned = 0;
                self.slots.insert(finding.slot, now);
            }
            EventOutcome::Present => {
                // Nobody knows for how long, so it is refreshed earlier than one of ours.
                let at = now.checked_sub(self.pace.refresh / 2).unwrap_or(now);
                finding.event = Event::Written { at, count: None };
            }
            EventOutcome::Missing => finding.event = Event::Unwritten,
            EventOutcome::Rejected => finding.rests_until = Some(now + REJECTED),
        }
    }

    /// Forgets what no longer stands and is no longer kept by the API server.
    fn forget(&mut self, now: Instant) {
        self.findings.retain(|_, finding| {
            finding.stands
                || match finding.event {
                    Event::Unwritten => false,
                    Event::Written { at, .. } => now.saturating_duration_since(at) < KEPT,
                }
        });
        let repeat = self.pace.repeat;
        self.slots
            .retain(|_, at| now.saturating_duration_since(*at) < repeat);
    }
}

impl Finding {
    fn is_acceptance(&self) -> bool {
        self.diagnostic.severity == Severity::Accepted
    }

    /// Whether it tells of the same condition of the same object.
    fn is_about(&self, state: &ObjectDiagnostics, diagnostic: &Diagnostic) -> bool {
        self.stands
            && self.state.uid == state.uid
            && self.diagnostic.reason == diagnostic.reason
            && self.diagnostic.field == diagnostic.field
    }

    /// Whether it has yet to last before it is worth an Event.
    fn is_premature(&self, pace: &Pace, now: Instant) -> bool {
        reason::is_transient(self.diagnostic.reason)
            && now.saturating_duration_since(self.lasts_since) < pace.patience
    }

    /// Whether it is to be written now, and how urgently.
    fn urgency(&self, pace: &Pace, now: Instant) -> Option<Urgency> {
        if !self.stands
            || self.rests_until.is_some_and(|until| now < until)
            || self.is_premature(pace, now)
        {
            return None;
        }
        match self.event {
            Event::Unwritten => Some(match (self.is_new, self.is_acceptance()) {
                (true, false) => Urgency::Finding,
                (true, true) => Urgency::Acceptance,
                (false, false) => Urgency::UnconfirmedFinding,
                (false, true) => Urgency::UnconfirmedAcceptance,
            }),
            Event::Written { .. } if self.is_acceptance() => None,
            Event::Written { .. } if self.returned > 0 => Some(Urgency::Returned),
            Event::Written { at, .. } => {
                (now.saturating_duration_since(at) >= pace.refresh).then_some(Urgency::Refresh)
            }
        }
    }

    fn write(&self) -> Write {
        match self.event {
            Event::Unwritten => Write::Create {
                state: Box::new(self.state.clone()),
                diagnostic: Box::new(self.diagnostic.clone()),
            },
            Event::Written { count, .. } => Write::Repeat {
                count: count.map(|count| count.saturating_add(self.returned.max(1))),
            },
        }
    }
}

#[cfg(test)]
#[path = "findings_tests.rs"]
mod tests;

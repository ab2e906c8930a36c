//! Which Events are to be written: kept in step with what is said about objects, without
//! I/O.
//!
//! What stands is the truth. For each finding the [`Reconciler`] remembers whether its
//! Event is written; whatever goes wrong with a write, the finding is due until it went
//! well or no longer stands.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event;
use super::limit::TokenBucket;
use crate::compile::{Diagnostic, Severity};
use crate::objects::{ObjectName, ObjectReference};
use crate::report::Standing;

/// How often Events are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// How long an object must stand still before anything is written about it.
    pub settle: Duration,
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
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            settle: Duration::from_millis(1500),
            repeat: Duration::from_secs(60),
            refresh: Duration::from_secs(30 * 60),
            per_second: 10.0,
            burst: 50,
        }
    }
}

/// How long the API server keeps an Event after it was last written, by default.
const KEPT: Duration = Duration::from_secs(3600);

/// An acceptance that is older than this when the agent becomes the leader was told by the
/// leader before.
const OLD: Duration = Duration::from_secs(300);

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
        standing: Box<Standing>,
        diagnostic: Box<Diagnostic>,
    },
    /// Say again what an Event says; with its count, if that is known.
    Repeat { count: Option<i32> },
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is written, and says that it was seen so often, if the API server told.
    Written(Option<i32>),
    /// There was such an Event already.
    Present,
    /// There was no such Event any more.
    Missing,
    /// The API server will not take it, however often it is tried.
    Rejected,
}

/// Keeps Events in step with findings.
#[derive(Debug)]
pub(super) struct Reconciler {
    pace: Pace,
    findings: BTreeMap<ObjectName, Finding>,
    /// The findings about each object.
    objects: BTreeMap<ObjectReference, Vec<ObjectName>>,
    slots: HashMap<u64, Instant>,
    bucket: TokenBucket,
}

#[derive(Debug)]
struct Finding {
    standing: Standing,
    diagnostic: Diagnostic,
    slot: u64,
    since: Instant,
    stands: bool,
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
    Refresh,
}

impl Reconciler {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            pace,
            findings: BTreeMap::new(),
            objects: BTreeMap::new(),
            slots: HashMap::new(),
            bucket: TokenBucket::new(pace.per_second, pace.burst),
        }
    }

    /// Takes note that this process leads from now on: others have written in the
    /// meantime.
    pub(super) fn lead(&mut self, now: Instant) {
        self.findings.retain(|_, finding| finding.stands);
        self.slots.clear();
        for finding in self.findings.values_mut() {
            let told =
                finding.is_acceptance() && now.saturating_duration_since(finding.since) >= OLD;
            finding.returned = 0;
            finding.rests_until = None;
            finding.event = if told {
                Event::Written {
                    at: now,
                    count: None,
                }
            } else {
                Event::Unwritten
            };
        }
    }

    /// Takes note of how objects have come to stand.
    pub(super) fn note(
        &mut self,
        settled: impl IntoIterator<Item = (ObjectReference, Option<Standing>)>,
        now: Instant,
    ) {
        for (object, standing) in settled {
            let names = standing
                .map(|standing| self.add(&object, &standing, now))
                .unwrap_or_default();
            let before = if names.is_empty() {
                self.objects.remove(&object)
            } else {
                self.objects.insert(object, names.clone())
            };
            for gone in before.unwrap_or_default() {
                if !names.contains(&gone)
                    && let Some(finding) = self.findings.get_mut(&gone)
                {
                    finding.stands = false;
                }
            }
        }
    }

    fn add(
        &mut self,
        object: &ObjectReference,
        standing: &Standing,
        now: Instant,
    ) -> Vec<ObjectName> {
        let mut names = Vec::with_capacity(standing.diagnostics.len());
        // An Event finds its object by the uid.
        if standing.uid.is_empty() {
            return names;
        }
        for diagnostic in &*standing.diagnostics {
            // Others are not ours to accept.
            if diagnostic.severity == Severity::Accepted && object.kind != super::SPLIT_KIND {
                continue;
            }
            let name = event::name(standing, diagnostic);
            self.findings
                .entry(name.clone())
                .and_modify(|finding| {
                    if !finding.stands {
                        finding.stands = true;
                        finding.since = now;
                        if !finding.is_acceptance() {
                            finding.returned = finding.returned.saturating_add(1);
                        }
                    }
                })
                .or_insert_with(|| Finding {
                    slot: event::slot(standing, diagnostic),
                    standing: Standing {
                        diagnostics: Arc::default(),
                        ..standing.clone()
                    },
                    diagnostic: diagnostic.clone(),
                    since: now,
                    stands: true,
                    event: Event::Unwritten,
                    returned: 0,
                    rests_until: None,
                });
            names.push(name);
        }
        names
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
        let mut slots = BTreeSet::new();
        let mut actions = Vec::new();
        for (_, _, name, finding) in due {
            if actions.len() == BATCH {
                break;
            }
            if !slots.insert(finding.slot) {
                continue;
            }
            if !self.bucket.take(now) {
                break;
            }
            actions.push(Action {
                event: name.clone(),
                write: finding.write(),
            });
        }
        actions
    }

    /// Takes note of what came of an action.
    pub(super) fn done(&mut self, action: &Action, outcome: Outcome, now: Instant) {
        let Some(finding) = self.findings.get_mut(&action.event) else {
            return;
        };
        match outcome {
            Outcome::Written(count) => {
                finding.event = Event::Written { at: now, count };
                finding.returned = 0;
                self.slots.insert(finding.slot, now);
            }
            Outcome::Present => {
                // Nobody knows for how long, so it is refreshed earlier than one of ours.
                let at = now.checked_sub(self.pace.refresh / 2).unwrap_or(now);
                finding.event = Event::Written { at, count: None };
            }
            Outcome::Missing => finding.event = Event::Unwritten,
            Outcome::Rejected => finding.rests_until = Some(now + REJECTED),
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

    /// Whether it is to be written now, and how urgently.
    fn urgency(&self, pace: &Pace, now: Instant) -> Option<Urgency> {
        if !self.stands || self.rests_until.is_some_and(|until| now < until) {
            return None;
        }
        match self.event {
            Event::Unwritten if self.is_acceptance() => Some(Urgency::Acceptance),
            Event::Unwritten => Some(Urgency::Finding),
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
                standing: Box::new(self.standing.clone()),
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

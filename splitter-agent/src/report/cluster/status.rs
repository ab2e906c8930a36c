//! What the status of an object says, where it has one, and which are to be written;
//! without I/O.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::conditions;
use super::event::cut;
use super::findings::{OLD, Pace};
use super::lanes::{Lane, Turns};
use super::limit::TokenBucket;
use super::shared::{Document, Replacement};
use crate::objects::{Kind, ObjectReference, StatusForm};
use crate::report::ObjectDiagnostics;

/// Most bytes of a message in a condition, as other APIs have it.
const MOST_MESSAGE: usize = 4096;

/// How long an object rests whose status could not be written for a reason of its own.
const RESTS: Duration = Duration::from_secs(60);

/// How many writes are decided on at once.
const BATCH: usize = 10;

/// How long at most an object that does not stand still is waited for, in settling times.
const MAX_SETTLING: u32 = 10;

/// The status that the agent writes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) observed_generation: Option<i64>,
    /// The weights as they are read, for a column of `kubectl get`, which shows one value only.
    pub(super) weights: String,
    pub(super) conditions: Vec<Condition>,
}

/// One request about one object.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Action {
    pub(super) object: ObjectReference,
    pub(super) uid: String,
    /// What the status of its kind is like.
    pub(super) form: StatusForm,
    /// What to write; `None` asks for what is written, since others may have written, or this
    /// process has not led for long enough to know.
    pub(super) write: Option<Content>,
}

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    /// A status that is splitter's alone.
    Own(Status),
    /// A list of a status that others write to.
    Shared(Replacement),
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum StatusOutcome {
    /// The status has this content.
    Read(Known),
    /// It now has what was to be written.
    Written,
    /// Somebody else has written since it was read.
    Outdated,
    /// The object is another now, or gone, or its API does not take this. Most likely
    /// something else will soon be said about it.
    Stale,
}

/// What is known of a status.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Known {
    Own(Status),
    /// Known for the moment: others write there too.
    Shared(Box<Document>),
}

/// Keeps statuses in step with what is said about objects.
#[derive(Debug)]
pub(super) struct Statuses {
    objects: BTreeMap<ObjectReference, Entry>,
    pace: Pace,
    bucket: TokenBucket,
    turns: Turns,
    /// Since when something is noted: what is noted first was there before this process.
    begun: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    state: ObjectDiagnostics,
    /// Since when it stands like this.
    since: Instant,
    /// Since when something is to be done.
    pending_since: Instant,
    /// Whether it has another generation than what was done last.
    is_new_generation: bool,
    lane: Lane,
    known: Option<Known>,
    /// Whether nothing is to be asked until something else is said.
    is_done: bool,
    rests_until: Option<Instant>,
}

impl Entry {
    /// Whether something is to be done now: what lasts for a moment only is not worth it.
    fn is_due(&self, pace: &Pace, now: Instant) -> bool {
        let quiet = if self.is_new_generation {
            pace.prompt.min(pace.settle)
        } else {
            pace.settle
        };
        let has_settled = now.saturating_duration_since(self.since) >= quiet
            || now.saturating_duration_since(self.pending_since) >= pace.settle * MAX_SETTLING;
        !self.is_done && has_settled && self.rests_until.is_none_or(|until| until <= now)
    }
}

impl Statuses {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            objects: BTreeMap::new(),
            bucket: TokenBucket::new(pace.statuses_per_second, pace.statuses_burst),
            pace,
            turns: Turns::default(),
            begun: None,
        }
    }

    /// Takes note that others may have written in the meantime.
    pub(super) fn lead(&mut self, now: Instant) {
        for entry in self.objects.values_mut() {
            if now.saturating_duration_since(entry.since) >= OLD {
                entry.lane = Lane::Unconfirmed;
            }
            entry.known = None;
            entry.is_done = false;
            entry.rests_until = None;
        }
    }

    /// Takes note of how objects stand now.
    pub(super) fn note(
        &mut self,
        states: impl IntoIterator<Item = (ObjectReference, Option<ObjectDiagnostics>)>,
        now: Instant,
    ) {
        for (object, state) in states {
            let begun = *self.begun.get_or_insert(now);
            let is_first = now.saturating_duration_since(begun) < self.pace.settle * 2;
            if !object.known_kind().is_some_and(Kind::has_status) {
                continue;
            }
            let before = self.objects.remove(&object);
            let Some(state) = state.filter(|state| !state.uid.is_empty()) else {
                continue;
            };
            let before = before.filter(|before| before.state.uid == state.uid);
            let entry = match before {
                Some(before) if before.state == state => before,
                Some(before) => Entry {
                    pending_since: if before.is_done {
                        now
                    } else {
                        before.pending_since
                    },
                    is_new_generation: before.state.generation != state.generation
                        || !before.is_done && before.is_new_generation,
                    known: before.known,
                    lane: Lane::Changed,
                    ..Entry::new(state, now)
                },
                None => Entry {
                    lane: if is_first {
                        Lane::Unconfirmed
                    } else {
                        Lane::Changed
                    },
                    ..Entry::new(state, now)
                },
            };
            self.objects.insert(object, entry);
        }
    }

    /// What to ask the API server now, about objects of the kinds that can be written; `at` is the
    /// time of transitions.
    pub(super) fn step(
        &mut self,
        now: Instant,
        at: Timestamp,
        can_be_written: impl Fn(Kind) -> bool,
    ) -> Vec<Action> {
        let pace = self.pace;
        let due = self.objects.iter_mut().filter_map(|(object, entry)| {
            let kind = object.known_kind()?;
            let is_due = entry.is_due(&pace, now) && can_be_written(kind);
            is_due.then_some((object, kind.status, entry))
        });
        let mut due: Vec<(&ObjectReference, StatusForm, &mut Entry)> = due.collect();
        due.sort_by_key(|(_, _, entry)| (entry.lane, entry.since));
        let unconfirmed = due.partition_point(|(_, _, entry)| entry.lane == Lane::Changed);
        let mut unconfirmed = due.split_off(unconfirmed).into_iter().peekable();
        let mut changed = due.into_iter().peekable();
        let mut actions = Vec::new();
        let mut has_spare = true;
        while actions.len() < BATCH {
            let next = if has_spare {
                self.turns.next(&mut changed, &mut unconfirmed)
            } else {
                changed.next().map(|entry| (Lane::Changed, entry))
            };
            let Some((lane, (object, form, entry))) = next else {
                break;
            };
            let write = match entry.next(form, now, at) {
                Next::Read => None,
                Next::Write(content) => Some(content),
                Next::Nothing => continue,
            };
            // What changes finds some tokens left, however much is unconfirmed.
            let reserve = match lane {
                Lane::Changed => 0.0,
                Lane::Unconfirmed => 0.5,
            };
            if !self.bucket.take_spare(now, reserve) {
                if lane == Lane::Changed {
                    break;
                }
                has_spare = false;
                continue;
            }
            self.turns.took(lane);
            actions.push(Action {
                object: object.clone(),
                uid: entry.state.uid.clone(),
                form,
                write,
            });
        }
        actions
    }

    /// Records the result of an action.
    pub(super) fn done(&mut self, action: &Action, outcome: StatusOutcome, now: Instant) {
        let Some(entry) = self.objects.get_mut(&action.object) else {
            return;
        };
        if entry.state.uid != action.uid {
            return;
        }
        match (outcome, &action.write) {
            (StatusOutcome::Read(known), _) => entry.known = Some(known),
            // Whether that is still what is to be said shows with the next step.
            (StatusOutcome::Written, Some(Content::Own(status))) => {
                entry.known = Some(Known::Own(status.clone()));
            }
            (StatusOutcome::Written, _) => {
                entry.known = None;
                entry.finish();
            }
            (StatusOutcome::Outdated, _) => entry.known = None,
            (StatusOutcome::Stale, _) => {
                entry.known = None;
                entry.rests_until = Some(now + RESTS);
            }
        }
    }
}

/// What is to be done about a status.
enum Next {
    Read,
    Write(Content),
    Nothing,
}

impl Entry {
    fn new(state: ObjectDiagnostics, now: Instant) -> Self {
        Self {
            state,
            since: now,
            pending_since: now,
            is_new_generation: true,
            lane: Lane::Changed,
            known: None,
            is_done: false,
            rests_until: None,
        }
    }

    fn finish(&mut self) {
        self.is_done = true;
        self.is_new_generation = false;
    }

    fn next(&mut self, form: StatusForm, now: Instant, at: Timestamp) -> Next {
        match &self.known {
            None => Next::Read,
            Some(Known::Own(known)) => {
                let status = status(&self.state, &known.conditions, at);
                if status == *known {
                    self.finish();
                    return Next::Nothing;
                }
                Next::Write(Content::Own(status))
            }
            Some(Known::Shared(document)) => {
                let is_current = document.generation == self.state.generation;
                let replacement = document.replacement(form, &self.state, at);
                if !is_current {
                    // Of what is there now, nothing is known yet; it will be noted.
                    self.known = None;
                    self.rests_until = Some(now + RESTS);
                    return Next::Nothing;
                }
                let Some(replacement) = replacement else {
                    self.known = None;
                    self.finish();
                    return Next::Nothing;
                };
                Next::Write(Content::Shared(replacement))
            }
        }
    }
}

/// The status of an object, given its diagnostics and the conditions that it had.
fn status(state: &ObjectDiagnostics, before: &[Condition], at: Timestamp) -> Status {
    let generation = (state.generation > 0).then_some(state.generation);
    let conditions = conditions::of(&state.diagnostics).into_iter();
    let conditions = conditions.map(|condition| {
        let status = condition.status.name();
        let since = before
            .iter()
            .find(|before| before.type_ == condition.name && before.status == status)
            .map_or(Time(at), |before| before.last_transition_time.clone());
        Condition {
            type_: condition.name.to_owned(),
            status: status.to_owned(),
            reason: condition.reason.to_owned(),
            message: cut(&condition.message, MOST_MESSAGE).to_owned(),
            observed_generation: generation,
            last_transition_time: since,
        }
    });
    Status {
        observed_generation: generation,
        weights: state.weights.to_string(),
        conditions: conditions.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    /// Writes at once.
    fn pace() -> Pace {
        Pace {
            settle: Duration::ZERO,
            prompt: Duration::ZERO,
            ..Pace::default()
        }
    }

    fn read(status: Status) -> StatusOutcome {
        StatusOutcome::Read(Known::Own(status))
    }

    fn own(action: &Action) -> Status {
        match &action.write {
            Some(Content::Own(status)) => status.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    /// Type, status, reason and second of transition of every condition.
    fn summary(status: &Status) -> Vec<(&str, &str, &str, i64)> {
        status
            .conditions
            .iter()
            .map(|condition| {
                (
                    condition.type_.as_str(),
                    condition.status.as_str(),
                    condition.reason.as_str(),
                    condition.last_transition_time.0.as_second(),
                )
            })
            .collect()
    }

    #[test]
    fn a_transition_time_moves_only_when_the_status_of_its_condition_does() {
        let (_, accepted) = sample::state("books", 1, &["Accepted"]);
        let (_, warned) = sample::state("books", 2, &["LeafNotReady"]);
        let (_, refused) = sample::state("books", 3, &["InvalidWeight", "LeafNotReady"]);
        let first = status(&accepted, &[], at(10));
        assert_eq!(
            summary(&first),
            [
                ("Accepted", "True", "Accepted", 10),
                ("ResolvedRefs", "True", "ResolvedRefs", 10),
                ("Programmed", "True", "Programmed", 10),
            ]
        );
        let second = status(&warned, &first.conditions, at(20));
        assert_eq!(
            summary(&second),
            [
                ("Accepted", "True", "Accepted", 10),
                ("ResolvedRefs", "False", "LeafNotReady", 20),
                ("Programmed", "True", "Programmed", 10),
            ]
        );
        let third = status(&refused, &second.conditions, at(30));
        assert_eq!(
            summary(&third),
            [
                ("Accepted", "False", "InvalidWeight", 30),
                ("ResolvedRefs", "False", "LeafNotReady", 20),
                ("Programmed", "False", "InvalidWeight", 30),
            ]
        );
        assert_eq!(third.observed_generation, Some(3));
        assert_eq!(third.weights, "v1:90,v2:10");
    }

    #[test]
    fn a_status_is_asked_for_once_and_written_only_when_it_is_another() {
        let now = Instant::now();
        let mut statuses = Statuses::new(pace());
        let (object, state) = sample::state("books", 1, &["Accepted"]);
        statuses.note([(object.clone(), Some(state))], now);
        let asked = statuses.step(now, at(10), |_| true);
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].write, None);
        statuses.done(
            &asked[0],
            StatusOutcome::Read(Known::Own(Status::default())),
            now,
        );
        let written = statuses.step(now, at(10), |_| true);
        let status = own(&written[0]);
        statuses.done(&written[0], StatusOutcome::Written, now);
        assert!(statuses.step(now, at(20), |_| true).is_empty());

        // A new leader finds what the one before has written.
        statuses.lead(now);
        let asked = statuses.step(now, at(30), |_| true);
        statuses.done(&asked[0], read(status), now);
        assert!(statuses.step(now, at(30), |_| true).is_empty());

        let (_, state) = sample::state("books", 2, &["Accepted"]);
        statuses.note([(object.clone(), Some(state))], now);
        let written = statuses.step(now, at(40), |_| true);
        let status = own(&written[0]);
        assert_eq!(status.observed_generation, Some(2));
        assert_eq!(summary(&status)[0].3, 10);

        statuses.done(&written[0], StatusOutcome::Stale, now);
        assert!(statuses.step(now, at(50), |_| true).is_empty());
        let later = now + RESTS;
        assert_eq!(
            statuses.step(later, at(50), |_| true).len(),
            1,
            "it is not lost"
        );
        statuses.note([(object, None)], now);
        assert!(statuses.objects.is_empty());
    }

    /// Everything that is due at a moment, each answered as if it were as it should be.
    fn asked(statuses: &mut Statuses, now: Instant) -> Vec<String> {
        let actions = statuses.step(now, at(10), |_| true);
        for action in &actions {
            let split = &statuses.objects[&action.object];
            let status = status(&split.state, &[], at(10));
            statuses.done(action, read(status), now);
        }
        let names = actions.into_iter().map(|action| action.object.name.name);
        names.collect()
    }

    fn many(count: usize) -> Vec<(ObjectReference, Option<ObjectDiagnostics>)> {
        (0..count)
            .map(|number| {
                let (object, state) =
                    sample::state(&format!("split-{number:05}"), 1, &["Accepted"]);
                (object, Some(state))
            })
            .collect()
    }

    #[test]
    fn a_new_leader_writes_a_change_before_what_is_unconfirmed() {
        let mut now = Instant::now();
        let mut statuses = Statuses::new(Pace::default());
        statuses.note(many(10_000), now);
        now += Duration::from_secs(3600);
        // One changes just before the one that led is gone, and one after.
        let change = |name: &str, generation| {
            let (object, state) = sample::state(name, generation, &["InvalidWeight"]);
            [(object, Some(state))]
        };
        statuses.note(change("split-09998", 2), now);
        now += Duration::from_secs(60);
        statuses.lead(now);
        assert_eq!(asked(&mut statuses, now)[0], "split-09998");
        // The burst is used up by what is unconfirmed.
        while !asked(&mut statuses, now).is_empty() {}
        statuses.note(change("split-09999", 2), now);
        now += Duration::from_secs(1);
        assert_eq!(asked(&mut statuses, now)[0], "split-09999");
    }

    #[test]
    fn what_is_unconfirmed_gets_on_under_a_stream_of_changes() {
        let mut now = Instant::now();
        let mut statuses = Statuses::new(Pace::default());
        statuses.note(many(100), now);
        statuses.lead(now);
        let mut confirmed = std::collections::BTreeSet::new();
        // More changes than can be written.
        for second in 0..200 {
            now += Duration::from_secs(1);
            for number in 0..20 {
                let (object, state) =
                    sample::state(&format!("busy-{number:02}"), second, &["RootMissing"]);
                statuses.note([(object, Some(state))], now);
            }
            let names = asked(&mut statuses, now);
            confirmed.extend(names.into_iter().filter(|name| name.starts_with("split")));
        }
        assert_eq!(confirmed.len(), 100);
    }

    /// An HTTPRoute that is accepted in this generation.
    fn route(generation: i64) -> (ObjectReference, ObjectDiagnostics) {
        let (_, state) = sample::state("web", generation, &["Accepted"]);
        let name = crate::objects::ObjectName::new("shop", "web");
        (ObjectReference::new(Kind::HTTP_ROUTE, name), state)
    }

    /// What the API server has of it.
    fn document(generation: i64, version: &str, status: &serde_json::Value) -> StatusOutcome {
        let object = serde_json::json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "web", "generation": generation, "resourceVersion": version},
            "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "web"}]},
            "status": status,
        });
        let object = serde_json::from_value(object).expect("an object");
        let form = Kind::HTTP_ROUTE.status;
        StatusOutcome::Read(Known::Shared(Box::new(Document::read(&object, form))))
    }

    #[test]
    fn a_shared_status_is_read_before_each_write_and_read_again_if_others_wrote_in_between() {
        let now = Instant::now();
        let mut statuses = Statuses::new(pace());
        let step = |statuses: &mut Statuses| statuses.step(now, at(10), |_| true).pop();
        let (object, state) = route(1);
        statuses.note([(object.clone(), Some(state))], now);
        let asked = step(&mut statuses).expect("a question");
        assert_eq!(asked.write, None);
        let none = serde_json::json!(null);
        statuses.done(&asked, document(1, "7", &none), now);
        let written = step(&mut statuses).expect("a write");
        let Some(Content::Shared(replacement)) = &written.write else {
            panic!("{written:?}");
        };
        assert_eq!(
            (replacement.field, replacement.resource_version.as_str()),
            ("parents", "7")
        );
        statuses.done(&written, StatusOutcome::Outdated, now);
        let asked = step(&mut statuses).expect("a question");
        assert_eq!(asked.write, None);
        statuses.done(&asked, document(1, "8", &none), now);
        let written = step(&mut statuses).expect("a write");
        let Some(Content::Shared(replacement)) = &written.write else {
            panic!("{written:?}");
        };
        assert_eq!(replacement.resource_version, "8");
        let parents = serde_json::json!({ "parents": replacement.entries });
        statuses.done(&written, StatusOutcome::Written, now);
        assert_eq!(step(&mut statuses), None);
        assert!(statuses.objects[&object].known.is_none(), "nothing is kept");

        // A new leader finds it as it should be.
        statuses.lead(now);
        let asked = step(&mut statuses).expect("a question");
        statuses.done(&asked, document(1, "9", &parents), now);
        assert_eq!(step(&mut statuses), None);
        assert!(statuses.objects[&object].is_done);
    }

    #[test]
    fn nothing_is_said_of_a_generation_that_is_not_known_yet() {
        let now = Instant::now();
        let mut statuses = Statuses::new(pace());
        let (object, state) = route(1);
        statuses.note([(object, Some(state))], now);
        let asked = statuses
            .step(now, at(10), |_| true)
            .pop()
            .expect("a question");
        statuses.done(&asked, document(2, "7", &serde_json::json!(null)), now);
        assert_eq!(statuses.step(now, at(10), |_| true), []);
        let (object, state) = route(2);
        statuses.note([(object, Some(state))], now);
        let asked = statuses
            .step(now, at(10), |_| true)
            .pop()
            .expect("a question");
        statuses.done(&asked, document(2, "7", &serde_json::json!(null)), now);
        let written = statuses.step(now, at(10), |_| true).pop().expect("a write");
        assert!(matches!(written.write, Some(Content::Shared(_))));
    }

    #[test]
    fn a_new_generation_is_told_at_once_and_other_changes_once_they_have_settled() {
        let start = Instant::now();
        let after = |millis: u64| start + Duration::from_millis(millis);
        let mut statuses = Statuses::new(Pace::default());
        let due = |statuses: &mut Statuses, millis| {
            let actions = statuses.step(after(millis), at(10), |_| true);
            for action in &actions {
                statuses.done(
                    action,
                    document(2, "7", &serde_json::json!(null)),
                    after(millis),
                );
                let written = statuses.step(after(millis), at(10), |_| true);
                statuses.done(&written[0], StatusOutcome::Written, after(millis));
            }
            actions.len()
        };
        let (object, state) = route(2);
        statuses.note([(object.clone(), Some(state.clone()))], start);
        assert_eq!(due(&mut statuses, 100), 0);
        assert_eq!(due(&mut statuses, 250), 1);
        let mut other = state.clone();
        other.diagnostics = [].into();
        statuses.note([(object.clone(), Some(other))], after(1000));
        assert_eq!(due(&mut statuses, 1250), 0);
        // It is as it was before anything was written, and that is confirmed in time.
        statuses.note([(object, Some(state))], after(1300));
        assert_eq!(due(&mut statuses, 1600), 0);
        assert_eq!(due(&mut statuses, 2900), 1);
    }

    #[test]
    fn a_change_is_written_within_a_second_while_ten_thousand_wait() {
        let start = Instant::now();
        let mut statuses = Statuses::new(Pace::default());
        statuses.note(many(10_000), start);
        statuses.lead(start);
        let mut now = start;
        // For a while, as often as the leader looks; then a route changes.
        for _ in 0..40 {
            now += Duration::from_millis(250);
            asked(&mut statuses, now);
        }
        let (object, state) = route(1);
        statuses.note([(object.clone(), Some(state))], now);
        now += Duration::from_millis(250);
        let first = statuses.step(now, at(10), |_| true).into_iter().next();
        assert_eq!(first.expect("something").object, object);
    }
}

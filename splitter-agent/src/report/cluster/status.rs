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
use crate::objects::{Kind, ObjectReference};
use crate::report::ObjectDiagnostics;

/// Most bytes of a message in a condition, as other APIs have it.
const MOST_MESSAGE: usize = 4096;

/// How long a TrafficSplit rests whose status could not be written for a reason of its own.
const RESTS: Duration = Duration::from_secs(60);

/// How many writes are decided on at once.
const BATCH: usize = 10;

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

/// One request about one TrafficSplit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Action {
    pub(super) object: ObjectReference,
    pub(super) uid: String,
    /// What to write; `None` asks for what is written, since this process has not led for
    /// long enough to know.
    pub(super) write: Option<Status>,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum StatusOutcome {
    /// The status now has this content.
    Known(Status),
    /// The object is another now, or gone, or its API does not take this. Most likely
    /// something else will soon be said about it.
    Stale,
}

/// Keeps statuses in step with what is said about TrafficSplits.
#[derive(Debug)]
pub(super) struct Statuses {
    splits: BTreeMap<ObjectReference, Split>,
    bucket: TokenBucket,
    turns: Turns,
    /// Whether anything was noted yet: what is noted first was there before this process.
    has_begun: bool,
}

#[derive(Debug)]
struct Split {
    state: ObjectDiagnostics,
    since: Instant,
    lane: Lane,
    known: Option<Status>,
    /// Whether nothing is to be asked until something else is said.
    is_done: bool,
    rests_until: Option<Instant>,
}

impl Statuses {
    pub(super) fn new(pace: Pace) -> Self {
        Self {
            splits: BTreeMap::new(),
            bucket: TokenBucket::new(pace.per_second, pace.burst),
            turns: Turns::default(),
            has_begun: false,
        }
    }

    /// Takes note that others may have written in the meantime.
    pub(super) fn lead(&mut self, now: Instant) {
        for split in self.splits.values_mut() {
            if now.saturating_duration_since(split.since) >= OLD {
                split.lane = Lane::Unconfirmed;
            }
            split.known = None;
            split.is_done = false;
            split.rests_until = None;
        }
    }

    /// Takes note of how objects have come to stand.
    pub(super) fn note<'a>(
        &mut self,
        settled: impl IntoIterator<Item = &'a (ObjectReference, Option<ObjectDiagnostics>)>,
        now: Instant,
    ) {
        let lane = if self.has_begun {
            Lane::Changed
        } else {
            Lane::Unconfirmed
        };
        for (object, state) in settled {
            self.has_begun = true;
            if !object.known_kind().is_some_and(Kind::has_status) {
                continue;
            }
            let before = self.splits.remove(object);
            let Some(state) = state.as_ref().filter(|state| !state.uid.is_empty()) else {
                continue;
            };
            let known = before
                .filter(|before| before.state.uid == state.uid)
                .and_then(|before| before.known);
            self.splits.insert(
                object.clone(),
                Split {
                    state: state.clone(),
                    since: now,
                    lane,
                    known,
                    is_done: false,
                    rests_until: None,
                },
            );
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
        let mut due: Vec<(&ObjectReference, &mut Split)> = self
            .splits
            .iter_mut()
            .filter(|(object, split)| {
                !split.is_done
                    && split.rests_until.is_none_or(|until| until <= now)
                    && object.known_kind().is_some_and(&can_be_written)
            })
            .collect();
        due.sort_by_key(|(_, split)| (split.lane, split.since));
        let unconfirmed = due.partition_point(|(_, split)| split.lane == Lane::Changed);
        let mut unconfirmed = due.split_off(unconfirmed).into_iter().peekable();
        let mut changed = due.into_iter().peekable();
        let mut actions = Vec::new();
        while actions.len() < BATCH {
            let next = self.turns.next(&mut changed, &mut unconfirmed);
            let Some((lane, (object, split))) = next else {
                break;
            };
            let write = match &split.known {
                None => None,
                Some(known) => {
                    let status = status(&split.state, &known.conditions, at);
                    if status == *known {
                        split.is_done = true;
                        continue;
                    }
                    Some(status)
                }
            };
            if !self.bucket.take(now) {
                break;
            }
            self.turns.took(lane);
            actions.push(Action {
                object: object.clone(),
                uid: split.state.uid.clone(),
                write,
            });
        }
        actions
    }

    /// Records the result of an action.
    pub(super) fn done(&mut self, action: &Action, outcome: StatusOutcome, now: Instant) {
        let Some(split) = self.splits.get_mut(&action.object) else {
            return;
        };
        if split.state.uid != action.uid {
            return;
        }
        match outcome {
            StatusOutcome::Known(status) => split.known = Some(status),
            StatusOutcome::Stale => split.rests_until = Some(now + RESTS),
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
        let mut statuses = Statuses::new(Pace::default());
        let (object, state) = sample::state("books", 1, &["Accepted"]);
        statuses.note(&[(object.clone(), Some(state))], now);
        let asked = statuses.step(now, at(10), |_| true);
        assert_eq!(asked.len(), 1);
        assert_eq!(asked[0].write, None);
        statuses.done(&asked[0], StatusOutcome::Known(Status::default()), now);
        let written = statuses.step(now, at(10), |_| true);
        let status = written[0].write.clone().expect("a status");
        statuses.done(&written[0], StatusOutcome::Known(status.clone()), now);
        assert!(statuses.step(now, at(20), |_| true).is_empty());

        // A new leader finds what the one before has written.
        statuses.lead(now);
        let asked = statuses.step(now, at(30), |_| true);
        statuses.done(&asked[0], StatusOutcome::Known(status), now);
        assert!(statuses.step(now, at(30), |_| true).is_empty());

        let (_, state) = sample::state("books", 2, &["Accepted"]);
        statuses.note(&[(object.clone(), Some(state))], now);
        let written = statuses.step(now, at(40), |_| true);
        let status = written[0].write.clone().expect("a status");
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
        statuses.note(&[(object, None)], now);
        assert!(statuses.splits.is_empty());
    }

    /// Everything that is due at a moment, each answered as if it were as it should be.
    fn asked(statuses: &mut Statuses, now: Instant) -> Vec<String> {
        let actions = statuses.step(now, at(10), |_| true);
        for action in &actions {
            let split = &statuses.splits[&action.object];
            let status = status(&split.state, &[], at(10));
            statuses.done(action, StatusOutcome::Known(status), now);
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
        statuses.note(&many(10_000), now);
        now += Duration::from_secs(3600);
        // One changes just before the one that led is gone, and one after.
        let change = |name: &str, generation| {
            let (object, state) = sample::state(name, generation, &["InvalidWeight"]);
            [(object, Some(state))]
        };
        statuses.note(&change("split-09998", 2), now);
        now += Duration::from_secs(60);
        statuses.lead(now);
        assert_eq!(asked(&mut statuses, now)[0], "split-09998");
        // The burst is used up by what is unconfirmed.
        while !asked(&mut statuses, now).is_empty() {}
        statuses.note(&change("split-09999", 2), now);
        now += Duration::from_secs(1);
        assert_eq!(asked(&mut statuses, now)[0], "split-09999");
    }

    #[test]
    fn what_is_unconfirmed_gets_on_under_a_stream_of_changes() {
        let mut now = Instant::now();
        let mut statuses = Statuses::new(Pace::default());
        statuses.note(&many(100), now);
        statuses.lead(now);
        let mut confirmed = std::collections::BTreeSet::new();
        // More changes than can be written.
        for second in 0..200 {
            now += Duration::from_secs(1);
            for number in 0..20 {
                let (object, state) =
                    sample::state(&format!("busy-{number:02}"), second, &["RootMissing"]);
                statuses.note(&[(object, Some(state))], now);
            }
            let names = asked(&mut statuses, now);
            confirmed.extend(names.into_iter().filter(|name| name.starts_with("split")));
        }
        assert_eq!(confirmed.len(), 100);
    }
}

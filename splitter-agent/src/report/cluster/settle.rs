//! Waits until what is said about an object stands still.
//!
//! Objects are applied one after another, so for a moment a split has no root Service, or
//! a root no leaf. What is over before anybody could act on it is not worth an Event.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::objects::ObjectReference;
use crate::report::ObjectDiagnostics;

/// How long at most an object that does not stand still is waited for, in settling times.
const MOST: u32 = 10;

/// What is said about objects, without what lasted for a moment only.
#[derive(Debug)]
pub(super) struct Settler {
    time: Duration,
    settled: BTreeMap<ObjectReference, ObjectDiagnostics>,
    /// Those that stand otherwise now.
    pending: BTreeMap<ObjectReference, Pending>,
}

#[derive(Debug)]
struct Pending {
    state: Option<ObjectDiagnostics>,
    first: Instant,
    last: Instant,
}

impl Settler {
    /// One that waits so long after the last change of an object.
    pub(super) fn new(time: Duration) -> Self {
        Self {
            time,
            settled: BTreeMap::new(),
            pending: BTreeMap::new(),
        }
    }

    /// Takes note of what is said now about some objects.
    pub(super) fn observe(
        &mut self,
        states: impl IntoIterator<Item = (ObjectReference, Option<ObjectDiagnostics>)>,
        now: Instant,
    ) {
        for (object, state) in states {
            if self.settled.get(&object) == state.as_ref() {
                // It is as it was: as if nothing had happened.
                self.pending.remove(&object);
                continue;
            }
            let pending = self.pending.entry(object).or_insert_with(|| Pending {
                state: state.clone(),
                first: now,
                last: now,
            });
            if pending.state != state {
                pending.state = state;
                pending.last = now;
            }
        }
    }

    /// What is said anew of which objects, now that it has stood for long enough.
    pub(super) fn settle(
        &mut self,
        now: Instant,
    ) -> Vec<(ObjectReference, Option<ObjectDiagnostics>)> {
        let time = self.time;
        let is_ripe = |_: &ObjectReference, pending: &mut Pending| {
            now.saturating_duration_since(pending.last) >= time
                || now.saturating_duration_since(pending.first) >= time * MOST
        };
        let mut settled = Vec::new();
        for (object, pending) in self.pending.extract_if(.., is_ripe) {
            match &pending.state {
                Some(state) => self.settled.insert(object.clone(), state.clone()),
                None => self.settled.remove(&object),
            };
            settled.push((object, pending.state));
        }
        settled
    }

    /// Whether something is waited for.
    pub(super) fn is_waiting(&self) -> bool {
        !self.pending.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    const TIME: Duration = Duration::from_secs(1);

    struct Scene {
        settler: Settler,
        start: Instant,
    }

    impl Scene {
        fn new() -> Self {
            Self {
                settler: Settler::new(TIME),
                start: Instant::now(),
            }
        }

        /// Says something at a moment, and counts what settles there.
        fn at(&mut self, millis: u64, reason: Option<&'static str>) -> usize {
            let now = self.start + Duration::from_millis(millis);
            let reasons = reason.as_slice();
            let (object, state) = sample::state("books", 1, reasons);
            let state = reason.map(|_| state);
            self.settler.observe([(object, state)], now);
            self.settler.settle(now).len()
        }
    }

    #[test]
    fn what_stands_still_is_told_once() {
        let mut scene = Scene::new();
        assert_eq!(scene.at(0, Some("RootMissing")), 0);
        assert!(scene.settler.is_waiting());
        assert_eq!(scene.at(999, Some("RootMissing")), 0);
        assert_eq!(scene.at(1000, Some("RootMissing")), 1);
        assert!(!scene.settler.is_waiting());
        assert_eq!(scene.at(9000, Some("RootMissing")), 0);
        assert_eq!(scene.at(9000, None), 0);
        assert_eq!(scene.at(10_000, None), 1);
        assert!(scene.settler.settled.is_empty());
    }

    #[test]
    fn what_is_reverted_at_once_is_never_told() {
        let mut scene = Scene::new();
        scene.at(0, Some("Accepted"));
        assert_eq!(scene.at(1000, Some("Accepted")), 1);
        assert_eq!(scene.at(2000, Some("RootMissing")), 0);
        assert_eq!(scene.at(2900, Some("Accepted")), 0);
        assert_eq!(scene.at(9000, Some("Accepted")), 0);
        assert_eq!(scene.at(9000, None), 0);
        assert_eq!(scene.at(9900, Some("Accepted")), 0);
        assert_eq!(scene.at(19_900, Some("Accepted")), 0);
    }

    #[test]
    fn what_never_stands_still_is_told_in_the_end() {
        let mut scene = Scene::new();
        let told = (0..100)
            .map(|turn| {
                let reason = ["RootMissing", "RootHeadless"][turn % 2];
                scene.at(500 * turn as u64, Some(reason))
            })
            .sum::<usize>();
        assert_eq!(told, 1, "later each change is reverted at once");
    }
}

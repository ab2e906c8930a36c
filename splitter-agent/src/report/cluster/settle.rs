//! Waits until what is said about an object stands still.
//!
//! Objects are applied one after another, so for a moment a split has no root Service, or
//! a root no leaf. What is over before anybody could act on it is not worth an Event.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::objects::ObjectReference;
use crate::report::Standing;

/// How long at most an object that does not stand still is waited for, in settling times.
const MOST: u32 = 10;

/// What is said about objects, without what lasted for a moment only.
#[derive(Debug)]
pub(super) struct Settler {
    time: Duration,
    objects: BTreeMap<ObjectReference, Entry>,
    /// How many objects are waited for.
    pending: usize,
}

#[derive(Debug, Default)]
struct Entry {
    settled: Option<Standing>,
    pending: Option<Pending>,
}

#[derive(Debug)]
struct Pending {
    standing: Option<Standing>,
    first: Instant,
    last: Instant,
}

impl Settler {
    /// One that waits so long after the last change of an object.
    pub(super) fn new(time: Duration) -> Self {
        Self {
            time,
            objects: BTreeMap::new(),
            pending: 0,
        }
    }

    /// Takes note of what is said now.
    pub(super) fn observe(
        &mut self,
        standings: &BTreeMap<ObjectReference, Standing>,
        now: Instant,
    ) {
        for (object, standing) in standings {
            if let Some(entry) = self.objects.get_mut(object) {
                entry.see(Some(standing), now);
            } else {
                let mut entry = Entry::default();
                entry.see(Some(standing), now);
                self.objects.insert(object.clone(), entry);
            }
        }
        for (object, entry) in &mut self.objects {
            if !standings.contains_key(object) {
                entry.see(None, now);
            }
        }
        self.objects
            .retain(|_, entry| entry.settled.is_some() || entry.pending.is_some());
        self.pending = self
            .objects
            .values()
            .filter(|entry| entry.pending.is_some())
            .count();
    }

    /// What is said anew of which objects, now that it has stood for long enough.
    pub(super) fn settle(&mut self, now: Instant) -> Vec<(ObjectReference, Option<Standing>)> {
        let mut settled = Vec::new();
        if self.pending == 0 {
            return settled;
        }
        for (object, entry) in &mut self.objects {
            let time = self.time;
            let ripe = |pending: &mut Pending| {
                now.saturating_duration_since(pending.last) >= time
                    || now.saturating_duration_since(pending.first) >= time * MOST
            };
            if let Some(pending) = entry.pending.take_if(ripe) {
                self.pending -= 1;
                entry.settled.clone_from(&pending.standing);
                settled.push((object.clone(), pending.standing));
            }
        }
        self.objects
            .retain(|_, entry| entry.settled.is_some() || entry.pending.is_some());
        settled
    }

    /// Whether something is waited for.
    pub(super) fn is_waiting(&self) -> bool {
        self.pending > 0
    }
}

impl Entry {
    fn see(&mut self, standing: Option<&Standing>, now: Instant) {
        if self.settled.as_ref() == standing {
            // It is as it was: as if nothing had happened.
            self.pending = None;
            return;
        }
        match &mut self.pending {
            Some(pending) if pending.standing.as_ref() == standing => {}
            Some(pending) => {
                pending.standing = standing.cloned();
                pending.last = now;
            }
            None => {
                self.pending = Some(Pending {
                    standing: standing.cloned(),
                    first: now,
                    last: now,
                });
            }
        }
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
            let standings = reason
                .map(|reason| sample::standing("books", 1, &[reason]))
                .into_iter()
                .collect();
            self.settler.observe(&standings, now);
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
        assert!(scene.settler.objects.is_empty());
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

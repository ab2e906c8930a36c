//! What could not be brought to the maps, by frontend and by object, and when to try again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::causes::with_causes;
use crate::compile::{Diagnostic, Severity};
use crate::datapath::{FrontendError, PublishSummary};
use crate::objects::{ObjectName, ObjectReference};
use crate::plan::{Frontend, Plan};
use crate::reason;

/// What could not be brought to the maps.
#[derive(Debug, Default)]
pub(super) struct Failures {
    by_frontend: BTreeMap<Frontend, PublishFailure>,
    by_object: BTreeMap<ObjectReference, BTreeSet<Frontend>>,
}

#[derive(Debug, PartialEq, Eq)]
struct PublishFailure {
    object: ObjectReference,
    cause: Cause,
}

/// Why; the same for as long as nothing else has to be said. How many slots are free is not
/// part of it, since that changes with every other frontend.
#[derive(Debug, PartialEq, Eq)]
enum Cause {
    Full {
        map: &'static str,
        needed: u32,
        flag: &'static str,
    },
    Kernel(String),
}

impl Failures {
    pub(super) fn is_empty(&self) -> bool {
        self.by_frontend.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.by_frontend.len()
    }

    pub(super) fn frontends(&self) -> BTreeSet<Frontend> {
        self.by_frontend.keys().copied().collect()
    }

    /// Whether something that an object asks for could not be brought to the maps.
    pub(super) fn concern(&self, object: &ObjectReference) -> bool {
        self.by_object.contains_key(object)
    }

    /// What is to be said of an object.
    pub(super) fn of(&self, object: &ObjectReference) -> impl Iterator<Item = Diagnostic> {
        let frontends = self.by_object.get(object).into_iter().flatten();
        frontends.filter_map(|frontend| {
            let failure = self.by_frontend.get(frontend)?;
            Some(failure.diagnostic(*frontend))
        })
    }

    /// Takes note of what became of these frontends; gives back the objects of which
    /// something else is to be said now.
    pub(super) fn update(
        &mut self,
        tried: &BTreeSet<Frontend>,
        summary: &PublishSummary,
        plan: &Plan,
    ) -> BTreeSet<ObjectReference> {
        let mut changed = BTreeSet::new();
        let mut failed = BTreeSet::new();
        for (frontend, error) in &summary.failed {
            failed.insert(*frontend);
            let object = plan.frontends.get(frontend).map_or_else(
                // It is the removal that failed, and its object is gone.
                || ObjectReference {
                    kind: "Frontend".to_owned(),
                    name: ObjectName::new("", frontend.to_string()),
                },
                |split| split.origin.object(),
            );
            let failure = PublishFailure {
                object,
                cause: Cause::from(error),
            };
            if self.by_frontend.get(frontend) == Some(&failure) {
                continue;
            }
            changed.extend(self.forget(frontend));
            changed.insert(failure.object.clone());
            let of_object = self.by_object.entry(failure.object.clone()).or_default();
            of_object.insert(*frontend);
            self.by_frontend.insert(*frontend, failure);
        }
        for frontend in tried.difference(&failed) {
            changed.extend(self.forget(frontend));
        }
        changed
    }

    fn forget(&mut self, frontend: &Frontend) -> Option<ObjectReference> {
        let failure = self.by_frontend.remove(frontend)?;
        if let Some(frontends) = self.by_object.get_mut(&failure.object) {
            frontends.remove(frontend);
            if frontends.is_empty() {
                self.by_object.remove(&failure.object);
            }
        }
        Some(failure.object)
    }
}

impl PublishFailure {
    fn diagnostic(&self, frontend: Frontend) -> Diagnostic {
        let why = match &self.cause {
            Cause::Full { map, needed, flag } => FrontendError::full_text(map, *needed, flag),
            Cause::Kernel(text) => text.clone(),
        };
        Diagnostic {
            object: self.object.clone(),
            severity: Severity::Refused,
            reason: reason::NOT_PUBLISHED,
            field: String::new(),
            message: format!("{frontend} stays as it was: {why}; trying again"),
        }
    }
}

impl From<&FrontendError> for Cause {
    fn from(error: &FrontendError) -> Self {
        match error {
            FrontendError::Full {
                map, needed, flag, ..
            } => Self::Full {
                map,
                needed: *needed,
                flag,
            },
            FrontendError::Map(error) => Self::Kernel(with_causes(error)),
        }
    }
}

/// When to try again what failed: at once when room was made, else ever less often.
#[derive(Debug)]
pub(super) struct Retry {
    /// How often the publisher had freed something when it was last tried.
    freed: u64,
    next: Instant,
    pause: Duration,
}

impl Retry {
    const SHORTEST: Duration = Duration::from_secs(1);
    const LONGEST: Duration = Duration::from_mins(1);

    pub(super) fn new(now: Instant) -> Self {
        Self {
            freed: 0,
            next: now,
            pause: Self::SHORTEST,
        }
    }

    /// Whether it is time.
    pub(super) fn is_due(&self, freed: u64, now: Instant) -> bool {
        freed != self.freed || now >= self.next
    }

    /// It was tried.
    pub(super) fn tried(&mut self, freed: u64, now: Instant, has_helped: bool) {
        self.freed = freed;
        self.pause = if has_helped {
            Self::SHORTEST
        } else {
            Self::LONGEST.min(self.pause * 2)
        };
        self.next = now + self.pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_ever_less_often_but_at_once_when_there_is_room() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut retry = Retry::new(start);
        let mut tries = Vec::new();
        for second in 0..300 {
            if retry.is_due(0, after(second)) {
                tries.push(second);
                retry.tried(0, after(second), false);
            }
        }
        assert_eq!(tries, [0, 2, 6, 14, 30, 62, 122, 182, 242]);

        assert!(retry.is_due(1, after(300)));
        retry.tried(1, after(300), true);
        assert!(!retry.is_due(1, after(300)));
        assert!(retry.is_due(1, after(301)));
    }
}

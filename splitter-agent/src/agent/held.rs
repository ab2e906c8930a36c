//! The frontends that are held back, and what they wait for.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use crate::compile::Kinds;
use crate::objects::{Kind, ObjectReference};
use crate::plan::Frontend;

/// A frontend that is held back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldFrontend {
    /// The kinds of objects that it waits for.
    pub(super) waits_for: Kinds,
    /// The object that it is planned for.
    pub(super) planned: Option<ObjectReference>,
    /// The object that what is programmed there comes from.
    pub(super) programmed: Option<ObjectReference>,
}

/// All of them, found by what a change may be about: there may be ten thousand, and while they wait
/// every change of something else is published as well.
#[derive(Debug, Default)]
pub(super) struct Held {
    frontends: BTreeMap<Frontend, HeldFrontend>,
    by_planned: BTreeMap<ObjectReference, BTreeSet<Frontend>>,
    by_programmed: BTreeMap<ObjectReference, BTreeSet<Frontend>>,
    by_kind: BTreeMap<Kind, usize>,
}

impl Held {
    /// Holds a frontend back, or no longer.
    pub(super) fn set(&mut self, frontend: Frontend, new: Option<HeldFrontend>) {
        if self.frontends.get(&frontend) == new.as_ref() {
            return;
        }
        if let Some(old) = self.frontends.remove(&frontend) {
            forget(&mut self.by_planned, old.planned, frontend);
            forget(&mut self.by_programmed, old.programmed, frontend);
            for kind in old.waits_for {
                if let Entry::Occupied(mut count) = self.by_kind.entry(kind) {
                    *count.get_mut() -= 1;
                    if *count.get() == 0 {
                        count.remove();
                    }
                }
            }
        }
        if let Some(new) = new {
            note(&mut self.by_planned, &new.planned, frontend);
            note(&mut self.by_programmed, &new.programmed, frontend);
            for kind in &new.waits_for {
                *self.by_kind.entry(*kind).or_default() += 1;
            }
            self.frontends.insert(frontend, new);
        }
    }

    /// What those of these frontends wait for that are held back.
    pub(super) fn among(&self, frontends: &BTreeSet<Frontend>) -> BTreeMap<Frontend, Kinds> {
        let held = frontends.iter().filter_map(|frontend| {
            let held = self.frontends.get(frontend)?;
            Some((*frontend, held.waits_for.clone()))
        });
        held.collect()
    }

    /// All of them.
    pub(super) fn frontends(&self) -> impl Iterator<Item = Frontend> {
        self.frontends.keys().copied()
    }

    /// Those where something is programmed that comes from an object.
    pub(super) fn programmed_from(
        &self,
        object: &ObjectReference,
    ) -> impl Iterator<Item = Frontend> {
        self.by_programmed
            .get(object)
            .into_iter()
            .flatten()
            .copied()
    }

    /// Whether any is planned for an object.
    pub(super) fn concern(&self, object: &ObjectReference) -> bool {
        self.by_planned.contains_key(object)
    }

    /// How many wait for each kind.
    pub(super) fn by_kind(&self) -> impl Iterator<Item = (Kind, usize)> {
        self.by_kind.iter().map(|(kind, count)| (*kind, *count))
    }
}

fn note(
    index: &mut BTreeMap<ObjectReference, BTreeSet<Frontend>>,
    object: &Option<ObjectReference>,
    frontend: Frontend,
) {
    if let Some(object) = object {
        index.entry(object.clone()).or_default().insert(frontend);
    }
}

fn forget(
    index: &mut BTreeMap<ObjectReference, BTreeSet<Frontend>>,
    object: Option<ObjectReference>,
    frontend: Frontend,
) {
    let Some(object) = object else {
        return;
    };
    if let Some(frontends) = index.get_mut(&object) {
        frontends.remove(&frontend);
        if frontends.is_empty() {
            index.remove(&object);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use splitter_common::layout::{ClientScope, Protocol};

    use super::*;
    use crate::objects::ObjectName;

    fn frontend(number: u8) -> Frontend {
        Frontend {
            address: ([10, 96, 0, number], 80).into(),
            protocol: Protocol::Tcp,
            clients: ClientScope::EVERYONE,
        }
    }

    fn object(number: u8) -> ObjectReference {
        ObjectReference::new(
            Kind::TRAFFIC_SPLIT,
            ObjectName::new("shop", number.to_string()),
        )
    }

    fn held() -> impl Strategy<Value = Option<HeldFrontend>> {
        let kinds = vec![Kind::SERVICE, Kind::ENDPOINT_SLICE, Kind::TRAFFIC_SPLIT];
        let object = || proptest::option::of((0..3_u8).prop_map(object));
        let held = (
            proptest::sample::subsequence(kinds, 1..=3),
            object(),
            object(),
        );
        proptest::option::of(held.prop_map(|(kinds, planned, programmed)| HeldFrontend {
            waits_for: kinds.into_iter().collect(),
            planned,
            programmed,
        }))
    }

    proptest! {
        #[test]
        fn what_is_found_of_held_frontends_is_what_there_is(
            changes in proptest::collection::vec((0..4_u8, held()), 0..30)
        ) {
            let mut all = Held::default();
            let mut expected: BTreeMap<Frontend, HeldFrontend> = BTreeMap::new();
            for (number, held) in changes {
                all.set(frontend(number), held.clone());
                expected.remove(&frontend(number));
                expected.extend(held.map(|held| (frontend(number), held)));
            }
            prop_assert!(all.frontends().eq(expected.keys().copied()));
            let mut by_kind: BTreeMap<Kind, usize> = BTreeMap::new();
            for kind in expected.values().flat_map(|held| &held.waits_for) {
                *by_kind.entry(*kind).or_default() += 1;
            }
            prop_assert_eq!(all.by_kind().collect::<BTreeMap<_, _>>(), by_kind);
            for object in (0..3).map(object) {
                let is_planned = |held: &HeldFrontend| held.planned.as_ref() == Some(&object);
                prop_assert_eq!(all.concern(&object), expected.values().any(is_planned));
                let programmed = expected.iter();
                let programmed = programmed
                    .filter(|(_, held)| held.programmed.as_ref() == Some(&object));
                let programmed = programmed.map(|(frontend, _)| *frontend);
                prop_assert!(all.programmed_from(&object).eq(programmed));
            }
        }
    }
}

//! Sets that mostly have one or two elements.

/// A set with few elements, sorted. A `BTreeSet` takes the memory of eleven as soon as it has one,
/// which is most of what a compiler of ten thousand splits would use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SortedVecSet<T>(Vec<T>);

impl<T> Default for SortedVecSet<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Ord> SortedVecSet<T> {
    /// Whether it was not there.
    pub(super) fn insert(&mut self, element: T) -> bool {
        let Err(index) = self.0.binary_search(&element) else {
            return false;
        };
        if self.0.is_empty() {
            // By itself a vector begins with room for four.
            self.0.reserve_exact(1);
        }
        self.0.insert(index, element);
        true
    }

    /// Whether it was there.
    pub(super) fn remove(&mut self, element: &T) -> bool {
        let found = self.0.binary_search(element);
        found.map(|index| self.0.remove(index)).is_ok()
    }

    /// The elements that another set has not, in their order.
    pub(super) fn difference<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a T> {
        let mut others = other.0.iter().peekable();
        self.0.iter().filter(move |element| {
            while others.next_if(|other| other < element).is_some() {}
            others.peek() != Some(element)
        })
    }

    pub(super) fn first(&self) -> Option<&T> {
        self.0.first()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }
}

impl<T: Ord> FromIterator<T> for SortedVecSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        let mut elements: Vec<T> = elements.into_iter().collect();
        elements.sort_unstable();
        elements.dedup();
        elements.shrink_to_fit();
        Self(elements)
    }
}

impl<'a, T> IntoIterator for &'a SortedVecSet<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(
            changes in prop::collection::vec((any::<bool>(), 0_u8..8), 0..40),
            other in prop::collection::vec(0_u8..8, 0..8),
        ) {
            let mut sorted = SortedVecSet::default();
            let mut set = BTreeSet::new();
            for (is_insertion, element) in changes {
                if is_insertion {
                    prop_assert_eq!(sorted.insert(element), set.insert(element));
                } else {
                    prop_assert_eq!(sorted.remove(&element), set.remove(&element));
                }
            }
            prop_assert!(sorted.iter().eq(&set));
            prop_assert_eq!(sorted.first(), set.first());
            prop_assert_eq!(sorted.is_empty(), set.is_empty());
            prop_assert_eq!(&set.iter().copied().collect::<SortedVecSet<_>>(), &sorted);
            let (sorted_other, set_other): (SortedVecSet<_>, BTreeSet<_>) =
                (other.iter().copied().collect(), other.iter().copied().collect());
            prop_assert!(sorted.difference(&sorted_other).eq(set.difference(&set_other)));
        }
    }
}

//! Which objects of a kind have been told of, so that it is known which are gone.

use std::collections::HashMap;

use crate::objects::ObjectName;

/// The names of all objects of a kind, and the list in which each was seen last.
///
/// A new list takes nothing away by itself: an object is gone only when a list that is
/// complete did not have it. What a list that broke off did not come to is untouched.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// `namespace/name`, in one allocation: there may be a great many.
    seen_in: HashMap<Box<str>, u64>,
    list: u64,
}

impl Names {
    /// A list begins, the first or another.
    pub(super) const fn list_begins(&mut self) {
        self.list += 1;
    }

    /// An object is there, whether listed or told of later.
    pub(super) fn is_there(&mut self, name: &ObjectName) {
        self.seen_in.insert(key(name), self.list);
    }

    /// An object is gone. Whether it was known.
    pub(super) fn is_gone(&mut self, name: &ObjectName) -> bool {
        self.seen_in.remove(key(name).as_ref()).is_some()
    }

    /// What the list that began last did not have. Only to be asked once it is complete.
    pub(super) fn not_listed(&self) -> Vec<ObjectName> {
        self.of(|list| list < self.list)
    }

    /// Every name.
    pub(super) fn all(&self) -> Vec<ObjectName> {
        self.of(|_| true)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.seen_in.len()
    }

    fn of(&self, wanted: impl Fn(u64) -> bool) -> Vec<ObjectName> {
        let names = self.seen_in.iter().filter(|(_, list)| wanted(**list));
        let mut names: Vec<_> = names
            .filter_map(|(key, _)| key.split_once('/'))
            .map(|(namespace, name)| ObjectName::new(namespace, name))
            .collect();
        names.sort_unstable();
        names
    }
}

/// A namespace has no slash in it, so that the first one ends it.
fn key(name: &ObjectName) -> Box<str> {
    format!("{}/{}", name.namespace, name.name).into_boxed_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> ObjectName {
        ObjectName::new("shop", name)
    }

    fn listed(names: &mut Names, all: &[&str]) {
        names.list_begins();
        for one in all {
            names.is_there(&name(one));
        }
    }

    #[test]
    fn what_a_complete_list_does_not_have_is_gone() {
        let mut names = Names::default();
        listed(&mut names, &["a", "b", "c"]);
        assert_eq!(names.not_listed(), []);
        listed(&mut names, &["b"]);
        assert_eq!(names.not_listed(), [name("a"), name("c")]);
        assert!(names.is_gone(&name("a")));
        assert!(!names.is_gone(&name("a")));
        assert_eq!(names.not_listed(), [name("c")]);
        assert_eq!(names.all(), [name("b"), name("c")]);
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn a_list_that_broke_off_takes_nothing_away() {
        let mut names = Names::default();
        listed(&mut names, &["a", "b"]);
        listed(&mut names, &[]);
        listed(&mut names, &["a"]);
        listed(&mut names, &["a", "b"]);
        assert_eq!(names.not_listed(), []);
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn what_came_after_a_list_is_not_missing_from_it() {
        let mut names = Names::default();
        listed(&mut names, &["a"]);
        names.is_there(&name("b"));
        assert_eq!(names.not_listed(), []);
        listed(&mut names, &["a"]);
        assert_eq!(names.not_listed(), [name("b")]);
    }
}

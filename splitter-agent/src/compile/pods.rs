//! The labels of pods, of which there are as many as endpoints in a cluster: a row for each, and each
//! set of labels once.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use super::knowledge::Knowledge;
use crate::objects::{Pod, pod_key};

/// Pods, by namespace.
#[derive(Debug, Default)]
pub(super) struct Pods {
    namespaces: HashMap<String, Namespace>,
    sets: LabelSets,
    /// The pods of which something changed, see [`Self::take_changed`].
    changed: HashMap<String, HashSet<u64>>,
}

#[derive(Debug, Default)]
struct Namespace {
    /// By a hash of the name.
    rows: HashMap<u64, Row>,
    /// The sets of labels, by a hash of the uid.
    by_uid: HashMap<u64, u64>,
    /// The list in which pods are told of.
    list: u32,
    /// How much is known of the namespace by itself.
    knowledge: Knowledge,
    /// Whether it is told of by itself at all.
    is_told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Row {
    /// 0 if it has no uid.
    uid: u64,
    /// What stands for its set of labels.
    labels: u64,
    list: u32,
}

/// The labels that pods must have, as hashes.
pub(super) struct Wanted(Box<[u64]>);

impl Pods {
    /// Takes note of a pod.
    pub(super) fn put(&mut self, pod: &Pod) {
        let (uid, name) = pod.keys();
        let labels = self.sets.hold(&pod.labels);
        let namespace = entry(&mut self.namespaces, &pod.name.namespace);
        let row = Row {
            uid: uid.unwrap_or(0),
            labels,
            list: namespace.list,
        };
        let old = namespace.rows.insert(name, row);
        let is_same = old.is_some_and(|old| old.uid == row.uid && old.labels == row.labels);
        if let Some(old) = old {
            if old.uid != 0 && old.uid != row.uid {
                namespace.by_uid.remove(&old.uid);
            }
            self.sets.release(old.labels);
        }
        if is_same {
            return;
        }
        let namespace = entry(&mut self.namespaces, &pod.name.namespace);
        if let Some(uid) = uid {
            namespace.by_uid.insert(uid, labels);
        }
        let changed = entry(&mut self.changed, &pod.name.namespace);
        changed.extend(
            [Some(name), uid, old.map(|old| old.uid)]
                .into_iter()
                .flatten(),
        );
    }

    /// A pod is gone.
    pub(super) fn remove(&mut self, namespace: &str, name: &str) {
        self.remove_row(namespace, pod_key(name));
    }

    fn remove_row(&mut self, name: &str, key: u64) {
        let Some(namespace) = self.namespaces.get_mut(name) else {
            return;
        };
        let Some(row) = namespace.rows.remove(&key) else {
            return;
        };
        if row.uid != 0 {
            namespace.by_uid.remove(&row.uid);
        }
        if namespace.rows.is_empty() && !namespace.is_told {
            self.namespaces.remove(name);
        }
        entry(&mut self.changed, name).extend([key, row.uid]);
        self.sets.release(row.labels);
    }

    /// All pods of a namespace are told of from now on.
    pub(super) fn list_begins(&mut self, namespace: &str) {
        let namespace = entry(&mut self.namespaces, namespace);
        namespace.list = namespace.list.wrapping_add(1);
        if !namespace.is_told {
            namespace.is_told = true;
            namespace.knowledge = Knowledge::Incomplete;
        }
    }

    /// All pods of a namespace were told of since the list began: what was not is gone.
    pub(super) fn listed(&mut self, name: &str) {
        let Some(namespace) = self.namespaces.get(name) else {
            return;
        };
        let rows = namespace.rows.iter();
        let gone = rows.filter(|(_, row)| row.list != namespace.list);
        let gone: Vec<u64> = gone.map(|(key, _)| *key).collect();
        for key in gone {
            self.remove_row(name, key);
        }
    }

    /// From now on this much is known of the pods of a namespace; what was known before.
    pub(super) fn know(&mut self, namespace: &str, knowledge: Knowledge) -> Knowledge {
        let namespace = entry(&mut self.namespaces, namespace);
        let before = std::mem::replace(&mut namespace.knowledge, knowledge);
        if std::mem::replace(&mut namespace.is_told, true) {
            before
        } else {
            Knowledge::Incomplete
        }
    }

    /// How much is known of the pods of a namespace by itself.
    pub(super) fn knowledge(&self, namespace: &str) -> Knowledge {
        match self.namespaces.get(namespace) {
            Some(namespace) if namespace.is_told => namespace.knowledge,
            _ => Knowledge::Incomplete,
        }
    }

    /// Nobody asks for the pods of a namespace any more.
    pub(super) fn forget(&mut self, name: &str) {
        self.changed.remove(name);
        let Some(namespace) = self.namespaces.remove(name) else {
            return;
        };
        for row in namespace.rows.values() {
            self.sets.release(row.labels);
        }
    }

    /// What pods must have to have these labels.
    pub(super) fn wanted(&self, labels: &BTreeMap<String, String>) -> Wanted {
        Wanted(self.sets.hashes(labels))
    }

    /// Whether a pod has what is wanted. One that was not heard of has nothing.
    pub(super) fn has(&self, namespace: &str, pod: u64, wanted: &Wanted) -> bool {
        let Some(namespace) = self.namespaces.get(namespace) else {
            return false;
        };
        let by_name = || namespace.rows.get(&pod).map(|row| &row.labels);
        let labels = namespace.by_uid.get(&pod).or_else(by_name);
        let Some(labels) = labels.and_then(|labels| self.sets.get(*labels)) else {
            return false;
        };
        let Wanted(wanted) = wanted;
        wanted
            .iter()
            .all(|label| labels.binary_search(label).is_ok())
    }

    /// The pods of which something changed since the last time, by namespace: those that this is
    /// asked of, and no others.
    pub(super) fn take_changed(
        &mut self,
        is_asked: impl Fn(&Self, &str) -> bool,
    ) -> HashMap<String, HashSet<u64>> {
        let mut changed = std::mem::take(&mut self.changed);
        let taken = changed.extract_if(|namespace, _| is_asked(self, namespace));
        let taken = taken.collect();
        self.changed = changed;
        taken
    }
}

/// The value of a key, without a copy of the key where it is there.
fn entry<'a, T: Default>(map: &'a mut HashMap<String, T>, key: &str) -> &'a mut T {
    if !map.contains_key(key) {
        map.insert(key.to_owned(), T::default());
    }
    map.entry(key.to_owned()).or_default()
}

/// Sets of labels, each once, by a hash. The hashes have a key of this process's own, so that nobody
/// can make up labels that have the hash of others.
#[derive(Debug, Default)]
struct LabelSets {
    sets: HashMap<u64, LabelSet>,
    hasher: RandomState,
}

#[derive(Debug)]
struct LabelSet {
    /// Hashes of keys with their values, sorted.
    labels: Box<[u64]>,
    /// How many pods have it.
    count: u32,
}

impl LabelSets {
    /// The hashes of labels, sorted.
    fn hashes(&self, labels: &BTreeMap<String, String>) -> Box<[u64]> {
        let labels = labels.iter();
        let mut hashes: Box<[u64]> = labels.map(|label| self.hasher.hash_one(label)).collect();
        hashes.sort_unstable();
        hashes
    }

    /// What stands for a set, for one more who has it.
    fn hold(&mut self, labels: &BTreeMap<String, String>) -> u64 {
        let labels = self.hashes(labels);
        let key = self.hasher.hash_one(&labels);
        let set = self.sets.entry(key);
        set.or_insert(LabelSet { labels, count: 0 }).count += 1;
        key
    }

    /// One has it no longer.
    fn release(&mut self, key: u64) {
        if let Entry::Occupied(mut set) = self.sets.entry(key) {
            set.get_mut().count -= 1;
            if set.get().count == 0 {
                set.remove();
            }
        }
    }

    fn get(&self, key: u64) -> Option<&[u64]> {
        Some(&self.sets.get(&key)?.labels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::ObjectName;

    fn pod(name: &str, uid: &str, labels: &[(&str, &str)]) -> Pod {
        let labels = labels.iter();
        Pod {
            name: ObjectName::new("shop", name),
            uid: uid.into(),
            labels: labels
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            on_node: Default::default(),
        }
    }

    fn has(pods: &Pods, key: &str, labels: &[(&str, &str)]) -> bool {
        let wanted = pods.wanted(&pod("", "", labels).labels);
        pods.has("shop", pod_key(key), &wanted)
    }

    fn take_changed(pods: &mut Pods) -> HashMap<String, HashSet<u64>> {
        pods.take_changed(|_, _| true)
    }

    #[test]
    fn pods_are_found_by_uid_or_name_and_by_some_of_their_labels() {
        let mut pods = Pods::default();
        pods.put(&pod("a", "1", &[("app", "web"), ("version", "v1")]));
        pods.put(&pod("b", "", &[("app", "web"), ("version", "v2")]));
        for (key, version, expected) in [
            ("1", "v1", true),
            ("a", "v1", true),
            ("b", "v2", true),
            ("1", "v2", false),
            ("b", "v1", false),
            ("c", "v1", false),
            ("1", "v9", false),
        ] {
            assert_eq!(
                has(&pods, key, &[("version", version)]),
                expected,
                "{key} {version}"
            );
        }
        assert!(has(&pods, "1", &[("version", "v1"), ("app", "web")]));
        assert!(has(&pods, "1", &[]));
        assert!(!has(&pods, "c", &[]));
    }

    #[test]
    fn labels_change_and_pods_of_one_name_follow_each_other() {
        let mut pods = Pods::default();
        pods.put(&pod("a", "1", &[("version", "v1")]));
        pods.put(&pod("a", "1", &[("version", "v2")]));
        assert!(has(&pods, "1", &[("version", "v2")]));
        assert!(!has(&pods, "1", &[("version", "v1")]));
        pods.put(&pod("a", "2", &[("version", "v3")]));
        assert!(!has(&pods, "1", &[("version", "v2")]));
        assert!(has(&pods, "2", &[("version", "v3")]));
        pods.remove("shop", "a");
        assert!(!has(&pods, "2", &[]));
    }

    #[test]
    fn only_a_complete_list_takes_away_and_nothing_is_left_of_what_is_forgotten() {
        let mut pods = Pods::default();
        pods.list_begins("shop");
        assert_eq!(pods.knowledge("shop"), Knowledge::Incomplete);
        pods.put(&pod("a", "1", &[("version", "v1")]));
        pods.put(&pod("b", "2", &[("version", "v1")]));
        pods.listed("shop");
        pods.know("shop", Knowledge::Followed);
        pods.list_begins("shop");
        pods.put(&pod("b", "2", &[("version", "v1")]));
        pods.list_begins("shop");
        assert!(has(&pods, "1", &[]));
        pods.put(&pod("b", "2", &[("version", "v1")]));
        take_changed(&mut pods);
        pods.listed("shop");
        assert!(!has(&pods, "1", &[]));
        assert!(has(&pods, "2", &[]));
        assert_eq!(pods.knowledge("shop"), Knowledge::Followed);
        let changed = take_changed(&mut pods);
        assert!(changed["shop"].contains(&pod_key("1")));
        assert!(!changed["shop"].contains(&pod_key("2")));
        pods.forget("shop");
        assert_eq!(pods.knowledge("shop"), Knowledge::Incomplete);
        assert!(pods.namespaces.is_empty() && pods.sets.sets.is_empty());
    }

    #[test]
    fn what_did_not_change_is_not_told_as_changed() {
        let mut pods = Pods::default();
        pods.put(&pod("a", "1", &[("version", "v1")]));
        take_changed(&mut pods);
        pods.put(&pod("a", "1", &[("version", "v1")]));
        pods.remove("shop", "b");
        assert!(take_changed(&mut pods).is_empty());
        let counts: Vec<u32> = pods.sets.sets.values().map(|set| set.count).collect();
        assert_eq!(counts, [1]);
    }
}

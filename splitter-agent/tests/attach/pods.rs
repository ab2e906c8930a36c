//! Which cgroup is which pod's: real cgroups, named as kubelets name them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use splitter_agent::datapath::{Hierarchy, PodGroups};
use testbed::lab::Lab;

use crate::common::agent::PATIENCE;

const FIRST: &str = "0c3c9dc2-3c5a-4d0b-8f0a-3a3b5b1f4f10";
const SECOND: &str = "7f0e8f5e-0f0a-4c35-9a3d-0a57d7f0b0c2";
const STATIC: &str = "0123456789abcdef0123456789abcdef";

/// A node's groups, and what is found there.
struct Node {
    _lab: Lab,
    root: PathBuf,
    pods: PodGroups,
}

impl Node {
    fn new(name: &str) -> Self {
        let lab = Lab::new(name).expect("a lab");
        let root = lab.cgroup().to_owned();
        let hierarchy = Hierarchy::find().expect("a hierarchy");
        Self {
            _lab: lab,
            root,
            pods: PodGroups::new(hierarchy).expect("inotify"),
        }
    }

    fn make(&self, path: &str) {
        fs::create_dir_all(self.root.join(path)).expect("a cgroup");
    }

    fn remove(&self, path: &str) {
        fs::remove_dir(self.root.join(path)).expect("a cgroup that is empty");
    }

    fn set_places(&mut self, places: &[&str]) {
        let places = places.iter().map(|place| self.root.join(place));
        self.pods.set_places(places.collect());
        self.pods.look();
    }

    /// Waits until the kernel tells of groups that came or went, and until these are the pods.
    fn wait_for(&mut self, wanted: &[&str]) {
        let wanted: BTreeSet<&str> = wanted.iter().copied().collect();
        let seconds = i64::try_from(PATIENCE.as_secs()).expect("seconds");
        let timeout = Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        };
        while self.uids() != wanted {
            let mut descriptors = [PollFd::new(&self.pods, PollFlags::IN)];
            let ready = poll(&mut descriptors, Some(&timeout)).expect("poll");
            assert!(ready > 0, "never {wanted:?}: {:?}", self.pods.found());
            self.pods.read();
        }
    }

    fn uids(&self) -> BTreeSet<&str> {
        self.pods.found().values().map(String::as_str).collect()
    }

    /// The id of each pod's group.
    fn ids(&self) -> BTreeMap<&str, u64> {
        let found = self.pods.found().iter();
        found.map(|(group, uid)| (uid.as_str(), group.id)).collect()
    }
}

fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).expect("a cgroup").ino()
}

#[test]
fn pods_are_found_as_they_come_and_go_with_either_driver() {
    let mut node = Node::new("pod-groups");
    node.make("kubepods");
    node.set_places(&["kubepods", "kubepods.slice"]);
    assert!(node.uids().is_empty());

    let first = format!("kubepods/pod{FIRST}");
    node.make(&first);
    node.wait_for(&[FIRST]);
    assert_eq!(node.ids()[FIRST], inode(&node.root.join(&first)));
    // Groups of qualities of service may come after the agent.
    node.make(&format!("kubepods/besteffort/pod{SECOND}"));
    node.make(&format!("kubepods/burstable/pod{STATIC}"));
    node.wait_for(&[FIRST, SECOND, STATIC]);
    node.remove(&first);
    node.wait_for(&[SECOND, STATIC]);

    // The same pod's group again is another one.
    let before = node.ids()[SECOND];
    node.remove(&format!("kubepods/besteffort/pod{SECOND}"));
    node.make(&format!("kubepods/besteffort/pod{SECOND}"));
    node.pods.look();
    assert_eq!(node.uids(), BTreeSet::from([SECOND, STATIC]));
    assert_ne!(node.ids()[SECOND], before);

    let escaped = FIRST.replace('-', "_");
    node.make(&format!(
        "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{escaped}.slice"
    ));
    node.pods.look();
    assert!(node.uids().contains(FIRST));
    let slice = node.root.join("kubepods.slice/kubepods-burstable.slice");
    let slice = slice.join(format!("kubepods-burstable-pod{escaped}.slice"));
    assert_eq!(node.ids()[FIRST], inode(&slice));
    let found = node.pods.found().iter();
    let levels: BTreeMap<&str, u8> = found
        .map(|(group, uid)| (uid.as_str(), group.level))
        .collect();
    assert_eq!(levels[FIRST], levels[SECOND]);
}

#[test]
fn containers_of_a_runtime_with_groups_of_its_own_are_their_pods() {
    let mut node = Node::new("pod-runtime");
    let service = "system.slice/containerd.service";
    node.make(service);
    node.set_places(&[service]);
    let escaped = FIRST.replace('-', "_");
    for container in ["a1", "b2"] {
        node.make(&format!(
            "{service}/kubepods-burstable-pod{escaped}.slice:cri-containerd:{container}"
        ));
    }
    node.wait_for(&[FIRST]);
    node.pods.look();
    assert_eq!(node.pods.found().len(), 2);
}

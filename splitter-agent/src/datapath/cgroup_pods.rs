//! Which pod a process is of, by the cgroup that it is in: the pod's group is that one or above it, and
//! has the name that the kubelet gives it.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::hierarchy::{Hierarchy, cgroup_id, names, on_node};
use super::places;
use crate::objects::ObjectName;

/// The cgroups of the node, by the lower halves of their ids, which no two have at a time.
#[derive(Debug)]
pub struct CgroupPods(HashMap<u32, CgroupPlace>);

/// A cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupPlace {
    /// Its path, as it is called on the node.
    pub path: PathBuf,
    /// The pod that it is of.
    pub pod: Option<Rc<CgroupPod>>,
}

/// A pod that has a cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupPod {
    /// Its uid as its cgroup has it: of a static pod, the digest of its manifest.
    pub uid: String,
    /// Its name, if an agent has told it.
    pub name: Option<ObjectName>,
}

impl CgroupPods {
    /// Walks a hierarchy. `pods` are the names of pods, by the ids of their groups.
    #[must_use]
    pub fn new(hierarchy: &Hierarchy, pods: &BTreeMap<u64, ObjectName>) -> Self {
        Self::below(hierarchy.root(), pods)
    }

    /// The group with an id, of which this is the lower half; `None` if it is gone, or not visible here.
    #[must_use]
    pub fn get(&self, id: u32) -> Option<&CgroupPlace> {
        self.0.get(&id)
    }

    fn below(root: &Path, pods: &BTreeMap<u64, ObjectName>) -> Self {
        let mut groups = HashMap::new();
        let mut pending = vec![(root.to_owned(), None::<Rc<CgroupPod>>)];
        while let Some((path, mut pod)) = pending.pop() {
            // Gone in this moment, if there is none.
            let Ok(id) = cgroup_id(&path) else {
                continue;
            };
            // The outermost: a pod of this node may have a node with pods in it.
            if pod.is_none() {
                let uid = path.file_name().and_then(|name| name.to_str());
                pod = uid.and_then(places::uid_of).map(|uid| {
                    let name = pods.get(&id).cloned();
                    Rc::new(CgroupPod { uid, name })
                });
            }
            pending.extend(names(&path).map(|name| (path.join(name), pod.clone())));
            let path = on_node(&path);
            groups.insert(id as u32, CgroupPlace { path, pod });
        }
        Self(groups)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const UID: &str = "0c3c9dc2-3c5a-4d0b-8f0a-3a3b5b1f4f10";
    const OTHER: &str = "11111111-2222-3333-4444-555555555555";

    /// A directory is all that is asked of a group; that of a real one is in the tests of the commands.
    #[test]
    fn a_group_is_of_the_outermost_pod_that_it_is_in() {
        let root = tempfile::tempdir().expect("a directory");
        let systemd = format!("kubepods-burstable-pod{}.slice", OTHER.replace('-', "_"));
        let flat =
            format!("system.slice/containerd.service/kubepods-pod{UID}.slice:cri-containerd:1");
        let cases = [
            (format!("kubepods/pod{UID}"), Some(UID)),
            (format!("kubepods/pod{UID}/1"), Some(UID)),
            (format!("kubepods/pod{UID}/1/init/a/b"), Some(UID)),
            (
                format!("kubepods/pod{UID}/1/kubepods/pod{OTHER}/2"),
                Some(UID),
            ),
            (format!("kubepods.slice/{systemd}/cri-1.scope"), Some(OTHER)),
            (flat, Some(UID)),
            ("kubepods/burstable".to_owned(), None),
            ("system.slice/sshd.service".to_owned(), None),
        ];
        for (path, _) in &cases {
            fs::create_dir_all(root.path().join(path)).expect("a group");
        }
        let id = |path: &str| cgroup_id(&root.path().join(path)).expect("an id");
        let name = ObjectName::new("shop", "web");
        let pods = BTreeMap::from([(id(&format!("kubepods/pod{UID}")), name.clone())]);

        let groups = CgroupPods::below(root.path(), &pods);

        for (path, uid) in &cases {
            let place = groups.get(id(path) as u32).expect(path);
            assert_eq!(place.path, root.path().join(path));
            let pod = place.pod.as_deref();
            assert_eq!(pod.map(|pod| &*pod.uid), *uid, "{path}");
            let is_named = path.starts_with(&format!("kubepods/pod{UID}"));
            let named = pod.and_then(|pod| pod.name.as_ref());
            assert_eq!(named, is_named.then_some(&name), "{path}");
        }
        assert_eq!(groups.get(0), None);
    }
}

//! Where the programs should be, as the agent sees it.

use std::path::{Path, PathBuf};

/// Where the programs should be, and what keeps them from there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Places {
    /// Whether the agent is in a pod, whose connections then have to be split.
    pub in_pod: bool,
    /// The cgroup of the agent itself, as it is called on the node, if it is known.
    pub own: Option<PathBuf>,
    /// The cgroups that pods are in, or that were asked for; none is below another.
    pub places: Vec<AttachmentPlace>,
    /// Why it is the root of the hierarchy, if it is.
    pub fallback: Option<&'static str>,
    /// What people should know, though the programs are attached.
    pub warnings: Vec<String>,
}

/// One cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachmentPlace {
    /// Its directory, as the agent sees it.
    pub cgroup: PathBuf,
    /// Whether there are pods in it now, as far as is known.
    pub has_pods: bool,
    /// Why the programs are not there; `None` if they are.
    pub problem: Option<String>,
}

impl Places {
    /// The cgroups that lack programs, and why.
    pub fn problems(&self) -> impl Iterator<Item = (&Path, &str)> {
        self.places
            .iter()
            .filter_map(|place| Some((place.cgroup.as_path(), place.problem.as_deref()?)))
    }

    /// The cgroups with programs from which a connection says something about pods': those
    /// with pods, or all if none is known to have any.
    pub fn representative(&self) -> impl Iterator<Item = &Path> {
        let attached = self.places.iter().filter(|place| place.problem.is_none());
        let has_pods = attached.clone().any(|place| place.has_pods);
        attached
            .filter(move |place| place.has_pods || !has_pods)
            .map(|place| place.cgroup.as_path())
    }
}

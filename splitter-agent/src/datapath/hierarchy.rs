//! The cgroup v2 hierarchy as this process sees it: where it is mounted, which of its groups
//! this process is in, and which groups may hold pods.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use super::load::PreflightError;
use super::places::{self, Groups};
use super::sys;

/// `CGROUP2_SUPER_MAGIC` in `include/uapi/linux/magic.h`.
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// Below it a container has what is the node's own, so that a path there without it is the
/// path on the node.
const NODE: &str = "/host";

/// Set by the kubelet in every container.
const IN_POD: &str = "KUBERNETES_SERVICE_HOST";

/// A mounted cgroup v2 hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hierarchy {
    root: PathBuf,
}

/// Where this process is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnPlace {
    /// The group that it is in, from the root of the hierarchy; `None` if it is not below what
    /// is visible.
    pub group: Option<PathBuf>,
    /// Whether it runs in a container of a pod.
    pub in_pod: bool,
}

impl Hierarchy {
    /// The mounted hierarchy that reaches highest.
    ///
    /// # Errors
    ///
    /// If cgroup v2 is not mounted.
    pub fn find() -> Result<Self, PreflightError> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let root = mounts_of(&mounts).into_iter().next();
        root.map(|root| Self { root })
            .ok_or(PreflightError::NoCgroup2)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether what is mounted is a part of the hierarchy: the root of a cgroup namespace. The
    /// real root alone has no `cgroup.events`.
    fn is_part(&self) -> bool {
        self.root.join("cgroup.events").exists()
    }

    /// Where this process is.
    ///
    /// # Errors
    ///
    /// If this is a container that sees no other groups than its own: programs there would
    /// split nobody's connections but the agent's.
    pub fn own_place(&self) -> Result<OwnPlace, PreflightError> {
        let own = OwnPlace {
            group: self.own_group(),
            in_pod: std::env::var_os(IN_POD).is_some(),
        };
        let sees_only_itself = own.in_pod
            && self.is_part()
            && own
                .group
                .as_deref()
                .is_none_or(|group| group == Path::new(""));
        if sees_only_itself {
            return Err(PreflightError::OnlyOwnCgroup(self.root.clone()));
        }
        Ok(own)
    }

    /// The group that this process is in. Its path in `/proc/self/cgroup` says so only if the
    /// root of the cgroup namespace is what is mounted; a container with a namespace of its own
    /// reads `/` there. But every group lists its processes by the numbers that they have for
    /// the reader, so the group that lists our number is ours.
    fn own_group(&self) -> Option<PathBuf> {
        let own = std::process::id().to_string();
        let is_ours = |group: &Path| {
            fs::read_to_string(group.join("cgroup.procs"))
                .is_ok_and(|processes| processes.lines().any(|process| process == own))
        };
        let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let told = membership
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .map(|path| self.root.join(path))
            .filter(|path| is_ours(path));
        let group = told.or_else(|| walk(&self.root).find(|group| is_ours(group)))?;
        Some(group.strip_prefix(&self.root).ok()?.to_owned())
    }

    /// Looks at the groups that may hold pods. `own` is the group of this process's pod, beside
    /// whose group others may be that are named likewise.
    #[must_use]
    pub fn survey(&self, own: Option<&Path>) -> Groups {
        let mut groups = Groups::new();
        let mut note = |path: PathBuf| {
            if let Some(populated) = is_populated(&self.root.join(&path)) {
                groups.insert(path, populated);
            }
        };
        for name in places::candidates(own) {
            note(name);
        }
        let parents = places::parents_of_pods(own).into_iter().chain(
            places::PARENTS_OF_SERVICES
                .iter()
                .flat_map(|slice| self.services(Path::new(slice))),
        );
        for parent in parents {
            for name in names(&self.root.join(&parent)) {
                if places::is_pod(&name) {
                    note(parent.join(name));
                }
            }
        }
        groups
    }

    /// The services in a slice, among them the container runtime's.
    fn services(&self, slice: &Path) -> Vec<PathBuf> {
        names(&self.root.join(slice))
            .filter(|name| name.ends_with(".service"))
            .map(|name| slice.join(name))
            .collect()
    }

    /// How many groups are above one, the root of the hierarchy included: the level that
    /// `bpf_get_current_ancestor_cgroup_id` takes. What is mounted may be a part of the hierarchy,
    /// as in a node that is a container itself, and nothing below it tells how deep it is; then
    /// the kernel is asked which groups this process is in.
    ///
    /// # Errors
    ///
    /// If it is not below what is mounted, or too deep, or the kernel does not say.
    pub fn level_of(&self, group: &Path) -> io::Result<u8> {
        let outside = || io::Error::other("it is not below the mounted cgroup hierarchy");
        let below = group.strip_prefix(&self.root).map_err(|_| outside())?;
        let above = if self.is_part() {
            // Only the lower half of an id, which no other cgroup has at the time.
            let root = cgroup_id(&self.root)? as u32;
            let own = sys::programs::own_cgroups()?;
            own.iter().position(|id| *id == root).ok_or_else(outside)?
        } else {
            0
        };
        u8::try_from(above + below.components().count()).map_err(io::Error::other)
    }

    /// The path of the group with an id (the inode number of its directory).
    #[must_use]
    pub fn path_of(&self, id: u64) -> Option<PathBuf> {
        walk(&self.root).find(|path| cgroup_id(path).is_ok_and(|found| found == id))
    }
}

/// A path as it is called on the node.
#[must_use]
pub fn on_node(path: &Path) -> PathBuf {
    path.strip_prefix(NODE)
        .map_or_else(|_| path.to_owned(), |path| Path::new("/").join(path))
}

/// The id of a cgroup: on 64-bit kernels, the inode number of its directory.
///
/// # Errors
///
/// If it is not there.
pub(crate) fn cgroup_id(path: &Path) -> io::Result<u64> {
    fs::metadata(path).map(|status| status.ino())
}

/// Whether a path is a cgroup that programs can be attached to. A v1 hierarchy has
/// `cgroup.procs` too.
pub(crate) fn is_cgroup(path: &Path) -> bool {
    sys::file_system_magic(path).is_ok_and(|magic| magic == CGROUP2_SUPER_MAGIC)
        && path.join("cgroup.procs").exists()
}

/// A group and those above it, as far as they are visible, nearest first.
pub(crate) fn path_to_root(group: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::iter::successors(Some(group.to_owned()), |path| {
        path.parent().map(Path::to_owned)
    })
    .take_while(|path| is_cgroup(path))
}

/// A group and every group below it.
pub(crate) fn walk(group: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let mut pending = vec![group.to_owned()];
    std::iter::from_fn(move || {
        let path = pending.pop()?;
        pending.extend(names(&path).map(|name| path.join(name)));
        Some(path)
    })
}

/// The names of the groups right below one.
pub(super) fn names(group: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| entry.file_name().into_string().ok())
}

/// Whether there are processes in a group or below it; `None` if there is no such group.
fn is_populated(group: &Path) -> Option<bool> {
    let events = fs::read_to_string(group.join("cgroup.events")).ok()?;
    Some(events.lines().any(|line| line == "populated 1"))
}

/// The mounts of a whole cgroup v2 hierarchy in a `/proc/<pid>/mountinfo` (proc(5): root
/// of the mount in the fourth field, its point in the fifth, type after the lone hyphen).
///
/// Those that reach above the root of our own cgroup namespace (`/..`, cgroup_namespaces(7))
/// come first: in a container that has such a namespace, they are the host's.
fn mounts_of(mountinfo: &str) -> Vec<PathBuf> {
    let mut mounts: Vec<(usize, PathBuf)> = mountinfo
        .lines()
        .filter_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            if file_system.split(' ').next()? != "cgroup2" {
                return None;
            }
            let mut fields = mount.split(' ').skip(3);
            let root = Path::new(fields.next()?);
            let point = fields.next()?;
            let is_above = root
                .components()
                .all(|part| matches!(part, Component::RootDir | Component::ParentDir));
            is_above.then(|| {
                (
                    root.components().count(),
                    PathBuf::from(point.replace("\\040", " ")),
                )
            })
        })
        .collect();
    mounts.sort_by_key(|(height, _)| std::cmp::Reverse(*height));
    mounts.into_iter().map(|(_, point)| point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unified_mount_of_a_hybrid_layout_is_found() {
        let mountinfo = "\
24 1 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
25 24 0:22 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
26 24 0:23 / /sys/fs/cgroup/unified rw,relatime shared:5 - cgroup2 cgroup2 rw
";
        assert_eq!(
            mounts_of(mountinfo),
            [PathBuf::from("/sys/fs/cgroup/unified")]
        );
        assert!(mounts_of("24 1 0:21 / / rw - ext4 /dev/vda rw\n").is_empty());
    }

    #[test]
    fn in_a_container_the_mount_of_the_host_comes_before_its_own() {
        let mountinfo = "\
24 1 0:21 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw
25 24 0:21 /../../.. /host/sys/fs/cgroup rw master:5 - cgroup2 cgroup2 rw
26 24 0:21 /../../../other /elsewhere rw master:5 - cgroup2 cgroup2 rw
";
        assert_eq!(
            mounts_of(mountinfo),
            [
                PathBuf::from("/host/sys/fs/cgroup"),
                PathBuf::from("/sys/fs/cgroup")
            ]
        );
        let mountinfo = "\
24 1 0:21 /kubepods/pod1/2 /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw
25 24 0:21 / /host/sys/fs/cgroup rw master:5 - cgroup2 cgroup2 rw
";
        assert_eq!(mounts_of(mountinfo), [PathBuf::from("/host/sys/fs/cgroup")]);
    }

    #[test]
    fn paths_are_told_as_they_are_called_on_the_node() {
        let told = |path: &str| on_node(Path::new(path)).display().to_string();
        assert_eq!(
            told("/host/sys/fs/cgroup/kubepods"),
            "/sys/fs/cgroup/kubepods"
        );
        assert_eq!(told("/sys/fs/cgroup/kubepods"), "/sys/fs/cgroup/kubepods");
    }

    #[test]
    fn a_groups_level_is_what_the_kernel_counts() {
        let hierarchy = Hierarchy::find().expect("a hierarchy");
        let own = hierarchy.own_group().expect("a group of our own");
        let group = hierarchy.root().join(own);
        let Ok(counted) = sys::programs::own_cgroups() else {
            // Not root.
            return;
        };
        let level = hierarchy.level_of(&group).expect("a level");
        assert_eq!(usize::from(level), counted.len() - 1);
        assert_eq!(
            counted.last(),
            Some(&(cgroup_id(&group).expect("an id") as u32))
        );
        assert_eq!(hierarchy.level_of(hierarchy.root()).expect("a level"), 0);
        assert!(hierarchy.level_of(Path::new("/proc")).is_err());
    }

    #[test]
    fn the_group_that_lists_this_process_is_its_own() {
        let hierarchy = Hierarchy::find().expect("a hierarchy");
        let group = hierarchy.own_group().expect("a group of our own");
        let processes = hierarchy.root().join(group).join("cgroup.procs");
        let processes = fs::read_to_string(processes).expect("its processes");
        let own = std::process::id().to_string();
        assert!(processes.lines().any(|process| process == own));
    }
}

//! The control groups of a node: one in every hierarchy that the machine has, below the group that
//! accounts for whoever starts the cluster.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::lab::cgroup;
use crate::lab::place::Place;

/// How the names of all groups begin.
const PREFIX: &str = "splitter-cluster-";

/// What a kubelet needs of a machine that has version 2 alone.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// A hierarchy of control groups, as a line of `/proc/self/cgroup` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Its controllers, separated by commas; empty for version 2.
    pub(super) controllers: String,
    /// The group that this process is in.
    path: String,
}

impl Hierarchy {
    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.splitn(3, ':').skip(1);
        Some(Self {
            controllers: fields.next()?.to_owned(),
            path: fields.next()?.to_owned(),
        })
    }

    pub(super) fn is_version_2(&self) -> bool {
        self.controllers.is_empty()
    }

    /// The directory of the group that this process is in; `None` where the hierarchy is not
    /// mounted.
    fn own_directory(&self, mountinfo: &str) -> Option<PathBuf> {
        let (root, point) = self.mount(mountinfo)?;
        let below = Path::new(&self.path).strip_prefix(root).ok()?;
        Some(Path::new(point).join(below))
    }

    /// Which group is mounted, and where.
    fn mount<'a>(&self, mountinfo: &'a str) -> Option<(&'a str, &'a str)> {
        let wanted: Vec<_> = self.controllers.split(',').collect();
        mountinfo.lines().find_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let mut right = right.split(' ');
            let kind = right.next()?;
            let options: Vec<_> = right.nth(1)?.split(',').collect();
            let mut left = left.split(' ').skip(3);
            let (root, point) = (left.next()?, left.next()?);
            let is_wanted = kind == "cgroup" && wanted.iter().all(|it| options.contains(it));
            is_wanted.then_some((root, point))
        })
    }
}

/// The hierarchies of this machine.
pub(super) fn hierarchies() -> Result<Vec<Hierarchy>> {
    let table =
        fs::read_to_string("/proc/self/cgroup").context("cannot read own control groups")?;
    Ok(table.lines().filter_map(Hierarchy::parse).collect())
}

/// Whether the machine has version 2 alone.
pub(super) fn is_version_2_only(hierarchies: &[Hierarchy]) -> bool {
    hierarchies.iter().all(Hierarchy::is_version_2)
}

/// The groups of one node.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    /// What the node sees as the root of each hierarchy.
    roots: Vec<PathBuf>,
    /// The groups that processes of the node itself are in. Where version 2 has the controllers, a
    /// group with processes may have no groups of pods, so there it is another one.
    members: Vec<PathBuf>,
}

impl Groups {
    /// Makes the groups of `node` of the cluster called `cluster`.
    pub(super) fn create(cluster: &str, node: &str) -> Result<Self> {
        let name = format!("{}{node}", prefix(cluster));
        let hierarchies = hierarchies()?;
        if is_version_2_only(&hierarchies) {
            let root = parent_with_controllers(&cgroup::own()?).join(name);
            let member = root.join("system");
            create(&member)?;
            return Ok(Self {
                roots: vec![root],
                members: vec![member],
            });
        }
        let roots = own_directories(&hierarchies)?;
        let roots: Vec<_> = roots.into_iter().map(|own| own.join(&name)).collect();
        for root in &roots {
            create(root)?;
            inherit_processors(root)?;
        }
        Ok(Self {
            members: roots.clone(),
            roots,
        })
    }

    /// What the node sees as the root of each hierarchy.
    pub(super) fn roots(&self) -> Result<Vec<Place>> {
        places(&self.roots)
    }

    /// Where processes of the node belong.
    pub(super) fn members(&self) -> &[PathBuf] {
        &self.members
    }
}

/// Places for processes that are to be in `groups`.
pub(super) fn places(groups: &[PathBuf]) -> Result<Vec<Place>> {
    let place = |group: &PathBuf| Place::new(group, None);
    let places = groups.iter().map(place).collect::<io::Result<_>>();
    places.context("a control group has an odd name")
}

/// How the names of the groups of the cluster called `cluster` begin. Dots are in no name of a
/// cluster, so no other cluster's names begin like that.
fn prefix(cluster: &str) -> String {
    format!("{PREFIX}{cluster}.")
}

/// Removes all groups of the cluster called `cluster`, wherever on the machine they are: it may have
/// been started from other groups than this process is in.
pub(super) fn remove_all(cluster: &str) -> Result<()> {
    let mountinfo = read_mountinfo()?;
    let prefix = prefix(cluster);
    for hierarchy in hierarchies()? {
        let top = if hierarchy.is_version_2() {
            cgroup::mount_point()?
        } else if let Some((_, point)) = hierarchy.mount(&mountinfo) {
            point.into()
        } else {
            continue;
        };
        for group in cgroup::find_below(&top, &|name| name.starts_with(&prefix)) {
            cgroup::remove(&group)?;
        }
    }
    Ok(())
}

fn read_mountinfo() -> Result<String> {
    fs::read_to_string("/proc/self/mountinfo").context("cannot list mounts")
}

fn own_directories(hierarchies: &[Hierarchy]) -> Result<Vec<PathBuf>> {
    let mountinfo = read_mountinfo()?;
    let mut directories = Vec::new();
    for hierarchy in hierarchies {
        if hierarchy.is_version_2() {
            directories.push(cgroup::own()?);
        } else {
            directories.extend(hierarchy.own_directory(&mountinfo));
        }
    }
    Ok(directories)
}

fn create(path: &Path) -> Result<()> {
    fs::create_dir_all(path)
        .with_context(|| format!("cannot make the control group {}", path.display()))
}

/// A new group of the cpuset controller's first version may use no processor, until told so.
fn inherit_processors(group: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let (own, parent) = (group.join(name), group.with_file_name(name));
        if own.exists() {
            fs::read(&parent)
                .and_then(|processors| fs::write(&own, processors))
                .with_context(|| {
                    format!("cannot copy {} to {}", parent.display(), own.display())
                })?;
        }
    }
    Ok(())
}

/// The nearest group at or above `own` that hands the controllers on to groups in it, or takes the
/// order to do so. One with processes does not, unless it is the root.
fn parent_with_controllers(own: &Path) -> PathBuf {
    let hands_on = |group: &Path| {
        let file = group.join("cgroup.subtree_control");
        let has = |controller: &str| {
            fs::read_to_string(&file)
                .is_ok_and(|list| list.split_whitespace().any(|it| it == controller))
        };
        CONTROLLERS
            .iter()
            .all(|controller| has(controller) || fs::write(&file, format!("+{controller}")).is_ok())
    };
    let mut ancestors = own.ancestors();
    let parent = ancestors.find(|group| hands_on(group));
    parent.unwrap_or(own).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_groups_are_found_in_each_hierarchy() {
        let mountinfo = "\
33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
";
        let directory = |line: &str| Hierarchy::parse(line)?.own_directory(mountinfo);
        assert_eq!(
            directory("2:cpu,cpuacct:/user"),
            Some("/sys/fs/cgroup/cpu,cpuacct/user".into())
        );
        assert_eq!(
            directory("1:name=systemd:/a:b"),
            Some("/sys/fs/cgroup/systemd/a:b".into())
        );
        assert_eq!(directory("4:memory:/"), None);
        assert!(Hierarchy::parse("0::/user").unwrap().is_version_2());
    }
}

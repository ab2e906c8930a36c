//! Which cgroups hold pods: a pure choice among the groups that were seen.
//!
//! The kubelet keeps pods in one group (`kubepods`, or `kubepods.slice` with the systemd
//! driver; below a group of its own with `--cgroup-root`, as kind has it), and the container
//! runtime makes the containers' groups in there. A runtime with the cgroupfs driver below a
//! kubelet with the systemd driver takes the slice for a relative path instead, and containers
//! end up in the runtime's own group, as in
//! `system.slice/containerd.service/kubepods-burstable-pod<uid>.slice:cri-containerd:<id>`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::hierarchy::OwnPlace;

/// Groups by their path from the root of the hierarchy, and whether there are processes in
/// them.
pub(crate) type Groups = BTreeMap<PathBuf, bool>;

/// Where the kubelet may keep pods: with either driver, and below a kubelet's group of its own.
const CANDIDATES: [&str; 4] = [
    "kubepods",
    "kubepods.slice",
    "kubelet/kubepods",
    "kubelet.slice/kubelet-kubepods.slice",
];

/// Slices whose services may be container runtimes.
pub(super) const PARENTS_OF_SERVICES: [&str; 2] = ["system.slice", "runtime.slice"];

/// Where the programs have to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The groups, from the root of the hierarchy, none below another; and whether pods are in
    /// them now.
    pub groups: BTreeMap<PathBuf, bool>,
    /// Why it is the root of the hierarchy, if it is.
    pub fallback: Option<Fallback>,
}

/// Why the programs are on the root of the hierarchy, where they see every process's
/// connections, and see them after programs of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// There is no group of pods.
    NoPods,
    /// The agent is in a pod, but not in a group that looks like one.
    OwnPodUnknown,
    /// Pods are right below the root.
    PodsInRoot,
}

impl Fallback {
    /// What is the matter, for people.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::NoPods => "no group of pods was found (kubepods, kubepods.slice)",
            Self::OwnPodUnknown => {
                "the agent's own pod is not in a cgroup that is named as the kubelet names pods'"
            }
            Self::PodsInRoot => "pods are right below the root of the cgroup hierarchy",
        }
    }
}

/// Where pods may be, apart from runtimes' own groups: in the places known, and in those of the
/// same names beside the group that holds our own pod.
pub(super) fn candidates(own: Option<&Path>) -> BTreeSet<PathBuf> {
    let prefix = own.and_then(holder).and_then(|holder| {
        let parent = holder.parent()?;
        Some(parent.to_owned())
    });
    let beside = prefix
        .into_iter()
        .flat_map(|prefix| ["kubepods", "kubepods.slice"].map(|name| prefix.join(name)));
    let own = own.and_then(holder);
    CANDIDATES
        .iter()
        .map(PathBuf::from)
        .chain(beside)
        .chain(own.filter(|own| is_kubepods(own)))
        .collect()
}

/// Groups that may have pods right below them, apart from services.
pub(super) fn parents_of_pods(own: Option<&Path>) -> BTreeSet<PathBuf> {
    let known = ["", "system.slice"].map(PathBuf::from);
    let own = own.and_then(holder).filter(|holder| !is_kubepods(holder));
    known.into_iter().chain(own).collect()
}

/// Chooses from the groups that were seen. Groups in `held` are kept for as long as they are
/// there, though no pod is in them at the moment.
pub(crate) fn choose(seen: &Groups, own: &OwnPlace, held: &BTreeSet<PathBuf>) -> Choice {
    let own_holder = own.group.as_deref().and_then(holder);
    if own.in_pod && own_holder.is_none() {
        return root(true, Fallback::OwnPodUnknown);
    }
    let mut groups = Groups::new();
    for (path, populated) in seen {
        let place = if is_kubepods(path) {
            path.clone()
        } else if let Some(holder) = holder(path) {
            holder
        } else {
            continue;
        };
        *groups.entry(place).or_default() |= *populated;
    }
    groups.extend(own_holder.map(|own| (own, true)));
    if groups.values().any(|populated| *populated) {
        groups.retain(|path, populated| *populated || held.contains(path));
    }
    if groups.is_empty() {
        return root(false, Fallback::NoPods);
    }
    if groups.contains_key(Path::new("")) {
        return root(true, Fallback::PodsInRoot);
    }
    Choice {
        groups: outermost(groups),
        fallback: None,
    }
}

fn root(has_pods: bool, why: Fallback) -> Choice {
    Choice {
        groups: BTreeMap::from([(PathBuf::new(), has_pods)]),
        fallback: Some(why),
    }
}

/// Without the groups that are below another: the programs of both would run for a connection
/// of the lower one.
pub(crate) fn outermost(groups: Groups) -> Groups {
    let mut kept = Groups::new();
    // In their order a group comes after those above it.
    for (path, populated) in groups {
        let above = path
            .ancestors()
            .find(|above| kept.contains_key(*above))
            .map(Path::to_owned);
        *kept.entry(above.unwrap_or(path)).or_default() |= populated;
    }
    kept
}

/// The group that holds pods, from the group of a pod or of a container in one: the kubelet's,
/// or else the one right above the pod's. `None` if the path is not a pod's.
fn holder(path: &Path) -> Option<PathBuf> {
    let ancestors: Vec<&Path> = path.ancestors().collect();
    // Outermost first: pods may have pods in them.
    let outermost = |wanted: fn(&str) -> bool| {
        ancestors.iter().rev().copied().find(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(wanted)
        })
    };
    let pod = outermost(is_pod)?;
    match outermost(is_kubepods_name) {
        Some(kubepods) if pod.starts_with(kubepods) => Some(kubepods.to_owned()),
        _ => Some(pod.parent()?.to_owned()),
    }
}

/// The group that holds pods, if this is one, or that of a pod.
pub(crate) fn holder_of_pods(path: &Path) -> Option<PathBuf> {
    if is_kubepods(path) {
        Some(path.to_owned())
    } else {
        holder(path)
    }
}

/// Whether a group is one that the kubelet keeps all pods in.
fn is_kubepods(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(is_kubepods_name)
}

fn is_kubepods_name(name: &str) -> bool {
    matches!(name, "kubepods" | "kubepods.slice") || name.ends_with("-kubepods.slice")
}

/// Whether a group is called as the kubelet calls a pod's: `pod<uid>`, or
/// `<slice>-pod<uid with underscores>.slice` with the systemd driver.
pub(super) fn is_pod(name: &str) -> bool {
    uid_of(name).is_some()
}

/// The uid of the pod whose group is called so: that of its object, or of a static pod the digest
/// of its manifest.
pub(super) fn uid_of(name: &str) -> Option<String> {
    name.match_indices("pod").find_map(|(start, _)| {
        let is_start = start == 0 || name[..start].ends_with('-');
        let uid = &name[start + "pod".len()..];
        let end = uid.find(|it: char| !it.is_ascii_hexdigit() && it != '-' && it != '_');
        let uid = &uid[..end.unwrap_or(uid.len())];
        (is_start && is_uid(uid)).then(|| uid.replace('_', "-"))
    })
}

/// A UUID, or a static pod's UID: the digest of its manifest.
fn is_uid(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_hexdigit).count();
    let groups: Vec<usize> = text.split(['-', '_']).map(str::len).collect();
    digits == 32 && (groups == [8, 4, 4, 4, 12] || groups == [32])
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "0c3c9dc2-3c5a-4d0b-8f0a-3a3b5b1f4f10";

    fn seen(groups: &[(&str, bool)]) -> Groups {
        let groups = groups.iter();
        groups
            .map(|(path, populated)| (path.replace("UID", UID).into(), *populated))
            .collect()
    }

    fn pod(group: &str) -> OwnPlace {
        OwnPlace {
            group: Some(group.replace("UID", UID).into()),
            in_pod: true,
        }
    }

    fn outside() -> OwnPlace {
        OwnPlace {
            group: Some("user.slice".into()),
            in_pod: false,
        }
    }

    fn chosen(groups: &[(&str, bool)], own: &OwnPlace) -> Vec<(String, bool)> {
        let choice = choose(&seen(groups), own, &BTreeSet::new());
        assert_eq!(choice.fallback, None);
        let groups = choice.groups.into_iter();
        groups
            .map(|(path, pods)| (path.display().to_string(), pods))
            .collect()
    }

    fn fallback(groups: &[(&str, bool)], own: &OwnPlace) -> Option<Fallback> {
        let choice = choose(&seen(groups), own, &BTreeSet::new());
        assert_eq!(choice.groups.keys().next(), Some(&PathBuf::new()));
        choice.fallback
    }

    fn with_pods(path: &str) -> (String, bool) {
        (path.to_owned(), true)
    }

    #[test]
    fn a_stale_group_is_not_taken_for_the_one_in_use() {
        let groups = [("kubepods", false), ("kubepods.slice", true)];
        assert_eq!(chosen(&groups, &outside()), [with_pods("kubepods.slice")]);
        let own = pod("kubepods.slice/kubepods-podUID.slice/cri-containerd-1.scope");
        assert_eq!(chosen(&groups, &own), [with_pods("kubepods.slice")]);
    }

    #[test]
    fn all_groups_with_pods_are_taken() {
        let groups = [("kubepods", true), ("kubepods.slice", true)];
        let both = [with_pods("kubepods"), with_pods("kubepods.slice")];
        assert_eq!(chosen(&groups, &outside()), both);
        assert_eq!(chosen(&groups, &pod("kubepods/podUID/1")), both);
    }

    #[test]
    fn the_own_pod_tells_where_pods_are_wherever_that_is() {
        for (own, place) in [
            ("kubepods/besteffort/podUID/1", "kubepods"),
            ("kubelet/kubepods/burstable/podUID/1", "kubelet/kubepods"),
            (
                "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-podUID.slice/cri-1.scope",
                "kubelet.slice/kubelet-kubepods.slice",
            ),
            ("custom/root/kubepods/podUID/1", "custom/root/kubepods"),
            (
                "system.slice/containerd.service/kubepods-burstable-podUID.slice:cri-containerd:1",
                "system.slice/containerd.service",
            ),
            ("kubepods/podUID/1/kubepods/podUID/1", "kubepods"),
        ] {
            assert_eq!(chosen(&[], &pod(own)), [with_pods(place)], "{own}");
        }
    }

    #[test]
    fn pods_in_a_runtimes_own_group_are_found_beside_the_kubelets_group() {
        let groups = [
            ("kubepods.slice", false),
            (
                "system.slice/containerd.service/kubepods-podUID.slice:cri-containerd:1",
                true,
            ),
        ];
        assert_eq!(
            chosen(&groups, &outside()),
            [with_pods("system.slice/containerd.service")]
        );
    }

    #[test]
    fn before_the_first_pod_every_group_that_may_get_it_is_taken() {
        let groups = [("kubepods", false), ("kubepods.slice", false)];
        let all = ["kubepods", "kubepods.slice"].map(|path| (path.to_owned(), false));
        assert_eq!(chosen(&groups, &outside()), all);
    }

    #[test]
    fn a_group_whose_last_pod_has_ended_is_kept() {
        let held = BTreeSet::from([PathBuf::from("kubepods")]);
        let groups = seen(&[("kubepods", false), ("kubepods.slice", true)]);
        assert_eq!(choose(&groups, &outside(), &held).groups, groups);
    }

    #[test]
    fn the_root_is_the_last_resort_and_says_why() {
        assert_eq!(fallback(&[], &outside()), Some(Fallback::NoPods));
        let groups = [("kubepods", true)];
        for own in ["", "system.slice/containerd.service/1"] {
            assert_eq!(
                fallback(&groups, &pod(own)),
                Some(Fallback::OwnPodUnknown),
                "{own}"
            );
        }
        let groups = [("kubepods", true), ("kubepods-podUID.slice:cri:1", true)];
        assert_eq!(fallback(&groups, &outside()), Some(Fallback::PodsInRoot));
    }

    #[test]
    fn no_group_below_another_is_kept() {
        let groups = seen(&[("a", false), ("a/b", true), ("a-b", false), ("c/d", true)]);
        let kept = seen(&[("a", true), ("a-b", false), ("c/d", true)]);
        assert_eq!(outermost(groups), kept);
    }

    #[test]
    fn pods_are_told_by_their_names() {
        for name in [
            "podUID",
            "kubepods-besteffort-podUID.slice",
            "kubepods-burstable-podUID.slice:cri-containerd:abc",
            "pod0123456789abcdef0123456789abcdef",
        ] {
            assert!(is_pod(&name.replace("UID", UID)), "{name}");
            assert!(
                is_pod(&name.replace("UID", &UID.replace('-', "_"))),
                "{name}"
            );
        }
        for name in [
            "kubepods",
            "kubepods.slice",
            "podman.service",
            "machine-libpod_pod_abc.slice",
            "pod1",
            "",
        ] {
            assert!(!is_pod(name), "{name}");
        }
    }
}

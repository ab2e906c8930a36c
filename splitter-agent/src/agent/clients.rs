//! The pods of this node as clients: who they are from the source, which cgroup each has from the
//! node, and from both what the kernel shall know.

use std::collections::{BTreeMap, BTreeSet};

use splitter_common::layout::ClientScope;

use crate::causes::with_causes;
use crate::compile::Compiler;
use crate::datapath::{ClientError, PodGroup, Publisher};
use crate::objects::ObjectName;
use crate::source::NodePod;

/// The pods of this node.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// By uid.
    pods: BTreeMap<String, Pod>,
    /// Whether the source has told of all of them.
    is_complete: bool,
    /// The pods that have groups, by these; `None` before the node was looked at.
    groups: Option<BTreeMap<PodGroup, String>>,
    /// Whether anything changed since the kernel was told.
    has_changed: bool,
    /// Groups of which the kernel could not be told, as was logged.
    failed: BTreeSet<u64>,
    /// Whether the kernel could not be told the names of pods, as was logged.
    is_nameless: bool,
}

#[derive(Debug)]
struct Pod {
    name: ObjectName,
    is_split: bool,
    scope: ClientScope,
}

impl Clients {
    /// A pod is there, or changed.
    pub(super) fn put(&mut self, pod: NodePod, compiler: &mut Compiler) {
        let known = self.pods.get(&pod.uid);
        let scope = known.map_or(ClientScope::EVERYONE, |known| known.scope);
        let new = Pod {
            name: ObjectName::new(pod.client.namespace.clone(), pod.name),
            is_split: pod.is_split,
            scope,
        };
        self.pods.insert(pod.uid.clone(), new);
        self.has_changed = true;
        compiler.put_client(pod.uid, pod.client);
    }

    /// A pod is gone.
    pub(super) fn remove(&mut self, uid: &str, compiler: &mut Compiler) {
        compiler.remove_client(uid);
        self.has_changed |= self.pods.remove(uid).is_some();
    }

    /// Whether the source has told of every pod.
    pub(super) fn set_complete(&mut self, is_complete: bool) {
        self.has_changed |= is_complete && !self.is_complete;
        self.is_complete = is_complete;
    }

    /// These groups of pods are on the node.
    pub(super) fn set_groups(&mut self, groups: BTreeMap<PodGroup, String>) {
        let groups = Some(groups);
        self.has_changed |= self.groups != groups;
        self.groups = groups;
    }

    /// Pods are in these scopes now.
    pub(super) fn set_scopes(&mut self, scopes: BTreeMap<String, ClientScope>) {
        for (uid, scope) in scopes {
            if let Some(pod) = self.pods.get_mut(&uid) {
                pod.scope = scope;
                self.has_changed = true;
            }
        }
    }

    /// Tells the kernel what changed. The splits of every scope are in the maps already.
    pub(super) fn publish(&mut self, publisher: &mut Publisher) {
        let Some(groups) = self.groups.as_ref().filter(|_| self.has_changed) else {
            return;
        };
        self.has_changed = false;
        let present: BTreeSet<PodGroup> = groups.keys().copied().collect();
        let wanted = self.wanted();
        let known: BTreeMap<PodGroup, ClientScope> = publisher.clients().collect();
        for group in known.keys() {
            // One of which was not told yet may be a pod that was there before the agent.
            let is_gone = !present.contains(group);
            if is_gone || self.is_complete && !wanted.contains_key(group) {
                let result = publisher.remove_client(group.id).map(|_| ());
                self.note(group.id, result);
            }
        }
        for (group, scope) in wanted {
            if known.get(&group) != Some(&scope) {
                let result = publisher.set_client(group, scope);
                self.note(group.id, result);
            }
        }
        self.name_pods(publisher);
    }

    /// Writes the names of pods to the maps, for people.
    fn name_pods(&mut self, publisher: &mut Publisher) {
        let groups = self.groups.iter().flatten();
        let names = groups.filter_map(|(group, uid)| {
            let pod = self.pods.get(uid)?;
            Some((group.id, pod.name.clone()))
        });
        let names = names.collect();
        // One of which was not told yet may be a pod that was there before the agent.
        let mut present = BTreeSet::new();
        if !self.is_complete {
            present.extend(self.groups.iter().flatten().map(|(group, _)| group.id));
        }
        let result = publisher.name_pods(&names, |id| present.contains(&id));
        let was_nameless = std::mem::replace(&mut self.is_nameless, result.is_err());
        if let Err(error) = result
            && !was_nameless
        {
            let error = with_causes(&error);
            tracing::warn!(error, "cannot write the names of pods to the maps");
        }
    }

    /// What the kernel shall know of each group.
    fn wanted(&self) -> BTreeMap<PodGroup, ClientScope> {
        let groups = self.groups.iter().flatten();
        groups
            .filter_map(|(group, uid)| {
                let pod = self.pods.get(uid)?;
                let scope = if pod.is_split {
                    pod.scope
                } else {
                    ClientScope::NEVER_SPLIT
                };
                Some((*group, scope))
            })
            .collect()
    }

    /// Logs what went wrong, once, and has it tried again.
    fn note(&mut self, group: u64, result: Result<(), ClientError>) {
        match result {
            Ok(()) => {
                self.failed.remove(&group);
            }
            Err(error) => {
                self.has_changed = true;
                if self.failed.insert(group) {
                    let error = with_causes(&error);
                    let pod = self
                        .groups
                        .iter()
                        .flatten()
                        .find(|(known, _)| known.id == group);
                    let pod = pod.map(|(_, uid)| uid.as_str());
                    tracing::warn!(
                        cgroup = group,
                        pod,
                        error,
                        "a pod cannot be told apart, so its connections are split like everyone's"
                    );
                }
            }
        }
    }
}

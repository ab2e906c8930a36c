//! The pods of this node, by who they are to the claims that are about some clients only.
//!
//! A scope is a namespace and the labels that selectors ask for: pods that no selector could tell
//! apart are in one scope. So a claim that comes or goes adds or removes entries of its own root
//! only, unless it asks for a label that none asked for before.

use std::collections::{BTreeMap, BTreeSet};

use splitter_common::layout::ClientScope;

use crate::objects::ObjectName;
use crate::route::{Claim, ClientSelector};

/// A pod of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its namespace.
    pub namespace: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

/// Pods that no selector could tell apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    /// Their namespace.
    pub namespace: String,
    /// Those of their labels that selectors ask for.
    pub labels: BTreeMap<String, String>,
}

/// The scopes of this node's pods.
#[derive(Debug, Default)]
pub(super) struct Scopes {
    /// The selectors of claims, by each namespace that they name, and those that name none.
    selectors: BTreeMap<Option<String>, BTreeMap<ClientSelector, BTreeMap<ObjectName, usize>>>,
    /// The labels that selectors ask for, and how many selectors do.
    labels: BTreeMap<String, usize>,
    pods: BTreeMap<String, Pod>,
    live: BTreeMap<ClientScope, Live>,
    /// Pods whose scope is another than was last told.
    moved: BTreeSet<String>,
    /// Selectors or pods changed since scopes were last given.
    changed: bool,
}

#[derive(Debug)]
struct Pod {
    client: Client,
    scope: ClientScope,
}

#[derive(Debug)]
struct Live {
    scope: Scope,
    pods: usize,
}

impl Scope {
    /// Whether a selector matches its pods.
    pub(super) fn contains(&self, selector: &ClientSelector) -> bool {
        selector.matches(&self.namespace, &self.labels)
    }

    /// Its id before others that have it by chance: the same on every node, and after a restart.
    fn id(&self) -> u32 {
        // FNV-1a.
        let mut hash: u32 = 0x811c_9dc5;
        for byte in self.to_string().bytes() {
            hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        }
        hash
    }
}

/// For people, for example `namespace=team-a, app=web`.
impl std::fmt::Display for Scope {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "namespace={}", self.namespace)?;
        for (key, value) in &self.labels {
            write!(f, ", {key}={value}")?;
        }
        Ok(())
    }
}

impl Scopes {
    /// Takes note of the claims of an object in place of those that it had.
    pub(super) fn replace_claims(&mut self, old: &[Claim], new: &[Claim]) {
        // New ones first, so that what both ask for is not forgotten in between.
        for (root, selector) in selectors(new) {
            self.add(root, selector);
        }
        for (root, selector) in selectors(old) {
            self.remove(root, selector);
        }
    }

    fn add(&mut self, root: &ObjectName, selector: &ClientSelector) {
        let mut is_new = false;
        for namespace in namespaces(selector) {
            let of_namespace = self.selectors.entry(namespace).or_default();
            let roots = of_namespace.entry(selector.clone()).or_default();
            is_new |= roots.is_empty();
            *roots.entry(root.clone()).or_default() += 1;
        }
        if is_new {
            for label in selector.labels.keys() {
                *self.labels.entry(label.clone()).or_default() += 1;
            }
            self.changed = true;
        }
    }

    fn remove(&mut self, root: &ObjectName, selector: &ClientSelector) {
        let mut is_gone = false;
        for namespace in namespaces(selector) {
            let Some(of_namespace) = self.selectors.get_mut(&namespace) else {
                continue;
            };
            if let Some(roots) = of_namespace.get_mut(selector) {
                count_down(roots, root);
                if roots.is_empty() {
                    of_namespace.remove(selector);
                    is_gone = true;
                }
            }
            if of_namespace.is_empty() {
                self.selectors.remove(&namespace);
            }
        }
        if is_gone {
            for label in selector.labels.keys() {
                count_down(&mut self.labels, label);
            }
            self.changed = true;
        }
    }

    /// A pod runs on this node, or changed.
    pub(super) fn put(&mut self, uid: String, client: Client) {
        match self.pods.get_mut(&uid) {
            Some(pod) if pod.client == client => return,
            Some(pod) => pod.client = client,
            None => {
                self.moved.insert(uid.clone());
                let scope = ClientScope::EVERYONE;
                self.pods.insert(uid, Pod { client, scope });
            }
        }
        self.changed = true;
    }

    /// A pod is gone.
    pub(super) fn take(&mut self, uid: &str) {
        self.moved.remove(uid);
        if let Some(pod) = self.pods.remove(uid) {
            self.leave(pod.scope);
        }
    }

    /// Gives each pod its scope; the roots for which scopes are new.
    pub(super) fn assign(&mut self) -> BTreeSet<ObjectName> {
        let mut roots = BTreeSet::new();
        if !std::mem::take(&mut self.changed) {
            return roots;
        }
        let mut pods = std::mem::take(&mut self.pods);
        for (uid, pod) in &mut pods {
            let scope = self.scope_of(&pod.client);
            let id = match scope {
                Some(scope) => self.enter(scope, &mut roots),
                None => ClientScope::EVERYONE,
            };
            let old = std::mem::replace(&mut pod.scope, id);
            self.leave(old);
            if old != id {
                self.moved.insert(uid.clone());
            }
        }
        self.pods = pods;
        roots
    }

    /// The pods whose scope is another than was last told, with it.
    pub(super) fn take_moved(&mut self) -> BTreeMap<String, ClientScope> {
        let moved = std::mem::take(&mut self.moved).into_iter();
        moved
            .filter_map(|uid| {
                let scope = self.pods.get(&uid)?.scope;
                Some((uid, scope))
            })
            .collect()
    }

    /// Forgets the scopes without pods; the roots that have entries for them.
    pub(super) fn retire(&mut self) -> BTreeSet<ObjectName> {
        let unused = self.live.iter().filter(|(_, live)| live.pods == 0);
        let unused: Vec<ClientScope> = unused.map(|(id, _)| *id).collect();
        let mut roots = BTreeSet::new();
        for id in unused {
            if let Some(live) = self.live.remove(&id) {
                roots.extend(self.roots_of(&live.scope).cloned());
            }
        }
        roots
    }

    /// Every scope.
    pub(super) fn all(&self) -> impl Iterator<Item = (ClientScope, &Scope)> {
        self.live.iter().map(|(id, live)| (*id, &live.scope))
    }

    /// A scope by its id.
    pub(super) fn get(&self, id: ClientScope) -> Option<&Scope> {
        self.live.get(&id).map(|live| &live.scope)
    }

    /// The scopes that any of these selectors matches.
    pub(super) fn with_any_of<'a>(
        &'a self,
        selectors: impl Iterator<Item = &'a ClientSelector>,
    ) -> impl Iterator<Item = (ClientScope, &'a Scope)> {
        let selectors: Vec<_> = selectors.collect();
        let live = self.live.iter().map(|(id, live)| (*id, &live.scope));
        live.filter(move |(_, scope)| selectors.iter().any(|selector| scope.contains(selector)))
    }

    /// The scope of a pod; `None` if no selector matches it.
    fn scope_of(&self, client: &Client) -> Option<Scope> {
        let labels = client.labels.iter();
        let scope = Scope {
            namespace: client.namespace.clone(),
            labels: labels
                .filter(|(label, _)| self.labels.contains_key(*label))
                .map(|(label, value)| (label.clone(), value.clone()))
                .collect(),
        };
        let is_asked_for = self.roots_of(&scope).next().is_some();
        is_asked_for.then_some(scope)
    }

    /// The roots of the claims that are about a scope.
    fn roots_of<'a>(&'a self, scope: &'a Scope) -> impl Iterator<Item = &'a ObjectName> {
        let of_namespace = self.selectors.get(&Some(scope.namespace.clone()));
        let of_any = self.selectors.get(&None);
        of_namespace
            .into_iter()
            .chain(of_any)
            .flatten()
            .filter(|(selector, _)| scope.contains(selector))
            .flat_map(|(_, roots)| roots.keys())
    }

    fn enter(&mut self, scope: Scope, roots: &mut BTreeSet<ObjectName>) -> ClientScope {
        let mut id = ClientScope(scope.id());
        loop {
            match self.live.get_mut(&id) {
                _ if matches!(id, ClientScope::EVERYONE | ClientScope::NEVER_SPLIT) => {}
                Some(live) if live.scope == scope => {
                    live.pods += 1;
                    return id;
                }
                Some(_) => {}
                None => {
                    roots.extend(self.roots_of(&scope).cloned());
                    self.live.insert(id, Live { scope, pods: 1 });
                    return id;
                }
            }
            id.0 = id.0.wrapping_add(1);
        }
    }

    fn leave(&mut self, id: ClientScope) {
        if let Some(live) = self.live.get_mut(&id) {
            live.pods -= 1;
        }
    }
}

/// What claims ask for, with their roots.
fn selectors(claims: &[Claim]) -> impl Iterator<Item = (&ObjectName, &ClientSelector)> {
    claims
        .iter()
        .filter_map(|claim| Some((&claim.root, claim.clients.selector()?)))
}

/// Under which keys a selector is kept.
fn namespaces(selector: &ClientSelector) -> Vec<Option<String>> {
    match &selector.namespaces {
        None => vec![None],
        Some(namespaces) => namespaces.iter().cloned().map(Some).collect(),
    }
}

fn count_down<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

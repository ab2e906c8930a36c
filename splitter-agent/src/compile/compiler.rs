//! The compiler: keeps what is known and what it comes to, and recompiles only the roots
//! that a change concerns.
//!
//! What a root comes to depends on the claims on it, on the Services and EndpointSlices that
//! they name, and on which other roots share a frontend with it (two Services with one
//! address: no API server allows that, a directory of manifests may have it). Everything
//! else is left as it is, so that a change costs the same among ten thousand splits as
//! among ten.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::diagnostics::{Diagnostic, Report};
use super::few::Few;
use super::knowledge::Knowledge;
use super::resolve::{self, Resolved, Taker, Waiting};
use super::split::Claim;
use super::store::{Concern, Store};
use super::{Settings, owners, smi};
use crate::objects::{Identity, Object, ObjectKind, ObjectName, ObjectReference, TrafficSplit};
use crate::plan::{Frontend, FrontendPlan, Origin, Plan};

/// Compiles objects to a plan, change by change. The same objects come to the same plan and
/// the same diagnostics, in whatever order and however often they were told.
#[derive(Debug)]
pub struct Compiler {
    settings: Settings,
    pub(super) store: Store,
    /// Every object that asks for a split.
    pub(super) askers: BTreeMap<ObjectName, Asker>,
    roots: HashMap<ObjectName, Root>,
    /// The roots whose claims name a Service, themselves included.
    users: HashMap<ObjectName, Few<ObjectName>>,
    /// Who wants a frontend; the first of them has it.
    wanted: BTreeMap<Frontend, Few<Arc<Want>>>,
    pub(super) plan: Plan,
    /// The frontends of the plan that wait for a kind of objects to be followed.
    pub(super) waiting: BTreeMap<Frontend, Waiting>,
    /// The roots that wait.
    waiting_roots: BTreeSet<ObjectName>,
    diagnostics: Diagnostics,
    /// Roots to compile.
    dirty: BTreeSet<ObjectName>,
    /// Frontends that were reserved.
    reserved: BTreeSet<Frontend>,
    /// Objects that ask for splits and may stand otherwise than before.
    touched: BTreeSet<ObjectReference>,
}

/// What changed since the last [`Compiler::compile`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Frontends that are planned otherwise than before, or not any more.
    pub frontends: BTreeSet<Frontend>,
    /// Objects that changed, or of which something else is said than before.
    pub objects: BTreeSet<ObjectReference>,
}

/// An object that asks for a split.
#[derive(Debug)]
pub(super) struct Asker {
    object: TrafficSplit,
    /// What it asks for; `None` if not even its root is known.
    pub(super) claim: Option<Claim>,
    /// What its translation said.
    said: Said,
}

/// A root that some claim is about.
#[derive(Debug, Default)]
struct Root {
    /// The objects with claims on it.
    askers: Few<ObjectName>,
    /// The Services that their claims name, itself included.
    uses: Few<ObjectName>,
    /// The frontends that its claims want.
    wants: Vec<(Arc<Want>, Few<Frontend>)>,
    /// The frontends that it has.
    has: Few<Frontend>,
    /// What was said about it and its objects.
    said: Said,
}

/// A wish for a frontend; the least one is granted: no refused claim stands in the way of
/// one that asks for a split.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Want {
    is_refused: bool,
    origin: Origin,
    root: ObjectName,
}

/// What one of those who say something says; kept once for whoever says it and for
/// [`Diagnostics`].
type Said = Few<Arc<Diagnostic>>;

/// What is said of each object, and by how many.
type Diagnostics = BTreeMap<ObjectReference, BTreeMap<Arc<Diagnostic>, usize>>;

impl Compiler {
    /// A compiler that was told of no object yet. As long as [`Self::know`] does not say
    /// otherwise, what it is not told of does not exist.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            store: Store::new(settings.node_name.clone(), settings.zone.clone()),
            settings,
            askers: BTreeMap::new(),
            roots: HashMap::new(),
            users: HashMap::new(),
            wanted: BTreeMap::new(),
            plan: Plan::default(),
            waiting: BTreeMap::new(),
            waiting_roots: BTreeSet::new(),
            diagnostics: Diagnostics::new(),
            dirty: BTreeSet::new(),
            reserved: BTreeSet::new(),
            touched: BTreeSet::new(),
        }
    }

    /// From now on this much is known of a kind of objects.
    ///
    /// When a kind is no longer followed, what was compiled before stands: it is decided anew
    /// when an object changes that has to do with it.
    pub fn know(&mut self, kind: ObjectKind, knowledge: Knowledge) {
        let before = self.store.know(kind, knowledge);
        if knowledge > before {
            self.dirty.extend(self.waiting_roots.iter().cloned());
        }
    }

    /// An object is there, or is another than before.
    pub fn put(&mut self, object: Object) {
        let reference = object.reference();
        let mut concerns = self.store.accept(&reference);
        match object {
            Object::Service(service) => concerns.extend(self.store.put_service(service)),
            Object::EndpointSlice(slice) => concerns.extend(self.store.put_slice(slice)),
            Object::Node(node) => concerns.extend(self.store.put_node(node)),
            Object::TrafficSplit(split) => self.ask(split),
        }
        self.concern(concerns);
    }

    /// An object is gone.
    pub fn remove(&mut self, object: &ObjectReference) {
        let concerns = self.store.remove(object);
        self.concern(concerns);
        if object.kind == smi::KIND {
            self.unask(&object.name);
        }
    }

    /// An object is there but cannot be read: whoever refers to it is told that, not that it is
    /// missing.
    pub fn refuse(&mut self, object: ObjectReference) {
        if object.kind == smi::KIND {
            self.unask(&object.name);
        }
        let concerns = self.store.refuse(object);
        self.concern(concerns);
    }

    /// Plans a frontend that no object asks for, and that none can take.
    pub fn reserve(&mut self, frontend: Frontend, split: FrontendPlan) {
        let want = Want {
            is_refused: false,
            origin: split.origin.clone(),
            root: ObjectName::new(&*split.origin.namespace, &*split.root),
        };
        self.dirty
            .extend(self.rivals(&frontend).collect::<Vec<_>>());
        let wants = self.wanted.entry(frontend).or_default();
        wants.insert(Arc::new(want));
        self.plan.frontends.insert(frontend, split);
        self.reserved.insert(frontend);
    }

    /// What everything comes to, as of the last [`Self::compile`].
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What is said of an object, as of the last [`Self::compile`].
    pub fn diagnostics(&self, object: &ObjectReference) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics
            .get(object)
            .into_iter()
            .flat_map(BTreeMap::keys)
            .map(Arc::as_ref)
    }

    /// What is said of every object, sorted.
    pub(super) fn all_diagnostics(&self) -> impl Iterator<Item = &Diagnostic> {
        let said = self.diagnostics.values().flat_map(BTreeMap::keys);
        said.map(Arc::as_ref)
    }

    /// The TrafficSplit of a name.
    #[must_use]
    pub fn traffic_split(&self, name: &ObjectName) -> Option<&TrafficSplit> {
        self.askers.get(name).map(|asker| &asker.object)
    }

    /// Which state of which object a finding is about; `None` if it is not known, or has no
    /// identity.
    #[must_use]
    pub fn identity(&self, object: &ObjectReference) -> Option<Identity> {
        match object.kind.as_str() {
            smi::KIND => self.traffic_split(&object.name).map(|split| Identity {
                api_version: split.api_version.clone(),
                uid: split.uid.clone(),
                generation: split.generation,
            }),
            "EndpointSlice" => self.store.slice(&object.name).map(|slice| Identity {
                api_version: "discovery.k8s.io/v1".to_owned(),
                uid: slice.uid.to_string(),
                generation: 0,
            }),
            _ => None,
        }
    }

    /// Brings plan and diagnostics to what is known, and tells what that changed.
    pub fn compile(&mut self) -> Delta {
        let mut dirty = std::mem::take(&mut self.dirty);
        let mut disputed = BTreeSet::new();
        for root in &dirty {
            for frontend in self.stake(root) {
                disputed.extend(self.rivals(&frontend));
            }
        }
        dirty.extend(disputed);

        let mut before = Resolved::default();
        let mut after = Resolved::default();
        for name in &dirty {
            let (resolved, said) = self.resolve(name);
            let Some(root) = self.roots.get_mut(name) else {
                self.waiting_roots.remove(name);
                continue;
            };
            for frontend in &root.has {
                if let Some(split) = self.plan.frontends.remove(frontend) {
                    before.frontends.insert(*frontend, split);
                }
                if let Some(waiting) = self.waiting.remove(frontend) {
                    before.waiting.insert(*frontend, waiting);
                }
            }
            root.has = resolved.frontends.keys().copied().collect();
            if resolved.waits_for.is_empty() {
                self.waiting_roots.remove(name);
            } else {
                self.waiting_roots.insert(name.clone());
            }
            after.frontends.extend(resolved.frontends);
            after.waiting.extend(resolved.waiting);
            let unsaid = std::mem::replace(&mut root.said, said);
            say(
                &mut self.diagnostics,
                &mut self.touched,
                &root.said,
                &unsaid,
            );
            if root.askers.is_empty() {
                self.roots.remove(name);
            }
        }
        let is_other = |frontend: &&Frontend| {
            before.frontends.get(frontend) != after.frontends.get(frontend)
                || before.waiting.get(frontend) != after.waiting.get(frontend)
        };
        let all = before.frontends.keys().chain(after.frontends.keys());
        let mut frontends: BTreeSet<Frontend> = all.filter(is_other).copied().collect();
        frontends.append(&mut self.reserved);
        self.plan.frontends.extend(after.frontends);
        self.waiting.extend(after.waiting);
        Delta {
            frontends,
            objects: std::mem::take(&mut self.touched),
        }
    }

    /// Takes note of an object that asks for a split.
    fn ask(&mut self, object: TrafficSplit) {
        let name = object.name.clone();
        if self
            .askers
            .get(&name)
            .is_some_and(|old| old.object == object)
        {
            return;
        }
        let mut report = Report::default();
        let claim = smi::claim(&object, &self.settings.cluster_domain, &mut report);
        if claim.is_none() {
            report.accept(&smi::origin(&object));
        }
        let asker = Asker {
            object,
            claim,
            said: report.into_diagnostics(),
        };
        self.replace_asker(&name, Some(asker));
    }

    fn unask(&mut self, name: &ObjectName) {
        self.replace_asker(name, None);
    }

    fn replace_asker(&mut self, name: &ObjectName, asker: Option<Asker>) {
        let none = Said::default();
        let root_of = |asker: &Option<Asker>| Some(asker.as_ref()?.claim.as_ref()?.root.clone());
        let new_root = root_of(&asker);
        let is_there = asker.is_some();
        let old = match asker {
            Some(asker) => self.askers.insert(name.clone(), asker),
            None => self.askers.remove(name),
        };
        if old.is_none() && !is_there {
            return;
        }
        self.touched.insert(ObjectReference {
            kind: smi::KIND.to_owned(),
            name: name.clone(),
        });
        say(
            &mut self.diagnostics,
            &mut self.touched,
            self.askers.get(name).map_or(&none, |asker| &asker.said),
            old.as_ref().map_or(&none, |asker| &asker.said),
        );
        if let Some(root) = root_of(&old) {
            if let Some(entry) = self.roots.get_mut(&root) {
                entry.askers.remove(name);
            }
            self.update_uses(&root);
            self.dirty.insert(root);
        }
        if let Some(root) = new_root {
            let entry = self.roots.entry(root.clone()).or_default();
            entry.askers.insert(name.clone());
            self.update_uses(&root);
            self.dirty.insert(root);
        }
    }

    /// Notes which Services the claims on a root name.
    fn update_uses(&mut self, name: &ObjectName) {
        let Some(root) = self.roots.get_mut(name) else {
            return;
        };
        let itself = (!root.askers.is_empty()).then(|| name.clone());
        let splits = claims(&self.askers, &root.askers).filter_map(|claim| claim.split.as_ref());
        let leaves = splits.flat_map(|split| &split.leaves);
        let leaves = leaves.filter_map(|leaf| leaf.service.clone());
        let uses = itself.into_iter().chain(leaves).collect();
        let old = std::mem::replace(&mut root.uses, uses);
        for service in root.uses.difference(&old) {
            let users = self.users.entry(service.clone()).or_default();
            users.insert(name.clone());
        }
        for service in old.difference(&root.uses) {
            if let Some(users) = self.users.get_mut(service) {
                users.remove(name);
                if users.is_empty() {
                    self.users.remove(service);
                }
            }
        }
    }

    fn concern(&mut self, concerns: Vec<Concern>) {
        for concern in concerns {
            match concern {
                Concern::Service(service) => {
                    self.dirty
                        .extend(self.users.get(&service).into_iter().flatten().cloned());
                }
                Concern::Namespace(namespace) => {
                    let roots = self.roots.keys();
                    self.dirty
                        .extend(roots.filter(|root| root.namespace == namespace).cloned());
                }
                Concern::Everything => self.dirty.extend(self.roots.keys().cloned()),
            }
        }
    }

    /// Notes which frontends a root wants now; gives back those of which somebody else may
    /// now have another opinion.
    fn stake(&mut self, name: &ObjectName) -> BTreeSet<Frontend> {
        let Some(root) = self.roots.get(name) else {
            return BTreeSet::new();
        };
        let mut ranked: Vec<&Claim> = claims(&self.askers, &root.askers).collect();
        resolve::rank(&mut ranked);
        let wants: Vec<_> = owners::stakes(&self.store, name, &ranked)
            .into_iter()
            .map(|(owner, frontends)| {
                let want = Want {
                    is_refused: owner.split.is_none(),
                    origin: owner.origin.clone(),
                    root: name.clone(),
                };
                (Arc::new(want), frontends)
            })
            .collect();
        if wants == root.wants {
            return BTreeSet::new();
        }
        let mut touched = BTreeSet::new();
        for (want, frontends) in &root.wants {
            for frontend in frontends {
                if let Some(wants) = self.wanted.get_mut(frontend) {
                    wants.remove(want);
                    if wants.is_empty() {
                        self.wanted.remove(frontend);
                    }
                }
                touched.insert(*frontend);
            }
        }
        for (want, frontends) in &wants {
            for frontend in frontends {
                self.wanted
                    .entry(*frontend)
                    .or_default()
                    .insert(Arc::clone(want));
                touched.insert(*frontend);
            }
        }
        if let Some(root) = self.roots.get_mut(name) {
            root.wants = wants;
        }
        touched
    }

    /// The roots that want a frontend.
    fn rivals(&self, frontend: &Frontend) -> impl Iterator<Item = ObjectName> {
        let wants = self.wanted.get(frontend).into_iter().flatten();
        wants.map(|want| want.root.clone())
    }

    /// What a root comes to.
    fn resolve(&self, name: &ObjectName) -> (Resolved, Said) {
        let Some(root) = self.roots.get(name) else {
            return Default::default();
        };
        let mut ranked: Vec<&Claim> = claims(&self.askers, &root.askers).collect();
        resolve::rank(&mut ranked);
        let taken = |frontend: &Frontend| {
            let first = self.wanted.get(frontend)?.first()?;
            (first.root != *name).then_some(Taker {
                origin: &first.origin,
                root: &first.root,
            })
        };
        let mut report = Report::default();
        let resolved = resolve::resolve(&self.store, name, &ranked, taken, &mut report);
        for asker in root.askers.iter().filter_map(|name| self.askers.get(name)) {
            // Of the others something was said when they were translated.
            if let Some(claim) = asker.claim.as_ref().filter(|_| asker.said.is_empty()) {
                report.accept(&claim.origin);
            }
        }
        (resolved, report.into_diagnostics())
    }
}

/// The claims of some objects.
fn claims<'a>(
    askers: &'a BTreeMap<ObjectName, Asker>,
    names: &'a Few<ObjectName>,
) -> impl Iterator<Item = &'a Claim> {
    names
        .iter()
        .filter_map(|name| askers.get(name)?.claim.as_ref())
}

/// Replaces what one of those who say something says; notes the objects of which something
/// else is said then.
fn say(
    diagnostics: &mut Diagnostics,
    touched: &mut BTreeSet<ObjectReference>,
    said: &Said,
    unsaid: &Said,
) {
    for diagnostic in said.difference(unsaid) {
        let of_object = diagnostics.entry(diagnostic.object.clone()).or_default();
        let count = of_object.entry(Arc::clone(diagnostic)).or_default();
        *count += 1;
        if *count == 1 {
            touched.insert(diagnostic.object.clone());
        }
    }
    for diagnostic in unsaid.difference(said) {
        let Some(of_object) = diagnostics.get_mut(&diagnostic.object) else {
            continue;
        };
        let Some(count) = of_object.get_mut(diagnostic) else {
            continue;
        };
        *count -= 1;
        if *count == 0 {
            of_object.remove(diagnostic);
            touched.insert(diagnostic.object.clone());
        }
        if of_object.is_empty() {
            diagnostics.remove(&diagnostic.object);
        }
    }
}

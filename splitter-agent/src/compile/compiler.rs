//! The compiler: keeps what is known and what it comes to, and recompiles only the roots
//! that a change affects.
//!
//! What a root comes to depends on the claims on it, on the Services and EndpointSlices that
//! they name, and on which other roots share a frontend with it (two Services with one
//! address: no API server allows that, a directory of manifests may have it). Everything
//! else is left as it is, so that a change costs the same among ten thousand splits as
//! among ten.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use splitter_common::layout::ClientScope;

use super::Settings;
use super::conflict::{self, FrontendClaims};
use super::delegates::{Delegates, Known};
use super::diagnostics::{Diagnostic, Diagnostics, Severity};
use super::index::{Index, Routes};
use super::knowledge::Knowledge;
use super::ledger::{Emitted, Ledger};
use super::resolve::{self, Resolved, Waiting};
use super::scopes::{Client, Scope, Scopes};
use super::sorted_vec_set::SortedVecSet;
use super::store::Store;
use super::subsets::Subsets;
use crate::objects::{Identity, Kind, Object, ObjectName, ObjectReference};
use crate::plan::{Frontend, FrontendPlan, Plan};
use crate::reason;
use crate::route::{Claim, Context, Route, RouteObject};

/// Compiles objects to a plan, change by change. The same objects come to the same plan and
/// the same diagnostics, in whatever order and however often they were told.
#[derive(Debug)]
pub struct Compiler {
    settings: Settings,
    pub(super) store: Store,
    /// Every object that asks for splits.
    pub(super) routes: Routes,
    /// What was wrong with each of them when it was translated.
    translations: HashMap<ObjectReference, Emitted>,
    delegates: Delegates,
    index: Index,
    subsets: Subsets,
    scopes: Scopes,
    frontend_claims: FrontendClaims,
    roots: HashMap<ObjectName, Compiled>,
    pub(super) plan: Plan,
    /// The frontends of the plan that wait for a kind of objects to be followed.
    pub(super) waiting: BTreeMap<Frontend, Waiting>,
    /// The roots that wait.
    waiting_roots: BTreeSet<ObjectName>,
    ledger: Ledger,
    /// Frontends that were reserved.
    reserved: BTreeSet<Frontend>,
    /// How many times a root was compiled.
    compilations: u64,
}

/// What changed since the last [`Compiler::compile`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Frontends that are planned otherwise than before, or not any more.
    pub frontends: BTreeSet<Frontend>,
    /// Objects that changed, or of which something else is said than before.
    pub objects: BTreeSet<ObjectReference>,
    /// Pods of this node that are new or in another scope than before, by uid, with their scope.
    /// To be brought to the kernel after the frontends, since the scope may be new; then
    /// [`Compiler::retire_scopes`] may be called.
    pub clients: BTreeMap<String, ClientScope>,
}

/// What becomes known of the pods of a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodNews {
    /// All of them are told of from here on.
    ListBegins,
    /// All of them were told of since: others are gone. They are followed.
    Listed,
    /// They are followed again, without a new list.
    Followed,
    /// Changes may be missed from now on.
    Lost,
    /// Nobody asked for them any more, so that they are not followed.
    Forgotten,
}

/// What a root came to.
#[derive(Debug, Default)]
struct Compiled {
    frontends: SortedVecSet<Frontend>,
    diagnostics: Emitted,
    /// The objects that may be about other roots too, and are in force here.
    in_force: Box<[ObjectReference]>,
}

impl Compiler {
    /// A compiler that was told of no object yet. As long as [`Self::know`] does not say
    /// otherwise, what it is not told of does not exist.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            store: Store::new(
                settings.node_name.clone(),
                settings.zone.clone(),
                settings.cluster_domain.clone(),
            ),
            subsets: Subsets::default(),
            settings,
            routes: Routes::new(),
            translations: HashMap::new(),
            delegates: Delegates::default(),
            index: Index::default(),
            scopes: Scopes::default(),
            frontend_claims: FrontendClaims::default(),
            roots: HashMap::new(),
            plan: Plan::default(),
            waiting: BTreeMap::new(),
            waiting_roots: BTreeSet::new(),
            ledger: Ledger::default(),
            reserved: BTreeSet::new(),
            compilations: 0,
        }
    }

    /// From now on this much is known of a kind of objects.
    ///
    /// When a kind is no longer followed, what was compiled before stands: it is decided anew
    /// when an object changes that has to do with it.
    pub fn know(&mut self, kind: Kind, knowledge: Knowledge) {
        let before = self.store.know(kind, knowledge);
        if knowledge > before {
            self.index.mark(self.waiting_roots.iter().cloned());
            self.translate_all(self.delegates.of_kind(kind));
        }
    }

    /// What becomes known of the pods of a namespace.
    pub fn follow_pods(&mut self, namespace: &str, news: PodNews) {
        let pods = &mut self.store.pods;
        match news {
            PodNews::ListBegins => pods.list_begins(namespace),
            PodNews::Listed => {
                pods.listed(namespace);
                self.know_pods(namespace, Knowledge::Followed);
            }
            PodNews::Followed => self.know_pods(namespace, Knowledge::Followed),
            PodNews::Lost => {
                if pods.knowledge(namespace) == Knowledge::Followed {
                    self.know_pods(namespace, Knowledge::Stale);
                }
            }
            PodNews::Forgotten => pods.forget(namespace),
        }
    }

    fn know_pods(&mut self, namespace: &str, knowledge: Knowledge) {
        let before = self.store.pods.know(namespace, knowledge);
        if knowledge > before {
            self.index.mark(self.waiting_roots.iter().cloned());
        }
    }

    /// The namespaces of whose pods the labels matter: a claim names a subset of a Service there.
    pub fn pod_namespaces(&self) -> impl Iterator<Item = &str> {
        self.subsets.namespaces()
    }

    /// The same, if they are others than when this was last asked.
    pub fn take_pod_namespaces(&mut self) -> Option<BTreeSet<String>> {
        self.subsets.take_namespaces()
    }

    /// How many times a root was compiled: a measure of the work that changes made.
    #[must_use]
    pub fn compilations(&self) -> u64 {
        self.compilations
    }

    /// An object was added or changed.
    pub fn apply(&mut self, object: Object) {
        let reference = object.reference();
        let mut affected = self.store.accept(&reference);
        match object {
            Object::Service(service) => affected.extend(self.store.put_service(service)),
            Object::EndpointSlice(slice) => affected.extend(self.store.put_slice(slice)),
            Object::Node(node) => affected.extend(self.store.put_node(node)),
            Object::Pod(pod) => self.store.put_pod(&pod),
            Object::DestinationRule(rule) => affected.extend(self.store.put_rule(*rule)),
            Object::ReferenceGrant(grant) => affected.extend(self.store.grants.put(grant)),
            Object::Route(object) => self.apply_route(&object),
        }
        self.index.mark_affected(affected);
    }

    /// An object is gone.
    pub fn delete(&mut self, object: &ObjectReference) {
        let affected = self.store.remove(object);
        self.index.mark_affected(affected);
        self.remove_route(object);
    }

    /// An object is there but cannot be read: whoever refers to it is told that, not that it is
    /// missing.
    pub fn refuse(&mut self, object: ObjectReference) {
        let reference = object.clone();
        let affected = self.store.refuse(object);
        self.index.mark_affected(affected);
        self.remove_route(&reference);
    }

    /// A pod runs on this node, or changed.
    pub fn put_client(&mut self, uid: String, client: Client) {
        self.scopes.put(uid, client);
    }

    /// A pod no longer runs on this node.
    pub fn remove_client(&mut self, uid: &str) {
        self.scopes.take(uid);
    }

    /// Who is in a scope of clients; `None` if there is no such scope.
    #[must_use]
    pub fn scope(&self, id: ClientScope) -> Option<&Scope> {
        self.scopes.get(id)
    }

    /// Every scope of clients.
    pub fn scopes(&self) -> impl Iterator<Item = (ClientScope, &Scope)> {
        self.scopes.all()
    }

    /// Whether any object asks for a split.
    #[must_use]
    pub fn has_routes(&self) -> bool {
        !self.routes.is_empty()
    }

    /// From now on this much is known of the pods of this node. As long as they are not followed,
    /// what is programmed for the clients of a scope stays; before all of them have been told of,
    /// what is for some clients only is told to be in force for nobody else.
    pub fn know_clients(&mut self, knowledge: Knowledge) {
        let before = std::mem::replace(&mut self.store.clients, knowledge);
        if knowledge > before {
            self.index.mark(self.waiting_roots.iter().cloned());
        }
    }

    /// How much is known of the pods of this node.
    #[must_use]
    pub fn clients_known(&self) -> Knowledge {
        self.store.clients
    }

    /// Plans nothing any more for scopes that no pod is in, as of the last [`Self::compile`]. To be
    /// called when the kernel knows the scopes of that [`Delta::clients`].
    pub fn retire_scopes(&mut self) {
        let roots = self.scopes.retire();
        self.index.mark(roots);
    }

    /// Plans a frontend that no object asks for, and that none can take.
    pub fn reserve(&mut self, frontend: Frontend, split: FrontendPlan) {
        let rivals: Vec<_> = self.frontend_claims.roots(&frontend).collect();
        self.index.mark(rivals);
        self.frontend_claims.reserve(frontend, &split);
        self.plan.frontends.insert(frontend, split);
        self.reserved.insert(frontend);
    }

    /// What everything comes to, as of the last [`Self::compile`].
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The diagnostics of an object, sorted, as of the last [`Self::compile`]: what is wrong with
    /// it, or that it is accepted.
    #[must_use]
    pub fn diagnostics(&self, object: &ObjectReference) -> Vec<Arc<Diagnostic>> {
        let mut diagnostics: Vec<_> = self.ledger.of(object).cloned().collect();
        self.soften(object, &mut diagnostics);
        let is_wrong = |diagnostic: &Arc<Diagnostic>| diagnostic.severity != Severity::Note;
        let is_ours = self.routes.get(object).is_some_and(|it| it.is_for_splitter);
        if is_ours && !diagnostics.iter().any(is_wrong) {
            let accepted = Diagnostic::accepted(object.clone());
            diagnostics.insert(0, Arc::new(accepted));
        }
        diagnostics
    }

    /// An object that is in force on one root is not inactive because it is not on another, or a part of
    /// it is for no port.
    fn soften(&self, object: &ObjectReference, diagnostics: &mut [Arc<Diagnostic>]) {
        let is_inactive = |it: &Arc<Diagnostic>| it.severity == Severity::Inactive;
        let Some(route) = self.routes.get(object) else {
            return;
        };
        if !diagnostics.iter().any(is_inactive) {
            return;
        }
        let roots: BTreeSet<&ObjectName> = route.claims.iter().map(|claim| &claim.root).collect();
        let compiled = |root: &&ObjectName| self.roots.get(*root);
        let mut compiled = roots.iter().filter_map(compiled);
        if !compiled.any(|root| root.in_force.contains(object)) {
            return;
        }
        for diagnostic in diagnostics.iter_mut().filter(|it| is_inactive(it)) {
            // Rules for the ports of one root are often none of another's.
            let is_note = roots.len() > 1 && diagnostic.reason == reason::ROOT_PORT_MISSING;
            *diagnostic = Arc::new(Diagnostic {
                severity: if is_note {
                    Severity::Note
                } else {
                    Severity::Warning
                },
                ..Diagnostic::clone(diagnostic)
            });
        }
        diagnostics.sort();
    }

    /// The diagnostics of every object, sorted.
    pub(super) fn all_diagnostics(&self) -> impl Iterator<Item = Arc<Diagnostic>> {
        let objects: BTreeSet<&ObjectReference> =
            self.routes.keys().chain(self.ledger.objects()).collect();
        objects
            .into_iter()
            .flat_map(|object| self.diagnostics(object))
    }

    /// What an object asks for; `None` if it asks for nothing, or cannot be read.
    #[must_use]
    pub fn route(&self, object: &ObjectReference) -> Option<&Route> {
        self.routes.get(object)
    }

    /// Which state of which object a diagnostic is about; `None` if it is not known, or has no
    /// identity.
    #[must_use]
    pub fn identity(&self, object: &ObjectReference) -> Option<Identity> {
        if let Some(route) = self.routes.get(object) {
            return Some(route.identity.clone());
        }
        if object.is(Kind::DESTINATION_RULE) {
            let rule = self.store.destination_rules.get(&object.name)?;
            return Some(Identity {
                api_version: rule.api_version.to_string(),
                uid: rule.uid.to_string(),
                generation: 0,
            });
        }
        if !object.is(Kind::ENDPOINT_SLICE) {
            return None;
        }
        self.store.slice(&object.name).map(|slice| Identity {
            api_version: Kind::ENDPOINT_SLICE.api_version(),
            uid: slice.uid.to_string(),
            generation: 0,
        })
    }

    /// Brings plan and diagnostics to what is known, and tells what that changed.
    pub fn compile(&mut self) -> Delta {
        let rescoped = self.scopes.assign();
        self.index.mark(rescoped);
        let pods = self.store.take_changed_pods();
        let users = self.subsets.with_any_of(pods, &self.store);
        self.index.mark_affected(users);
        let mut dirty = self.index.take_dirty();
        dirty.extend(self.conflicting_roots(&dirty));
        self.compilations += dirty.len() as u64;

        let mut before = Resolved::default();
        let mut after = Resolved::default();
        for name in &dirty {
            let (resolved, diagnostics) = self.resolve(name);
            let root = self.roots.entry(name.clone()).or_default();
            for frontend in &root.frontends {
                if let Some(split) = self.plan.frontends.remove(frontend) {
                    before.frontends.insert(*frontend, split);
                }
                if let Some(waiting) = self.waiting.remove(frontend) {
                    before.waiting.insert(*frontend, waiting);
                }
            }
            if resolved.waits_for.is_empty() {
                self.waiting_roots.remove(name);
            } else {
                self.waiting_roots.insert(name.clone());
            }
            let new = Compiled {
                frontends: resolved.frontends.keys().copied().collect(),
                diagnostics,
                in_force: resolved.in_force.into_iter().collect(),
            };
            let old = std::mem::replace(root, new);
            self.ledger.replace(&old.diagnostics, &root.diagnostics);
            // What is said of such an object because of its other roots may depend on that.
            let changed = old.in_force.iter().filter(|it| !root.in_force.contains(it));
            let changed =
                changed.chain(root.in_force.iter().filter(|it| !old.in_force.contains(it)));
            for object in changed {
                if self
                    .ledger
                    .of(object)
                    .any(|it| it.severity == Severity::Inactive)
                {
                    self.ledger.touch(object.clone());
                }
            }
            if root.frontends.is_empty() && root.diagnostics.is_empty() && root.in_force.is_empty()
            {
                self.roots.remove(name);
            }
            self.index.forget_unclaimed(name);
            after.frontends.extend(resolved.frontends);
            after.waiting.extend(resolved.waiting);
        }
        let differs = |frontend: &&Frontend| {
            before.frontends.get(frontend) != after.frontends.get(frontend)
                || before.waiting.get(frontend) != after.waiting.get(frontend)
        };
        let all = before.frontends.keys().chain(after.frontends.keys());
        let mut frontends: BTreeSet<Frontend> = all.filter(differs).copied().collect();
        frontends.append(&mut self.reserved);
        self.plan.frontends.extend(after.frontends);
        self.waiting.extend(after.waiting);
        Delta {
            frontends,
            objects: self.ledger.take_touched(),
            clients: self.scopes.take_moved(),
        }
    }

    fn apply_route(&mut self, object: &RouteObject) {
        let others = self.delegates.replace(&object.reference(), Some(object));
        self.translate(object);
        self.translate_all(others);
    }

    fn remove_route(&mut self, object: &ObjectReference) {
        let others = self.delegates.replace(object, None);
        self.replace_route(object, None);
        self.translate_all(others);
    }

    /// Translates delegates, and objects that name some, again.
    fn translate_all(&mut self, objects: BTreeSet<ObjectReference>) {
        for object in objects {
            if let Some(object) = self.delegates.get(&object).cloned() {
                self.translate(&object);
            }
        }
    }

    fn translate(&mut self, object: &RouteObject) {
        let others = Known {
            delegates: &self.delegates,
            routes: &self.routes,
            store: &self.store,
        };
        let context = Context {
            cluster_domain: &self.settings.cluster_domain,
            requires_grants: self.settings.requires_grants,
            others: &others,
        };
        let mut diagnostics = Diagnostics::default();
        let route = Route::translate(object, context, &mut diagnostics);
        let reference = route.object.clone();
        self.replace_route(&reference, Some((route, diagnostics.into_set())));
    }

    /// Puts a route in place of the one that the object had, if it is another.
    fn replace_route(&mut self, object: &ObjectReference, new: Option<(Route, Emitted)>) {
        let (new, diagnostics) = match new {
            Some((route, diagnostics)) => (Some(route), diagnostics),
            None => (None, Emitted::default()),
        };
        let none = Emitted::default();
        let old_diagnostics = self.translations.get(object).unwrap_or(&none);
        if self.routes.get(object) == new.as_ref() && *old_diagnostics == diagnostics {
            return;
        }
        self.ledger.touch(object.clone());
        self.ledger.replace(old_diagnostics, &diagnostics);
        if diagnostics.is_empty() {
            self.translations.remove(object);
        } else {
            self.translations.insert(object.clone(), diagnostics);
        }
        let old = match new {
            Some(route) => self.routes.insert(object.clone(), route),
            None => self.routes.remove(object),
        };
        let old = old.map(|route| route.claims).unwrap_or_default();
        let new = self.routes.get(object).map(|route| route.claims.as_slice());
        let new = new.unwrap_or_default();
        self.index.replace(object, &old, new);
        self.scopes.replace_claims(&old, new);
        self.subsets.replace_claims(&old, new);
    }

    /// Brings the frontends that these roots claim to what is known; the roots that claim any of
    /// those that changed hands, or may have.
    fn conflicting_roots(&mut self, roots: &BTreeSet<ObjectName>) -> BTreeSet<ObjectName> {
        let mut conflicting = BTreeSet::new();
        for root in roots {
            let claims = self.ranked_claims(root).unwrap_or_default();
            let claimed = conflict::claimed_frontends(&self.store, &self.scopes, root, &claims);
            for frontend in self.frontend_claims.update(root, claimed) {
                conflicting.extend(self.frontend_claims.roots(&frontend));
            }
        }
        conflicting
    }

    fn ranked_claims(&self, root: &ObjectName) -> Option<Vec<&Claim>> {
        let mut claims = self.index.claims(root, &self.routes)?;
        conflict::rank(&mut claims);
        Some(claims)
    }

    fn resolve(&self, root: &ObjectName) -> (Resolved, Emitted) {
        let Some(claims) = self.ranked_claims(root) else {
            return Default::default();
        };
        let winner = |frontend: &Frontend| self.frontend_claims.other_winner(frontend, root);
        let mut diagnostics = Diagnostics::default();
        let (store, scopes) = (&self.store, &self.scopes);
        let resolved = resolve::resolve(store, scopes, root, &claims, winner, &mut diagnostics);
        (resolved, diagnostics.into_set())
    }
}

//! The agent: takes changes from a source, has them compiled, publishes what they come to, keeps
//! the programs attached, and says what changed, once.

mod attachment;
mod clients;
mod failures;
mod findings;
mod held;
mod log;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Instant;

use splitter_common::layout::ClientScope;

use crate::causes::with_causes;
use crate::compile::{Compiler, Delta, Knowledge, PodNews, Settings};
use crate::datapath::{LoadError, PinDirectory, PodGroup, Programs, PublishSummary, Publisher};
use crate::objects::{Kind, ObjectReference, Purpose};
use crate::plan::{Frontend, FrontendPlan, Plan};
use crate::report::{AgentState, DiagnosticStore, Programmed};
use crate::source::Change;

pub use self::attachment::Attachment;
use self::clients::Clients;
use self::failures::{Failures, Retry};
use self::findings::Findings;
use self::held::{Held, HeldFrontend};

/// How much of what exists the source has told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Completeness {
    /// Perhaps not everything.
    Partial,
    /// Everything.
    Complete,
}

/// The owner of the maps and the programs.
pub struct Agent {
    compiler: Compiler,
    publisher: Publisher,
    programs: Programs,
    pins: PinDirectory,
    attachment: Attachment,
    findings: Findings,
    clients: Clients,
    state: AgentState,
    /// How much the source has told; `None` as long as nothing may be published.
    completeness: Option<Completeness>,
    /// Whether everything that is planned has been published at least once, so that only
    /// what changes need be.
    is_full: bool,
    /// Whether more is known of some kind of objects than when frontends were last held back.
    knows_more: bool,
    held: Held,
    /// What could not be published.
    failures: Failures,
    /// When that is tried again.
    retry: Retry,
    /// Whether the maps are filled, so that the programs may be at work.
    is_attached: bool,
    /// Whether maps of other layouts are gone.
    is_pruned: bool,
}

impl Agent {
    /// An agent that has not done anything yet. The programs are loaded and use the maps
    /// that the publisher owns. It tells the diagnostics what it finds about objects, and the
    /// state what it is doing.
    #[must_use]
    pub fn new(
        publisher: Publisher,
        programs: Programs,
        pins: PinDirectory,
        attachment: Attachment,
        settings: Settings,
        diagnostics: DiagnosticStore,
        state: AgentState,
    ) -> Self {
        let mut compiler = Compiler::new(settings);
        for kind in Kind::followed() {
            compiler.know(kind, Knowledge::Incomplete);
            state.set_knowledge(kind, Knowledge::Incomplete);
        }
        compiler.know_clients(Knowledge::Incomplete);
        for kind in Kind::known().filter(|kind| kind.purpose == Purpose::OnDemand) {
            compiler.know(kind, Knowledge::Incomplete);
        }
        Self {
            compiler,
            publisher,
            programs,
            pins,
            attachment,
            findings: Findings::new(diagnostics),
            clients: Clients::default(),
            state,
            completeness: None,
            is_full: false,
            knows_more: false,
            held: Held::default(),
            failures: Failures::default(),
            retry: Retry::new(Instant::now()),
            is_attached: false,
            is_pruned: false,
        }
    }

    /// Publishes a frontend of the agent's own along with every plan.
    pub fn reserve(&mut self, frontend: Frontend, split: FrontendPlan) {
        self.compiler.reserve(frontend, split);
    }

    /// Brings the maps to what the source says, and puts the programs to work. What cannot
    /// be published is logged, and tried again by [`Self::watch`].
    ///
    /// # Errors
    ///
    /// If the pin directory cannot be read.
    pub fn apply(&mut self, changes: Vec<Change>) -> Result<(), LoadError> {
        let start = Instant::now();
        self.state.queue(changes.len());
        for change in changes {
            self.take(change);
        }
        let Some(completeness) = self.completeness else {
            // Before anything may be published, the objects of a large cluster arrive in tens of
            // thousands of parts, and what they come to changes with each.
            return Ok(());
        };
        let mut delta = self.compiler.compile();
        if self.is_full {
            delta.frontends.extend(self.held_anew(&delta));
        } else {
            // What failed before is tried again with everything else.
            delta.frontends = self.everything();
            self.is_full = true;
        }
        self.publish_delta(delta, start);
        self.attach_when_filled(completeness)
    }

    /// Brings the maps to what changed: first the splits of every scope of clients, then which pod is
    /// in which scope, and only then are the scopes that no pod is in any more given up.
    fn publish_delta(&mut self, mut delta: Delta, start: Instant) {
        // Scopes from before a restart go by themselves, once the node's pods are known.
        let plan = &self.compiler.plan().frontends;
        let is_given_up = |frontend: &Frontend| {
            frontend.clients != ClientScope::EVERYONE && !plan.contains_key(frontend)
        };
        let (mut given_up, kept): (BTreeSet<Frontend>, BTreeSet<Frontend>) =
            delta.frontends.iter().partition(|it| is_given_up(it));
        let mut summary = self.publish(&kept);
        self.clients.set_scopes(std::mem::take(&mut delta.clients));
        self.clients.publish(&mut self.publisher);
        self.compiler.retire_scopes();
        let retired = self.compiler.compile();
        delta.frontends.extend(retired.frontends.iter().copied());
        given_up.extend(retired.frontends);
        if !given_up.is_empty() {
            summary.append(self.publish(&given_up));
        }
        delta.objects.extend(retired.objects);
        self.name_scopes();
        self.conclude(&summary, &delta, start);
    }

    /// Writes who is in each scope of clients to the maps, for people.
    fn name_scopes(&mut self) {
        let names = self.compiler.scopes();
        let names = names.map(|(id, scope)| (id, scope.to_string())).collect();
        if let Err(error) = self.publisher.name_scopes(&names) {
            let error = with_causes(&error);
            tracing::warn!(
                error,
                "cannot write the names of clients' scopes to the maps"
            );
        }
    }

    /// The cgroups right below which this node's pods are, as they are seen here.
    #[must_use]
    pub fn holders_of_pods(&self) -> BTreeSet<PathBuf> {
        self.attachment.holders_of_pods()
    }

    /// These pods have cgroups on the node.
    pub fn set_pod_groups(&mut self, groups: BTreeMap<PodGroup, String>) {
        self.clients.set_groups(groups);
        if self.completeness.is_some() {
            self.clients.publish(&mut self.publisher);
        }
    }

    /// Whether it matters who connects, so that the source shall tell of this node's pods.
    #[must_use]
    pub fn wants_node_pods(&self) -> bool {
        self.compiler.has_routes()
    }

    /// The namespaces of whose pods the labels matter, if they are others than when this was last
    /// asked.
    pub fn take_pod_namespaces(&mut self) -> Option<BTreeSet<String>> {
        self.compiler.take_pod_namespaces()
    }

    /// Every frontend that is planned or programmed.
    fn everything(&self) -> BTreeSet<Frontend> {
        let planned = self.compiler.plan().frontends.keys();
        let programmed = self.publisher.programmed().map(|(frontend, _)| frontend);
        planned.chain(programmed).copied().collect()
    }

    /// The frontends that are held back and may no longer have to be.
    fn held_anew(&mut self, delta: &Delta) -> Vec<Frontend> {
        if std::mem::take(&mut self.knows_more) {
            return self.held.frontends().collect();
        }
        let objects = delta.objects.iter();
        objects
            .flat_map(|object| self.held.programmed_from(object))
            .collect()
    }

    /// Brings frontends to what they come to, as far as enough is known for that.
    fn publish(&mut self, frontends: &BTreeSet<Frontend>) -> PublishSummary {
        let held_before = self.held.among(frontends);
        let plan = self.compiler.plan();
        let mut as_planned = BTreeSet::new();
        let mut otherwise = Plan::default();
        let mut waiting = BTreeMap::new();
        for frontend in frontends {
            let programmed = self.publisher.programmed_at(frontend);
            let judgement = self.compiler.judge(frontend, programmed);
            if !judgement.waits_for.is_empty() {
                waiting.insert(*frontend, judgement.waits_for);
            }
            match judgement.split {
                Some(split) if plan.frontends.get(frontend) != Some(&*split) => {
                    if programmed != Some(&*split) {
                        otherwise.frontends.insert(*frontend, split.into_owned());
                    }
                }
                _ => {
                    as_planned.insert(*frontend);
                }
            }
        }
        let mut summary = self.publisher.publish_some(plan, &as_planned);
        if !otherwise.frontends.is_empty() {
            let frontends = otherwise.frontends.keys().copied().collect();
            let rest = self.publisher.publish_some(&otherwise, &frontends);
            summary.append(rest);
        }
        let object = |split: &FrontendPlan| split.origin.object();
        for frontend in frontends {
            let held = waiting.remove(frontend).map(|waits_for| HeldFrontend {
                waits_for,
                planned: plan.frontends.get(frontend).map(object),
                programmed: self.publisher.programmed_at(frontend).map(object),
            });
            self.held.set(*frontend, held);
        }
        log::log_held(&held_before, &self.held.among(frontends));
        summary
    }

    /// Takes note of a change.
    fn take(&mut self, change: Change) {
        match change {
            Change::Put(object) => {
                self.findings.accept(&object.reference());
                self.compiler.apply(object);
            }
            Change::Refused(error) => {
                self.compiler.refuse(error.object.clone());
                self.findings.refuse(error);
            }
            Change::Unreadable(object) => self.compiler.refuse(object),
            Change::Deleted(object) => {
                self.findings.accept(&object);
                self.compiler.delete(&object);
            }
            Change::Problems(problems) => self.findings.replace_problems(problems),
            Change::Known(kind, knowledge) => {
                self.compiler.know(kind, knowledge);
                self.knows_more |= self.state.set_knowledge(kind, knowledge);
            }
            Change::NodePod(pod) => self.clients.put(pod, &mut self.compiler),
            Change::NodePodGone(uid) => self.clients.remove(&uid, &mut self.compiler),
            Change::NodePodsKnown(is_complete) => {
                self.clients.set_complete(is_complete);
                self.compiler.know_clients(if is_complete {
                    Knowledge::Followed
                } else {
                    self.compiler.clients_known().min(Knowledge::Stale)
                });
                self.knows_more |= is_complete;
            }
            Change::Pods(namespace, news) => {
                self.compiler.follow_pods(&namespace, news);
                self.knows_more |= matches!(news, PodNews::Listed | PodNews::Followed);
            }
            Change::Partial => {
                self.completeness.get_or_insert(Completeness::Partial);
            }
            Change::Complete => self.completeness = Some(Completeness::Complete),
        }
    }

    /// Attaches the programs once the maps that they read are filled. If the programs now at
    /// work have maps of another layout, they are better than ours until ours hold everything.
    fn attach_when_filled(&mut self, completeness: Completeness) -> Result<(), LoadError> {
        let is_complete = completeness == Completeness::Complete;
        if !self.is_attached && (is_complete || self.programs.is_layout_at_work()?) {
            self.attachment.keep(&mut self.programs, &self.state);
            self.is_attached = true;
        }
        self.prune(completeness);
        Ok(())
    }

    /// Removes the maps of other layouts, once no program reads them any more and ours hold
    /// everything.
    fn prune(&mut self, completeness: Completeness) {
        let is_replaced = self.is_attached && self.attachment.has_taken_over();
        if self.is_pruned || !is_replaced || completeness != Completeness::Complete {
            return;
        }
        self.is_pruned = true;
        match self.pins.remove_other_layouts(self.programs.layout()) {
            Ok(removed) => {
                for layout in removed {
                    let path = layout.path().display();
                    tracing::info!(%path, "removed the maps of another layout");
                }
            }
            Err(error) => {
                let error = with_causes(&error);
                tracing::warn!(error, "cannot remove the maps of another layout");
            }
        }
    }

    /// Frees slots that no program reads any more; `true` if some are still pending.
    pub fn reclaim(&mut self) -> bool {
        self.publisher.reclaim()
    }

    /// Tries again what failed, and looks where pods are.
    pub fn watch(&mut self) {
        self.retry_failures();
        if self.is_attached {
            self.attachment.keep(&mut self.programs, &self.state);
        }
        if let Some(completeness) = self.completeness {
            self.prune(completeness);
        }
    }

    /// Tries again what could not be published, if there is reason to hope.
    fn retry_failures(&mut self) {
        let start = Instant::now();
        self.publisher.reclaim();
        if self.completeness.is_none() || self.failures.is_empty() {
            return;
        }
        if !self.retry.is_due(self.publisher.freed(), start) {
            return;
        }
        let delta = Delta {
            frontends: self.failures.frontends(),
            ..Delta::default()
        };
        let summary = self.publish(&delta.frontends);
        let freed = self.publisher.freed();
        self.retry
            .tried(freed, start, !summary.installed.is_empty());
        self.conclude(&summary, &delta, start);
    }

    /// Reports what a publication changed.
    fn conclude(&mut self, summary: &PublishSummary, delta: &Delta, start: Instant) {
        log::log_summary(summary, &self.publisher, start.elapsed());
        let is_complete = self.completeness == Some(Completeness::Complete);

        let plan = self.compiler.plan();
        let mut objects = self.failures.update(&delta.frontends, summary, plan);
        objects.extend(delta.objects.iter().cloned());
        self.findings
            .publish(&objects, &self.compiler, &self.failures);
        let routes = objects.iter();
        let routes = routes.filter(|object| object.known_kind().is_some_and(Kind::is_route));
        self.state
            .set_programmed(routes.map(|object| self.programmed(object)));
        self.state.set_held(self.held.by_kind());
        self.state.set_compilations(self.compiler.compilations());
        self.state.publish(start.elapsed(), self.failures.len());
        if is_complete {
            self.state.set_synced();
        }
    }

    /// Which generation of an object is programmed.
    fn programmed(&self, object: &ObjectReference) -> (ObjectReference, Option<Programmed>) {
        let programmed = self.compiler.route(object).map(|route| {
            let generation = route.identity.generation;
            let is_held = self.failures.concern(object) || self.held.concern(object);
            Programmed {
                seen: generation,
                programmed: if is_held { 0 } else { generation },
            }
        });
        (object.clone(), programmed)
    }
}

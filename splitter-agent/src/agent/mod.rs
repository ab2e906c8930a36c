//! The agent: takes changes from a source, has them compiled, publishes what they come to, keeps
//! the programs attached, and says what changed, once.

mod attachment;
mod findings;
mod log;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use crate::causes::with_causes;
use crate::compile::{Compiler, Delta, Diagnostic, Settings, Severity};
use crate::datapath::{Extent, LoadError, PinDirectory, Programs, Publisher, Report};
use crate::objects::{ObjectName, ObjectReference};
use crate::plan::{Frontend, PlannedSplit};
use crate::report::{Board, Programmed, Progress};
use crate::source::Change;

pub use self::attachment::Attachment;
use self::findings::Findings;

/// The owner of the maps and the programs.
pub struct Agent {
    compiler: Compiler,
    publisher: Publisher,
    programs: Programs,
    pins: PinDirectory,
    attachment: Attachment,
    findings: Findings,
    progress: Progress,
    /// What may be published; `None` as long as nothing may.
    extent: Option<Extent>,
    /// Whether everything that is planned has been published at least once, so that only
    /// what changes need be.
    is_full: bool,
    /// Objects that changed while nothing could be published yet.
    unpublished: BTreeSet<ObjectReference>,
    /// What is held back, so that it is said once.
    kept: BTreeSet<Frontend>,
    /// What could not be published.
    failed: BTreeMap<Frontend, Diagnostic>,
    /// Whether the maps are filled, so that the programs may be at work.
    is_attached: bool,
    /// Whether maps of other layouts are gone.
    is_pruned: bool,
}

impl Agent {
    /// An agent that has not done anything yet. The programs are loaded and use the maps
    /// that the publisher owns. It tells the board what it finds about objects, and the
    /// progress what it is doing.
    #[must_use]
    pub fn new(
        publisher: Publisher,
        programs: Programs,
        pins: PinDirectory,
        attachment: Attachment,
        settings: Settings,
        board: Board,
        progress: Progress,
    ) -> Self {
        Self {
            compiler: Compiler::new(settings),
            publisher,
            programs,
            pins,
            attachment,
            findings: Findings::new(board),
            progress,
            extent: None,
            is_full: false,
            unpublished: BTreeSet::new(),
            kept: BTreeSet::new(),
            failed: BTreeMap::new(),
            is_attached: false,
            is_pruned: false,
        }
    }

    /// Publishes a frontend of the agent's own along with every plan.
    pub fn reserve(&mut self, frontend: Frontend, split: PlannedSplit) {
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
        self.progress.queue(changes.len());
        for change in changes {
            self.take(change);
        }
        let mut delta = self.compiler.compile();
        let Some(extent) = self.extent else {
            // A large cluster is told in many parts before anything may be published.
            self.unpublished.append(&mut delta.objects);
            return Ok(());
        };
        delta.objects.append(&mut self.unpublished);
        let report = if self.is_full {
            let plan = self.compiler.plan();
            self.publisher.publish_some(plan, &delta.frontends, extent)
        } else {
            self.publisher.publish(self.compiler.plan(), extent)
        };
        self.conclude(&report, &delta, start);
        self.attach_when_filled(extent)
    }

    /// Takes note of a change.
    fn take(&mut self, change: Change) {
        match change {
            Change::Put(object) => {
                self.findings.accept(&object.reference());
                self.compiler.put(object);
            }
            Change::Refused(error) => {
                self.compiler.refuse(error.object.clone());
                self.findings.refuse(error);
            }
            Change::Unreadable(object) => self.compiler.refuse(object),
            Change::Deleted(object) => {
                self.findings.accept(&object);
                self.compiler.remove(&object);
            }
            Change::Problems(problems) => self.findings.replace_problems(problems),
            Change::Partial => {
                self.extent.get_or_insert(Extent::Partial);
            }
            Change::Complete => self.extent = Some(Extent::Full),
        }
    }

    /// Attaches the programs once the maps that they read are filled. If the programs now at
    /// work have maps of another layout, they are better than ours until ours hold everything.
    fn attach_when_filled(&mut self, extent: Extent) -> Result<(), LoadError> {
        let is_complete = extent == Extent::Full;
        if !self.is_attached && (is_complete || self.pins.other_layouts()?.is_empty()) {
            self.attachment.keep(&mut self.programs, &self.progress);
            self.is_attached = true;
        }
        if self.is_attached && !self.is_pruned && is_complete {
            self.is_pruned = true;
            match self.pins.remove_other_layouts() {
                Ok(removed) => {
                    for path in removed {
                        tracing::info!(path = %path.display(), "removed the maps of another layout");
                    }
                }
                Err(error) => {
                    let error = with_causes(&error);
                    tracing::warn!(error, "maps of another layout stay behind");
                }
            }
        }
        Ok(())
    }

    /// Marks records as free that are out of force for good; `true` if some are not yet.
    pub fn tidy(&mut self) -> bool {
        self.publisher.tidy()
    }

    /// Tries again what failed, and looks where pods are.
    pub fn watch(&mut self) {
        if let (Some(extent), false) = (self.extent, self.failed.is_empty()) {
            let start = Instant::now();
            let report = self.publisher.publish(self.compiler.plan(), extent);
            let failed = std::mem::take(&mut self.failed);
            let delta = Delta {
                objects: failed.into_values().map(|failure| failure.object).collect(),
                ..Delta::default()
            };
            self.conclude(&report, &delta, start);
        }
        if self.is_attached {
            self.attachment.keep(&mut self.programs, &self.progress);
        }
    }

    /// Says what came of a publication.
    fn conclude(&mut self, report: &Report, delta: &Delta, start: Instant) {
        log::log_report(report, self.compiler.plan(), start.elapsed());
        self.log_kept(report);
        let is_complete = self.extent == Some(Extent::Full);
        self.is_full |= is_complete;

        let plan = self.compiler.plan();
        self.failed
            .retain(|frontend, _| !delta.frontends.contains(frontend));
        self.failed.extend(failures(report, plan));
        self.findings.replace_failures(self.failed.values());
        self.findings.note(&delta.objects);
        self.findings.say(&self.compiler);
        let splits = delta.objects.iter();
        let splits = splits.filter(|object| object.kind == "TrafficSplit");
        self.progress
            .set_programmed(splits.map(|object| self.programmed(&object.name)));
        self.progress.publish(start.elapsed(), self.failed.len());
        if is_complete {
            self.progress.set_synced();
        }
    }

    /// Which generation of a TrafficSplit is in force.
    fn programmed(&self, name: &ObjectName) -> (ObjectName, Option<Programmed>) {
        let programmed = self.compiler.traffic_split(name).map(|split| {
            let has_failed = self.failed.values().any(|failure| {
                failure.object.kind == "TrafficSplit" && failure.object.name == *name
            });
            Programmed {
                seen: split.generation,
                programmed: if has_failed { 0 } else { split.generation },
            }
        });
        (name.clone(), programmed)
    }

    /// Logs which frontends are newly held back.
    fn log_kept(&mut self, report: &Report) {
        let kept: BTreeSet<Frontend> = report.kept.iter().copied().collect();
        for frontend in kept.difference(&self.kept) {
            tracing::warn!(
                %frontend,
                "kept as it was, since a file that has never been read may have to do with it"
            );
        }
        self.kept = kept;
    }
}

/// What could not be published, as diagnostics of the objects that asked for it: so it is said
/// once, and again when it has changed, however often it is tried. It is tried each second.
fn failures<'a>(
    report: &'a Report,
    plan: &'a crate::plan::Plan,
) -> impl Iterator<Item = (Frontend, Diagnostic)> + 'a {
    report.failed.iter().map(|(frontend, error)| {
        let object = plan.frontends.get(frontend).map_or_else(
            // It is the removal that failed, and its object is gone.
            || reference("Frontend", "", &frontend.to_string()),
            |split| {
                let origin = &split.origin;
                reference(origin.kind, &origin.namespace, &origin.name)
            },
        );
        let diagnostic = Diagnostic {
            object,
            severity: Severity::Refused,
            reason: "NotPublished",
            field: String::new(),
            message: format!(
                "{frontend} stays as it was: {}; trying again",
                with_causes(error)
            ),
        };
        (*frontend, diagnostic)
    })
}

fn reference(kind: &str, namespace: &str, name: &str) -> ObjectReference {
    ObjectReference {
        kind: kind.to_owned(),
        name: ObjectName::new(namespace, name),
    }
}

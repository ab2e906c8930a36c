//! The agent: takes changes from a source, has them compiled, publishes what they come to, keeps
//! the programs attached, and says what changed, once.

mod attachment;
mod failures;
mod findings;
mod log;

use std::collections::BTreeSet;
use std::time::Instant;

use crate::causes::with_causes;
use crate::compile::{Compiler, Delta, Settings};
use crate::datapath::{Extent, LoadError, PinDirectory, Programs, Publisher, Report};
use crate::objects::{ObjectName, ObjectReference};
use crate::plan::{Frontend, PlannedSplit};
use crate::report::{Board, Programmed, Progress};
use crate::source::Change;

pub use self::attachment::Attachment;
use self::failures::{Failures, Retry};
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
            failures: Failures::default(),
            retry: Retry::new(Instant::now()),
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
        let plan = self.compiler.plan();
        let report = if self.is_full {
            self.publisher.publish_some(plan, &delta.frontends, extent)
        } else {
            // What failed before is tried again with everything else.
            delta.frontends.append(&mut self.failures.frontends());
            self.publisher.publish(plan, extent)
        };
        self.log_kept(&report);
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
        if !self.is_attached && (is_complete || self.programs.is_layout_at_work()?) {
            self.attachment.keep(&mut self.programs, &self.progress);
            self.is_attached = true;
        }
        if self.is_attached && !self.is_pruned && is_complete {
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
        self.retry_failures();
        if self.is_attached {
            self.attachment.keep(&mut self.programs, &self.progress);
        }
    }

    /// Tries again what could not be published, if there is reason to hope.
    fn retry_failures(&mut self) {
        let start = Instant::now();
        self.publisher.tidy();
        let (Some(extent), false) = (self.extent, self.failures.is_empty()) else {
            return;
        };
        if !self.retry.is_due(self.publisher.freed(), start) {
            return;
        }
        let delta = Delta {
            frontends: self.failures.frontends(),
            ..Delta::default()
        };
        let plan = self.compiler.plan();
        let report = self.publisher.publish_some(plan, &delta.frontends, extent);
        let freed = self.publisher.freed();
        self.retry.tried(freed, start, !report.put.is_empty());
        self.conclude(&report, &delta, start);
    }

    /// Says what came of a publication.
    fn conclude(&mut self, report: &Report, delta: &Delta, start: Instant) {
        log::log_report(report, self.compiler.plan(), start.elapsed());
        let is_complete = self.extent == Some(Extent::Full);
        self.is_full |= is_complete;

        let plan = self.compiler.plan();
        let mut objects = self.failures.update(&delta.frontends, report, plan);
        objects.extend(delta.objects.iter().cloned());
        self.findings.note(&objects);
        self.findings.say(&self.compiler, &self.failures);
        let splits = objects.iter();
        let splits = splits.filter(|object| object.kind == "TrafficSplit");
        self.progress
            .set_programmed(splits.map(|object| self.programmed(&object.name)));
        self.progress.publish(start.elapsed(), self.failures.len());
        if is_complete {
            self.progress.set_synced();
        }
    }

    /// Which generation of a TrafficSplit is in force.
    fn programmed(&self, name: &ObjectName) -> (ObjectName, Option<Programmed>) {
        let programmed = self.compiler.traffic_split(name).map(|split| {
            let has_failed = self.failures.concern("TrafficSplit", name);
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

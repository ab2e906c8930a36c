//! The agent: takes snapshots from a source, has them compiled, publishes the plan, keeps the
//! programs attached, and says what changed, once.

use std::collections::BTreeSet;
use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::compile::{Diagnostic, Settings, Severity, compile};
use crate::datapath::{
    Change, Extent, LoadError, PinDirectory, Programs, Publisher, Report, verdict_name,
};
use crate::objects::{ObjectName, ObjectReference};
use crate::plan::{Frontend, Plan};
use crate::source::Snapshot;

/// The owner of the maps and the programs.
pub struct Agent {
    publisher: Publisher,
    programs: Programs,
    pins: PinDirectory,
    cgroup: PathBuf,
    settings: Settings,
    /// What has been said, so that it is said once.
    said: BTreeSet<Diagnostic>,
    /// What is held back, so that it is said once.
    kept: BTreeSet<Frontend>,
    /// Whether something could not be published.
    has_failed: bool,
    /// Whether our programs are at work.
    is_attached: bool,
    /// Whether maps of other layouts are gone.
    is_pruned: bool,
}

impl Agent {
    /// An agent that has not done anything yet. The programs are loaded and use the maps
    /// that the publisher owns.
    #[must_use]
    pub fn new(
        publisher: Publisher,
        programs: Programs,
        pins: PinDirectory,
        cgroup: PathBuf,
        settings: Settings,
    ) -> Self {
        Self {
            publisher,
            programs,
            pins,
            cgroup,
            settings,
            said: BTreeSet::new(),
            kept: BTreeSet::new(),
            has_failed: false,
            is_attached: false,
            is_pruned: false,
        }
    }

    /// Brings the maps to what the source says, and puts the programs to work. What cannot
    /// be published is logged, and tried again by [`Self::watch`].
    ///
    /// # Errors
    ///
    /// If the programs cannot be attached.
    pub fn apply(&mut self, snapshot: &Snapshot) -> Result<(), LoadError> {
        self.publish(snapshot);
        // The maps are filled before the programs that read them are put to work. If the
        // programs now at work have maps of another layout, they are better than ours
        // until ours hold everything.
        if !self.is_attached && (snapshot.complete || self.pins.other_layouts()?.is_empty()) {
            self.attach()?;
            self.is_attached = true;
        }
        if self.is_attached && !self.is_pruned && snapshot.complete {
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

    fn attach(&mut self) -> Result<(), LoadError> {
        let attached = self.programs.attach(&self.cgroup)?;
        tracing::info!(
            cgroup = %self.cgroup.display(),
            programs = attached
                .iter()
                .map(|(name, attached)| format!("{name} ({attached:?})"))
                .collect::<Vec<_>>()
                .join(", "),
            "programs attached; connections are split"
        );
        Ok(())
    }

    /// Tries again what failed, and follows a cgroup that was removed and made anew.
    ///
    /// # Errors
    ///
    /// If the programs cannot be examined or attached.
    pub fn watch(&mut self, snapshot: &Snapshot) -> Result<(), LoadError> {
        if self.has_failed {
            self.publish(snapshot);
        }
        if self.is_attached && self.cgroup.exists() && !self.programs.is_attached(&self.cgroup)? {
            tracing::warn!(
                cgroup = %self.cgroup.display(),
                "the programs are no longer on the cgroup; attaching them again"
            );
            self.attach()?;
        }
        Ok(())
    }

    /// Brings the maps to what the source says.
    fn publish(&mut self, snapshot: &Snapshot) {
        let start = Instant::now();
        let compiled = compile(&snapshot.objects, &self.settings);
        let extent = if snapshot.complete {
            Extent::Full
        } else {
            Extent::Partial
        };
        let report = self.publisher.publish(&compiled.plan, extent);
        self.has_failed = !report.failed.is_empty();
        log_report(&report, &compiled.plan, start.elapsed());
        self.log_kept(&report);
        let mut diagnostics: BTreeSet<Diagnostic> = snapshot
            .problems
            .iter()
            .cloned()
            .chain(compiled.diagnostics)
            .collect();
        for failure in failures(&report, &compiled.plan) {
            // What could not be published was not accepted after all.
            diagnostics.retain(|diagnostic| {
                diagnostic.object != failure.object || diagnostic.severity != Severity::Accepted
            });
            diagnostics.insert(failure);
        }
        self.say(diagnostics);
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

    /// Logs what is new among the diagnostics, and what no longer holds.
    fn say(&mut self, diagnostics: BTreeSet<Diagnostic>) {
        for diagnostic in self.said.difference(&diagnostics) {
            if diagnostic.severity != Severity::Accepted {
                tracing::info!(object = %diagnostic.object, reason = diagnostic.reason, "no longer so");
            }
        }
        for diagnostic in diagnostics.difference(&self.said) {
            let Diagnostic {
                object,
                severity,
                reason,
                field,
                message,
            } = diagnostic;
            match severity {
                Severity::Accepted | Severity::Inactive => {
                    tracing::info!(%object, %severity, reason, field, "{message}");
                }
                Severity::Warning | Severity::Refused => {
                    tracing::warn!(%object, %severity, reason, field, "{message}");
                }
            }
        }
        self.said = diagnostics;
    }
}

/// Says what a publication changed.
fn log_report(report: &Report, plan: &Plan, took: Duration) {
    for put in &report.put {
        let (frontend, generation) = (put.frontend, put.generation);
        let Some(split) = plan.frontends.get(&frontend) else {
            continue;
        };
        let leaves = || {
            split
                .leaves
                .iter()
                .map(|leaf| {
                    let endpoints = leaf.endpoints.len();
                    format!("{}={} ({endpoints} endpoints)", leaf.service, leaf.share)
                })
                .collect::<Vec<_>>()
                .join(", ")
        };
        if put.change == Change::Endpoints {
            tracing::debug!(%frontend, generation, leaves = leaves(), "endpoints changed");
        } else {
            tracing::info!(
                %frontend,
                generation,
                split = %format_args!("{}/{}", split.origin.namespace, split.origin.name),
                decision = verdict_name(split.decision),
                shares = leaves(),
                ?took,
                "in force"
            );
        }
    }
    for frontend in &report.removed {
        tracing::info!(%frontend, "no longer split");
    }
}

/// What could not be published, as diagnostics of the objects that asked for it: so it is said
/// once, and again when it has changed, however often it is tried. It is tried each second.
fn failures<'a>(report: &'a Report, plan: &'a Plan) -> impl Iterator<Item = Diagnostic> + 'a {
    report.failed.iter().map(|(frontend, error)| Diagnostic {
        object: plan.frontends.get(frontend).map_or_else(
            // It is the removal that failed, and its object is gone.
            || reference("Frontend", "", &frontend.to_string()),
            |split| {
                let origin = &split.origin;
                reference(origin.kind, &origin.namespace, &origin.name)
            },
        ),
        severity: Severity::Refused,
        reason: "NotPublished",
        field: String::new(),
        message: format!(
            "{frontend} stays as it was: {}; trying again",
            with_causes(error)
        ),
    })
}

fn reference(kind: &str, namespace: &str, name: &str) -> ObjectReference {
    ObjectReference {
        kind: kind.to_owned(),
        name: ObjectName::new(namespace, name),
    }
}

/// An error with its causes, in one line.
fn with_causes(error: &(dyn Error + 'static)) -> String {
    anyhow::Chain::new(error)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

//! `status`: configured against observed shares.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::Args;
use serde::{Serialize, Serializer};
use splitter_common::layout::{LAYOUT_VERSION, LeafState, Reason};

use crate::datapath::{SplitView, View, reason_name, reason_text, verdict_name};
use crate::plan::{Decision, Frontend};

use super::attachment::Attachment;
use super::table::{Align, Table};
use super::{Common, Outcome, print};

/// Show configured against observed shares, from the pinned maps alone.
///
/// Works whether an agent runs or not. Observed shares count connections since the shares
/// were last changed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  splitter-agent status
  splitter-agent status -o json | jq '.splits[].leaves'")]
pub(super) struct StatusArgs {}

#[derive(Serialize)]
struct Report {
    layout: u32,
    pins: String,
    #[serde(flatten)]
    attachment: Attachment,
    splits: Vec<Split>,
    inconsistent: Vec<String>,
    outcomes: BTreeMap<&'static str, u64>,
}

/// A split in force, as `status` and `explain` show it.
#[derive(Serialize)]
pub(super) struct Split {
    frontend: String,
    namespace: String,
    root: String,
    kind: &'static str,
    name: String,
    verdict: &'static str,
    #[serde(serialize_with = "serialize_reason")]
    reason: Reason,
    generation: u32,
    connections: u64,
    leaves: Vec<Leaf>,
}

#[derive(Serialize)]
struct Leaf {
    service: String,
    weight: u64,
    /// Share that the weights ask for.
    configured: f64,
    /// Share in force: without the leaves that cannot take theirs.
    in_force: f64,
    /// Share of the connections since the shares were last changed.
    observed: Option<f64>,
    connections: u64,
    /// Connections since the leaf became part of the split.
    lifetime: u64,
    state: &'static str,
    endpoints: usize,
}

pub(super) fn run(_: &StatusArgs, common: &Common) -> anyhow::Result<Outcome> {
    let pins = common.pins();
    let view = View::open(&pins)?;
    let report = Report {
        layout: LAYOUT_VERSION,
        pins: pins.path().display().to_string(),
        attachment: Attachment::read(&pins)?,
        splits: view
            .frontends
            .iter()
            // The agent's own is no object's; `explain` shows it to those who ask for it.
            .filter(|(_, split)| !split.split.origin.is_self_test())
            .map(|(frontend, split)| Split::new(*frontend, split))
            .collect(),
        inconsistent: view.inconsistent.iter().map(Frontend::to_string).collect(),
        outcomes: view.outcomes,
    };
    print(common.output, &text(&report)?, &report)?;
    Ok(Outcome::Done)
}

fn text(report: &Report) -> Result<String, std::fmt::Error> {
    let mut text = report.attachment.text()?;
    if report.splits.is_empty() {
        text.push_str("no splits are in force\n");
    }
    for split in &report.splits {
        text.push('\n');
        text.push_str(&split.text()?);
    }
    for frontend in &report.inconsistent {
        writeln!(
            text,
            "\n{frontend}  its records do not fit together; connections pass through until the \
             agent publishes it again"
        )?;
    }
    let noteworthy: Vec<String> = report
        .outcomes
        .iter()
        .filter(|&(_, &count)| count > 0)
        .map(|(outcome, count)| format!("{} {count}", outcome.replace('_', " ")))
        .collect();
    if !noteworthy.is_empty() {
        writeln!(
            text,
            "\nconnections to frontends since the maps were made: {}",
            noteworthy.join(", ")
        )?;
    }
    Ok(text)
}

impl Split {
    pub(super) fn new(frontend: Frontend, view: &SplitView) -> Self {
        let split = &view.split;
        let weights: u128 = split
            .leaves
            .iter()
            .map(|leaf| u128::from(leaf.weight))
            .sum();
        let leaves = split
            .leaves
            .iter()
            .zip(&view.leaves)
            .map(|(leaf, counts)| Leaf {
                service: leaf.service.clone(),
                weight: leaf.weight,
                configured: fraction(leaf.weight.into(), weights).unwrap_or(0.0),
                in_force: fraction(leaf.share.into(), view.record.size.into()).unwrap_or(0.0),
                observed: fraction(
                    counts.connections.into(),
                    view.leaves
                        .iter()
                        .map(|counts| u128::from(counts.connections))
                        .sum(),
                ),
                connections: counts.connections,
                lifetime: counts.lifetime,
                state: state_name(leaf.state),
                endpoints: leaf.endpoints.len(),
            })
            .collect();
        let reason = match split.decision {
            Decision::Split => Reason::None,
            Decision::Refuse(reason) | Decision::PassThrough(reason) => reason,
        };
        Self {
            frontend: frontend.to_string(),
            namespace: split.origin.namespace.clone(),
            root: split.root.clone(),
            kind: split.origin.kind,
            name: split.origin.name.clone(),
            verdict: verdict_name(split.decision),
            reason,
            generation: view.record.generation,
            connections: view.connections,
            leaves,
        }
    }

    /// One line for the split, and one for each leaf.
    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        writeln!(
            text,
            "{}  {} of Service {}/{}  ({} {})",
            self.frontend, self.verdict, self.namespace, self.root, self.kind, self.name
        )?;
        if let Some(name) = reason_name(self.reason) {
            writeln!(text, "  {name}: {}", reason_text(self.reason))?;
        }
        if self.leaves.is_empty() {
            return Ok(text);
        }
        let mut table = Table::new(
            2,
            &[
                Align::Left,
                Align::Right,
                Align::Right,
                Align::Right,
                Align::Right,
                Align::Right,
                Align::Right,
                Align::Left,
            ],
        );
        table.row([
            "LEAF",
            "WEIGHT",
            "CONFIGURED",
            "IN FORCE",
            "OBSERVED",
            "CONNECTIONS",
            "ENDPOINTS",
            "STATE",
        ]);
        for leaf in &self.leaves {
            table.row([
                leaf.service.clone(),
                leaf.weight.to_string(),
                percent(leaf.configured),
                percent(leaf.in_force),
                leaf.observed.map_or_else(|| "-".to_owned(), percent),
                leaf.connections.to_string(),
                leaf.endpoints.to_string(),
                leaf.state.to_owned(),
            ]);
        }
        text.push_str(&table.render());
        Ok(text)
    }
}

/// A reason by its name, or null.
fn serialize_reason<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    reason_name(*reason).serialize(serializer)
}

/// The name of a leaf's state.
fn state_name(state: LeafState) -> &'static str {
    match state {
        LeafState::Ready => "ready",
        LeafState::Terminating => "terminating",
        LeafState::WeightZero => "weight-zero",
        LeafState::ServiceMissing => "service-missing",
        LeafState::PortMissing => "port-missing",
        LeafState::NoReadyEndpoints => "no-ready-endpoints",
        LeafState::FamilyMissing => "family-missing",
        LeafState::NotKnownYet => "not-known-yet",
    }
}

/// A part of a whole; `None` of nothing.
fn fraction(part: u128, whole: u128) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn percent(fraction: f64) -> String {
    format!("{:.2}%", fraction * 100.0)
}

//! One split, as `status` and `explain` show it.

use std::fmt::Write;

use serde::{Serialize, Serializer};
use splitter_common::layout::{Reason, Verdict};

use super::super::table::{Align, Table};
use crate::datapath::FrontendView;
use crate::plan::{Decision, Frontend};
use crate::reason;

/// A split that is programmed.
#[derive(Serialize)]
pub(in super::super) struct Split {
    pub(super) frontend: String,
    pub(super) namespace: String,
    pub(super) root: String,
    kind: &'static str,
    pub(super) name: String,
    pub(super) verdict: &'static str,
    #[serde(serialize_with = "serialize_reason")]
    reason: Reason,
    pub(super) state: State,
    generation: u32,
    pub(super) connections: u64,
    pub(super) leaves: Vec<Leaf>,
}

/// What becomes of connections to a frontend, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum State {
    /// They are left alone, since the object cannot or does not split them.
    PassThrough,
    /// Every leaf gets the share that its weight asks for.
    AsConfigured,
    /// A leaf cannot take its share; others have it.
    Moved,
    /// They are refused.
    Refused,
    /// They are left alone, since no program is attached.
    NotProgrammed,
}

impl State {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::PassThrough => "pass-through",
            Self::AsConfigured => "as configured",
            Self::Moved => "a leaf cannot take its share",
            Self::Refused => "refused",
            Self::NotProgrammed => "not programmed",
        }
    }
}

#[derive(Serialize)]
pub(super) struct Leaf {
    service: String,
    weight: u64,
    /// Share that the weights ask for.
    configured: f64,
    /// Programmed share: without the leaves that cannot take theirs, and 0 while no program is
    /// attached.
    programmed: f64,
    /// Share of the connections since the shares were last changed.
    observed: Option<f64>,
    connections: u64,
    /// Connections since the leaf became part of the split.
    pub(super) lifetime: u64,
    state: &'static str,
    endpoints: usize,
}

impl Split {
    /// `is_attached` says whether the program is that looks the frontend up.
    pub(in super::super) fn new(
        frontend: Frontend,
        view: &FrontendView,
        is_attached: bool,
    ) -> Self {
        let split = &view.plan;
        let weights: u128 = split
            .leaves
            .iter()
            .map(|leaf| u128::from(leaf.weight))
            .sum();
        let counted: u128 = view
            .leaves
            .iter()
            .map(|counts| u128::from(counts.connections))
            .sum();
        let leaves: Vec<Leaf> = split
            .leaves
            .iter()
            .zip(&view.leaves)
            .map(|(leaf, counts)| Leaf {
                service: leaf.service.clone(),
                weight: leaf.weight,
                configured: fraction(leaf.weight.into(), weights).unwrap_or(0.0),
                programmed: fraction(leaf.share.into(), view.record.size.into())
                    .filter(|_| is_attached)
                    .unwrap_or(0.0),
                observed: fraction(counts.connections.into(), counted),
                connections: counts.connections,
                lifetime: counts.lifetime,
                state: reason::of_leaf(leaf.state),
                endpoints: leaf.endpoints.len(),
            })
            .collect();
        let (_, reason): (Verdict, Reason) = split.decision.into();
        let takes_its_share = |leaf: &Leaf| (leaf.configured - leaf.programmed).abs() < 1e-9;
        let state = match split.decision {
            Decision::PassThrough(_) => State::PassThrough,
            _ if !is_attached => State::NotProgrammed,
            Decision::Refuse(_) => State::Refused,
            Decision::Split if leaves.iter().all(takes_its_share) => State::AsConfigured,
            Decision::Split => State::Moved,
        };
        Self {
            frontend: frontend.to_string(),
            namespace: split.origin.namespace.clone(),
            root: split.root.clone(),
            kind: split.origin.kind,
            name: split.origin.name.clone(),
            verdict: split.decision.name(),
            reason,
            state,
            generation: view.record.generation,
            connections: view.connections,
            leaves,
        }
    }

    /// One line for the split, and one for each leaf.
    pub(in super::super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        writeln!(
            text,
            "{}  {} of Service {}/{}  ({} {})",
            self.frontend, self.verdict, self.namespace, self.root, self.kind, self.name
        )?;
        if let Some(name) = reason::of_record(self.reason) {
            writeln!(text, "  {name}: {}", reason::text_of_record(self.reason))?;
        }
        if self.state == State::NotProgrammed {
            writeln!(
                text,
                "  not programmed: no program is attached, so the root Service behaves as without it"
            )?;
        }
        if !self.leaves.is_empty() {
            text.push_str(&self.table());
        }
        if let Some(hint) = self.hint() {
            writeln!(text, "  {hint}")?;
        }
        Ok(text)
    }

    fn table(&self) -> String {
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
            "PROGRAMMED",
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
                if self.state == State::NotProgrammed {
                    "-".to_owned()
                } else {
                    percent(leaf.programmed)
                },
                leaf.observed.map_or_else(|| "-".to_owned(), percent),
                leaf.connections.to_string(),
                leaf.endpoints.to_string(),
                leaf.state.to_owned(),
            ]);
        }
        table.render()
    }

    /// Whether it splits, and no connection on this node has been split by its present shares.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::AsConfigured | State::Moved) && self.connections == 0
    }

    /// What to look at where connections are expected and none is seen.
    fn hint(&self) -> Option<&'static str> {
        if !self.is_idle() {
            return None;
        }
        let was_used = self.leaves.iter().any(|leaf| leaf.lifetime > 0);
        Some(if was_used {
            "no new connection since the shares changed; clients that keep connections open keep \
             their backend (docs/not-split.md)"
        } else {
            "no connection on this node so far; if clients here do connect, see docs/not-split.md"
        })
    }
}

/// A reason by its name, or null.
fn serialize_reason<S: Serializer>(reason: &Reason, serializer: S) -> Result<S::Ok, S::Error> {
    reason::of_record(*reason).serialize(serializer)
}

/// A fraction; `None` if the whole is 0.
fn fraction(part: u128, whole: u128) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn percent(fraction: f64) -> String {
    format!("{:.2}%", fraction * 100.0)
}

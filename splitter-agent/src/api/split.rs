//! A split, from the maps.

use splitter_api::{Leaf, LeafOutcomes, Split, SplitState};
use splitter_common::layout::{Reason, Verdict};
use splitter_common::outcomes::Outcome;

use super::leaf_state;
use crate::datapath::{FrontendView, OutcomeCounts};
use crate::plan::{Decision, Frontend, PlannedLeaf};
use crate::reason;

/// What is programmed for a frontend. `is_attached` says whether the program is that looks the
/// frontend up.
pub(crate) fn split(frontend: Frontend, view: &FrontendView, is_attached: bool) -> Split {
    let plan = &view.plan;
    let weights: u128 = plan.leaves.iter().map(|leaf| u128::from(leaf.weight)).sum();
    let counted: u128 = view
        .leaves
        .iter()
        .map(|counts| u128::from(counts.connections))
        .sum();
    let leaves: Vec<Leaf> = plan
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
            refused: counts.refused,
            open: counts.open,
            outcomes: outcomes(&counts.outcomes),
            state: leaf_state(leaf.state),
            endpoints: leaf.endpoints.len(),
        })
        .collect();
    let takes_its_share = |leaf: &Leaf| (leaf.configured - leaf.programmed).abs() < 1e-9;
    let state = match plan.decision {
        Decision::PassThrough(_) => SplitState::PassThrough,
        _ if !is_attached => SplitState::NotProgrammed,
        Decision::Refuse(_) => SplitState::Refused,
        Decision::Split if plan.leaves.iter().any(PlannedLeaf::is_refused) => {
            SplitState::PartlyRefused
        }
        Decision::Split if leaves.iter().all(takes_its_share) => SplitState::AsConfigured,
        Decision::Split => SplitState::Moved,
    };
    let (_, reason): (Verdict, Reason) = plan.decision.into();
    let word = reason::of_record(reason);
    Split {
        frontend: frontend.for_everyone().to_string(),
        clients: view.clients.clone(),
        namespace: plan.root.namespace.clone(),
        root: plan.root.name.clone(),
        kind: plan.origin.kind.to_owned(),
        object_namespace: plan.origin.namespace.clone(),
        name: plan.origin.name.clone(),
        verdict: plan.decision.into(),
        reason: word.map(str::to_owned),
        message: word.map(|_| reason::text_of_record(reason).to_owned()),
        state,
        generation: view.record.generation,
        connections: view.connections,
        leaves,
    }
}

fn outcomes(counts: &OutcomeCounts) -> LeafOutcomes {
    LeafOutcomes {
        established: counts.count(Outcome::Established),
        refused: counts.count(Outcome::Refused),
        timed_out: counts.count(Outcome::TimedOut),
        unreachable: counts.count(Outcome::Unreachable),
        abandoned: counts.count(Outcome::Abandoned),
        closed: counts.count(Outcome::Closed),
        reset_by_endpoint: counts.count(Outcome::ResetByEndpoint),
        reset_by_client: counts.count(Outcome::ResetByClient),
        lost: counts.count(Outcome::Lost),
        bytes_sent: counts.bytes_sent(),
        bytes_received: counts.bytes_received(),
    }
}

/// A fraction; `None` if the whole is 0.
fn fraction(part: u128, whole: u128) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

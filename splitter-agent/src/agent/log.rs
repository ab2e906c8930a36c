//! Logging what a publication changed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::compile::Kinds;
use crate::datapath::{Change, PublishSummary, Publisher};
use crate::plan::Frontend;

/// More changes at once than this are logged in one line, and each of them only for debugging.
const BULK_THRESHOLD: usize = 100;

/// Logs what a publication changed.
pub(super) fn log_summary(summary: &PublishSummary, publisher: &Publisher, took: Duration) {
    let is_bulk = summary.installed.len() + summary.removed.len() > BULK_THRESHOLD;
    if is_bulk {
        tracing::info!(
            installed = summary.installed.len(),
            removed = summary.removed.len(),
            failed = summary.failed.len(),
            took_seconds = took.as_secs_f64(),
            "many frontends changed at once"
        );
    }
    for installed in &summary.installed {
        let (frontend, generation) = (installed.frontend, installed.generation);
        let Some(split) = publisher.programmed_at(&frontend) else {
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
        if installed.change == Change::Endpoints {
            tracing::debug!(%frontend, generation, leaves = leaves(), "endpoints changed");
            continue;
        }
        let name = format_args!("{}/{}", split.origin.namespace, split.origin.name);
        let decision = split.decision.name();
        if is_bulk || split.origin.is_self_test() {
            tracing::debug!(
                %frontend, generation, split = %name, decision, shares = leaves(), "programmed"
            );
        } else {
            tracing::info!(
                %frontend, generation, split = %name, decision, shares = leaves(),
                took_seconds = took.as_secs_f64(), "programmed"
            );
        }
    }
    for frontend in &summary.removed {
        if is_bulk {
            tracing::debug!(%frontend, "no longer split");
        } else {
            tracing::info!(%frontend, "no longer split");
        }
    }
}

/// Says which frontends are newly held back, and what they wait for.
pub(super) fn log_held(before: &BTreeMap<Frontend, Kinds>, now: &BTreeMap<Frontend, Kinds>) {
    let is_new = |(frontend, kinds): &(&Frontend, &Kinds)| before.get(frontend) != Some(*kinds);
    let count = now.iter().filter(is_new).count();
    if count > BULK_THRESHOLD {
        let mut waits_for = Kinds::new();
        waits_for.extend(now.values().flatten());
        tracing::warn!(
            frontends = count,
            waits_for = names(&waits_for),
            "keeping many frontends as they are until these kinds of objects are followed"
        );
    }
    for (frontend, kinds) in now.iter().filter(is_new) {
        let waits_for = names(kinds);
        if count > BULK_THRESHOLD {
            tracing::debug!(%frontend, waits_for, "keeping the frontend as it is");
        } else {
            tracing::warn!(
                %frontend,
                waits_for,
                "keeping the frontend as it is until these kinds of objects are followed"
            );
        }
    }
    let released = before.keys().filter(|frontend| !now.contains_key(frontend));
    let released = released.count();
    if released > 0 {
        tracing::info!(frontends = released, "frontends are no longer held back");
    }
}

fn names(kinds: &Kinds) -> String {
    let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
    names.join(", ")
}

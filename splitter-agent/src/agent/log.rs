//! What is logged of a publication.

use std::time::Duration;

use crate::datapath::{Change, Report, verdict_name};
use crate::plan::Plan;

/// More changes at once than this are told in one line, and each of them only for debugging.
const MANY: usize = 100;

/// Says what a publication changed.
pub(super) fn log_report(report: &Report, plan: &Plan, took: Duration) {
    let is_bulk = report.put.len() + report.removed.len() > MANY;
    if is_bulk {
        tracing::info!(
            put = report.put.len(),
            removed = report.removed.len(),
            failed = report.failed.len(),
            took_seconds = took.as_secs_f64(),
            "many frontends changed at once"
        );
    }
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
            continue;
        }
        let name = format_args!("{}/{}", split.origin.namespace, split.origin.name);
        let decision = verdict_name(split.decision);
        if is_bulk || split.origin.is_self_test() {
            tracing::debug!(
                %frontend, generation, split = %name, decision, shares = leaves(), "in force"
            );
        } else {
            tracing::info!(
                %frontend, generation, split = %name, decision, shares = leaves(),
                took_seconds = took.as_secs_f64(), "in force"
            );
        }
    }
    for frontend in &report.removed {
        if is_bulk {
            tracing::debug!(%frontend, "no longer split");
        } else {
            tracing::info!(%frontend, "no longer split");
        }
    }
}

//! `status`: configured against observed shares.

mod selection;
mod split;
mod summary;

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::Args;
use serde::Serialize;

use super::node::NodeArgs;
use super::site::Site;
use super::{Common, Outcome, print};
use crate::datapath::View;
use crate::plan::Frontend;

use selection::SelectionArgs;
pub(super) use split::Split;
use summary::Summary;

/// Up to so many splits are shown in full, unless all are asked for.
const FEW: usize = 20;

/// Show configured against observed shares, from the pinned maps alone.
///
/// Works whether an agent runs or not. What it shows is this node's: connections are counted on
/// the node of the client. Observed shares count connections since the shares were last changed.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0, every program is attached and an agent is at work; 1, not so, or no split is what
was asked for; 2, the command line is wrong; 3, nothing is pinned here, or it cannot be read.

Examples:
  splitter-agent status
  splitter-agent status bookstore
  splitter-agent status bookstore/bookstore-split
  splitter-agent status --all
  splitter-agent status -o json | jq '.splits[].leaves'")]
pub(super) struct StatusArgs {
    #[command(flatten)]
    selection: SelectionArgs,

    /// Show the leaves of every split, however many there are.
    #[arg(long)]
    all: bool,

    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    site: Site,
    splits: Vec<Split>,
    inconsistent: Vec<String>,
    verdicts: BTreeMap<&'static str, u64>,
}

pub(super) fn run(args: &StatusArgs, common: &Common) -> anyhow::Result<Outcome> {
    let selection = args
        .selection
        .selection()
        .unwrap_or_else(|wrong| super::usage(wrong));
    let pins = common.pins();
    let view = View::open(&pins)?;
    let site = Site::look(&pins, &args.node)?;
    let mut splits: Vec<_> = view
        .frontends
        .iter()
        // The agent's own is no object's; `explain` shows it to those who ask for it.
        .filter(|(_, split)| !split.plan.origin.is_self_test())
        .filter(|(_, split)| selection.matches(&split.plan))
        .collect();
    splits.sort_by_key(|(frontend, split)| {
        let split = &split.plan;
        let origin = &split.origin;
        (&origin.namespace, &origin.name, &split.root, **frontend)
    });
    let splits: Vec<Split> = splits
        .into_iter()
        .map(|(frontend, split)| Split::new(*frontend, split, site.splits(frontend.address)))
        .collect();
    let report = Report {
        // Those cannot be told whose they are.
        inconsistent: if selection.is_everything() {
            view.inconsistent.iter().map(Frontend::to_string).collect()
        } else {
            Vec::new()
        },
        site,
        splits,
        verdicts: view.verdicts,
    };
    print(
        common.output,
        &text(&report, &selection, args.all)?,
        &report,
    )?;
    if report.splits.is_empty() && !selection.is_everything() {
        return Ok(Outcome::Refused);
    }
    Ok(report.site.outcome())
}

fn text(
    report: &Report,
    selection: &selection::Selection,
    all: bool,
) -> Result<String, std::fmt::Error> {
    let mut text = report.site.text()?;
    let summary = Summary::new(&report.splits);
    if report.splits.is_empty() {
        writeln!(text, "\nno split{selection} is programmed on this node")?;
    } else if all || summary.len() <= FEW {
        for split in &report.splits {
            text.push('\n');
            text.push_str(&split.text()?);
        }
    } else {
        text.push('\n');
        text.push_str(&summary.text()?);
    }
    for frontend in &report.inconsistent {
        writeln!(
            text,
            "\n{frontend}  its records do not fit together; connections pass through until the \
             agent publishes it again"
        )?;
    }
    let noteworthy: Vec<String> = report
        .verdicts
        .iter()
        .filter(|&(_, &count)| count > 0)
        .map(|(verdict, count)| format!("{} {count}", verdict.replace('_', " ")))
        .collect();
    if selection.is_everything() && !noteworthy.is_empty() {
        writeln!(
            text,
            "\nconnections to frontends since the maps were made: {}",
            noteworthy.join(", ")
        )?;
    }
    Ok(text)
}

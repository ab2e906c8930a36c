//! `status`: configured against observed shares.

mod selection;
mod split;
mod summary;

use std::fmt::Write;

use clap::Args;
use splitter_api::{Split, Status, VerdictCounts};

use super::node::{self, NodeArgs};
use super::{CommandOutcome, Common, print};
use crate::api;
use crate::datapath::View;
use crate::plan::Frontend;

pub(super) use selection::SelectionArgs;
pub(super) use split::text as split_text;
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

pub(super) fn run(args: &StatusArgs, common: &Common) -> anyhow::Result<CommandOutcome> {
    let selection = args.selection.selection_or_exit();
    let pins = common.pins();
    let view = View::open(&pins)?;
    let node = api::node_status(&pins, &view, args.node.name())?;
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
        .map(|(frontend, view)| {
            let is_attached = api::is_looked_up(&node.attachment, frontend.address);
            api::split(*frontend, view, is_attached)
        })
        .collect();
    let status = Status {
        // Those cannot be told whose they are.
        inconsistent: if selection.is_everything() {
            view.inconsistent.iter().map(Frontend::to_string).collect()
        } else {
            Vec::new()
        },
        node,
        splits,
        verdicts: api::verdict_counts(&view),
    };
    print(
        common.output,
        &text(&status, &selection, args.all)?,
        &status,
    )?;
    if status.splits.is_empty() && !selection.is_everything() {
        return Ok(CommandOutcome::Refused);
    }
    Ok(node::outcome(&status.node))
}

fn text(
    status: &Status,
    selection: &selection::Selection,
    all: bool,
) -> Result<String, std::fmt::Error> {
    let mut text = node::text(&status.node)?;
    let summary = Summary::new(&status.splits);
    if status.splits.is_empty() {
        writeln!(text, "\nno split{selection} is programmed on this node")?;
    } else if all || summary.len() <= FEW {
        for split in &status.splits {
            text.push('\n');
            text.push_str(&split_text(split)?);
        }
    } else {
        text.push('\n');
        text.push_str(&summary.text()?);
    }
    for frontend in &status.inconsistent {
        writeln!(
            text,
            "\n{frontend}  its records do not fit together; connections may pass through until the \
             agent publishes it again"
        )?;
    }
    let noteworthy: Vec<String> = counts(&status.verdicts)
        .into_iter()
        .filter(|&(_, count)| count > 0)
        .map(|(verdict, count)| format!("{verdict} {count}"))
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

/// What happened to connections, and to how many.
fn counts(verdicts: &VerdictCounts) -> [(&'static str, u64); 8] {
    [
        ("from pods that are not known", verdicts.client_unknown),
        ("from pods that are never split", verdicts.never_split),
        ("inconsistent", verdicts.inconsistent),
        ("original dst lost", verdicts.original_dst_lost),
        ("passed through", verdicts.passed_through),
        ("refused", verdicts.refused),
        (
            "refused for lack of endpoints of a leaf",
            verdicts.refused_by_leaf,
        ),
        ("split", verdicts.split),
    ]
}

//! `connections`: the live connections that were split.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use splitter_api::{Connection, Connections};

use super::node::NodeArgs;
use super::status::SelectionArgs;
use super::table::{Align, Table};
use super::{CommandOutcome, Common, print};
use crate::api;
use crate::datapath::{LiveConnection, Sockets, View};
use crate::objects::ObjectName;

/// List live connections that were split, from the pinned table of live sockets alone.
///
/// Works whether an agent runs or not, and lists those of this node's pods. Sockets that found no room in
/// the table are not listed; `status` tells how full it is.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0, done, also if there is none; 2, the command line is wrong; 3, nothing is pinned here, or
it cannot be read, or this kernel has no table of live sockets.

Examples:
  splitter-agent connections
  splitter-agent connections bookstore/bookstore-split --leaf bookstore-v1
  splitter-agent connections --older-than 1h
  splitter-agent connections -o json | jq '.connections | group_by(.leaf) | map({(.[0].leaf): length}) | add'")]
pub(super) struct ConnectionsArgs {
    #[command(flatten)]
    selection: SelectionArgs,

    /// Only those to this leaf, by its name in `status`.
    #[arg(long, value_name = "LEAF")]
    leaf: Option<String>,

    /// Only those that are older, for example 90s, 15m, 2h or 1d, and those of unknown age.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    older_than: Option<Duration>,

    /// Most connections to list, the oldest first; 0 for all.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    limit: usize,

    #[command(flatten)]
    node: NodeArgs,
}

/// A time with its unit.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a time; give a number and s, m, h or d, as in 15m");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(seconds).ok_or_else(wrong)?;
    Ok(Duration::from_secs(seconds))
}

/// What is known of a leaf that is part of a split.
struct Leaf {
    root: ObjectName,
    name: String,
    is_selected: bool,
}

pub(super) fn run(args: &ConnectionsArgs, common: &Common) -> anyhow::Result<CommandOutcome> {
    let selection = args.selection.selection_or_exit();
    let pins = common.pins();
    let view = View::open(&pins)?;
    let Some(sockets) = Sockets::open(&pins)? else {
        bail!(
            "this node has no table of live sockets: the agent's log says why its kernel cannot have one, or \
             no agent has run here"
        );
    };
    let mut leaves = HashMap::new();
    for split in view.frontends.values() {
        for (planned, counts) in split.plan.leaves.iter().zip(&split.leaves) {
            let leaf = leaves
                .entry((counts.leaf_id, counts.incarnation))
                .or_insert_with(|| Leaf {
                    root: split.plan.root.clone(),
                    name: planned.service.clone(),
                    is_selected: false,
                });
            leaf.is_selected |= selection.matches(&split.plan);
        }
    }
    let wants = |live: &LiveConnection| {
        let leaf = leaves.get(&(live.leaf_id, live.incarnation));
        let is_selected = leaf.map_or(selection.is_everything(), |leaf| leaf.is_selected);
        let is_leaf = args.leaf.as_ref();
        let is_leaf = is_leaf.is_none_or(|wanted| leaf.is_some_and(|leaf| leaf.name == *wanted));
        let is_old = args
            .older_than
            .is_none_or(|than| live.age.is_none_or(|age| age > than));
        is_selected && is_leaf && is_old
    };
    let mut live: Vec<LiveConnection> = sockets.connections().filter(wants).collect();
    // Of unknown age are those from before ages were kept.
    live.sort_by_key(|live| (live.age.is_some(), std::cmp::Reverse(live.age), live.cookie));
    let shown = if args.limit == 0 {
        live.len()
    } else {
        args.limit
    };
    let omitted = live.len().saturating_sub(shown);
    live.truncate(shown);
    let connections = live.iter().map(|live| {
        let leaf = leaves.get(&(live.leaf_id, live.incarnation));
        Connection {
            namespace: leaf.map(|leaf| leaf.root.namespace.clone()),
            root: leaf.map(|leaf| leaf.root.name.clone()),
            leaf: leaf.map(|leaf| leaf.name.clone()),
            dialled: live.dialled.to_string(),
            endpoint: live.endpoint.to_string(),
            age_seconds: live.age.map(|age| age.as_secs()),
            open: live.is_open,
            cookie: live.cookie,
        }
    });
    let connections = Connections {
        node: api::node_status(&pins, args.node.name())?.node,
        connections: connections.collect(),
        omitted,
    };
    print(common.output, &text(&connections), &connections)?;
    Ok(CommandOutcome::Done)
}

fn text(connections: &Connections) -> String {
    if connections.connections.is_empty() {
        return "no live connection matches\n".to_owned();
    }
    let mut table = Table::new(
        0,
        &[
            Align::Left,
            Align::Left,
            Align::Left,
            Align::Left,
            Align::Right,
            Align::Left,
            Align::Right,
        ],
    );
    table.row([
        "SERVICE", "LEAF", "DIALLED", "ENDPOINT", "AGE", "STATE", "SOCKET",
    ]);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for connection in &connections.connections {
        let service = connection.namespace.as_ref().zip(connection.root.as_ref());
        table.row([
            or_dash(service.map(|(namespace, root)| format!("{namespace}/{root}"))),
            or_dash(connection.leaf.clone()),
            connection.dialled.clone(),
            connection.endpoint.clone(),
            or_dash(connection.age_seconds.map(age)),
            if connection.open { "open" } else { "ended" }.to_owned(),
            format!("{:x}", connection.cookie),
        ]);
    }
    let mut text = table.render();
    if connections.omitted > 0 {
        text += &format!(
            "{} more are not listed; --limit 0 lists all\n",
            connections.omitted
        );
    }
    text
}

/// An age, by its two largest units.
fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if days > 0 {
        format!("{days}d{}h", hours % 24)
    } else if hours > 0 {
        format!("{hours}h{}m", minutes % 60)
    } else if minutes > 0 {
        format!("{minutes}m{}s", seconds % 60)
    } else {
        format!("{seconds}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_number_and_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for wrong in [
            "",
            "s",
            "90",
            "-1s",
            "1.5h",
            "1w",
            "1\u{e9}",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ages_are_told_by_their_two_largest_units() {
        for (seconds, text) in [(0, "0s"), (61, "1m1s"), (3660, "1h1m"), (90_000, "1d1h")] {
            assert_eq!(age(seconds), text);
        }
    }
}

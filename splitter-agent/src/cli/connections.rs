//! `connections`: the live connections that were split.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use splitter_api::{Connection, ConnectionPod, Connections};

use super::node::NodeArgs;
use super::status::SelectionArgs;
use super::table::{Align, Table};
use super::{CommandOutcome, Common, print};
use crate::datapath::{
    CgroupPlace, CgroupPod, CgroupPods, Hierarchy, LiveConnection, Sockets, View,
};
use crate::objects::ObjectName;

/// List live connections that were split, from the pinned table of live sockets alone.
///
/// Works whether an agent runs or not, and lists those of this node's pods. Sockets that found no room in
/// the table are not listed; `status` tells how full it is.
///
/// The pod is that of the process that connected, by its cgroup. Shown is its name if an agent on this
/// node knows it; if not, its UID; of a process in no pod its cgroup; and `-` if that is gone.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0, done, also if there is none; 2, the command line is wrong; 3, nothing is pinned here, or
it cannot be read, or this kernel has no table of live sockets.

Examples:
  splitter-agent connections
  splitter-agent connections bookstore/bookstore-split --leaf bookstore-v1
  splitter-agent connections --pod shop/web-5d9c8-x2x7k
  splitter-agent connections --older-than 1h
  splitter-agent connections -o json | jq '.connections | group_by(.leaf) | map({(.[0].leaf): length}) | add'")]
pub(super) struct ConnectionsArgs {
    #[command(flatten)]
    selection: SelectionArgs,

    /// Only those to this leaf, by its name in `status`.
    #[arg(long, value_name = "LEAF")]
    leaf: Option<String>,

    /// Only those of this pod, by its name or its UID.
    #[arg(long, value_name = "NAMESPACE/NAME|UID", value_parser = PodFilter::parse)]
    pod: Option<PodFilter>,

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

/// Which pod is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
enum PodFilter {
    Name(ObjectName),
    Uid(String),
}

impl PodFilter {
    fn parse(text: &str) -> Result<Self, String> {
        let is_label = |text: &str| {
            let is_part = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit();
            !text.is_empty() && text.chars().all(|it| is_part(it) || it == '-' || it == '.')
        };
        let is_uid = |text: &str| {
            let digits = text.chars().filter(char::is_ascii_hexdigit).count();
            digits == 32 && text.chars().all(|it| it.is_ascii_hexdigit() || it == '-')
        };
        match text.split_once('/') {
            Some((namespace, name)) if is_label(namespace) && is_label(name) => {
                Ok(Self::Name(ObjectName::new(namespace, name)))
            }
            None if is_uid(text) => Ok(Self::Uid(text.to_ascii_lowercase())),
            _ => Err("give NAMESPACE/NAME, or a UID".to_owned()),
        }
    }

    fn matches(&self, pod: Option<&CgroupPod>) -> bool {
        pod.is_some_and(|pod| match self {
            Self::Name(wanted) => pod.name.as_ref() == Some(wanted),
            Self::Uid(wanted) => pod.uid == *wanted,
        })
    }
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
    let view = View::without_sockets(&pins)?;
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
    let live: Vec<LiveConnection> = sockets.connections().filter(wants).collect();
    // After the connections were read: the group of each was there before it.
    let groups = match Hierarchy::find() {
        Ok(hierarchy) if !live.is_empty() => Some(CgroupPods::new(&hierarchy, &view.pod_names)),
        Ok(_) => None,
        Err(error) => {
            eprintln!("pods are not shown: {error}");
            None
        }
    };
    let place = |live: &LiveConnection| groups.as_ref()?.get(live.cgroup?);
    let mut live: Vec<(LiveConnection, Option<&CgroupPlace>)> =
        live.into_iter().map(|live| (live, place(&live))).collect();
    if let Some(wanted) = &args.pod {
        live.retain(|(_, place)| wanted.matches(place.and_then(|place| place.pod.as_deref())));
    }
    live.sort_by_key(|(live, _)| (live.age.is_some(), std::cmp::Reverse(live.age), live.cookie));
    let shown = if args.limit == 0 {
        live.len()
    } else {
        args.limit
    };
    let omitted = live.len().saturating_sub(shown);
    live.truncate(shown);
    let connections = live.iter().map(|(live, place)| {
        let leaf = leaves.get(&(live.leaf_id, live.incarnation));
        Connection {
            namespace: leaf.map(|leaf| leaf.root.namespace.clone()),
            root: leaf.map(|leaf| leaf.root.name.clone()),
            leaf: leaf.map(|leaf| leaf.name.clone()),
            dialled: live.dialled.to_string(),
            endpoint: live.endpoint.to_string(),
            pod: place.and_then(|place| place.pod.as_deref()).map(pod),
            cgroup: place.map(|place| place.path.display().to_string()),
            age_seconds: live.age.map(|age| age.as_secs()),
            open: live.is_open,
            cookie: live.cookie,
        }
    });
    let connections = Connections {
        node: args.node.name(),
        connections: connections.collect(),
        omitted,
    };
    let mut text = text(&connections);
    if let Some(PodFilter::Name(wanted)) = &args.pod
        && !view.pod_names.values().any(|name| name == wanted)
    {
        text += &format!(
            "no pod {wanted} is known on this node; the agent knows names while an object asks for a split, and \
             --pod takes a UID as well\n"
        );
    }
    print(common.output, &text, &connections)?;
    Ok(CommandOutcome::Done)
}

fn pod(pod: &CgroupPod) -> ConnectionPod {
    let name = pod.name.as_ref();
    ConnectionPod {
        namespace: name.map(|name| name.namespace.clone()),
        name: name.map(|name| name.name.clone()),
        uid: pod.uid.clone(),
    }
}

/// Whose a connection is, in a word.
fn client(connection: &Connection) -> Option<String> {
    let Some(pod) = &connection.pod else {
        return connection.cgroup.clone();
    };
    Some(match (&pod.namespace, &pod.name) {
        (Some(namespace), Some(name)) => format!("{namespace}/{name}"),
        _ => pod.uid.clone(),
    })
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
            Align::Left,
            Align::Right,
            Align::Left,
            Align::Right,
        ],
    );
    table.row([
        "SERVICE", "LEAF", "POD", "DIALLED", "ENDPOINT", "AGE", "STATE", "SOCKET",
    ]);
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    for connection in &connections.connections {
        let service = connection.namespace.as_ref().zip(connection.root.as_ref());
        table.row([
            or_dash(service.map(|(namespace, root)| format!("{namespace}/{root}"))),
            or_dash(connection.leaf.clone()),
            or_dash(client(connection)),
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
    fn a_pod_is_meant_by_its_name_or_by_its_uid() {
        let uid = "0c3c9dc2-3c5a-4d0b-8f0a-3a3b5b1f4f10";
        assert_eq!(PodFilter::parse(uid), Ok(PodFilter::Uid(uid.to_owned())));
        let name = PodFilter::Name(ObjectName::new("shop", "web-0"));
        assert_eq!(PodFilter::parse("shop/web-0"), Ok(name));
        for wrong in ["", "web-0", "shop/", "/web-0", "shop/web/0", "Shop/web"] {
            assert!(PodFilter::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn ages_are_told_by_their_two_largest_units() {
        for (seconds, text) in [(0, "0s"), (61, "1m1s"), (3660, "1h1m"), (90_000, "1d1h")] {
            assert_eq!(age(seconds), text);
        }
    }
}

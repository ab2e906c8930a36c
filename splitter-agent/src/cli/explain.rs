//! `explain`: what happens to a connection, and why.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use splitter_api::{Explanation, FrontendExplanation, LeafEndpoints, NextConnection};

use crate::api;
use crate::compile::{Diagnostic, compile};
use crate::datapath::{FrontendView, View};
use crate::plan::Decision;
use crate::source::manifests;

use super::node::{self, NodeArgs};
use super::status::split_text;
use super::target::Target;
use super::{ClusterArgs, CommandOutcome, Common, print};

/// How many connections ahead the pick is shown.
const AHEAD: u64 = 10;

/// Tell what happens to a connection, and why.
///
/// Reads the pinned maps of this node; no agent need run. With --manifests it also says what is wrong
/// with the objects that are not programmed.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0, every program is attached and an agent is at work; 1, not so; 2, the command line
is wrong; 3, nothing is pinned here, or it cannot be read.

Examples:
  splitter-agent explain 10.96.0.10:14001
  splitter-agent explain bookstore.bookstore
  splitter-agent explain bookstore.bookstore:14001 --manifests /etc/splitter")]
pub(super) struct ExplainArgs {
    /// ADDRESS:PORT that a client dials, or SERVICE.NAMESPACE with an optional :PORT.
    #[arg(value_name = "TARGET")]
    target: Target,

    /// Directory of manifests, to say why something is not programmed.
    #[arg(long, env = "SPLITTER_MANIFESTS", value_name = "DIR")]
    manifests: Option<PathBuf>,

    #[command(flatten)]
    cluster: ClusterArgs,

    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn run(args: &ExplainArgs, common: &Common) -> anyhow::Result<CommandOutcome> {
    let pins = common.pins();
    let diagnostics = match &args.manifests {
        Some(directory) => diagnose(directory.clone(), args)?,
        None => Vec::new(),
    };
    let view = match View::open(&pins) {
        Ok(view) => view,
        Err(error) => {
            // What is wrong with the objects is worth knowing all the same.
            for diagnostic in &diagnostics {
                eprintln!("{diagnostic}");
            }
            return Err(error.into());
        }
    };
    let node = api::node_status(&pins, &view, args.node.name())?;
    let frontends = view
        .frontends
        .iter()
        .filter(|(frontend, view)| args.target.matches(frontend, &view.plan))
        .map(|(frontend, view)| FrontendExplanation {
            split: api::split(
                *frontend,
                view,
                api::is_looked_up(&node.attachment, frontend.address),
            ),
            endpoints: view
                .plan
                .leaves
                .iter()
                .map(|leaf| LeafEndpoints {
                    service: leaf.service.clone(),
                    addresses: leaf.endpoints.iter().map(ToString::to_string).collect(),
                })
                .collect(),
            next: next_connections(view),
        })
        .collect();
    let explained = Explanation {
        node,
        frontends,
        diagnostics: diagnostics.iter().cloned().map(Into::into).collect(),
    };
    print(
        common.output,
        &text(&explained, &diagnostics, args)?,
        &explained,
    )?;
    Ok(node::outcome(&explained.node))
}

/// What is said about the objects that have to do with the target.
fn diagnose(directory: PathBuf, args: &ExplainArgs) -> anyhow::Result<Vec<Diagnostic>> {
    args.cluster.add_kinds()?;
    let snapshot = manifests::read_once(&[directory])?;
    let compiled = compile(&snapshot.objects, &args.cluster.settings());
    let origins: Vec<_> = compiled
        .plan
        .frontends
        .iter()
        .filter(|(frontend, split)| args.target.matches(frontend, split))
        .map(|(_, split)| split.origin.object())
        .collect();
    let concerns = |diagnostic: &Diagnostic| {
        let object = &diagnostic.object;
        let route = snapshot.objects.routes.get(object);
        let roots = route.into_iter().flat_map(|it| it.content.written_roots());
        origins.contains(object)
            || roots
                .into_iter()
                .any(|root| names(root, &object.name.namespace, &args.target))
    };
    Ok(snapshot
        .problems
        .into_iter()
        .chain(compiled.diagnostics.into_iter().filter(concerns))
        .collect())
}

/// Whether the root that an object writes is the target: as a Service of its own namespace, or of
/// the one that it writes (which a TrafficSplit is then refused for, and that is worth saying).
fn names(service: &str, namespace: &str, target: &Target) -> bool {
    let Target::Service {
        namespace: target_namespace,
        name: target_name,
        ..
    } = target
    else {
        return false;
    };
    let host = service.split(':').next().unwrap_or_default();
    let mut labels = host.split('.');
    let is = |label: Option<&str>, wanted: &str| {
        label.is_some_and(|label| label.eq_ignore_ascii_case(wanted))
    };
    is(labels.next(), target_name)
        && (namespace == target_namespace || is(labels.next(), target_namespace))
}

/// The leaf and endpoint of the next connections, by the code that the kernel runs.
fn next_connections(view: &FrontendView) -> Vec<NextConnection> {
    if view.plan.decision != Decision::Split {
        return Vec::new();
    }
    let mut turns: Vec<u64> = view.leaves.iter().map(|leaf| leaf.connections).collect();
    let lattice = view.lattice();
    (0..AHEAD)
        .map_while(|ahead| {
            let index = view.leaf_of(view.connections.wrapping_add(ahead))?;
            let leaf = view.plan.leaves.get(index)?;
            let turn = turns.get_mut(index)?;
            let endpoint = lattice.endpoint(index as u32, *turn, leaf.endpoints.len() as u32);
            *turn += 1;
            let endpoint = endpoint.and_then(|endpoint| leaf.endpoints.get(endpoint as usize));
            Some(NextConnection {
                service: leaf.service.clone(),
                endpoint: endpoint.map(ToString::to_string),
            })
        })
        .collect()
}

fn text(
    explained: &Explanation,
    diagnostics: &[Diagnostic],
    args: &ExplainArgs,
) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    if !explained.node.is_at_work() {
        text.push_str(&node::text(&explained.node)?);
        text.push('\n');
    }
    if explained.frontends.is_empty() {
        let what = match &args.target {
            Target::Address(address) => address.to_string(),
            Target::Ip(address) => address.to_string(),
            Target::Service {
                namespace, name, ..
            } => format!("Service {namespace}/{name}"),
        };
        writeln!(
            text,
            "{what} is not split: no frontend of it is in the maps, so connections to it are not \
             touched."
        )?;
        if args.manifests.is_none() {
            writeln!(
                text,
                "What is wrong with an object that should split it, `kubectl describe` of the object \
                 tells on a cluster, and --manifests DIR without one."
            )?;
        }
    }
    for (number, frontend) in explained.frontends.iter().enumerate() {
        if number > 0 {
            text.push('\n');
        }
        text.push_str(&split_text(&frontend.split)?);
        for leaf in &frontend.endpoints {
            if !leaf.addresses.is_empty() {
                writeln!(
                    text,
                    "  endpoints of {}: {}",
                    leaf.service,
                    leaf.addresses.join(", ")
                )?;
            }
        }
        if !frontend.next.is_empty() {
            writeln!(text, "  next connections:")?;
            for next in &frontend.next {
                let endpoint = next.endpoint.as_deref().unwrap_or("refused");
                writeln!(text, "    {} {endpoint}", next.service)?;
            }
        }
    }
    for diagnostic in diagnostics {
        writeln!(text, "{diagnostic}")?;
    }
    Ok(text)
}

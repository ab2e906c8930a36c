//! `check`: judge manifests without touching anything.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::bail;
use clap::Args;

use crate::judge::{Verdict, judge};
use crate::objects::{Kind, ObjectName};
use crate::source::manifests;

use super::{ClusterArgs, CommandOutcome, Common, print};

/// How many objects a line names.
const MOST_NAMES: usize = 3;

/// Judge manifests without touching anything; exit 1 if something is refused.
///
/// Says what the agent would say of TrafficSplits (SMI) and of routes of the Gateway API; and what
/// the API server would with the TrafficSplit CRD of this project, in the version that each
/// TrafficSplit is written in.
///
/// What the files do not contain does not exist for this command: give it the Services that a
/// split names as well, or it says that they are missing. Only what a cluster adds by itself is
/// taken to be there: a Service's clusterIP, and its EndpointSlices. Of two objects with one
/// name the first counts, by path and then by place in the file, and the second is refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0, nothing is refused; 1, something is, or with --strict there is a warning or a
split that waits for something; 3, nothing asks for a split, or a file cannot be found.

Examples:
  splitter-agent check canary.yaml services.yaml
  splitter-agent check manifests/ -o json
  kustomize build production | splitter-agent check --strict -
  kubectl get services,endpointslices,httproutes -o yaml | splitter-agent check -")]
pub(super) struct CheckArgs {
    /// Files, directories of files, or - for standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Exit 1 also for warnings, and for splits whose root is missing or cannot be split.
    #[arg(long)]
    strict: bool,

    #[command(flatten)]
    cluster: ClusterArgs,
}

pub(super) fn run(args: &CheckArgs, common: &Common) -> anyhow::Result<CommandOutcome> {
    args.cluster.add_kinds()?;
    let reading = manifests::read_to_judge(&args.files)?;
    let verdict = judge(&reading, &args.cluster.settings());
    print(common.output, &text(&verdict)?, &verdict)?;
    if verdict.refused {
        return Ok(CommandOutcome::Refused);
    }
    if verdict.splits == 0 {
        let objects = &reading.snapshot.objects;
        if objects.services.is_empty()
            && objects.endpoint_slices.is_empty()
            && verdict.not_read.is_empty()
        {
            bail!("there is nothing to judge: the input has no objects; give manifests");
        }
        let kinds: Vec<&str> = Kind::routes().map(Kind::name).collect();
        bail!(
            "there is nothing to judge: the input has no object that asks splitter for a split ({}); \
             give one, with the Services that it names",
            kinds.join(", ")
        );
    }
    if args.strict && !verdict.is_clean() {
        return Ok(CommandOutcome::Refused);
    }
    Ok(CommandOutcome::Done)
}

fn text(verdict: &Verdict) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    for diagnostic in &verdict.diagnostics {
        writeln!(text, "{diagnostic}")?;
    }
    let assumed = &verdict.assumed;
    for (what, services) in [
        ("clusterIP", &assumed.cluster_ips),
        ("endpoints", &assumed.endpoints),
    ] {
        // Without a split this is of no interest.
        if !services.is_empty() && verdict.splits > 0 {
            let services = names(services);
            writeln!(
                text,
                "note: taken to get {what} from the cluster: {services}; for `run --manifests` \
                 write them"
            )?;
        }
    }
    if !verdict.not_read.is_empty() {
        let kinds = verdict.not_read.iter();
        let kinds: Vec<String> = kinds
            .map(|unread| format!("{} {}", unread.count, unread.kind))
            .collect();
        writeln!(text, "note: not read: {}", kinds.join(", "))?;
    }
    Ok(text)
}

/// The first names, and how many there are more.
fn names(objects: &[ObjectName]) -> String {
    let mut names: Vec<String> = objects
        .iter()
        .take(MOST_NAMES)
        .map(|object| format!("Service {object}"))
        .collect();
    if objects.len() > MOST_NAMES {
        names.push(format!("{} more", objects.len() - MOST_NAMES));
    }
    names.join(", ")
}

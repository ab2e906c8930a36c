//! `check`: judge manifests without touching anything.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::compile::{Diagnostic, Severity, compile};
use crate::source::manifests;

use super::{ClusterArgs, Common, Outcome, print};

/// Judge manifests without touching anything; exit 1 if something is refused.
///
/// What the files do not contain does not exist for this command: give it the Services
/// that a split names as well, or it says that they are missing.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0, nothing is refused; 1, something is; 3, a file cannot be found.

Examples:
  splitter-agent check canary.yaml
  splitter-agent check manifests/ -o json
  kubectl get services,endpointslices,trafficsplits -o yaml | splitter-agent check -")]
pub(super) struct CheckArgs {
    /// Files, directories of files, or - for standard input.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    cluster: ClusterArgs,
}

#[derive(Serialize)]
struct Report {
    refused: bool,
    diagnostics: Vec<Diagnostic>,
}

pub(super) fn run(args: &CheckArgs, common: &Common) -> anyhow::Result<Outcome> {
    let snapshot = manifests::read_once(&args.files)?;
    let compiled = compile(&snapshot.objects, &args.cluster.settings());
    let mut diagnostics = snapshot.problems;
    diagnostics.extend(compiled.diagnostics);
    let refused = diagnostics
        .iter()
        .any(|diagnostic| diagnostic.severity == Severity::Refused);
    let mut text = String::new();
    for diagnostic in &diagnostics {
        writeln!(text, "{diagnostic}")?;
    }
    if diagnostics.is_empty() {
        writeln!(text, "no TrafficSplit found")?;
    }
    print(
        common.output,
        &text,
        &Report {
            refused,
            diagnostics,
        },
    )?;
    Ok(if refused {
        Outcome::Refused
    } else {
        Outcome::Done
    })
}

//! `cargo xtask test`: the tests of the workspace, by what they need.

use std::ffi::OsStr;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use testbed::cluster::tools::{self, Part};
use testbed::packages::{self, Requirement};
use testbed::preflight;
use testbed::workspace::{cargo, run, say};

use crate::build_ebpf;
use crate::image::{self, Kind};
use crate::kernels::{self, Unavailable};

/// Some tests look at the maps with it as people do; not every distribution has it.
const BPFTOOL: Requirement =
    Requirement::program("bpftool", "to look at maps in tests", &["bpftool"]);

/// What `cargo xtask test` takes.
#[derive(Args, Clone, Debug)]
pub struct TestArgs {
    /// Run the tests of this tier alone; can be repeated [default: all tests]
    #[arg(long, value_enum, value_name = "TIER")]
    tier: Vec<Tier>,

    /// Arguments for `cargo test`
    #[arg(allow_hyphen_values = true, value_name = "CARGO_ARGUMENT")]
    cargo_arguments: Vec<String>,

    /// Arguments for the test programs
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Tests by what they need, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Tier {
    /// Nothing: no root, no kernel program, seconds
    Unit,
    /// Root and a kernel: the programs at work in network namespaces and cgroups
    Lab,
    /// An API server without nodes as well
    Api,
    /// A whole cluster on this machine, and the images
    Cluster,
    /// QEMU: a few tests of the lab in two other kernels
    Kernels,
}

/// The test programs of each tier beside those in libraries and binaries, which are `Unit`; by the
/// package and the name.
const TESTS: [(Tier, &str, &str); 19] = [
    (Tier::Unit, "splitter-agent", "apis"),
    (Tier::Unit, "splitter-agent", "grants"),
    (Tier::Unit, "splitter-agent", "manifests"),
    (Tier::Unit, "splitter-agent", "memory"),
    (Tier::Unit, "splitter-agent", "semantics"),
    (Tier::Unit, "splitter-common", "pick"),
    (Tier::Unit, "splitter-common", "sockets"),
    (Tier::Lab, "splitter-agent", "agent"),
    (Tier::Lab, "splitter-agent", "attach"),
    (Tier::Lab, "splitter-agent", "datapath"),
    (Tier::Lab, "splitter-agent", "report"),
    (Tier::Lab, "testbed", "lab"),
    (Tier::Api, "splitter-agent", "feedback"),
    (Tier::Api, "splitter-agent", "kinds"),
    (Tier::Api, "splitter-agent", "kubernetes"),
    (Tier::Api, "testbed", "deploy"),
    (Tier::Cluster, "testbed", "cluster"),
    (Tier::Cluster, "testbed", "end_to_end"),
    (Tier::Cluster, "xtask", "image"),
];

impl Tier {
    fn requirements(self) -> Result<Vec<Requirement>> {
        Ok(match self {
            Self::Unit => Vec::new(),
            Self::Lab => vec![packages::IP],
            Self::Api => tools::requirements(Part::ApiServer)?,
            Self::Cluster => {
                let mut requirements = tools::requirements(Part::Nodes)?;
                requirements.extend(image::requirements_for_this_machine());
                requirements.push(packages::CURL);
                requirements
            }
            // What it needs it gets when its turn comes: without that the others are run all the same.
            Self::Kernels => Vec::new(),
        })
    }

    /// Builds what its tests would build otherwise, where nobody sees why they take so long.
    fn build(self) -> Result<()> {
        match self {
            Self::Unit | Self::Lab | Self::Kernels => {}
            Self::Api => {
                tools::ensure(Part::ApiServer)?;
                tools::helm()?;
            }
            Self::Cluster => {
                tools::ensure(Part::Nodes)?;
                tools::helm()?;
                for kind in [Kind::Agent, Kind::Examples] {
                    image::build(&image::Options::for_this_machine(kind))?;
                }
            }
        }
        Ok(())
    }

    /// The arguments that choose its tests from those of the workspace.
    fn selection(self) -> Vec<String> {
        let mut selection: Vec<String> = match self {
            Self::Unit => vec!["--lib".into(), "--bins".into()],
            _ => Vec::new(),
        };
        let tests = TESTS.iter().filter(|(tier, ..)| *tier == self);
        selection.extend(tests.map(|(_, _, name)| format!("--test={name}")));
        selection
    }
}

/// Checks the machine, builds what is needed and runs `cargo test` for the whole workspace, or for
/// what the arguments choose. Then, if all tests are run or it is asked for, some in other kernels.
///
/// # Errors
///
/// When the machine lacks something, something does not compile or a test fails.
pub fn test(test: &TestArgs) -> Result<()> {
    let is_plain = test.cargo_arguments.is_empty() && test.arguments.is_empty();
    if !test.tier.contains(&Tier::Kernels) {
        test_on_this_kernel(test)?;
        // Who names tests means those.
        if test.tier.is_empty() && is_plain {
            for Unavailable { kernel, reason } in kernels::run_brief()? {
                say(format_args!("NOT TESTED in the kernel {kernel}: {reason}"));
            }
        }
        return Ok(());
    }
    let mut others = test.clone();
    others.tier.retain(|tier| *tier != Tier::Kernels);
    if !others.tier.is_empty() {
        test_on_this_kernel(&others)?;
    } else if !is_plain {
        bail!(
            "the tests of the tier \"kernels\" are always the same; choose others with `cargo xtask \
             test-kernels --kernel 5.15 FILTER`"
        );
    }
    let unavailable = kernels::run_brief()?;
    if !unavailable.is_empty() {
        let list = unavailable.iter();
        let list = list.map(|it| format!("{}: {}", it.kernel, it.reason));
        bail!(
            "these kernels cannot be had:\n  - {}",
            list.collect::<Vec<_>>().join("\n  - ")
        );
    }
    Ok(())
}

/// The tests that `cargo test` runs.
fn test_on_this_kernel(test: &TestArgs) -> Result<()> {
    let TestArgs {
        tier: chosen,
        cargo_arguments,
        arguments,
    } = test;
    let mut selection = Vec::new();
    let mut tiers = chosen.clone();
    if tiers.is_empty() {
        // Those of a single package build and ask for the rest as they need it.
        let is_whole = !names_a_package(cargo_arguments);
        tiers = match is_whole {
            true => Tier::value_variants().to_vec(),
            false => vec![Tier::Lab],
        };
        selection.extend(is_whole.then(|| "--workspace".to_owned()));
    } else {
        tiers.sort_unstable();
        tiers.dedup();
        selection.push("--workspace".to_owned());
        selection.extend(tiers.iter().flat_map(|tier| tier.selection()));
    }
    if tiers != [Tier::Unit] {
        prepare(&tiers)?;
    }
    let mut command = cargo();
    command.arg("test").env("PATH", packages::search_path());
    command.args(selection).args(cargo_arguments);
    if !arguments.is_empty() {
        command.arg("--").args(arguments);
    }
    let line: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    say(format_args!("running cargo {}", line.join(" ")));
    run(&mut command)
}

/// Sees to it that this machine has what these tiers need, of which each loads the kernel programs.
fn prepare(tiers: &[Tier]) -> Result<()> {
    let mut requirements = Vec::new();
    for tier in tiers {
        requirements.extend(tier.requirements()?);
    }
    preflight::check("test", &requirements)?;
    if tiers != [Tier::Api] {
        packages::try_ensure(&BPFTOOL, "what it takes bpftool to see is not tested");
    }
    if tiers.contains(&Tier::Lab) {
        packages::try_ensure(&packages::DIG, "how dig asks name servers is not tested");
    }
    build_ebpf::build()?;
    tiers.iter().try_for_each(|tier| tier.build())
}

fn names_a_package(cargo_arguments: &[String]) -> bool {
    cargo_arguments.iter().any(|argument| {
        argument.starts_with("-p") || argument == "--package" || argument.starts_with("--package=")
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;
    use testbed::workspace::output;

    use super::*;

    #[test]
    fn a_package_replaces_the_workspace() {
        let names = |line: &str| {
            let arguments: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            names_a_package(&arguments)
        };
        assert!(names("-p splitter-agent"));
        assert!(names("--test attach --package=splitter-agent"));
        assert!(!names("--test attach"));
        assert!(!names(""));
    }

    #[test]
    fn every_test_program_is_of_one_tier_and_chosen_by_its_name() {
        let json = output(cargo().args(["metadata", "--no-deps", "--format-version=1"])).unwrap();
        let metadata: Value = serde_json::from_str(&json).unwrap();
        let mut found = BTreeSet::new();
        for package in metadata["packages"].as_array().unwrap() {
            for target in package["targets"].as_array().unwrap() {
                if target["kind"][0] == "test" {
                    let text = |value: &Value| value.as_str().unwrap().to_owned();
                    found.insert((text(&package["name"]), text(&target["name"])));
                }
            }
        }
        let known = TESTS.map(|(_, package, name)| (package.to_owned(), name.to_owned()));
        assert_eq!(BTreeSet::from(known), found);
        let names: BTreeSet<_> = TESTS.iter().map(|(.., name)| name).collect();
        assert_eq!(names.len(), TESTS.len(), "a name is of one package alone");
    }
}

//! Which dependencies are welcome: their licences, where they come from, and some that are
//! not. The rules are those of `deny.toml`. cargo-deny applies them where it is installed; elsewhere
//! a check of our own does that applies the part of them which needs no network.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use spdx::{Expression, Licensee, ParseMode};
use testbed::workspace::{cargo, output, root, run, say};

/// Checks every dependency that the lock file names for the targets of `deny.toml`.
///
/// # Errors
///
/// Names every dependency that breaks a rule, and the rule.
pub fn check() -> Result<()> {
    if cargo_deny_is_installed() {
        run(cargo_deny().args(["--offline", "check", "bans", "licenses", "sources"]))?;
    } else {
        say("cargo-deny is not installed: the part of its rules that xtask knows is checked");
        check_without_cargo_deny()?;
    }
    say("advisories are not checked, that takes a network: `cargo deny check advisories`");
    Ok(())
}

fn check_without_cargo_deny() -> Result<()> {
    let rules = fs::read_to_string(root().join("deny.toml")).context("cannot read deny.toml")?;
    let rules = Rules::parse(&rules).context("deny.toml")?;
    let packages = packages(&rules.targets)?;
    let default_registry = default_registry(&packages);
    let problems: Vec<_> = packages
        .iter()
        .flat_map(|package| rules.problems(package, default_registry))
        .collect();
    if !problems.is_empty() {
        bail!("deny.toml forbids:\n  - {}", problems.join("\n  - "));
    }
    say(format_args!(
        "licences and sources of {} crates are allowed, and none is banned",
        packages.len()
    ));
    Ok(())
}

fn cargo_deny() -> Command {
    let mut command = cargo();
    command.arg("deny");
    command
}

fn cargo_deny_is_installed() -> bool {
    let version = cargo_deny()
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// A package of `cargo metadata`.
#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    /// None for the workspace's own.
    source: Option<String>,
    #[serde(default)]
    dependencies: Vec<Dependency>,
}

/// What a package asks for.
#[derive(Deserialize)]
struct Dependency {
    source: Option<String>,
    /// None for cargo's default registry.
    registry: Option<String>,
}

fn packages(targets: &[String]) -> Result<Vec<Package>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let mut metadata = cargo();
    metadata.args(["metadata", "--locked", "--format-version=1"]);
    for target in targets {
        metadata.args(["--filter-platform", target]);
    }
    let json = output(&mut metadata)?;
    let metadata: Metadata = serde_json::from_str(&json).context("cargo metadata")?;
    Ok(metadata.packages)
}

/// The source of everything that comes from cargo's default registry, as cargo itself names it:
/// only dependencies on other registries name theirs.
fn default_registry(packages: &[Package]) -> Option<&str> {
    packages
        .iter()
        .flat_map(|package| &package.dependencies)
        .filter(|dependency| dependency.registry.is_none())
        .filter_map(|dependency| dependency.source.as_deref())
        .find(|source| source.starts_with("registry+"))
}

/// What `deny.toml` says, as far as it is checked here.
struct Rules {
    targets: Vec<String>,
    licences: Vec<Licensee>,
    banned: Vec<Ban>,
}

/// A package that may not be used.
#[derive(Deserialize)]
struct Ban {
    #[serde(rename = "crate")]
    name: String,
    reason: String,
}

impl Rules {
    fn parse(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct File {
            graph: Graph,
            licenses: Licenses,
            bans: Bans,
        }
        #[derive(Deserialize)]
        struct Graph {
            targets: Vec<String>,
        }
        #[derive(Deserialize)]
        struct Licenses {
            allow: Vec<String>,
        }
        #[derive(Deserialize)]
        struct Bans {
            deny: Vec<Ban>,
        }
        let file: File = toml::from_str(text)?;
        let licences = file.licenses.allow.iter().map(|licence| {
            Licensee::parse(licence).map_err(|error| anyhow::anyhow!("{licence}: {}", error.reason))
        });
        Ok(Self {
            targets: file.graph.targets,
            licences: licences.collect::<Result<_>>()?,
            banned: file.bans.deny,
        })
    }

    fn problems(&self, package: &Package, default_registry: Option<&str>) -> Vec<String> {
        let Package {
            name,
            version,
            license,
            source,
            ..
        } = package;
        let mut problems = Vec::new();
        match license {
            None => problems.push(format!("{name} {version}: it names no licence")),
            Some(licence) if !self.allows(licence) => {
                problems.push(format!("{name} {version}: its licence {licence}"));
            }
            Some(_) => {}
        }
        if let Some(source) = source
            .as_deref()
            .filter(|source| Some(*source) != default_registry)
        {
            problems.push(format!("{name} {version}: its source {source}"));
        }
        if let Some(ban) = self.banned.iter().find(|ban| ban.name == *name) {
            problems.push(format!("{name} {version}: {}", ban.reason));
        }
        problems
    }

    /// Whether the allowed licences satisfy the expression; nonsense they do not.
    fn allows(&self, licence: &str) -> bool {
        let expression = Expression::parse_mode(licence, ParseMode::LAX);
        expression.is_ok_and(|expression| {
            expression.evaluate(|wanted| self.licences.iter().any(|have| have.satisfies(wanted)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules::parse(
            r#"
            [graph]
            targets = []
            [licenses]
            allow = ["MIT", "Unicode-3.0", "Apache-2.0 WITH LLVM-exception"]
            [bans]
            deny = [{ crate = "openssl", reason = "rustls does that" }]
            "#,
        )
        .unwrap()
    }

    #[test]
    fn licence_expressions_are_evaluated() {
        for (licence, allowed) in [
            ("MIT", true),
            ("Apache-2.0 OR MIT", true),
            ("MIT/Apache-2.0", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("Apache-2.0 WITH LLVM-exception", true),
            ("Apache-2.0", false),
            ("MIT AND GPL-2.0-only", false),
            ("ask me", false),
        ] {
            assert_eq!(rules().allows(licence), allowed, "{licence}");
        }
    }

    #[test]
    fn every_broken_rule_is_named() {
        let default = "registry+https://registry.example/index";
        let problems = |name: &str, license: Option<&str>, source: &str| {
            let package = Package {
                name: name.into(),
                version: "1.0.0".into(),
                license: license.map(Into::into),
                source: Some(source.into()),
                dependencies: Vec::new(),
            };
            rules().problems(&package, Some(default))
        };
        assert!(problems("serde", Some("MIT"), default).is_empty());
        assert_eq!(
            problems("serde", Some("MIT"), "registry+https://other.example/index"),
            ["serde 1.0.0: its source registry+https://other.example/index"]
        );
        assert_eq!(
            problems("openssl", None, "git+https://example.com/openssl"),
            [
                "openssl 1.0.0: it names no licence",
                "openssl 1.0.0: its source git+https://example.com/openssl",
                "openssl 1.0.0: rustls does that",
            ]
        );
    }

    #[test]
    fn the_default_registry_is_the_one_that_dependencies_do_not_name() {
        let package = |registry: Option<&str>, source: &str| Package {
            name: "serde".into(),
            version: "1.0.0".into(),
            license: None,
            source: None,
            dependencies: vec![Dependency {
                source: Some(source.into()),
                registry: registry.map(Into::into),
            }],
        };
        let packages = [
            package(
                Some("https://other.example/index"),
                "registry+https://other.example/index",
            ),
            package(None, "git+https://example.com/serde"),
            package(None, "registry+https://default.example/index"),
        ];
        let default = "registry+https://default.example/index";
        assert_eq!(default_registry(&packages), Some(default));
        assert_eq!(default_registry(&packages[..2]), None);
    }

    #[test]
    fn the_rules_of_the_workspace_can_be_read() {
        let rules = fs::read_to_string(root().join("deny.toml")).unwrap();
        let rules = Rules::parse(&rules).unwrap();
        assert!(rules.allows("Apache-2.0 OR MIT"), "our own");
        assert!(!rules.allows("AGPL-3.0-only"));
    }
}

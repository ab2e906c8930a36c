//! `--keep`: leaving the cluster up, and saying how to look around in it.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::site::{CLIENTS, SYSTEM, Site};
use crate::scenario::Scenario;
use crate::screen::Screen;

/// Leaves the cluster to the user.
pub(super) fn leave(site: Site, screen: &mut Screen) -> Result<()> {
    let kubectl = site.cluster.tools().program("kubectl")?;
    let export = export_line(&site.cluster.kubeconfig(), &kubectl, &search_path());
    let name = site.cluster.name().to_owned();
    let step = site.steps.first().map(|file| file.path.as_str());
    let entries = entries(site.scenario, step, export, &name);
    site.cluster.detach()?;

    let mut lines = vec![String::new(), screen.heading("The cluster stays up.")];
    for (what, command) in entries {
        lines.push(format!("  {}", screen.aside(&format!("# {what}"))));
        lines.push(format!("  {command}"));
    }
    Ok(screen.print(&lines)?)
}

/// What one may want to do, and how.
fn entries(
    scenario: &Scenario,
    step: Option<&str>,
    export: String,
    name: &str,
) -> Vec<(&'static str, String)> {
    let Scenario {
        namespace, split, ..
    } = scenario;
    let url = scenario.on_cluster.url;
    let mut entries = vec![
        ("first of all, for kubectl", export),
        ("every split", "kubectl get ts --all-namespaces".to_owned()),
        (
            "what the agents say about it",
            format!("kubectl -n {namespace} describe ts {split}"),
        ),
        (
            "what the kernel of a node does",
            format!("kubectl -n {SYSTEM} exec ds/splitter-agent -- splitter-agent status"),
        ),
        (
            "ask from a pod",
            format!("kubectl -n {CLIENTS} exec ds/client -- example get {url} --count 100"),
        ),
        (
            "change the weights",
            format!("kubectl -n {namespace} edit ts {split}"),
        ),
    ];
    if let Some(step) = step {
        entries.push(("or play a step again", format!("kubectl apply -f {step}")));
    }
    entries.push((
        "take everything down",
        format!("cargo xtask cluster --name {name} down"),
    ));
    entries
}

/// What makes kubectl know the cluster, and the shell know kubectl where it is not installed.
fn export_line(kubeconfig: &Path, kubectl: &Path, path: &[PathBuf]) -> String {
    let mut line = format!("export KUBECONFIG={}", kubeconfig.display());
    let is_installed = path.iter().any(|it| it.join("kubectl").is_file());
    if let Some(directory) = kubectl.parent().filter(|_| !is_installed) {
        line += &format!(" PATH=\"$PATH:{}\"", directory.display());
    }
    line
}

fn search_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::scenario::BOOKSTORE;

    #[test]
    fn the_path_is_extended_only_where_kubectl_is_not_installed() {
        let installed = tempfile::tempdir().unwrap();
        fs::write(installed.path().join("kubectl"), "").unwrap();
        let line = |path: &[PathBuf]| {
            export_line(Path::new("/run/config"), Path::new("/cache/kubectl"), path)
        };
        assert_eq!(
            line(&[installed.path().to_owned()]),
            "export KUBECONFIG=/run/config"
        );
        assert_eq!(
            line(&[]),
            "export KUBECONFIG=/run/config PATH=\"$PATH:/cache\""
        );
    }

    #[test]
    fn the_last_entry_takes_the_cluster_down() {
        let entries = entries(&BOOKSTORE, Some("step.yaml"), String::new(), "demo-1");
        let last = entries.last().expect("entries");
        assert_eq!(last.1, "cargo xtask cluster --name demo-1 down");
    }
}

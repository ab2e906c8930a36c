//! `--keep`: how to look around on the stage, and waiting until that is over.

use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result};
use testbed::lab::names::Published;

use super::interrupt;
use super::manifests::SPLIT_FILE;
use super::scene::Scene;
use super::screen::Screen;

/// Prints how to look around, and waits for Ctrl-C.
pub(crate) fn wait(scene: &Scene, screen: &mut Screen) -> Result<()> {
    let script = write_script(scene)?;
    let pins = scene.lab.pin_directory();
    let status = scene.agent.status_command();
    let status: Vec<_> = std::iter::once(status.get_program())
        .chain(status.get_args())
        .map(|word| word.to_string_lossy())
        .collect();
    let networks: Vec<_> = scene.names.iter().map(Published::name).collect();
    let entries = [
        (
            format!("ask as {} does", scene.scenario.client),
            format!("sh {} curl -sI {}", script.display(), scene.scenario.url()),
        ),
        ("what the agent knows".to_owned(), status.join(" ")),
        (
            "what the kernel knows".to_owned(),
            format!("bpftool map dump pinned {}/v2/FRONTENDS", pins.display()),
        ),
        (
            "change the weights".to_owned(),
            format!(
                "edit {}",
                scene.manifests.directory().join(SPLIT_FILE).display()
            ),
        ),
        (
            "what the agent does".to_owned(),
            format!("tail -f {}", scene.agent.log().display()),
        ),
        (
            "the pods' networks".to_owned(),
            format!("ip netns exec NAME ...   {}", networks.join(" ")),
        ),
    ];
    let mut lines = vec![String::new(), screen.heading("Everything is still there.")];
    for (what, command) in &entries {
        lines.push(format!("  {}", screen.aside(&format!("# {what}"))));
        lines.push(format!("  {command}"));
    }
    lines.push(String::new());
    lines.push("Ctrl-C cleans up.".to_owned());
    screen.print(&lines)?;
    while !interrupt::requested() {
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Writes a script that runs a command as a process of the client's pod.
///
/// `ip netns exec` alone would not do: it enters the network, but connections are split by the
/// cgroup of the process that makes them.
fn write_script(scene: &Scene) -> Result<PathBuf> {
    let client = scene.scenario.client;
    let name = scene
        .names
        .first()
        .map(Published::name)
        .context("the client has no name")?;
    let path = scene.directory.path().join(format!("in-{client}"));
    let text = format!(
        "\
#!/bin/sh
# Runs a command as a process of the pod {client}: in its cgroup, with its network and its hosts.
echo $$ > '{}/cgroup.procs' || exit
exec ip netns exec '{name}' \"$@\"
",
        scene.client_pod.cgroup().display()
    );
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

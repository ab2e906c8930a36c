//! How a supervisor finds out that what it started does its work.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};

use super::request::Target;
use super::space::{Space, log_to};
use super::supervisor::Supervisor;
use super::{address, config};

/// How long each step of the start may take; most take a second.
const PATIENCE: Duration = Duration::from_secs(90);

/// The arguments of `ctr` that import an image from its input.
pub(super) const IMPORT: [&str; 7] = [
    "--address",
    config::CONTAINERD,
    "--namespace",
    "k8s.io",
    "images",
    "import",
    "-",
];

impl Supervisor<'_> {
    /// Waits until `condition` holds, which is up to `program`. Fails when any program ends.
    pub(super) fn wait(
        &mut self,
        program: &str,
        condition: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        self.wait_while(program, Self::check, condition)
    }

    /// Waits until `program`, which was started again, does what others rely on.
    pub(super) fn wait_for_restarted(&mut self, target: &Target) -> Result<()> {
        let program = target.program.as_str();
        self.wait_while(program, Self::check_owner, |it| match program {
            "etcd" => Ok(answers(it.control_plane()?, address::ETCD)),
            "kube-apiserver" => Ok(it.kubectl(&["get", "--raw", "/readyz"]).is_ok()),
            "containerd" => {
                let mut nodes = it.parts.nodes.iter();
                let node = nodes.find(|node| Some(&node.name) == target.node.as_ref());
                Ok(node.is_some_and(|node| containerd_answers(&node.space)))
            }
            _ => Ok(true),
        })
    }

    /// Waits until `condition` holds, as long as `check` finds nothing.
    fn wait_while(
        &mut self,
        program: &str,
        check: impl Fn(&mut Self) -> Result<()>,
        mut condition: impl FnMut(&mut Self) -> Result<bool>,
    ) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            check(self)?;
            // What cannot be asked yet may be asked later.
            let outcome = condition(self);
            if matches!(outcome, Ok(true)) {
                return Ok(());
            }
            if Instant::now() > deadline {
                let words: Vec<_> = self
                    .services()
                    .filter(|service| service.name() == program)
                    .map(|service| service.last_words())
                    .collect();
                let error = outcome.err().unwrap_or_else(|| anyhow!("not yet ready"));
                return Err(error.context(format!(
                    "{program} did not come up within {} s; {}",
                    PATIENCE.as_secs(),
                    words.join("\n")
                )));
            }
            sleep(Duration::from_millis(100));
        }
    }

    pub(super) fn kubectl(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let output = Command::new(self.tools.program("kubectl")?)
            .env("KUBECONFIG", self.directory.kubeconfig())
            .args(["--request-timeout=5s"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(output.stdout)
    }

    /// Whether pods can be put on every node.
    pub(super) fn nodes_are_ready(&mut self) -> Result<bool> {
        let nodes = self.kubectl(&["get", "nodes", "--output=json"])?;
        let nodes: serde_json::Value = serde_json::from_slice(&nodes)?;
        let is_ready = |node: &serde_json::Value| {
            let conditions = node["status"]["conditions"].as_array();
            node["spec"]["taints"].is_null()
                && conditions.is_some_and(|conditions| {
                    let ready =
                        |it: &serde_json::Value| it["type"] == "Ready" && it["status"] == "True";
                    conditions.iter().any(ready)
                })
        };
        let nodes = nodes["items"].as_array().context("no list of nodes")?;
        Ok(nodes.len() == self.options.nodes && nodes.iter().all(is_ready))
    }

    /// A condition that holds when the image is on every node.
    pub(super) fn load_everywhere(image: &Path) -> impl FnMut(&mut Self) -> Result<bool> {
        let mut done = 0;
        let image = image.to_owned();
        move |it| {
            while let Some(node) = it.parts.nodes.get(done) {
                if !containerd_answers(&node.space) {
                    return Ok(false);
                }
                let mut import = Command::new(it.tools.program("ctr")?);
                import.args(IMPORT).stdin(File::open(&image)?);
                log_to(
                    &mut import,
                    &it.directory.logs().join(&node.name).join("ctr.log"),
                )?;
                if !node.space.spawn(&mut import)?.wait()?.success() {
                    return Ok(false);
                }
                done += 1;
            }
            Ok(true)
        }
    }
}

/// Whether somebody listens.
pub(super) fn answers(space: &Space, address: SocketAddr) -> bool {
    space.connect(address).is_ok()
}

/// Whether a program says, over HTTP, that it is ready.
pub(super) fn is_ready(space: &Space, address: SocketAddr, path: &str) -> Result<bool> {
    let mut stream = space.connect(address)?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.split(' ').nth(1) == Some("200"))
}

fn containerd_answers(node: &Space) -> bool {
    // The path in the node's file systems.
    let socket = format!("/proc/{}/root{}", node.holder(), config::CONTAINERD);
    UnixStream::connect(socket).is_ok()
}

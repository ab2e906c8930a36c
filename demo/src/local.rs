//! Without a cluster: pods that are processes, manifests in a directory, and an agent that watches
//! it. All of it goes with the value.

use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use splitter_api::Status;
use tempfile::TempDir;
use testbed::fixtures::manifests::{documents, endpoints, service_at};
use testbed::fixtures::{Tally, log_tail, name_server};
use testbed::lab::names::Published;
use testbed::lab::{Lab, Pod, Process, client, server};

use crate::interrupt;
use crate::scenario::{Api, Asking, Protocol, Scenario, answer_of};
use crate::screen::Screen;
use crate::status;
use crate::steps::{Stage, Step};

/// The file with the object that splits.
const SPLIT_FILE: &str = "split.yaml";

/// Begins the names of what others see of the demo.
const PREFIX: &str = "splitter-demo-";

/// How long a change may take to be programmed. It takes milliseconds, but a first start loads
/// programs, and the machine may be busy.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A scenario in a lab.
#[derive(Debug)]
pub(crate) struct Local {
    scenario: &'static Scenario,
    api: Api,
    // Dropped in this order: who uses something before what is used.
    agent: Agent,
    /// How long it took until its programs were attached.
    agent_started_in: Duration,
    _servers: Vec<Process>,
    /// The pods' networks, the client's first.
    names: Vec<Published>,
    client: Pod,
    leaf_pods: Vec<Pod>,
    _lab: Lab,
    directory: TempDir,
}

impl Local {
    /// Sets everything up. The agent runs, but there is nothing to split yet.
    pub(crate) fn start(
        scenario: &'static Scenario,
        api: Api,
        agent_binary: &Path,
    ) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        let lab = Lab::new("demo")?;
        let mut leaf_pods = Vec::new();
        let mut servers = Vec::new();
        for (index, leaf) in scenario.leaves.into_iter().enumerate() {
            let pod = lab.pod(leaf)?;
            servers.push(start_server(scenario, &pod, index)?);
            leaf_pods.push(pod);
        }
        let client = lab.pod(scenario.client)?;
        let names = scenario.names();
        let hosts: Vec<(&str, IpAddr)> = names.iter().map(|(name, ip)| (&**name, *ip)).collect();
        client.set_hosts(&hosts)?;
        let pods = [&client].into_iter().chain(&leaf_pods);
        let names = pods
            .map(|pod| publish(pod, &hosts))
            .collect::<Result<_>>()?;

        let manifests = directory.path().join("manifests");
        fs::create_dir(&manifests)?;
        let services = documents(&services(scenario, &leaf_pods));
        fs::write(manifests.join("services.yaml"), services)?;
        let begin = Instant::now();
        let agent = Agent::start(agent_binary, &lab, &manifests, directory.path())?;
        let mut local = Self {
            scenario,
            api,
            agent,
            agent_started_in: Duration::ZERO,
            _servers: servers,
            names,
            client,
            leaf_pods,
            _lab: lab,
            directory,
        };
        local.agent.wait("attach its programs", |status| {
            status.node.attachment.attached
        })?;
        local.agent_started_in = begin.elapsed();
        Ok(local)
    }

    fn manifests(&self) -> PathBuf {
        self.directory.path().join("manifests")
    }

    /// Says what there is.
    pub(crate) fn introduce(&self, screen: &mut Screen) -> Result<()> {
        let Scenario {
            title,
            namespace,
            root,
            split,
            client,
            ..
        } = self.scenario;
        let [(_, address), leaves @ ..] = self.scenario.services();
        let (url, port) = (self.scenario.url(), self.scenario.port());
        let (asks, protocol) = match self.scenario.asking {
            Asking::Process | Asking::Curl => (
                format!("asks for {url}, each time over a new connection"),
                "",
            ),
            Asking::Dig => (
                format!(
                    "runs {}, each time from a new socket",
                    self.scenario.command_line()
                ),
                "/UDP",
            ),
        };
        let mut parts = vec![
            ((*client).to_owned(), format!("a pod; {asks}")),
            (
                format!("{root}.{namespace}"),
                format!("the root Service, {address}:{port}{protocol}"),
            ),
        ];
        for (pod, (leaf, address)) in self.leaf_pods.iter().zip(leaves) {
            let text = format!("a leaf Service, {address}, and its pod, {}", pod.ipv4());
            parts.push((leaf.to_owned(), text));
        }
        parts.push((
            (*split).to_owned(),
            format!(
                "{}, edited in {}",
                self.api.kind(self.scenario.protocol()),
                self.manifests().display()
            ),
        ));
        parts.push((
            "splitter-agent".to_owned(),
            format!(
                "watches that directory; programs attached {} ms after its start",
                self.agent_started_in.as_millis()
            ),
        ));
        let width = parts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        screen.title(title)?;
        screen.explain(width, &parts)?;
        Ok(screen.print(&[String::new()])?)
    }

    /// Prints how to look around, and waits for Ctrl-C.
    pub(crate) fn look_around(&self, screen: &mut Screen) -> Result<()> {
        let script = self.write_script()?;
        let status = self.agent.status_command();
        let status: Vec<_> = std::iter::once(status.get_program())
            .chain(status.get_args())
            .map(|word| word.to_string_lossy())
            .collect();
        let names: Vec<_> = self.names.iter().map(Published::name).collect();
        let pins = self.agent.pins.display();
        screen.suggest(
            "Everything is still there.",
            &[
                (
                    format!("ask as {} does", self.scenario.client),
                    format!("sh {} {}", script.display(), self.scenario.command_line()),
                ),
                ("what the agent knows".to_owned(), status.join(" ")),
                (
                    "what the kernel knows".to_owned(),
                    format!("bpftool map dump pinned {pins}/v*/FRONTENDS"),
                ),
                (
                    "change the weights".to_owned(),
                    format!("edit {}", self.manifests().join(SPLIT_FILE).display()),
                ),
                (
                    "what the agent does".to_owned(),
                    format!("tail -f {}", self.agent.log.display()),
                ),
                (
                    "the pods' networks".to_owned(),
                    format!("ip netns exec NAME ...   {}", names.join(" ")),
                ),
            ],
        )?;
        screen.print(&[String::new(), "Ctrl-C cleans up.".to_owned()])?;
        while !interrupt::requested() {
            sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Writes a script that runs a command as a process of the client's pod.
    ///
    /// `ip netns exec` alone would not do: it enters the network, but connections are split by the
    /// cgroup of the process that makes them.
    fn write_script(&self) -> Result<PathBuf> {
        let client = self.scenario.client;
        let name = self.names.first().context("the client has no name")?;
        let path = self.directory.path().join(format!("in-{client}"));
        let text = format!(
            "\
#!/bin/sh
# Runs a command as a process of the pod {client}: in its cgroup, with its network and its hosts.
echo $$ > '{}/cgroup.procs' || exit
exec ip netns exec '{}' \"$@\"
",
            self.client.cgroup().display(),
            name.name()
        );
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }
}

impl Stage for Local {
    fn scenario(&self) -> &'static Scenario {
        self.scenario
    }

    fn steps(&self) -> Vec<Step> {
        let step = |weights: &[u64; 2]| Step {
            weights: *weights,
            command: None,
        };
        self.scenario.steps.iter().map(step).collect()
    }

    fn change_by(&self) -> &'static str {
        "the edit"
    }

    fn places(&self) -> Vec<String> {
        vec![String::new()]
    }

    /// Edits the object, or makes it: replaces the file in one step, as editors do.
    fn change(&mut self, step: &Step) -> Result<Instant> {
        let split = self.scenario.object(self.api, step.weights);
        let path = self.manifests().join(SPLIT_FILE);
        let unfinished = self.manifests().join(format!(".{SPLIT_FILE}.new"));
        let edited = Instant::now();
        fs::write(&unfinished, serde_json::to_string_pretty(&split)?)
            .and_then(|()| fs::rename(&unfinished, &path))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(edited)
    }

    fn wait_programmed(&mut self, weights: [u64; 2]) -> Result<()> {
        let Self {
            scenario, agent, ..
        } = self;
        let [one, two] = weights;
        let what = format!("program {} at {one}/{two}", scenario.split);
        agent.wait(&what, |status| status::shows(status, scenario, weights))
    }

    fn request(&mut self, count: u64) -> Result<Vec<Tally>> {
        let scenario = self.scenario;
        if scenario.asking == Asking::Process {
            let (authority, path) = (scenario.authority(), scenario.path);
            return Ok(vec![self.client.run(|| ask(&authority, path, count))?]);
        }
        let mut tally = Tally::default();
        for _ in 0..count {
            interrupt::check()?;
            tally.add(match scenario.asking {
                Asking::Dig => dig(&self.client, scenario)?,
                _ => curl(&self.client, &scenario.url())?,
            });
        }
        Ok(vec![tally])
    }
}

/// The Services and what is behind them. The root's selector finds the pods of both versions, as
/// is usual.
fn services(scenario: &Scenario, pods: &[Pod]) -> Vec<Value> {
    let port = scenario.port();
    let all: Vec<SocketAddr> = pods.iter().map(|pod| (pod.ipv4(), port).into()).collect();
    let behind = [&all[..], &all[..1], &all[1..]];
    let objects = scenario.services().into_iter().zip(behind);
    let objects = objects.flat_map(|((name, address), behind)| {
        let mut service = service_at(scenario.namespace, name, &address.to_string(), port);
        let mut endpoints = endpoints(scenario.namespace, name, behind);
        if scenario.protocol() == Protocol::Udp {
            service["spec"]["ports"][0]["protocol"] = json!("UDP");
            endpoints["ports"][0]["protocol"] = json!("UDP");
        }
        [service, endpoints]
    });
    objects.collect()
}

/// Starts what answers in a leaf's pod.
fn start_server(scenario: &'static Scenario, pod: &Pod, leaf: usize) -> Result<Process> {
    let port = scenario.port();
    match scenario.protocol() {
        Protocol::Tcp => {
            let name = scenario.leaves[leaf];
            let (server, _) = pod.start_ready(|ready| server::identity(port, name, ready))?;
            Ok(server)
        }
        Protocol::Udp => {
            let address = SocketAddr::from((pod.ipv4(), port));
            let (server, ()) =
                pod.start_ready(|ready| name_server::serve(address, answer_of(leaf), ready))?;
            Ok(server)
        }
    }
}

/// Publishes a pod under the name that the documentation uses; where another demo runs at
/// the same time, under one with a number behind it.
fn publish(pod: &Pod, hosts: &[(&str, IpAddr)]) -> Result<Published> {
    let name = format!("{PREFIX}{}", pod.name());
    pod.publish_name(&name, hosts).or_else(|_| {
        let name = format!("{name}-{}", std::process::id());
        pod.publish_name(&name, hosts)
    })
}

/// What the client does in its pod: so many requests, each over a new connection.
fn ask(authority: &str, path: &str, count: u64) -> Tally {
    let mut tally = Tally::default();
    for _ in 0..count {
        tally.add(match client::http_get(authority, path) {
            Ok(response) => identity(response.status, response.identity),
            Err(error) => Err(error.to_string()),
        });
    }
    tally
}

/// Runs curl once, as a person would.
fn curl(pod: &Pod, url: &str) -> Result<Result<String, String>> {
    let output = pod
        .command("curl")
        .args(["-sSI", "--noproxy", "*", "--max-time", "10", url])
        .output()
        .context("cannot run curl")?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        // "... after 3 ms: ..." would make each failure look like one of its own.
        let complaint = complaint.split(" after ").next().unwrap_or_default();
        return Ok(Err(complaint.trim().to_owned()));
    }
    let headers = String::from_utf8_lossy(&output.stdout);
    let mut lines = headers.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok())
        .unwrap_or(0);
    let header = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("identity"))
        .map(|(_, value)| value.trim().to_owned());
    Ok(identity(status, header))
}

/// Runs dig once: who has answered is told by the answer.
fn dig(pod: &Pod, scenario: &Scenario) -> Result<Result<String, String>> {
    let output = pod
        .command("dig")
        .args(["+time=10", "+tries=1"])
        .args(scenario.question())
        .output()
        .context("cannot run dig")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut leaves = scenario.leaves.into_iter().enumerate();
    let leaf = leaves.find(|(leaf, _)| answer_of(*leaf).to_string() == text.trim());
    Ok(match leaf {
        Some((_, name)) => Ok(name.to_owned()),
        None => Err(format!("dig: {}", text.trim())),
    })
}

/// What to count for a response.
fn identity(status: u16, identity: Option<String>) -> Result<String, String> {
    match (status, identity) {
        (200, Some(identity)) => Ok(identity),
        (200, None) => Err("an answer without the header Identity".to_owned()),
        (status, _) => Err(format!("status {status}")),
    }
}

/// A running agent. Killed when dropped; what it pinned goes with the lab.
#[derive(Debug)]
struct Agent {
    binary: PathBuf,
    pins: PathBuf,
    log: PathBuf,
    process: Child,
}

impl Agent {
    /// Starts it on the lab's cgroup, with a log in a directory.
    fn start(binary: &Path, lab: &Lab, manifests: &Path, directory: &Path) -> Result<Self> {
        let log = directory.join("agent.log");
        let output = File::create(&log)?;
        let pins = lab.pin_directory();
        let process = lab
            .command(binary)?
            .arg("run")
            .arg("--manifests")
            .arg(manifests)
            .arg("--cgroup")
            .arg(lab.cgroup())
            .arg("--pin-dir")
            .arg(&pins)
            .args(["--node-name", "demo"])
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start the agent {}", binary.display()))?;
        Ok(Self {
            binary: binary.to_owned(),
            pins,
            log,
            process,
        })
    }

    /// The command that shows its state.
    fn status_command(&self) -> Command {
        status_command(&self.binary, &self.pins)
    }

    /// Waits until `status` is as `wanted`, which is when the agent did `what`.
    fn wait(&mut self, what: &str, wanted: impl Fn(&Status) -> bool) -> Result<()> {
        let Self {
            binary,
            pins,
            log,
            process,
        } = self;
        let command = || {
            if let Some(end) = process.try_wait()? {
                bail!("the agent ended ({end})");
            }
            let mut command = status_command(binary, pins);
            command.args(["-o", "json"]);
            Ok(command)
        };
        status::wait(TIMEOUT, command, wanted).or_else(|error| {
            // Who wants to stop does not want to read a log.
            interrupt::check()?;
            let tail = log_tail(log);
            Err(error.context(format!(
                "the agent did not {what}; its log ends with:\n{tail}\n"
            )))
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Fails only if it has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn status_command(binary: &Path, pins: &Path) -> Command {
    let mut command = Command::new(binary);
    command.arg("status").arg("--pin-dir").arg(pins);
    command
}

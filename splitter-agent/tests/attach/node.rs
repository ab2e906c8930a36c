//! A node's cgroup hierarchy: what is below the lab's cgroup, seen by agents as the whole.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use splitter_agent::datapath::PROGRAMS;
use splitter_api::Status;
use testbed::fixtures::read_exactly;
use testbed::lab::cgroup::mount_point;
use testbed::lab::{Process, client};

use crate::bookstore::{Bookstore, VIP};
use crate::common::agent::{Agent, BINARY, PATIENCE, weights};
use crate::http::{LISTEN, address};

const UID: &str = "0c3c9dc2-3c5a-4d0b-8f0a-3a3b5b1f4f10";

/// Mounts the hierarchy so that the lab's cgroup is its root, goes to a group, and runs a
/// command there: `$1` is where to mount it, `$2` the group, the rest the command.
const VIEW: &str = r#"
set -e
umount "$1"
mount -t cgroup2 cgroup2 "$1"
echo 0 > "$1/$2/cgroup.procs"
shift 2
exec "$@"
"#;

/// A node with a split Service, and cgroups for its pods.
pub(crate) struct Node {
    pub(crate) store: Bookstore,
}

/// Where an agent runs.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    /// In no pod.
    Outside,
    /// In a pod, in this group, which is the root of a cgroup namespace of its own.
    Pod(&'a str),
}

impl Node {
    pub(crate) fn new(name: &str) -> Self {
        let store = Bookstore::new(name);
        store.site.write("split.yaml", &weights(1, 1));
        Self { store }
    }

    /// Where a group is; `UID` stands for a pod's.
    pub(crate) fn path(&self, group: &str) -> PathBuf {
        let root = self.store.site.lab.cgroup();
        root.join(group.replace("UID", UID))
    }

    /// Makes a group.
    pub(crate) fn group(&self, group: &str) -> PathBuf {
        let path = self.path(group);
        fs::create_dir_all(&path).expect("a cgroup");
        path
    }

    /// Makes a group with a process in it.
    pub(crate) fn pod(&self, group: &str) -> Process {
        let path = self.group(group);
        let processes = path.join("cgroup.procs");
        let process = self.store.client.start(|| {
            fs::write(&processes, "0").expect("a cgroup to enter");
            loop {
                std::thread::sleep(PATIENCE);
            }
        });
        let process = process.expect("a process");
        wait(&format!("a process in {group}"), || {
            let text = fs::read_to_string(&processes).expect("processes");
            (!text.is_empty()).then_some(())
        });
        process
    }

    /// The agent's command, seeing the node's hierarchy alone.
    pub(crate) fn command(&self, place: Place<'_>) -> Command {
        let lab = &self.store.site.lab;
        let mut command = lab.command("unshare").expect("a place for the agent");
        let own = match place {
            Place::Outside => String::new(),
            Place::Pod(group) => {
                self.group(group);
                group.replace("UID", UID)
            }
        };
        command
            .args(["--mount", "--cgroup", "sh", "-c", VIEW, "sh"])
            .arg(mount_point().expect("cgroup v2"))
            .arg(own)
            .env_remove("KUBERNETES_SERVICE_HOST");
        if let Place::Pod(_) = place {
            command
                .args(["unshare", "--cgroup"])
                .env("KUBERNETES_SERVICE_HOST", "10.96.0.1");
        }
        command.arg(BINARY);
        command
    }

    /// Starts an agent and waits until it answers.
    pub(crate) fn agent(&self, place: Place<'_>, extra: &[&str]) -> (Agent, SocketAddr) {
        let site = &self.store.site;
        let pins = site.lab.pin_directory();
        let mut agent = site.launch(self.command(place), &pins, &[&LISTEN, extra].concat());
        let server = address(&mut agent);
        (agent, server)
    }

    /// What `status` says on the node.
    pub(crate) fn status(&self) -> Status {
        let output = self
            .command(Place::Outside)
            .args(["status", "-o", "json", "--pin-dir"])
            .arg(self.store.site.lab.pin_directory())
            .output()
            .expect("a command that can be started");
        assert!(matches!(output.status.code(), Some(0 | 1)), "{output:?}");
        read_exactly(&output.stdout)
    }

    /// The groups that every program is attached to, from the root of the node's hierarchy.
    pub(crate) fn attached(&self) -> Vec<String> {
        let groups = self.try_attached();
        groups.unwrap_or_else(|| panic!("no groups with all programs each: {:?}", self.status()))
    }

    /// The same; `None` while a group is gone whose programs are not, or has some of them.
    fn try_attached(&self) -> Option<Vec<String>> {
        let root = mount_point().expect("cgroup v2");
        let status = self.status();
        let programs = status.node.attachment.programs.iter();
        let mut groups: Vec<String> = programs
            .filter(|program| program.attached)
            .map(|program| {
                let path = Path::new(program.cgroup.as_ref()?);
                let path = path.strip_prefix(&root).ok()?;
                Some(path.to_str()?.replace(UID, "UID"))
            })
            .collect::<Option<_>>()?;
        groups.sort();
        let count = groups.len();
        groups.dedup();
        (count == PROGRAMS.len() * groups.len()).then_some(groups)
    }

    /// Waits until the programs are attached to these groups and no others.
    pub(crate) fn wait_for_attached(&self, wanted: &[&str]) {
        wait(&format!("{wanted:?}"), || {
            (self.try_attached()? == wanted).then_some(())
        });
    }

    /// Connects so many times from a group: answers of both leaves, and failures.
    pub(crate) fn count(&self, group: &str, connections: u64) -> (u64, u64, u64) {
        let processes = self.path(group).join("cgroup.procs");
        let tags = self.store.client.run(|| {
            fs::write(&processes, "0").expect("a cgroup to enter");
            client::count_tags(VIP, connections)
        });
        let tags = tags.expect("answers");
        (tags.count("v1"), tags.count("v2"), tags.failed())
    }

    /// Connections of the only split, as the kernel counts them.
    pub(crate) fn counted(&self) -> u64 {
        self.status().splits[0].connections
    }
}

/// Waits until something is there.
pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

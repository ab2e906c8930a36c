//! Clusters do what the tests of the agent rely on, and leave nothing behind.
//!
//! These need root: `cargo xtask test` sees to that.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use testbed::cluster::{Cluster, Component, KubeProxy, NodeComponent, Options, image};

/// Where the files of clusters are.
const CLUSTERS: &str = "/run/splitter-cluster";

/// Set in the copies of this program that a test kills.
const VICTIM: &str = "SPLITTER_TEST_VICTIM";

/// Two replicas that answer with their names, one on each node, behind a Service.
const SHOP: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      terminationGracePeriodSeconds: 0
      topologySpreadConstraints:
      - maxSkew: 1
        topologyKey: kubernetes.io/hostname
        whenUnsatisfiable: DoNotSchedule
        labelSelector: {matchLabels: {app: shop}}
      containers:
      - name: web
        image: shop.test/web:1
        imagePullPolicy: Never
        readinessProbe: {httpGet: {port: 80}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  selector: {app: shop}
  ports: [{port: 80}]
"#;

/// One test at a time: each compares what is on the machine before and after.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How the names of all clusters of these tests begin.
fn prefix() -> String {
    format!("test-{}-", std::process::id())
}

fn options(name: &str) -> Options {
    Options {
        name: prefix() + name,
        ..Options::default()
    }
}

fn kubectl(cluster: &Cluster, line: &str) -> Result<String> {
    let output = cluster.kubectl()?.args(line.split(' ')).output()?;
    ensure!(
        output.status.success(),
        "kubectl {line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn apply(cluster: &Cluster, manifest: &str) -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), manifest)?;
    kubectl(
        cluster,
        &format!("apply --filename={}", file.path().display()),
    )?;
    Ok(())
}

/// Starts the shop and waits until both replicas answer.
fn open_shop(cluster: &Cluster) -> Result<()> {
    let directory = tempfile::tempdir()?;
    let web = cluster.tools().program("web")?;
    cluster.load(&image::of_program(
        "shop.test/web:1",
        &web,
        directory.path(),
    )?)?;
    apply(cluster, SHOP)?;
    kubectl(cluster, "rollout status deployment/shop --timeout=120s")?;
    // kube-proxy learns of the replicas a moment later than everybody else, on each node.
    for pod in pods(cluster, "metadata.name")? {
        eventually("the Service answers", || {
            kubectl(cluster, &format!("exec {pod} -- /web http://shop")).is_ok()
        });
    }
    Ok(())
}

fn pods(cluster: &Cluster, path: &str) -> Result<Vec<String>> {
    let path = format!("get pods --selector=app=shop --output=jsonpath={{.items[*].{path}}}");
    let list = kubectl(cluster, &path)?;
    Ok(list.split_whitespace().map(str::to_owned).collect())
}

/// What the machine has that clusters of these tests could leave behind. There may be others.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    names: Vec<PathBuf>,
    groups: BTreeSet<PathBuf>,
    mounts: String,
    links: String,
    settings: Option<Vec<String>>,
    clusters: Vec<PathBuf>,
    libraries: Vec<PathBuf>,
}

impl Traces {
    fn now() -> Result<Self> {
        let links = Command::new("ip").args(["-oneline", "link"]).output()?;
        let mut groups = BTreeSet::new();
        find_groups(
            Path::new("/sys/fs/cgroup"),
            &format!("splitter-cluster-{}", prefix()),
            &mut groups,
        );
        let all_clusters = list(CLUSTERS);
        let is_of_a_test = |path: &PathBuf| path.to_string_lossy().contains(&prefix());
        Ok(Self {
            names: list("/run/netns"),
            groups,
            mounts: fs::read_to_string("/proc/self/mountinfo")?,
            links: String::from_utf8(links.stdout)?,
            // They are put back with the last cluster, which may be another.
            settings: all_clusters.is_empty().then(settings).transpose()?,
            clusters: all_clusters.into_iter().filter(is_of_a_test).collect(),
            libraries: [list("/var/lib"), list("/opt"), list("/usr/libexec")].concat(),
        })
    }
}

/// What a kubelet changes.
fn settings() -> Result<Vec<String>> {
    [
        "vm/overcommit_memory",
        "vm/panic_on_oom",
        "kernel/panic",
        "kernel/panic_on_oops",
        "kernel/keys/root_maxkeys",
        "kernel/keys/root_maxbytes",
    ]
    .into_iter()
    .map(|name| Ok(fs::read_to_string(Path::new("/proc/sys").join(name))?))
    .collect()
}

fn list(directory: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory);
    let mut paths: Vec<_> = entries
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    paths.sort();
    paths
}

/// The network namespaces of processes whose command line `wanted` accepts.
fn network_namespaces(wanted: impl Fn(&str) -> bool) -> BTreeSet<PathBuf> {
    list("/proc")
        .into_iter()
        .filter(|process| fs::read_to_string(process.join("cmdline")).is_ok_and(|it| wanted(&it)))
        .filter_map(|process| fs::read_link(process.join("ns/net")).ok())
        .collect()
}

/// The control groups whose names begin with `prefix`.
fn find_groups(directory: &Path, prefix: &str, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                found.insert(entry.path());
            }
            find_groups(&entry.path(), prefix, found);
        }
    }
}

fn mark(name: &str) -> String {
    format!("{CLUSTERS}/{name}/")
}

/// The command lines of the processes that belong to the cluster called `name`.
fn processes(name: &str) -> Vec<String> {
    let mark = mark(name);
    list("/proc")
        .into_iter()
        .filter_map(|process| fs::read_to_string(process.join("cmdline")).ok())
        .filter(|line| line.contains(&mark))
        .collect()
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        sleep(Duration::from_millis(20));
    }
}

#[test]
fn pods_on_both_nodes_reach_each_other_and_their_service_by_name() -> Result<()> {
    let _alone = alone();
    let before = Traces::now()?;
    let cluster = Cluster::up(&options("pods"))?;
    open_shop(&cluster)?;

    let nodes: BTreeSet<_> = pods(&cluster, "spec.nodeName")?.into_iter().collect();
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    let names = pods(&cluster, "metadata.name")?;
    for (name, address) in names.iter().zip(pods(&cluster, "status.podIP")?) {
        for asking in &names {
            let answer = kubectl(&cluster, &format!("exec {asking} -- /web http://{address}"))?;
            assert_eq!(answer.trim(), name);
        }
    }
    // Whichever pod is chosen, on this node or on the other, even the one that asks.
    let mut answered = BTreeSet::new();
    eventually("both pods are chosen", || {
        let answer = kubectl(&cluster, &format!("exec {} -- /web http://shop", names[0]));
        answered.insert(answer.expect("an answer").trim().to_owned());
        answered.len() == 2
    });
    assert_eq!(answered, names.iter().cloned().collect());
    assert!(kubectl(&cluster, &format!("logs {}", names[0]))?.contains("listening on port 80"));

    // Commands on a node are in its network, and see its pods.
    let node = &cluster.nodes()[0];
    let address = kubectl(
        &cluster,
        "get service shop --output=jsonpath={.spec.clusterIP}",
    )?;
    let web = cluster.tools().program("web")?;
    let output = node
        .command(web)?
        .arg(format!("http://{address}"))
        .output()?;
    assert!(names.contains(&String::from_utf8(output.stdout)?.trim().to_owned()));
    let output = node.command("hostname")?.output()?;
    assert_eq!(String::from_utf8(output.stdout)?.trim(), node.name());

    let mark = mark(cluster.name());
    let namespaces = network_namespaces(|line| line.contains(&mark));
    assert_eq!(
        namespaces.len(),
        3,
        "of the nodes and the control plane: {namespaces:?}"
    );
    cluster.down()?;
    assert_eq!(Traces::now()?, before);
    assert!(network_namespaces(|_| true).is_disjoint(&namespaces));
    Ok(())
}

#[test]
fn programs_come_back_after_they_were_killed() -> Result<()> {
    let _alone = alone();
    let cluster = Cluster::up(&options("restart"))?;
    let version = || kubectl(&cluster, "get --raw /version");
    for component in [Component::ApiServer, Component::Etcd] {
        cluster.stop(component)?;
    }
    assert!(version().is_err());
    for component in [Component::Etcd, Component::ApiServer] {
        cluster.start(component)?;
    }
    version()?;
    let node = &cluster.nodes()[0];
    for component in [
        NodeComponent::Kubelet,
        NodeComponent::KubeProxy,
        NodeComponent::Containerd,
    ] {
        node.stop(component)?;
    }
    for component in [
        NodeComponent::Containerd,
        NodeComponent::KubeProxy,
        NodeComponent::Kubelet,
    ] {
        node.start(component)?;
    }
    for component in [Component::ControllerManager, Component::Scheduler] {
        cluster.stop(component)?;
        cluster.start(component)?;
    }
    open_shop(&cluster)?;
    Ok(())
}

#[test]
fn without_nodes_there_is_an_api_server_and_nobody_who_acts_on_objects() -> Result<()> {
    let _alone = alone();
    let before = Traces::now()?;
    let cluster = Cluster::up(&Options {
        nodes: 0,
        ..options("bare")
    })?;
    apply(&cluster, SHOP)?;
    sleep(Duration::from_secs(1));
    let endpoints = "get pods,endpointslices,nodes --ignore-not-found --output=name";
    // That of the API server's own Service.
    assert_eq!(
        kubectl(&cluster, endpoints)?.trim(),
        "endpointslice.discovery.k8s.io/kubernetes"
    );

    let kubeconfig = cluster.kubeconfig_at(cluster.address(), Some("somebody"))?;
    let mut ask = cluster.kubectl()?;
    ask.env("KUBECONFIG", kubeconfig);
    let output = ask.args(["auth", "can-i", "get", "pods"]).output()?;
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "no");
    assert_eq!(kubectl(&cluster, "auth can-i get pods")?.trim(), "yes");

    cluster.stop(Component::ApiServer)?;
    assert!(kubectl(&cluster, "get deployments").is_err());
    cluster.start(Component::ApiServer)?;
    assert!(kubectl(&cluster, "get deployments")?.contains("shop"));
    cluster.down()?;
    assert_eq!(Traces::now()?, before);
    Ok(())
}

#[test]
fn two_clusters_at_once_do_not_meet() -> Result<()> {
    let _alone = alone();
    let before = Traces::now()?;
    let one = |name| Options {
        nodes: 1,
        kube_proxy: KubeProxy::Iptables,
        ..options(name)
    };
    let (first, second) = (Cluster::up(&one("first"))?, Cluster::up(&one("second"))?);
    let error = Cluster::up(&one("first")).expect_err("the name is taken");
    assert!(error.to_string().contains("is there already"), "{error:#}");
    kubectl(&first, "create namespace only-here")?;
    assert!(kubectl(&second, "get namespace only-here").is_err());
    drop(first);
    kubectl(&second, "get namespace default")?;
    drop(second);
    assert_eq!(Traces::now()?, before);
    Ok(())
}

/// Runs the test called `test` in another process, as a victim.
fn start_victim(test: &str, name: &str) -> Result<std::process::Child> {
    Command::new(env::current_exe()?)
        .args([test, "--exact", "--nocapture"])
        .env(VICTIM, name)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start a copy of this program")
}

#[test]
fn a_killed_owner_takes_its_cluster_along() -> Result<()> {
    if let Ok(name) = env::var(VICTIM) {
        let _cluster = Cluster::up(&Options {
            name,
            ..Options::default()
        })?;
        sleep(Duration::from_secs(600));
        return Ok(());
    }
    let _alone = alone();
    let before = Traces::now()?;
    let is_up: fn(&str) -> bool = |name| {
        Cluster::find(name).is_ok_and(|it| kubectl(&it, "get serviceaccount default").is_ok())
    };
    let is_coming_up: fn(&str) -> bool = |name| {
        Path::new("/run/splitter-cluster")
            .join(name)
            .join("node-1")
            .exists()
    };
    for (suffix, moment) in [("up", is_up), ("midway", is_coming_up)] {
        let Options { name, .. } = options(suffix);
        let mut victim = start_victim("a_killed_owner_takes_its_cluster_along", &name)?;
        eventually("the cluster is there", || moment(&name));
        victim.kill()?;
        victim.wait()?;
        eventually("everything is gone", || {
            Traces::now().is_ok_and(|now| now == before)
        });
        assert_eq!(processes(&name), Vec::<String>::new());
    }
    Ok(())
}

#[test]
fn what_a_killed_supervisor_leaves_is_swept() -> Result<()> {
    let _alone = alone();
    let before = Traces::now()?;
    let cluster = Cluster::up(&Options {
        nodes: 1,
        ..options("killed")
    })?;
    let name = cluster.name().to_owned();
    let status = fs::read_to_string(format!("/proc/{}/status", cluster.nodes()[0].process_id()))?;
    let supervisor = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    let supervisor = supervisor.context("no parent")?.trim();
    Command::new("kill").args(["-KILL", supervisor]).status()?;
    eventually("its processes are gone", || processes(&name).is_empty());
    drop(cluster);
    assert!(Cluster::find(&name).is_err());

    Cluster::up(&Options {
        nodes: 1,
        ..options("next")
    })?
    .down()?;
    assert_eq!(Traces::now()?, before);
    Ok(())
}

#[test]
fn the_last_words_of_a_program_that_fails_are_in_the_error() -> Result<()> {
    let _alone = alone();
    let before = Traces::now()?;
    let error = Cluster::up(&Options {
        api_server_arguments: vec!["--no-such-argument".to_owned()],
        ..options("failing")
    })
    .expect_err("the API server refuses to start");
    let message = format!("{error:#}");
    assert!(message.contains("kube-apiserver ended"), "{message}");
    assert!(
        message.contains("unknown flag: --no-such-argument"),
        "{message}"
    );
    assert_eq!(Traces::now()?, before);
    Ok(())
}

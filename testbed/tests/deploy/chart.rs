//! That Helm makes of the chart what `kubectl` makes of the manifests, and what only the chart can.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Output};

use serde_json::{Value, json};
use testbed::cluster::tools;
use testbed::fixtures::image::VERSION;
use testbed::workspace::root;

use super::kustomization::Kustomization;

/// Objects by kind and name. The namespace is Helm's own affair.
type Objects = BTreeMap<(String, String), Value>;

/// Labels that Helm's objects have and the manifests' have not.
const RELEASE_LABELS: [(&str, &str); 4] = [
    ("app.kubernetes.io/instance", "canaries"),
    ("app.kubernetes.io/managed-by", "Helm"),
    ("app.kubernetes.io/version", VERSION),
    (
        "helm.sh/chart",
        concat!("splitter-", env!("CARGO_PKG_VERSION")),
    ),
];

/// Helm, with its own arguments and the chart's values.
fn try_render(settings: &[&str]) -> Output {
    let mut command = Command::new(tools::helm().unwrap());
    command
        .args(["template", "canaries", "deploy/chart"])
        .args(["--namespace=splitter-system", "--kube-version=1.33.0"]);
    for setting in settings {
        command.args(["--set-json", setting]);
    }
    command.current_dir(root()).output().unwrap()
}

fn render(settings: &[&str]) -> Objects {
    objects(&try_render(settings))
}

/// `kubectl kustomize`.
fn build(path: &str) -> Objects {
    let kubectl = tools::ensure(tools::Part::ApiServer)
        .unwrap()
        .program("kubectl")
        .unwrap();
    let mut command = Command::new(kubectl);
    command.args(["kustomize", path]).current_dir(root());
    objects(&command.output().unwrap())
}

fn objects(output: &Output) -> Objects {
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    documents
        .into_iter()
        .filter(|object| object.is_object() && object["kind"] != "Namespace")
        .map(|object| {
            let key = (text(&object["kind"]), text(&object["metadata"]["name"]));
            (key, object)
        })
        .collect()
}

/// Without what is Helm's alone: the hooks of `helm uninstall`, and the labels of chart and release,
/// which every object has to have.
fn without_release(objects: Objects) -> Objects {
    let is_hook = |object: &Value| object["metadata"]["annotations"]["helm.sh/hook"].is_string();
    objects
        .into_iter()
        .filter(|(_, object)| !is_hook(object))
        .map(|(key, mut object)| {
            let labels = object["metadata"]["labels"].as_object_mut().unwrap();
            for (label, value) in RELEASE_LABELS {
                assert_eq!(labels.remove(label), Some(json!(value)), "{key:?}: {label}");
            }
            if let Some(labels) = object.pointer_mut("/spec/template/metadata/labels") {
                let labels = labels.as_object_mut().unwrap();
                let instance = labels.remove("app.kubernetes.io/instance");
                assert_eq!(instance, Some(json!("canaries")), "{key:?}");
            }
            (key, object)
        })
        .collect()
}

#[test]
fn helm_renders_what_the_manifests_say() {
    let plain = |settings: &[&str]| without_release(render(settings));
    let with = |component: &str| build(Kustomization::new(&[component], None).path());
    assert_eq!(plain(&[]), build("deploy"));
    assert_eq!(plain(&["privileged=false"]), with("capabilities"));
    assert_eq!(plain(&["resourceQuota=true"]), with("gke"));
    assert_eq!(plain(&["admissionPolicy=true"]), with("admission"));
    let with_grants = plain(&["requireReferenceGrants=true"]);
    assert_eq!(with_grants, with("reference-grants"));
    let mut all = plain(&[
        "installCRDs=true",
        "monitoring.podMonitor=true",
        "monitoring.prometheusRule=true",
    ]);
    for object in all.values_mut() {
        // What Helm reads to leave the CRD where it is.
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove("annotations");
        }
    }
    for path in ["deploy/crd", "deploy/monitoring"] {
        for (key, object) in build(path) {
            assert_eq!(all.get(&key), Some(&object), "{key:?}");
        }
    }
}

/// A chart can only hold what is in its own directory.
#[test]
fn the_dashboard_is_the_one_of_the_manifests() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    assert_eq!(
        read("deploy/chart/dashboard.json"),
        read("deploy/monitoring/dashboard.json")
    );
    let objects = render(&["monitoring.dashboard=true"]);
    let dashboard = &objects[&("ConfigMap".to_owned(), "splitter-dashboard".to_owned())];
    assert_eq!(
        dashboard["data"]["splitter.json"],
        read("deploy/monitoring/dashboard.json")
    );
}

fn agent(objects: &Objects) -> &Value {
    &objects[&("DaemonSet".to_owned(), "splitter-agent".to_owned())]
}

fn container(objects: &Objects) -> &Value {
    &agent(objects)["spec"]["template"]["spec"]["containers"][0]
}

#[test]
fn the_image_is_the_one_of_the_values_wherever_it_runs() {
    let digest = format!("sha256:{}", "0a".repeat(32));
    let setting = format!(r#"image={{"repository":"registry.example/it","digest":"{digest}"}}"#);
    for (settings, expected) in [
        (&[][..], format!("splitter-agent:{VERSION}")),
        (
            &[
                r#"image.repository="registry.example/it""#,
                r#"image.tag="0.1.0-abc""#,
            ][..],
            "registry.example/it:0.1.0-abc".to_owned(),
        ),
        (
            &[setting.as_str()][..],
            format!("registry.example/it@{digest}"),
        ),
    ] {
        let objects = render(settings);
        assert_eq!(container(&objects)["image"], expected);
        let uninstall = &objects[&("Job".to_owned(), "splitter-uninstall".to_owned())];
        let uninstall = &uninstall["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(uninstall["image"], expected);
    }
}

#[test]
fn labels_annotations_and_affinity_are_added_to_what_is_there() {
    let affinity = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": []}});
    let objects = render(&[
        r#"podLabels={"team":"mesh"}"#,
        r#"podAnnotations={"example.com/a":"b"}"#,
        &format!("affinity={affinity}"),
        "monitoring.podMonitor=true",
        r#"monitoring.podMonitorLabels={"release":"one"}"#,
        "monitoring.prometheusRule=true",
        r#"monitoring.prometheusRuleLabels={"release":"other"}"#,
        r#"monitoring.interval="1m""#,
        "monitoring.dashboard=true",
        r#"monitoring.dashboardLabels={"folder":"canaries"}"#,
    ]);
    let pod = &agent(&objects)["spec"]["template"];
    assert_eq!(pod["metadata"]["labels"]["team"], "mesh");
    let selector = &agent(&objects)["spec"]["selector"]["matchLabels"];
    for (label, value) in selector.as_object().unwrap() {
        assert_eq!(pod["metadata"]["labels"][label], *value);
    }
    assert_eq!(pod["metadata"]["annotations"]["example.com/a"], "b");
    let default = "kubectl.kubernetes.io/default-container";
    assert_eq!(pod["metadata"]["annotations"][default], "agent");
    let pod = &pod["spec"]["affinity"];
    assert_eq!(pod["podAffinity"], affinity["podAffinity"]);
    assert!(pod["nodeAffinity"].is_object(), "{pod}");
    for (kind, label, value) in [
        ("PodMonitor", "release", "one"),
        ("PrometheusRule", "release", "other"),
        ("ConfigMap", "folder", "canaries"),
        ("ConfigMap", "grafana_dashboard", "1"),
    ] {
        let mut of_kind = objects.iter().filter(|((other, _), _)| other == kind);
        let (_, object) = of_kind.next().unwrap();
        assert_eq!(object["metadata"]["labels"][label], value, "{object}");
        assert_eq!(
            object["metadata"]["labels"]["app.kubernetes.io/name"],
            "splitter-agent"
        );
    }
    let monitor = &objects[&("PodMonitor".to_owned(), "splitter-agent".to_owned())];
    assert_eq!(monitor["spec"]["podMetricsEndpoints"][0]["interval"], "1m");
}

#[test]
fn what_selinux_takes_the_agent_for_can_be_left_out() {
    let context = |settings: &[&str]| {
        container(&render(settings))["securityContext"]["seLinuxOptions"].clone()
    };
    assert_eq!(context(&[]), Value::Null);
    assert_eq!(context(&["privileged=false"]), json!({"type": "spc_t"}));
    assert_eq!(
        context(&["privileged=false", "seLinuxOptions=null"]),
        Value::Null
    );
}

#[test]
fn uninstalling_cleans_every_node_first_unless_it_is_told_not_to() {
    let hooks = |settings: &[&str]| {
        let objects = render(settings).into_iter();
        let hook = |object: &Value| object["metadata"]["annotations"]["helm.sh/hook"].clone();
        objects
            .filter(|(_, object)| hook(object) == "pre-delete")
            .map(|((kind, _), object)| (kind, object))
            .collect::<BTreeMap<_, _>>()
    };
    assert!(hooks(&["uninstall.cleanup=false"]).is_empty());
    let hooks = hooks(&[
        r#"uninstall.maxUnavailable="25%""#,
        "uninstall.timeoutSeconds=60",
    ]);
    let kinds: Vec<_> = hooks.keys().map(String::as_str).collect();
    assert_eq!(kinds, ["Job", "Role", "RoleBinding", "ServiceAccount"]);
    let pod = &hooks["Job"]["spec"]["template"];
    assert_eq!(
        pod["spec"]["containers"][0]["args"],
        json!([
            "uninstall",
            "--helm-release=canaries",
            "--max-unavailable=25%",
            "--timeout-seconds=60",
        ])
    );
    // Else it would be counted among the agents.
    let agents = "app.kubernetes.io/name";
    assert_ne!(pod["metadata"]["labels"][agents], "splitter-agent");
}

#[test]
fn values_that_cannot_work_are_refused_by_name() {
    for (setting, name) in [
        ("cleanup=true", "cleanup"),
        (r#"image.digest="abc""#, "digest"),
        (r#"image.tag="a b""#, "tag"),
        (r#"extraArgs=["--pin-dir=/sys/fs/bpf/other"]"#, "extraArgs"),
        // Helm names the key, and the wrong place.
        (
            r#"podLabels={"app.kubernetes.io/name":"x"}"#,
            "app.kubernetes.io/name",
        ),
        ("uninstall.maxUnavailable=0", "maxUnavailable"),
        (r#"monitoring.interval="often""#, "interval"),
    ] {
        let output = try_render(&[setting]);
        assert!(!output.status.success(), "{setting}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(name), "{setting}: {error}");
    }
}

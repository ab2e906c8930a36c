//! `check`, as a gate for manifests of a repository.

use std::process::{Command, Output};

use serde_json::Value;

use super::support::{Directory, documents};

/// A Service as people write it: without what a cluster adds.
fn service(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {{{spec}}}\n"
    )
}

fn shop() -> [String; 3] {
    ["web", "web-v1", "web-v2"].map(|name| {
        let spec = format!("selector: {{app: {name}}}, ports: [{{name: http, port: 80}}]");
        service(name, &spec)
    })
}

fn split(version: &str, root: &str, backends: &[(&str, &str)]) -> String {
    let backends: Vec<String> = backends
        .iter()
        .map(|(service, weight)| format!("{{service: {service}, weight: {weight}}}"))
        .collect();
    format!(
        "apiVersion: split.smi-spec.io/{version}\nkind: TrafficSplit\nmetadata: {{name: canary, \
         namespace: shop}}\nspec: {{service: {root}, backends: [{}]}}\n",
        backends.join(", ")
    )
}

fn canary() -> String {
    split("v1alpha4", "web", &[("web-v1", "90"), ("web-v2", "10")])
}

struct Checked {
    code: Option<i32>,
    text: String,
    error: String,
}

impl Checked {
    /// Asserts that each of these is said of the split, and nothing else.
    #[track_caller]
    fn assert_says(&self, expected: &[(&str, &str, &str)]) {
        let said: Vec<&str> = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("TrafficSplit shop/canary: "))
            .collect();
        for (severity, reason, field) in expected {
            let start = format!("{severity} ({reason}): {field}");
            let found = said.iter().any(|line| line.starts_with(&start));
            assert!(found, "{start}:\n{}", self.text);
        }
        assert_eq!(said.len(), expected.len(), "{}", self.text);
    }
}

fn run(manifests: &[&str], arguments: &[&str]) -> Checked {
    let directory = Directory::new();
    directory.write("manifests.yaml", &documents(manifests));
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_splitter-agent"))
        .arg("check")
        .arg(directory.path("manifests.yaml"))
        .args(arguments)
        .output()
        .expect("splitter-agent");
    Checked {
        code: status.code(),
        text: String::from_utf8(stdout).expect("text"),
        error: String::from_utf8(stderr).expect("text"),
    }
}

fn check(manifests: &[&str]) -> Checked {
    run(manifests, &[])
}

#[test]
fn manifests_of_a_repository_are_accepted_as_they_are() {
    let [web, v1, v2] = shop();
    let checked = run(&[&web, &v1, &v2, &canary()], &["--strict"]);
    assert_eq!(checked.code, Some(0), "{}", checked.text);
    checked.assert_says(&[("accepted", "Accepted", "accepted as written")]);
    let note = "note: taken to get clusterIP from the cluster: Service shop/web; ";
    assert!(checked.text.contains(note), "{}", checked.text);
    assert!(
        checked.text.contains(
            "note: taken to get endpoints from the cluster: Service shop/web, Service \
             shop/web-v1, Service shop/web-v2; "
        ),
        "{}",
        checked.text
    );
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let [web, v1, v2] = shop();
    let split = split(
        "v1alpha4",
        "web",
        &[
            ("web-v1", "-1"),
            ("web-v2", "most"),
            ("web-v3", "0.5"),
            ("web-v4", "5"),
        ],
    );
    let checked = check(&[&web, &v1, &v2, &split]);
    assert_eq!(checked.code, Some(1));
    checked.assert_says(&[
        ("refused", "InvalidWeight", "spec.backends[0].weight"),
        ("refused", "InvalidWeight", "spec.backends[1].weight"),
        ("refused", "InvalidWeight", "spec.backends[2].weight"),
        ("warning", "LeafServiceMissing", "spec.backends[2]"),
        ("warning", "LeafServiceMissing", "spec.backends[3]"),
    ]);
}

#[test]
fn a_leaf_that_is_missing_is_told_and_fails_only_when_strict() {
    let [web, v1, _] = shop();
    for (arguments, code) in [(&[][..], 0), (&["--strict"], 1)] {
        let checked = run(&[&web, &v1, &canary()], arguments);
        assert_eq!(checked.code, Some(code), "{}", checked.text);
        checked.assert_says(&[("warning", "LeafServiceMissing", "spec.backends[1]")]);
    }
}

#[test]
fn a_root_that_cannot_be_split_hides_no_leaf_that_is_missing() {
    let [_, v1, _] = shop();
    let headless = service("web", "clusterIP: None, ports: [{port: 80}]");
    let external = service("web", "type: ExternalName, externalName: example.org");
    for (root, reason) in [
        ("", "RootMissing"),
        (&*headless, "RootHeadless"),
        (&*external, "RootExternalName"),
    ] {
        for (arguments, code) in [(&[][..], 0), (&["--strict"], 1)] {
            let checked = run(&[root, &v1, &canary()], arguments);
            assert_eq!(checked.code, Some(code), "{}", checked.text);
            checked.assert_says(&[
                ("inactive", reason, "spec.service"),
                ("warning", "LeafServiceMissing", "spec.backends[1]"),
            ]);
        }
    }
    // What is written counts, and no address is made up for it.
    assert!(
        !check(&[&headless, &v1, &canary()])
            .text
            .contains("clusterIP from")
    );
}

#[test]
fn endpoint_slices_that_are_given_count() {
    let [web, v1, v2] = shop();
    let slice = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: v2, \
                 namespace: shop, labels: {kubernetes.io/service-name: web-v2}}\naddressType: \
                 IPv4\nports: [{name: http, port: 8080}]\nendpoints: []\n";
    let checked = check(&[&web, &v1, &v2, &canary(), slice]);
    assert_eq!(checked.code, Some(0));
    checked.assert_says(&[("warning", "LeafNotReady", "spec.backends[1]")]);
}

#[test]
fn services_of_two_families_are_judged_without_addresses() {
    let dual = service(
        "web",
        "clusterIPs: [10.96.0.1, 'fd00::1'], selector: {app: web}, ports: [{name: http, port: 80}]",
    );
    let [_, v1, v2] = shop();
    let checked = check(&[&dual, &v1, &v2, &canary()]);
    checked.assert_says(&[("accepted", "Accepted", "accepted as written")]);
}

/// Case: OBJECT-VERSION
#[test]
fn a_weight_that_its_version_does_not_allow_is_refused() {
    let [web, v1, v2] = shop();
    let of = |version| split(version, "web", &[("web-v1", "900m"), ("web-v2", "100m")]);
    for version in ["v1alpha2", "v1alpha3", "v1alpha4"] {
        let checked = check(&[&web, &v1, &v2, &of(version)]);
        assert_eq!(checked.code, Some(1), "{version}");
        checked.assert_says(&[
            ("refused", "InvalidInVersion", "spec.backends[0].weight"),
            ("refused", "InvalidInVersion", "spec.backends[1].weight"),
        ]);
    }
    let checked = check(&[&web, &v1, &v2, &of("v1alpha1")]);
    assert_eq!(checked.code, Some(0), "{}", checked.text);

    // As the API server shows an object that was written in another version.
    let stored = of("v1alpha4").replace("name: canary,", "name: canary, resourceVersion: \"7\",");
    let checked = check(&[&web, &v1, &v2, &stored]);
    assert_eq!(checked.code, Some(0), "{}", checked.text);
    checked.assert_says(&[
        ("warning", "InvalidInVersion", "spec.backends[0].weight"),
        ("warning", "InvalidInVersion", "spec.backends[1].weight"),
    ]);
}

#[test]
fn kinds_that_are_not_read_are_named() {
    let [web, v1, v2] = shop();
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: x}\n";
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n";
    let checked = check(&[&web, &v1, &v2, &canary(), route, deployment, deployment]);
    assert_eq!(checked.code, Some(0));
    assert!(
        checked.text.ends_with(
            "note: not read: 2 Deployment (apps/v1), 1 HTTPRoute (gateway.networking.k8s.io/v1)\n"
        ),
        "{}",
        checked.text
    );
    let json = run(&[&web, &v1, &v2, &canary(), route], &["-o", "json"]);
    let json: Value = serde_json::from_str(&json.text).expect("JSON");
    assert_eq!(json["not_read"][0]["kind"], "HTTPRoute");
    assert_eq!(json["not_read"][0]["count"], 1);

    // Nothing but such kinds: nothing was judged.
    let checked = check(&[route]);
    assert_eq!(checked.code, Some(3));
    assert!(checked.text.contains("not read: 1 HTTPRoute"));
    assert!(
        checked.error.contains("no TrafficSplit"),
        "{}",
        checked.error
    );
}

#[test]
fn an_empty_input_is_told() {
    for empty in [
        "",
        "# nothing\n",
        "---\n---\n",
        "apiVersion: v1\nkind: List\nitems: []\n",
    ] {
        let checked = check(&[empty]);
        assert_eq!(checked.code, Some(3), "{empty:?}");
        assert!(checked.error.contains("no objects"), "{}", checked.error);
    }
    // A TrafficSplit without its Services is judged all the same.
    let checked = check(&[&canary()]);
    assert_eq!(checked.code, Some(0));
    let [web, ..] = shop();
    let checked = check(&[&web]);
    assert_eq!(checked.code, Some(3));
}

#[test]
fn a_mistyped_annotation_is_told() {
    let [web, v1, v2] = shop();
    let mistyped = canary().replace(
        "name: canary,",
        "name: canary, annotations: {splitter.dev/on-no-endpoint: passthrough},",
    );
    let checked = run(&[&web, &v1, &v2, &mistyped], &["--strict"]);
    assert_eq!(checked.code, Some(1));
    checked.assert_says(&[(
        "warning",
        "UnknownAnnotation",
        "metadata.annotations[splitter.dev/on-no-endpoint]",
    )]);
}

#[test]
fn of_an_object_that_is_given_twice_the_first_counts_and_the_second_is_refused() {
    let [web, v1, v2] = shop();
    let other = canary().replace("weight: 90", "weight: -90");
    let checked = check(&[&web, &v1, &v2, &canary(), &other]);
    assert_eq!(checked.code, Some(1));
    assert!(
        checked.text.contains("refused (DuplicateObject)"),
        "{}",
        checked.text
    );
}

//! `check`, as a gate for manifests of a repository.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

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
    run_file("manifests.yaml", &documents(manifests), arguments)
}

fn run_file(name: &str, text: &str, arguments: &[&str]) -> Checked {
    let directory = Directory::new();
    directory.write(name, text);
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_splitter-agent"))
        .arg("check")
        .arg(directory.path(name))
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
        checked.error.contains("no object that asks"),
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

/// Case: OBJECT-GROUP
#[test]
fn a_kind_of_another_group_is_not_judged_and_a_slip_is_told() {
    let [web, v1, v2] = shop();
    let written = |api_version: &str| {
        canary().replace(
            "apiVersion: split.smi-spec.io/v1alpha4",
            &format!("apiVersion: {api_version}"),
        )
    };
    for (api_version, is_slip) in [
        ("example.io/v1", false),
        ("split.smi-spec.io", true),
        ("Split.smi-spec.io/v1alpha2", true),
        ("v1", true),
    ] {
        let other = written(api_version);
        for arguments in [&[][..], &["--strict"]] {
            let checked = run(&[&other], arguments);
            assert_eq!(checked.code, Some(3), "{api_version}: {}", checked.text);
            assert!(
                checked.error.contains("no object that asks"),
                "{}",
                checked.error
            );
            let unread = format!("not read: 1 TrafficSplit ({api_version})");
            assert!(checked.text.contains(&unread), "{}", checked.text);
        }
        let json: Value =
            serde_json::from_str(&run(&[&other], &["-o", "json"]).text).expect("JSON");
        assert_eq!(json["splits"], 0);

        // Beside one that is judged.
        let good = canary().replace("name: canary", "name: good");
        let checked = run(&[&web, &v1, &v2, &good, &other], &["--strict"]);
        assert_eq!(
            checked.code,
            Some(i32::from(is_slip)),
            "{api_version}: {}",
            checked.text
        );
        if is_slip {
            checked.assert_says(&[("warning", "UnknownApiVersion", "apiVersion")]);
            let remedy = "write split.smi-spec.io/v1alpha4 (";
            assert!(checked.text.contains(remedy), "{}", checked.text);
        }
    }
    // One of the right group is refused, and so it was judged.
    let checked = check(&[&written("split.smi-spec.io/v1")]);
    assert_eq!(checked.code, Some(1));
    checked.assert_says(&[("refused", "Unreadable", "apiVersion")]);
}

/// Case: FILE-NOT-OBJECT
#[test]
fn items_of_a_list_that_are_nothing_are_told() {
    let list = |item: &str| format!("apiVersion: v1\nkind: List\nitems:\n- {item}\n");
    let checked = run(&[&list("null"), &canary()], &["--strict"]);
    assert_eq!(checked.code, Some(1), "{}", checked.text);
    assert!(
        checked.text.contains("warning (NotAnObject)"),
        "{}",
        checked.text
    );
    assert!(checked.text.contains("item 1)"), "{}", checked.text);
    for item in ["{apiVersion: v1}", "{apiVersion: '', kind: ''}", "{}"] {
        let checked = run(&[&list(item), &canary()], &[]);
        assert_eq!(checked.code, Some(1), "{item}: {}", checked.text);
        assert!(!checked.text.contains("not read"), "{}", checked.text);
    }
}

#[test]
fn nothing_is_judged_of_an_empty_device() {
    let output = Command::new(env!("CARGO_BIN_EXE_splitter-agent"))
        .args(["check", "/dev/null"])
        .output()
        .expect("splitter-agent");
    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

/// Case: FILE-BROKEN
#[test]
fn a_weight_that_is_almost_0_is_not_0() {
    let [web, v1, v2] = shop();
    let split = split("v1alpha4", "web", &[("web-v1", "1e-400"), ("web-v2", "1")]);
    let checked = check(&[&web, &v1, &v2, &split]);
    assert_eq!(checked.code, Some(1), "{}", checked.text);
    assert!(
        checked.text.contains("1e-400 is too small"),
        "{}",
        checked.text
    );
}

/// Backends that differ in a field that is not known are not the same backend twice.
/// Case: SMI-FIELD-RESTRICTION
#[test]
fn backends_of_other_namespaces_are_not_to_be_added_up() {
    let [web, v1, _] = shop();
    let split = split("v1alpha4", "web", &[("web-v1", "9"), ("web-v1", "1")]);
    let split = split
        .replace("weight: 9}", "weight: 9, namespace: blue}")
        .replace("weight: 1}", "weight: 1, namespace: green}");
    check(&[&web, &v1, &split]).assert_says(&[
        (
            "refused",
            "UnknownRestriction",
            "spec.backends[0].namespace",
        ),
        (
            "refused",
            "UnknownRestriction",
            "spec.backends[1].namespace",
        ),
    ]);
}

#[test]
fn a_backend_without_a_name_does_not_shift_the_others() {
    let [web, v1, _] = shop();
    let backends = [("nameless", "1"), ("web-v1", "9"), ("web-v2", "1")];
    let split = split("v1alpha4", "web", &backends).replace("service: nameless, ", "");
    check(&[&web, &v1, &split]).assert_says(&[
        ("refused", "InvalidBackend", "spec.backends[0].service"),
        ("warning", "LeafServiceMissing", "spec.backends[2]"),
    ]);
}

/// What is wrong a hundred thousand times is told a few times, and soon.
/// Case: REPORT-SHORT
#[test]
fn a_split_of_any_size_is_judged_in_seconds_and_in_a_few_lines() {
    const COUNT: usize = 100_000;
    let services = ["web", "web-v1", "web-v2"].map(|name| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
            "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
        })
        .to_string()
    });
    let of = |backend: &dyn Fn(usize) -> (String, Value)| {
        let backends: Vec<Value> = (0..COUNT)
            .map(|index| {
                let (service, weight) = backend(index);
                json!({"service": service, "weight": weight})
            })
            .collect();
        json!({
            "apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
            "metadata": {"name": "canary", "namespace": "shop"},
            "spec": {"service": "web", "backends": backends},
        })
        .to_string()
    };
    let one_of_two = |index: usize| ["web-v1", "web-v2"][index % 2].to_owned();
    for (split, says) in [
        (
            of(&|index| (one_of_two(index), json!(1))),
            "DuplicateBackend",
        ),
        (of(&|index| (one_of_two(index), json!(-1))), "InvalidWeight"),
        (
            of(&|index| (format!("Not a name {index}"), json!("900m"))),
            "InvalidBackendName",
        ),
        (
            of(&|index| (format!("web-v{index}"), json!(1))),
            "TooManyBackends",
        ),
    ] {
        let start = Instant::now();
        let text = [&services[..], &[split]].concat().join("\n");
        let checked = run_file("manifests.json", &text, &[]);
        let took = start.elapsed();
        assert!(took < Duration::from_secs(60), "{says}: {took:?}");
        assert_eq!(checked.code, Some(1), "{says}");
        assert!(checked.text.contains(says), "{says}: {}", checked.text);
        let lines = checked.text.lines().count();
        assert!(lines < 50, "{says}: {lines} lines");
        let is_counted = checked.text.contains("more like it");
        assert!(is_counted || says == "TooManyBackends", "{}", checked.text);
        println!("{says}: {took:?}, {lines} lines");
    }
}

/// Case: GATEWAY-PARENT-OTHER, GATEWAY-PARENT-GROUP
#[test]
fn routes_of_the_gateway_api_are_judged_if_they_are_for_services() {
    let [web, v1, v2] = shop();
    let route = |parent: &str, rule: &str| {
        format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
             metadata: {{name: canary, namespace: shop}}\n\
             spec:\n  parentRefs: [{parent}]\n  rules:\n  - {{backendRefs: [{{name: web-v1, port: 80}}, \
             {{name: web-v2, port: 80}}]{rule}}}\n"
        )
    };
    let service = "{group: \"\", kind: Service, name: web}";
    let judged = |route: String, strict: bool| {
        let arguments: &[&str] = if strict { &["--strict"] } else { &[] };
        run(&[&web, &v1, &v2, &route], arguments)
    };
    let good = judged(route(service, ""), true);
    assert_eq!(good.code, Some(0), "{}", good.text);
    assert!(good.text.contains("HTTPRoute shop/canary: accepted"));

    let timeouts = ", timeouts: {request: 2ms}";
    let refused = judged(route(service, timeouts), false);
    assert_eq!(refused.code, Some(1));
    let field =
        "HTTPRoute shop/canary: refused (UnsupportedField): spec.rules[0].timeouts.request: ";
    assert!(refused.text.contains(field), "{}", refused.text);

    // Its backends are judged although it is refused.
    let missing = route(service, timeouts).replace("web-v2", "web-v3");
    let missing = judged(missing, false);
    assert!(
        missing.text.contains("Service shop/web-v3 does not exist"),
        "{}",
        missing.text
    );

    let slip = judged(route("{kind: Service, name: web}", ""), false);
    assert_eq!(slip.code, Some(0), "{}", slip.text);
    assert!(
        slip.text
            .contains("(InvalidParent): spec.parentRefs[0].group: is missing")
    );
    assert_eq!(
        judged(route("{kind: Service, name: web}", ""), true).code,
        Some(1)
    );

    let others = judged(route("{name: gate}", timeouts), false);
    assert_eq!(others.code, Some(3));
    let unread = "not read: 1 HTTPRoute (gateway.networking.k8s.io/v1)";
    assert!(others.text.contains(unread), "{}", others.text);
}

#[test]
fn istios_objects_are_judged_as_if_the_pods_of_subsets_were_there() {
    let [web, ..] = shop();
    let virtual_service = |more: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: web, namespace: \
             shop}}\nspec:\n  hosts: [web]\n  http:\n  - route:\n    - {{destination: {{host: web, \
             subset: v1}}, weight: 90}}\n    - {{destination: {{host: web, subset: v2}}, weight: \
             10}}\n{more}"
        )
    };
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web, \
                namespace: shop}\nspec:\n  host: web\n  subsets:\n  - {name: v1, labels: {version: v1}}\n  - \
                {name: v2, labels: {version: v2}}\n";
    let checked = check(&[&web, &virtual_service(""), rule]);
    assert_eq!(checked.code, Some(0), "{}{}", checked.text, checked.error);
    assert!(
        checked.text.contains("VirtualService shop/web: accepted"),
        "{}",
        checked.text
    );
    let checked = check(&[&web, &virtual_service("")]);
    assert!(checked.text.contains("SubsetNotFound"), "{}", checked.text);
    let checked = check(&[&web, &virtual_service("    timeout: 0.002s\n"), rule]);
    assert_eq!(checked.code, Some(1), "{}", checked.text);
    let expected = "VirtualService shop/web: refused (UnsupportedField): spec.http[0].timeout";
    assert!(checked.text.contains(expected), "{}", checked.text);
}

/// Case: ISTIO-DELEGATE, ISTIO-DELEGATE-NOT-FOUND
#[test]
fn a_virtual_service_is_judged_with_its_delegate() {
    let [web, v1, v2] = shop();
    let istio = |name: &str, spec: &str| {
        format!(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, \
             namespace: shop}}\nspec: {spec}\n"
        )
    };
    let root = istio(
        "canary",
        "{hosts: [web], http: [{delegate: {name: shared}}]}",
    );
    let shared = istio(
        "shared",
        "{http: [{route: [{destination: {host: web-v1}, weight: 9}, {destination: {host: web-v2}, weight: 1}]}]}",
    );
    let checked = run(&[&web, &v1, &v2, &root, &shared], &["--strict"]);
    assert_eq!(checked.code, Some(0), "{}", checked.text);
    assert!(
        checked.text.contains("shop/canary: accepted (Accepted)"),
        "{}",
        checked.text
    );
    assert!(
        checked.text.contains("shop/shared: note (UsedAsDelegate)"),
        "{}",
        checked.text
    );
    let checked = check(&[&web, &v1, &v2, &root]);
    assert_eq!(checked.code, Some(1), "{}", checked.text);
    let refused = "refused (DelegateNotFound): spec.http[0].delegate: names VirtualService";
    assert!(checked.text.contains(refused), "{}", checked.text);
}

/// Case: ISTIO-MATCH
#[test]
fn the_destinations_of_a_virtual_service_that_is_refused_are_judged_all_the_same() {
    let [web, v1, v2] = shop();
    let virtual_service = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: canary, namespace: shop}
spec:
  hosts: [web]
  http:
  - match: [{headers: {user: {exact: x}}}]
    timeout: 1s
    route: [{destination: {host: web-v1, subset: none}}]
  - match: [{port: 81}]
    route: [{destination: {host: web-v1}, weight: 1}, {destination: {host: gone}, weight: 1}]
  - route: [{destination: {host: web.shop}, weight: 1}, {destination: {host: web-v2}, weight: 0}]
  - route: [{destination: {host: web-v2, port: {number: 99}}}]
";
    let checked = check(&[&web, &v1, &v2, virtual_service]);
    assert_eq!(checked.code, Some(1), "{}", checked.text);
    for expected in [
        "refused (MatchesUnsupported): spec.http[0].match[0].headers",
        "refused (UnsupportedField): spec.http[0].timeout",
        "warning (SubsetNotFound): spec.http[0].route[0].destination.subset",
        "warning (HostNotFound): spec.http[2].route[0].destination.host",
        "warning (LeafPortMissing): spec.http[3].route[0]",
    ] {
        assert!(
            checked.text.contains(expected),
            "{expected}:\n{}",
            checked.text
        );
    }
    let of_canary = checked
        .text
        .lines()
        .filter(|line| line.contains("shop/canary: "));
    assert_eq!(of_canary.count(), 5, "{}", checked.text);
}

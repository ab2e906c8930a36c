//! That the API server takes every manifest, and what it lets the agent do.

use testbed::fixtures::ApiServer;
use testbed::fixtures::definitions::{GATEWAY_ROUTES, ISTIO_KINDS};

use super::kustomization::Kustomization;

const AGENT: &str = "system:serviceaccount:splitter-system:splitter-agent";

/// What the agent may do: verb, resource, and flags that say where.
const ALLOWED: [(&str, &str, &[&str]); 29] = [
    ("get", "nodes/any", &[]),
    ("list", "services", &["--all-namespaces"]),
    ("watch", "services", &["--all-namespaces"]),
    (
        "list",
        "endpointslices.discovery.k8s.io",
        &["--all-namespaces"],
    ),
    (
        "watch",
        "endpointslices.discovery.k8s.io",
        &["--all-namespaces"],
    ),
    (
        "list",
        "trafficsplits.split.smi-spec.io",
        &["--all-namespaces"],
    ),
    (
        "watch",
        "trafficsplits.split.smi-spec.io",
        &["--all-namespaces"],
    ),
    (
        "patch",
        "trafficsplits.split.smi-spec.io",
        &["--subresource=status", "--namespace=default"],
    ),
    ("get", "crd/trafficsplits.split.smi-spec.io", &[]),
    ("list", "crd/trafficsplits.split.smi-spec.io", &[]),
    ("watch", "crd/trafficsplits.split.smi-spec.io", &[]),
    ("list", "pods", &["--all-namespaces"]),
    ("watch", "pods", &["--all-namespaces"]),
    (
        "list",
        "virtualservices.networking.istio.io",
        &["--all-namespaces"],
    ),
    (
        "watch",
        "virtualservices.networking.istio.io",
        &["--all-namespaces"],
    ),
    (
        "patch",
        "virtualservices.networking.istio.io",
        &["--subresource=status", "--namespace=default"],
    ),
    (
        "list",
        "destinationrules.networking.istio.io",
        &["--all-namespaces"],
    ),
    (
        "watch",
        "destinationrules.networking.istio.io",
        &["--all-namespaces"],
    ),
    ("get", "crd/virtualservices.networking.istio.io", &[]),
    ("watch", "crd/virtualservices.networking.istio.io", &[]),
    ("get", "crd/destinationrules.networking.istio.io", &[]),
    ("watch", "crd/destinationrules.networking.istio.io", &[]),
    ("create", "events.events.k8s.io", &["--namespace=default"]),
    ("patch", "events.events.k8s.io", &["--namespace=default"]),
    (
        "create",
        "leases.coordination.k8s.io",
        &["--namespace=splitter-system"],
    ),
    (
        "get",
        "leases.coordination.k8s.io/splitter-agent",
        &["--namespace=splitter-system"],
    ),
    (
        "update",
        "leases.coordination.k8s.io/splitter-agent",
        &["--namespace=splitter-system"],
    ),
    // Every service account may.
    ("get", "/apis/split.smi-spec.io", &[]),
    ("get", "/version", &[]),
];

/// What it may not, of what others grant or what is close to the above.
const FORBIDDEN: [(&str, &str, &[&str]); 20] = [
    (
        "patch",
        "leases.coordination.k8s.io/splitter-agent",
        &["--namespace=splitter-system"],
    ),
    ("get", "services", &["--namespace=default"]),
    ("update", "services", &["--namespace=default"]),
    (
        "update",
        "trafficsplits.split.smi-spec.io",
        &["--namespace=default"],
    ),
    (
        "patch",
        "trafficsplits.split.smi-spec.io",
        &["--namespace=default"],
    ),
    (
        "delete",
        "trafficsplits.split.smi-spec.io",
        &["--namespace=default"],
    ),
    ("list", "crd", &[]),
    ("patch", "crd/trafficsplits.split.smi-spec.io", &[]),
    ("get", "pods", &["--namespace=splitter-system"]),
    ("get", "pods/log", &["--namespace=splitter-system"]),
    ("list", "secrets", &["--namespace=splitter-system"]),
    ("list", "configmaps", &["--namespace=splitter-system"]),
    ("list", "nodes", &[]),
    ("watch", "nodes", &[]),
    ("patch", "nodes/any", &[]),
    (
        "get",
        "leases.coordination.k8s.io/other",
        &["--namespace=splitter-system"],
    ),
    (
        "create",
        "leases.coordination.k8s.io",
        &["--namespace=kube-system"],
    ),
    ("create", "pods", &["--namespace=splitter-system"]),
    (
        "patch",
        "virtualservices.networking.istio.io",
        &["--namespace=default"],
    ),
    (
        "patch",
        "destinationrules.networking.istio.io",
        &["--namespace=default"],
    ),
];

#[test]
fn the_agent_may_do_what_it_does_and_nothing_more() {
    let server = ApiServer::start();
    server.create_crd();
    for kind in ISTIO_KINDS {
        server.apply(&kind.definition().to_string());
        server.wait_for(&["get", &format!("{}.{}", kind.plural, kind.group)]);
    }
    server.succeed(&["apply", "-k", "deploy/"], "");
    // Again, over what is there.
    for component in ["admission", "capabilities", "gke", "uninstall"] {
        let kustomization = Kustomization::new(&[component], None);
        server.succeed(&["apply", "-k", kustomization.path()], "");
    }
    for example in ["bookstore", "httpbin", "clients.yaml"] {
        let path = format!("deploy/examples/{example}");
        server.succeed(&["apply", "--filename", &path], "");
    }

    for kind in GATEWAY_ROUTES {
        server.apply(&kind.definition().to_string());
        server.wait_for(&["get", kind.plural]);
    }
    let may = |verb: &str, resource: &str, place: &[&str]| {
        let mut arguments = vec!["auth", "can-i", verb, resource, "--as", AGENT];
        arguments.extend([
            "--as-group=system:authenticated",
            "--as-group=system:serviceaccounts",
        ]);
        arguments.extend(place);
        let output = server.kubectl(&arguments, "");
        match String::from_utf8_lossy(&output.stdout).trim() {
            "yes" => true,
            "no" => false,
            _ => panic!("{verb} {resource}: {output:?}"),
        }
    };
    for (verb, resource, place) in ALLOWED {
        assert!(may(verb, resource, place), "may not {verb} {resource}");
    }
    for (verb, resource, place) in FORBIDDEN {
        assert!(!may(verb, resource, place), "may {verb} {resource}");
    }
    for kind in GATEWAY_ROUTES {
        let name = kind.definition_name();
        let crd = format!("crd/{name}");
        let status = ["--subresource=status", "--namespace=default"];
        for (verb, resource, place) in [
            ("list", &name, &["--all-namespaces"][..]),
            ("watch", &name, &["--all-namespaces"]),
            ("patch", &name, &status),
            ("get", &crd, &[]),
            ("list", &crd, &[]),
            ("watch", &crd, &[]),
        ] {
            assert!(may(verb, resource, place), "may not {verb} {resource}");
        }
        for (verb, resource, place) in [
            ("patch", &name, &["--namespace=default"][..]),
            ("update", &name, &["--namespace=default"]),
            ("update", &name, &status),
            ("patch", &crd, &[]),
        ] {
            assert!(!may(verb, resource, place), "may {verb} {resource}");
        }
    }
    server.succeed(&["delete", "-k", "deploy/", "--wait=false"], "");
}

/// The roles that a cluster's controller adds to those of everybody who may edit or view a
/// namespace.
#[test]
fn editors_of_a_namespace_may_write_splits_and_viewers_read_them() {
    let server = ApiServer::start();
    server.create_crd();
    server.succeed(&["apply", "-k", "deploy/"], "");
    for (role, user, kinds) in [
        ("edit", "editor", &["edit", "admin"][..]),
        ("view", "viewer", &["view"]),
    ] {
        let name = format!("splitter-traffic-splits-{role}");
        let labels = &server.get("clusterrole", &name)["metadata"]["labels"];
        for kind in kinds {
            let label = format!("rbac.authorization.k8s.io/aggregate-to-{kind}");
            assert_eq!(labels[&label], "true", "{name}");
        }
        let who = format!("--user={user}");
        let role = format!("--clusterrole={name}");
        server.succeed(&["create", "rolebinding", &name, &role, &who], "");
    }
    let may = |user: &str, verb: &str, resource: &str, place: &[&str]| {
        let mut arguments = vec!["auth", "can-i", verb, resource, "--as", user];
        arguments.extend(place);
        let output = server.kubectl(&arguments, "");
        String::from_utf8_lossy(&output.stdout).trim() == "yes"
    };
    const SPLITS: &str = "trafficsplits.split.smi-spec.io";
    let here = ["--namespace=default"];
    for verb in ["get", "list", "watch"] {
        for user in ["editor", "viewer"] {
            assert!(may(user, verb, SPLITS, &here), "{user} may not {verb}");
        }
    }
    for verb in ["create", "update", "patch", "delete", "deletecollection"] {
        assert!(may("editor", verb, SPLITS, &here), "may not {verb}");
        assert!(!may("viewer", verb, SPLITS, &here), "may {verb}");
        assert!(!may("editor", verb, SPLITS, &["--namespace=kube-system"]));
    }
    let status = ["--namespace=default", "--subresource=status"];
    assert!(!may("editor", "patch", SPLITS, &status));
    assert!(may("viewer", "get", SPLITS, &status));
    server.succeed(&["delete", "-k", "deploy/", "--wait=false"], "");
}

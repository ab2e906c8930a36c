//! That Helm makes of the chart what `kubectl` makes of the manifests.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;
use xtask::{cluster::tools, workspace::root};

/// Objects by kind and name. The namespace is Helm's own affair.
type Objects = BTreeMap<(String, String), Value>;

fn objects(command: &mut Command) -> Objects {
    let output = command.current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
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

#[test]
fn helm_renders_what_the_manifests_say() {
    let helm = tools::helm().unwrap();
    let kubectl = tools::ensure().unwrap().program("kubectl").unwrap();
    let render = |settings: &str| {
        objects(
            Command::new(&helm)
                .args(["template", "splitter", "deploy/chart"])
                .args(["--namespace=splitter-system", "--kube-version=1.33.0"])
                .args(["--set", settings]),
        )
    };
    let build = |path: &str| objects(Command::new(&kubectl).args(["kustomize", path]));
    assert_eq!(render(""), build("deploy"));
    assert_eq!(
        render("privileged=false"),
        build("deploy/overlays/capabilities")
    );
    assert_eq!(
        render("cleanup=true,updateStrategy.rollingUpdate.maxUnavailable=100%"),
        build("deploy/uninstall")
    );
    let mut all =
        render("installCRDs=true,monitoring.podMonitor=true,monitoring.prometheusRule=true");
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

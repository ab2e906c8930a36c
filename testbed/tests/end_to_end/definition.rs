//! Other definitions of TrafficSplits than that of `deploy/crd`.

use serde_json::{Value, json};
use testbed::fixtures::manifests::{self, CRD, Version, schema_of_others, with};

use crate::test_cluster::{TestCluster, wait_for};

/// Takes the definition away when dropped, and every split with it; the next test finds the one
/// of `deploy/crd` in its place.
pub(crate) struct Changed<'a>(pub(crate) &'a TestCluster);

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        let arguments = ["delete", "crd", CRD, "--ignore-not-found"];
        let _ = self.0.try_kubectl(&arguments, None);
    }
}

impl TestCluster {
    /// The definition of `deploy/crd`.
    pub(crate) fn own_definition(&self) -> Value {
        self.get(&["create", "--dry-run=client", "-k", "deploy/crd"])
    }

    /// Puts a definition in the place of the one that is there, with all its splits.
    pub(crate) fn replace_definition(&self, definition: &Value) {
        let output = self.try_kubectl(&["replace", "-f", "-"], Some(&definition.to_string()));
        assert!(output.status.success(), "{output:?}");
    }

    /// Deletes the definition, and every split with it.
    pub(crate) fn delete_definition(&self) {
        self.kubectl(&["delete", "crd", CRD, "--timeout=90s"]);
    }

    /// Brings a definition where there is none, and waits until splits can be made.
    pub(crate) fn create_definition(&self, definition: &Value) {
        let output = self.try_kubectl(&["create", "-f", "-"], Some(&definition.to_string()));
        assert!(output.status.success(), "{output:?}");
        self.wait_for_definition();
    }

    /// Waits until splits can be made.
    pub(crate) fn wait_for_definition(&self) {
        let condition = "--for=condition=Established";
        self.kubectl(&["wait", condition, "crd", CRD, "--timeout=90s"]);
        // Established is not yet served.
        wait_for("TrafficSplits to be served", || {
            let versions = self.get(&["get", "crd", CRD]);
            let versions = versions["spec"]["versions"].as_array()?.clone();
            let served = versions.iter().find(|version| version["served"] == true)?;
            let version = served["name"].as_str()?;
            let url = format!("/apis/split.smi-spec.io/{version}/trafficsplits");
            let list = self.try_kubectl(&["get", "--raw", &url], None);
            list.status.success().then_some(())
        });
    }
}

/// A definition with these versions.
pub(crate) fn definition(versions: &[Value]) -> Value {
    let spec = json!({
        "names": {"shortNames": ["ts"]},
        "conversion": {"strategy": "None"},
        "versions": versions,
    });
    with(manifests::definition(&[], ""), &json!({"spec": spec}))
}

/// A version as Open Service Mesh, osm-edge and the SMI SDK define it: no status, any number as
/// a weight.
pub(crate) fn version(name: &str, is_served: bool, is_stored: bool) -> Value {
    version_with(name, is_served, is_stored, &json!({"type": "number"}))
}

/// The version v1alpha1 as linkerd-smi defines it.
pub(crate) fn quantities(is_stored: bool) -> Value {
    let weight = json!({"x-kubernetes-int-or-string": true});
    version_with("v1alpha1", true, is_stored, &weight)
}

fn version_with(name: &str, is_served: bool, is_stored: bool, weight: &Value) -> Value {
    json!({
        "name": name, "served": is_served, "storage": is_stored,
        "additionalPrinterColumns": [{
            "name": "Service", "type": "string", "jsonPath": ".spec.service",
            "description": "The apex service of this split.",
        }],
        "schema": {"openAPIV3Schema": schema_of_others(weight)},
    })
}

/// A definition that takes whatever is called a TrafficSplit.
pub(crate) fn permissive() -> Value {
    let versions = ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"];
    manifests::definition(&versions.map(Version::permissive), "v1alpha4")
}

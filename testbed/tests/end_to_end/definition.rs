//! Other definitions of TrafficSplits than that of `deploy/crd`.

use serde_json::{Value, json};
use testbed::fixtures::manifests::{self, CRD, with};

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
    json!({
        "name": name, "served": is_served, "storage": is_stored,
        "additionalPrinterColumns": [{
            "name": "Service", "type": "string", "jsonPath": ".spec.service",
            "description": "The apex service of this split.",
        }],
        "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {
            "type": "object", "required": ["service", "backends"],
            "properties": {
                "service": {"description": "The apex service of this split.", "type": "string"},
                "matches": {"type": "array", "items": {
                    "type": "object", "required": ["kind", "name"],
                    "properties": {
                        "kind": {"type": "string", "enum": ["HTTPRouteGroup"]},
                        "name": {"type": "string"},
                    },
                }},
                "backends": {"type": "array", "items": {
                    "type": "object", "required": ["service", "weight"],
                    "properties": {
                        "service": {"type": "string"},
                        "weight": {"type": "number"},
                    },
                }},
            },
        }}}},
    })
}

/// The version v1alpha1 as linkerd-smi defines it.
pub(crate) fn quantities(is_stored: bool) -> Value {
    let mut version = version("v1alpha1", true, is_stored);
    let spec = "/schema/openAPIV3Schema/properties/spec/properties";
    let weight = format!("{spec}/backends/items/properties/weight");
    *version.pointer_mut(&weight).expect("a weight") = json!({"x-kubernetes-int-or-string": true});
    version
}

/// A definition that takes whatever is called a TrafficSplit.
pub(crate) fn permissive() -> Value {
    let versions = ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"];
    let version = |name: &str| {
        json!({
            "name": name, "served": true, "storage": name == "v1alpha4",
            "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }},
        })
    };
    definition(&versions.map(version))
}

//! APIs that are left out, for a whole process.

use std::process::Command;

use serde_json::{Value, json};
use splitter_agent::kinds;
use splitter_agent::objects::{Kind, decode};

fn object(api_version: &str, kind: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "web"}, "spec": 7})
}

#[test]
fn objects_of_an_api_that_is_left_out_are_as_any_other() {
    let istio = Kind::VIRTUAL_SERVICE.resource.group;
    let smi = Kind::TRAFFIC_SPLIT.resource.group;
    kinds::leave_out(vec![smi, istio]).expect("nothing was read before");
    for (api_version, kind) in [
        ("split.smi-spec.io/v1alpha4", "TrafficSplit"),
        ("split.smi-spec.io/v1alpha4", "Split"),
        ("split.smi-spec.io/v9", "TrafficSplit"),
        ("networking.istio.io/v1", "VirtualService"),
        ("networking.istio.io/v1", "DestinationRule"),
    ] {
        assert_eq!(decode(object(api_version, kind)), Ok(None), "{kind}");
    }
    let route = decode(object("gateway.networking.k8s.io/v1", "HTTPRoute"));
    assert!(matches!(route, Ok(Some(_))), "{route:?}");
    assert!(Kind::routes().all(|kind| kind.resource.group == Kind::HTTP_ROUTE.resource.group));
    assert_eq!(kinds::leave_out(Vec::new()), Err(kinds::InUse));
}

#[test]
fn an_api_that_there_is_not_is_refused_with_those_that_there_are() {
    let agent = Command::new(env!("CARGO_BIN_EXE_splitter-agent"))
        .args(["run", "--apis", "smi,consul", "--manifests", "/nowhere"])
        .output()
        .expect("the agent");
    assert_eq!(agent.status.code(), Some(2));
    let error = String::from_utf8_lossy(&agent.stderr);
    for text in ["consul", "smi", "istio", "gateway"] {
        assert!(error.contains(text), "{error}");
    }
}

//! One more kind of objects, which comes with nothing but its type and one entry: everything that
//! goes by kinds knows it.

mod canary_route;
mod clients;
#[path = "../common/mod.rs"]
mod common;
#[path = "../kubernetes/observer.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod observer;
#[path = "../kubernetes/server.rs"]
#[allow(dead_code, reason = "other tests use more of it")]
mod server;

use std::path::PathBuf;
use std::sync::Once;

use serde_json::{Value, json};
use splitter_agent::compile::{Compiled, Compiler, Knowledge, Settings, Severity, compile};
use splitter_agent::datapath::{Capacity, View};
use splitter_agent::judge::judge;
use splitter_agent::kinds;
use splitter_agent::objects::{Kind, ObjectName, ObjectReference, Objects, decode};
use splitter_agent::plan::{Decision, FrontendPlan};
use splitter_agent::reason;
use splitter_agent::source::manifests;
use splitter_common::layout::Reason;
use testbed::fixtures::manifests::{endpoint_slice, service, traffic_split};

use canary_route::CANARY_ROUTE;

const NAMESPACE: &str = "shop";

/// Adds the kind, once for this process.
fn add() {
    static ADDED: Once = Once::new();
    ADDED.call_once(|| {
        let entries = [&canary_route::ENTRY, &canary_route::PRIORITY_ENTRY];
        kinds::add(&entries).expect("no object was read before");
    });
}

fn canary_route(name: &str, canaries: &Value) -> Value {
    json!({
        "apiVersion": "example.dev/v1", "kind": "CanaryRoute",
        "metadata": {"name": name, "namespace": NAMESPACE, "generation": 4},
        "spec": {"canaries": canaries},
    })
}

/// Two canaries in one object.
fn two_canaries() -> Value {
    canary_route(
        "both",
        &json!([
            {"root": "web", "port": 80, "stable": "web-1", "canary": "web-2", "canaryPort": 8080,
             "percent": 10},
            {"root": "api", "stable": "api-1", "canary": "api-2", "percent": 50},
        ]),
    )
}

/// The Services of both, and a ready endpoint behind each.
fn world() -> Vec<Value> {
    let ports = |name: &str| match name {
        "web" => json!([{"name": "a", "port": 80}, {"name": "b", "port": 81}]),
        "web-2" => json!([{"name": "a", "port": 8080}]),
        _ => json!([{"name": "a", "port": 80}]),
    };
    let names = ["web", "web-1", "web-2", "api", "api-1", "api-2"];
    let objects = names.into_iter().zip(1..).flat_map(|(name, number)| {
        let spec = json!({
            "clusterIP": format!("10.96.0.{number}"), "ports": ports(name),
            "selector": {"app": name},
        });
        let slice = json!({
            "ports": [{"name": "a", "port": 8000}],
            "endpoints": [{"addresses": [format!("10.0.0.{number}")], "conditions": {"ready": true}}],
        });
        [
            service(NAMESPACE, name, &spec),
            endpoint_slice(NAMESPACE, &format!("{name}-x"), name, &slice),
        ]
    });
    objects.collect()
}

fn compiled(values: impl IntoIterator<Item = Value>) -> Compiled {
    let mut objects = Objects::default();
    for value in values {
        objects.insert(decode(value).expect("readable").expect("of interest"));
    }
    compile(&objects, &Settings::default())
}

fn of_frontend<'a>(compiled: &'a Compiled, address: &str) -> Option<&'a FrontendPlan> {
    let address = address.parse().expect("an address");
    let mut frontends = compiled.plan.frontends.iter();
    let found = frontends.find(|(frontend, _)| frontend.address == address);
    found.map(|(_, plan)| plan)
}

fn reasons(compiled: &Compiled, kind: Kind, name: &str) -> Vec<&'static str> {
    let object = ObjectReference::new(kind, ObjectName::new(NAMESPACE, name));
    let diagnostics = compiled.diagnostics.iter();
    let of_object = diagnostics.filter(|diagnostic| diagnostic.object == object);
    of_object.map(|diagnostic| diagnostic.reason).collect()
}

#[test]
fn each_claim_of_an_object_is_split_by_itself() {
    add();
    let compiled = compiled(world().into_iter().chain([two_canaries()]));
    let web = of_frontend(&compiled, "10.96.0.1:80").expect("a frontend");
    assert_eq!(web.decision, Decision::Split);
    assert_eq!(web.origin.kind, "CanaryRoute");
    assert_eq!((web.leaves[0].share, web.leaves[1].share), (9, 1));
    // The canary's Service has another port than the one that is dialled.
    assert_eq!(
        web.leaves[1].endpoints,
        ["10.0.0.3:8000".parse().expect("an address")]
    );
    assert!(
        of_frontend(&compiled, "10.96.0.1:81").is_none(),
        "port 81 is not claimed"
    );
    let api = of_frontend(&compiled, "10.96.0.4:80").expect("a frontend");
    assert_eq!((api.leaves[0].share, api.leaves[1].share), (1, 1));
    assert_eq!(reasons(&compiled, CANARY_ROUTE, "both"), ["Accepted"]);
}

#[test]
fn objects_of_two_kinds_with_one_name_are_two_objects() {
    add();
    let split = traffic_split("v1alpha4", NAMESPACE, "both", "web", &[("web-1", 1)]);
    let compiled = compiled(world().into_iter().chain([split, two_canaries()]));
    // Of equal age, they are ranked by name, and then by kind.
    let web = of_frontend(&compiled, "10.96.0.1:80").expect("a frontend");
    assert_eq!(web.origin.kind, "CanaryRoute");
    let other = of_frontend(&compiled, "10.96.0.1:81").expect("a frontend");
    assert_eq!(other.origin.kind, "TrafficSplit");
    assert_eq!(reasons(&compiled, CANARY_ROUTE, "both"), ["Accepted"]);
    let told = reasons(&compiled, Kind::TRAFFIC_SPLIT, "both");
    assert!(told.contains(&reason::PORT_TAKEN), "{told:?}");
}

#[test]
fn one_claim_that_is_refused_leaves_the_others_of_its_object_alone() {
    add();
    let mut route = two_canaries();
    route["spec"]["canaries"][0]["percent"] = json!(101);
    let compiled = compiled(world().into_iter().chain([route]));
    let web = of_frontend(&compiled, "10.96.0.1:80").expect("a frontend");
    assert_eq!(web.decision, Decision::PassThrough(Reason::ObjectRefused));
    let api = of_frontend(&compiled, "10.96.0.4:80").expect("a frontend");
    assert_eq!(api.decision, Decision::Split);
    assert_eq!(reasons(&compiled, CANARY_ROUTE, "both"), ["InvalidWeight"]);
}

#[test]
fn what_is_programmed_for_an_object_stays_until_its_kind_is_followed() {
    add();
    let plan = compiled(world().into_iter().chain([two_canaries()])).plan;
    let mut compiler = Compiler::new(Settings::default());
    for kind in Kind::followed() {
        let is_known = kind != CANARY_ROUTE;
        compiler.know(
            kind,
            if is_known {
                Knowledge::Followed
            } else {
                Knowledge::Incomplete
            },
        );
    }
    for value in world() {
        compiler.apply(decode(value).expect("readable").expect("of interest"));
    }
    compiler.compile();
    for (frontend, programmed) in &plan.frontends {
        let judgement = compiler.judge(frontend, Some(programmed));
        assert_eq!(judgement.waits_for.into_iter().next(), Some(CANARY_ROUTE));
        assert_eq!(judgement.split.as_deref(), Some(programmed));
    }
    compiler.know(CANARY_ROUTE, Knowledge::Followed);
    for (frontend, programmed) in &plan.frontends {
        assert_eq!(compiler.judge(frontend, Some(programmed)).split, None);
    }
}

/// Manifests in a directory that goes with the value.
fn directory(values: &[Value]) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("all.json");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": values});
    std::fs::write(&path, list.to_string()).expect("a file");
    (directory, path)
}

#[test]
fn manifests_and_check_know_it() {
    add();
    let mut list = two_canaries();
    for field in ["apiVersion", "kind"] {
        list.as_object_mut().expect("an object").remove(field);
    }
    let list = json!({"apiVersion": "example.dev/v1", "kind": "CanaryRouteList", "items": [list]});
    let mut values = world();
    values.push(list);
    let (_directory, path) = directory(&values);
    let reading = manifests::read_to_judge(&[path]).expect("readable");
    let verdict = judge(&reading, &Settings::default());
    assert!(verdict.is_clean(), "{:?}", verdict.diagnostics);
    assert_eq!(verdict.splits, 1);
    assert_eq!(verdict.diagnostics.len(), 1);
    assert_eq!(verdict.diagnostics[0].object.kind, "CanaryRoute");
    assert_eq!(verdict.diagnostics[0].severity, Severity::Accepted);

    let slip = json!({"apiVersion": "example.dev/v1", "kind": "CanaryRoutes"});
    let error = decode(slip).expect_err("a slip");
    assert!(
        error.message.contains("write CanaryRoute"),
        "{}",
        error.message
    );
    let old = json!({"apiVersion": "example.dev/v0", "kind": "CanaryRoute"});
    let error = decode(old).expect_err("another version");
    assert!(
        error.message.contains("use example.dev/v1, example.dev/v2"),
        "{}",
        error.message
    );
}

#[test]
fn the_maps_name_it() {
    add();
    let mut scene = common::Scene::with("kinds", Capacity::default(), true);
    let plan = compiled(world().into_iter().chain([two_canaries()])).plan;
    let planned: Vec<_> = plan.frontends.into_iter().collect();
    scene.publish(&planned);
    let view = View::open(&scene.pins).expect("the pinned maps");
    assert_eq!(view.frontends.len(), planned.len());
    for programmed in view.frontends.values() {
        assert_eq!(programmed.plan.origin.kind, "CanaryRoute");
        assert_eq!(programmed.plan.origin.name, "both");
    }
}

fn definition(versions: &[&str]) -> Value {
    let versions = versions.iter().enumerate().map(|(number, version)| {
        json!({
            "name": version, "served": true, "storage": number == 0, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {
                "type": "object", "x-kubernetes-preserve-unknown-fields": true,
            }},
        })
    });
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": CANARY_ROUTE.definition_name()},
        "spec": {
            "group": "example.dev", "scope": "Namespaced",
            "names": {"plural": "canaryroutes", "singular": "canaryroute", "kind": "CanaryRoute"},
            "versions": versions.collect::<Vec<_>>(),
        },
    })
}

#[tokio::test]
async fn its_definition_may_come_late_change_and_go() {
    add();
    let server = server::Server::start().await;
    let mut observer = observer::Observer::of(server.client.clone());
    observer.until_complete().await;
    assert_eq!(
        observer.knowledge.get(&CANARY_ROUTE),
        Some(&Knowledge::Followed)
    );

    server.apply(&definition(&["v1"])).await;
    let mut route = two_canaries();
    route["metadata"]["namespace"] = json!("default");
    server.apply(&route).await;
    let is_told = |it: &observer::Observer| it.names("CanaryRoute") == ["both"];
    observer.until("told of the route", is_told).await;
    let version = |it: &observer::Observer| {
        let versions = it.watch.served_versions();
        let version = versions.borrow().get(&CANARY_ROUTE).cloned();
        version.map(|served| (served.version, served.has_status))
    };
    assert_eq!(version(&observer), Some(("v1".to_owned(), true)));

    server.apply(&definition(&["v1", "v2"])).await;
    let is_better = |it: &observer::Observer| {
        version(it).is_some_and(|(version, _)| version == "v2")
            && it.knowledge.get(&CANARY_ROUTE) == Some(&Knowledge::Followed)
    };
    observer
        .until("followed in the best version", is_better)
        .await;
    assert!(is_told(&observer));

    server.delete(&definition(&["v1", "v2"])).await;
    let is_gone = |it: &observer::Observer| it.names("CanaryRoute").is_empty();
    observer.until("told that the route is gone", is_gone).await;
    observer
        .until_metric("splitter_source_synced{kind=\"CanaryRoute\"} 1")
        .await;
}

//! ReferenceGrants, where they are required, for a whole process.

use std::process::Command;

use serde_json::{Value, json};
use splitter_agent::compile::{Compiled, Compiler, Knowledge, Settings, Severity, compile};
use splitter_agent::kinds;
use splitter_agent::objects::{Kind, ObjectName, ObjectReference, Objects, decode};
use splitter_agent::plan::Decision;
use splitter_common::layout::{LeafState, Reason};

/// Has ReferenceGrants read.
fn add() {
    // Every test of this process does so.
    let _ = kinds::add(&[Kind::REFERENCE_GRANT.entry()]);
}

fn settings() -> Settings {
    Settings {
        requires_grants: true,
        ..Settings::default()
    }
}

fn service(namespace: &str, name: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterIP": ip, "selector": {"app": name}, "ports": [{"port": 80}]},
    })
}

fn slice(namespace: &str, service: &str, address: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-0"), "namespace": namespace,
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4", "ports": [{"name": "", "port": 8080}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    })
}

/// A root with a backend beside it, and one in namespace `other`.
fn world() -> Vec<Value> {
    vec![
        service("shop", "web", "10.96.0.1"),
        service("shop", "web-1", "10.96.0.11"),
        service("other", "web-2", "10.96.0.12"),
        slice("shop", "web-1", "10.0.0.1"),
        slice("other", "web-2", "10.0.0.2"),
    ]
}

fn route(kind: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
        "metadata": {"name": "canary", "namespace": "shop", "generation": 1},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
            "rules": [{"backendRefs": [
                {"name": "web-1", "port": 80, "weight": 9},
                {"name": "web-2", "namespace": "other", "port": 80, "weight": 1},
            ]}],
        },
    })
}

fn grant(namespace: &str, from: &Value, to: &Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
        "metadata": {"name": "grant", "namespace": namespace}, "spec": {"from": [from], "to": [to]},
    })
}

fn from(kind: &str, namespace: &str) -> Value {
    json!({"group": "gateway.networking.k8s.io", "kind": kind, "namespace": namespace})
}

fn to(name: Option<&str>) -> Value {
    json!({"group": "", "kind": "Service", "name": name})
}

fn compiled(objects: impl IntoIterator<Item = Value>, settings: &Settings) -> Compiled {
    add();
    let mut read = Objects::default();
    for value in objects {
        let object = decode(value).expect("readable").expect("of interest");
        read.insert(object);
    }
    compile(&read, settings)
}

/// What is said of the route, and the state of its leaf in the other namespace.
fn outcome(compiled: &Compiled) -> (Vec<(Severity, &str, &str)>, LeafState) {
    let said = compiled.diagnostics.iter();
    let said = said.filter(|said| said.object.name.name == "canary");
    let said = said.map(|said| (said.severity, said.reason, said.field.as_str()));
    let mut splits = compiled.plan.frontends.values();
    let split = splits.next().expect("a frontend");
    assert_eq!(split.decision, Decision::Split);
    let shares: Vec<u32> = split.leaves.iter().map(|leaf| leaf.share).collect();
    assert_eq!(shares, [9, 1], "each keeps its share");
    (said.collect(), split.leaves[1].state)
}

const DENIED: [(Severity, &str, &str); 1] = [(
    Severity::Warning,
    "RefNotPermitted",
    "spec.rules[0].backendRefs[1]",
)];

/// Case: GATEWAY-BACKEND-GRANT
#[test]
fn a_backend_in_another_namespace_needs_a_grant_there_that_names_the_route_and_the_service() {
    let good = || grant("other", &from("HTTPRoute", "shop"), &to(None));
    for (grant, is_permitted) in [
        (None, false),
        (Some(good()), true),
        (
            Some(grant(
                "other",
                &from("HTTPRoute", "shop"),
                &to(Some("web-2")),
            )),
            true,
        ),
        (
            Some(grant(
                "other",
                &from("HTTPRoute", "shop"),
                &to(Some("web-3")),
            )),
            false,
        ),
        (
            Some(grant("other", &from("HTTPRoute", "team"), &to(None))),
            false,
        ),
        (
            Some(grant("other", &from("TCPRoute", "shop"), &to(None))),
            false,
        ),
        (
            Some(grant("shop", &from("HTTPRoute", "shop"), &to(None))),
            false,
        ),
        (
            Some(grant(
                "other",
                &json!({"group": "", "kind": "HTTPRoute", "namespace": "shop"}),
                &to(None),
            )),
            false,
        ),
        (
            Some(grant(
                "other",
                &from("HTTPRoute", "shop"),
                &json!({"group": "", "kind": "Secret"}),
            )),
            false,
        ),
    ] {
        let row = format!("{grant:?}");
        let objects = world().into_iter().chain([route("HTTPRoute")]);
        let compiled = compiled(objects.chain(grant), &settings());
        let (said, state) = outcome(&compiled);
        if is_permitted {
            assert_eq!(said, [(Severity::Accepted, "Accepted", "")], "{row}");
            assert_eq!(state, LeafState::Ready, "{row}");
        } else {
            assert_eq!(said, DENIED, "{row}");
            assert_eq!(state, LeafState::ServiceMissing, "{row}");
            let message = &compiled.diagnostics[0].message;
            assert!(
                message.contains("other/web-2") && message.contains("shop"),
                "{message}"
            );
        }
    }
    // Nobody asks for one otherwise.
    for kind in ["GRPCRoute", "HTTPRoute", "TCPRoute", "TLSRoute"] {
        let objects = || world().into_iter().chain([route(kind)]);
        let (said, state) = {
            let compiled = compiled(objects(), &Settings::default());
            let (said, state) = outcome(&compiled);
            (said.len(), state)
        };
        assert_eq!((said, state), (1, LeafState::Ready), "{kind}");
        let strict = compiled(objects(), &settings());
        assert_eq!(outcome(&strict).0, DENIED, "{kind}");
    }
}

/// Case: GATEWAY-BACKEND-GRANT
#[test]
fn grants_that_come_and_go_are_followed_and_one_that_was_not_heard_of_takes_nothing_away() {
    add();
    let mut compiler = Compiler::new(settings());
    let put = |compiler: &mut Compiler, value: Value| {
        compiler.apply(decode(value).expect("readable").expect("of interest"));
        compiler.compile()
    };
    for object in world() {
        put(&mut compiler, object);
    }
    put(&mut compiler, route("HTTPRoute"));
    let plan = |compiler: &Compiler| {
        let mut splits = compiler.plan().frontends.iter();
        let (frontend, split) = splits.next().expect("a frontend");
        (*frontend, split.clone())
    };
    let state = |compiler: &Compiler| plan(compiler).1.leaves[1].state;
    assert_eq!(state(&compiler), LeafState::ServiceMissing);
    let good = || grant("other", &from("HTTPRoute", "shop"), &to(None));
    let delta = put(&mut compiler, good());
    assert_eq!(delta.frontends.len(), 1);
    assert_eq!(state(&compiler), LeafState::Ready);
    assert_eq!(put(&mut compiler, good()).frontends.len(), 0);
    let programmed = plan(&compiler).1;
    let of_grant = ObjectReference::new(Kind::REFERENCE_GRANT, ObjectName::new("other", "grant"));
    compiler.delete(&of_grant);
    compiler.compile();
    assert_eq!(state(&compiler), LeafState::ServiceMissing);

    // An agent that starts anew.
    let mut compiler = Compiler::new(settings());
    compiler.know(Kind::REFERENCE_GRANT, Knowledge::Incomplete);
    for object in world().into_iter().chain([route("HTTPRoute")]) {
        put(&mut compiler, object);
    }
    let (frontend, planned) = plan(&compiler);
    assert_eq!(planned.decision, Decision::PassThrough(Reason::NotKnownYet));
    let judgement = compiler.judge(&frontend, Some(&programmed));
    assert_eq!(judgement.waits_for, [Kind::REFERENCE_GRANT].into());
    assert_eq!(judgement.split.as_deref(), Some(&programmed));
    put(&mut compiler, good());
    assert_eq!(state(&compiler), LeafState::Ready);
    compiler.delete(&of_grant);
    compiler.know(Kind::REFERENCE_GRANT, Knowledge::Followed);
    compiler.compile();
    assert_eq!(state(&compiler), LeafState::ServiceMissing);
}

/// Case: GATEWAY-BACKEND-GRANT
#[test]
fn check_asks_for_grants_if_it_is_told_to() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("manifests.json");
    let write = |objects: Vec<Value>| {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        std::fs::write(&file, list.to_string()).expect("written");
    };
    let check = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_splitter-agent"))
            .arg("check")
            .arg(&file)
            .args(arguments)
            .output()
            .expect("the agent");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let objects = [world(), vec![route("TCPRoute")]].concat();
    write(objects.clone());
    assert!(check(&[]).contains("accepted (Accepted)"));
    let text = check(&["--require-reference-grants"]);
    assert!(text.contains("warning (RefNotPermitted)"), "{text}");
    write(
        [
            objects,
            vec![grant("other", &from("TCPRoute", "shop"), &to(None))],
        ]
        .concat(),
    );
    let text = check(&["--require-reference-grants"]);
    assert!(text.contains("accepted (Accepted)"), "{text}");
}

//! Claims that are about some clients only, and shares of leaves without endpoints.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use splitter_agent::compile::{Client, Compiler, Delta, Knowledge, Settings, Severity};
use splitter_agent::objects::{Kind, ObjectName, ObjectReference, decode};
use splitter_agent::plan::{Decision, Frontend, FrontendPlan};
use splitter_agent::reason;
use splitter_common::layout::{ClientScope, LeafState, Protocol, Reason};

use crate::canary_route::{CANARY_ROUTE, PRIORITY_ROUTE};
use crate::{NAMESPACE, add, canary_route, compiled, of_frontend, reasons, world};

const WEB: &str = "10.96.0.1:80";
const API: &str = "10.96.0.4:80";

/// A canary of `web` with so many percent, for some clients.
fn web(percent: u32, clients: &Value) -> Value {
    json!({
        "root": "web", "port": 80, "stable": "web-1", "canary": "web-2", "canaryPort": 8080,
        "percent": percent, "clients": clients,
    })
}

fn namespace(name: &str) -> Value {
    json!({"namespaces": [name]})
}

fn client(namespace: &str, labels: &[(&str, &str)]) -> Client {
    let labels = labels.iter();
    Client {
        namespace: namespace.to_owned(),
        labels: labels
            .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

/// A compiler, and the scopes that it gave to the pods of its node.
struct Node {
    compiler: Compiler,
    scopes: BTreeMap<String, ClientScope>,
}

impl Node {
    fn new() -> Self {
        add();
        let mut compiler = Compiler::new(Settings::default());
        for object in world() {
            compiler.apply(decode(object).expect("readable").expect("of interest"));
        }
        Self {
            compiler,
            scopes: BTreeMap::new(),
        }
    }

    fn apply(&mut self, route: Value) {
        let object = decode(route).expect("readable").expect("of interest");
        self.compiler.apply(object);
    }

    fn put(&mut self, uid: &str, client: Client) {
        self.compiler.put_client(uid.to_owned(), client);
    }

    fn compile(&mut self) -> Delta {
        let delta = self.compiler.compile();
        self.scopes.extend(delta.clients.clone());
        delta
    }

    fn plan(&self, address: &str, clients: ClientScope) -> Option<&FrontendPlan> {
        let frontend = Frontend {
            address: address.parse().expect("an address"),
            protocol: Protocol::Tcp,
            clients,
        };
        self.compiler.plan().frontends.get(&frontend)
    }

    /// The share of the canary for a pod; `None` if its connections are left alone.
    fn canary(&self, address: &str, uid: &str) -> Option<u32> {
        let own = self.plan(address, self.scopes[uid]);
        let plan = own.or_else(|| self.plan(address, ClientScope::EVERYONE))?;
        match plan.decision {
            Decision::Split => {
                let shares: Vec<u32> = plan.leaves.iter().map(|leaf| leaf.share).collect();
                Some(shares[1] * 100 / shares.iter().sum::<u32>())
            }
            Decision::PassThrough(Reason::OtherClients) => None,
            other => panic!("{other:?}"),
        }
    }
}

/// Case: CLIENTS-SOME
#[test]
fn a_claim_for_some_clients_leaves_all_others_alone() {
    let mut node = Node::new();
    node.put("a", client("team-a", &[]));
    node.put("b", client("team-b", &[]));
    node.apply(canary_route("one", &json!([web(10, &namespace("team-a"))])));
    node.compile();
    assert_eq!(node.canary(WEB, "a"), Some(10));
    assert_eq!(node.canary(WEB, "b"), None);
    assert_eq!(node.scopes["b"], ClientScope::EVERYONE);
    let scope = node.compiler.scope(node.scopes["a"]).expect("a scope");
    assert_eq!(scope.to_string(), "namespace=team-a");
    assert!(node.plan(API, node.scopes["a"]).is_none());

    node.apply(canary_route("one", &json!([])));
    node.compile();
    node.compiler.retire_scopes();
    node.compile();
    assert!(node.compiler.plan().frontends.is_empty());
    assert_eq!(node.scopes["a"], ClientScope::EVERYONE);
}

/// Case: CLIENTS-ORDER
#[test]
fn a_consumer_comes_before_the_first_object_and_its_rules_in_their_order() {
    let mut node = Node::new();
    let labelled = json!({"labels": {"app": "shop"}});
    let consumer = json!({"namespaces": ["team-a"], "consumer": true});
    let rules = json!([web(20, &labelled), web(10, &Value::Null)]);
    node.apply(canary_route("a", &rules));
    node.apply(canary_route("b", &json!([web(40, &labelled)])));
    node.apply(canary_route("c", &json!([web(30, &consumer)])));
    node.put("nobody", client("team-b", &[("app", "other")]));
    node.put("labelled", client("team-b", &[("app", "shop")]));
    node.put("both", client("team-a", &[("app", "shop")]));
    node.compile();
    assert_eq!(node.canary(WEB, "nobody"), Some(10));
    assert_eq!(node.canary(WEB, "labelled"), Some(20));
    assert_eq!(node.canary(WEB, "both"), Some(30));
    // As a whole one object comes before another, also for the clients that the other one names.
    for (name, reason) in [
        ("a", reason::ACCEPTED),
        ("b", reason::ROOT_TAKEN),
        ("c", reason::ACCEPTED),
    ] {
        let object = ObjectReference::new(CANARY_ROUTE, ObjectName::new(NAMESPACE, name));
        let told = node.compiler.diagnostics(&object);
        assert_eq!(told[0].reason, reason, "{name}: {told:?}");
    }
}

/// Case: CLIENTS-OVERLAP
#[test]
fn of_two_claims_for_the_same_clients_the_loser_is_told() {
    let mut node = Node::new();
    let narrow = json!({"namespaces": ["team-a"], "labels": {"app": "shop"}});
    node.apply(canary_route("a", &json!([web(10, &namespace("team-a"))])));
    node.apply(canary_route("b", &json!([web(20, &narrow)])));
    node.apply(canary_route("c", &json!([web(30, &namespace("team-b"))])));
    node.compile();
    let told = |name: &str| {
        let object = ObjectReference::new(CANARY_ROUTE, ObjectName::new(NAMESPACE, name));
        let told = node.compiler.diagnostics(&object);
        told.iter().map(|it| it.reason).collect::<Vec<_>>()
    };
    assert_eq!(told("a"), [reason::ACCEPTED]);
    assert_eq!(told("b"), [reason::ROOT_TAKEN]);
    assert_eq!(told("c"), [reason::ACCEPTED]);
}

/// Case: CLIENTS-MOVED
#[test]
fn a_pod_that_changes_its_labels_has_its_new_split_before_the_old_one_goes() {
    let mut node = Node::new();
    let of = |app: &str| json!({"labels": {"app": app}});
    let canaries = json!([web(10, &of("one")), web(20, &of("two"))]);
    node.apply(canary_route("both", &canaries));
    node.put("pod", client("team-a", &[("app", "one"), ("unused", "x")]));
    node.compile();
    let old = node.scopes["pod"];
    assert_eq!(node.canary(WEB, "pod"), Some(10));

    // Labels that nobody asks for make no difference.
    node.put("pod", client("team-a", &[("app", "one"), ("unused", "y")]));
    assert_eq!(node.compile(), Delta::default());

    node.put("pod", client("team-a", &[("app", "two")]));
    let delta = node.compile();
    assert_eq!(node.canary(WEB, "pod"), Some(20));
    assert_eq!(delta.clients.len(), 1);
    assert!(
        node.plan(WEB, old).is_some(),
        "the kernel may look for it still"
    );
    node.compiler.retire_scopes();
    let delta = node.compile();
    assert!(node.plan(WEB, old).is_none());
    assert_eq!(delta.frontends.len(), 1);
    assert_eq!(node.canary(WEB, "pod"), Some(20));
}

#[test]
fn what_is_programmed_for_a_scope_stays_until_the_pods_of_the_node_are_known() {
    let mut before = Node::new();
    before.apply(canary_route("one", &json!([web(10, &namespace("team-a"))])));
    before.put("a", client("team-a", &[]));
    before.compile();
    let programmed = before.compiler.plan().clone();
    let scope = before.scopes["a"];

    let mut after = Node::new();
    after.compiler.know_clients(Knowledge::Stale);
    after.apply(canary_route("one", &json!([web(10, &namespace("team-a"))])));
    after.compile();
    let (frontend, plan) = programmed
        .frontends
        .iter()
        .find(|(frontend, _)| frontend.clients == scope)
        .expect("a frontend for the scope");
    let judgement = after.compiler.judge(frontend, Some(plan));
    assert_eq!(judgement.split.as_deref(), Some(plan));
    assert_eq!(judgement.waits_for, [Kind::POD].into());
    after.put("a", client("team-a", &[]));
    after.compiler.know_clients(Knowledge::Followed);
    after.compile();
    assert_eq!(after.scopes["a"], scope);
    assert_eq!(
        after.compiler.judge(frontend, Some(plan)).split.as_deref(),
        Some(plan)
    );
    after.compiler.remove_client("a");
    after.compile();
    after.compiler.retire_scopes();
    after.compile();
    assert_eq!(after.compiler.judge(frontend, Some(plan)).split, None);
}

/// Case: CLIENTS-UNKNOWN
#[test]
fn what_is_for_some_clients_says_that_it_is_not_known_who_they_are() {
    for node_name in [None, Some("n1")] {
        let mut node = Node::new();
        node.compiler = Compiler::new(Settings {
            node_name: node_name.map(str::to_owned),
            ..Settings::default()
        });
        node.compiler.know_clients(Knowledge::Incomplete);
        for object in world() {
            node.apply(object);
        }
        let some = || web(10, &namespace("team-a"));
        node.apply(canary_route("some", &json!([some()])));
        node.compile();
        let told = |node: &Node, name: &str| {
            let object = ObjectReference::new(CANARY_ROUTE, ObjectName::new(NAMESPACE, name));
            let told = node.compiler.diagnostics(&object);
            let [told] = told.as_slice() else {
                panic!("{told:?}");
            };
            (told.severity, told.reason, told.message.clone())
        };
        let (severity, reason, message) = told(&node, "some");
        assert_eq!(
            (severity, reason),
            (Severity::Inactive, reason::NOT_KNOWN_YET)
        );
        let remedy = node_name.map_or("--node-name", |_| "pods of the agent's node");
        assert!(message.contains(remedy), "{message}");
        let everyone = node.plan(WEB, ClientScope::EVERYONE).expect("a record");
        assert_eq!(
            everyone.decision,
            Decision::PassThrough(Reason::NotKnownYet)
        );
        let frontend = Frontend {
            address: WEB.parse().expect("an address"),
            protocol: Protocol::Tcp,
            clients: ClientScope::EVERYONE,
        };
        let waits_for = |node: &Node| node.compiler.judge(&frontend, None).waits_for;
        assert_eq!(waits_for(&node), [Kind::POD].into());

        // What is for everyone else, too, is in force for them.
        node.apply(canary_route(
            "some",
            &json!([some(), web(20, &Value::Null)]),
        ));
        node.compile();
        let (severity, reason, _) = told(&node, "some");
        assert_eq!(
            (severity, reason),
            (Severity::Warning, reason::NOT_KNOWN_YET)
        );
        assert_eq!(waits_for(&node), [].into());

        // A feed that breaks later takes nothing back.
        node.apply(canary_route("some", &json!([some()])));
        node.put("a", client("team-a", &[]));
        node.compiler.know_clients(Knowledge::Followed);
        node.compile();
        assert_eq!(node.canary(WEB, "a"), Some(10));
        assert_eq!(told(&node, "some").0, Severity::Accepted);
        node.compiler.know_clients(Knowledge::Stale);
        node.apply(canary_route(
            "some",
            &json!([web(30, &namespace("team-a"))]),
        ));
        node.compile();
        assert_eq!(node.canary(WEB, "a"), Some(30));
        assert_eq!(told(&node, "some").0, Severity::Accepted);
    }
}

#[test]
fn what_is_said_of_an_object_does_not_depend_on_the_pods_of_the_node() {
    let route = || canary_route("one", &json!([web(10, &namespace("team-a"))]));
    let said = |pods: &[&str]| {
        let mut node = Node::new();
        let slice = ObjectName::new(NAMESPACE, "web-2-x");
        let slice = ObjectReference::new(Kind::ENDPOINT_SLICE, slice);
        node.compiler.delete(&slice);
        node.apply(route());
        for pod in pods {
            node.put(pod, client(pod, &[]));
        }
        node.compile();
        let object = ObjectReference::new(CANARY_ROUTE, ObjectName::new(NAMESPACE, "one"));
        node.compiler.diagnostics(&object)
    };
    let alone = said(&[]);
    assert_eq!(alone.len(), 1);
    assert_eq!(alone[0].reason, reason::LEAF_NOT_READY);
    assert_eq!(alone, said(&["team-a"]));
    assert_eq!(alone, said(&["team-a", "team-b"]));
}

/// Case: SHARE-REFUSED
#[test]
fn a_leaf_without_endpoints_keeps_its_share_where_that_is_refused() {
    add();
    let mut canary = web(25, &Value::Null);
    canary["unready"] = json!("refused");
    canary["canary"] = json!("nobody");
    let route = canary_route("one", &json!([canary]));
    let compiled_plan = compiled(world().into_iter().chain([route.clone()]));
    let plan = of_frontend(&compiled_plan, WEB).expect("a frontend");
    assert_eq!(plan.decision, Decision::Split);
    assert_eq!((plan.leaves[0].share, plan.leaves[1].share), (3, 1));
    assert!(plan.leaves[1].is_refused());
    assert_eq!(plan.leaves[1].state, LeafState::ServiceMissing);
    assert_eq!(
        reasons(&compiled_plan, CANARY_ROUTE, "one"),
        [reason::LEAF_SERVICE_MISSING]
    );
    let message = &compiled_plan.diagnostics[0].message;
    assert!(
        message.contains("so its share of the connections is refused"),
        "{message}"
    );

    // Of no leaf at all, everything is refused: nothing goes where nobody sent it.
    let mut canary = route["spec"]["canaries"][0].clone();
    canary["stable"] = json!("nowhere");
    let route = canary_route("one", &json!([canary]));
    let compiled = compiled(world().into_iter().chain([route]));
    let plan = of_frontend(&compiled, WEB).expect("a frontend");
    assert_eq!(plan.decision, Decision::Refuse(Reason::NoReadyEndpoints));
}

/// A route of the kind that takes precedence.
fn priority_route(name: &str, canaries: &Value) -> Value {
    let mut route = canary_route(name, canaries);
    route["apiVersion"] = json!("priority.example.dev/v1");
    route["kind"] = json!("PriorityRoute");
    route
}

/// Case: CONFLICT-KINDS
#[test]
fn a_kind_that_takes_precedence_has_the_root_whatever_the_age() {
    add();
    let mut older = canary_route("a", &json!([web(10, &Value::Null)]));
    older["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
    let newer = priority_route("b", &json!([web(20, &Value::Null)]));
    let compiled = compiled(world().into_iter().chain([older, newer]));
    let plan = of_frontend(&compiled, WEB).expect("a frontend");
    assert_eq!(plan.origin.kind, "PriorityRoute");
    assert_eq!(reasons(&compiled, CANARY_ROUTE, "a"), [reason::CONFLICTED]);
    let message = &compiled.diagnostics[0].message;
    assert!(
        message.contains("PriorityRoute shop/b, and PriorityRoutes come before CanaryRoutes"),
        "{message}"
    );
}

/// Case: CONFLICT-SUPERSEDED
#[test]
fn of_two_objects_that_supersede_each_other_the_younger_one_is_not_in_force() {
    add();
    let mut older = priority_route("b", &json!([web(10, &Value::Null)]));
    older["metadata"]["creationTimestamp"] = json!("2020-01-01T00:00:00Z");
    let newer = priority_route("a", &json!([web(20, &Value::Null)]));
    let compiled = compiled(world().into_iter().chain([older, newer]));
    let plan = of_frontend(&compiled, WEB).expect("a frontend");
    assert_eq!(plan.origin.name, "b");
    assert_eq!(
        reasons(&compiled, PRIORITY_ROUTE, "a"),
        [reason::SUPERSEDED]
    );
    assert_eq!(compiled.diagnostics[0].severity, Severity::Inactive);
    assert_eq!(reasons(&compiled, PRIORITY_ROUTE, "b"), [reason::ACCEPTED]);
}

/// What happens to a node.
#[derive(Clone, Debug)]
enum Change {
    Pod(usize, usize),
    NoPod(usize),
    Route(usize, Vec<(usize, u32)>),
    NoRoute(usize),
    Publish,
}

const CLIENTS: [&str; 7] = [
    "null",
    r#"{"namespaces": ["team-a"]}"#,
    r#"{"namespaces": ["team-a", "team-b"]}"#,
    r#"{"labels": {"app": "shop"}}"#,
    r#"{"labels": {"tier": "front"}}"#,
    r#"{"namespaces": ["team-b"], "labels": {"app": "shop", "tier": "front"}}"#,
    r#"{"namespaces": ["team-a"], "consumer": true}"#,
];

const PODS: [(&str, &[(&str, &str)]); 5] = [
    ("team-a", &[]),
    ("team-a", &[("app", "shop")]),
    ("team-b", &[("app", "shop"), ("tier", "front")]),
    ("team-b", &[("tier", "front"), ("unused", "x")]),
    ("team-c", &[("app", "other")]),
];

fn change() -> impl Strategy<Value = Change> {
    let canaries = prop::collection::vec((0..CLIENTS.len(), 0..102u32), 0..4);
    prop_oneof![
        4 => (0..3usize, 0..PODS.len()).prop_map(|(name, pod)| Change::Pod(name, pod)),
        1 => (0..3usize).prop_map(Change::NoPod),
        4 => (0..3usize, canaries).prop_map(|(name, canaries)| Change::Route(name, canaries)),
        1 => (0..3usize).prop_map(Change::NoRoute),
        2 => Just(Change::Publish),
    ]
}

fn route_of(name: usize, canaries: &[(usize, u32)]) -> Value {
    let canaries = canaries
        .iter()
        .enumerate()
        .map(|(number, (clients, percent))| {
            let clients = serde_json::from_str(CLIENTS[*clients]).expect("JSON");
            let mut canary = web(*percent, &clients);
            if number == 2 {
                canary["root"] = json!("api");
                canary["port"] = Value::Null;
            }
            canary
        });
    canary_route(&format!("route-{name}"), &canaries.collect())
}

proptest! {
    #[test]
    fn a_history_of_clients_and_claims_comes_to_what_its_end_comes_to(
        changes in prop::collection::vec(change(), 0..24),
    ) {
        let mut node = Node::new();
        let mut pods: BTreeMap<usize, usize> = BTreeMap::new();
        let mut routes: BTreeMap<usize, Vec<(usize, u32)>> = BTreeMap::new();
        let mut seen: BTreeSet<Frontend> = BTreeSet::new();
        for change in changes {
            match change {
                Change::Pod(name, pod) => {
                    let (namespace, labels) = PODS[pod];
                    node.put(&name.to_string(), client(namespace, labels));
                    pods.insert(name, pod);
                }
                Change::NoPod(name) => {
                    node.compiler.remove_client(&name.to_string());
                    node.scopes.remove(&name.to_string());
                    pods.remove(&name);
                }
                Change::Route(name, canaries) => {
                    node.apply(route_of(name, &canaries));
                    routes.insert(name, canaries);
                }
                Change::NoRoute(name) => {
                    let name_of = ObjectName::new(NAMESPACE, format!("route-{name}"));
                    node.compiler.delete(&ObjectReference::new(CANARY_ROUTE, name_of));
                    routes.remove(&name);
                }
                Change::Publish => {
                    let delta = node.compile();
                    for frontend in delta.frontends {
                        if node.compiler.plan().frontends.contains_key(&frontend) {
                            seen.insert(frontend);
                        } else {
                            seen.remove(&frontend);
                        }
                    }
                    let planned: BTreeSet<_> = node.compiler.plan().frontends.keys().copied().collect();
                    prop_assert_eq!(&seen, &planned);
                    node.compiler.retire_scopes();
                }
            }
        }
        node.compile();
        node.compiler.retire_scopes();
        node.compile();

        let mut fresh = Node::new();
        for (name, canaries) in &routes {
            fresh.apply(route_of(*name, canaries));
        }
        for (name, pod) in &pods {
            let (namespace, labels) = PODS[*pod];
            fresh.put(&name.to_string(), client(namespace, labels));
        }
        fresh.compile();
        prop_assert_eq!(node.compiler.plan(), fresh.compiler.plan());
        prop_assert_eq!(&node.scopes, &fresh.scopes);
        for name in routes.keys() {
            let object = ObjectName::new(NAMESPACE, format!("route-{name}"));
            let object = ObjectReference::new(CANARY_ROUTE, object);
            prop_assert_eq!(node.compiler.diagnostics(&object), fresh.compiler.diagnostics(&object));
        }
    }
}

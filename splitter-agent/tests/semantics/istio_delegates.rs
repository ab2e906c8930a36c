//! VirtualServices whose rules stand in the place of rules of others.

use serde_json::{Value, json};
use splitter_agent::compile::{Compiler, Knowledge, Settings, Severity};
use splitter_agent::objects::{Kind, decode};
use splitter_agent::plan::Decision;
use splitter_common::layout::Reason;

use crate::fixtures::{NAMESPACE, Outcome, compiled, with};
use crate::istio::{REVIEWS, bookinfo, reviews, reviews_rule, to, versions, virtual_service};
use crate::knowledge::{Agent, frontend, reference};

const IGNORE: &str = "splitter.dev/unsupported";
const ACCEPTED: (Severity, &str, &str) = (Severity::Accepted, "Accepted", "");
const USED: (Severity, &str, &str) = (Severity::Note, "UsedAsDelegate", "spec.hosts");
const REFUSED: Option<Decision> = Some(Decision::PassThrough(Reason::ObjectRefused));

/// A VirtualService without hosts, of these rules.
fn delegate(rules: &Value) -> Value {
    virtual_service("shared", &json!({"http": rules}))
}

/// A rule with these fields that delegates.
fn delegating(fields: &Value) -> Value {
    with(json!({"delegate": {"name": "shared"}}), fields)
}

fn route(subset: &str) -> Value {
    json!([to("reviews", subset, 1)])
}

fn ignoring(object: Value) -> Value {
    with(
        object,
        &json!({"metadata": {"annotations": {IGNORE: "ignore"}}}),
    )
}

fn leaf(outcome: &Outcome) -> Option<&str> {
    let split = outcome.at(REVIEWS)?;
    split.leaves.first().map(|leaf| leaf.service.as_str())
}

/// Case: ISTIO-DELEGATE
#[test]
fn the_rules_of_a_delegate_stand_in_the_place_of_the_rule_that_names_it() {
    let half = json!([{"route": [to("reviews", "v1", 1), to("reviews", "v2", 3)]}]);
    for named in [json!({}), json!({"delegate": {"namespace": NAMESPACE}})] {
        let outcome = bookinfo([reviews(&delegating(&named)), delegate(&half)]);
        assert_eq!(outcome.said_of("reviews"), [ACCEPTED]);
        assert_eq!(outcome.said_of("shared"), [ACCEPTED, USED]);
        let message = &outcome.0.diagnostics.last().expect("the note").message;
        assert!(message.contains("shop/reviews"), "{message}");
        let shares = [("reviews/v1", 1), ("reviews/v2", 3)];
        assert_eq!(outcome.shares(REVIEWS), shares);
    }
    // What is wrong there is told with the way to it.
    let unknown = json!([{"route": [to("reviews", "v1", 1)]}, {"route": route("v9")}]);
    let port = json!({"match": [{"port": 9080}]});
    let mut rules = unknown;
    rules[0] = with(rules[0].clone(), &json!({"match": [{"port": 81}]}));
    let outcome = bookinfo([reviews(&delegating(&port)), delegate(&rules)]);
    let told = outcome.said_of("reviews");
    for (reason, field) in [
        ("DelegateConflict", "http[0].match"),
        ("SubsetNotFound", "http[1].route[0].destination.subset"),
    ] {
        let field = format!("spec.http[0].delegate.{field}");
        assert!(
            told.contains(&(Severity::Warning, reason, &field)),
            "{told:?}"
        );
    }
}

/// Case: ISTIO-DELEGATE
#[test]
fn a_short_host_in_a_delegate_is_of_the_delegates_namespace() {
    let elsewhere = |host: &str| {
        let rules = json!([{"route": [to(host, "v2", 1)]}]);
        with(
            delegate(&rules),
            &json!({"metadata": {"namespace": "mesh"}}),
        )
    };
    let root = reviews(&delegating(&json!({"delegate": {"namespace": "mesh"}})));
    let outcome = bookinfo([root.clone(), elsewhere("reviews.shop.svc.cluster.local")]);
    assert_eq!(outcome.said_of("reviews"), [ACCEPTED]);
    assert_eq!(leaf(&outcome), Some("reviews/v2"));
    let outcome = bookinfo([root, elsewhere("reviews")]);
    let mut said = outcome.0.diagnostics.iter();
    assert!(said.any(|said| said.message.contains("mesh/reviews")));
}

/// Each row: conditions of the rule that delegates, those of the delegate's rule, and what the two
/// together come to: the split's reason, or nothing if the delegate's rule is left out.
///
/// Case: ISTIO-DELEGATE-CONDITIONS
#[test]
fn conditions_of_both_are_merged_as_istio_merges_them() {
    const SPLIT: Result<&str, &str> = Ok("split");
    const OTHERS: Result<&str, &str> = Ok("for some clients");
    const NOTHING: Result<&str, &str> = Ok("left out");
    let path = |how: &str, path: &str| json!({"uri": {how: path}});
    let uri = Err("match[0].uri");
    let own_uri = Err("delegate.http[0].match[0].uri");
    let own_headers = Err("delegate.http[0].match[0].headers");
    let header = |value: Value| json!({"headers": {"user": value}});
    for (root, own, expected) in [
        (json!(null), json!(null), SPLIT),
        (json!([{}]), json!([{}]), SPLIT),
        (json!([{"port": 9080}]), json!(null), SPLIT),
        (json!(null), json!([{"port": 9080}]), SPLIT),
        (json!([{"port": 9080}]), json!([{"port": 9080}]), SPLIT),
        (json!([{"port": 9080}]), json!([{"port": 81}]), NOTHING),
        (
            json!([{"port": 81}, {"port": 9080}]),
            json!([{"port": 9080}]),
            SPLIT,
        ),
        (json!([{"sourceLabels": {"a": "b"}}]), json!(null), OTHERS),
        (json!([{"sourceLabels": {"a": "b"}}]), json!([{}]), OTHERS),
        (json!([{}]), json!([{"sourceLabels": {"a": "b"}}]), OTHERS),
        (
            json!([{"sourceLabels": {"a": "b"}}]),
            json!([{"sourceLabels": {"c": "d"}}]),
            OTHERS,
        ),
        (
            json!([{"sourceLabels": {"a": "b"}}]),
            json!([{"sourceLabels": {"a": "c"}}]),
            NOTHING,
        ),
        (
            json!([{"sourceNamespace": "a"}]),
            json!([{"sourceNamespace": "a"}]),
            OTHERS,
        ),
        (
            json!([{"sourceNamespace": "a"}]),
            json!([{"sourceNamespace": "b"}]),
            NOTHING,
        ),
        (json!([{"sourceNamespace": "a"}]), json!([{}]), NOTHING),
        (json!([{}]), json!([{"sourceNamespace": "a"}]), OTHERS),
        (
            json!([{"gateways": ["mesh"]}]),
            json!([{"gateways": ["mesh"]}]),
            SPLIT,
        ),
        (
            json!([{"gateways": ["mesh", "x"]}]),
            json!([{"gateways": ["mesh"]}]),
            SPLIT,
        ),
        (
            json!([{"gateways": ["mesh"]}]),
            json!([{"gateways": ["mesh", "x"]}]),
            NOTHING,
        ),
        (json!([{"gateways": ["mesh"]}]), json!([{}]), SPLIT),
        (
            json!([{"gateways": ["x"]}]),
            json!([{}]),
            Ok("for gateways"),
        ),
        (
            json!([{"gateways": ["x", "mesh"]}]),
            json!([{"gateways": ["shop/x", "mesh"]}]),
            SPLIT,
        ),
        (
            json!([{"gateways": ["x", "mesh"]}]),
            json!([{"gateways": ["./x"]}]),
            Ok("for gateways"),
        ),
        (
            json!([path("prefix", "/")]),
            json!([path("prefix", "/")]),
            SPLIT,
        ),
        (json!([path("prefix", "/")]), json!([{}]), SPLIT),
        (json!([{}]), json!([path("prefix", "/")]), SPLIT),
        (json!([path("prefix", "/a")]), json!(null), uri),
        (json!([path("prefix", "/a")]), json!([{}]), uri),
        (
            json!([path("prefix", "/a")]),
            json!([path("prefix", "/ab")]),
            own_uri,
        ),
        (
            json!([path("prefix", "/a")]),
            json!([path("exact", "/ab")]),
            own_uri,
        ),
        (
            json!([path("prefix", "/ab")]),
            json!([path("prefix", "/a")]),
            NOTHING,
        ),
        (
            json!([path("prefix", "/a")]),
            json!([path("exact", "/b")]),
            NOTHING,
        ),
        (
            json!([path("prefix", "/a")]),
            json!([path("regex", ".*")]),
            NOTHING,
        ),
        (
            json!([path("regex", ".*")]),
            json!([path("prefix", "/")]),
            NOTHING,
        ),
        (json!([path("regex", ".*")]), json!([{}]), SPLIT),
        (
            json!([path("exact", "/a")]),
            json!([path("exact", "/a")]),
            own_uri,
        ),
        (
            json!([path("exact", "/a")]),
            json!([path("exact", "/b")]),
            NOTHING,
        ),
        (
            json!([path("exact", "/a")]),
            json!([path("prefix", "/a")]),
            NOTHING,
        ),
        (
            json!([path("prefix", "/")]),
            json!([path("prefix", "/a")]),
            own_uri,
        ),
        (json!([{"ignoreUriCase": true}]), json!([{}]), NOTHING),
        (
            json!([{}]),
            json!([header(json!({"exact": "x"}))]),
            own_headers,
        ),
        (
            json!([header(json!({"exact": "x"}))]),
            json!([{}]),
            Err("match[0].headers"),
        ),
        (
            json!([header(json!({"exact": "x"}))]),
            json!([header(json!({"exact": "y"}))]),
            NOTHING,
        ),
        (
            json!([header(json!({}))]),
            json!([header(json!({"exact": "y"}))]),
            NOTHING,
        ),
        (
            json!([{"method": {"exact": "GET"}}]),
            json!([{"method": {"exact": "PUT"}}]),
            NOTHING,
        ),
        (
            json!([{"queryParams": {"a": {"exact": "x"}}}]),
            json!([{"queryParams": {"a": {"exact": "y"}}}]),
            NOTHING,
        ),
        // One that is within none is enough for its rule to be left out.
        (
            json!([{"port": 9080}]),
            json!([{"port": 9080}, {"port": 81}]),
            NOTHING,
        ),
    ] {
        let rules = json!([{"match": own, "route": route("v2")}]);
        let root_rule = delegating(&json!({"match": root}));
        let outcome = bookinfo([reviews(&root_rule), delegate(&rules)]);
        let said = outcome.said_of("reviews");
        let row = format!("{root} {own}: {said:?}");
        match expected {
            Ok("split") => {
                assert_eq!(said, [ACCEPTED], "{row}");
                assert_eq!(leaf(&outcome), Some("reviews/v2"), "{row}");
            }
            Ok("for some clients") => {
                assert_eq!(said, [ACCEPTED], "{row}");
                let others = Decision::PassThrough(Reason::OtherClients);
                assert_eq!(outcome.decision(REVIEWS), Some(others), "{row}");
            }
            Ok("for gateways") => {
                assert_eq!(said, [(Severity::Inactive, "NoRule", "spec")], "{row}");
                assert_eq!(outcome.at(REVIEWS), None, "{row}");
            }
            Ok(_) => {
                let field = "spec.http[0].delegate.http[0].match";
                let left_out = (Severity::Warning, "DelegateConflict", field);
                assert!(said.contains(&left_out), "{row}");
                assert_eq!(outcome.at(REVIEWS), None, "{row}");
            }
            Err(field) => {
                let field = format!("spec.http[0].{field}");
                let refused = (Severity::Refused, "MatchesUnsupported", field.as_str());
                assert_eq!(said, [refused], "{row}");
            }
        }
    }
}

/// Case: ISTIO-DELEGATE-NOT-FOUND
#[test]
fn one_whose_delegate_cannot_be_used_is_refused_with_the_field() {
    let good = json!([{"route": route("v1")}]);
    let object = |spec: Value| Some(virtual_service("shared", &spec));
    let (not_found, not_usable) = ("DelegateNotFound", "DelegateUnusable");
    for (shared, reason, remedy) in [
        (None, not_found, "create it"),
        (
            object(json!({"hosts": ["ratings"], "http": good})),
            not_found,
            "has hosts",
        ),
        (
            object(json!({"exportTo": ["mesh"], "http": good})),
            not_found,
            "exportTo",
        ),
        (object(json!({"http": []})), not_usable, "has no rules"),
        (object(json!({"tcp": good})), not_usable, "has no rules"),
        (
            object(json!({"http": [{"route": [7]}]})),
            not_usable,
            "spec.http[0].route[0]",
        ),
    ] {
        let objects = [reviews(&delegating(&json!({})))].into_iter().chain(shared);
        let outcome = bookinfo(objects);
        let expected = (Severity::Refused, reason, "spec.http[0].delegate");
        assert_eq!(outcome.said_of("reviews"), [expected], "{remedy}");
        assert_eq!(outcome.decision(REVIEWS), REFUSED);
        let message = &outcome.0.diagnostics[0].message;
        assert!(
            message.contains(remedy) && message.contains("shop/shared"),
            "{message}"
        );
    }
    for allowed in [json!(["*"]), json!(["."]), json!(["mesh", "shop"])] {
        let shared = object(json!({"exportTo": allowed, "http": good}));
        let objects = [reviews(&delegating(&json!({})))].into_iter().chain(shared);
        assert_eq!(
            bookinfo(objects).said_of("reviews"),
            [ACCEPTED],
            "{allowed}"
        );
    }
    let itself = reviews(&json!({"delegate": {"name": "reviews"}}));
    let expected = (Severity::Refused, not_found, "spec.http[0].delegate");
    assert_eq!(bookinfo([itself]).said_of("reviews"), [expected]);
    // There is one level of them.
    let nested = json!([{"delegate": {"name": "other"}}]);
    let other = virtual_service("other", &json!({"http": good}));
    let outcome = bookinfo([reviews(&delegating(&json!({}))), delegate(&nested), other]);
    let field = "spec.http[0].delegate.http[0].delegate";
    assert_eq!(
        outcome.said_of("reviews"),
        [(Severity::Refused, not_usable, field)]
    );
    let of_delegate = outcome.said_of("shared");
    let warned = (Severity::Warning, not_usable, "spec.http[0].delegate");
    assert!(of_delegate.contains(&warned), "{of_delegate:?}");
    let unused = (Severity::Inactive, "DelegateUnused", "spec.hosts");
    assert_eq!(outcome.said_of("other"), [unused]);
}

/// Case: ISTIO-DELEGATE-NOT-FOUND
#[test]
fn a_delegate_that_no_connection_comes_to_need_not_be_there() {
    let rules = json!([{"route": route("v3")}, delegating(&json!({}))]);
    let outcome = bookinfo([virtual_service(
        "reviews",
        &json!({"hosts": ["reviews"], "http": rules}),
    )]);
    assert_eq!(outcome.said_of("reviews"), [ACCEPTED]);
    assert_eq!(leaf(&outcome), Some("reviews/v3"));
}

/// Case: ISTIO-DELEGATE-SPEC
#[test]
fn a_rule_that_delegates_has_no_destinations_of_its_own() {
    for (fields, field) in [
        (json!({"route": route("v1")}), "delegate"),
        (json!({"redirect": {"uri": "/"}}), "delegate"),
        (json!({"delegate": 7}), "delegate"),
        (json!({"delegate": {"name": ""}}), "delegate.name"),
        (json!({"delegate": {"name": 7}}), "delegate.name"),
        (json!({"delegate": {"namespace": []}}), "delegate.namespace"),
    ] {
        let shared = delegate(&json!([{"route": route("v1")}]));
        let outcome = bookinfo([reviews(&delegating(&fields)), shared]);
        let field = format!("spec.http[0].{field}");
        let refused = (Severity::Refused, "InvalidSpec", field.as_str());
        let said = outcome.said_of("reviews");
        assert!(said.contains(&refused), "{fields}: {said:?}");
    }
}

/// Case: ISTIO-DELEGATE-INHERITS
#[test]
fn rules_of_a_delegate_inherit_what_they_do_not_say_themselves() {
    let refused = |field: &'static str| vec![(Severity::Refused, "UnsupportedField", field)];
    for (of_root, own, expected) in [
        (
            json!({"timeout": "1s"}),
            json!({}),
            refused("spec.http[0].timeout"),
        ),
        (
            json!({"timeout": "1s"}),
            json!({"timeout": "0s"}),
            vec![ACCEPTED],
        ),
        (
            json!({"timeout": "0s"}),
            json!({"timeout": "1s"}),
            refused("spec.http[0].delegate.http[0].timeout"),
        ),
        (
            json!({"fault": {"abort": {"percentage": {"value": 1}}}}),
            json!({}),
            refused("spec.http[0].fault.abort"),
        ),
        (
            json!({"rewrite": {"uri": "/"}}),
            json!({}),
            refused("spec.http[0].rewrite"),
        ),
        (
            json!({"mirrors": [{"destination": {"host": "x"}}]}),
            json!({}),
            refused("spec.http[0].mirrors[0]"),
        ),
        (
            json!({"retries": {"attempts": 2}}),
            json!({"retries": {"attempts": 0}}),
            vec![ACCEPTED],
        ),
    ] {
        let rule = with(json!({"route": route("v1")}), &own);
        let outcome = bookinfo([reviews(&delegating(&of_root)), delegate(&json!([rule]))]);
        assert_eq!(outcome.said_of("reviews"), expected, "{of_root} {own}");
    }
}

/// Case: ISTIO-DELEGATE-INHERITS
#[test]
fn either_of_the_two_may_have_ignored_what_a_connection_cannot_do() {
    let rule = json!([{"route": route("v1"), "timeout": "1s"}]);
    let field = "spec.http[0].delegate.http[0].timeout";
    for (root, shared) in [
        (ignoring(reviews(&delegating(&json!({})))), delegate(&rule)),
        (reviews(&delegating(&json!({}))), ignoring(delegate(&rule))),
    ] {
        let outcome = bookinfo([root, shared]);
        let ignored = (Severity::Warning, "UnsupportedIgnored", field);
        assert_eq!(outcome.said_of("reviews"), [ignored]);
        assert_eq!(leaf(&outcome), Some("reviews/v1"));
    }
}

/// Case: ISTIO-DELEGATE
#[test]
fn a_delegate_that_nobody_uses_splits_nothing_and_says_so() {
    let shared = delegate(&json!([{"route": route("v1")}]));
    let unused = (Severity::Inactive, "DelegateUnused", "spec.hosts");
    let outcome = bookinfo([shared.clone()]);
    assert_eq!(outcome.said_of("shared"), [unused]);
    assert_eq!(outcome.at(REVIEWS), None);
    let fields = json!({"spec": {"gateways": ["x"], "tcp": [{"route": route("v1")}]}});
    let outcome = bookinfo([with(shared, &fields)]);
    let ignored = |field| (Severity::Warning, "UnknownField", field);
    assert_eq!(
        outcome.said_of("shared"),
        [unused, ignored("spec.gateways"), ignored("spec.tcp")]
    );
}

/// Case: ISTIO-DELEGATE-SPEC
#[test]
fn delegates_that_make_too_many_rules_are_refused() {
    let blocks = |number: u16| {
        (1..=number)
            .map(|port| json!({"port": port}))
            .collect::<Value>()
    };
    let rules = json!([{"match": blocks(20), "route": route("v1")}]);
    let outcome = bookinfo([
        reviews(&delegating(&json!({"match": blocks(20)}))),
        delegate(&rules),
    ]);
    let refused = (Severity::Refused, "InvalidSpec", "spec.http[0].delegate");
    assert_eq!(outcome.said_of("reviews"), [refused]);
}

/// Case: ISTIO-DELEGATE-NOT-FOUND
#[test]
fn a_change_of_the_delegate_is_one_of_whoever_uses_it_and_of_nobody_else() {
    let mut compiler = Compiler::new(Settings::default());
    let put = |compiler: &mut Compiler, value: Value| {
        compiler.apply(decode(value).expect("readable").expect("of interest"));
    };
    let leaf = |compiler: &Compiler| {
        let split = compiler.plan().frontends.get(&frontend(REVIEWS));
        let split = split.expect("a record");
        split.leaves.first().map(|leaf| leaf.service.clone())
    };
    let (of_root, of_shared) = (
        reference(Kind::VIRTUAL_SERVICE, "reviews"),
        reference(Kind::VIRTUAL_SERVICE, "shared"),
    );
    let other = virtual_service(
        "z",
        &json!({"hosts": ["reviews"], "http": [{"route": route("v3")}]}),
    );
    for object in versions().into_iter().chain([reviews_rule(), other]) {
        put(&mut compiler, object);
    }
    put(&mut compiler, reviews(&delegating(&json!({}))));
    compiler.compile();
    // It stands in nobody's way while it is refused.
    assert_eq!(leaf(&compiler).as_deref(), Some("reviews/v3"));
    put(&mut compiler, delegate(&json!([{"route": route("v1")}])));
    let delta = compiler.compile();
    assert_eq!(leaf(&compiler).as_deref(), Some("reviews/v1"));
    assert!(delta.objects.contains(&of_root) && delta.objects.contains(&of_shared));
    assert!(delta.frontends.contains(&frontend(REVIEWS)));
    let weights = |compiler: &Compiler| compiler.route(&of_root).expect("there").weights.clone();
    assert_eq!(&*weights(&compiler), "v1:100");
    put(&mut compiler, delegate(&json!([{"route": route("v2")}])));
    compiler.compile();
    assert_eq!(leaf(&compiler).as_deref(), Some("reviews/v2"));
    assert_eq!(&*weights(&compiler), "v2:100");
    compiler.refuse(of_shared.clone());
    compiler.compile();
    let reasons = |compiler: &Compiler| {
        let said = compiler.diagnostics(&of_root).into_iter();
        said.map(|said| said.reason).collect::<Vec<_>>()
    };
    assert_eq!(reasons(&compiler), ["DelegateUnusable"]);
    compiler.delete(&of_shared);
    compiler.compile();
    assert_eq!(reasons(&compiler), ["DelegateNotFound"]);
    put(&mut compiler, delegate(&json!([{"route": route("v2")}])));
    compiler.delete(&of_root);
    compiler.compile();
    assert_eq!(leaf(&compiler).as_deref(), Some("reviews/v3"));
    let said = compiler.diagnostics(&of_shared);
    assert_eq!(said[0].reason, "DelegateUnused");
}

/// Case: ISTIO-DELEGATE-UNKNOWN
#[test]
fn a_delegate_that_was_not_heard_of_takes_nothing_away() {
    let objects = || {
        let before = reviews(&json!({"route": route("v1")}));
        versions().into_iter().chain([reviews_rule(), before])
    };
    let mut agent = Agent::following(objects());
    let leaf = |agent: &Agent| {
        agent.at(REVIEWS).expect("a record").leaves[0]
            .service
            .clone()
    };
    agent.know(Kind::VIRTUAL_SERVICE, Knowledge::Stale);
    agent.tell(reviews(&delegating(&json!({}))));
    assert_eq!(leaf(&agent), "reviews/v1");
    assert_eq!(agent.waits_for_at(REVIEWS), [Kind::VIRTUAL_SERVICE]);
    let of_root = reference(Kind::VIRTUAL_SERVICE, "reviews");
    let said = agent.compiler.diagnostics(&of_root);
    let [said] = said.as_slice() else {
        panic!("{said:?}")
    };
    assert_eq!(
        (said.severity, said.reason),
        (Severity::Warning, "NotKnownYet")
    );
    assert_eq!(said.field, "spec.http[0].delegate");
    // It is told of, and used at once.
    agent.tell(delegate(&json!([{"route": route("v2")}])));
    assert_eq!(leaf(&agent), "reviews/v2");
    assert_eq!(agent.waits_for_at(REVIEWS), []);
    // It is gone for certain.
    agent.delete(Kind::VIRTUAL_SERVICE, "shared");
    assert_eq!(agent.at(REVIEWS).map(|split| split.decision), REFUSED);
    // What is known without it need not wait.
    let mut agent = Agent::following(objects());
    agent.know(Kind::VIRTUAL_SERVICE, Knowledge::Stale);
    agent.tell(reviews(&delegating(&json!({"delegate": {"name": 7}}))));
    assert_eq!(agent.at(REVIEWS).map(|split| split.decision), REFUSED);
    // In the end there is none.
    let mut agent = Agent::following(objects());
    agent.know(Kind::VIRTUAL_SERVICE, Knowledge::Stale);
    agent.tell(reviews(&delegating(&json!({}))));
    agent.know(Kind::VIRTUAL_SERVICE, Knowledge::Followed);
    assert_eq!(agent.at(REVIEWS).map(|split| split.decision), REFUSED);
    assert_eq!(compiled(objects()).shares(REVIEWS), [("reviews/v1", 1)]);
}

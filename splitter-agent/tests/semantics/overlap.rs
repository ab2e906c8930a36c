//! Endpoints that are behind more than one backend.

use serde_json::{Value, json};
use splitter_agent::compile::Severity::Warning;

use crate::fixtures::{Outcome, VIP, canary, compiled, leaf, root, slice, split};

/// The root selects the pods of both versions, three and one.
fn stable_and_canary(weights: [u32; 2]) -> Outcome {
    let [stable, canary] = weights;
    let objects: [Vec<Value>; 3] = [
        vec![
            root(),
            slice("web", &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.9"]),
        ],
        leaf("web-2", "10.96.0.12", &["10.0.0.9"]).into(),
        vec![split(
            "canary",
            "web",
            &[("web", json!(stable)), ("web-2", json!(canary))],
        )],
    ];
    compiled(objects.concat())
}

/// The root as a backend is the usual way to get there.
///
/// Case: BACKEND-OVERLAP
#[test]
fn endpoints_of_two_backends_are_named_with_what_they_really_get() {
    let outcome = stable_and_canary([80, 20]);
    assert_eq!(
        outcome.shares(VIP),
        [("web", 4), ("web-2", 1)],
        "as written"
    );
    assert_eq!(
        outcome.said(),
        [(Warning, "OverlappingBackends", "spec.backends")]
    );
    assert_eq!(
        outcome.message(),
        "an endpoint is in more than one backend: 10.0.0.9 (web, web-2); so by endpoints those of \
         web get 100 % of the connections instead of 80 %, those of web-2 get 40 % of the \
         connections instead of 20 % (port 80/TCP); let the Services of the backends select \
         different pods"
    );
}

/// A canary at rest is not at rest while the stable backend sends it connections.
///
/// Case: BACKEND-OVERLAP
#[test]
fn a_resting_canary_whose_endpoints_another_backend_has_is_warned_of() {
    let outcome = stable_and_canary([100, 0]);
    assert!(
        outcome
            .message()
            .contains("web-2 get 25 % of the connections instead of 0 %")
    );
    // The other way round nothing is sent to where it should not be.
    let outcome = stable_and_canary([0, 100]);
    assert!(outcome.message().contains("those of web get 100 %"));
}

/// Backends that are apart are as they should be.
///
/// Case: BACKEND-OVERLAP
#[test]
fn backends_without_common_endpoints_are_accepted() {
    let objects: [Vec<Value>; 3] = [
        vec![root()],
        leaf("web-1", "10.96.0.11", &["10.0.0.1"]).into(),
        leaf("web-2", "10.96.0.12", &["10.0.0.2"]).into(),
    ];
    let objects = objects.concat();
    compiled(objects.into_iter().chain([canary(9, 1)])).assert_accepted();
}

//! Documents of a newer agent can be read.

use serde_json::json;

use crate::{Effect, LeafState, SplitState, Status, Verdict};

#[test]
fn fields_and_words_that_a_newer_agent_adds_are_survived() {
    let document = json!({
        "node": "node-1", "version": "9.0.0", "layout": 9, "pins": "/sys/fs/bpf/splitter",
        "agent": true, "attached": true, "uptime_seconds": 12.5,
        "programs": [{
            "name": "sendmsg4", "attached": true, "program_id": 1, "cgroup": null,
            "cgroup_id": 7, "link_id": 3,
        }],
        "other_programs": [{
            "hook": "sendmsg4", "cgroup": null, "id": 2, "name": null, "mode": "chained",
            "order": null, "effect": "replaces", "is_splitter": false, "pins": null,
        }],
        "warnings": [],
        "splits": [{
            "frontend": "10.96.0.10:80/TCP", "namespace": "shop", "root": "web",
            "kind": "HTTPRoute", "object_namespace": "shop", "name": "web", "verdict": "mirror", "reason": "SomethingNew",
            "message": "something new", "state": "mirrored", "generation": 4,
            "connections": u64::MAX, "weights_sum": 10,
            "leaves": [{
                "service": "web-v1", "weight": 10, "configured": 1.0, "programmed": 1.0,
                "observed": null, "connections": 0, "lifetime": 0, "state": "draining",
                "endpoints": 1, "zone": "a",
            }],
        }],
        "inconsistent": [],
        "verdicts": {"split": 3, "mirrored": 1},
    });
    let status: Status = serde_json::from_value(document).unwrap();
    let split = &status.splits[0];
    assert_eq!(split.verdict, Verdict::Unknown);
    assert_eq!(split.state, SplitState::Unknown);
    assert_eq!(split.kind, "HTTPRoute");
    assert_eq!(split.connections, u64::MAX);
    assert_eq!(split.leaves[0].state, LeafState::Unknown);
    let other = &status.node.attachment.other_programs[0];
    assert_eq!(other.effect, Effect::Unknown);
    assert_eq!(other.hook, "sendmsg4");
    assert_eq!(status.verdicts.split, 3);
}

//! The status of routes of the Gateway API, which other controllers write to as well.

use std::time::{Duration, Instant};

use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use splitter_agent::compile::Severity;
use splitter_agent::objects::{Kind, ObjectName, ObjectReference};
use testbed::fixtures::definitions::GATEWAY_ROUTES;

use super::scene::{Agent, Scene, Split, WITHOUT_STATUS, until};

const CONTROLLER: &str = "splitter.dev/controller";
const FOREIGN: &str = "example.com/gateway-controller";

/// The definition of HTTPRoutes, as far as it says what a status may be: in words of our own, after
/// the API's documentation.
pub(crate) fn definition() -> Value {
    let condition = json!({
        "type": "object",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": {
                "type": "string", "maxLength": 316,
                "pattern": "^([a-z0-9.-]+/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$",
            },
            "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
            "reason": {
                "type": "string", "minLength": 1, "maxLength": 1024,
                "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
            },
            "message": {"type": "string", "maxLength": 32768},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
            "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        },
    });
    let parent = json!({
        "type": "object",
        "required": ["parentRef", "controllerName", "conditions"],
        "properties": {
            "parentRef": {
                "type": "object", "required": ["name"], "x-kubernetes-preserve-unknown-fields": true,
            },
            "controllerName": {"type": "string", "pattern": "^[a-z0-9.-]+/[A-Za-z0-9/.~_-]+$"},
            "conditions": {
                "type": "array", "minItems": 1, "maxItems": 8, "items": condition,
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
            },
        },
    });
    let status = json!({
        "type": "object",
        "required": ["parents"],
        "properties": {"parents": {
            "type": "array", "maxItems": 32, "items": parent, "x-kubernetes-list-type": "atomic",
        }},
    });
    let mut definition = GATEWAY_ROUTES[0].definition();
    for version in definition["spec"]["versions"]
        .as_array_mut()
        .expect("versions")
    {
        version["schema"]["openAPIV3Schema"] = json!({
            "type": "object",
            "properties": {
                "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "status": status,
            },
        });
    }
    definition
}

fn service(name: &str) -> Value {
    json!({"group": "", "kind": "Service", "name": name, "port": 80})
}

fn gateway() -> Value {
    json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gate"})
}

/// A route at the API server.
struct Route {
    api: Api<DynamicObject>,
    name: &'static str,
    /// What agents are told.
    split: Split,
}

impl Route {
    async fn create(scene: &Scene, name: &'static str, parents: &[Value]) -> Self {
        let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "HTTPRoute");
        let resource = ApiResource::from_gvk_with_plural(&kind, "httproutes");
        let api = Api::namespaced_with(scene.admin.clone(), &scene.namespace, &resource);
        let object = DynamicObject::new(name, &resource)
            .data(json!({"spec": {"parentRefs": parents, "rules": []}}));
        let created = created(&api, &object).await;
        Self {
            api,
            name,
            split: Split {
                object: ObjectReference::new(
                    Kind::HTTP_ROUTE,
                    ObjectName::new(scene.namespace.as_str(), name),
                ),
                uid: created.metadata.uid.expect("a uid"),
                generation: created.metadata.generation.expect("a generation"),
            },
        }
    }

    /// Changes the spec, as an author does.
    async fn edit(&mut self, spec: &Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        let parameters = PatchParams::default();
        let edited = self.api.patch(self.name, &parameters, &patch);
        let edited = edited.await.expect("an edit");
        self.split.generation = edited.metadata.generation.expect("a generation");
    }

    async fn parents(&self) -> Vec<Value> {
        let object = self.api.get(self.name).await.expect("a route");
        let parents = object.data["status"]["parents"].as_array();
        parents.cloned().unwrap_or_default()
    }

    /// The entries of ours.
    async fn ours(&self) -> Vec<Value> {
        let mut parents = self.parents().await;
        parents.retain(|parent| parent["controllerName"] == CONTROLLER);
        parents
    }

    /// Status and generation of a condition of our first entry.
    async fn condition(&self, name: &str) -> Option<(Value, Value)> {
        let ours = self.ours().await;
        let mut conditions = ours.first()?["conditions"].as_array()?.iter();
        let found = conditions.find(|condition| condition["type"] == name)?;
        Some((found["status"].clone(), found["observedGeneration"].clone()))
    }

    async fn until_accepted(&self) {
        until("accepted", async || {
            let generation = json!(self.split.generation);
            self.condition("Accepted").await == Some((json!("True"), generation))
        })
        .await;
    }

    /// Puts an entry of another controller in, or in place of the one it has: as controllers do it,
    /// with the version that they have read.
    async fn write_as_another(&self, message: &str) {
        let entry = json!({
            "parentRef": gateway(), "controllerName": FOREIGN,
            "conditions": [{
                "type": "Accepted", "status": "True", "reason": "Accepted", "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        });
        loop {
            let object = self.api.get(self.name).await.expect("a route");
            let mut parents = object.data["status"]["parents"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            parents.retain(|parent| parent["controllerName"] != FOREIGN);
            parents.push(entry.clone());
            let patch = Patch::Merge(json!({
                "metadata": {"resourceVersion": object.metadata.resource_version},
                "status": {"parents": parents},
            }));
            let parameters = PatchParams::default();
            match self.api.patch_status(self.name, &parameters, &patch).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}

/// Creates an object. A definition is not served at the very moment that it is there.
async fn created(api: &Api<DynamicObject>, object: &DynamicObject) -> DynamicObject {
    let start = Instant::now();
    loop {
        match api.create(&PostParams::default(), object).await {
            Ok(created) => return created,
            Err(error) if start.elapsed() > Duration::from_secs(60) => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// What Flagger asks before it goes on: that every entry whose `parentRef` is exactly one of the
/// spec's is accepted in the present generation (`pkg/router/gateway_api.go`).
fn may_go_on(spec_parents: &[Value], generation: i64, entries: &[Value]) -> bool {
    let of_spec = entries
        .iter()
        .filter(|entry| spec_parents.contains(&entry["parentRef"]));
    of_spec.into_iter().all(|entry| {
        let conditions = entry["conditions"].as_array().expect("conditions");
        let mut accepted = conditions.iter().filter(|it| it["type"] == "Accepted");
        accepted.all(|it| {
            it["status"] == "True" && it["observedGeneration"].as_i64() >= Some(generation)
        })
    })
}

fn accepted(route: &Route, agent: &Agent) {
    route
        .split
        .say(&[agent], &[(Severity::Accepted, "Accepted")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_has_an_entry_for_each_service_beside_those_of_others() {
    let scene = Scene::new("route").await;
    let agent = scene.agent("one", WITHOUT_STATUS);
    // What the API would put in by itself is not written out here, and must not be there.
    let bare = json!({"group": "core", "kind": "Service", "name": "web"});
    let parents = [gateway(), bare.clone(), service("api")];
    let mut route = Route::create(&scene, "web", &parents).await;
    route.write_as_another("theirs").await;
    let foreign = route.parents().await.remove(0);
    accepted(&route, &agent);
    route.until_accepted().await;
    let entries = route.parents().await;
    assert_eq!(entries.len(), 3);
    assert_eq!(entries[0], foreign);
    assert_eq!(entries[1]["parentRef"], bare);
    assert_eq!(entries[2]["parentRef"], service("api"));
    assert!(may_go_on(&parents[1..], route.split.generation, &entries));

    // Refused by the same words, in the new generation: that is not gone on from.
    route
        .edit(&json!({"rules": [{"timeouts": {"request": "1s"}}]}))
        .await;
    assert!(!may_go_on(&parents[1..], route.split.generation, &entries));
    route
        .split
        .say(&[&agent], &[(Severity::Refused, "UnsupportedField")]);
    let generation = json!(route.split.generation);
    until("refused", async || {
        let refused = Some((json!("False"), generation.clone()));
        route.condition("Accepted").await == refused
    })
    .await;
    let entries = route.parents().await;
    assert_eq!(entries[0], foreign);
    assert!(!may_go_on(&parents[1..], route.split.generation, &entries));
    assert_eq!(entries[1]["conditions"][0]["reason"], "UnsupportedValue");

    // One parent goes, and then the other.
    route
        .edit(&json!({"parentRefs": [gateway(), service("api")]}))
        .await;
    accepted(&route, &agent);
    until("only one", async || {
        let ours = route.ours().await;
        ours.len() == 1 && ours[0]["parentRef"] == service("api")
    })
    .await;
    route.edit(&json!({"parentRefs": [gateway()]})).await;
    let note = [(Severity::Note, "StatusAbandoned")];
    route.split.say(&[&agent], &note);
    until("nothing of ours", async || route.ours().await.is_empty()).await;
    assert_eq!(route.parents().await, [foreign]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_where_two_controllers_write_at_the_same_time() {
    const ROUNDS: usize = 60;
    let scene = Scene::new("rivals").await;
    let agent = scene.agent("one", WITHOUT_STATUS);
    let mut route = Route::create(&scene, "web", &[gateway(), service("web")]).await;
    accepted(&route, &agent);
    route.until_accepted().await;
    for round in 0..ROUNDS {
        route
            .edit(&json!({"rules": [{"name": format!("round-{round}")}]}))
            .await;
        accepted(&route, &agent);
        // Until ours has come through, so that writes meet again and again.
        let is_written = async || {
            let generation = json!(route.split.generation);
            route.condition("Accepted").await == Some((json!("True"), generation))
        };
        let start = Instant::now();
        let mut write = 0;
        while !is_written().await {
            assert!(start.elapsed() < Duration::from_secs(60), "never written");
            write += 1;
            route.write_as_another(&format!("{round}/{write}")).await;
        }
        if round % 10 == 0 && write > 0 {
            let entries = route.parents().await;
            let mut theirs = entries.iter().filter(|it| it["controllerName"] == FOREIGN);
            let message = theirs
                .next()
                .map(|it| it["conditions"][0]["message"].clone());
            assert_eq!(message, Some(json!(format!("{round}/{write}"))));
            assert_eq!(entries.len(), 2);
        }
        if agent.metric("statuses_written_total") > 3.0 && round > 10 {
            break;
        }
    }
    let entries = route.parents().await;
    assert_eq!(entries.len(), 2, "{entries:?}");
    assert_eq!(agent.metric("statuses_failed_total{code=\"409\"}"), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_generation_is_told_at_once_although_thousands_are_unconfirmed() {
    const MANY: usize = 10_000;
    let scene = Scene::new("many").await;
    let agent = scene.agent_of_pace("one");
    let mut route = Route::create(&scene, "web", &[service("web")]).await;
    let others: Vec<Split> = (0..MANY)
        .map(|number| Split {
            object: ObjectReference::new(
                Kind::HTTP_ROUTE,
                ObjectName::new(scene.namespace.as_str(), format!("gone-{number:05}")),
            ),
            uid: format!("uid-{number}"),
            generation: 1,
        })
        .collect();
    Split::say_all(&others, &agent, &[(Severity::Accepted, "Accepted")]);
    accepted(&route, &agent);
    // Then it has taken note of all of them.
    until("an event", async || {
        agent.metric("events_written_total") > 0.0
    })
    .await;
    let mut slowest = Duration::ZERO;
    for step in 0..5 {
        route
            .edit(&json!({"rules": [{"name": format!("step-{step}")}]}))
            .await;
        let start = Instant::now();
        accepted(&route, &agent);
        route.until_accepted().await;
        slowest = slowest.max(start.elapsed());
    }
    println!("the slowest of five steps was told after {slowest:?}");
    // To go through all of them takes minutes.
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
}

/// A status of conditions that others write as well.
#[tokio::test(flavor = "multi_thread")]
async fn conditions_of_others_stay_beside_ours() {
    let scene = Scene::new("shared").await;
    let agent = scene.agent("one", WITHOUT_STATUS);
    let theirs = json!([{"type": "Reconciled", "status": "True", "observedGeneration": "1"}]);
    let api = scene.shared();
    let object = json!({
        "apiVersion": "example.dev/v1", "kind": "Shared", "metadata": {"name": "reviews"}, "spec": {},
    });
    let object: DynamicObject = serde_json::from_value(object).expect("an object");
    let created = created(&api, &object).await;
    let parameters = PatchParams::default();
    let patch = Patch::Merge(json!({"status": {"conditions": theirs}}));
    let written = api.patch_status("reviews", &parameters, &patch);
    written.await.expect("a status");
    let split = Split {
        object: ObjectReference::new(
            super::scene::SHARED,
            ObjectName::new(scene.namespace.as_str(), "reviews"),
        ),
        uid: created.metadata.uid.expect("a uid"),
        generation: created.metadata.generation.expect("a generation"),
    };
    for (severity, reason, accepted) in [
        (Severity::Accepted, "Accepted", "True"),
        (Severity::Refused, "UnsupportedField", "False"),
    ] {
        split.say(&[&agent], &[(severity, reason)]);
        until("conditions", async || {
            let object = api.get("reviews").await.expect("an object");
            let conditions = object.data["status"]["conditions"].as_array().cloned();
            let conditions = conditions.unwrap_or_default();
            assert_eq!(conditions[0], theirs[0]);
            let ours = conditions
                .iter()
                .find(|it| it["type"] == "splitter.dev/Accepted");
            conditions.len() == 4 && ours.is_some_and(|it| it["status"] == accepted)
        })
        .await;
    }
}

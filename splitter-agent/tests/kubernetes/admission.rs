//! One verdict on TrafficSplits: what `check` says, what the project's CRD says, and what the
//! admission policy says on any CRD, from one table of cases.

mod cases;
mod definitions;

use std::time::{Duration, Instant};

use kube::Client;
use serde_json::{Value, json};
use splitter_agent::compile::{Settings, Severity, compile};
use splitter_agent::judge::judge;
use splitter_agent::objects::{Objects, decode};
use splitter_agent::source::manifests::read_to_judge;
use tempfile::TempDir;
use tokio::time::sleep;

use super::server::Server;
use cases::{Case, specs, strays, weights};
use definitions::{own, permissive, strangers};

const VERSIONS: [&str; 4] = ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"];

const POLICY: &str = include_str!("../../../deploy/components/admission/policy.yaml");
const BINDING: &str = include_str!("../../../deploy/components/admission/binding.yaml");

/// What an API server makes of an object.
#[derive(Debug)]
enum Answer {
    /// And this is what it makes of it.
    Accepted(String),
    /// By the policy, with its message.
    Denied(String),
    /// By the schema.
    Invalid(#[expect(dead_code, reason = "shown when a test fails")] String),
}

impl Answer {
    fn is_accepted(&self) -> bool {
        matches!(self, Self::Accepted(_))
    }

    fn is_denied(&self) -> bool {
        matches!(self, Self::Denied(_))
    }
}

/// Asks the API server about an object as it is written, without creating it.
async fn ask(client: &Client, version: &str, object: &str) -> Answer {
    send(client, "POST", version, "", "dryRun=All", object).await
}

/// Sends an object as it is written; JSON has more ways to write a number than a program keeps.
async fn send(
    client: &Client,
    method: &str,
    version: &str,
    name: &str,
    query: &str,
    object: &str,
) -> Answer {
    let uri =
        format!("/apis/split.smi-spec.io/{version}/namespaces/default/trafficsplits{name}?{query}");
    let content_type = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let request = http::Request::builder()
        .method(method)
        .uri(uri)
        .header("content-type", content_type)
        .body(object.as_bytes().to_vec())
        .expect("a request");
    match client.request_text(request).await {
        Ok(object) => Answer::Accepted(object),
        Err(kube::Error::Api(status)) if status.message.contains("ValidatingAdmissionPolicy") => {
            Answer::Denied(status.message.clone())
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {
            Answer::Invalid(status.message.clone())
        }
        Err(error) => panic!("{object}: {error}"),
    }
}

/// Creates a definition and waits until it is served.
async fn define(server: &Server, definition: &Value) {
    server.apply(definition).await;
    let versions = definition["spec"]["versions"].as_array().expect("versions");
    let good = Case::good();
    for version in versions {
        let version = version["name"].as_str().expect("a name");
        until(&format!("{version} served"), async || {
            let uri = format!("/apis/split.smi-spec.io/{version}/trafficsplits");
            let request = http::Request::get(uri).body(Vec::new()).expect("a request");
            server.client.request_text(request).await.is_ok()
        })
        .await;
        let answer = ask(&server.client, version, &good.object(version)).await;
        assert!(answer.is_accepted(), "{version}: {answer:?}");
    }
}

async fn undefine(server: &Server, definition: &Value) {
    server.delete(definition).await;
    until("the definition gone", async || {
        let uri = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/trafficsplits.split.smi-spec.io";
        let request = http::Request::get(uri).body(Vec::new()).expect("a request");
        server.client.request_text(request).await.is_err()
    })
    .await;
}

/// Puts the policy in effect.
async fn enforce(server: &Server, version: &str) {
    for manifest in [POLICY, BINDING] {
        let manifest: Value = serde_saphyr::from_str(manifest).expect("YAML");
        server.apply(&manifest).await;
    }
    until("the policy in effect", async || {
        let other = r#"{"service": "web.elsewhere", "backends": [{"service": "a", "weight": 1}]}"#;
        let other = Case::spec(other).object(version);
        ask(&server.client, version, &other).await.is_denied()
    })
    .await;
}

async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < deadline, "{what}");
        sleep(Duration::from_millis(100)).await;
    }
}

/// Whether `check` refuses the object in a file beside the Services that it names, and what it
/// says.
fn check(object: &str) -> (bool, String) {
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join("split.json");
    let services = ["web", "kubernetes", "web-v1", "web-v2"].map(|name| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"ports": [{"port": 80}]},
        })
        .to_string()
    });
    let text = [&services[..], &[object.to_owned()]].concat().join("\n");
    std::fs::write(&path, text).expect("a file");
    let reading = read_to_judge(&[path]).expect("a reading");
    let verdict = judge(&reading, &Settings::default());
    let said: Vec<String> = verdict
        .diagnostics
        .iter()
        .map(ToString::to_string)
        .collect();
    (verdict.refused, said.join("\n"))
}

/// The fields for which the agent refuses the object, without knowing of any other.
fn agent(object: &str) -> Vec<String> {
    let value: Value = serde_json::from_str(object).expect("JSON");
    let mut objects = Objects::default();
    objects.insert(decode(value).expect("readable").expect("a split"));
    let said = compile(&objects, &Settings::default()).diagnostics;
    said.into_iter()
        .filter(|diagnostic| diagnostic.severity == Severity::Refused)
        .map(|diagnostic| diagnostic.field)
        .collect()
}

#[tokio::test]
async fn check_refuses_what_the_api_server_refuses_and_nothing_else() {
    let server = Server::start().await;
    define(&server, &own()).await;
    let mut differences = Vec::new();
    let mut accepted = 0;
    for version in VERSIONS {
        for case in weights() {
            let object = case.object(version);
            let answer = ask(&server.client, version, &object).await;
            let (refused, said) = check(&object);
            accepted += usize::from(!refused);
            if refused == answer.is_accepted() {
                differences.push(format!("{version} {}: {answer:?}; {said}", case.text));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert!(accepted > 40, "{accepted}");

    // With the policy this holds for everything that is wrong with a TrafficSplit by itself.
    enforce(&server, "v1alpha4").await;
    for version in VERSIONS {
        for case in weights().into_iter().chain(specs()) {
            let object = case.object(version);
            let answer = ask(&server.client, version, &object).await;
            let (refused, said) = check(&object);
            if refused == answer.is_accepted() {
                differences.push(format!("{version} {}: {answer:?}; {said}", case.text));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn the_policy_refuses_what_the_agent_would_refuse_on_any_definition() {
    let server = Server::start().await;
    let mut differences = Vec::new();
    for (name, definition) in strangers() {
        define(&server, &definition).await;
        let versions = definition["spec"]["versions"].as_array().expect("versions");
        let first = versions[0]["name"].as_str().expect("a name");
        enforce(&server, first).await;
        let mut denied = 0;
        for version in versions {
            let version = version["name"].as_str().expect("a name");
            for case in weights().into_iter().chain(specs()).chain(strays()) {
                let object = case.object(version);
                let answer = ask(&server.client, version, &object).await;
                // Fields that the schema does not know never come to anybody's eyes.
                let refused = match &answer {
                    Answer::Accepted(stored) => agent(stored),
                    _ => agent(&object),
                };
                denied += usize::from(answer.is_denied());
                let agrees = match &answer {
                    Answer::Accepted(_) => refused.is_empty(),
                    Answer::Denied(message) => {
                        let names_field = refused.iter().any(|field| {
                            let field = field.split('[').next().unwrap_or_default();
                            message.contains(&format!("{field}: "))
                        });
                        case.is_stricter_at_the_door || names_field && message.contains("; ")
                    }
                    // Only a definition of its own opinion refuses what the policy lets through.
                    Answer::Invalid(_) => name != "permissive",
                };
                if !agrees {
                    differences.push(format!(
                        "{name} {version} {}: {answer:?}; agent: {refused:?}",
                        case.text
                    ));
                }
            }
        }
        assert!(denied > 20, "{name}: {denied}");
        undefine(&server, &definition).await;
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn the_last_good_split_stays_and_a_bad_one_can_still_be_tended() {
    let server = Server::start().await;
    define(&server, &permissive()).await;
    let client = &server.client;
    let send = async |method: &str, name: &str, object: &str| {
        let name = match name {
            "" => String::new(),
            name => format!("/{name}"),
        };
        send(client, method, "v1alpha4", &name, "", object).await
    };
    // One that was bad before there was a policy.
    let bad = Case::weight("-1").named("bad").object("v1alpha4");
    assert!(send("POST", "", &bad).await.is_accepted());
    let good = Case::good().named("good").object("v1alpha4");
    assert!(send("POST", "", &good).await.is_accepted());
    enforce(&server, "v1alpha4").await;

    let worse = r#"{"spec": {"backends": [{"service": "web-v1", "weight": "lots"}]}}"#;
    let answer = send("PATCH", "good", worse).await;
    let Answer::Denied(message) = &answer else {
        panic!("{answer:?}");
    };
    assert!(
        message.contains("the weight of web-v1 is lots; write a whole number"),
        "{message}"
    );
    let uri = "/apis/split.smi-spec.io/v1alpha4/namespaces/default/trafficsplits/good";
    let request = http::Request::get(uri).body(Vec::new()).expect("a request");
    let kept = client.request_text(request).await.expect("an answer");
    let kept: Value = serde_json::from_str(&kept).expect("JSON");
    assert_eq!(kept["spec"]["backends"][0]["weight"], 90);
    assert_eq!(kept["metadata"]["generation"], 1);

    let tended = r#"{"metadata": {"labels": {"seen": "yes"}, "finalizers": ["example.com/x"]}}"#;
    assert!(send("PATCH", "bad", tended).await.is_accepted());
    assert!(send("PATCH", "bad", worse).await.is_denied());
    let stray = r#"{"matches": [{"kind": "HTTPRouteGroup", "name": "beta"}]}"#;
    assert!(send("PATCH", "good", stray).await.is_denied());
    assert!(send("DELETE", "bad", "").await.is_accepted());
    // It is going, and nothing about it is judged any more.
    let let_go = r#"{"metadata": {"finalizers": null}}"#;
    assert!(send("PATCH", "bad", let_go).await.is_accepted());
    until("the bad one gone", async || {
        let uri = "/apis/split.smi-spec.io/v1alpha4/namespaces/default/trafficsplits/bad";
        let request = http::Request::get(uri).body(Vec::new()).expect("a request");
        client.request_text(request).await.is_err()
    })
    .await;

    let better = r#"{"spec": {"backends": [{"service": "web-v1", "weight": "500m"}]}}"#;
    assert!(send("PATCH", "good", better).await.is_accepted());
}

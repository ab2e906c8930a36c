//! What is there at first, and what happens to it.

use serde_json::{Value, json};
use splitter_agent::objects::{Availability, Kind, Object};
use testbed::fixtures::manifests::{self, endpoint_slice};

use super::audit::Audit;
use super::definition::{definition, split};
use super::observer::Observer;
use super::server::Server;

pub(crate) fn service(name: &str) -> Value {
    manifests::service("default", name, &json!({"ports": [{"port": 80}]}))
}

fn slice(name: &str, endpoints: &Value) -> Value {
    let ports = json!([{"name": "", "port": 8080}]);
    let content = json!({"ports": ports, "endpoints": endpoints});
    endpoint_slice("default", name, "web", &content)
}

/// Everything once, with the API server started as given.
async fn everything(arguments: &[&str]) -> (Server, Observer) {
    let server = Server::start_with(arguments).await;
    server.apply(&definition(&["v1alpha4"])).await;
    for name in ["web", "web-v1"] {
        server.apply(&service(name)).await;
    }
    let mut headless = service("web-headless");
    headless["spec"]["clusterIP"] = json!("None");
    server.apply(&headless).await;
    let endpoints = json!([
        {"addresses": ["10.1.0.1"]},
        {"addresses": ["10.1.0.2"], "conditions": {"ready": false}},
    ]);
    server.apply(&slice("web-x", &endpoints)).await;
    server.apply(&slice("web-empty", &json!([]))).await;
    server.apply(&split("v1alpha4", "web")).await;

    let mut observer = Observer::of(server.client.clone());
    observer.until_complete().await;
    assert_eq!(observer.completes, 1);
    assert_eq!(
        observer.names("Service"),
        ["kubernetes", "web", "web-headless", "web-v1"]
    );
    assert_eq!(
        observer.names("EndpointSlice"),
        ["kubernetes", "web-empty", "web-x"]
    );
    assert_eq!(observer.names("TrafficSplit"), ["web"]);
    match &observer.known["EndpointSlice default/web-x"] {
        Ok(Object::EndpointSlice(slice)) => {
            let endpoints = slice.endpoints.iter();
            let endpoints: Vec<_> = endpoints
                .map(|endpoint| (endpoint.address.to_string(), endpoint.ready))
                .collect();
            assert_eq!(
                endpoints,
                [
                    ("10.1.0.1".to_owned(), true),
                    ("10.1.0.2".to_owned(), false)
                ]
            );
            assert_eq!(slice.service.as_deref(), Some("web"));
        }
        other => panic!("{other:?}"),
    }

    // And from then on whatever happens.
    server.apply(&service("late")).await;
    observer
        .until("told of a new Service", |it| {
            it.names("Service").contains(&"late")
        })
        .await;
    server.delete(&service("late")).await;
    observer
        .until("told that it is gone", |it| !it.deleted.is_empty())
        .await;
    assert_eq!(observer.deleted, ["Service default/late"]);
    (server, observer)
}

#[tokio::test]
async fn all_that_is_there_is_told_of_before_complete() {
    let (_server, mut observer) = everything(&[]).await;
    for line in [
        "splitter_source_synced{kind=\"TrafficSplit\"} 1",
        "splitter_source_synced{kind=\"EndpointSlice\"} 1",
        "splitter_objects{kind=\"Service\"} 4",
        "splitter_watch_restarts_total{kind=\"Service\"} 0",
    ] {
        observer.until_metric(line).await;
    }
    let metrics = observer.metrics();
    assert!(!metrics.contains("watch_errors_total{"), "{metrics}");
    assert!(observer.end().await);
}

#[tokio::test]
async fn lists_are_streamed_from_the_cache_of_the_server() {
    let audit = Audit::new();
    let arguments = audit.arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (server, _observer) = everything(&arguments).await;
    for plural in ["services", "endpointslices", "trafficsplits"] {
        let uris = audit.uris(plural);
        let first = uris.first().expect("a request");
        for part in ["sendInitialEvents=true", "resourceVersion=0", "watch=true"] {
            assert!(has(first, part), "{part} not in {first}");
        }
        assert!(!uris.iter().any(|uri| uri.contains("limit=")), "{uris:?}");
    }
    drop(server);
}

/// With a limit the server would read them from etcd.
#[tokio::test]
async fn a_server_that_cannot_stream_lists_gives_whole_ones_from_its_cache() {
    let audit = Audit::new();
    let mut arguments = audit.arguments();
    arguments.push("--feature-gates=WatchList=false".to_owned());
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (server, observer) = everything(&arguments).await;
    let metrics = observer.metrics();
    assert!(metrics.contains("code=\"422\""), "{metrics}");
    // That was found out once. Every kind that asked before it was has one such failure; the
    // definition of each optional kind is asked for by itself.
    let optional = Kind::all().filter(|kind| kind.availability == Availability::Optional);
    let definitions = optional.count();
    let refused = metrics.lines().filter(|line| line.contains("code=\"422\""));
    for line in refused {
        let count = line.rsplit(' ').next().and_then(|count| count.parse().ok());
        let most = match line.contains("CustomResourceDefinition") {
            true => definitions,
            false => 1,
        };
        assert!(count.is_some_and(|count: usize| count <= most), "{metrics}");
    }
    for plural in ["services", "endpointslices", "trafficsplits"] {
        let uris = audit.uris(plural);
        let is_list = |uri: &&String| !has(uri, "watch=true");
        let lists: Vec<&String> = uris.iter().filter(is_list).collect();
        assert!(!lists.is_empty(), "{uris:?}");
        for list in lists {
            assert!(has(list, "resourceVersion=0"), "{list}");
            assert!(has(list, "resourceVersionMatch=NotOlderThan"), "{list}");
            assert!(!list.contains("limit="), "{list}");
        }
    }
    drop(server);
}

/// Whether a URI has a parameter.
fn has(uri: &str, parameter: &str) -> bool {
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|part| part == parameter)
}

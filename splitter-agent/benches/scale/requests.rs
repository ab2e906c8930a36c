//! What an API server is asked, as its own metrics tell it.

use std::collections::BTreeMap;
use std::time::Duration;

use http::Request;

use super::cluster::Cluster;

const METRIC: &str = "apiserver_request_total{";

/// Requests that an API server finished, by verb and resource.
#[derive(Clone, Debug, Default)]
pub(crate) struct Requests(pub(crate) BTreeMap<String, u64>);

impl Requests {
    /// What it finishes in this time, without the request that asks for it.
    pub(crate) async fn during(cluster: &Cluster, time: Duration) -> Self {
        let before = Self::now(cluster).await;
        tokio::time::sleep(time).await;
        let mut after = Self::now(cluster).await;
        for (what, count) in &mut after.0 {
            *count -= before.0.get(what).copied().unwrap_or_default();
        }
        after
            .0
            .retain(|what, count| *count > 0 && !what.ends_with(' '));
        after
    }

    async fn now(cluster: &Cluster) -> Self {
        let request = Request::get("/metrics").body(Vec::new());
        let text = cluster
            .client()
            .request_text(request.expect("a request"))
            .await;
        let text = text.unwrap_or_else(|error| panic!("{error}"));
        let mut requests = BTreeMap::new();
        for line in text.lines().filter(|line| line.starts_with(METRIC)) {
            let (labels, count) = line.rsplit_once(' ').unwrap_or((line, "0"));
            let what = format!("{} {}", label(labels, "verb"), label(labels, "resource"));
            *requests.entry(what).or_default() += count.parse::<f64>().unwrap_or_default() as u64;
        }
        Self(requests)
    }

    pub(crate) fn total(&self) -> u64 {
        self.0.values().sum()
    }

    /// What there is more of here, by verb and resource.
    pub(crate) fn beyond(&self, others: &Self) -> Vec<(&str, u64)> {
        let more = self.0.iter().map(|(what, count)| {
            let less = others.0.get(what).copied().unwrap_or_default();
            (what.as_str(), count.saturating_sub(less))
        });
        more.filter(|(_, count)| *count > 0).collect()
    }
}

/// The value of a label; none of those that are asked for has a quotation mark in it.
fn label<'a>(labels: &'a str, name: &str) -> &'a str {
    let begin = format!("{name}=\"");
    // `verb` ends no other label's name, and `resource` is also the end of `subresource`.
    let mut rest = labels;
    while let Some(at) = rest.find(&begin) {
        let starts = at == 0 || matches!(rest.as_bytes()[at - 1], b',' | b'{');
        rest = &rest[at + begin.len()..];
        if starts {
            return rest.split('"').next().unwrap_or_default();
        }
    }
    ""
}

//! Endpoints that are behind more than one leaf, and what that does to the shares.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// A leaf, as far as it matters here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part<'a> {
    /// Its name, for people.
    pub(super) name: &'a str,
    /// Its share.
    pub(super) share: u32,
    /// Its endpoints, each once.
    pub(super) endpoints: &'a [SocketAddr],
}

/// How many endpoints, and leaves, are named.
const MOST: usize = 3;

/// What people are told of endpoints that are behind more than one leaf; `None` if there are
/// none, or none that changes a share.
pub(super) fn describe(parts: &[Part<'_>]) -> Option<String> {
    let mut leaves_of: BTreeMap<SocketAddr, Vec<usize>> = BTreeMap::new();
    for (index, part) in parts.iter().enumerate() {
        for endpoint in part.endpoints {
            leaves_of.entry(*endpoint).or_default().push(index);
        }
    }
    if leaves_of.values().all(|leaves| leaves.len() < 2) {
        return None;
    }
    let name = |index: usize| parts.get(index).map_or("", |part| part.name);
    let shares = shares(parts, &leaves_of);
    let changed: Vec<String> = parts
        .iter()
        .zip(&shares)
        // The share of a leaf without endpoints is refused, if it has one.
        .filter(|(part, _)| !part.endpoints.is_empty())
        .filter(|(_, share)| percent(share.of_endpoints) != percent(share.of_leaf))
        .map(|(part, share)| {
            format!(
                "those of {} get {} % of the connections instead of {} %",
                part.name,
                percent(share.of_endpoints),
                percent(share.of_leaf)
            )
        })
        .collect();
    if changed.is_empty() {
        return None;
    }
    // By address alone: on another port it is the same pods.
    let shared: BTreeMap<IpAddr, BTreeSet<usize>> = leaves_of
        .into_iter()
        .filter(|(_, leaves)| leaves.len() > 1)
        .map(|(endpoint, leaves)| (endpoint.ip(), leaves.into_iter().collect()))
        .collect();
    let endpoints = list(shared.iter().map(|(address, leaves)| {
        let leaves: Vec<&str> = leaves.iter().map(|leaf| name(*leaf)).collect();
        format!("{address} ({})", leaves.join(", "))
    }));
    Some(format!(
        "{} in more than one backend: {endpoints}; so by endpoints {}",
        if shared.len() == 1 {
            "an endpoint is"
        } else {
            "endpoints are"
        },
        list(changed.into_iter())
    ))
}

/// Two shares of a leaf, each a part of 1.
struct Shares {
    /// What the leaf is given.
    of_leaf: f64,
    /// What its endpoints get, whichever leaf they get it through.
    of_endpoints: f64,
}

fn shares(parts: &[Part<'_>], leaves_of: &BTreeMap<SocketAddr, Vec<usize>>) -> Vec<Shares> {
    let total: f64 = parts.iter().map(|part| f64::from(part.share)).sum();
    // What each endpoint gets through all of its leaves.
    let gets: BTreeMap<SocketAddr, f64> = leaves_of
        .iter()
        .map(|(endpoint, leaves)| {
            let leaves = leaves.iter().filter_map(|leaf| parts.get(*leaf));
            let gets = leaves.map(|part| f64::from(part.share) / part.endpoints.len() as f64);
            (*endpoint, gets.sum())
        })
        .collect();
    parts
        .iter()
        .map(|part| Shares {
            of_leaf: f64::from(part.share) / total,
            of_endpoints: part
                .endpoints
                .iter()
                .filter_map(|endpoint| gets.get(endpoint))
                .sum::<f64>()
                / total,
        })
        .collect()
}

/// A part of 1 for people, to a hundredth of a percent.
fn percent(part: f64) -> String {
    let text = format!("{:.2}", part * 100.0);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn list(items: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = items.collect();
    let more = all.len().saturating_sub(MOST);
    all.truncate(MOST);
    if more > 0 {
        all.push(format!("and {more} more"));
    }
    all.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(last: &[u8]) -> Vec<SocketAddr> {
        let address = |last: &u8| SocketAddr::from(([10, 0, 0, *last], 8080));
        last.iter().map(address).collect()
    }

    fn described(leaves: &[(&str, u32, &[u8])]) -> Option<String> {
        let all: Vec<_> = leaves.iter().map(|leaf| endpoints(leaf.2)).collect();
        let parts: Vec<Part<'_>> = leaves
            .iter()
            .zip(&all)
            .map(|((name, share, _), endpoints)| Part {
                name,
                share: *share,
                endpoints,
            })
            .collect();
        describe(&parts)
    }

    #[test]
    fn what_endpoints_get_through_every_leaf_adds_up() {
        assert_eq!(
            described(&[("web", 4, &[1, 2, 3]), ("canary", 1, &[3])]).unwrap(),
            "an endpoint is in more than one backend: 10.0.0.3 (web, canary); so by endpoints \
             those of web get 100 % of the connections instead of 80 %, those of canary get \
             46.67 % of the connections instead of 20 %"
        );
    }

    #[test]
    fn a_leaf_of_weight_zero_gets_what_others_send_its_endpoints() {
        let text = described(&[("web", 1, &[1, 2]), ("canary", 0, &[2])]).unwrap();
        assert!(
            text.ends_with(
                "by endpoints those of canary get 50 % of the connections instead of 0 %"
            )
        );
    }

    #[test]
    fn leaves_apart_are_nothing_to_tell_of() {
        assert_eq!(described(&[("a", 1, &[1]), ("b", 3, &[2])]), None);
        assert_eq!(described(&[("a", 1, &[1]), ("b", 3, &[])]), None);
        // Neither gets anything.
        assert_eq!(
            described(&[("a", 1, &[1]), ("b", 0, &[2]), ("c", 0, &[2])]),
            None
        );
    }

    #[test]
    fn many_endpoints_make_one_line() {
        let all: Vec<u8> = (1..=200).collect();
        let text = described(&[("web", 9, &all), ("canary", 1, &all[..100])]).unwrap();
        assert!(text.contains("and 97 more"), "{text}");
        assert!(text.len() < 400, "{}", text.len());
    }
}

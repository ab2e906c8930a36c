//! The DNS domain of the cluster.

use std::fs;

use crate::compile::DEFAULT_CLUSTER_DOMAIN;
use crate::objects::dns;

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The domain that was given, or else the one that this pod's resolver searches, or else the
/// usual one.
pub(super) fn of_cluster(given: Option<&str>) -> String {
    if let Some(domain) = given.filter(|domain| !domain.is_empty()) {
        return domain.to_owned();
    }
    // Outside of a pod there is nothing in it about a cluster, or no such file.
    let configuration = fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    searched(&configuration).unwrap_or_else(|| DEFAULT_CLUSTER_DOMAIN.to_owned())
}

/// The cluster domain in a resolver's configuration (resolv.conf(5)). The kubelet writes the
/// search list `<namespace>.svc.<domain> svc.<domain> <domain>` for pods that use the cluster's
/// DNS; of several lists the last one counts.
fn searched(configuration: &str) -> Option<String> {
    let search = configuration
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("search"))
        .rfind(|rest| rest.starts_with([' ', '\t']))?;
    search
        .split_ascii_whitespace()
        .filter_map(|name| name.strip_suffix('.').unwrap_or(name).strip_prefix("svc."))
        .map(str::to_ascii_lowercase)
        .find(|domain| dns::is_subdomain(domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Case: SMI-ROOT-DOMAIN
    #[test]
    fn the_domain_of_a_pod_is_what_its_resolver_searches() {
        for (configuration, domain) in [
            (
                "search shop.svc.cluster.local svc.cluster.local cluster.local\n\
                 nameserver 10.96.0.10\noptions ndots:5\n",
                Some("cluster.local"),
            ),
            (
                "nameserver 10.96.0.10\nsearch\tshop.svc.corp.internal. svc.Corp.internal. \
                 corp.internal. example.org",
                Some("corp.internal"),
            ),
            ("search svc.k8s", Some("k8s")),
            // The last list counts.
            (
                "search svc.old.local\nsearch a.svc.new.local svc.new.local",
                Some("new.local"),
            ),
            ("search svc.old.local\nsearch example.org\n", None),
            ("search example.org svc. svc svc.-x.y\n", None),
            ("searching svc.cluster.local\n# search svc.x.y\n", None),
            ("domain svc.cluster.local\nnameserver 8.8.8.8\n", None),
            ("", None),
        ] {
            assert_eq!(
                searched(configuration).as_deref(),
                domain,
                "{configuration}"
            );
        }
    }

    /// Case: SMI-ROOT-DOMAIN
    #[test]
    fn a_domain_that_is_given_comes_first() {
        assert_eq!(of_cluster(Some("corp.internal")), "corp.internal");
        assert!(!of_cluster(Some("")).is_empty());
    }
}

//! Which Service an Istio host is (`ResolveShortnameToFQDN` in Istio's `pilot/pkg/model/config.go`).

use std::net::IpAddr;

use crate::objects::{ObjectName, dns};

/// Why a host is no Service of this cluster. Each is the end of a sentence that begins with the
/// host, and says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoService {
    /// It stands for many hosts.
    #[error("stands for many hosts, and a split is of one Service; name the Services")]
    Wildcard,
    /// An address.
    #[error("is an address; name a Service")]
    Address,
    /// It cannot be the name of anything.
    #[error("is not a DNS name; name a Service")]
    Invalid,
    /// Two labels: what a client in a pod may write, and Istio takes for a full name.
    #[error(
        "is a full name to Istio, and no Service has it; write {service} in namespace {namespace}, or \
         {service}.{namespace}.svc.{domain}"
    )]
    TwoLabels {
        service: String,
        namespace: String,
        domain: String,
    },
    /// One label and a final dot, which makes it a full name.
    #[error(
        "ends with a dot, so it is a full name, and no Service has it; write it without the dot"
    )]
    FinalDot,
    /// A Service's name but for its end.
    #[error(
        "is not in the domain of this cluster as the agent knows it, {0}; write the name with that \
         domain, or give the agent the cluster's own with --cluster-domain"
    )]
    OtherDomain(String),
    /// A full name of something else.
    #[error("is not a Service of this cluster")]
    Foreign,
}

/// What every cluster answers to unless it is told otherwise, so that manifests are written with
/// it.
const USUAL_DOMAIN: &str = "cluster.local";

/// The Service of a host. What has no dot in it is a Service of `namespace`, anything else a full
/// name.
pub(crate) fn service(
    host: &str,
    namespace: &str,
    cluster_domain: &str,
) -> Result<ObjectName, NoService> {
    if host.contains('*') {
        return Err(NoService::Wildcard);
    }
    if host.parse::<IpAddr>().is_ok() {
        return Err(NoService::Address);
    }
    let is_full = host.ends_with('.');
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let labels: Vec<&str> = host.split('.').collect();
    if !labels.iter().all(|label| dns::is_label(label)) {
        return Err(NoService::Invalid);
    }
    let domain = cluster_domain.trim_matches('.');
    let is_domain = |labels: &[&str]| {
        let written = labels.join(".");
        written.eq_ignore_ascii_case(domain) || written == USUAL_DOMAIN
    };
    match labels.as_slice() {
        [_] if is_full => Err(NoService::FinalDot),
        [service] => Ok(ObjectName::new(namespace, *service)),
        [service, namespace, "svc", rest @ ..] if is_domain(rest) => {
            Ok(ObjectName::new(*namespace, *service))
        }
        [service, namespace] => Err(NoService::TwoLabels {
            service: (*service).to_owned(),
            namespace: (*namespace).to_owned(),
            domain: domain.to_owned(),
        }),
        [_, _, "svc", ..] => Err(NoService::OtherDomain(domain.to_owned())),
        _ => Err(NoService::Foreign),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(host: &str) -> Result<String, NoService> {
        service(host, "shop", "k8s.example.org.").map(|name| name.to_string())
    }

    #[test]
    fn short_names_are_of_the_namespace_and_others_are_full() {
        for (host, expected) in [
            ("web", "shop/web"),
            ("WEB", "shop/web"),
            ("web.shop.svc.cluster.local", "shop/web"),
            ("Web.Prod.svc.cluster.local", "prod/web"),
            ("web.prod.svc.k8s.example.org", "prod/web"),
            ("web.prod.svc.k8s.example.org.", "prod/web"),
        ] {
            assert_eq!(found(host).as_deref(), Ok(expected), "{host}");
        }
    }

    #[test]
    fn names_of_other_things() {
        let other_domain = || NoService::OtherDomain("k8s.example.org".to_owned());
        for (host, expected) in [
            ("*", NoService::Wildcard),
            ("*.shop.svc.cluster.local", NoService::Wildcard),
            ("10.0.0.1", NoService::Address),
            ("::1", NoService::Address),
            ("web.", NoService::FinalDot),
            (".", NoService::Invalid),
            ("", NoService::Invalid),
            ("web:80", NoService::Invalid),
            ("we b", NoService::Invalid),
            ("web..svc", NoService::Invalid),
            ("web.shop.svc", other_domain()),
            ("web.shop.svc.cluster", other_domain()),
            ("www.example.org", NoService::Foreign),
            ("pod.web.shop.svc.cluster.local", NoService::Foreign),
        ] {
            assert_eq!(found(host), Err(expected), "{host}");
        }
        let hint = found("reviews.prod").unwrap_err().to_string();
        assert!(hint.contains("reviews.prod.svc.k8s.example.org"), "{hint}");
    }

    proptest! {
        #[test]
        fn never_panics(host in any::<String>(), domain in any::<String>()) {
            let _ = service(&host, "shop", &domain);
        }
    }
}

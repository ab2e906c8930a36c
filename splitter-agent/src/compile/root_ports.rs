//! Which ports of its root a claim has.

use std::collections::BTreeSet;

use splitter_common::layout::Protocol;

use super::conflict;
use super::diagnostics::{Diagnostics, Severity};
use crate::objects::{AppProtocol, Service, ServicePort, quoted};
use crate::plan::protocol_name;
use crate::reason;
use crate::route::{Claim, Ports};

/// Whether a claim has any port of its root; says so if it has not all that it is about.
pub(super) fn is_split(
    service: &Service,
    losses: &conflict::Losses,
    claims: &[&Claim],
    index: usize,
    diagnostics: &mut Diagnostics,
) -> bool {
    let Some(claim) = claims.get(index) else {
        return false;
    };
    let mut tell = |severity, field: &str, message: String| {
        let reason = reason::ROOT_PORT_MISSING;
        diagnostics.emit(&claim.origin, severity, reason, field, message);
    };
    if let Some(message) = of_other_transport(service, claim) {
        tell(Severity::Inactive, claim.ports_field(), message);
        return false;
    }
    if let Some(name) = &claim.ports.name
        && !service.ports.iter().any(|port| claim.ports.covers(port))
    {
        let of_service: Vec<String> = service.ports.iter().map(port_text).collect();
        let number = claim.ports.numbers.iter().flatten().next();
        let message = format!(
            "Service {} has no port {}{}; name one that it has ({}), or none for all of them",
            claim.root,
            quoted(name),
            number.map_or_else(String::new, |number| format!(" with the number {number}")),
            shortened(&of_service)
        );
        tell(Severity::Inactive, &claim.root_field, message);
        return false;
    }
    // What is missing is told of the rule's claim on ports that declare what is spoken there.
    let undeclared = BTreeSet::from([AppProtocol::Undeclared]);
    let is_told = claim.ports.protocols.as_ref() == Some(&undeclared);
    if is_told && !service.ports.iter().any(|port| claim.ports.covers(port)) {
        return false;
    }
    if let Some(port) = of_other_protocol(service, claim) {
        let message = format!(
            "port {} of Service {} is one where {} is spoken, as it declares by appProtocol or name, and \
             this rule is for {}; write one for what is spoken there, or correct the port",
            port.port,
            claim.root,
            spoken(&BTreeSet::from([port.app_protocol])),
            claim.ports.protocols.as_ref().map_or("", spoken),
        );
        tell(Severity::Inactive, claim.ports_field(), message);
        return false;
    }
    if let Some(protocols) = &claim.ports.protocols
        && !is_about_any_port(service, claims, claim)
    {
        // Said once, of the first of an object's claims.
        let is_first = |other: &&&Claim| other.origin == claim.origin;
        if claims
            .iter()
            .find(is_first)
            .is_some_and(|first| std::ptr::eq(*first, *claim))
        {
            let message = format!(
                "Service {} has no port where {} is spoken, as its ports declare by appProtocol or name; \
                 write rules for what is spoken there, or correct the ports",
                claim.root,
                spoken(protocols)
            );
            tell(Severity::Inactive, &claim.root_field, message);
        }
        return false;
    }
    let of_service: BTreeSet<u16> = service.ports.iter().map(|port| port.port).collect();
    if !is_told
        && let Some(ports) = &claim.ports.numbers
        && let Some(missing) = ports.iter().find(|port| !of_service.contains(port))
    {
        let is_split = !ports.is_disjoint(&of_service);
        let of_service: Vec<String> = of_service.iter().map(u16::to_string).collect();
        let message = format!(
            "Service {} has no port {missing}; write one that it has ({}), or none for all of them",
            claim.root,
            shortened(&of_service)
        );
        let severity = if is_split {
            Severity::Warning
        } else {
            Severity::Inactive
        };
        tell(severity, claim.ports_field(), message);
        if !is_split {
            return false;
        }
    }
    conflict::emit_losses(service, losses, claims, index, diagnostics)
}

/// Why a claim has no port of the root, if that is for its transport protocol alone.
fn of_other_transport(service: &Service, claim: &Claim) -> Option<String> {
    let transport = claim.ports.transport?;
    if service.ports.iter().any(|port| claim.ports.covers(port)) {
        return None;
    }
    let of_any = Ports {
        transport: None,
        ..claim.ports.clone()
    };
    let port = service.ports.iter().find(|port| of_any.covers(port))?;
    let (wanted, kind, root) = (protocol_name(transport), claim.origin.kind, &claim.root);
    let what = if claim.ports.are_all() {
        format!("Service {root} has no {wanted} port")
    } else {
        format!(
            "port {} of Service {root} is one of {}",
            port_text(port),
            protocol_name(port.protocol)
        )
    };
    Some(format!(
        "{what}, and {kind}s are for {wanted}; name a Service and port for {wanted}, or write a route of a \
         kind for what the port is"
    ))
}

/// Whether any claim of the object that a claim is from is about a port of the root.
fn is_about_any_port(service: &Service, claims: &[&Claim], claim: &Claim) -> bool {
    let of_object = claims.iter().filter(|other| other.origin == claim.origin);
    let mut ports = of_object.flat_map(|claim| {
        let ports = service.ports.iter();
        ports.filter(|port| claim.ports.covers(port))
    });
    ports.next().is_some()
        || claim.ports.numbers.as_ref().is_some_and(|numbers| {
            // That the number is missing says more.
            let mut ports = service.ports.iter();
            !ports.any(|port| numbers.contains(&port.port))
        })
}

/// A port of the root that a claim names by its number, and that declares another protocol than the
/// claim is for.
fn of_other_protocol<'a>(service: &'a Service, claim: &Claim) -> Option<&'a ServicePort> {
    let numbers = claim.ports.numbers.as_ref()?;
    claim.ports.protocols.as_ref()?;
    let mut named = service.ports.iter();
    if named.any(|port| claim.ports.covers(port)) {
        return None;
    }
    let mut ports = service.ports.iter();
    let declares = |port: &&ServicePort| port.app_protocol != AppProtocol::Undeclared;
    ports.find(|port| declares(port) && numbers.contains(&port.port))
}

/// Says which ports are not split, since it is not known which of several rules holds there.
pub(super) fn tell_ambiguous(service: &Service, claim: &Claim, diagnostics: &mut Diagnostics) {
    let Some(ambiguous) = &claim.ambiguous else {
        return;
    };
    let ports = service.ports.iter();
    let ports = ports.filter(|it| it.protocol == Protocol::Tcp && ambiguous.covers(it));
    let ports: Vec<String> = ports.map(port_text).collect();
    if ports.is_empty() {
        return;
    }
    let message = format!(
        "differs from spec.http, so what does not say what is spoken there is not split: {} {} of Service \
         {}; give it an appProtocol or a name such as http or tcp",
        if ports.len() == 1 { "port" } else { "ports" },
        shortened(&ports),
        claim.root,
    );
    let (severity, reason) = (Severity::Warning, reason::AMBIGUOUS_PROTOCOL);
    diagnostics.emit(&claim.origin, severity, reason, "spec.tcp", message);
}

/// What is spoken, for people.
fn spoken(protocols: &BTreeSet<AppProtocol>) -> &'static str {
    if protocols.contains(&AppProtocol::Http) {
        "HTTP"
    } else if protocols.contains(&AppProtocol::Tls) {
        "TLS"
    } else {
        "TCP other than HTTP and TLS"
    }
}

/// A port of a Service for people.
fn port_text(port: &ServicePort) -> String {
    match port.name.as_str() {
        "" => port.port.to_string(),
        name => format!("{name} ({})", port.port),
    }
}

/// The first of many things, for one line.
fn shortened(items: &[String]) -> String {
    const MOST: usize = 5;
    let mut shown: Vec<&str> = items.iter().take(MOST).map(String::as_str).collect();
    let more;
    if items.len() > MOST {
        more = format!("and {} more", items.len() - MOST);
        shown.push(&more);
    }
    shown.join(", ")
}

//! Delegates: VirtualServices without hosts, whose rules stand in the place of a rule of another one
//! (`mergeVirtualServices` in Istio's `virtualservice_controller.go`, `MergeHTTPRoutes` in its
//! `virtualservice.go`).
//!
//! Istio leaves out a rule whose delegate it does not find, so that its requests go to whatever rule
//! comes after. Here the whole VirtualService is refused, as for anything else that cannot be done.

use std::collections::BTreeSet;

use super::super::quoted;
use super::checks::MAX_BLOCKS;
use super::{Translator, merge};
use crate::compile::{Diagnostics, Severity};
use crate::objects::istio::virtual_service::{Delegate, Rule, Rules};
use crate::objects::{Kind, ObjectName, ObjectReference, Refusal, VirtualService, inert};
use crate::reason;
use crate::route::{self, Context, RouteObject};

/// The VirtualService with the rules of its delegates in their places; `None` if it has no delegates.
pub(super) fn merged(
    service: &VirtualService,
    object: &RouteObject,
    context: Context<'_>,
) -> Option<VirtualService> {
    if named(service).is_empty() {
        return None;
    }
    let mut http = Vec::new();
    let mut conflicts = Vec::new();
    let mut refusals = service.refusals.clone();
    let mut blocks = 0;
    for rule in &service.rules.http {
        let Some(Delegate::Named(name)) = &rule.delegate else {
            http.push(rule.clone());
            continue;
        };
        let delegate = match find(object, name, context) {
            Ok(delegate) => delegate,
            Err(delegate) => {
                let delegate = Some(delegate);
                http.push(Rule {
                    delegate,
                    ..rule.clone()
                });
                continue;
            }
        };
        let of_delegate = delegate.rules.http.iter();
        let of_delegate: usize = of_delegate.map(|it| it.blocks.len().max(1)).sum();
        blocks += of_delegate * rule.blocks.len().max(1);
        if blocks > MAX_BLOCKS {
            refusals.push(Refusal {
                field: format!("{}.delegate", rule.field),
                reason: reason::INVALID_SPEC,
                message: format!(
                    "makes more than {MAX_BLOCKS} rules and matches of this VirtualService; write several"
                ),
            });
            break;
        }
        let place = merge::Place {
            namespace: &object.name.namespace,
            delegate: name,
        };
        for own in &delegate.rules.http {
            match merge::rule(rule, own, place) {
                Ok(merged) => http.push(merged),
                Err(merge::Conflict { field }) => conflicts.push(field),
            }
        }
    }
    Some(VirtualService {
        rules: Rules {
            http,
            tls: service.rules.tls.clone(),
            tcp: service.rules.tcp.clone(),
        },
        conflicts,
        refusals,
        ..service.clone()
    })
}

/// The VirtualServices that one names as its delegates.
pub(super) fn named(service: &VirtualService) -> Vec<&ObjectName> {
    if service.is_delegate {
        // There is one level of them.
        return Vec::new();
    }
    let rules = service.rules.http.iter();
    let named = rules.filter_map(|rule| match &rule.delegate {
        Some(Delegate::Named(name)) => Some(name),
        _ => None,
    });
    named.collect()
}

/// Whether clients, or other VirtualServices, of a namespace may use one.
fn is_exported_to(service: &VirtualService, own: &str, namespace: &str) -> bool {
    let mut export_to = service.export_to.iter();
    service.export_to.is_empty()
        || export_to.any(|to| to == "*" || to == namespace || to == "." && own == namespace)
}

/// The delegate of a name; otherwise why it cannot be used.
fn find<'a>(
    object: &RouteObject,
    name: &ObjectName,
    context: Context<'a>,
) -> Result<&'a VirtualService, Delegate> {
    let written = quoted(&name.to_string());
    let unusable = |reason, message: String| Err(Delegate::Unusable { reason, message });
    let (not_found, not_usable) = (reason::DELEGATE_NOT_FOUND, reason::DELEGATE_UNUSABLE);
    let reference = ObjectReference::new(object.kind, name.clone());
    let found = if *name == object.name {
        route::Delegate::NotForOthers
    } else {
        context.others.delegate(&reference)
    };
    let found = match found {
        route::Delegate::Found(found) => found,
        route::Delegate::NotForOthers => {
            let message = format!(
                "names VirtualService {written}, which has hosts of its own, and a delegate has none; \
                 name one without hosts, or write its rules here"
            );
            return unusable(not_found, message);
        }
        route::Delegate::Unreadable => {
            let message = format!(
                "names VirtualService {written}, which cannot be read; correct it, or write its rules here"
            );
            return unusable(not_usable, message);
        }
        route::Delegate::Missing => {
            let message = format!(
                "names VirtualService {written}, which does not exist; create it, or write its rules here"
            );
            return unusable(not_found, message);
        }
        route::Delegate::NotKnownYet => {
            return Err(Delegate::NotKnownYet(format!(
                "names VirtualService {written}, and VirtualServices are not followed at present, so it \
                 is not known whether it exists; until they are, what is programmed stays, and what is \
                 not split yet passes through"
            )));
        }
    };
    let Some(service) = found.content_as::<VirtualService>() else {
        let message = format!("names {written}, which is not a VirtualService; name one");
        return unusable(not_found, message);
    };
    if !is_exported_to(service, &name.namespace, &object.name.namespace) {
        let message = format!(
            "names VirtualService {written}, whose spec.exportTo leaves out namespace {}; add it there, \
             or write its rules here",
            object.name.namespace
        );
        return unusable(not_found, message);
    }
    if let Some(refusal) = service.refusals.first() {
        let message = format!(
            "names VirtualService {written}, of which {} cannot be read; correct it there",
            refusal.field
        );
        return unusable(not_usable, message);
    }
    if service.rules.http.is_empty() {
        let message = format!(
            "names VirtualService {written}, which has no rules in spec.http; write some there, or here"
        );
        return unusable(not_usable, message);
    }
    Ok(service)
}

impl Translator<'_> {
    /// Says of a VirtualService without hosts what becomes of it.
    pub(super) fn tell_delegate(&self, context: Context<'_>, diagnostics: &mut Diagnostics) {
        let service = self.service;
        for (field, is_there) in [
            ("gateways", !service.gateways.is_empty()),
            ("tls", !service.rules.tls.is_empty()),
            ("tcp", !service.rules.tcp.is_empty()),
        ] {
            if is_there {
                let message = "is ignored in a VirtualService without hosts, of which others use the rules \
                               in spec.http alone; remove it";
                let (severity, reason) = (Severity::Warning, reason::UNKNOWN_FIELD);
                self.emit(
                    diagnostics,
                    severity,
                    reason,
                    format!("spec.{field}"),
                    message,
                );
            }
        }
        for rule in service.rules.http.iter().filter(|it| it.delegate.is_some()) {
            let message = "stands in a VirtualService that is a delegate itself, and there is one level of \
                           them; write the rules here";
            let field = format!("{}.delegate", rule.field);
            let (severity, reason) = (Severity::Warning, reason::DELEGATE_UNUSABLE);
            self.emit(diagnostics, severity, reason, field, message);
        }
        let (severity, reason, message) = self.users(context);
        self.emit(diagnostics, severity, reason, "spec.hosts", message);
    }

    /// What is to be said of those that use its rules.
    fn users(&self, context: Context<'_>) -> (Severity, &'static str, String) {
        const MOST: usize = 3;
        let own = self.origin.object();
        let users = context.others.users_of(&own).into_iter();
        let is_allowed =
            |namespace: &str| is_exported_to(self.service, &self.origin.namespace, namespace);
        let users: BTreeSet<String> = users
            .filter(|user| is_allowed(&user.name.namespace))
            .map(|user| inert(&user.name.to_string()).into_owned())
            .collect();
        let count = users.len();
        let mut names: Vec<String> = users.into_iter().take(MOST).collect();
        if count > MOST {
            names.push(format!("{} more", count - MOST));
        }
        match names.as_slice() {
            [] if !context.others.is_followed(Kind::VIRTUAL_SERVICE) => {
                let message = "is empty, so its rules are for other VirtualServices, and those are not \
                               followed at present, so it is not known whether one names it as its delegate"
                    .to_owned();
                (Severity::Inactive, reason::NOT_KNOWN_YET, message)
            }
            [] => {
                let message = "is empty, so it splits nothing by itself, and no other VirtualService that it \
                               is exported to names it as its delegate; write the name of a Service, or \
                               have one name it"
                    .to_owned();
                (Severity::Inactive, reason::DELEGATE_UNUSED, message)
            }
            names => {
                let message = format!(
                    "is empty: its rules are those of VirtualService {}, where it is said what becomes \
                     of them",
                    names.join(", ")
                );
                (Severity::Note, reason::USED_AS_DELEGATE, message)
            }
        }
    }

    /// Says which rules of delegates are left out.
    pub(super) fn tell_conflicts(&self, diagnostics: &mut Diagnostics) {
        for field in &self.service.conflicts {
            let message = "has a condition that is within none of those of the rule that delegates, so this \
                           rule of the delegate has no effect, as in Istio; correct the conditions, or \
                           remove the rule";
            let (severity, reason) = (Severity::Warning, reason::DELEGATE_CONFLICT);
            self.emit(diagnostics, severity, reason, &**field, message);
        }
    }
}

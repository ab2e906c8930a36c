//! TLS rules choose by the name that a client asks for, which comes after the connection.
//!
//! That makes no difference to the connections from some clients to some port if all rules that they may
//! meet have the same destinations, and between them name every host.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use super::rules::{self, Applicable, Conditions, Listed, Part};
use super::{Stopped, Translator, host, leaves, quoted};
use crate::compile::{Diagnostics, Severity};
use crate::objects::ObjectName;
use crate::objects::istio::virtual_service::{Block, List, Rule};
use crate::reason;

/// A name that a client asks for: that of a Service in whatever form, or of something else.
type Name = Result<ObjectName, String>;

/// A condition of a rule.
struct Condition<'a> {
    conditions: Conditions,
    block: &'a Block,
    rule: &'a Rule,
    /// The number of its destinations.
    destinations: usize,
    /// The numbers of its names.
    names: Vec<usize>,
}

/// Gives the same things the same number.
struct Numbers<T>(HashMap<T, usize>);

impl<T: Eq + Hash> Numbers<T> {
    fn of(&mut self, thing: T) -> usize {
        let next = self.0.len();
        *self.0.entry(thing).or_insert(next)
    }
}

/// What decides about some connections.
struct Decided<'a> {
    /// A condition that they meet.
    first: &'a Block,
    rule: &'a Rule,
    /// The number of the condition with which every host is named.
    complete: usize,
}

impl Translator<'_> {
    /// What TLS rules come to; if any of it is refused, says so.
    pub(super) fn tls<'a>(
        &self,
        rules: &'a [Rule],
        diagnostics: &mut Diagnostics,
    ) -> Result<Listed<'a>, Stopped> {
        let applicable = rules::applicable(List::Tls, rules);
        self.judge_names(&applicable, diagnostics)?;
        let mut names = Numbers(HashMap::new());
        let conditions = self.conditions(&applicable, &mut names);
        let hosts = self.service.hosts.iter();
        let hosts: Vec<(&str, usize)> = hosts
            .map(|host| (&**host, names.of(self.named(host))))
            .collect();
        let mut decided: Vec<(&Conditions, Decided<'a>)> = Vec::new();
        let mut seen: Vec<&Conditions> = Vec::new();
        let mut is_refused = false;
        for condition in &conditions {
            if seen.contains(&&condition.conditions) {
                continue;
            }
            seen.push(&condition.conditions);
            match self.decide(&condition.conditions, &conditions, &hosts, diagnostics) {
                Ok(of_these) => decided.push((&condition.conditions, of_these)),
                Err(_) => is_refused = true,
            }
        }
        if is_refused {
            return Err(Stopped::Refused);
        }
        // Of conditions that one connection may meet, those count that name every host first.
        decided.sort_by_key(|(_, decided)| decided.complete);
        let mut parts = Vec::new();
        for (conditions, Decided { first, rule, .. }) in decided {
            let message = "is taken as met by every connection, since all rules for it have the same \
                           destinations; Istio would refuse a client that asks for another name";
            let (severity, reason) = (Severity::Note, reason::APPROXIMATED);
            let field = format!("{}.sniHosts", first.field);
            self.emit(diagnostics, severity, reason, field, message);
            let part = Part {
                rule,
                conditions: conditions.clone(),
                block: Some(first),
            };
            rules::add(&mut parts, part);
        }
        Ok(Listed {
            parts,
            live: applicable
                .iter()
                .map(|applicable| applicable.rule)
                .collect(),
            uncertain: Vec::new(),
        })
    }

    /// Refuses conditions without names, and those that ask for more than a connection shows.
    fn judge_names(
        &self,
        applicable: &[Applicable<'_>],
        diagnostics: &mut Diagnostics,
    ) -> Result<(), Stopped> {
        let mut judged = Ok(());
        for Applicable { rule, blocks } in applicable {
            let without = blocks
                .iter()
                .filter(|(_, block)| block.sni_hosts.is_empty());
            let mut without: Vec<String> = without
                .map(|(_, block)| format!("{}.sniHosts", block.field))
                .collect();
            if rule.blocks.is_empty() {
                without.push(format!("{}.match", rule.field));
            }
            for field in without {
                judged = Err(Stopped::Refused);
                let message =
                    "has no names; write sniHosts with the names that clients of TLS ask for";
                self.refuse(diagnostics, reason::INVALID_SPEC, field, message);
            }
            for demand in blocks.iter().flat_map(|(_, block)| &block.requests) {
                judged = Err(Stopped::Refused);
                self.refuse_demand(reason::MATCHES_UNSUPPORTED, demand, diagnostics);
            }
        }
        judged
    }

    /// The conditions of all rules, in their order.
    fn conditions<'a>(
        &self,
        applicable: &[Applicable<'a>],
        names: &mut Numbers<Name>,
    ) -> Vec<Condition<'a>> {
        let mut all = Vec::new();
        let mut destinations = Numbers(HashMap::new());
        for Applicable { rule, blocks } in applicable {
            let destinations = destinations.of(leaves::shares(self, rule));
            for (conditions, block) in blocks {
                let written = block.sni_hosts.iter();
                all.push(Condition {
                    conditions: conditions.clone(),
                    block,
                    rule,
                    destinations,
                    names: written.map(|it| names.of(self.named(it))).collect(),
                });
            }
        }
        all
    }

    fn named(&self, written: &str) -> Name {
        let service = host::service(written, &self.origin.namespace, self.cluster_domain);
        service.map_err(|_| written.trim_end_matches('.').to_ascii_lowercase())
    }

    /// Where the connections go that meet these conditions, if that is the same for every host.
    fn decide<'a>(
        &self,
        wanted: &Conditions,
        conditions: &[Condition<'a>],
        hosts: &[(&str, usize)],
        diagnostics: &mut Diagnostics,
    ) -> Result<Decided<'a>, Stopped> {
        let mut named: HashSet<usize> = HashSet::new();
        let mut met: Vec<&Condition<'a>> = Vec::new();
        let mut complete = None;
        for (number, condition) in conditions.iter().enumerate() {
            let is_met = condition.conditions.cover(wanted);
            // What is for some of these connections alone is decided by itself, and comes first.
            let is_within = wanted.cover(&condition.conditions);
            if !is_met && (is_within || !rules::overlap(&condition.conditions, wanted)) {
                continue;
            }
            // Whoever asks for names that all stand before comes to another rule.
            if condition.names.iter().all(|name| named.contains(name)) {
                continue;
            }
            met.push(condition);
            if is_met {
                named.extend(&condition.names);
                let mut hosts = hosts.iter();
                if complete.is_none() && hosts.all(|(_, host)| named.contains(host)) {
                    complete = Some(number);
                }
            }
        }
        let first = met.first().ok_or(Stopped::Refused)?;
        if !met.iter().all(|it| it.destinations == first.destinations) {
            for condition in &met {
                let message = "chooses by the name that a client of TLS asks for, which comes after the \
                               connection; remove the rule, or give all rules for these connections the \
                               same destinations";
                self.refuse_name(condition, message, diagnostics);
            }
            return Err(Stopped::Refused);
        }
        let Some(complete) = complete else {
            let mut missing = hosts.iter().filter(|(_, name)| !named.contains(name));
            let (host, _) = missing.next().ok_or(Stopped::Refused)?;
            let message = format!(
                "leaves out host {}, and the name that a client of TLS asks for comes after the \
                 connection; add it",
                quoted(host)
            );
            self.refuse_name(first, &message, diagnostics);
            return Err(Stopped::Refused);
        };
        Ok(Decided {
            first: first.block,
            rule: first.rule,
            complete,
        })
    }

    fn refuse_name(&self, condition: &Condition<'_>, message: &str, diagnostics: &mut Diagnostics) {
        let field = format!("{}.sniHosts", condition.block.field);
        self.refuse(diagnostics, reason::MATCHES_UNSUPPORTED, field, message);
    }
}

//! Whether a VirtualService can be read, whatever it asks for, and what it says that means nothing.

use super::{Translator, quoted, rules};
use crate::compile::{Diagnostics, Severity};
use crate::objects::UNSUPPORTED;
use crate::objects::istio::virtual_service::{IGNORE, List, REFUSE, Rule};
use crate::reason;

/// Most hosts of one VirtualService.
const MAX_HOSTS: usize = 256;
/// Most rules and matches of one VirtualService.
pub(super) const MAX_BLOCKS: usize = 256;
/// Most hosts times rules and matches.
const MAX_CLAIMS: usize = 4_096;

impl Translator<'_> {
    /// Whether there are more hosts and conditions than any that people write: each host has a claim
    /// for each block of conditions.
    pub(super) fn is_too_large(&self, diagnostics: &mut Diagnostics) -> bool {
        let hosts = self.service.hosts.len();
        let lists = [List::Http, List::Tls, List::Tcp].into_iter();
        let rules = lists.flat_map(|list| rules::applicable(list, self.service.rules.of(list)));
        let blocks: usize = rules.map(|rule| rule.blocks.len().max(1)).sum();
        let (field, what) = if hosts > MAX_HOSTS {
            (
                "spec.hosts",
                format!("has {hosts} hosts, and {MAX_HOSTS} are read"),
            )
        } else if blocks > MAX_BLOCKS {
            (
                "spec",
                format!("has {blocks} rules and matches, and {MAX_BLOCKS} are read"),
            )
        } else if hosts * blocks > MAX_CLAIMS {
            let claims = hosts * blocks;
            (
                "spec",
                format!(
                    "has {claims} combinations of a host and a match, and {MAX_CLAIMS} are read"
                ),
            )
        } else {
            return false;
        };
        let message = format!("{what} at most; write several VirtualServices");
        self.refuse(diagnostics, reason::INVALID_SPEC, field, message);
        true
    }

    /// Tells what could not be read of what counts; whether there is anything.
    pub(super) fn is_unreadable(&self, diagnostics: &mut Diagnostics) -> bool {
        let dead: Vec<&str> = if self.service.is_delegate || self.service.refusals.is_empty() {
            Vec::new()
        } else {
            self.dead_rules()
        };
        let mut is_unreadable = false;
        for refusal in &self.service.refusals {
            let is_within = |rule: &&str| {
                let below = refusal.field.strip_prefix(*rule);
                below.is_some_and(|below| below.is_empty() || below.starts_with(['.', '[']))
            };
            if dead.iter().any(is_within) {
                continue;
            }
            is_unreadable = true;
            let message = refusal.message.clone();
            self.refuse(diagnostics, refusal.reason, &*refusal.field, message);
        }
        is_unreadable
    }

    /// The rules that no client in the cluster comes to.
    fn dead_rules(&self) -> Vec<&str> {
        let dead = |list| {
            let rules = self.service.rules.of(list);
            let live = rules::applicable(list, rules);
            let is_live =
                move |rule: &&Rule| live.iter().any(|live| std::ptr::eq(live.rule, *rule));
            rules.iter().filter(move |rule| !is_live(rule))
        };
        let lists = [List::Http, List::Tls, List::Tcp].into_iter();
        lists.flat_map(dead).map(|rule| &*rule.field).collect()
    }

    pub(super) fn tell_unknown(&self, diagnostics: &mut Diagnostics) {
        for field in &self.service.unknown {
            let message = "is not a field of VirtualServices and is ignored; remove it";
            let (severity, reason) = (Severity::Warning, reason::UNKNOWN_FIELD);
            self.emit(diagnostics, severity, reason, &**field, message);
        }
        for field in &self.service.mistaken {
            let message = format!(
                "is not an annotation that splitter knows, so it does nothing; write \
                 metadata.annotations[{UNSUPPORTED}], the only one there is, or remove it"
            );
            let field = format!("metadata.{field}");
            let (severity, reason) = (Severity::Warning, reason::UNKNOWN_ANNOTATION);
            self.emit(diagnostics, severity, reason, field, message);
        }
        if let Some(value) = &self.service.unsupported
            && value != IGNORE
            && value != REFUSE
        {
            let message = format!(
                "{} is not known, so what a connection cannot do is refused; write {IGNORE} or \
                 {REFUSE}, or remove it",
                quoted(value)
            );
            let field = format!("metadata.annotations[{UNSUPPORTED}]");
            let (severity, reason) = (Severity::Warning, reason::INVALID_ANNOTATION);
            self.emit(diagnostics, severity, reason, field, message);
        }
    }
}

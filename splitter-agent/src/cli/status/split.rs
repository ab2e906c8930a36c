//! One split in text, as `status` and `explain` show it.

use std::borrow::Cow;
use std::fmt::Write;

use splitter_api::{Split, SplitState};

use super::super::table::{Align, Table};

/// One line for the split, and one for each leaf.
pub(in super::super) fn text(split: &Split) -> Result<String, std::fmt::Error> {
    let mut text = String::new();
    writeln!(
        text,
        "{}  {} of Service {}/{}  ({} {})",
        split.frontend,
        split.verdict,
        split.namespace,
        split.root,
        split.kind,
        object(split)
    )?;
    if let Some(clients) = &split.clients {
        writeln!(text, "  for connections from pods with {clients}")?;
    }
    if let (Some(reason), Some(message)) = (&split.reason, &split.message) {
        writeln!(text, "  {reason}: {message}")?;
    }
    if split.state == SplitState::NotProgrammed {
        writeln!(
            text,
            "  not programmed: no program is attached, so the root Service behaves as without it"
        )?;
    }
    if !split.leaves.is_empty() {
        text.push_str(&table(split));
    }
    for leaf in split.leaves.iter().filter(|leaf| leaf.is_refused()) {
        writeln!(
            text,
            "  {} of connections are refused: {} has no endpoints ({}); {} so far",
            percent(leaf.programmed),
            leaf.service,
            leaf.state,
            leaf.refused
        )?;
    }
    for leaf in split
        .leaves
        .iter()
        .filter(|leaf| leaf.outcomes.failed() > 0)
    {
        writeln!(
            text,
            "  failed attempts to {} so far: refused by its endpoints {}, timed out {}, unreachable {}",
            leaf.service, leaf.outcomes.refused, leaf.outcomes.timed_out, leaf.outcomes.unreachable
        )?;
    }
    if let Some(hint) = hint(split) {
        writeln!(text, "  {hint}")?;
    }
    Ok(text)
}

/// The object that asks for a split, without the namespace if that is the root's.
fn object(split: &Split) -> Cow<'_, str> {
    if split.object_namespace == split.namespace {
        Cow::Borrowed(&split.name)
    } else {
        Cow::Owned(format!("{}/{}", split.object_namespace, split.name))
    }
}

/// A state in a summary of many splits.
pub(super) fn state_text(state: SplitState) -> &'static str {
    match state {
        SplitState::PassThrough => "pass-through",
        SplitState::AsConfigured => "as configured",
        SplitState::Moved => "a leaf cannot take its share",
        SplitState::PartlyRefused => "a leaf's share is refused",
        SplitState::Refused => "refused",
        SplitState::NotProgrammed => "not programmed",
        other => other.as_str(),
    }
}

fn table(split: &Split) -> String {
    let mut table = Table::new(
        2,
        &[
            Align::Left,
            Align::Right,
            Align::Right,
            Align::Right,
            Align::Right,
            Align::Right,
            Align::Right,
            Align::Right,
            Align::Right,
            Align::Left,
        ],
    );
    table.row([
        "LEAF",
        "WEIGHT",
        "CONFIGURED",
        "PROGRAMMED",
        "OBSERVED",
        "CONNECTIONS",
        "FAILED",
        "OPEN",
        "ENDPOINTS",
        "STATE",
    ]);
    for leaf in &split.leaves {
        table.row([
            leaf.service.clone(),
            leaf.weight.to_string(),
            percent(leaf.configured),
            if split.state == SplitState::NotProgrammed {
                "-".to_owned()
            } else {
                percent(leaf.programmed)
            },
            leaf.observed.map_or_else(|| "-".to_owned(), percent),
            leaf.connections.to_string(),
            leaf.outcomes.failed().to_string(),
            leaf.open.to_string(),
            leaf.endpoints.to_string(),
            leaf.state.to_string(),
        ]);
    }
    table.render()
}

/// What to look at where connections are expected and none is seen.
fn hint(split: &Split) -> Option<&'static str> {
    if !split.is_idle() {
        return None;
    }
    let was_used = split.leaves.iter().any(|leaf| leaf.lifetime > 0);
    Some(if was_used {
        "no new connection since the shares changed; clients that keep connections open keep \
         their backend (docs/not-split.md)"
    } else {
        "no connection on this node so far; if clients here do connect, see docs/not-split.md"
    })
}

fn percent(fraction: f64) -> String {
    format!("{:.2}%", fraction * 100.0)
}

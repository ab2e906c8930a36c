//! Where the programs are, in text: a part of `status`.

use std::collections::BTreeSet;
use std::fmt::Write;

use splitter_api::{Attachment, Effect, OtherProgram, Program};

use crate::datapath::PROGRAMS;

/// How many programs of others are shown.
const MOST_SHOWN: usize = 20;

/// The agent's programs in a line, and one for each program of others and each warning.
pub(super) fn text(attachment: &Attachment) -> Result<String, std::fmt::Error> {
    let mut text = ours(&attachment.programs);
    let others = &attachment.other_programs;
    if !others.is_empty() {
        text.push_str("other programs on the way of pods' connections:\n");
    }
    for program in others.iter().take(MOST_SHOWN) {
        writeln!(text, "  {}", line(program))?;
    }
    if let Some(more) = others
        .len()
        .checked_sub(MOST_SHOWN)
        .filter(|more| *more > 0)
    {
        writeln!(text, "  and {more} more (see -o json)")?;
    }
    for warning in attachment.warnings.iter().take(MOST_SHOWN) {
        writeln!(text, "warning: {warning}")?;
    }
    Ok(text)
}

fn ours(programs: &[Program]) -> String {
    let cgroups: BTreeSet<String> = programs.iter().filter_map(cgroup).collect();
    let missing: BTreeSet<&str> = programs
        .iter()
        .filter(|program| !program.attached)
        .map(|program| program.name.as_str())
        .collect();
    let cgroups = cgroups.into_iter().collect::<Vec<_>>().join(" and ");
    if cgroups.is_empty() {
        "programs  none attached, so nothing is split; start the agent\n".to_owned()
    } else if missing.is_empty() {
        format!("programs  attached to {cgroups}\n")
    } else {
        let missing: Vec<&str> = PROGRAMS
            .into_iter()
            .filter(|name| missing.contains(name))
            .collect();
        format!(
            "programs  attached to {cgroups}, but not {}; restart the agent\n",
            missing.join(", ")
        )
    }
}

/// The cgroup of a program, by its id if its path is not known.
fn cgroup(program: &Program) -> Option<String> {
    let id = || Some(format!("cgroup {}", program.cgroup_id?));
    program.cgroup.clone().or_else(id)
}

fn line(program: &OtherProgram) -> String {
    let name = match &program.name {
        Some(name) => format!("`{name}`"),
        None => "(its name takes CAP_SYS_ADMIN to read)".to_owned(),
    };
    let cgroup = match &program.cgroup {
        Some(cgroup) => cgroup.as_str(),
        None => "a cgroup above those that can be seen here",
    };
    let order = match (program.effect, program.order) {
        (Effect::Blocks, _) => "keeps splitter's from being attached".to_owned(),
        (Effect::SwitchedOff, _) => "does not run for pods".to_owned(),
        (Effect::Before, Some(order)) => format!("runs before splitter's, as number {order}"),
        (Effect::Before, None) => "runs before splitter's".to_owned(),
        (Effect::After, Some(order)) => format!("runs after splitter's, as number {order}"),
        (Effect::After, None) => "runs after splitter's".to_owned(),
        (other, _) => other.to_string(),
    };
    format!(
        "{} {} {name} on {cgroup}: {order}",
        program.hook, program.id
    )
}

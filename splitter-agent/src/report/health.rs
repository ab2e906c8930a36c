//! Whether the agent is alive, and whether it does its work: pure judgments.
//!
//! *Alive* means that a restart would not help. It depends on nothing outside of the agent:
//! when the API server is away, or a map is full, restarting agents makes things worse.
//! *Ready* means that connections are split on this node now, as far as can be known.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use crate::causes::with_causes;
use crate::datapath::{AttachedProgram, LoadError, on_node};

use super::agent_state::AgentSnapshot;
use super::places::Places;
use super::self_test::SelfTestStatus;

/// How long the agent's loop may not turn.
const TURN_LIMIT: Duration = Duration::from_secs(30);

/// How long a change may wait for a publication to take it up.
const QUEUE_LIMIT: Duration = Duration::from_secs(120);

/// How old the last passed self-test may be.
const SELF_TEST_LIMIT: Duration = Duration::from_secs(120);

/// What a health endpoint answers.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Health {
    /// Whether every check passes.
    pub healthy: bool,
    /// What was looked at.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Its name, for machines.
    pub name: &'static str,
    /// Whether it passes.
    pub healthy: bool,
    /// What was seen, in a sentence for people.
    pub message: String,
    /// For how many seconds it has not passed; absent if it passes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_for_seconds: Option<f64>,
}

impl Check {
    fn passes(name: &'static str, message: impl Into<String>) -> Self {
        Self {
            name,
            healthy: true,
            message: message.into(),
            failing_for_seconds: None,
        }
    }

    fn fails(name: &'static str, since: Duration, message: impl Into<String>) -> Self {
        Self {
            name,
            healthy: false,
            message: message.into(),
            failing_for_seconds: Some(since.as_secs_f64()),
        }
    }
}

impl Health {
    /// What a process says that has removed everything, and is ready in that sense.
    #[must_use]
    pub fn done() -> Self {
        let message = "programs, maps and pins are removed; no agent is at work here";
        vec![Check::passes("cleanup", message)].into()
    }
}

impl From<Vec<Check>> for Health {
    fn from(checks: Vec<Check>) -> Self {
        Self {
            healthy: checks.iter().all(|check| check.healthy),
            checks,
        }
    }
}

/// Whether the agent is stuck, so that a restart would help.
#[must_use]
pub fn liveness(status: &AgentSnapshot) -> Health {
    let turned = status.since_turn;
    let turn = if turned <= TURN_LIMIT {
        Check::passes("agent-loop", "the agent's loop turns")
    } else {
        Check::fails(
            "agent-loop",
            turned,
            format!("the agent's loop last turned {} s ago", turned.as_secs()),
        )
    };
    let queue = match status.oldest_queued {
        // Before the first publication, changes wait for a source that may be away: no
        // restart brings it back.
        Some(age) if age > QUEUE_LIMIT && status.publications > 0 => Check::fails(
            "publication",
            age,
            format!(
                "a change has been waiting for {} s to be published",
                age.as_secs()
            ),
        ),
        _ => Check::passes("publication", "no change waits for long to be published"),
    };
    vec![turn, queue].into()
}

/// Whether connections are split. `programs` is what the pinned links say now; the self-test
/// counts only where there is one.
#[must_use]
pub fn readiness(
    status: &AgentSnapshot,
    programs: &Result<Vec<AttachedProgram>, LoadError>,
    self_test: Option<&SelfTestStatus>,
) -> Health {
    let mut checks = vec![attachment(status, programs), synchronisation(status)];
    checks.extend(self_test.map(|test| connection(status, test)));
    checks.into()
}

fn attachment(status: &AgentSnapshot, programs: &Result<Vec<AttachedProgram>, LoadError>) -> Check {
    const NAME: &str = "programs";
    let places = &status.places;
    let problems: Vec<String> = places
        .problems()
        .map(|(cgroup, problem)| {
            let cgroup = on_node(cgroup);
            format!("{}: {problem}", cgroup.display())
        })
        .collect();
    if let (Some(since), false) = (status.misplaced_for, problems.is_empty()) {
        let what = format!("connections are not split from {}", problems.join("; "));
        return Check::fails(NAME, since, what);
    }
    if !status.attached {
        return Check::fails(
            NAME,
            status.attached_for,
            "the programs are not attached, so nothing is split",
        );
    }
    // The agent looks once a second; the links themselves know better.
    match programs {
        Ok(programs) => {
            let missing: BTreeSet<&str> = programs
                .iter()
                .filter(|program| program.cgroup_id.is_none())
                .map(|program| program.name)
                .collect();
            if missing.is_empty() {
                Check::passes(NAME, attached_text(places))
            } else {
                let missing: Vec<&str> = missing.into_iter().collect();
                Check::fails(
                    NAME,
                    Duration::ZERO,
                    format!("not attached: {}", missing.join(", ")),
                )
            }
        }
        Err(error) => Check::fails(
            NAME,
            Duration::ZERO,
            format!(
                "cannot tell whether the programs are attached: {}",
                with_causes(error)
            ),
        ),
    }
}

/// Where the programs are, and what should be known about it.
fn attached_text(places: &Places) -> String {
    let cgroups: Vec<String> = places
        .places
        .iter()
        .map(|place| on_node(&place.cgroup).display().to_string())
        .collect();
    let mut text = if cgroups.is_empty() {
        "the programs are attached".to_owned()
    } else {
        format!("the programs are attached to {}", cgroups.join(" and "))
    };
    if let Some(why) = places.fallback {
        text.push_str(&format!(", the root, since {why}"));
    }
    for warning in &places.warnings {
        text.push_str("; ");
        text.push_str(warning);
    }
    text
}

fn synchronisation(status: &AgentSnapshot) -> Check {
    let kinds: Vec<&str> = status.unfollowed.iter().map(|kind| kind.name()).collect();
    let held = status.held.values().max().copied().unwrap_or_default();
    let mut unfollowed = String::new();
    if !kinds.is_empty() {
        unfollowed = format!("; not followed at present: {}", kinds.join(", "));
    }
    if held > 0 {
        unfollowed += &format!("; frontends held back until they are: {held}");
    }
    if status.synced {
        Check::passes(
            "sources",
            format!("everything was read, and published{unfollowed}"),
        )
    } else {
        Check::fails(
            "sources",
            status.age,
            format!("not everything has been read and published yet{unfollowed}"),
        )
    }
}

fn connection(status: &AgentSnapshot, test: &SelfTestStatus) -> Check {
    const NAME: &str = "self-test";
    if let Some(failure) = &test.failure {
        return Check::fails(NAME, failure.since, failure.message.clone());
    }
    match test.since_success {
        None => Check::fails(NAME, status.age, "no connection was tried yet"),
        Some(age) if age > SELF_TEST_LIMIT => Check::fails(
            NAME,
            age,
            format!("the last connection was tried {} s ago", age.as_secs()),
        ),
        Some(_) => Check::passes(NAME, "a connection was split"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::self_test::SelfTestFailure;
    use super::*;
    use crate::report::{AgentState, AttachmentPlace};

    const MINUTE: Duration = Duration::from_secs(60);

    fn failing(health: &Health) -> Vec<&'static str> {
        assert_eq!(health.healthy, health.checks.iter().all(|it| it.healthy));
        let failing = health.checks.iter().filter(|check| !check.healthy);
        failing.map(|check| check.name).collect()
    }

    fn ready() -> AgentSnapshot {
        let agent_state = AgentState::default();
        agent_state.set_attached(true);
        agent_state.set_synced();
        agent_state.snapshot()
    }

    fn passed() -> SelfTestStatus {
        SelfTestStatus {
            since_success: Some(Duration::ZERO),
            ..SelfTestStatus::default()
        }
    }

    #[test]
    fn an_agent_that_just_started_is_alive_but_not_ready() {
        let status = AgentState::default().snapshot();
        assert_eq!(failing(&liveness(&status)), [""; 0]);
        let health = readiness(&status, &Ok(Vec::new()), Some(&SelfTestStatus::default()));
        assert_eq!(failing(&health), ["programs", "sources", "self-test"]);
    }

    #[test]
    fn a_loop_that_stands_still_is_not_alive() {
        let mut status = ready();
        status.since_turn = MINUTE;
        assert_eq!(failing(&liveness(&status)), ["agent-loop"]);
        assert_eq!(
            liveness(&status).checks[0].failing_for_seconds,
            Some(MINUTE.as_secs_f64())
        );
    }

    #[test]
    fn a_change_that_is_never_published_is_not_alive_but_one_that_fails_is() {
        let agent_state = AgentState::default();
        agent_state.publish(Duration::from_millis(1), 0);
        agent_state.queue(3);
        let mut status = agent_state.snapshot();
        assert!(status.oldest_queued.is_some());
        status.oldest_queued = Some(3 * MINUTE);
        assert_eq!(failing(&liveness(&status)), ["publication"]);

        agent_state.publish(Duration::from_millis(1), 2);
        let status = agent_state.snapshot();
        assert_eq!((status.failed, status.oldest_queued), (2, None));
        assert!(status.failing.is_some());
        assert!(liveness(&status).healthy);

        agent_state.publish(Duration::from_millis(1), 0);
        assert_eq!(agent_state.snapshot().failing, None);
    }

    #[test]
    fn an_agent_whose_source_is_away_from_the_start_is_alive() {
        let agent_state = AgentState::default();
        agent_state.queue(1);
        let mut status = agent_state.snapshot();
        status.oldest_queued = Some(60 * MINUTE);
        assert!(liveness(&status).healthy);
    }

    #[test]
    fn readiness_needs_a_connection_that_was_split_lately() {
        let status = ready();
        let judge = |test: &SelfTestStatus| readiness(&status, &Ok(Vec::new()), Some(test));
        assert!(judge(&passed()).healthy);
        let old = SelfTestStatus {
            since_success: Some(5 * MINUTE),
            ..SelfTestStatus::default()
        };
        assert_eq!(failing(&judge(&old)), ["self-test"]);
        let failed = SelfTestStatus {
            failure: Some(SelfTestFailure {
                since: MINUTE,
                message: "it was refused".to_owned(),
            }),
            ..passed()
        };
        let health = judge(&failed);
        assert_eq!(failing(&health), ["self-test"]);
        assert_eq!(health.checks[2].message, "it was refused");
    }

    #[test]
    fn pods_in_a_place_without_programs_are_named_with_the_reason() {
        let agent_state = AgentState::default();
        agent_state.set_attached(true);
        agent_state.set_synced();
        let place = |cgroup: &str, problem: Option<&str>| AttachmentPlace {
            cgroup: cgroup.into(),
            has_pods: true,
            problem: problem.map(str::to_owned),
        };
        let mut places = Places {
            places: vec![
                place("/host/sys/fs/cgroup/kubepods", None),
                place("/host/sys/fs/cgroup/kubepods.slice", Some("no way in")),
            ],
            ..Places::default()
        };
        agent_state.set_places(places.clone());
        let health = readiness(&agent_state.snapshot(), &Ok(Vec::new()), None);
        assert_eq!(failing(&health), ["programs"]);
        let message = &health.checks[0].message;
        assert!(
            message.contains("/sys/fs/cgroup/kubepods.slice: no way in")
                && !message.contains("host"),
            "{message}"
        );

        places.places.pop();
        places.fallback = Some("it is a test");
        places.warnings.push("beware".to_owned());
        agent_state.set_places(places);
        let health = readiness(&agent_state.snapshot(), &Ok(Vec::new()), None);
        assert!(health.healthy);
        let message = &health.checks[0].message;
        assert!(
            message.contains("since it is a test") && message.contains("beware"),
            "{message}"
        );
    }

    #[test]
    fn a_link_without_a_cgroup_is_named() {
        let programs = Ok(vec![AttachedProgram {
            name: "connect4",
            cgroup_id: None,
            program_id: Some(1),
        }]);
        let health = readiness(&ready(), &programs, None);
        assert_eq!(failing(&health), ["programs"]);
        assert!(health.checks[0].message.contains("connect4"));
    }
}

//! What the agent does, and what it finds about objects.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use crate::datapath::{PROGRAMS, PinDirectory, attached_programs};

use super::super::{AgentState, DiagnosticStore, SelfTestState};
use super::family::{counter, gauge, gauges, timestamp};

/// Shared state, read when it is asked for.
#[derive(Debug)]
pub(super) struct Agent {
    pub(super) pins: PinDirectory,
    pub(super) agent_state: AgentState,
    pub(super) diagnostics: DiagnosticStore,
    pub(super) self_test: Option<SelfTestState>,
}

impl Collector for Agent {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        self.encode_progress(encoder)?;
        self.encode_findings(encoder)?;
        self.encode_self_test(encoder)
    }
}

impl Agent {
    fn encode_progress(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let status = self.agent_state.snapshot();
        gauge(
            encoder,
            "sync_last_timestamp_seconds",
            "When the maps were last brought to what the source says, 0 before the first time",
            &timestamp(status.last_published),
        )?;
        gauge(
            encoder,
            "sync_last_queued_timestamp_seconds",
            "When a change of an object last came in, 0 before the first",
            &timestamp(status.last_queued),
        )?;
        counter(
            encoder,
            "object_changes",
            "Changes of objects that came in",
            &status.changes,
        )?;
        counter(
            encoder,
            "root_compilations",
            "Times that it was worked out what becomes of a root",
            &status.compilations,
        )?;
        gauge(
            encoder,
            "publish_failed_frontends",
            "Frontends that could not be brought to what the source says",
            &(status.failed as u64),
        )?;
        gauges(
            encoder,
            "held_frontends",
            "Frontends that stay as they are until a kind of objects is followed",
            status
                .held
                .iter()
                .map(|(kind, count)| ([("kind", kind.name())], *count as u64)),
        )?;
        // Counted afresh, since the agent itself looks only once a second.
        let programs = attached_programs(&self.pins).unwrap_or_default();
        let attached = PROGRAMS.iter().filter(|name| {
            let mut cgroups = programs.iter().filter(|it| it.name == **name);
            cgroups.all(|it| it.cgroup_id.is_some()) && !programs.is_empty()
        });
        gauge(
            encoder,
            "programs_attached",
            "Programs that are attached to every cgroup that has any",
            &(attached.count() as u64),
        )?;
        gauge(
            encoder,
            "programs",
            "Programs on cgroups that this version of the agent has",
            &(PROGRAMS.len() as u64),
        )?;
        let places = &status.places;
        let lacking = places.problems().count();
        gauges(
            encoder,
            "pod_cgroups",
            "Cgroups that the programs are for, by whether they are attached there",
            [
                ("attached", places.places.len() - lacking),
                ("lacking", lacking),
            ]
            .map(|(state, count)| ([("state", state)], count as u64)),
        )?;
        gauge(
            encoder,
            "attached_to_root",
            "1 if the programs are on the root of the cgroup hierarchy for want of another, else 0",
            &u64::from(places.fallback.is_some()),
        )?;
        gauge(
            encoder,
            "attachment_warnings",
            "Programs of others that interfere, and cgroups of pods that are left out",
            &(places.warnings.len() as u64),
        )
    }

    fn encode_findings(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let findings = self.diagnostics.read(|standings| {
            let mut findings = BTreeMap::<_, u64>::new();
            for (object, standing) in standings {
                for diagnostic in &*standing.diagnostics {
                    let key = (&*object.kind, diagnostic.severity, diagnostic.reason);
                    *findings.entry(key).or_default() += 1;
                }
            }
            let findings = findings.into_iter();
            findings
                .map(|((kind, severity, reason), count)| {
                    ((kind.to_owned(), severity, reason), count)
                })
                .collect::<Vec<_>>()
        });
        gauges(
            encoder,
            "object_findings",
            "What is found about objects at present, by the reasons that `check` names",
            findings.iter().map(|((kind, severity, reason), count)| {
                let labels = [
                    ("kind", kind.clone()),
                    ("severity", severity.to_string()),
                    ("reason", (*reason).to_owned()),
                ];
                (labels, *count)
            }),
        )
    }

    fn encode_self_test(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Some(status) = self.self_test.as_ref().map(SelfTestState::status) else {
            return Ok(());
        };
        gauge(
            encoder,
            "self_test_success",
            "1 if the last connection of the self-test was split, else 0",
            &u64::from(status.passes()),
        )?;
        gauge(
            encoder,
            "self_test_last_success_timestamp_seconds",
            "When a connection of the self-test was last split, 0 before the first",
            &timestamp(status.last_success),
        )?;
        counter(
            encoder,
            "self_test_failures",
            "Runs of the self-test that failed",
            &status.failures,
        )
    }
}

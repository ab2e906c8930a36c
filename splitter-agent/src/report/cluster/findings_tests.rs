use super::super::sample;
use super::*;

struct Scene {
    reconciler: Reconciler,
    now: Instant,
}

impl Scene {
    fn new() -> Self {
        let mut reconciler = Reconciler::new(Pace::default());
        let now = Instant::now();
        reconciler.lead(now);
        // What is said from now on are changes.
        reconciler.has_begun = true;
        Self { reconciler, now }
    }

    /// One whose process has just begun.
    fn of_a_new_process() -> Self {
        let mut scene = Self::new();
        scene.reconciler.has_begun = false;
        scene
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn say(&mut self, name: &str, generation: i64, reasons: &[&'static str]) {
        let (object, state) = sample::state(name, generation, reasons);
        let state = (!reasons.is_empty()).then_some(state);
        self.reconciler.note([(object, state)], self.now);
    }

    /// Everything that is due, done with this outcome.
    fn write(&mut self, outcome: EventOutcome) -> Vec<Action> {
        let actions = self.reconciler.step(self.now);
        for action in &actions {
            self.reconciler.done(action, outcome, self.now);
        }
        actions
    }

    /// The reasons of new Events and the counts of repeated ones.
    fn written(&mut self) -> Vec<String> {
        let mut counts = BTreeMap::new();
        let actions = self.reconciler.step(self.now);
        for action in &actions {
            let count = match action.write {
                Write::Create { .. } => Some(1),
                Write::Repeat { count } => Some(count.unwrap_or(7)),
            };
            counts.insert(action.event.clone(), count);
            self.reconciler
                .done(action, EventOutcome::Written(count), self.now);
        }
        actions
            .iter()
            .map(|action| match &action.write {
                Write::Create { diagnostic, .. } => diagnostic.reason.to_owned(),
                Write::Repeat { count } => format!("{count:?}"),
            })
            .collect()
    }
}

#[test]
fn a_finding_is_written_once_and_refreshed_while_it_stands() {
    let mut scene = Scene::new();
    scene.say("books", 1, &["RootMissing"]);
    assert_eq!(scene.written(), ["RootMissing"]);
    scene.pass(1799);
    assert!(scene.written().is_empty());
    scene.pass(1);
    assert_eq!(scene.written(), ["Some(2)"]);
    scene.pass(1800);
    assert_eq!(scene.written(), ["Some(3)"]);
    scene.say("books", 1, &[]);
    scene.pass(1800);
    assert!(scene.written().is_empty());
    scene.pass(1800);
    assert!(scene.written().is_empty());
    assert!(scene.reconciler.findings.is_empty(), "nothing is kept");
    assert!(scene.reconciler.objects.is_empty(), "nothing is kept");
}

#[test]
fn an_acceptance_is_written_once_per_generation_and_never_refreshed() {
    let mut scene = Scene::new();
    scene.say("books", 1, &["Accepted"]);
    assert_eq!(scene.written(), ["Accepted"]);
    scene.say("books", 1, &["RootMissing"]);
    assert_eq!(scene.written(), ["RootMissing"]);
    scene.say("books", 1, &["Accepted"]);
    scene.pass(3000);
    assert!(scene.written().is_empty());
    scene.say("books", 2, &["Accepted"]);
    assert_eq!(scene.written(), ["Accepted"]);
}

#[test]
fn a_flapping_finding_is_written_once_a_minute_with_a_growing_count() {
    let mut scene = Scene::new();
    let mut written = Vec::new();
    for _ in 0..60 {
        scene.say("books", 1, &["RootMissing"]);
        written.extend(scene.written());
        scene.pass(2);
        scene.say("books", 1, &["Accepted"]);
        scene.written();
        scene.pass(2);
    }
    assert_eq!(written, ["RootMissing", "Some(16)", "Some(31)", "Some(46)"]);
}

#[test]
fn a_message_that_keeps_changing_is_written_once_a_minute() {
    let mut scene = Scene::new();
    let mut written = 0;
    for turn in 0..120 {
        let (object, mut state) = sample::state("books", 1, &["LeafNotReady"]);
        state.diagnostics = state
            .diagnostics
            .iter()
            .map(|diagnostic| Diagnostic {
                message: format!("{turn} of 200 are ready"),
                ..diagnostic.clone()
            })
            .collect();
        scene.reconciler.note([(object, Some(state))], scene.now);
        written += scene.written().len();
        scene.pass(1);
    }
    assert_eq!(written, 2);
}

#[test]
fn what_cannot_be_written_stays_due_while_it_stands() {
    let mut scene = Scene::new();
    scene.say("books", 1, &["RootMissing"]);
    for _ in 0..3 {
        assert_eq!(
            scene.reconciler.step(scene.now).len(),
            1,
            "tried, and failed"
        );
        scene.pass(10);
    }
    scene.say("books", 1, &["Accepted"]);
    assert_eq!(scene.written(), ["Accepted"], "the other is over");
}

#[test]
fn an_event_that_is_there_already_is_not_written_but_refreshed_early() {
    let mut scene = Scene::new();
    scene.say("books", 1, &["RootMissing"]);
    assert_eq!(scene.write(EventOutcome::Present).len(), 1);
    assert!(scene.written().is_empty());
    scene.pass(1800);
    assert_eq!(scene.written(), ["None"], "its count is not known");
    scene.pass(1800);
    assert_eq!(scene.written(), ["Some(8)"]);
}

#[test]
fn an_event_that_has_run_out_is_written_anew() {
    let mut scene = Scene::new();
    scene.say("books", 1, &["RootMissing"]);
    scene.written();
    scene.pass(1800);
    assert_eq!(scene.write(EventOutcome::Missing).len(), 1);
    assert_eq!(scene.written(), ["RootMissing"]);
}

#[test]
fn an_event_that_is_rejected_does_not_hold_up_others_and_is_tried_again_later() {
    let mut scene = Scene::new();
    scene.say("books", 1, &["RootMissing"]);
    scene.write(EventOutcome::Rejected);
    scene.say("pens", 1, &["RootMissing"]);
    assert_eq!(scene.written(), ["RootMissing"]);
    assert!(scene.written().is_empty());
    scene.pass(600);
    assert_eq!(scene.written(), ["RootMissing"]);
}

#[test]
fn a_storm_is_written_at_the_rate_and_findings_before_acceptances() {
    let mut scene = Scene::new();
    for number in 0..200 {
        let reason = ["Accepted", "RootMissing"][number % 2];
        scene.say(&format!("split-{number}"), 1, &[reason]);
    }
    let mut written = Vec::new();
    for _ in 0..6 {
        written.extend(scene.written());
    }
    assert_eq!(written.len(), 50);
    assert!(written.iter().all(|reason| reason == "RootMissing"));
    let mut seconds = 0;
    while written.len() < 200 {
        scene.pass(1);
        seconds += 1;
        let before = written.len();
        written.extend(scene.written());
        written.extend(scene.written());
        assert!(written.len() - before <= 10);
    }
    assert_eq!(seconds, 15);
}

#[test]
fn a_new_leader_repeats_no_old_acceptance_and_asks_again_about_the_rest() {
    let mut scene = Scene::new();
    scene.say("old", 1, &["Accepted"]);
    scene.say("bad", 1, &["RootMissing"]);
    scene.pass(300);
    scene.say("new", 1, &["Accepted"]);
    scene.reconciler.lead(scene.now);
    let mut names: Vec<String> = scene
        .write(EventOutcome::Present)
        .iter()
        .map(|action| {
            action
                .event
                .name
                .split('.')
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    names.sort();
    assert_eq!(names, ["bad", "new"]);
}

#[test]
fn objects_without_a_uid_and_acceptances_of_other_kinds_get_no_event() {
    let mut scene = Scene::new();
    let (object, mut state) = sample::state("books", 1, &["RootMissing"]);
    state.uid.clear();
    scene.reconciler.note([(object, Some(state))], scene.now);
    let (mut object, state) = sample::state("books", 1, &["Accepted", "InvalidWeight"]);
    object.kind = "Service".to_owned();
    scene.reconciler.note([(object, Some(state))], scene.now);
    assert_eq!(scene.written(), ["InvalidWeight"]);
}

#[test]
fn readiness_that_is_lost_for_seconds_is_not_told() {
    let mut scene = Scene::new();
    scene.say("books", 1, &["Accepted"]);
    scene.written();
    // A rollout each minute, and a new generation with it.
    for generation in 1..60 {
        scene.say("books", generation, &["LeafNotReady"]);
        for _ in 0..29 {
            assert!(scene.written().is_empty());
            scene.pass(1);
        }
        scene.say("books", generation, &["Accepted"]);
        scene.written();
        scene.pass(31);
    }
}

#[test]
fn readiness_that_is_lost_for_long_is_told_whatever_else_changes_meanwhile() {
    let mut scene = Scene::new();
    let mut seconds = 0;
    let mut written = Vec::new();
    while written.is_empty() {
        // The generation moves on.
        scene.say("books", 1 + seconds / 7, &["LeafNotReady"]);
        written = scene.written();
        seconds += 1;
        scene.pass(1);
    }
    assert_eq!(written, ["LeafNotReady"]);
    assert_eq!(seconds, 31);
}

#[test]
fn what_its_author_must_correct_is_told_at_once() {
    let mut scene = Scene::new();
    for reason in ["RootMissing", "InvalidWeight"] {
        scene.say(&reason.to_lowercase(), 1, &[reason]);
        assert_eq!(scene.written(), [reason]);
    }
}

#[test]
fn readiness_that_is_lost_again_after_it_was_told_must_last_again() {
    let mut scene = Scene::new();
    scene.say("books", 1, &["LeafNotReady"]);
    scene.pass(30);
    assert_eq!(scene.written(), ["LeafNotReady"]);
    scene.say("books", 1, &["Accepted"]);
    scene.written();
    scene.pass(600);
    scene.say("books", 1, &["LeafNotReady"]);
    scene.pass(29);
    assert!(scene.written().is_empty());
    scene.pass(1);
    assert_eq!(scene.written(), ["Some(2)"]);
}

/// Changes of the weights of a few splits, one after the other.
fn change_weights(scene: &mut Scene, from: i64, to: i64, mut after_each: impl FnMut(&mut Scene)) {
    const SPLITS: i64 = 200;
    for change in from..to {
        let name = format!("split-{}", change % SPLITS);
        let reasons: &[&str] = if change % 7 == 0 {
            &["LeafNotReady", "RootMissing"]
        } else {
            &["Accepted"]
        };
        scene.say(&name, 1 + change / SPLITS, reasons);
        after_each(scene);
    }
}

#[test]
fn a_follower_keeps_what_stands_however_many_generations_there_were() {
    let mut scene = Scene::new();
    scene.reconciler.follow();
    change_weights(&mut scene, 0, 100_000, |scene| {
        assert!(scene.reconciler.findings.len() <= 400);
    });
    assert_eq!(scene.reconciler.objects.len(), 200);
    assert!(scene.reconciler.slots.is_empty());
    for split in 0..200 {
        scene.say(&format!("split-{split}"), 1000, &[]);
    }
    assert!(scene.reconciler.findings.is_empty());
    assert!(scene.reconciler.objects.is_empty());
}

#[test]
fn a_leader_keeps_no_more_than_it_wrote_within_the_hour_that_events_are_kept() {
    let mut scene = Scene::new();
    // 200 changes a minute, for longer than that.
    change_weights(&mut scene, 0, 200 * 60 * 2, |scene| {
        scene.now += Duration::from_millis(300);
        scene.written();
        assert!(scene.reconciler.findings.len() <= 800);
    });
    assert!(scene.reconciler.slots.len() <= 400);
}

#[test]
fn an_agent_that_no_longer_leads_forgets_what_it_kept_as_the_leader() {
    let mut scene = Scene::new();
    scene.say("books", 1, &["RootMissing"]);
    scene.written();
    scene.say("books", 1, &["Accepted"]);
    assert_eq!(scene.reconciler.findings.len(), 2, "it may come back");
    scene.reconciler.follow();
    assert_eq!(scene.reconciler.findings.len(), 1);
}

#[test]
fn a_new_leader_writes_a_change_before_what_is_unconfirmed() {
    let mut scene = Scene::of_a_new_process();
    scene.reconciler.follow();
    let first = (0..10_000).map(|number| {
        let reason = ["Accepted", "RootMissing"][number % 2];
        let (object, state) = sample::state(&format!("split-{number}"), 1, &[reason]);
        (object, Some(state))
    });
    scene.reconciler.note(first, scene.now);
    scene.pass(3600);
    // Whoever led is gone just after this, and a minute later another leads.
    scene.say("late", 1, &["InvalidWeight"]);
    scene.pass(60);
    scene.reconciler.lead(scene.now);
    assert_eq!(scene.written()[0], "InvalidWeight");
    while !scene.written().is_empty() {}
    // What changes now does not wait for thousands of others either.
    scene.say("fresh", 1, &["Accepted"]);
    scene.say("worse", 1, &["InvalidWeight"]);
    scene.pass(1);
    assert_eq!(scene.written()[..2], ["InvalidWeight", "Accepted"]);
}

#[test]
fn what_was_there_before_the_process_is_not_taken_for_a_change() {
    let mut scene = Scene::of_a_new_process();
    let first = (0..1000).map(|number| {
        let (object, state) = sample::state(&format!("split-{number}"), 1, &["Accepted"]);
        (object, Some(state))
    });
    // It leads from its start.
    scene.reconciler.note(first, scene.now);
    while !scene.written().is_empty() {}
    scene.say("zebra", 1, &["Accepted"]);
    scene.pass(1);
    let actions = scene.reconciler.step(scene.now);
    assert!(actions[0].event.name.starts_with("zebra"), "{actions:?}");
}

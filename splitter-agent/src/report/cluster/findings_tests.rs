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
        Self { reconciler, now }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn say(&mut self, name: &str, generation: i64, reasons: &[&'static str]) {
        let (object, standing) = sample::standing(name, generation, reasons);
        let standing = (!reasons.is_empty()).then_some(standing);
        self.reconciler.note([(object, standing)], self.now);
    }

    /// Everything that is due, done with this outcome.
    fn write(&mut self, outcome: Outcome) -> Vec<Action> {
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
                .done(action, Outcome::Written(count), self.now);
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
    scene.say("books", 1, &["LeafNotReady"]);
    assert_eq!(scene.written(), ["LeafNotReady"]);
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
        scene.say("books", 1, &["LeafNotReady"]);
        written.extend(scene.written());
        scene.pass(2);
        scene.say("books", 1, &["Accepted"]);
        scene.written();
        scene.pass(2);
    }
    assert_eq!(
        written,
        ["LeafNotReady", "Some(16)", "Some(31)", "Some(46)"]
    );
}

#[test]
fn a_message_that_keeps_changing_is_written_once_a_minute() {
    let mut scene = Scene::new();
    let mut written = 0;
    for turn in 0..120 {
        let (object, mut standing) = sample::standing("books", 1, &["LeafNotReady"]);
        standing.diagnostics = standing
            .diagnostics
            .iter()
            .map(|diagnostic| Diagnostic {
                message: format!("{turn} of 200 are ready"),
                ..diagnostic.clone()
            })
            .collect();
        scene.reconciler.note([(object, Some(standing))], scene.now);
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
    assert_eq!(scene.write(Outcome::Present).len(), 1);
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
    assert_eq!(scene.write(Outcome::Missing).len(), 1);
    assert_eq!(scene.written(), ["RootMissing"]);
}

#[test]
fn an_event_that_is_rejected_does_not_hold_up_others_and_is_tried_again_later() {
    let mut scene = Scene::new();
    scene.say("books", 1, &["RootMissing"]);
    scene.write(Outcome::Rejected);
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
        .write(Outcome::Present)
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
    let (object, mut standing) = sample::standing("books", 1, &["RootMissing"]);
    standing.uid.clear();
    scene.reconciler.note([(object, Some(standing))], scene.now);
    let (mut object, standing) = sample::standing("books", 1, &["Accepted", "LeafNotReady"]);
    object.kind = "Service".to_owned();
    scene.reconciler.note([(object, Some(standing))], scene.now);
    assert_eq!(scene.written(), ["LeafNotReady"]);
}

//! Many splits on one screen: how many are in which state, and one line for each.

use std::collections::BTreeMap;
use std::fmt::Write;

use splitter_api::{Split, SplitState};

use super::super::table::{Align, Table};
use super::split::state_text;

/// Up to so many splits have a line each; of more, only those that need attention.
const LISTED: usize = 200;

/// Splits by the objects that ask for them.
pub(super) struct Summary<'a> {
    objects: BTreeMap<Key<'a>, Object>,
}

/// A root, and an object that asks for a split of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key<'a> {
    namespace: &'a str,
    name: &'a str,
    kind: &'a str,
    root_namespace: &'a str,
    root: &'a str,
}

/// The frontends of one object.
struct Object {
    frontends: usize,
    connections: u64,
    /// The worst of them.
    state: SplitState,
    /// None of those that are split has seen a connection.
    is_idle: bool,
}

impl<'a> Summary<'a> {
    pub(super) fn new(splits: &'a [Split]) -> Self {
        let mut objects = BTreeMap::<_, Object>::new();
        for split in splits {
            let key = Key {
                namespace: &split.object_namespace,
                name: &split.name,
                kind: &split.kind,
                root_namespace: &split.namespace,
                root: &split.root,
            };
            let is_idle = split.is_idle() || split.state == SplitState::PassThrough;
            objects
                .entry(key)
                .and_modify(|object| {
                    object.frontends += 1;
                    object.connections += split.connections;
                    object.state = object.state.max(split.state);
                    object.is_idle &= is_idle;
                })
                .or_insert(Object {
                    frontends: 1,
                    connections: split.connections,
                    state: split.state,
                    is_idle,
                });
        }
        Self { objects }
    }

    /// How many objects there are.
    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        let mut states = BTreeMap::<SplitState, usize>::new();
        for object in self.objects.values() {
            *states.entry(object.state).or_default() += 1;
        }
        let states: Vec<String> = states
            .into_iter()
            .rev()
            .map(|(state, count)| format!("{count} {}", state_text(state)))
            .collect();
        writeln!(text, "{} splits: {}", self.len(), states.join(", "))?;
        let is_long = self.len() > LISTED;
        let listed: Vec<_> = self
            .objects
            .iter()
            .filter(|(_, object)| !is_long || object.state != SplitState::AsConfigured)
            .take(LISTED)
            .collect();
        if !listed.is_empty() {
            text.push('\n');
            text.push_str(&table(&listed));
        }
        let idle = self
            .objects
            .values()
            .filter(|object| object.is_idle && object.state != SplitState::PassThrough)
            .count();
        text.push('\n');
        if is_long {
            writeln!(
                text,
                "only those that are not as configured are listed, {LISTED} at most"
            )?;
        }
        if idle > 0 {
            writeln!(
                text,
                "{idle} without a connection on this node since their shares changed; if clients \
                 here do connect, see docs/not-split.md"
            )?;
        }
        writeln!(
            text,
            "`status NAMESPACE[/NAME]` shows leaves, `status --all` those of every split"
        )?;
        Ok(text)
    }
}

fn table(objects: &[(&Key<'_>, &Object)]) -> String {
    let mut table = Table::new(
        0,
        &[
            Align::Left,
            Align::Left,
            Align::Left,
            Align::Right,
            Align::Right,
            Align::Left,
        ],
    );
    table.row([
        "KIND",
        "OBJECT",
        "SERVICE",
        "FRONTENDS",
        "CONNECTIONS",
        "STATE",
    ]);
    for (key, object) in objects {
        table.row([
            key.kind.to_owned(),
            format!("{}/{}", key.namespace, key.name),
            if key.root_namespace == key.namespace {
                key.root.to_owned()
            } else {
                format!("{}/{}", key.root_namespace, key.root)
            },
            object.frontends.to_string(),
            object.connections.to_string(),
            state_text(object.state).to_owned(),
        ]);
    }
    table.render()
}

//! Where the programs are attached, and what other programs are there.

use serde::{Deserialize, Serialize};

use crate::word::words;

/// Where the programs are attached, and what other programs pods' connections pass.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Attachment {
    /// Whether every program is attached to every cgroup that has any of them.
    pub attached: bool,
    /// The agent's programs: one entry for each cgroup that a program is attached to, and one for a
    /// program that is attached to none.
    pub programs: Vec<Program>,
    /// The table of live sockets, which has the original destinations of split connections; null
    /// if there is none. Then they are stored on the sockets, which takes longer, or nowhere.
    #[serde(default)]
    pub socket_table: Option<SocketTable>,
    /// Programs of other owners that run for pods, or keep the agent's from running.
    pub other_programs: Vec<OtherProgram>,
    /// What should be changed about other programs or about the cgroups in use, with the remedy; a
    /// sentence each, for people.
    pub warnings: Vec<String>,
}

impl Attachment {
    /// Whether a program is attached to a cgroup, by its name.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        let mut programs = self.programs.iter();
        programs.any(|program| program.name == name && program.attached)
    }

    /// Whether any program is attached.
    #[must_use]
    pub fn has_any(&self) -> bool {
        self.programs.iter().any(|program| program.attached)
    }
}

/// A program of the agent's.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Program {
    /// Its name, which is that of its hook: `connect4`, `connect6`, `getpeername4`, `getpeername6`, `sendmsg4`, ...
    pub name: String,
    /// Whether it is attached to a cgroup.
    pub attached: bool,
    /// The kernel's id of it, as for `bpftool prog show id`; null if it is not loaded.
    pub program_id: Option<u32>,
    /// Path of the cgroup on the node; null if it is not attached, or the path cannot be found.
    pub cgroup: Option<String>,
    /// The kernel's id of the cgroup, which is its inode number; null if it is not attached.
    pub cgroup_id: Option<u64>,
}

/// The table of live sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SocketTable {
    /// How many sockets it has room for, about: where two with the same place have it, a third one's
    /// original destination is stored on the socket.
    pub slots: u32,
    /// How many live sockets are in it.
    pub taken: u32,
    /// Whether the program is attached that takes sockets out of it when they end.
    pub attached: bool,
}

/// A program of another owner that pods' connections pass.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct OtherProgram {
    /// The hook, by bpftool's name for it, for example `connect4`.
    pub hook: String,
    /// Path of its cgroup on the node; null if that is above what can be seen.
    pub cgroup: Option<String>,
    /// The kernel's id of it, as for `bpftool prog show id`.
    pub id: u32,
    /// Its name; null if it cannot be read, which takes `CAP_SYS_ADMIN`.
    pub name: Option<String>,
    /// How it shares its cgroup with other programs; null if its cgroup cannot be seen.
    pub mode: Option<AttachMode>,
    /// When it runs for a pod's connection, counted from 1 over all programs of the hook; null if it
    /// does not run, or only for some pods.
    pub order: Option<usize>,
    /// What it means for the agent's programs, or they for it.
    pub effect: Effect,
    /// Whether it is a program of another splitter-agent, with other pins.
    pub is_splitter: bool,
    /// The pin directory of that agent; null if it is not known, or the program is not an agent's.
    pub pins: Option<String>,
}

words! {
    /// How a program shares its cgroup with other programs of the same hook.
    pub enum AttachMode {
        /// Others may be attached to the same cgroup and below it, and all run
        /// (`BPF_F_ALLOW_MULTI`, and every link).
        Multi = "multi",
        /// Others may be attached below, and this one then does not run there
        /// (`BPF_F_ALLOW_OVERRIDE`).
        Override = "override",
        /// Nothing may be attached to the same cgroup or below it (no flags).
        Exclusive = "exclusive",
    }
}

words! {
    /// What a program of another owner means for the agent's, or they for it.
    pub enum Effect {
        /// It keeps the agent's from being attached.
        Blocks = "blocks",
        /// It does not run for pods, because the agent's are attached below it.
        SwitchedOff = "switched-off",
        /// It runs before the agent's and may change the address first.
        Before = "before",
        /// It runs after the agent's.
        After = "after",
    }
}

//! The kernel's settings that a kubelet changes for the whole machine: kept, and put back.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// What a kubelet sets at its start.
const CHANGED: [&str; 6] = [
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
];

fn file(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

fn store(directory: &Path) -> PathBuf {
    directory.join("sysctls.json")
}

/// Keeps the present values in `directory`, unless older ones are kept there: those are from before
/// the first of several clusters.
pub(super) fn save(directory: &Path) -> Result<()> {
    let store = store(directory);
    if store.exists() {
        return Ok(());
    }
    let values: BTreeMap<_, _> = CHANGED
        .iter()
        .filter_map(|name| Some((*name, fs::read_to_string(file(name)).ok()?)))
        .collect();
    fs::write(&store, serde_json::to_vec(&values)?)
        .with_context(|| format!("cannot write {}", store.display()))
}

/// Puts the values kept in `directory` back.
pub(super) fn restore(directory: &Path) -> Result<()> {
    let store = store(directory);
    let Ok(text) = fs::read(&store) else {
        return Ok(());
    };
    let values: BTreeMap<String, String> =
        serde_json::from_slice(&text).with_context(|| format!("{} is broken", store.display()))?;
    for (name, value) in &values {
        let file = file(name);
        if fs::read_to_string(&file).is_ok_and(|present| present != *value) {
            fs::write(&file, value.trim())
                .with_context(|| format!("cannot set {} back to {value}", file.display()))?;
        }
    }
    fs::remove_file(&store).with_context(|| format!("cannot remove {}", store.display()))
}

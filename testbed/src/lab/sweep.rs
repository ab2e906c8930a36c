//! Finds and removes what labs of killed processes left behind.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Result;

use super::{bpf_file_system, cgroup, names, sys};

/// How the names of all labs begin.
const PREFIX: &str = "splitter-lab-";

/// The name of this process's lab number `number`.
pub(crate) fn lab_name(number: u32, name: &str) -> String {
    format!("{PREFIX}{}-{number}-{name}", std::process::id())
}

/// Whether `name` is that of a lab whose process is gone.
pub(crate) fn is_stale(name: &str) -> bool {
    name.strip_prefix(PREFIX)
        .and_then(|rest| rest.split('-').next())
        .and_then(|pid| pid.parse().ok())
        .is_some_and(|pid| !sys::lives(pid))
}

/// Whether the whole machine was searched: once in a process is enough.
static SEARCHED: AtomicBool = AtomicBool::new(false);

/// Removes every stale lab: its pins (which detaches its programs), names, cgroups and the
/// processes in them.
pub(crate) fn sweep() -> Result<()> {
    let cgroups = if SEARCHED.swap(true, Ordering::Relaxed) {
        cgroup::find_in(&cgroup::own()?, &is_stale)
    } else {
        cgroup::find_below(&cgroup::mount_point()?, &is_stale)
    };
    let (foreign, stale): (Vec<_>, Vec<_>) = cgroups
        .into_iter()
        .partition(|path| cgroup::is_foreign(path));

    if let Ok(entries) = fs::read_dir(bpf_file_system::MOUNT_POINT) {
        for entry in entries.flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(is_stale)
                && !foreign.iter().any(|path| path.file_name() == Some(&name))
            {
                bpf_file_system::remove(&entry.path())?;
            }
        }
    }
    names::sweep()?;
    for path in stale {
        cgroup::remove(&path)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::lab::Lab;

    #[test]
    fn labs_of_other_process_id_namespaces_are_left_alone() -> Result<()> {
        let lab = Lab::new("foreign")?;
        assert!(!cgroup::is_foreign(lab.cgroup()));
        let mut stranger = lab
            .command("unshare")?
            .args(["--pid", "--fork", "sleep", "600"])
            .spawn()?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while !cgroup::is_foreign(lab.cgroup()) {
            assert!(Instant::now() < deadline, "not recognised");
            sleep(Duration::from_millis(5));
        }
        drop(lab);
        stranger.wait()?;
        Ok(())
    }

    #[test]
    fn only_labs_of_dead_processes_are_stale() {
        assert!(!is_stale(&lab_name(3, "mine")));
        // One more than the largest process id that Linux can give out.
        assert!(is_stale("splitter-lab-4194305-0-dead"));
        assert!(!is_stale("splitter-lab-x-0-unreadable"));
        assert!(!is_stale("system.slice"));
    }
}

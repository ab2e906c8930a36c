//! A process of our own in a cgroup of its own, for an agent that the programs do not see.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::connect::Expected;
use super::{COMMAND, PATIENCE, SelfTestError};

/// What the cgroups are called, before the process id of their agent.
const PREFIX: &str = "splitter-self-test-";

/// The program that this process runs, even if its file has been replaced.
const PROGRAM: &str = "/proc/self/exe";

/// How long the process may take: two connections, each with its answer, and starting.
const LIMIT: Duration = Duration::from_secs(4 * PATIENCE.as_secs() + 1);

/// How long a cgroup may stay busy after its last process has ended.
const BUSY_LIMIT: Duration = Duration::from_secs(1);

/// Connects from a cgroup below `cgroup`.
pub(super) fn run(cgroup: &Path, expected: &Expected) -> Result<(), SelfTestError> {
    sweep(cgroup);
    let place = TemporaryCgroup::create(cgroup)?;
    let mut child = Command::new(PROGRAM)
        .arg(COMMAND)
        .arg("--cgroup")
        .arg(&place.path)
        .args(["--token", &expected.token])
        .args([
            "--keep-original-dst",
            &expected.keep_original_dst.to_string(),
        ])
        // Options of the agent are no concern of this process.
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| SelfTestError::Helper(format!("cannot be started: {error}")))?;
    let status = wait(&mut child)?;
    if status.success() {
        return Ok(());
    }
    let mut said = String::new();
    if let Some(pipe) = child.stderr.take() {
        // It has ended, so this does not wait; what it cannot say the status does.
        let _ = pipe.take(4096).read_to_string(&mut said);
    }
    let said = said.trim().trim_start_matches("splitter-agent: ");
    Err(if said.is_empty() {
        SelfTestError::Helper(format!("ended with {status}"))
    } else {
        SelfTestError::FromHelper(said.to_owned())
    })
}

/// Waits for the end, but not for ever.
fn wait(child: &mut Child) -> Result<ExitStatus, SelfTestError> {
    let start = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if start.elapsed() < LIMIT => std::thread::sleep(Duration::from_millis(2)),
            result => {
                // Gone already, if it cannot be killed.
                let _ = child.kill();
                let _ = child.wait();
                let why = match result {
                    Ok(_) => format!("did not end within {} s", LIMIT.as_secs()),
                    Err(error) => format!("cannot be waited for: {error}"),
                };
                return Err(SelfTestError::Helper(why));
            }
        }
    }
}

/// A cgroup to connect from; removed when dropped.
struct TemporaryCgroup {
    path: PathBuf,
}

impl TemporaryCgroup {
    fn create(cgroup: &Path) -> Result<Self, SelfTestError> {
        let path = cgroup.join(format!("{PREFIX}{}", std::process::id()));
        match fs::create_dir(&path) {
            Ok(()) => Ok(Self { path }),
            Err(source) => Err(SelfTestError::Cgroup {
                action: "make",
                path,
                source,
            }),
        }
    }
}

impl Drop for TemporaryCgroup {
    fn drop(&mut self) {
        let start = Instant::now();
        while let Err(error) = fs::remove_dir(&self.path) {
            if error.kind() != io::ErrorKind::ResourceBusy || start.elapsed() > BUSY_LIMIT {
                tracing::debug!(path = %self.path.display(), %error, "cannot remove a cgroup");
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Removes what agents left that were killed in the middle of a test. Their processes end by
/// themselves within seconds; until then the kernel keeps their cgroups.
fn sweep(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        let owner: Option<u32> = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX)?.parse().ok());
        // Our own number in a name is that of an agent in an earlier life of our container.
        let is_left = owner.is_some_and(|owner| {
            owner == std::process::id() || !Path::new(&format!("/proc/{owner}")).exists()
        });
        if is_left {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

//! Names: of Services inside pods, and of pods for `ip netns exec`.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::sys::{self, Pid};

/// Where `ip netns` looks for namespaces.
const NAMESPACES: &str = "/run/netns";

/// Where `ip netns exec NAME` looks for files to put over those in `/etc`.
const FILES: &str = "/etc/netns";

/// Begins the first line of every hosts file that we write; the id of our process follows.
const MARK: &str = "# splitter lab of process ";

/// Names are looked up in the hosts file only: nothing else is to be reached from a pod, and some
/// machines ask a resolver of their own before that file.
const NAME_SERVICE_SWITCH: &str = "passwd: files\ngroup: files\nhosts: files\n";

/// A name server is asked as well.
const NAME_SERVICE_SWITCH_WITH_DNS: &str = "passwd: files\ngroup: files\nhosts: files dns\n";

/// The text of a hosts file.
pub(crate) fn hosts_file(hosts: &[(&str, IpAddr)]) -> String {
    let mut text = format!(
        "{MARK}{}\n127.0.0.1 localhost\n::1 localhost\n",
        std::process::id()
    );
    for (name, address) in hosts {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{address} {name}");
    }
    text
}

/// Replaces `/etc/hosts` in the mount namespace of this process.
pub(crate) fn install_hosts(text: &str, first: bool) -> Result<()> {
    if !first {
        return fs::write("/etc/hosts", text).context("cannot write /etc/hosts");
    }
    cover("/etc/hosts", text)?;
    if Path::new("/etc/nsswitch.conf").exists() {
        cover("/etc/nsswitch.conf", NAME_SERVICE_SWITCH)?;
    }
    Ok(())
}

/// Makes this the name server of all in the mount namespace of this process.
pub(crate) fn install_name_server(server: IpAddr) -> Result<()> {
    cover("/etc/resolv.conf", &format!("nameserver {server}\n"))?;
    if Path::new("/etc/nsswitch.conf").exists() {
        cover("/etc/nsswitch.conf", NAME_SERVICE_SWITCH_WITH_DNS)?;
    }
    Ok(())
}

/// Mounts a file with this text over `target`. The file has no name once it is mounted, and goes
/// with the mount.
fn cover(target: &str, text: &str) -> Result<()> {
    let file = std::env::temp_dir().join(format!("splitter-lab-{}-file", std::process::id()));
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    let mounted = sys::bind_mount(&file, Path::new(target));
    fs::remove_file(&file)?;
    mounted.with_context(|| format!("cannot mount a file over {target}"))
}

/// A name by which `ip netns exec` knows a pod. Taken back when dropped.
#[derive(Debug)]
pub struct Published {
    name: String,
    owner: u32,
}

impl Published {
    pub(super) fn new(name: &str, holder: Pid, hosts: &[(&str, IpAddr)]) -> Result<Self> {
        let published = Self::claim(name, hosts)?;
        // From here on, dropping it removes whatever is there.
        let _lock = lock()?;
        let files = Path::new(FILES).join(name);
        fs::write(files.join("nsswitch.conf"), NAME_SERVICE_SWITCH)?;
        fs::create_dir_all(NAMESPACES)?;
        let namespace = Path::new(NAMESPACES).join(name);
        fs::write(&namespace, "")?;
        let source = PathBuf::from(format!("/proc/{holder}/ns/net"));
        sys::bind_mount(&source, &namespace)
            .with_context(|| format!("cannot mount the namespace at {}", namespace.display()))?;
        Ok(published)
    }

    /// Takes the name, if nobody has it.
    fn claim(name: &str, hosts: &[(&str, IpAddr)]) -> Result<Self> {
        let _lock = lock()?;
        let files = Path::new(FILES).join(name);
        let namespace = Path::new(NAMESPACES).join(name);
        for path in [&files, &namespace] {
            if path.symlink_metadata().is_ok() {
                bail!("the name {name} is in use: {} exists", path.display());
            }
        }
        fs::create_dir_all(&files)
            .with_context(|| format!("cannot make the directory {}", files.display()))?;
        fs::write(files.join("hosts"), hosts_file(hosts))?;
        Ok(Self {
            name: name.to_owned(),
            owner: std::process::id(),
        })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        if self.owner == std::process::id()
            && let Err(error) = lock().and_then(|_lock| remove(&self.name))
        {
            eprintln!("lab: {error:#}");
        }
    }
}

/// Keeps other labs from changing names until the returned file is dropped: names and the
/// directories they are in come and go.
fn lock() -> Result<File> {
    let directory = File::open("/run").context("cannot open /run")?;
    directory.lock().context("cannot lock /run")?;
    Ok(directory)
}

/// Removes a name and its files; directories are left when others use them. Needs the [`lock`].
fn remove(name: &str) -> Result<()> {
    let namespace = Path::new(NAMESPACES).join(name);
    if let Err(error) = sys::unmount(&namespace)
        && !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT))
    {
        return Err(error).with_context(|| format!("cannot unmount {}", namespace.display()));
    }
    let files = Path::new(FILES).join(name);
    for result in [fs::remove_file(&namespace), fs::remove_dir_all(&files)] {
        if let Err(error) = result
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error).with_context(|| format!("cannot take the name {name} back"));
        }
    }
    for directory in [NAMESPACES, FILES] {
        // Not empty, or a mount that `ip` made: then it stays.
        let _ = fs::remove_dir(directory);
    }
    Ok(())
}

/// Removes the names of processes that are gone.
pub(crate) fn sweep() -> Result<()> {
    let Ok(entries) = fs::read_dir(FILES) else {
        return Ok(());
    };
    let _lock = lock()?;
    for entry in entries.flatten() {
        let text = fs::read_to_string(entry.path().join("hosts")).unwrap_or_default();
        let owner = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix(MARK))
            .and_then(|pid| pid.parse().ok());
        if let (Some(owner), Some(name)) = (owner, entry.file_name().to_str())
            && !sys::lives(owner)
        {
            remove(name)?;
        }
    }
    Ok(())
}

//! Getting packages from the archives, checked against their digests, into the cache.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use testbed::cache::{self, lock};
use testbed::digest::digest;
use testbed::workspace::{output, say, short};

use super::list::{Archive, Package};

/// apt's own downloader: it knows this machine's proxies, and any kind of mirror.
const HELPER: &str = "/usr/lib/apt/apt-helper";

/// Where packages come from and where they are kept.
#[derive(Debug)]
pub(super) struct Store {
    directory: PathBuf,
    mirrors: BTreeMap<Archive, String>,
}

impl Store {
    /// A store that uses these mirrors, and for other archives those of this machine.
    pub(super) fn new(mirrors: BTreeMap<Archive, String>) -> Result<Self> {
        let directory = cache::directory().join("kernels");
        fs::create_dir_all(&directory).with_context(|| {
            format!(
                "cannot create {}; name another place with XDG_CACHE_HOME",
                directory.display()
            )
        })?;
        Ok(Self { directory, mirrors })
    }

    /// The path of a package, which is downloaded if it is not there.
    pub(super) fn get(&mut self, package: &Package) -> Result<PathBuf> {
        let name = package.path.rsplit('/').next().unwrap_or(package.path);
        let path = self.directory.join(name);
        let _one_at_a_time = lock(
            &self.directory.with_extension("lock"),
            "downloading packages",
        )?;
        if !path.exists() {
            let url = format!("{}/{}", self.mirror(package.archive)?, package.path);
            say(format_args!(
                "downloading {name} into {}",
                short(&self.directory)
            ));
            let partial = self.directory.join(format!("{name}.partial"));
            download(&url, &partial).with_context(|| {
                format!(
                    "{url} cannot be downloaded; if the archive has dropped this version, put one \
                     that it has (`apt-cache show` tells Filename and SHA256) into \
                     xtask/src/kernels/list.rs"
                )
            })?;
            check(&partial, package)?;
            fs::rename(&partial, &path)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        check(&path, package)?;
        Ok(path)
    }

    fn mirror(&mut self, archive: Archive) -> Result<String> {
        if let Some(mirror) = self.mirrors.get(&archive) {
            return Ok(mirror.clone());
        }
        let mut apt = Command::new("apt-get");
        apt.args([
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
        ]);
        let sources = output(&mut apt).unwrap_or_default();
        let mirror = mirror_among(&sources, archive).or_else(|| archive.usual_mirror());
        let mirror = mirror.with_context(|| {
            let name = archive.directory();
            format!(
                "apt on this machine knows no mirror of {name}: name one that you trust to be up \
                 with `--{name}-mirror URL`"
            )
        })?;
        self.mirrors.insert(archive, mirror.clone());
        Ok(mirror)
    }
}

impl Archive {
    /// The last part of the addresses of its mirrors.
    const fn directory(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Ubuntu => "ubuntu",
        }
    }

    /// A mirror to use where this machine's apt has none.
    fn usual_mirror(self) -> Option<String> {
        match self {
            Self::Debian => None,
            Self::Ubuntu => Some("http://archive.ubuntu.com/ubuntu".to_owned()),
        }
    }
}

/// The mirror of an archive among addresses, one a line.
fn mirror_among(sources: &str, archive: Archive) -> Option<String> {
    let end = format!("/{}", archive.directory());
    let mut sources = sources.lines().map(|line| line.trim_end_matches('/'));
    sources.find(|line| line.ends_with(&end)).map(str::to_owned)
}

fn download(url: &str, path: &Path) -> Result<()> {
    let output = Command::new(HELPER)
        // As root apt would become a user who may not write here.
        .args([
            "-qq",
            "-o",
            "APT::Sandbox::User=",
            "-o",
            "Acquire::Retries=3",
        ])
        .args(["download-file", url])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {HELPER}; it is part of the package apt"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("{}", complaint.trim());
    }
    Ok(())
}

fn check(path: &Path, package: &Package) -> Result<()> {
    let content = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let found = digest(&content);
    ensure!(
        found == format!("sha256:{}", package.sha256),
        "{} is not the pinned one: its digest is {found} and not sha256:{}; remove it to download \
         it again",
        path.display(),
        package.sha256
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_the_one_that_this_machine_uses() {
        let sources = "\
http://mirror.example/debian-security/
https://mirror.example/pub/debian/
http://other.example/debian/
";
        let mirror = mirror_among(sources, Archive::Debian);
        assert_eq!(mirror.as_deref(), Some("https://mirror.example/pub/debian"));
        assert_eq!(mirror_among(sources, Archive::Ubuntu), None);
    }

    #[test]
    fn a_package_that_is_not_the_pinned_one_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("package.deb");
        fs::write(&path, b"").unwrap();
        let mut package = Package {
            archive: Archive::Debian,
            path: "pool/package.deb",
            sha256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        };
        check(&path, &package).unwrap();
        package.sha256 = "ad56f8c442a54d4f5ff2dff010d00321d53e32b543f3a92f3ba4e042d20a71da";
        let error = check(&path, &package).unwrap_err().to_string();
        assert!(error.contains("not the pinned one"), "{error}");
    }
}

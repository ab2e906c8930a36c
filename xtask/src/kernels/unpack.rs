//! What packages hold: a kernel with its modules, or commands with their libraries.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use object::{Object as _, ObjectSection as _};
use tar::{Archive, EntryType};

/// A file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// With its mode.
    File(u32, Vec<u8>),
    /// To another path.
    Link(PathBuf),
}

/// Files by their absolute paths.
pub(super) type Files = BTreeMap<PathBuf, Content>;

/// The files of a package that are wanted.
pub(super) fn files(package: &Path, wanted: impl Fn(&Path) -> bool) -> Result<Files> {
    let mut child = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(package)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run dpkg-deb")?;
    let archive = child.stdout.take().context("no output of dpkg-deb")?;
    let mut archive = Archive::new(archive);
    let mut files = Files::new();
    let context = || format!("cannot unpack {}", package.display());
    for entry in archive.entries().with_context(context)? {
        let mut entry = entry.with_context(context)?;
        let path = Path::new("/").join(entry.path()?.strip_prefix(".").unwrap_or(&entry.path()?));
        if !wanted(&path) {
            continue;
        }
        let content = match entry.header().entry_type() {
            EntryType::Regular => {
                let mode = entry.header().mode()?;
                let mut content = Vec::new();
                entry.read_to_end(&mut content).with_context(context)?;
                Content::File(mode, content)
            }
            EntryType::Symlink => match entry.link_name()? {
                Some(target) => Content::Link(target.into_owned()),
                None => continue,
            },
            _ => continue,
        };
        files.insert(path, content);
    }
    let status = child.wait()?;
    ensure!(status.success(), "{}: {status}", context());
    Ok(files)
}

/// A kernel, as packages have it.
#[derive(Debug)]
pub(super) struct Unpacked {
    /// The image that boots.
    pub(super) image: Vec<u8>,
    /// The modules that were asked for, in the order to load them in: name and content.
    pub(super) modules: Vec<(String, Vec<u8>)>,
}

/// Takes the kernel out of its packages, and modules with what they need themselves.
pub(super) fn kernel(packages: &[PathBuf], modules: &[&str]) -> Result<Unpacked> {
    let mut image = None;
    let mut found = BTreeMap::new();
    for package in packages {
        let is_wanted = |path: &Path| is_image(path) || module_name(path).is_some();
        for (path, content) in files(package, is_wanted)? {
            let Content::File(_, content) = content else {
                continue;
            };
            match module_name(&path) {
                Some(name) => {
                    found.insert(name, (path, content));
                }
                None => image = Some(content),
            }
        }
    }
    let read = |name: &str| {
        let module = found.get(name).map(|(path, content)| plain(path, content));
        module.transpose()
    };
    Ok(Unpacked {
        image: image.context("no kernel in its packages")?,
        modules: in_order(modules, read)?,
    })
}

fn is_image(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name == "vmlinuz" || name.starts_with("vmlinuz-"))
}

/// The name of a module, as other modules call it.
fn module_name(path: &Path) -> Option<String> {
    let file = path.file_name()?.to_str()?;
    let (name, end) = file.split_once(".ko")?;
    matches!(end, "" | ".xz" | ".zst").then(|| name.replace('-', "_"))
}

/// Modules and what they need, each after what it needs itself. A module that `read` does not have
/// is built in.
fn in_order(
    wanted: &[&str],
    read: impl Fn(&str) -> Result<Option<Vec<u8>>>,
) -> Result<Vec<(String, Vec<u8>)>> {
    let mut ordered: Vec<(String, Vec<u8>)> = Vec::new();
    // What is to be looked at, the next one last; with its needs put before it.
    let mut left: Vec<(String, bool)> = wanted
        .iter()
        .rev()
        .map(|it| ((*it).into(), false))
        .collect();
    while let Some((name, has_needs)) = left.pop() {
        if ordered.iter().any(|(done, _)| *done == name) {
            continue;
        }
        let Some(content) = read(&name)? else {
            continue;
        };
        if has_needs {
            ordered.push((name, content));
            continue;
        }
        let needs = needs(&content).with_context(|| format!("the module {name}"))?;
        left.push((name, true));
        left.extend(needs.into_iter().map(|need| (need, false)));
    }
    Ok(ordered)
}

/// The modules that a module says it depends on.
fn needs(module: &[u8]) -> Result<Vec<String>> {
    let file = object::File::parse(module).context("not an ELF file")?;
    let section = file.section_by_name(".modinfo").context("no .modinfo")?;
    let data = section.data().context("an odd .modinfo")?;
    let fields = data.split(|byte| *byte == 0);
    let depends = fields
        .filter_map(|field| field.strip_prefix(b"depends="))
        .flat_map(|names| names.split(|byte| *byte == b','))
        .filter(|name| !name.is_empty());
    Ok(depends
        .map(|name| String::from_utf8_lossy(name).replace('-', "_"))
        .collect())
}

/// A module as kernels before 5.17 want it.
fn plain(path: &Path, content: &[u8]) -> Result<Vec<u8>> {
    let program = match path.extension().and_then(|end| end.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return Ok(content.to_owned()),
    };
    // A file, since a pipe would have to be written and read at once.
    let mut file = tempfile::tempfile().context("no temporary file")?;
    file.write_all(content)?;
    std::io::Seek::rewind(&mut file)?;
    let output = Command::new(program)
        .arg("-dc")
        .stdin(Stdio::from(file))
        .output()
        .with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("cannot unpack {}: {}", path.display(), complaint.trim());
    }
    Ok(output.stdout)
}

/// A program of this machine, and the libraries that it loads.
pub(super) fn with_libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let output = Command::new("ldd")
        .arg(program)
        .env("LC_ALL", "C")
        .output()
        .context("cannot run ldd")?;
    let mut paths = vec![program.to_owned()];
    // It fails for a program that loads none.
    if output.status.success() {
        paths.extend(libraries(&String::from_utf8_lossy(&output.stdout))?);
    }
    Ok(paths)
}

/// The paths in what ldd prints.
fn libraries(text: &str) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for line in text.lines().map(str::trim) {
        // "libc.so.6 => /lib/libc.so.6 (0x7f...)", "/lib64/ld-linux-x86-64.so.2 (0x7f...)"
        let place = line.split_once(" => ").map_or(line, |(_, place)| place);
        if place.starts_with("not found") {
            bail!("a library is missing: {line}");
        }
        let path = place.split(" (").next().unwrap_or(place);
        if path.starts_with('/') {
            paths.push(PathBuf::from(path));
        }
    }
    Ok(paths)
}

/// Reads a file of this machine.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)
        .and_then(|mut file| file.read_to_end(&mut content))
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_known_by_the_names_that_other_modules_call_them() {
        let name = |path| module_name(Path::new(path));
        assert_eq!(
            name("/lib/modules/6.1/kernel/net/llc/llc.ko").as_deref(),
            Some("llc")
        );
        assert_eq!(
            name("/x/nf-log-syslog.ko.xz").as_deref(),
            Some("nf_log_syslog")
        );
        assert_eq!(name("/x/veth.ko.zst").as_deref(), Some("veth"));
        assert_eq!(name("/boot/vmlinuz-6.1"), None);
    }

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let text = "\tlinux-vdso.so.1 (0x00007f97)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f97)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f97)\n";
        let found = libraries(text).unwrap();
        let wanted = [
            "/lib/x86_64-linux-gnu/libc.so.6",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        assert_eq!(found, wanted.map(PathBuf::from));
        assert_eq!(
            libraries("\tstatically linked\n").unwrap(),
            [] as [PathBuf; 0]
        );
        libraries("\tlibx.so => not found\n").unwrap_err();
    }

    #[test]
    fn this_program_is_found_with_what_it_loads() {
        let this = std::env::current_exe().unwrap();
        let paths = with_libraries(&this).unwrap();
        assert_eq!(paths[0], this);
        assert!(paths.iter().all(|path| path.is_file()), "{paths:?}");
    }
}

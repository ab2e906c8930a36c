//! The style of imports: one `use` for each module path, so that a line of a search or a diff says
//! all of it. Stable rustfmt keeps that, but does not make it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use testbed::workspace::{root, short};

/// Fails if an import of the workspace has a path inside braces.
///
/// # Errors
///
/// Names each, with its file and line; also when a file cannot be read.
pub fn check() -> Result<()> {
    let mut files = Vec::new();
    find_sources(root(), &mut files)?;
    let mut found = Vec::new();
    for file in files {
        let text =
            fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let lines = nested(&text).into_iter();
        found.extend(lines.map(|line| format!("{}:{line}", short(&file))));
    }
    ensure!(
        found.is_empty(),
        "imports with a path inside braces, to be one `use` for each module path:\n  {}",
        found.join("\n  ")
    );
    Ok(())
}

/// The Rust files below a directory, without what is built there.
fn find_sources(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let context = || format!("cannot read {}", directory.display());
    for entry in fs::read_dir(directory).with_context(context)? {
        let entry = entry.with_context(context)?;
        let (path, name) = (entry.path(), entry.file_name());
        let is_directory = entry.file_type().with_context(context)?.is_dir();
        let is_hidden = name.as_encoded_bytes().starts_with(b".");
        if is_directory && !is_hidden && name != "target" {
            find_sources(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// The lines, counted from one, at which imports begin that have a path inside braces.
fn nested(text: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let mut lines = (1..).zip(text.lines());
    while let Some((number, line)) = lines.next() {
        if !is_import(line) {
            continue;
        }
        let mut import = line.to_owned();
        while !import.contains(';') {
            let Some((_, more)) = lines.next() else { break };
            import.push_str(more);
        }
        let inside = import.split_once('{').map_or("", |(_, inside)| inside);
        if inside.contains("::") || inside.contains('{') {
            found.push(number);
        }
    }
    found
}

fn is_import(line: &str) -> bool {
    let line = line.trim_start();
    let item = match line.strip_prefix("pub") {
        // `pub use`, `pub(crate) use`.
        Some(rest) => rest.split_once(' ').map_or("", |(_, item)| item),
        None => line,
    };
    item.starts_with("use ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_inside_braces_is_found() {
        // The bars keep these lines from being found in this file.
        let text = "\
|use std::fs;
|use std::{
|    io,
|    path::Path,
|};
|pub(crate) use crate::a::{b, c as d};
|pub use crate::{a::b, c};
|mod tests {
|    use std::{fmt, net::{IpAddr, SocketAddr}};
|    use super::*;
|}
";
        assert_eq!(nested(&text.replace('|', "")), [2, 7, 9]);
    }

    #[test]
    fn names_inside_braces_and_what_is_no_import_are_not() {
        let text = "\
use anyhow::{Context as _, Result};
use super::{
    one, two,
};
/// use std::{a::b}
fn used() { a::b() }
";
        assert_eq!(nested(text), [0; 0]);
    }
}

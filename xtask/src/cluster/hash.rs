//! SHA-256, by which images and builds are named.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

/// The SHA-256 of `content` in hexadecimal digits, by the `sha256sum` that every Linux has.
pub(super) fn sha256(content: &[u8]) -> Result<String> {
    let context = "cannot run `sha256sum`; remedy: install the package coreutils";
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context(context)?;
    child
        .stdin
        .take()
        .context(context)?
        .write_all(content)
        .context(context)?;
    let output = child.wait_with_output().context(context)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let digits: String = text.chars().take_while(char::is_ascii_hexdigit).collect();
    ensure!(digits.len() == 64, "`sha256sum` printed {text:?}");
    Ok(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_nothing_is_known() {
        let nothing = sha256(b"").unwrap();
        assert!(nothing.starts_with("e3b0c44298fc1c14"), "{nothing}");
    }
}

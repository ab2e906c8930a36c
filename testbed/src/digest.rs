//! Digests as container images write them.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};

/// The digest of a content, with `sha256:` before it.
#[must_use]
pub fn digest(content: &[u8]) -> String {
    let mut text = "sha256:".to_owned();
    for byte in Sha256::digest(content) {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

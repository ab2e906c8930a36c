//! Commands as the documents have them.

use std::fs;

use testbed::workspace::root;

/// The commands of the first block of a document that has this text, below this heading.
pub(crate) fn commands(document: &str, heading: &str, text: &str) -> String {
    let content = "\n".to_owned() + &fs::read_to_string(root().join(document)).unwrap();
    let below = content.split_once(&format!("\n{heading}\n"));
    let (_, below) = below.unwrap_or_else(|| panic!("{document} has no {heading:?}"));
    let mut blocks = below.split("\n```").skip(1).step_by(2);
    let block = blocks.find(|block| block.starts_with("console\n") && block.contains(text));
    let block = block.unwrap_or_else(|| panic!("{document} has no commands with {text:?}"));
    block["console\n".len()..].to_owned() + "\n"
}

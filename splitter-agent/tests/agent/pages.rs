//! The version, completions and manual pages.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use crate::common::agent::{BINARY, stdout};

/// Names of the commands that people see.
fn commands() -> BTreeSet<String> {
    let help = Command::new(BINARY).arg("--help").output().unwrap();
    let help = stdout(&help);
    let (_, list) = help.split_once("Commands:\n").expect("commands");
    let names = list.lines().take_while(|line| !line.is_empty());
    let names = names.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}

#[test]
fn the_version_is_that_of_the_package_and_the_library() {
    let version = Command::new(BINARY).arg("--version").output().unwrap();
    let expected = format!("splitter-agent {}\n", splitter_agent::VERSION);
    assert_eq!(stdout(&version), expected);
    assert!(expected.contains(env!("CARGO_PKG_VERSION")), "{expected}");
    assert_eq!(
        splitter_agent::COMMIT.is_empty(),
        !expected.contains('('),
        "{expected}"
    );
}

#[test]
fn every_command_has_a_manual_page() {
    let directory = tempfile::tempdir().unwrap();
    let pages = directory.path().join("man1");
    let written = Command::new(BINARY)
        .arg("man")
        .arg(&pages)
        .output()
        .unwrap();
    assert!(written.status.success(), "{written:?}");
    let found: BTreeSet<String> = fs::read_dir(&pages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("splitter-agent-help"))
        .collect();
    let mut expected: BTreeSet<String> = commands()
        .iter()
        .map(|command| format!("splitter-agent-{command}.1"))
        .collect();
    expected.insert("splitter-agent.1".to_owned());
    assert_eq!(found, expected);
    let page = fs::read_to_string(pages.join("splitter-agent-status.1")).unwrap();
    for expected in [".TH splitter-agent-status", "\\-\\-namespace", "Exit codes"] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
}

#[test]
fn bash_completes_commands_and_options() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("splitter-agent.bash");
    let script = Command::new(BINARY)
        .args(["completions", "bash"])
        .output()
        .unwrap();
    assert!(script.status.success(), "{script:?}");
    fs::write(&file, &script.stdout).unwrap();
    // As bash does when the tab key is pressed after these words.
    let complete = |words: &[&str]| -> BTreeSet<String> {
        let program = "source \"$0\"; COMP_WORDS=(splitter-agent \"$@\"); COMP_CWORD=$#; \
             function=$(complete -p splitter-agent | sed 's/.*-F \\([^ ]*\\).*/\\1/'); \
             $function splitter-agent \"${@: -1}\" \"${COMP_WORDS[$#-1]}\"; \
             printf '%s\\n' \"${COMPREPLY[@]}\"";
        let output = Command::new("bash")
            .args(["-c", program])
            .arg(&file)
            .args(words)
            .output()
            .unwrap();
        assert!(output.stderr.is_empty(), "{output:?}");
        stdout(&output).lines().map(str::to_owned).collect()
    };
    let all = complete(&[""]);
    for command in commands() {
        assert!(all.contains(&command), "{command}: {all:?}");
    }
    assert_eq!(complete(&["sta"]), BTreeSet::from(["status".to_owned()]));
    let options = complete(&["status", "--n"]);
    assert!(options.contains("--namespace"), "{options:?}");
    for shell in ["zsh", "fish"] {
        let script = Command::new(BINARY)
            .args(["completions", shell])
            .output()
            .unwrap();
        assert!(stdout(&script).contains("explain"), "{shell}");
    }
}

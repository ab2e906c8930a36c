//! That the documents tell the same commands; the end-to-end tests run them.

use super::documented::commands;

const README: &str = "README.md";
const DEPLOY: &str = "deploy/README.md";
const OPERATIONS: &str = "docs/operations.md";

#[test]
fn every_document_tells_the_same_commands() {
    let install = commands(README, "## On a cluster", "apply -k");
    assert_eq!(
        install,
        commands(DEPLOY, "# Deploying splitter", "apply -k")
    );
    // The name of a registry is said once.
    assert_eq!(install.matches("registry.example.com").count(), 1);
    for text in ["delete -k", "helm uninstall"] {
        let uninstall = commands(README, "### Uninstall", text);
        for document in [DEPLOY, OPERATIONS] {
            assert_eq!(
                uninstall,
                commands(document, "## Uninstall", text),
                "{document}"
            );
        }
    }
}

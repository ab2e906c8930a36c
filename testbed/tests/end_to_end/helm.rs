//! The chart on a real cluster: installed, and uninstalled again.

use testbed::cluster::Options;

use crate::documented;
use crate::test_cluster::{SYSTEM, TestCluster, wait_for};
use crate::uninstall::{Picture, is_pinned, wait_for_picture};
use crate::user::{self, User, hide_image, rename_image, restore_image};

/// What a hook of `helm uninstall` makes, and the agent's own: gone at the end.
const KINDS: &str = "daemonsets,jobs,pods,serviceaccounts,roles,rolebindings";

#[test]
fn helm_uninstall_deletes_nothing_until_every_node_is_clean() {
    let own = TestCluster::own(&Options {
        name: format!("helm-{}", std::process::id()),
        ..Options::default()
    });
    let Some(cluster) = own else {
        return;
    };
    let shop = cluster.namespace("charted");
    shop.shop(1);
    let before: Vec<_> = cluster.nodes().iter().map(Picture::of).collect();
    let image = user::pushed("splitter", "abc");
    for node in cluster.nodes() {
        rename_image(&cluster, node, &image);
    }
    let user = User::new(cluster.local(), "abc");
    let install = documented::commands("deploy/README.md", "# Deploying splitter", "helm install");
    let (repository, _tag) = image.rsplit_once(':').expect("a tag");
    let install = install.replace("$REGISTRY/splitter-agent", repository);
    // So that Helm's patience is longer than the hook's, as it is when both are what they are.
    user.run(&format!(
        "TAG=abc\n{} --set uninstall.timeoutSeconds=45 --wait",
        install.trim_end()
    ));
    cluster.wait_for_agents();
    shop.split(&[0, 1]);
    let [clean, broken] = cluster.nodes() else {
        panic!("two nodes")
    };

    hide_image(&cluster, broken, &image);
    // The hook itself has to be able to start.
    cluster.kubectl(&["cordon", broken.name()]);
    let uninstall = documented::commands("README.md", "### Uninstall", "helm uninstall");
    let said = user.fail(&uninstall);
    assert!(
        said.contains(&format!("{} is not", broken.name())),
        "{said}"
    );
    assert!(is_pinned(broken), "{said}");
    wait_for("a clean node", || (!is_pinned(clean)).then_some(()));
    cluster.kubectl(&["-n", SYSTEM, "get", "daemonset/splitter-agent"]);
    let status = user.run(&format!("helm --namespace {SYSTEM} list --all --short"));
    assert_eq!(status.trim(), "splitter");

    restore_image(&cluster, broken, &image);
    cluster.kubectl(&["uncordon", broken.name()]);
    user.run(&uninstall);
    for (node, before) in cluster.nodes().iter().zip(&before) {
        wait_for_picture(node, before);
    }
    // The garbage collector takes a moment for the pods.
    wait_for("the end of everything that is splitter's", || {
        let left = cluster.kubectl(&["-n", SYSTEM, "get", KINDS, "-o", "name"]);
        (!left.contains("splitter")).then_some(())
    });
    // As the manifests do: the splits are their authors'.
    cluster.kubectl(&["-n", shop.name(), "get", "trafficsplit", "canary"]);
}

//! The Go modules that a cluster's programs are built from, and how.

use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cache;
use crate::digest::digest;
use crate::workspace::{root, run, short};

/// Kubernetes; has to be what `testbed/tools/kubernetes/go.mod` requires.
const KUBERNETES: &str = "1.36.3";

/// One Go module, and the programs that are built from it.
pub(super) struct Module {
    directory: &'static str,
    pub(super) programs: &'static [Source],
}

/// A program: its name, its package, and what its build needs beyond the common flags.
pub(super) struct Source {
    pub(super) name: &'static str,
    package: &'static str,
    /// Whether it is written in C in part.
    pub(super) cgo: bool,
    tags: &'static str,
    /// What to expect where nothing of the module was built before.
    pub(super) patience: &'static str,
}

const fn source(name: &'static str, package: &'static str, patience: &'static str) -> Source {
    Source {
        name,
        package,
        cgo: false,
        tags: "",
        patience,
    }
}

/// What every cluster needs.
pub(super) const MODULES: [Module; 4] = [
    Module {
        directory: "kubernetes",
        programs: &[
            source("etcd", "go.etcd.io/etcd/server/v3", "half a minute"),
            source(
                "kube-apiserver",
                "k8s.io/kubernetes/cmd/kube-apiserver",
                "4 minutes",
            ),
            source(
                "kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
                "a minute",
            ),
            source(
                "kube-scheduler",
                "k8s.io/kubernetes/cmd/kube-scheduler",
                "half a minute",
            ),
            source("kubelet", "k8s.io/kubernetes/cmd/kubelet", "a minute"),
            source(
                "kube-proxy",
                "k8s.io/kubernetes/cmd/kube-proxy",
                "half a minute",
            ),
            source("kubectl", "k8s.io/kubernetes/cmd/kubectl", "half a minute"),
        ],
    },
    Module {
        directory: "node",
        programs: &[
            source(
                "containerd",
                "github.com/containerd/containerd/v2/cmd/containerd",
                "a minute",
            ),
            source(
                "containerd-shim-runc-v2",
                "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                "10 seconds",
            ),
            source(
                "ctr",
                "github.com/containerd/containerd/v2/cmd/ctr",
                "10 seconds",
            ),
            Source {
                cgo: true,
                tags: "seccomp",
                ..source("runc", "github.com/opencontainers/runc", "10 seconds")
            },
            source(
                "bridge",
                "github.com/containernetworking/plugins/plugins/main/bridge",
                "10 seconds",
            ),
            source(
                "loopback",
                "github.com/containernetworking/plugins/plugins/main/loopback",
                "10 seconds",
            ),
            source(
                "ptp",
                "github.com/containernetworking/plugins/plugins/main/ptp",
                "10 seconds",
            ),
            source(
                "host-local",
                "github.com/containernetworking/plugins/plugins/ipam/host-local",
                "10 seconds",
            ),
        ],
    },
    Module {
        directory: "dns",
        programs: &[source("coredns", "github.com/coredns/coredns", "2 minutes")],
    },
    Module {
        directory: "helpers",
        programs: &[
            source("pause", "./pause", "10 seconds"),
            source("make-key", "./make-key", "10 seconds"),
            source("web", "./web", "10 seconds"),
        ],
    },
];

/// Built only when it is asked for.
pub(super) const HELM: Module = Module {
    directory: "helm",
    programs: &[source("helm", "helm.sh/helm/v3/cmd/helm", "a minute")],
};

impl Module {
    fn path(&self) -> PathBuf {
        root().join("testbed/tools").join(self.directory)
    }

    /// Changes with everything that the programs are made of.
    pub(super) fn key(&self) -> Result<String> {
        let mut recipe = Vec::new();
        for name in ["go.mod", "go.sum"] {
            match fs::read(self.path().join(name)) {
                Ok(content) => recipe.extend(content),
                // A module that requires nothing has no sums, but code of its own.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    for program in self.programs {
                        let code = self.path().join(program.package).join("main.go");
                        recipe.extend(
                            fs::read(&code)
                                .with_context(|| format!("cannot read {}", code.display()))?,
                        );
                    }
                }
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("cannot read {} of {}", name, self.path().display())
                    });
                }
            }
        }
        recipe.extend(self.linker_flags().bytes());
        for program in self.programs {
            recipe.extend(program.tags.bytes());
        }
        Ok(format!(
            "{}-{}",
            self.directory,
            &digest(&recipe)["sha256:".len()..][..16]
        ))
    }

    /// Kubernetes takes its own version from the linker; clients refuse one that says 0.0.0.
    fn linker_flags(&self) -> String {
        let mut flags = "-s -w".to_owned();
        if self.directory == "kubernetes" {
            let mut parts = KUBERNETES.split('.');
            let (major, minor) = (parts.next().unwrap_or("1"), parts.next().unwrap_or("0"));
            for package in ["k8s.io/component-base", "k8s.io/client-go/pkg"] {
                flags += &format!(
                    " -X {package}/version.gitVersion=v{KUBERNETES} \
                     -X {package}/version.gitMajor={major} -X {package}/version.gitMinor={minor}"
                );
            }
        }
        flags
    }

    /// Builds beside the final place and renames, so that a half-written program is never used.
    pub(super) fn build(&self, go: &Path, program: &Source, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let partial = directory.join(format!(".{}.partial", program.name));
        let mut build = Command::new(go);
        build
            .current_dir(self.path())
            .args(["build", "-mod=readonly", "-trimpath", "-buildvcs=false"])
            .arg(format!("-tags={}", program.tags))
            .arg(format!("-ldflags={}", self.linker_flags()))
            .arg("-o")
            .arg(&partial)
            .arg(program.package)
            // What a user sets for other builds is not meant for a tool.
            .env_remove("GOFLAGS")
            .env("GOWORK", "off")
            .env("GOTOOLCHAIN", "local")
            .env("CGO_ENABLED", if program.cgo { "1" } else { "0" });
        if env::var_os("SUDO_UID").is_some() {
            // What Go keeps would become root's among the user's; what lies here is given back.
            let cache = cache::directory();
            build
                .env("GOCACHE", cache.join("go-build"))
                .env("GOMODCACHE", cache.join("go-modules"));
        }
        run(&mut build).with_context(|| {
            format!(
                "{} cannot be built; with access to the modules that {}/go.sum names (or a \
                 GOPROXY that has them) it can",
                program.name,
                short(&self.path())
            )
        })?;
        let path = directory.join(program.name);
        fs::rename(&partial, &path)
            .with_context(|| format!("cannot move {} to {}", program.name, path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_in_the_flags_is_that_of_the_module() {
        let module = fs::read_to_string(MODULES[0].path().join("go.mod")).unwrap();
        assert!(module.contains(&format!("k8s.io/kubernetes v{KUBERNETES} ")));
    }

    #[test]
    fn every_module_has_a_key_of_its_own() {
        let keys: Vec<_> = MODULES.iter().map(|module| module.key().unwrap()).collect();
        assert!(keys[0].starts_with("kubernetes-"), "{keys:?}");
        assert_eq!(keys[0].len(), "kubernetes-".len() + 16);
    }
}

//! The kernels that tests are run in, and where they come from.
//!
//! Each package is pinned by its path in the distribution's archive, and by its digest. Archives
//! keep what belongs to a release that gets no more updates ("bookworm", its backports, what
//! "jammy" was released with); of a current one they drop a version some time after the next has
//! come. The error names this file then.

use crate::image::Platform;

/// A distribution's archive of packages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Archive {
    /// Debian's.
    Debian,
    /// Ubuntu's.
    Ubuntu,
}

/// A package in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Package {
    /// The archive.
    pub archive: Archive,
    /// Its path there.
    pub path: &'static str,
    /// Its SHA-256 digest, in hexadecimal.
    pub sha256: &'static str,
}

/// A kernel to run tests in.
#[derive(Clone, Copy, Debug)]
pub struct Kernel {
    /// What `--kernel` calls it.
    pub name: &'static str,
    /// What it runs on.
    pub platform: Platform,
    /// The packages that have the kernel and its modules.
    pub packages: &'static [Package],
    /// What the processor must not have, as QEMU calls it.
    pub without: &'static [&'static str],
}

const fn debian(path: &'static str, sha256: &'static str) -> Package {
    Package {
        archive: Archive::Debian,
        path,
        sha256,
    }
}

const fn ubuntu(path: &'static str, sha256: &'static str) -> Package {
    Package {
        archive: Archive::Ubuntu,
        path,
        sha256,
    }
}

/// All of them, the oldest first.
pub const KERNELS: [Kernel; 5] = [
    // What Ubuntu 22.04 was released with, without what came from later kernels since.
    Kernel {
        name: "5.15",
        platform: Platform::Amd64,
        packages: &[
            ubuntu(
                "pool/main/l/linux-signed/linux-image-5.15.0-25-generic_5.15.0-25.25_amd64.deb",
                "ad56f8c442a54d4f5ff2dff010d00321d53e32b543f3a92f3ba4e042d20a71da",
            ),
            ubuntu(
                "pool/main/l/linux/linux-modules-5.15.0-25-generic_5.15.0-25.25_amd64.deb",
                "d0ba4087d9e1d497925b3481d3531fba6c2a852855f8019d73b0b1385aa4da1f",
            ),
        ],
        without: &[],
    },
    // Debian 12.
    Kernel {
        name: "6.1",
        platform: Platform::Amd64,
        packages: &[debian(
            "pool/main/l/linux-signed-amd64/linux-image-6.1.0-50-cloud-amd64_6.1.176-1_amd64.deb",
            "efe19f605b6f54a8352e68d85a629abb2d30b72a085faef603a9152590baa791",
        )],
        without: &[],
    },
    Kernel {
        name: "6.1-arm64",
        platform: Platform::Arm64,
        packages: &[debian(
            "pool/main/l/linux-signed-arm64/linux-image-6.1.0-50-cloud-arm64_6.1.176-1_arm64.deb",
            "9d41a53f5d687ae1a33cf546d0ed8be955f72e5f9e97b2b4e45e41dff3353b97",
        )],
        without: &[],
    },
    // Debian 13's, as Debian 12 has it.
    Kernel {
        name: "6.12",
        platform: Platform::Amd64,
        packages: &[debian(
            "pool/main/l/linux-signed-amd64/\
             linux-image-6.12.95+deb12-cloud-amd64_6.12.95-1~bpo12+1_amd64.deb",
            "69c92f43b23821de79576fa4d7c86e2924ae2c1b247a47cc5ed9339e220fbcb7",
        )],
        // To allocate memory it uses CMPXCHG16B, whose flags QEMU 7.2 spoils (helper_cmpxchg16b takes for
        // the kind of the flags the last that was stored), and dies at random places. 7.3 needs the
        // instruction: without it there is no memory for the storage of sockets (kmalloc_nolock).
        without: &["cx16"],
    },
    // The newest that Debian brings to a stable release; to be raised now and then.
    Kernel {
        name: "7.3",
        platform: Platform::Amd64,
        packages: &[
            debian(
                "pool/main/l/linux-signed-amd64/\
                 linux-binary-7.3.4+deb13-cloud-amd64_7.3.4-1~bpo13+1_amd64.deb",
                "c4fbc8e404958693b28825474c20742d70594d65ca58aea7be6a279c81eb6fa0",
            ),
            debian(
                "pool/main/l/linux/linux-modules-7.3.4+deb13-cloud-amd64_7.3.4-1~bpo13+1_amd64.deb",
                "359f04c363b7d3c5f9ce999ccb7351e00cc8eec0a30d6bc1cda37734987fc43d",
            ),
        ],
        without: &[],
    },
];

/// Those in which `cargo xtask test` runs some tests, as far as they are for this machine's platform:
/// the oldest, which refuses by a rewrite, and the first that chooses the error.
pub const BRIEF: [&str; 3] = ["5.15", "6.1", "6.1-arm64"];

/// The modules that the lab needs, where they are not built in. What they need themselves is found.
pub const MODULES: [&str; 2] = ["bridge", "veth"];

/// The commands that the lab and the tests call.
pub const COMMANDS: [&str; 6] = ["ip", "mount", "sh", "sleep", "umount", "unshare"];

/// The packages with [`COMMANDS`] for a machine that is not of this machine's kind, and the
/// libraries that they need: all of Debian 12.
#[must_use]
pub const fn commands(platform: Platform) -> Option<&'static [Package]> {
    match platform {
        Platform::Amd64 => None,
        Platform::Arm64 => Some(&ARM64_COMMANDS),
    }
}

const ARM64_COMMANDS: [Package; 16] = [
    debian(
        "pool/main/d/dash/dash_0.5.12-2_arm64.deb",
        "c1358e2a8054eb93efd460adf480224a16ea9e0b4d7b4c6cbcf8c8c91902a1d7",
    ),
    debian(
        "pool/main/e/elfutils/libelf1_0.188-2.1_arm64.deb",
        "32971952d8f5d563447bf275f24e26057500924da2d855c1edb53b0f0400bd11",
    ),
    debian(
        "pool/main/g/glibc/libc6_2.36-9+deb12u14_arm64.deb",
        "01f4330719fd4f65580e16ea5a0527f372fca750e8f588d26deaf09f2d3b1cf4",
    ),
    debian(
        "pool/main/i/iproute2/iproute2_6.1.0-3_arm64.deb",
        "58fad55c5a29be6c1e6301d0c572f2ac5e5962ff244e7da3784c1b29ffc6c6bf",
    ),
    debian(
        "pool/main/libb/libbpf/libbpf1_1.1.2-0+deb12u1_arm64.deb",
        "c9929839798e7d8e66b212f345ecf1653ba7f1a9e1b753d0eb67bd521b0b5511",
    ),
    debian(
        "pool/main/libb/libbsd/libbsd0_0.11.7-2_arm64.deb",
        "ef00f132ddd268ee67d756998723ee18543db27ab34930c0a9f1cff75cf55382",
    ),
    debian(
        "pool/main/libc/libcap2/libcap2_2.66-4+deb12u3+b1_arm64.deb",
        "b3a21ae1cef9c2f3fa340007100fb0aa934ab6a4d8aed131660de9713db2bb6e",
    ),
    debian(
        "pool/main/libm/libmd/libmd0_1.0.4-2_arm64.deb",
        "99a8c7dd591fae9fb37d8bf8dfdffa850e207fa405b3198c5b24711a5f972381",
    ),
    debian(
        "pool/main/libm/libmnl/libmnl0_1.0.4-3_arm64.deb",
        "d63aafb6f2c07db8fcb135b00ff915baf72ef8a3397e773c9c24d67950c6a46c",
    ),
    debian(
        "pool/main/libs/libselinux/libselinux1_3.4-1+b6_arm64.deb",
        "29201edf23ebae40844d6c289afdb9bba52f927d55096ed1b1cd37e040135edc",
    ),
    debian(
        "pool/main/p/pcre2/libpcre2-8-0_10.42-1_arm64.deb",
        "b2448d0a8a3db7fbeac231e7ef93811346c1fb5f96ccf6f631701d8a4eb39206",
    ),
    debian(
        "pool/main/u/util-linux/libblkid1_2.38.1-5+deb12u3_arm64.deb",
        "6c462ce69d08f1ddaa9a77bbdad4af8e289267095599eb8e92a9ab3ea21cdc41",
    ),
    debian(
        "pool/main/u/util-linux/libmount1_2.38.1-5+deb12u3_arm64.deb",
        "b48877c1e60c2589d9e17f72d782cd2ab8a3fdaeda54f05920bcb26c9404b1e8",
    ),
    debian(
        "pool/main/u/util-linux/mount_2.38.1-5+deb12u3_arm64.deb",
        "b073b381d1568f1b409ee8bd1df491b2e3ad231209ff4a1badbab61b57039570",
    ),
    debian(
        "pool/main/u/util-linux/util-linux_2.38.1-5+deb12u3_arm64.deb",
        "c30366915d4dc21106d69c3d5a2bf6b010c4c2ff508a1231ede4620aed9874fc",
    ),
    debian(
        "pool/main/z/zlib/zlib1g_1.2.13.dfsg-1_arm64.deb",
        "52b8b8a145bbe1956bba82034f77022cbef0c3d0885c9e32d9817a7932fe1913",
    ),
];

/// The kernel that is called `name`.
///
/// # Errors
///
/// Names those that there are.
pub fn by_name(name: &str) -> Result<Kernel, String> {
    let mut kernels = KERNELS.iter();
    let found = kernels.find(|kernel| kernel.name == name).copied();
    found.ok_or_else(|| {
        let names = KERNELS.map(|kernel| kernel.name);
        format!("the kernels are {}", names.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn kernels_are_known_by_their_names() {
        for kernel in KERNELS {
            assert_eq!(by_name(kernel.name).unwrap().packages, kernel.packages);
        }
        let names: BTreeSet<_> = KERNELS.map(|kernel| kernel.name).into();
        assert_eq!(names.len(), KERNELS.len());
        for name in BRIEF {
            by_name(name).unwrap();
        }
        let error = by_name("4.4").unwrap_err();
        assert!(error.contains("5.15, 6.1"), "{error}");
    }

    #[test]
    fn every_package_is_pinned_by_a_digest_of_its_own_and_is_of_the_kernels_kind() {
        let mut digests = BTreeSet::new();
        let commands = ARM64_COMMANDS.map(|package| (Platform::Arm64, package));
        let kernels = KERNELS
            .iter()
            .flat_map(|kernel| kernel.packages.iter().map(|it| (kernel.platform, *it)));
        for (platform, package) in kernels.chain(commands) {
            let Package { path, sha256, .. } = package;
            assert_eq!(sha256.len(), 64, "{path}");
            assert!(
                sha256.bytes().all(|byte| byte.is_ascii_hexdigit()),
                "{path}"
            );
            assert!(digests.insert(sha256), "{path}");
            let end = format!("_{}.deb", platform.architecture());
            assert!(path.starts_with("pool/") && path.ends_with(&end), "{path}");
        }
    }
}

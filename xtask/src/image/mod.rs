//! Container images, made without a container engine: each holds one static program and nothing
//! else, for every platform, in a file that containerd, podman and skopeo read.
//!
//! - `platform`: what the images are built for;
//! - `program`: compiling a program that needs no file beside itself;
//! - `layer`: the file system of an image;
//! - `oci`: the documents around it, and the archive;
//! - `revision`: what the source says about itself.

mod layer;
mod oci;
mod platform;
pub(crate) mod program;
mod revision;

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

pub use layer::Layer;
pub use oci::{Image, Packed, Variant, pack};
pub use platform::Platform;

use crate::build_ebpf;
use testbed::packages::{self, Requirement};
use testbed::workspace::{replace_file, say, short, target_directory};

/// The version of the programs in images, and the tag that the manifests in `deploy` name.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What `cargo xtask image` takes.
#[derive(Args, Clone, Debug)]
pub struct ImageArgs {
    /// Which images to build [default: all]
    #[arg(value_enum, value_name = "IMAGE")]
    images: Vec<Kind>,

    /// Where to put the archives [default: target/image]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,

    /// Platforms, separated by commas
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "OS/ARCH",
        default_values = ["linux/amd64", "linux/arm64"]
    )]
    platform: Vec<Platform>,

    /// Tag of the images [default: the version with the beginning of the image's digest, which is
    /// another for other content; and the version, for this machine's own use]
    #[arg(long, value_parser = oci::tag)]
    tag: Option<String>,
}

/// An image that this repository makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// The node agent
    Agent,
    /// The servers and the client of `deploy/examples`
    Examples,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Agent => "splitter-agent",
            Self::Examples => "splitter-examples",
        }
    }

    const fn program(self) -> program::Source {
        match self {
            Self::Agent => program::Source {
                package: "splitter-agent",
                binary: "splitter-agent",
            },
            Self::Examples => program::Source {
                package: "splitter-examples",
                binary: "example",
            },
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Agent => "splitter-agent",
            Self::Examples => "splitter examples",
        }
    }

    const fn description(self) -> &'static str {
        match self {
            Self::Agent => {
                "Weighted canaries for Kubernetes Services, in the kernel: the node agent"
            }
            Self::Examples => "Servers that tell their identity, and a client that counts them",
        }
    }

    const fn command(self) -> &'static [&'static str] {
        match self {
            Self::Agent => &["run"],
            Self::Examples => &["serve"],
        }
    }
}

/// What to build.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which image.
    pub kind: Kind,
    /// For what; each platform once.
    pub platforms: Vec<Platform>,
    /// The directory for the archive; `target/image` if none is named.
    pub output: Option<PathBuf>,
    /// The tag; if none is given, one that is another for other content.
    pub tag: Option<String>,
}

impl Options {
    /// An image for this machine alone, with the tag that the manifests in `deploy` name.
    #[must_use]
    pub fn for_this_machine(kind: Kind) -> Self {
        Self {
            kind,
            platforms: vec![Platform::host()],
            output: None,
            tag: Some(VERSION.to_owned()),
        }
    }
}

/// What has to be installed to build images for this machine alone.
#[must_use]
pub fn requirements_for_this_machine() -> Vec<Requirement> {
    program::requirements(&[Platform::host()])
}

/// What was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The archive, for `ctr --namespace k8s.io images import`.
    pub archive: PathBuf,
    /// The program in the image, for each platform.
    pub programs: Vec<(Platform, PathBuf)>,
    /// The name to push the image under, without a registry, such as
    /// `splitter-agent:0.1.0-c9a8b7f0e1d2`.
    pub reference: String,
    /// The digest of the image, with `sha256:` before it.
    pub digest: String,
}

impl Built {
    /// The program for this machine, if the image is for this machine too.
    #[must_use]
    pub fn program_for_this_machine(&self) -> Option<&Path> {
        let mut programs = self.programs.iter();
        let found = programs.find(|(platform, _)| platform.is_host());
        found.map(|(_, program)| program.as_path())
    }
}

/// Builds the images that the command line asks for.
///
/// # Errors
///
/// When a tool is missing, or something cannot be compiled or written.
pub fn run(arguments: &ImageArgs) -> Result<()> {
    let kinds: &[Kind] = if arguments.images.is_empty() {
        Kind::value_variants()
    } else {
        &arguments.images
    };
    packages::ensure(&program::requirements(&arguments.platform))?;
    for kind in kinds {
        build(&Options {
            kind: *kind,
            platforms: arguments.platform.clone(),
            output: arguments.output.clone(),
            tag: arguments.tag.clone(),
        })?;
    }
    Ok(())
}

/// Compiles the program of an image for each platform, and packs them into one archive.
///
/// The same source gives the same digest, whoever builds it and wherever. Beside the archive is a
/// file with the tag, `splitter-agent.tag`.
///
/// # Errors
///
/// When a tool is missing, or something cannot be compiled or written.
pub fn build(options: &Options) -> Result<Built> {
    let Options {
        kind,
        tag,
        platforms,
        ..
    } = options;
    let mut platforms = platforms.clone();
    platforms.sort_unstable();
    platforms.dedup();
    packages::ensure(&program::requirements(&platforms))?;
    if *kind == Kind::Agent {
        build_ebpf::build()?;
    }
    let started = Instant::now();
    let source = kind.program();
    let mut variants = Vec::new();
    let mut programs = Vec::new();
    for platform in platforms {
        let program = program::build(&source, platform)?;
        variants.push(Variant {
            platform,
            layer: Layer::of_program(source.binary, &program)?,
        });
        programs.push((platform, program));
    }
    let image = Image {
        name: kind.name(),
        version: VERSION,
        tag: tag.as_deref(),
        program: source.binary,
        command: kind.command(),
        labels: revision::labels(kind.title(), kind.description(), VERSION),
        variants: &variants,
    };
    let Packed {
        archive,
        digest,
        tags,
    } = pack(&image)?;
    let tag = &tags[0];
    let directory = match &options.output {
        Some(directory) => std::path::absolute(directory)
            .with_context(|| format!("cannot use {}", directory.display()))?,
        None => target_directory()?.join("image"),
    };
    let path = directory.join(format!("{}.tar", kind.name()));
    replace_file(&path, &archive)?;
    // For scripts: `$(cat target/image/splitter-agent.tag)`.
    let tag_file = directory.join(format!("{}.tag", kind.name()));
    replace_file(&tag_file, format!("{tag}\n").as_bytes())?;
    let built = Built {
        archive: path,
        programs,
        reference: image.reference(tag),
        digest,
    };
    say(format_args!(
        "{} is {} ({}; {:.1} s)",
        short(&built.archive),
        built.reference,
        variants
            .iter()
            .map(|variant| format!("{} {}", variant.platform, variant.layer.size_text()))
            .collect::<Vec<_>>()
            .join(", "),
        started.elapsed().as_secs_f32(),
    ));
    Ok(built)
}

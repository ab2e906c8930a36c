//! Images: that they are what registries and runtimes expect, the same each time, and that what is
//! in them needs nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::read::GzDecoder;
use object::Endianness;
use object::elf::{self, FileHeader64};
use object::read::elf::{FileHeader as _, ProgramHeader as _};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tar::Archive;
use tempfile::TempDir;
use xtask::image::{Built, Image, Kind, Layer, Options, Platform, VERSION, Variant, build, pack};

/// An image for this machine in a directory of its own.
fn image(kind: Kind) -> (Built, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let built = build(&Options {
        output: Some(directory.path().to_owned()),
        ..Options::for_this_machine(kind)
    });
    (built.unwrap(), directory)
}

fn files(archive: impl Read) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
    let mut archive = Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        let header = entry.header();
        let times_and_owners = (
            header.mtime().unwrap(),
            header.uid().unwrap(),
            header.gid().unwrap(),
        );
        assert_eq!(times_and_owners, (0, 0, 0));
        let mode = header.mode().unwrap();
        (entry.path().unwrap().into_owned(), (mode, content))
    });
    entries.collect()
}

/// An image's layout: every document and blob, found by what refers to it, sizes and digests
/// checked on the way.
struct Layout(BTreeMap<PathBuf, (u32, Vec<u8>)>);

impl Layout {
    fn read(path: &Path) -> Self {
        Self(files(fs::File::open(path).unwrap()))
    }

    fn file(&self, path: impl AsRef<Path>) -> &[u8] {
        &self.0[path.as_ref()].1
    }

    fn blob(&self, descriptor: &Value) -> &[u8] {
        let digest = descriptor["digest"].as_str().unwrap();
        let blob = self.file(format!("blobs/{}", digest.replace(':', "/")));
        assert_eq!(sha256(blob), digest);
        assert_eq!(Some(blob.len() as u64), descriptor["size"].as_u64());
        blob
    }

    fn document(&self, descriptor: &Value) -> Value {
        let document: Value = serde_json::from_slice(self.blob(descriptor)).unwrap();
        if let Some(media_type) = document.get("mediaType") {
            assert_eq!(*media_type, descriptor["mediaType"]);
        }
        document
    }
}

fn sha256(content: &[u8]) -> String {
    let hex = Sha256::digest(content)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<String>();
    format!("sha256:{hex}")
}

#[test]
fn an_image_is_a_valid_layout_with_one_program() {
    let (built, _directory) = image(Kind::Examples);
    assert_eq!(built.reference, format!("splitter-examples:{VERSION}"));
    let tag = fs::read_to_string(built.archive.with_extension("tag")).unwrap();
    assert_eq!(tag, format!("{VERSION}\n"));
    let layout = Layout::read(&built.archive);
    let version: Value = serde_json::from_slice(layout.file("oci-layout")).unwrap();
    assert_eq!(version["imageLayoutVersion"], "1.0.0");

    let top: Value = serde_json::from_slice(layout.file("index.json")).unwrap();
    let image = &top["manifests"][0];
    assert_eq!(image["digest"], built.digest.as_str());
    assert_eq!(
        image["annotations"]["io.containerd.image.name"],
        format!("docker.io/library/{}", built.reference)
    );
    let index = layout.document(image);
    assert_eq!(index["manifests"].as_array().unwrap().len(), 1);
    let manifest = &index["manifests"][0];
    assert_eq!(
        manifest["platform"]["architecture"],
        Platform::host().architecture()
    );
    let manifest = layout.document(manifest);
    assert_eq!(
        manifest["annotations"]["org.opencontainers.image.version"],
        VERSION
    );
    let config = layout.document(&manifest["config"]);
    assert_eq!(config["os"], "linux");
    assert_eq!(config["config"]["Entrypoint"][0], "/example");
    let mut layer = Vec::new();
    GzDecoder::new(layout.blob(&manifest["layers"][0]))
        .read_to_end(&mut layer)
        .unwrap();
    assert_eq!(config["rootfs"]["diff_ids"][0], sha256(&layer).as_str());
    let files = files(&layer[..]);
    assert_eq!(files.keys().collect::<Vec<_>>(), [Path::new("example")]);
    assert_eq!(files[Path::new("example")].0, 0o555);
}

#[test]
fn other_content_has_another_tag() {
    let pack_of = |content: &str, tag: Option<&str>| {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("program");
        fs::write(&program, content).unwrap();
        let variants = [Variant {
            platform: Platform::host(),
            layer: Layer::of_program("program", &program).unwrap(),
        }];
        let packed = pack(&Image {
            name: "it",
            version: "1.2.3",
            tag,
            program: "program",
            command: &[],
            labels: BTreeMap::new(),
            variants: &variants,
        });
        packed.unwrap()
    };
    let (one, again, other) = (
        pack_of("one", None),
        pack_of("one", None),
        pack_of("other", None),
    );
    assert_eq!(one.tags, again.tags);
    assert_ne!(one.tags[0], other.tags[0]);
    let start = one.tags[0].strip_prefix("1.2.3-").unwrap();
    assert_eq!(start.len(), 12);
    assert!(one.digest.starts_with(&format!("sha256:{start}")));
    // For this machine's own use, under the name in the manifests.
    assert_eq!(one.tags[1], "1.2.3");
    let layout = Layout(files(&one.archive[..]));
    let top: Value = serde_json::from_slice(layout.file("index.json")).unwrap();
    for (manifest, tag) in top["manifests"].as_array().unwrap().iter().zip(&one.tags) {
        assert_eq!(manifest["digest"], one.digest.as_str());
        let annotations = &manifest["annotations"];
        assert_eq!(
            annotations["org.opencontainers.image.ref.name"],
            tag.as_str()
        );
        let name = format!("docker.io/library/it:{tag}");
        assert_eq!(annotations["io.containerd.image.name"], name);
    }
    // The digest is that of the content, whatever it is called.
    let named = pack_of("one", Some("mine"));
    assert_eq!(
        (named.tags, named.digest),
        (vec!["mine".to_owned()], one.digest)
    );
}

#[test]
fn the_same_source_makes_the_same_image() {
    let (one, _directory) = image(Kind::Examples);
    let (other, _another) = image(Kind::Examples);
    assert_eq!(one.digest, other.digest);
    assert_eq!(
        fs::read(one.archive).unwrap(),
        fs::read(other.archive).unwrap()
    );
}

#[test]
fn the_programs_need_no_other_file() {
    for (kind, name) in [(Kind::Agent, "splitter-agent"), (Kind::Examples, "example")] {
        let (built, directory) = image(kind);
        let layout = Layout::read(&built.archive);
        let docker: Value = serde_json::from_slice(layout.file("manifest.json")).unwrap();
        let layer = layout.file(docker[0]["Layers"][0].as_str().unwrap());
        let (_, program) = &files(GzDecoder::new(layer))[Path::new(name)];
        assert!(!has_interpreter(program), "{name} is not static");
        for place in [env!("CARGO_MANIFEST_DIR"), "/.cargo/registry"] {
            assert!(!contains(program, place), "{name} has {place} in it");
        }

        let path = directory.path().join(name);
        fs::write(&path, program).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).unwrap();
        let output = Command::new(&path).arg("--version").output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        // The agent names the commit as well.
        let mut words = text.split_whitespace().skip(1);
        assert_eq!(words.next(), Some(VERSION), "{text}");
    }
}

fn has_interpreter(program: &[u8]) -> bool {
    let header = FileHeader64::<Endianness>::parse(program).unwrap();
    let endian = header.endian().unwrap();
    header
        .program_headers(endian, program)
        .unwrap()
        .iter()
        .any(|segment| segment.p_type(endian) == elf::PT_INTERP)
}

fn contains(program: &[u8], text: &str) -> bool {
    program
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

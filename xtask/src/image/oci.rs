//! The documents of an image (OCI image specification 1.1), and the archive with all of them.

use std::collections::BTreeMap;
use std::io;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tar::Builder;
use testbed::digest::digest;

use super::Platform;
use super::layer::{Layer, entry};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// How much of a digest a tag has: no two images of one project share it by accident.
const DIGEST_LENGTH: usize = 12;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// What is to be packed.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    /// The name without a registry, such as `splitter-agent`.
    pub name: &'a str,
    /// The version of the program.
    pub version: &'a str,
    /// The only tag. Without one there are two: the version with the beginning of the digest, and
    /// the version.
    pub tag: Option<&'a str>,
    /// The program that it runs, at `/`.
    pub program: &'a str,
    /// The program's arguments, unless others are given.
    pub command: &'a [&'a str],
    /// What the image says about itself: labels and annotations.
    pub labels: BTreeMap<String, String>,
    /// The program for each platform.
    pub variants: &'a [Variant],
}

/// An image that is packed.
#[derive(Clone, Debug)]
pub struct Packed {
    /// An archive with its layout.
    pub archive: Vec<u8>,
    /// The digest of the image, with `sha256:` before it. It does not depend on the tag.
    pub digest: String,
    /// The tags in the archive; at least one, the one to publish it under first.
    pub tags: Vec<String>,
}

/// An image for one platform.
#[derive(Clone, Debug)]
pub struct Variant {
    /// The platform.
    pub platform: Platform,
    /// The file system.
    pub layer: Layer,
}

impl Image<'_> {
    /// The name with a tag.
    #[must_use]
    pub fn reference(&self, tag: &str) -> String {
        format!("{}:{tag}", self.name)
    }

    /// The tags of the image with this digest.
    fn tags(&self, digest: &str) -> Vec<String> {
        if let Some(tag) = self.tag {
            return vec![tag.to_owned()];
        }
        let hexadecimal = digest.split_once(':').map_or(digest, |(_, after)| after);
        let start = hexadecimal.get(..DIGEST_LENGTH).unwrap_or(hexadecimal);
        vec![format!("{}-{start}", self.version), self.version.to_owned()]
    }

    fn config(&self, variant: &Variant) -> Value {
        json!({
            "architecture": variant.platform.architecture(),
            "os": "linux",
            "config": {
                "User": "0:0",
                // So that `kubectl exec POD -- PROGRAM` finds it.
                "Env": ["PATH=/"],
                "Entrypoint": [format!("/{}", self.program)],
                "Cmd": self.command,
                "WorkingDir": "/",
                "Labels": self.labels,
            },
            "rootfs": {"type": "layers", "diff_ids": [variant.layer.diff_id]},
            "history": [{"created_by": "cargo xtask image"}],
        })
    }
}

/// Files of an archive by path, each blob under its digest.
#[derive(Default)]
struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    /// Adds a blob and returns its descriptor.
    fn blob(&mut self, media_type: &str, content: Vec<u8>) -> Value {
        let digest = digest(&content);
        let descriptor = json!({
            "mediaType": media_type,
            "digest": digest,
            "size": content.len(),
        });
        self.0.insert(blob_path(&digest), content);
        descriptor
    }

    fn document(&mut self, media_type: &str, document: &Value) -> Value {
        self.blob(media_type, document.to_string().into_bytes())
    }
}

/// Packs an image into an archive with its layout.
///
/// # Errors
///
/// When a document is not what was meant, or the archive cannot be written.
pub fn pack(image: &Image<'_>) -> Result<Packed> {
    let mut files = Files::default();
    let mut manifests = Vec::new();
    let mut docker = None;
    for variant in image.variants {
        let config = files.document(CONFIG, &image.config(variant));
        let layer = files.blob(LAYER, variant.layer.blob.clone());
        docker = Some((config.clone(), layer.clone()));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config,
            "layers": [layer],
            "annotations": image.labels,
        });
        let mut descriptor = files.document(MANIFEST, &manifest);
        descriptor["platform"] = json!({
            "architecture": variant.platform.architecture(),
            "os": "linux",
        });
        manifests.push(descriptor);
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": manifests,
        "annotations": image.labels,
    });
    let top = files.document(INDEX, &index);
    let digest = top["digest"]
        .as_str()
        .context("an image without a digest")?
        .to_owned();
    let tags = image.tags(&digest);
    let named = |tag: &String| {
        let mut top = top.clone();
        top["annotations"] = json!({
            // Kubelets ask for it by this name, whatever short one a manifest has.
            "io.containerd.image.name": format!("docker.io/library/{}", image.reference(tag)),
            "org.opencontainers.image.ref.name": tag,
        });
        top
    };
    let layout = json!({
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": tags.iter().map(named).collect::<Vec<_>>(),
    });
    let text = |document: &Value| document.to_string().into_bytes();
    let files = &mut files.0;
    files.insert("index.json".to_owned(), text(&layout));
    files.insert(
        "oci-layout".to_owned(),
        text(&json!({"imageLayoutVersion": "1.0.0"})),
    );
    // Docker's older image store reads only this, and knows one platform per name.
    if let (Some((config, layer)), 1) = (docker, image.variants.len()) {
        let manifest = docker_manifest(image, &tags, &config, &layer);
        files.insert("manifest.json".to_owned(), text(&manifest));
    }
    let archive = archive(files).context("cannot write the archive")?;
    Ok(Packed {
        archive,
        digest,
        tags,
    })
}

fn docker_manifest(image: &Image<'_>, tags: &[String], config: &Value, layer: &Value) -> Value {
    let names: Vec<_> = tags.iter().map(|tag| image.reference(tag)).collect();
    let path = |descriptor: &Value| blob_path(descriptor["digest"].as_str().unwrap_or_default());
    json!([{
        "Config": path(config),
        "RepoTags": names,
        "Layers": [path(layer)],
    }])
}

fn archive(files: &BTreeMap<String, Vec<u8>>) -> io::Result<Vec<u8>> {
    let mut archive = Builder::new(Vec::new());
    for (path, content) in files {
        archive.append(&entry(path, content.len(), 0o444)?, &content[..])?;
    }
    archive.into_inner()
}

fn blob_path(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

/// A tag, if registries would take it.
pub(super) fn tag(text: &str) -> Result<String, String> {
    let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let other = |c: char| first(c) || c == '.' || c == '-';
    if text.len() <= 128 && text.starts_with(first) && text.chars().all(other) {
        Ok(text.to_owned())
    } else {
        Err(
            "a tag has up to 128 letters, digits, `_`, `.` and `-`, and starts with none of the \
             last two"
                .to_owned(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_of_nothing_is_known() {
        let nothing = digest(b"");
        assert!(nothing.starts_with("sha256:e3b0c44298fc1c14"), "{nothing}");
        assert_eq!(nothing.len(), "sha256:".len() + 64);
    }

    #[test]
    fn tags_are_those_of_registries() {
        assert!(tag("0.1.0-rc.1").is_ok());
        assert!(tag("_x").is_ok());
        for wrong in ["", ".1", "a b", "a:b", "0.1.0+build", &"x".repeat(129)] {
            assert!(tag(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_digest_is_written_as_in_a_registry() {
        assert_eq!(
            digest(b""),
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }
}

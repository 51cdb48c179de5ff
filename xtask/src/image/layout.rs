//! The OCI image layout (opencontainers/image-spec v1.1): blobs by their digests, and an archive of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::{Value, json};
use xtask::command::{output, run};

use super::platform::Platform;

/// What is said of the image.
pub(super) struct About {
    pub(super) name: String,
    /// Seconds since 1970.
    pub(super) created: i64,
    pub(super) revision: Option<String>,
}

/// What is in it, for one platform.
pub(super) struct Image {
    pub(super) platform: Platform,
    pub(super) program: PathBuf,
    pub(super) sbom: Value,
}

/// The files of the image.
const PROGRAM: &str = "observer";
const SBOM: &str = "sbom.spdx.json";

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Writes the layout into a directory that is made anew, and an archive of it. Returns the digest of what the image's name stands for: a manifest, or an
/// index of them where there are several platforms. The files of each image stay in `files/ARCHITECTURE`.
pub(super) fn write(images: &[Image], about: &About, directory: &Path, archive: &Path) -> Result<String> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    let layout = directory.join("layout");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let mut manifests = images.iter().map(|image| manifest(image, about, directory, &blobs)).collect::<Result<Vec<Value>>>()?;
    let mut named = match (manifests.pop(), manifests.is_empty()) {
        (Some(only), true) => only,
        (last, _) => {
            manifests.extend(last);
            // Readers take one entry for a name, and choose by the platform behind it.
            put(&blobs, &serde_json::to_vec(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}))?, INDEX)?
        }
    };
    let digest = named["digest"].as_str().unwrap_or_default().to_owned();
    let tag = about.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    named["annotations"] = json!({"io.containerd.image.name": about.name, "org.opencontainers.image.ref.name": tag});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [named]});
    fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar(&layout, &["blobs", "index.json", "oci-layout"], archive, about.created)?;
    Ok(digest)
}

/// Puts the blobs of one image; how its manifest is referred to.
fn manifest(image: &Image, about: &About, directory: &Path, blobs: &Path) -> Result<Value> {
    let architecture = image.platform.architecture();
    let files = directory.join("files").join(architecture);
    fs::create_dir_all(&files)?;
    fs::copy(&image.program, files.join(PROGRAM)).with_context(|| format!("cannot copy {}", image.program.display()))?;
    fs::write(files.join(SBOM), serde_json::to_vec_pretty(&image.sbom)?)?;
    run(Command::new("chmod").arg("0755").arg(files.join(PROGRAM)))?;
    run(Command::new("chmod").arg("0644").arg(files.join(SBOM)))?;

    let layer = directory.join(format!("{architecture}.tar"));
    tar(&files, &[PROGRAM, SBOM], &layer, about.created)?;
    let uncompressed = digest(&layer)?;
    run(Command::new("gzip").args(["--no-name", "--best", "--force"]).arg(&layer))?;
    let layer = put(blobs, &fs::read(directory.join(format!("{architecture}.tar.gz")))?, LAYER)?;
    let config = put(blobs, &serde_json::to_vec(&config(image.platform, about, &uncompressed)?)?, CONFIG)?;
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
    let mut manifest = put(blobs, &serde_json::to_vec(&manifest)?, MANIFEST)?;
    manifest["platform"] = json!({"architecture": architecture, "os": "linux"});
    Ok(manifest)
}

/// What is run and as whom. deploy/Dockerfile says the same; a test holds them together.
pub(super) fn config(platform: Platform, about: &About, layer: &str) -> Result<Value> {
    let created = Timestamp::from_second(about.created).context("the time of the sources is no time")?.to_string();
    let mut labels = json!({
        "org.opencontainers.image.title": "netpol-observer",
        "org.opencontainers.image.description": "Shows every connection that NetworkPolicies block, with the responsible rule and the smallest fix",
        "org.opencontainers.image.version": env!("CARGO_PKG_VERSION"),
        "org.opencontainers.image.licenses": "MIT OR Apache-2.0",
        "org.opencontainers.image.created": created,
    });
    if let Some(revision) = &about.revision {
        labels["org.opencontainers.image.revision"] = json!(revision);
    }
    Ok(json!({
        "created": created, "architecture": platform.architecture(), "os": "linux",
        "config": {"Entrypoint": [format!("/{PROGRAM}")], "User": "0:0", "WorkingDir": "/", "Labels": labels},
        "rootfs": {"type": "layers", "diff_ids": [layer]},
        "history": [{"created": created, "created_by": "cargo xtask image"}],
    }))
}

/// Puts a blob under its digest; how others refer to it.
fn put(blobs: &Path, bytes: &[u8], media_type: &str) -> Result<Value> {
    let file = blobs.join("new");
    fs::write(&file, bytes)?;
    let digest = digest(&file)?;
    let (_, name) = digest.split_once(':').context("a digest has an algorithm")?;
    fs::rename(&file, blobs.join(name))?;
    Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
}

fn digest(file: &Path) -> Result<String> {
    let sum = output(Command::new("sha256sum").arg("--binary").arg(file))?;
    Ok(format!("sha256:{}", sum.split(' ').next().unwrap_or_default()))
}

/// An archive that depends on nothing but names, modes and contents.
fn tar(directory: &Path, names: &[&str], archive: &Path, created: i64) -> Result<()> {
    let mut command = Command::new("tar");
    command.args(["--create", "--format=ustar", "--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=u+rwX,go+rX,go-w"]);
    command.arg(format!("--mtime=@{created}")).arg("--file").arg(archive).arg("--directory").arg(directory).args(names);
    run(&mut command)
}

#[cfg(test)]
mod tests;

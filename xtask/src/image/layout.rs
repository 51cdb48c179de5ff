//! The OCI image layout (opencontainers/image-spec v1.1): blobs by their digests, and an archive of it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde_json::{Value, json};
use xtask::command::{output, run};

/// What is said of the image.
pub(super) struct About {
    pub(super) name: String,
    /// Seconds since 1970.
    pub(super) created: i64,
    pub(super) revision: Option<String>,
}

/// What is in it.
pub(super) struct Image<'a> {
    pub(super) program: &'a Path,
    pub(super) sbom: &'a Value,
    pub(super) about: &'a About,
}

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Writes the layout into a directory that is made anew, and an archive of it. Returns the digest of the manifest.
pub(super) fn write(image: &Image<'_>, directory: &Path, archive: &Path) -> Result<String> {
    if directory.exists() {
        fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    let (files, layout) = (directory.join("files"), directory.join("layout"));
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&files)?;
    fs::create_dir_all(&blobs)?;
    fs::copy(image.program, files.join("observer")).with_context(|| format!("cannot copy {}", image.program.display()))?;
    fs::write(files.join("sbom.spdx.json"), serde_json::to_vec_pretty(image.sbom)?)?;
    run(Command::new("chmod").arg("0755").arg(files.join("observer")))?;
    run(Command::new("chmod").arg("0644").arg(files.join("sbom.spdx.json")))?;

    let layer = directory.join("layer.tar");
    tar(&files, &["observer", "sbom.spdx.json"], &layer, image.about.created)?;
    let uncompressed = digest(&layer)?;
    run(Command::new("gzip").args(["--no-name", "--best", "--force"]).arg(&layer))?;
    let layer = put(&blobs, &fs::read(directory.join("layer.tar.gz"))?, LAYER)?;
    let config = put(&blobs, &serde_json::to_vec(&config(image.about, &uncompressed)?)?, CONFIG)?;
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
    let mut manifest = put(&blobs, &serde_json::to_vec(&manifest)?, MANIFEST)?;
    let digest = manifest["digest"].as_str().unwrap_or_default().to_owned();
    manifest["platform"] = json!({"architecture": "amd64", "os": "linux"});
    let tag = image.about.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    manifest["annotations"] = json!({"io.containerd.image.name": image.about.name, "org.opencontainers.image.ref.name": tag});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest]});
    fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)?;
    fs::write(layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar(&layout, &["blobs", "index.json", "oci-layout"], archive, image.about.created)?;
    Ok(digest)
}

fn config(about: &About, layer: &str) -> Result<Value> {
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
        "created": created, "architecture": "amd64", "os": "linux",
        "config": {"Entrypoint": ["/observer"], "User": "0:0", "WorkingDir": "/", "Labels": labels},
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

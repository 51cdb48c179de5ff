//! `cargo xtask image`: the agents' image, built without a container engine: one static program, FROM scratch.
//!
//! The same sources give the same bytes, wherever they lie: paths are kept out of the program, and times and owners out of the archives.

mod layout;
mod program;
mod sbom;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use xtask::command::output;

use self::layout::{About, Image};

/// An image that takes longer to pull than this is no two minutes' work.
const LARGEST: u64 = 25 * 1000 * 1000;

/// `cargo xtask image`
#[derive(Args)]
pub(crate) struct ImageOptions {
    /// Write the image here, as an archive of an OCI image layout, as skopeo takes it. By default
    /// target/image/netpol-observer.tar in the workspace.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Take this static program instead of building one.
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,
    /// What the image is called in the archive.
    #[arg(long, value_name = "NAME:TAG", default_value = concat!("netpol-observer:", env!("CARGO_PKG_VERSION")))]
    name: String,
}

pub(crate) fn run(root: &Path, options: &ImageOptions) -> Result<()> {
    let directory = root.join("target/image");
    std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let program = options.program.clone().map_or_else(|| program::build(root, &directory), Ok)?;
    program::check_static(&program)?;
    let about = about(root, &options.name)?;
    let sbom = sbom::of(root, about.created)?;
    let image = Image { program: &program, sbom: &sbom, about: &about };
    let archive = options.output.clone().unwrap_or_else(|| directory.join("netpol-observer.tar"));
    let digest = layout::write(&image, &directory.join("layout"), &archive)?;
    let size = archive.metadata().with_context(|| format!("cannot read {}", archive.display()))?.len();
    println!("{}: {} {digest}, {:.1} MB", archive.display(), about.name, size as f64 / 1e6);
    if size > LARGEST {
        bail!("the image has {size} bytes, more than {LARGEST}");
    }
    Ok(())
}

/// When the sources were committed last, unless `SOURCE_DATE_EPOCH` says otherwise (reproducible-builds.org), and as what.
fn about(root: &Path, name: &str) -> Result<About> {
    let git = |arguments: &[&str]| output(Command::new("git").current_dir(root).args(arguments)).map(|text| text.trim().to_owned());
    let created = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => seconds.parse().with_context(|| format!("SOURCE_DATE_EPOCH is {seconds:?}, and not a number of seconds"))?,
        // Sources that are no checkout have no time of their own.
        Err(_) => git(&["log", "-1", "--format=%ct"]).ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(0),
    };
    Ok(About { name: name.to_owned(), created, revision: git(&["rev-parse", "HEAD"]).ok() })
}

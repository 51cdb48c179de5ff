//! `cargo xtask image`: the agents' image, built without a container engine: one static program, FROM scratch.
//!
//! The same sources give the same bytes, wherever they lie: paths are kept out of the program, and times and owners out of the archives.

#[cfg(test)]
mod dockerfile;
mod layout;
mod platform;
mod program;
mod sbom;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use xtask::command::output;

use self::layout::{About, Image};
use self::platform::Platform;

/// An image that takes longer to pull than this is no two minutes' work.
const LARGEST: u64 = 25 * 1000 * 1000;

/// `cargo xtask image`
#[derive(Args)]
pub(crate) struct ImageOptions {
    /// Write the image here, as an archive of an OCI image layout, as skopeo takes it. By default
    /// target/image/netpol-observer.tar in the workspace.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// For which machines, separated by commas: the archive then holds an image for each under one name. By default for machines like this one. For
    /// others it takes Debian's cross compiler, and Rust's standard library for them from rustup; both are brought.
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',', value_enum)]
    platform: Vec<Platform>,
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
    let platforms = if options.platform.is_empty() { vec![Platform::of_this_machine()?] } else { in_order(&options.platform) };
    if options.program.is_some() && platforms.len() > 1 {
        bail!("one program is not for several platforms: leave --program out, or name one --platform");
    }
    let about = about(root, &options.name)?;
    let build = |&platform: &Platform| {
        let program = options.program.clone().map_or_else(|| program::build(root, &directory, platform), Ok)?;
        program::check(&program, platform)?;
        Ok(Image { platform, program, sbom: sbom::of(root, platform, about.created)? })
    };
    let images = platforms.iter().map(build).collect::<Result<Vec<_>>>()?;
    let archive = options.output.clone().unwrap_or_else(|| directory.join("netpol-observer.tar"));
    let digest = layout::write(&images, &about, &directory.join("layout"), &archive)?;
    let size = archive.metadata().with_context(|| format!("cannot read {}", archive.display()))?.len();
    let names: Vec<String> = platforms.iter().map(Platform::to_string).collect();
    println!("{}: {} {digest} for {}, {:.1} MB", archive.display(), about.name, names.join(" and "), size as f64 / 1e6);
    // A node pulls one of them.
    let each = size / platforms.len() as u64;
    if each > LARGEST {
        bail!("the image has {each} bytes, more than {LARGEST}");
    }
    Ok(())
}

/// Each once, so that the same set gives the same archive.
fn in_order(platforms: &[Platform]) -> Vec<Platform> {
    platforms.iter().copied().collect::<BTreeSet<_>>().into_iter().collect()
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

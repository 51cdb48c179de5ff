//! Debian's cloud kernels: found in its package lists, fetched, unpacked. With lists and caches of our own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use xtask::command::{output, run};

/// A kernel series, and where Debian has it.
#[derive(Debug)]
pub(crate) struct Series {
    /// `5.10`; `7` is the newest of all 7.x.
    pub(super) name: &'static str,
    /// Archive (below the mirror) and suite.
    suites: &'static [(Archive, &'static str)],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Archive {
    Main,
    Security,
}

/// The kernels that are tested: the oldest that is supported, those of the stable releases, the newest.
pub(super) const SERIES: &[Series] = &[
    Series { name: "5.10", suites: &[(Archive::Security, "bullseye-security")] },
    Series { name: "6.1", suites: &[(Archive::Main, "bookworm"), (Archive::Security, "bookworm-security")] },
    Series { name: "6.12", suites: &[(Archive::Main, "trixie"), (Archive::Security, "trixie-security")] },
    Series { name: "7", suites: &[(Archive::Main, "trixie-backports"), (Archive::Main, "sid")] },
];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Lists younger than this are not asked for again.
const LISTS_KEEP: Duration = Duration::from_secs(12 * 3600);

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// The series it was asked for by.
    pub(super) series: &'static str,
    /// `uname -r`
    pub(super) release: String,
    /// What its packages hold, modules decompressed and indexed.
    pub(super) tree: PathBuf,
}

impl Kernel {
    /// The compressed kernel; newer packages have it among the modules.
    pub(super) fn image(&self) -> PathBuf {
        let beside = self.modules().join("vmlinuz");
        if beside.is_file() { beside } else { self.tree.join("boot").join(format!("vmlinuz-{}", self.release)) }
    }

    /// The directory that is called after the release.
    pub(super) fn modules(&self) -> PathBuf {
        modules_of(&self.tree, &self.release)
    }
}

/// Newer packages have merged /lib into /usr/lib.
fn modules_of(tree: &Path, release: &str) -> PathBuf {
    let below = |lib: &str| tree.join(lib).join("modules").join(release);
    let merged = below("usr/lib");
    if merged.is_dir() { merged } else { below("lib") }
}

/// apt with directories of its own.
struct Apt {
    directory: PathBuf,
}

impl Apt {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let directory = self.directory.display();
        for option in [
            format!("Dir::Etc::SourceList={directory}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={directory}/lists"),
            format!("Dir::State::status={directory}/status"),
            format!("Dir::Cache={directory}"),
            "APT::Architecture=amd64".to_owned(),
            "APT::Architectures=amd64".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            "Acquire::Retries=2".to_owned(),
            "Acquire::http::Timeout=30".to_owned(),
            // The directories are ours, wherever they lie.
            "APT::Sandbox::User=".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.stdin(Stdio::null());
        command
    }

    /// Writes the sources and fetches their lists, unless that was done a short time ago.
    fn update(&self) -> Result<()> {
        for directory in ["lists/partial", "archives/partial"] {
            fs::create_dir_all(self.directory.join(directory))?;
        }
        fs::write(self.directory.join("status"), "")?;
        let sources = sources();
        let list = self.directory.join("sources.list");
        let stamp = self.directory.join("updated");
        let young = fs::metadata(&stamp).and_then(|file| file.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|age| age < LISTS_KEEP));
        if young && fs::read_to_string(&list).is_ok_and(|before| before == sources) {
            return Ok(());
        }
        fs::write(&list, sources)?;
        eprintln!("xtask: fetching Debian's lists of kernels");
        run(self.command("apt-get").args(["update", "-qq", "--error-on=any"]))?;
        fs::write(stamp, "")?;
        Ok(())
    }
}

/// The lines of a sources.list: the machine's own mirror where it has one.
fn sources() -> String {
    let mut configured = String::new();
    let files = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten().map(|entry| entry.path());
    for file in std::iter::once(PathBuf::from("/etc/apt/sources.list")).chain(files) {
        configured += &fs::read_to_string(file).unwrap_or_default();
        configured.push('\n');
    }
    let mut lines: Vec<String> = SERIES
        .iter()
        .flat_map(|series| series.suites)
        .map(|&(archive, suite)| format!("deb [signed-by={KEYRING}] {} {suite} main\n", mirror(archive, &configured)))
        .collect();
    lines.sort();
    lines.dedup();
    lines.concat()
}

/// Where the configured sources have this archive: the first address with its name, of a line that is no comment.
fn mirror(archive: Archive, configured: &str) -> String {
    let (end, default) = match archive {
        Archive::Main => ("/debian", "http://deb.debian.org/debian"),
        Archive::Security => ("/debian-security", "http://deb.debian.org/debian-security"),
    };
    let lines = configured.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut words = lines.flat_map(str::split_whitespace).map(|word| word.trim_end_matches('/'));
    words.find(|word| word.contains("://") && word.ends_with(end)).unwrap_or(default).to_owned()
}

/// Fetches and unpacks the newest kernel of each series. What was fetched before serves where the mirror cannot be reached.
pub(super) fn bring(directory: &Path, wanted: impl Iterator<Item = &'static Series>) -> Result<Vec<Kernel>> {
    let apt = Apt { directory: directory.join("apt") };
    let names = match apt.update().and_then(|()| output(apt.command("apt-cache").args(["pkgnames", "linux-"]))) {
        Ok(names) => names,
        Err(error) => {
            eprintln!("xtask: Debian's mirror cannot be asked for kernels, using what was fetched before: {error:#}");
            String::new()
        }
    };
    let names: Vec<&str> = names.lines().collect();
    wanted.map(|series| bring_one(directory, &apt, series, &names)).collect()
}

fn bring_one(directory: &Path, apt: &Apt, series: &'static Series, names: &[&str]) -> Result<Kernel> {
    let trees = directory.join("trees");
    fs::create_dir_all(&trees)?;
    let here: Vec<String> = fs::read_dir(&trees)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let offered = newest(series.name, names.iter().filter_map(|name| name.strip_prefix("linux-image-")));
    let Some(release) = offered.or_else(|| newest(series.name, here.iter().map(String::as_str))) else {
        bail!(
            "no kernel {}.x: none was fetched before, and Debian's suites {:?} offer none or cannot be reached",
            series.name,
            series.suites.iter().map(|(_, suite)| suite).collect::<Vec<_>>()
        );
    };
    let tree = trees.join(release);
    if !tree.is_dir() {
        // Since 7.2 the package linux-image-… holds nothing and needs the others.
        let packages: Vec<String> = ["image", "binary", "modules", "base"].iter().map(|part| format!("linux-{part}-{release}")).collect();
        let packages: Vec<&String> = packages.iter().filter(|package| names.contains(&package.as_str())).collect();
        eprintln!("xtask: fetching kernel {release}");
        let unfinished = trees.join(format!("unfinished-{}", series.name));
        let _ = fs::remove_dir_all(&unfinished);
        fs::create_dir_all(unfinished.join("debs"))?;
        run(apt.command("apt-get").args(["download", "-qq"]).args(packages).current_dir(unfinished.join("debs")))?;
        let unpacked = unfinished.join("tree");
        for deb in fs::read_dir(unfinished.join("debs"))?.flatten() {
            run(Command::new("dpkg").arg("-x").arg(deb.path()).arg(&unpacked))?;
        }
        prepare_modules(&unpacked, release)?;
        // Goes last, so that an unfinished one is never used.
        fs::rename(&unpacked, &tree)?;
        fs::remove_dir_all(&unfinished)?;
    }
    let kernel = Kernel { series: series.name, release: release.to_owned(), tree };
    if !kernel.image().is_file() {
        bail!("Debian's packages of kernel {release} hold no vmlinuz");
    }
    Ok(kernel)
}

/// The newest cloud kernel of a series among releases as package names have them.
fn newest<'a>(series: &str, releases: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let of_series = releases.filter(|release| {
        release.strip_prefix(series).is_some_and(|rest| rest.starts_with('.') && rest[1..].starts_with(|c: char| c.is_ascii_digit()))
    });
    of_series.filter(|release| release.ends_with("-cloud-amd64")).max_by_key(|release| numbers(release))
}

/// `6.12.100+deb13` → 6, 12, 100, 13: what orders releases of one series and packager.
fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Decompresses the modules, which modprobe need not be able to do then, and indexes them as their installation would.
fn prepare_modules(tree: &Path, release: &str) -> Result<()> {
    let modules = modules_of(tree, release);
    let mut compressed = Vec::new();
    collect(&modules, &mut |path| {
        if path.extension().is_some_and(|extension| extension == "xz") {
            compressed.push(path.to_owned());
        }
    })?;
    for part in compressed.chunks(200) {
        run(Command::new("xz").args(["--decompress", "--threads=0"]).args(part))?;
    }
    // depmod wants lib/modules.
    let base = modules.ancestors().nth(3).context("modules lie in a lib/modules")?;
    run(Command::new("/sbin/depmod").arg("-b").arg(base).arg(release))
}

/// Calls `each` with every file below a directory.
pub(super) fn collect(directory: &Path, each: &mut impl FnMut(&Path)) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() { collect(&path, each)? } else { each(&path) }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_series() {
        let releases = [
            "6.1.0-0.deb11.52-cloud-amd64",
            "6.1.0-57-cloud-amd64",
            "6.1.0-9-cloud-amd64",
            "6.1.0-58-amd64",
            "6.12.100+deb13-cloud-amd64",
            "6.12.99+deb13-cloud-amd64",
            "6.1-cloud-amd64",
            "7.2.13+deb14-cloud-amd64",
            "7.10.1+deb13-cloud-amd64",
            "7.3.4+deb13-cloud-amd64-dbg",
        ];
        let of = |series| newest(series, releases.iter().copied());
        assert_eq!(of("6.1"), Some("6.1.0-57-cloud-amd64"));
        assert_eq!(of("6.12"), Some("6.12.100+deb13-cloud-amd64"));
        assert_eq!(of("7"), Some("7.10.1+deb13-cloud-amd64"));
        assert_eq!(of("5.10"), None);
    }

    #[test]
    fn the_machines_own_mirror_is_taken() {
        let configured = "# http://old.example/debian\nTypes: deb\nURIs: http://mirror.example/debian/\nSuites: trixie\n\
                          deb https://mirror.example/debian-security trixie-security main\n";
        assert_eq!(mirror(Archive::Main, configured), "http://mirror.example/debian");
        assert_eq!(mirror(Archive::Security, configured), "https://mirror.example/debian-security");
        assert_eq!(mirror(Archive::Main, "deb https://download.example/linux stable"), "http://deb.debian.org/debian");
    }
}

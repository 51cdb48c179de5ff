//! `--watch`: judges again whenever a file is saved, and says what changed.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anstream::AutoStream;
use jiff::Zoned;
use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout_at};

use super::change::{Turn, between};
use super::place::Places;
use super::report::{Form, Judged};
use super::{CheckArgs, text};
use crate::cli::objects::SourceArgs;
use crate::cli::signals::Signals;
use crate::cli::{Colour, CommandError};
use crate::cluster::manifests::is_manifest;
use crate::serve::render::{Palette, clean, clean_lines};

/// How long it must have been quiet before files are read: an editor that saves writes, renames and removes in a row.
const QUIET: Duration = Duration::from_millis(100);
/// How long one waits for quiet at most.
const PATIENCE: Duration = Duration::from_secs(1);
/// Names of changed files that may wait. More need no telling: one is enough to read everything anew.
const WAITING: usize = 64;
/// Exit code after a signal: nothing else ends it.
const ENDED: i32 = 0;
/// Changed files that are named.
const NAMED: usize = 3;

/// Judges, and again after every change, until a signal ends the process.
pub(super) fn run(arguments: &CheckArgs, colour: Colour) -> Result<(), CommandError> {
    let paths = paths(arguments)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|error| CommandError::failure(format!("cannot start: {error}")))?;
    let _entered = runtime.enter();
    let signals = Signals::new().map_err(|error| CommandError::failure(format!("cannot catch signals: {error}")))?;
    // There is nothing to wind up, and judging may take its time.
    signals.exit_at_next(ENDED);
    let (changed, changes) = channel(WAITING);
    let mut watched = Watched::new(&paths, changed)?;
    // Before the files are read: what is saved meanwhile is not missed.
    watched.renew();
    match runtime.block_on(follow(arguments, colour, &mut watched, changes)) {
        // A reader that has gone does not matter.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::failure(format!("standard output: {error}"))),
        _ => Ok(()),
    }
}

/// The files and directories to be watched.
fn paths(arguments: &CheckArgs) -> Result<Vec<PathBuf>, CommandError> {
    let CheckArgs { sources, tests, output, .. } = arguments;
    let SourceArgs { paths, manifests, rev, .. } = sources;
    let paths: Vec<PathBuf> = paths.iter().chain(manifests).chain(tests).cloned().collect();
    let refused = if rev.is_some() {
        "a revision, which never changes"
    } else if sources.is_of_cluster() {
        "a cluster"
    } else if paths.iter().any(|path| path.as_os_str() == "-") {
        "standard input"
    } else {
        if *output != Form::Text {
            return Err(CommandError::usage("--watch writes text only").hint("leave out -o, or run without --watch"));
        }
        if paths.is_empty() {
            return Err(CommandError::usage("nothing to watch").hint("name files or directories of manifests"));
        }
        return Ok(paths);
    };
    Err(CommandError::usage(format!("--watch watches files, not {refused}")).hint("name files or directories of manifests alone"))
}

async fn follow(arguments: &CheckArgs, colour: Colour, watched: &mut Watched, mut changes: Receiver<PathBuf>) -> io::Result<()> {
    let mut out = AutoStream::new(io::stdout(), colour.choice());
    let mut before = show_first(arguments, &mut out)?;
    while let Some(first) = changes.recv().await {
        let names = settle(first, &mut changes).await;
        watched.renew();
        let dim = Palette::COLOURED.dim;
        writeln!(out, "\n{dim}{}{dim:#} {} changed", Zoned::now().strftime("%H:%M:%S"), clean(&names))?;
        match arguments.judge() {
            Err(error) => writeln!(out, "{}", clean_lines(&error.to_string()))?,
            Ok(judged) => {
                match &before {
                    Some(before) => write_change(arguments, before, &judged, &mut out)?,
                    None => write_all(arguments, &judged, &mut out)?,
                }
                before = Some(judged);
            }
        }
        out.flush()?;
    }
    Ok(())
}

/// The first run in full. A manifest that cannot be read is shown, and may be mended.
fn show_first(arguments: &CheckArgs, out: &mut impl Write) -> io::Result<Option<Judged>> {
    let judged = match arguments.judge() {
        Err(error) => {
            writeln!(out, "{}", clean_lines(&error.to_string()))?;
            None
        }
        Ok(judged) => {
            if let Some(left_out) = &judged.left_out {
                // Standard error may be closed; that ends nothing.
                _ = writeln!(io::stderr(), "warning: {}", clean_lines(left_out));
            }
            write_all(arguments, &judged, out)?;
            Some(judged)
        }
    };
    writeln!(out, "watching for changes; Ctrl-C ends it")?;
    out.flush()?;
    Ok(judged)
}

fn write_all(arguments: &CheckArgs, judged: &Judged, out: &mut impl Write) -> io::Result<()> {
    arguments.checked(judged, &Places::here(None)).write(Form::Text, out)
}

/// What came, went and turned, and what it comes to now.
fn write_change(arguments: &CheckArgs, before: &Judged, judged: &Judged, out: &mut impl Write) -> io::Result<()> {
    let change = between(before, judged);
    for finding in &change.came {
        text::write_finding(finding, out)?;
    }
    for finding in &change.went {
        text::write_gone(finding, out)?;
    }
    for (turn, result) in &change.tests {
        match turn {
            Turn::Fails | Turn::FailsOtherwise => out.write_all(text::block(result, Palette::COLOURED).as_bytes())?,
            Turn::Passes | Turn::Came => text::write_passed(result, out)?,
            Turn::Went => text::write_removed(result, out)?,
        }
    }
    if change.is_empty() {
        writeln!(out, "no test and no finding is otherwise than before")?;
    }
    for line in text::summaries(&arguments.checked(judged, &Places::here(None))) {
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// Waits until it is quiet, and names what changed.
async fn settle(first: PathBuf, changes: &mut Receiver<PathBuf>) -> String {
    let latest = Instant::now() + PATIENCE;
    let mut names = BTreeSet::from([shown(&first)]);
    while let Ok(Some(path)) = timeout_at((Instant::now() + QUIET).min(latest), changes.recv()).await {
        names.insert(shown(&path));
    }
    let more = names.len().saturating_sub(NAMED);
    let named = names.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}

/// From the working directory, where it is below it.
fn shown(path: &Path) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).unwrap_or(path).display().to_string()
}

/// The watches of the files and directories that are read.
struct Watched {
    watcher: RecommendedWatcher,
    wanted: Arc<Wanted>,
}

/// What is read, by absolute paths: as they are given, and where links lead.
#[derive(Debug, Default)]
struct Wanted(Vec<PathBuf>);

impl Watched {
    fn new(paths: &[PathBuf], changed: Sender<PathBuf>) -> Result<Self, CommandError> {
        let absolute = paths.iter().filter_map(|path| std::path::absolute(path).ok()).map(|path| plain(&path));
        let real = paths.iter().filter_map(|path| std::fs::canonicalize(path).ok());
        let all: BTreeSet<PathBuf> = absolute.chain(real).collect();
        let wanted = Arc::new(Wanted(all.into_iter().collect()));
        let heard = Arc::clone(&wanted);
        let handler = move |event: notify::Result<Event>| {
            let Ok(event) = event else { return };
            if let Some(path) = heard.touched(&event) {
                // Full: enough is waiting already.
                _ = changed.try_send(path);
            }
        };
        let watcher =
            notify::recommended_watcher(handler).map_err(|error| CommandError::failure(format!("files cannot be watched: {error}")))?;
        Ok(Watched { watcher, wanted })
    }

    /// Watches everything that is there: directories with what is in them, and the directory around each path, for it may be removed and made anew.
    /// What is watched already stays so.
    fn renew(&mut self) {
        let paths = &self.wanted.0;
        let around = paths.iter().filter_map(|path| path.parent()).map(|parent| (parent, RecursiveMode::NonRecursive));
        let inside = paths.iter().filter(|path| path.is_dir()).map(|path| (path.as_path(), RecursiveMode::Recursive));
        // In this order: of two watches of a directory the later one says how deep it goes.
        for (path, mode) in around.chain(inside) {
            if let Err(error) = self.watcher.watch(path, mode) {
                tracing::debug!("{} is not watched: {error}", path.display());
            }
        }
    }
}

impl Wanted {
    /// The path that makes it necessary to read everything anew.
    fn touched(&self, event: &Event) -> Option<PathBuf> {
        if event.need_rescan() {
            return self.0.first().cloned();
        }
        match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => {}
            // That somebody reads, as this program does itself.
            EventKind::Access(_) => return None,
            _ => {}
        }
        event.paths.iter().find(|path| self.has(path)).cloned()
    }

    /// Whether a path is a file that is read, or a directory that may have some.
    fn has(&self, path: &Path) -> bool {
        self.0.iter().any(|wanted| {
            let Ok(inside) = path.strip_prefix(wanted) else { return false };
            let is_hidden = inside.components().any(|name| name.as_os_str().as_encoded_bytes().starts_with(b"."));
            inside.as_os_str().is_empty() || (!is_hidden && (is_manifest(inside) || inside.extension().is_none()))
        })
    }
}

/// Without `.` and `..`, so that events can be compared with it.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, component| {
        match component {
            Component::CurDir => {}
            Component::ParentDir => _ = plain.pop(),
            other => plain.push(AsRef::<OsStr>::as_ref(&other)),
        }
        plain
    })
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, ModifyKind};

    use super::*;

    #[test]
    fn only_what_is_read_is_heard() {
        let wanted = Wanted(vec!["/shop/policies".into(), "/shop/tests.yaml".into()]);
        let modified = EventKind::Modify(ModifyKind::Data(DataChange::Any));
        let touched = |kind: EventKind, path: &str| wanted.touched(&Event::new(kind).add_path(path.into())).is_some();
        for path in ["/shop/policies", "/shop/policies/a.yaml", "/shop/policies/more/b.json", "/shop/tests.yaml", "/shop/policies/more"] {
            assert!(touched(modified, path), "{path}");
        }
        for path in [
            "/shop/other.yaml",
            "/shop/policies/.a.yaml.swp",
            "/shop/policies/.git/x.yaml",
            "/shop/policies/notes.md",
            "/shop/tests.yaml~",
            "/shop",
        ] {
            assert!(!touched(modified, path), "{path}");
        }
        assert!(touched(EventKind::Create(CreateKind::File), "/shop/tests.yaml"));
        assert!(touched(EventKind::Access(AccessKind::Close(AccessMode::Write)), "/shop/tests.yaml"));
        assert!(!touched(EventKind::Access(AccessKind::Open(AccessMode::Any)), "/shop/tests.yaml"));
        assert!(!touched(EventKind::Access(AccessKind::Close(AccessMode::Read)), "/shop/tests.yaml"));
    }
}

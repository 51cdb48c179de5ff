//! Manifests of a revision of a git repository, without checking it out.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use super::super::CommandError;
use crate::cluster::manifests::{self, Loaded};

/// Reads a file, or all manifests of a directory, as they are in a revision.
pub(super) fn load(revision: &str, path: &Path) -> Result<Loaded, CommandError> {
    let (directory, inside) = place(path);
    let commit = text(&directory, &["rev-parse", "--verify", "--quiet", "--end-of-options", &format!("{revision}^{{commit}}")]).map_err(
        |error| match error {
            Failed::NoGit(why) => no_git(&why),
            Failed::Git(why) if why.is_empty() => CommandError::failure(format!(
                "git knows no revision {revision} in {}",
                directory.display()
            ))
            .hint(
                "`git log --oneline` and `git branch -a` show those there are; in CI the checkout may be a shallow one: fetch its history",
            ),
            Failed::Git(why) => {
                CommandError::failure(format!("git: {why}")).hint("rev:REV:PATH reads files of the git repository that PATH is in")
            }
        },
    )?;
    let entries = run(&directory, &["ls-tree", "-r", "-z", "--full-name", commit.trim(), "--", &inside], b"").map_err(failed)?;
    let is_file = |name: &str| name == inside || name.ends_with(&format!("/{inside}"));
    let mut files: Vec<(String, String)> = Vec::new();
    for entry in String::from_utf8_lossy(&entries).split('\0').filter(|entry| !entry.is_empty()) {
        // `100644 blob 1a2b…\tname`; links and submodules are no files.
        let Some((about, name)) = entry.split_once('\t') else { continue };
        let mut about = about.split(' ');
        let (Some(mode), Some("blob"), Some(id)) = (about.next(), about.next(), about.next()) else { continue };
        let is_wanted =
            if inside == "." { manifests::is_manifest(Path::new(name)) } else { is_file(name) || manifests::is_manifest(Path::new(name)) };
        if mode.starts_with("100") && is_wanted {
            files.push((id.to_owned(), name.to_owned()));
        }
    }
    if files.is_empty() {
        return Err(CommandError::failure(format!("no manifests in {} of revision {revision}", path.display()))
            .hint("files are read whose names end in .yaml, .yml or .json and do not begin with a dot"));
    }
    let texts = contents(&directory, &files, revision)?;
    manifests::load_texts(texts)
        .map_err(|errors| CommandError::failure(format!("the manifests of revision {revision} cannot be used\n{errors}")))
}

/// The directory to run git in, and what is wanted of it. A path that is not there now may have been there then.
fn place(path: &Path) -> (PathBuf, String) {
    if path.is_dir() {
        return (path.to_owned(), ".".to_owned());
    }
    let mut directory = path.parent().map(Path::to_owned).unwrap_or_default();
    let mut inside: Vec<String> = path.file_name().map(|name| name.to_string_lossy().into_owned()).into_iter().collect();
    while !directory.as_os_str().is_empty() && !directory.is_dir() {
        inside.insert(0, directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default());
        directory = directory.parent().map(Path::to_owned).unwrap_or_default();
    }
    let directory = if directory.as_os_str().is_empty() { ".".into() } else { directory };
    (directory, inside.join("/"))
}

/// The texts of the files, by one process.
fn contents(directory: &Path, files: &[(String, String)], revision: &str) -> Result<Vec<(Arc<str>, String)>, CommandError> {
    let ids: String = files.iter().map(|(id, _)| format!("{id}\n")).collect();
    let bytes = run(directory, &["cat-file", "--batch"], ids.as_bytes()).map_err(failed)?;
    let mut rest = bytes.as_slice();
    let mut texts = Vec::new();
    for (_, name) in files {
        let unreadable =
            || CommandError::failure(format!("git does not show {name} of revision {revision}")).hint("`git fsck` checks the repository");
        // `ID blob SIZE`, a newline, the contents, a newline.
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(unreadable)?;
        let size =
            String::from_utf8_lossy(&rest[..end]).rsplit(' ').next().and_then(|size| size.parse::<usize>().ok()).ok_or_else(unreadable)?;
        let content = rest.get(end + 1..end + 1 + size).ok_or_else(unreadable)?;
        let content = String::from_utf8(content.to_vec())
            .map_err(|_| CommandError::failure(format!("{revision}:{name}: not UTF-8 text")).hint("save the file in UTF-8"))?;
        texts.push((format!("{revision}:{name}").into(), content));
        rest = rest.get(end + 2 + size..).unwrap_or_default();
    }
    Ok(texts)
}

/// Why git has given nothing.
enum Failed {
    /// It could not be started.
    NoGit(String),
    /// What it says.
    Git(String),
}

fn failed(failed: Failed) -> CommandError {
    match failed {
        Failed::NoGit(why) => no_git(&why),
        Failed::Git(why) => CommandError::failure(format!("git: {why}")),
    }
}

fn no_git(why: &str) -> CommandError {
    CommandError::failure(format!("git cannot be started: {why}")).hint("revisions are read by git: install it, or name files")
}

fn text(directory: &Path, arguments: &[&str]) -> Result<String, Failed> {
    run(directory, arguments, b"").map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn run(directory: &Path, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, Failed> {
    let mut child = Command::new("git")
        .arg("-C")
        .arg(directory)
        // Paths are names, not patterns.
        .arg("--literal-pathspecs")
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failed::NoGit(error.to_string()))?;
    let stdin = child.stdin.take();
    // git may begin to answer before it has read everything.
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        if let Some(mut stdin) = stdin {
            // Where git has ended its answer tells why.
            _ = stdin.write_all(&input);
        }
    });
    let Output { status, stdout, stderr } = child.wait_with_output().map_err(|error| Failed::NoGit(error.to_string()))?;
    _ = writer.join();
    if status.success() {
        return Ok(stdout);
    }
    let why = String::from_utf8_lossy(&stderr).trim().trim_start_matches("fatal: ").to_owned();
    Err(Failed::Git(why))
}

//! Where files are for those who read a report elsewhere: in the repository, not on this machine.

use std::path::{Component, Path, PathBuf};

/// The working directory, the root of the repository around it, and the revision that files are read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    root: PathBuf,
    directory: PathBuf,
    revision: Option<String>,
}

impl Places {
    /// Of this process. On GitHub's runners the root is what was checked out; elsewhere the next directory above that git knows, or else the working
    /// directory itself.
    pub(super) fn here(revision: Option<&str>) -> Self {
        let directory = std::env::current_dir().unwrap_or_default();
        let checked_out = std::env::var_os("GITHUB_WORKSPACE").map(PathBuf::from).filter(|root| directory.starts_with(root));
        let of_git = || directory.ancestors().find(|above| above.join(".git").exists()).map(Path::to_owned);
        let root = checked_out.or_else(of_git).unwrap_or_else(|| directory.clone());
        Places { root, directory, revision: revision.map(str::to_owned) }
    }

    /// A file, as it was given on the command line, from the root, with `/` between names. `None` for what is not in the repository: standard input,
    /// files elsewhere.
    pub(super) fn in_repository(&self, file: &str) -> Option<String> {
        if file == "-" {
            return None;
        }
        // Git tells files of a revision from the root.
        if let Some(path) = self.revision.as_ref().and_then(|revision| file.strip_prefix(revision.as_str())?.strip_prefix(':')) {
            return Some(path.to_owned());
        }
        let mut path = PathBuf::new();
        for component in self.directory.join(file).components() {
            match component {
                Component::CurDir => {}
                Component::ParentDir => _ = path.pop(),
                other => path.push(other),
            }
        }
        let names = path.strip_prefix(&self.root).ok()?.components().map(|name| name.as_os_str().to_string_lossy().into_owned());
        Some(names.collect::<Vec<_>>().join("/")).filter(|path| !path.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_from_the_root() {
        let mut places = Places { root: "/src/shop".into(), directory: "/src/shop/deploy".into(), revision: None };
        for (given, told) in [
            ("policies/a.yaml", Some("deploy/policies/a.yaml")),
            ("./a.yaml", Some("deploy/a.yaml")),
            ("../b c.yaml", Some("b c.yaml")),
            ("/src/shop/x/../a.yaml", Some("a.yaml")),
            ("../../other/a.yaml", None),
            ("/etc/a.yaml", None),
            ("-", None),
        ] {
            assert_eq!(places.in_repository(given).as_deref(), told, "{given}");
        }
        places.revision = Some("HEAD~1".to_owned());
        assert_eq!(places.in_repository("HEAD~1:deploy/a.yaml").as_deref(), Some("deploy/a.yaml"));
        assert_eq!(places.in_repository("a.yaml").as_deref(), Some("deploy/a.yaml"));
    }
}

//! Where the objects of a question come from: files, a revision of a git repository, or the cluster as it is now.

mod git;
mod live;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

use super::CommandError;
use super::tail::load;
use crate::cluster::Index;
use crate::cluster::manifests::Loaded;

/// A place where objects are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A file, a directory, or `-` for standard input.
    Path(PathBuf),
    /// `rev:REV[:PATH]`: files of a revision of the git repository that the path is in.
    Revision {
        /// As git takes it: a commit, a branch, a tag, `HEAD~1`.
        revision: String,
        /// A file or a directory; the current directory where none is given.
        path: PathBuf,
    },
    /// `cluster`: the objects of the API server.
    Cluster,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            _ if text == "cluster" => Ok(Place::Cluster),
            Some(("rev", rest)) => {
                let (revision, path) = rest.split_once(':').unwrap_or((rest, "."));
                Place::revision(revision, PathBuf::from(path))
            }
            _ if text.is_empty() => Err("names no file".to_owned()),
            _ => Ok(Place::Path(text.into())),
        }
    }
}

impl Place {
    /// Files of a revision.
    pub(super) fn revision(revision: &str, path: PathBuf) -> Result<Self, String> {
        // What begins with a dash would be an option of git's.
        if revision.is_empty() || revision.starts_with('-') || revision.contains(['\n', '\0']) {
            return Err(format!("{revision:?} is no revision of git"));
        }
        let path = if path.as_os_str().is_empty() { ".".into() } else { path };
        Ok(Place::Revision { revision: revision.to_owned(), path })
    }

    pub(super) fn is_stdin(&self) -> bool {
        matches!(self, Place::Path(path) if path.as_os_str() == "-")
    }
}

/// As people type it.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Path(path) if path.as_os_str() == "-" => f.write_str("standard input"),
            Place::Path(path) => write!(f, "{}", path.display()),
            Place::Revision { revision, path } if path.as_os_str() == "." => write!(f, "rev:{revision}"),
            Place::Revision { revision, path } => write!(f, "rev:{revision}:{}", path.display()),
            Place::Cluster => f.write_str("cluster"),
        }
    }
}

/// The API server, for commands that read its objects themselves.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct ApiServerArgs {
    /// Read the configuration of the cluster from this file instead of KUBECONFIG or ~/.kube/config.
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub(super) kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig to use, instead of its current one.
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    pub(super) context: Option<String>,
}

impl ApiServerArgs {
    /// The first of the options that was given.
    pub(super) fn given(&self) -> Option<&'static str> {
        let given = [(self.kubeconfig.is_some(), "--kubeconfig"), (self.context.is_some(), "--context")];
        given.into_iter().find(|(given, _)| *given).map(|(_, option)| option)
    }
}

/// What a command reads: files, as they are or as they were, and a cluster.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct SourceArgs {
    /// Read Kubernetes objects from this file, from all YAML and JSON files of this directory, or from standard input (-).
    #[arg(value_name = "FILE|DIR|-")]
    pub(super) paths: Vec<PathBuf>,

    /// The same, as in `observer tail`. May be given several times.
    #[arg(short = 'f', long, value_name = "FILE|DIR|-")]
    pub(super) manifests: Vec<PathBuf>,

    /// Read the files as they are in this revision of their git repository, such as HEAD~1 or origin/main.
    #[arg(long, value_name = "REV", help_heading = "Sources")]
    pub(super) rev: Option<String>,

    /// Read the objects of the cluster of the kubeconfig too. Files go before what the cluster has.
    #[arg(long, help_heading = "Sources")]
    cluster: bool,

    #[command(flatten)]
    pub(super) server: ApiServerArgs,
}

impl SourceArgs {
    /// The places, at least one; `what` is what the command does with them.
    pub(super) fn places(&self, what: &str) -> Result<Vec<Place>, CommandError> {
        let paths = self.paths.iter().chain(&self.manifests);
        let mut places: Vec<Place> = match &self.rev {
            None => paths.cloned().map(Place::Path).collect(),
            Some(_) if paths.clone().any(|path| path.as_os_str() == "-") => {
                return Err(CommandError::usage("standard input has no revisions").hint("leave out --rev, or name files instead of -"));
            }
            Some(revision) => {
                let of_revision: Result<Vec<Place>, String> = paths.map(|path| Place::revision(revision, path.clone())).collect();
                of_revision.map_err(CommandError::usage)?
            }
        };
        if self.is_of_cluster() {
            places.push(Place::Cluster);
        }
        if places.is_empty() {
            let error = CommandError::usage(format!("nothing to {what}"));
            return Err(error.hint("name files or directories of manifests, - for standard input, or --cluster"));
        }
        Ok(places)
    }

    /// Whether a cluster is read.
    pub(super) fn is_of_cluster(&self) -> bool {
        self.cluster || self.server.given().is_some()
    }
}

/// Reads the objects of all places, workloads standing for their pods.
pub(super) fn read(places: &[Place], server: &ApiServerArgs) -> Result<Loaded, CommandError> {
    if places.iter().filter(|place| place.is_stdin()).count() > 1 {
        return Err(CommandError::usage("- is given more than once, and standard input can be read only once"));
    }
    if let Some(option) = server.given().filter(|_| !places.contains(&Place::Cluster)) {
        return Err(
            CommandError::usage(format!("{option} is about a cluster, and none is read")).hint("leave it out, or name cluster as a source")
        );
    }
    let paths: Vec<PathBuf> =
        places.iter().filter_map(|place| if let Place::Path(path) = place { Some(path.clone()) } else { None }).collect();
    // What files say goes before what the cluster has: a policy that is to be deployed stands for the one that is there.
    let mut all = Loaded::default();
    for place in places {
        match place {
            Place::Path(_) => {}
            Place::Revision { revision, path } => add(&mut all, git::load(revision, path)?),
            Place::Cluster => add(&mut all, live::load(server)?),
        }
    }
    add(&mut all, load(&paths)?);
    Ok(all.with_stand_ins())
}

fn add(all: &mut Loaded, more: Loaded) {
    let Loaded { objects, stand_ins, tests, skipped, warnings } = more;
    all.objects.extend(objects);
    all.stand_ins.extend(stand_ins);
    all.tests.extend(tests);
    all.warnings.extend(warnings);
    for (kind, count) in skipped {
        *all.skipped.entry(kind).or_default() += count;
    }
}

/// An index of the objects, which are taken out.
pub(super) fn index(loaded: &mut Loaded) -> Index {
    let mut index = Index::default();
    index.reset(std::mem::take(&mut loaded.objects));
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_as_people_type_them() {
        for (text, shown) in [
            ("policies", "policies"),
            ("-", "standard input"),
            ("cluster", "cluster"),
            ("./cluster", "./cluster"),
            ("rev:HEAD~1", "rev:HEAD~1"),
            ("rev:main:deploy/policies", "rev:main:deploy/policies"),
            ("C:/x", "C:/x"),
        ] {
            assert_eq!(text.parse::<Place>().map(|place| place.to_string()).as_deref(), Ok(shown));
        }
        for wrong in ["rev:", "rev:--exec=x", "rev::path", ""] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}

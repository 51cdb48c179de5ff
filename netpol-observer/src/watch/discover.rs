//! Which optional kinds the cluster has now.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::api::Api;
use super::problem::Problem;
use super::resource::{Resource, Served, is_group_of_interest};

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    name: String,
    versions: Vec<Version>,
    #[serde(default)]
    preferred_version: Option<Version>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    kind: String,
    #[serde(default)]
    namespaced: bool,
    #[serde(default)]
    verbs: Vec<String>,
}

/// What a cluster has.
pub(super) struct Discovered {
    pub(super) served: Served,
    /// Groups of which it could not be found out, as of an aggregated API server that is away: of these nothing is known to be gone.
    pub(super) unknown: BTreeMap<String, Problem>,
}

/// Asks for the groups that matter, in all their versions.
pub(super) async fn discover(api: &Api) -> Result<Discovered, Problem> {
    let groups: Groups = api.whole("/apis").await?;
    let mut discovered = Discovered { served: Served { resources: Vec::new() }, unknown: BTreeMap::new() };
    for group in groups.groups.into_iter().filter(|group| is_group_of_interest(&group.name)) {
        let preferred = group.preferred_version.map(|preferred| preferred.version);
        let mut versions: Vec<String> = group.versions.into_iter().map(|version| version.version).collect();
        versions.sort_by_key(|version| Some(version) != preferred.as_ref());
        for version in versions {
            match api.whole::<Resources>(&format!("/apis/{}/{version}", group.name)).await {
                Ok(list) => {
                    let entries = list
                        .resources
                        .into_iter()
                        .filter(|entry| ["list", "watch"].iter().all(|verb| entry.verbs.iter().any(|has| has == verb)));
                    discovered.served.resources.extend(entries.filter(|entry| !entry.name.contains('/')).map(|entry| Resource {
                        group: group.name.clone(),
                        version: version.clone(),
                        plural: entry.name,
                        kind: entry.kind,
                        namespaced: entry.namespaced,
                    }));
                }
                // It went between the two questions.
                Err(Problem::NotFound) => {}
                Err(problem) => {
                    tracing::debug!(group = group.name, version, %problem, "the resources of a group are not known");
                    discovered.unknown.insert(group.name.clone(), problem);
                }
            }
        }
    }
    Ok(discovered)
}

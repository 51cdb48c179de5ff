//! Lists: which revision they show, in which pages.
//!
//! Follows Kubernetes 1.34: `limit` has no effect on `resourceVersion=0`, which the watch cache answers as a whole.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::options::{ListOptions, Match};
use super::resource::Resource;
use super::selector::Selector;
use super::status::Refusal;
use super::store::{Key, Object, Store, Table};

/// How objects are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    /// The whole object.
    Full,
    /// `PartialObjectMetadata` of meta.k8s.io/v1.
    Metadata,
}

/// A page of a list.
#[derive(Debug)]
pub(super) struct Page {
    /// The resource that was listed.
    pub(super) resource: Arc<Resource>,
    /// `metadata.resourceVersion`.
    pub(super) revision: u64,
    /// The objects, in the order of their keys.
    pub(super) items: Vec<Arc<Object>>,
    /// `metadata.continue`, when there is more.
    pub(super) continue_token: Option<String>,
    /// `metadata.remainingItemCount`, when everything is selected.
    pub(super) remaining: Option<usize>,
}

const INCONSISTENT: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list \
     without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with \
     the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk \
     was returned and now may show up in the list.";

/// Why a list cannot be answered now.
#[derive(Debug)]
pub(super) enum Unready {
    /// It never will be.
    Refused(Refusal),
    /// The server has not reached the revision that the list may not be older than; a real one waits 3 seconds for it.
    Future(u64),
}

impl From<Refusal> for Unready {
    fn from(refusal: Refusal) -> Unready {
        Unready::Refused(refusal)
    }
}

/// Lists a table.
pub(super) fn list(
    store: &Store,
    table: &Table,
    namespace: Option<&str>,
    options: &ListOptions,
    selector: &Selector,
) -> Result<Page, Unready> {
    let asked = options
        .revision()
        .map_err(|cause| Refusal::bad_request(format!("invalid resource version: {}: {}", cause.field, cause.message)))?;
    let mut after = None;
    let revision = if options.continue_token.is_empty() {
        let exact = options.version_match == Some(Match::Exact) || (options.version_match.is_none() && options.limit > 0 && asked > 0);
        if exact { asked } else { store.revision() }
    } else {
        if asked > 0 {
            return Err(Refusal::bad_request("specifying resource version is not allowed when using continue").into());
        }
        let (revision, key) = decode(&options.continue_token)?;
        after = Some(key);
        // -1 in the token that an expired list gives: go on with what there is now.
        revision.unwrap_or_else(|| store.revision())
    };
    // Also for a list of just that revision: it is served from the watch cache, which waits.
    let needed = revision.max(asked);
    if needed > store.revision() {
        return Err(Unready::Future(needed));
    }
    let Some(mut items) = table.list(namespace, after.as_ref(), revision) else {
        return Err(match after {
            Some(key) => {
                let mut refusal = Refusal::expired(INCONSISTENT);
                refusal.continue_token = Some(encode(None, &key));
                refusal
            }
            None => Refusal::expired("The resourceVersion for the provided list is too old."),
        }
        .into());
    };
    items.retain(|object| selector.matches(object));
    let limit = if options.limit == 0 || options.resource_version == "0" { usize::MAX } else { options.limit };
    let left = items.len().saturating_sub(limit);
    items.truncate(limit);
    let more = (left > 0).then(|| items.last().map(|last| encode(Some(revision), &last.key))).flatten();
    Ok(Page {
        resource: Arc::clone(&table.resource),
        revision,
        items,
        remaining: (more.is_some() && selector.is_empty()).then_some(left),
        continue_token: more,
    })
}

impl Page {
    /// The list object.
    pub(super) fn body(&self, version: &str, view: View) -> Vec<u8> {
        let mut metadata = json!({"resourceVersion": self.revision.to_string()});
        // Untyped lists show the token also when it is empty.
        if self.resource.custom && view == View::Full {
            metadata["continue"] = "".into();
        }
        if let Some(token) = &self.continue_token {
            metadata["continue"] = token.as_str().into();
        }
        if let Some(remaining) = self.remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        let (kind, api_version) = match view {
            View::Full => (self.resource.list_kind.as_str(), self.resource.api_version(version)),
            View::Metadata => ("PartialObjectMetadataList", "meta.k8s.io/v1".to_owned()),
        };
        let mut out = format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{metadata},\"items\":[").into_bytes();
        for (index, object) in self.items.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            // Go's typed lists leave out what the list says of its items; custom resources are untyped and keep it.
            match (view, self.resource.custom) {
                (View::Full, false) => out.extend_from_slice(&object.body),
                _ => write(object, &self.resource, version, view, &mut out),
            }
        }
        out.extend_from_slice(b"]}\n");
        out
    }
}

/// Adds an object, as a watch or a get shows it.
pub(super) fn write(object: &Object, resource: &Resource, version: &str, view: View, out: &mut Vec<u8>) {
    match view {
        View::Full => object.write_typed(resource, version, out),
        View::Metadata => {
            let partial = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.value()["metadata"]});
            out.extend_from_slice(partial.to_string().as_bytes());
        }
    }
}

/// The token of etcd's storage: where to go on, and at which revision.
fn encode(revision: Option<u64>, last: &Key) -> String {
    let start = if last.0.is_empty() { format!("{}\0", last.1) } else { format!("{}/{}\0", last.0, last.1) };
    let revision = revision.map_or(json!(-1), |revision| json!(revision));
    URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": revision, "start": start}).to_string())
}

fn decode(token: &str) -> Result<(Option<u64>, Key), Refusal> {
    let refused = |why: &str| Refusal::bad_request(format!("invalid continue token: continue key is not valid{why}"));
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|error| refused(&format!(": {error}")))?;
    let token: Value = serde_json::from_slice(&bytes).map_err(|error| refused(&format!(": {error}")))?;
    if token["v"] != "meta.k8s.io/v1" {
        return Err(Refusal::bad_request(
            "invalid continue token: continue key is not valid: server does not recognize this encoded version",
        ));
    }
    let revision = match token["rv"].as_i64() {
        Some(-1) => None,
        Some(revision) if revision > 0 => Some(revision.unsigned_abs()),
        _ => return Err(refused(": incorrect encoded start resourceVersion (version meta.k8s.io/v1)")),
    };
    let start =
        token["start"].as_str().map(|start| start.trim_end_matches('\0')).filter(|start| !start.is_empty() && !start.contains(".."));
    let start = start.ok_or_else(|| refused(": encoded start key empty (version meta.k8s.io/v1)"))?;
    let (namespace, name) = start.split_once('/').unwrap_or(("", start));
    Ok((revision, Key(namespace.to_owned(), name.to_owned())))
}

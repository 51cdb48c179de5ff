//! The query of a list or watch: ListOptions, and what the API server refuses in them.

use super::status::{Cause, Refusal};

/// `resourceVersionMatch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    /// The list is that of the revision or a later one.
    NotOlderThan,
    /// The list is that of the revision.
    Exact,
}

/// The query of a list or watch.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ListOptions {
    /// A watch is asked for.
    pub(super) watch: bool,
    /// `labelSelector`.
    pub(super) labels: String,
    /// `fieldSelector`.
    pub(super) fields: String,
    /// `resourceVersion`: empty asks for the most recent state.
    pub(super) resource_version: String,
    /// `resourceVersionMatch`.
    pub(super) version_match: Option<Match>,
    /// `limit`, 0 for none.
    pub(super) limit: usize,
    /// `continue`.
    pub(super) continue_token: String,
    /// `allowWatchBookmarks`.
    pub(super) bookmarks: bool,
    /// `sendInitialEvents`.
    pub(super) send_initial_events: Option<bool>,
    /// `timeoutSeconds`.
    pub(super) timeout_seconds: Option<u64>,
}

impl ListOptions {
    /// Reads and validates a query. 400 for numbers and truth values that do not parse, 422 for options that exclude each other.
    pub(super) fn parse(query: &str, streaming_lists: bool) -> Result<ListOptions, Refusal> {
        let mut options = ListOptions::default();
        let mut wanted_match = String::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            let number = || {
                let why = |error| Refusal::bad_request(format!("strconv.ParseInt: parsing \"{value}\": {error}"));
                value.parse::<u64>().map_err(|_| why("invalid syntax"))
            };
            match name.as_ref() {
                "watch" => options.watch = truth(&value),
                "labelSelector" => options.labels = value,
                "fieldSelector" => options.fields = value,
                "resourceVersion" => options.resource_version = value,
                "resourceVersionMatch" => wanted_match = value,
                "limit" => options.limit = usize::try_from(number()?).unwrap_or(usize::MAX),
                "continue" => options.continue_token = value,
                "allowWatchBookmarks" => options.bookmarks = truth(&value),
                "sendInitialEvents" => options.send_initial_events = Some(truth(&value)),
                "timeoutSeconds" => options.timeout_seconds = Some(number()?).filter(|seconds| *seconds > 0),
                _ => {}
            }
        }
        let causes = options.refused(&wanted_match, streaming_lists);
        if !causes.is_empty() {
            return Err(Refusal::invalid("meta.k8s.io", "ListOptions", "", &causes));
        }
        Ok(options)
    }

    fn refused(&mut self, wanted: &str, streaming_lists: bool) -> Vec<Cause> {
        const MATCH: &str = "resourceVersionMatch";
        let mut causes = Vec::new();
        self.version_match = match wanted {
            "NotOlderThan" => Some(Match::NotOlderThan),
            "Exact" => Some(Match::Exact),
            _ => None,
        };
        let anything = matches!(self.resource_version.as_str(), "" | "0");
        if self.watch && streaming_lists && anything && wanted.is_empty() && self.send_initial_events.is_none() {
            // Such a watch begins with what there is, and a server with streaming lists ends that with the bookmark too.
            self.send_initial_events = Some(true);
            return causes;
        }
        if self.watch {
            if self.send_initial_events.is_some() {
                if self.version_match != Some(Match::NotOlderThan) {
                    causes.push(Cause::forbidden(MATCH, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"));
                }
                if !streaming_lists {
                    let why = "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
                    causes.push(Cause::forbidden("sendInitialEvents", why));
                }
            }
            if !wanted.is_empty() {
                if self.send_initial_events.is_none() {
                    causes
                        .push(Cause::forbidden(MATCH, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"));
                }
                if self.version_match != Some(Match::NotOlderThan) {
                    causes.push(Cause::not_supported(MATCH, wanted, &["NotOlderThan"]));
                }
                if !self.continue_token.is_empty() {
                    causes.push(Cause::forbidden(MATCH, "resourceVersionMatch is forbidden when continue is provided"));
                }
            }
            return causes;
        }
        if !wanted.is_empty() {
            if self.resource_version.is_empty() {
                causes.push(Cause::forbidden(MATCH, "resourceVersionMatch is forbidden unless resourceVersion is provided"));
            }
            if !self.continue_token.is_empty() {
                causes.push(Cause::forbidden(MATCH, "resourceVersionMatch is forbidden when continue is provided"));
            }
            if self.version_match.is_none() {
                causes.push(Cause::not_supported(MATCH, wanted, &["Exact", "NotOlderThan", ""]));
            }
            if self.version_match == Some(Match::Exact) && self.resource_version == "0" {
                causes.push(Cause::forbidden(MATCH, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
            }
        }
        if self.send_initial_events.is_some() {
            causes.push(Cause::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
        }
        causes
    }

    /// The revision asked for: 0 for none and for any.
    pub(super) fn revision(&self) -> Result<u64, Cause> {
        if self.resource_version.is_empty() {
            return Ok(0);
        }
        self.resource_version.parse().map_err(|_| {
            let why = format!("strconv.ParseUint: parsing \"{}\": invalid syntax", self.resource_version);
            Cause::invalid("resourceVersion", &self.resource_version, why)
        })
    }
}

/// Query parameters count as true unless they say otherwise: `watch` alone is `watch=true`.
pub(super) fn truth(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "false" | "0")
}

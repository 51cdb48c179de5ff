//! PATCH by the media type of the body.

use serde_json::Value;

use super::defaults;
use super::resource::Resource;
use super::status::{Cause, Refusal};

const ACCEPTED: [&str; 3] = ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];

/// The object that a patch makes of another.
///
/// A strategic merge patch is taken as a merge patch: lists are replaced, also those that a real server merges by key. Server-side apply is
/// refused, since nothing here knows who owns which field.
pub(super) fn apply(resource: &Resource, media_type: &str, mut object: Value, patch: &[u8]) -> Result<Value, Refusal> {
    // Custom resources have no strategy: there the real server does not accept it either.
    let accepted = if resource.custom { &ACCEPTED[..2] } else { &ACCEPTED[..] };
    if !accepted.contains(&media_type) {
        // Of kinds that are built in the router refuses it, which knows no list.
        return Err(if resource.custom {
            Refusal::unsupported_media_type(&[ACCEPTED[0], ACCEPTED[1], "application/apply-patch+yaml"])
        } else {
            Refusal::new(415, "UnsupportedMediaType", "415: Unsupported Media Type")
        });
    }
    let unread = |error: serde_json::Error| Refusal::bad_request(format!("error decoding patch: {error}"));
    if media_type == ACCEPTED[0] {
        let patch: json_patch::Patch = serde_json::from_slice(patch).map_err(unread)?;
        json_patch::patch(&mut object, &patch).map_err(|error| {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            let cause = Cause { reason: "FieldValueInvalid", field: "patch".to_owned(), message: format!("Invalid value: {error}") };
            Refusal::invalid(&resource.group, &resource.kind, &name, &[cause])
        })?;
    } else {
        let patch: Value = serde_json::from_slice(patch).map_err(unread)?;
        if !patch.is_object() {
            return Err(Refusal::bad_request("error decoding patch: json: cannot unmarshal into Go value of type map[string]interface {}"));
        }
        json_patch::merge(&mut object, &patch);
    }
    // What comes of a patch is decoded anew.
    if let Some(why) = defaults::undecodable(resource, &object) {
        let cause = Cause { reason: "FieldValueInvalid", field: "patch".to_owned(), message: format!("Invalid value: {why}") };
        return Err(Refusal::invalid(&resource.group, &resource.kind, "", &[cause]));
    }
    Ok(object)
}

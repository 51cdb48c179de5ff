//! Validation of Events of events.k8s.io/v1: what kube-apiserver refuses, cause by cause in its order.
//!
//! It checks the type that all versions share, so its causes name the fields of core/v1: `involvedObject`, `message`.

use serde_json::Value;

use super::labels::key_errors;
use super::status::Cause;

/// The causes for which a new Event is refused.
pub(super) fn refused(event: &Value) -> Vec<Cause> {
    let mut causes = refused_ever(event);
    causes.extend(refused_series(event));
    if text(event, "eventTime").is_empty() {
        causes.push(Cause::required("eventTime", ""));
    }
    let kind = text(event, "type");
    if !matches!(kind, "Normal" | "Warning") {
        causes.push(Cause::invalid("type", "", format!("has invalid value: {kind}")));
    }
    for (name, shown) in [("deprecatedFirstTimestamp", "firstTimestamp"), ("deprecatedLastTimestamp", "lastTimestamp")] {
        if !text(event, name).is_empty() {
            causes.push(Cause::invalid(shown, "", "needs to be unset"));
        }
    }
    if event["deprecatedCount"].as_i64().unwrap_or(0) != 0 {
        causes.push(Cause::invalid("count", "", "needs to be unset"));
    }
    let source = &event["deprecatedSource"];
    if !text(source, "component").is_empty() || !text(source, "host").is_empty() {
        causes.push(Cause::invalid("source", "", "needs to be unset"));
    }
    causes
}

/// The causes for which a change of an Event is refused: hardly more than the series may change.
pub(super) fn refused_change(before: &Value, after: &Value) -> Vec<Cause> {
    let mut causes = refused_ever(after);
    if after["series"] != before["series"] {
        causes.extend(refused_series(after));
    }
    // The reason stands twice, as in the original.
    for (name, shown) in [
        ("regarding", "involvedObject"),
        ("reason", "reason"),
        ("note", "message"),
        ("deprecatedSource", "source"),
        ("deprecatedFirstTimestamp", "firstTimestamp"),
        ("deprecatedLastTimestamp", "lastTimestamp"),
        ("deprecatedCount", "count"),
        ("reason", "reason"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingController", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ] {
        if after[name] != before[name] {
            // Values are shown as JSON, those that are unset as empty text.
            let value = if after[name].is_null() { "\"\"".to_owned() } else { after[name].to_string() };
            let message = format!("Invalid value: {value}: field is immutable");
            causes.push(Cause { reason: "FieldValueInvalid", field: shown.to_owned(), message });
        }
    }
    causes
}

/// The time that is not written as metav1.MicroTime reads it, with its six digits behind the seconds, and what Go says of it. It is refused when the object
/// is decoded, before anything is validated.
pub(super) fn unreadable_time(event: &Value) -> Option<String> {
    let times = [&event["eventTime"], &event["series"]["lastObservedTime"]];
    let wrong = times.into_iter().find(|time| !time.is_null() && !time.as_str().is_some_and(is_micro_time))?;
    Some(match wrong.as_str() {
        Some(text) => format!("parsing time {text:?} as \"2006-01-02T15:04:05.000000Z07:00\": cannot parse {text:?}"),
        None => "json: cannot unmarshal into Go value of type string".to_owned(),
    })
}

/// `2026-11-30T14:02:11.482000Z`, or with another zone.
fn is_micro_time(text: &str) -> bool {
    let Some((seconds, rest)) = text.split_once('.') else { return false };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let zone = &rest[digits..];
    let is_zone = zone == "Z" || zone.starts_with(['+', '-']);
    seconds.len() == 19 && seconds.as_bytes().get(10) == Some(&b'T') && digits == 6 && is_zone && text.parse::<jiff::Timestamp>().is_ok()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn refused_ever(event: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let regarding = text(&event["regarding"], "namespace");
    let namespace = text(&event["metadata"], "namespace");
    let elsewhere = || Cause::invalid("involvedObject.namespace", regarding, "does not match event.namespace");
    if text(event, "eventTime").is_empty() {
        // An Event of the old kind: of the namespace that it regards, or of `default`.
        let right = if regarding.is_empty() { namespace == "default" } else { regarding == namespace };
        return if right { causes } else { vec![elsewhere()] };
    }
    // What has no namespace is regarded from these two. Nothing asks that a namespace that is named be the same.
    if regarding.is_empty() && !matches!(namespace, "default" | "kube-system") {
        causes.push(elsewhere());
    }
    let controller = text(event, "reportingController");
    if controller.is_empty() {
        causes.push(Cause::required("reportingController", ""));
    }
    causes.extend(key_errors(controller).into_iter().map(|why| Cause::invalid("reportingController", controller, why)));
    for (name, shown, most) in
        [("reportingInstance", "reportingInstance", 128), ("action", "action", 128), ("reason", "reason", 128), ("note", "message", 1024)]
    {
        if text(event, name).is_empty() && name != "note" {
            causes.push(Cause::required(shown, ""));
        }
        if text(event, name).len() > most {
            causes.push(Cause::invalid(shown, "", format!("can have at most {most} characters")));
        }
    }
    causes
}

fn refused_series(event: &Value) -> Vec<Cause> {
    let series = &event["series"];
    if series.is_null() {
        return Vec::new();
    }
    let mut causes = Vec::new();
    if series["count"].as_i64().unwrap_or(0) < 2 {
        causes.push(Cause::invalid("series.count", "", "should be at least 2"));
    }
    if text(series, "lastObservedTime").is_empty() {
        causes.push(Cause::required("series.lastObservedTime", ""));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_go_reads_them() {
        for right in ["2026-11-30T14:02:11.482000Z", "2026-11-30T14:02:11.000001+01:00"] {
            assert!(is_micro_time(right), "{right}");
        }
        for wrong in [
            "2026-11-30T14:02:11Z",
            "2026-11-30T14:02:11.482Z",
            "2026-11-30T14:02:11.4820000Z",
            "2026-11-30 14:02:11.482000Z",
            "x.000000Z",
            "",
        ] {
            assert!(!is_micro_time(wrong), "{wrong}");
        }
    }
}

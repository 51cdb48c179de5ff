//! `/v1/status`.

use jiff::Timestamp;
use serde::Serialize;

use super::hub::HubStatus;
use super::objects::ObjectsStatus;
use crate::serve::json::Line;

/// Who the agent is.
#[derive(Clone, Debug)]
pub struct About {
    /// Version of the program.
    pub version: &'static str,
    /// The node it is on.
    pub node: String,
    /// The pod it is, where it is one.
    pub pod: Option<String>,
    /// When it started.
    pub started: Timestamp,
}

/// The kernel it captures from.
#[derive(Clone, Debug, Serialize)]
pub struct KernelAbout {
    /// `uname -r`
    pub release: String,
    /// The form of the program on the tracepoint; absent for a recording.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attach: Option<&'static str>,
    /// What does not work as it should, and what it means.
    pub problems: Vec<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatusObject<'a> {
    version: &'a str,
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<&'a str>,
    time: Timestamp,
    uptime_seconds: i64,
    /// What has to be there before answers can be relied on, and is not.
    missing: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    certificate_sha256: Option<&'a str>,
    /// Absent for tenants: it is of the node as a whole.
    #[serde(skip_serializing_if = "Option::is_none", flatten)]
    whole: Option<WholeObject<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct WholeObject<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<KernelAbout>,
    ledger: Line<'a>,
    retained: RetainedObject,
    clients: ClientsObject,
    #[serde(flatten)]
    objects: ObjectsStatus,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RetainedObject {
    observations: usize,
    bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    complete_until: Option<Timestamp>,
}

#[derive(Serialize)]
struct ClientsObject {
    /// Streams that are open.
    readers: usize,
    max: usize,
    /// Drops that were not sent to readers that were too slow.
    lost: u64,
    /// Readers that were turned away because there were as many as there may be.
    refused: u64,
}

/// What the status is made of.
pub(super) struct Parts<'a> {
    pub(super) about: &'a About,
    pub(super) now: Timestamp,
    pub(super) missing: &'a [String],
    pub(super) certificate: Option<&'a str>,
    pub(super) kernel: Option<&'a KernelAbout>,
    pub(super) hub: &'a HubStatus,
    pub(super) objects: Option<ObjectsStatus>,
}

impl<'a> StatusObject<'a> {
    /// The whole status, or, without the objects, what tenants are told.
    pub(super) fn of(parts: Parts<'a>) -> Self {
        let Parts { about, now, missing, certificate, kernel, hub, objects } = parts;
        let whole = objects.map(|objects| WholeObject {
            kernel: kernel.map(|kernel| with_losses(kernel, hub)),
            ledger: Line::ledger(&hub.ledger),
            retained: RetainedObject {
                observations: hub.retained,
                bytes: hub.retained_bytes,
                since: hub.retained_since,
                complete_until: hub.watermark,
            },
            clients: ClientsObject { readers: hub.readers, max: hub.max_readers, lost: hub.lost, refused: hub.refused },
            objects,
        });
        StatusObject {
            version: about.version,
            node: &about.node,
            pod: about.pod.as_deref(),
            time: now,
            uptime_seconds: now.duration_since(about.started).as_secs().max(0),
            missing,
            certificate_sha256: certificate,
            whole,
        }
    }
}

/// What the counters say is wrong, beside what was wrong from the start.
fn with_losses(kernel: &KernelAbout, hub: &HubStatus) -> KernelAbout {
    let mut kernel = kernel.clone();
    if let Some(ledger) = &hub.ledger.kernel {
        let counters = &ledger.counters;
        if counters.ring_full > 0 {
            kernel
                .problems
                .push(format!("{} drops were lost because the ring was full: more came than could be explained", counters.ring_full));
        }
        if ledger.program_misses > 0 {
            kernel.problems.push(format!("the program was skipped {} times: so many drops at the most were missed", ledger.program_misses));
        }
    }
    kernel
}

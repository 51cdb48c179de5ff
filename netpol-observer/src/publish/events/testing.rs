//! Drops for the tests of this module.

use std::sync::Arc;

use crate::cluster::Pod;
use crate::diagnose::Denial;
use crate::flow::FoldId;
use crate::identify::{Identity, Party};
use crate::serve::testing::{api, example, party, pod, web};
use crate::serve::{Brief, Settled};

fn uid_of(pod: &Pod) -> Arc<Pod> {
    Arc::new(Pod { uid: format!("uid-{}", pod.name).into(), ..pod.clone() })
}

/// Gives both pods of a drop a uid.
pub(crate) fn with_uid(denial: &mut Denial) {
    let with = |party: &mut Party| {
        if let Identity::Pod(pod) = &party.identity {
            party.identity = Identity::Pod(uid_of(pod));
        }
    };
    with(&mut denial.who.client);
    with(&mut denial.who.server);
}

/// The example of the documentation, under an id.
pub(crate) fn of(id: u64) -> Denial {
    let mut denial = example();
    denial.event.id = FoldId(id);
    denial.who.client = party(&uid_of(&web()));
    denial.who.server = party(&uid_of(&api()));
    denial
}

/// Puts the client into namespace `batch`.
pub(crate) fn call_across(denial: &mut Denial) {
    denial.who.client = party(&uid_of(&pod("batch", "web-7d9f", "10.244.1.5", &[("app", "web")])));
    denial.explanation.egress.subject = Some("batch/web-7d9f".to_owned());
}

/// As settled, `count` of them.
pub(crate) fn settled_of(denial: Denial, count: u64) -> Settled {
    let brief = Arc::new(Brief::of(&denial));
    Settled { id: denial.event.id, brief, count, last: denial.event.time, denial: Some(Arc::new(denial)) }
}

/// The example, `count` times.
pub(crate) fn settled(count: u64) -> Settled {
    settled_of(of(1), count)
}

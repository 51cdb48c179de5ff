//! What is said of the moment of a drop, and what amends one.

use jiff::SignedDuration;

use super::*;
use crate::cluster::{Kind, ObjectKey, Pod};
use crate::diagnose::{Attributed, How, Moment, PastKnown, RecentChange, Unevaluated};
use crate::serve::testing::at;
use crate::timeline::{ChangeKind, Holder, Owner};

fn changed(milliseconds: i64, verdict_before: Verdict) -> RecentChange {
    let before_drop = SignedDuration::from_millis(milliseconds);
    RecentChange {
        key: ObjectKey { kind: Kind::NetworkPolicy, namespace: "shop".into(), name: "api".into() },
        kind: ChangeKind::Changed,
        when: at(0) - before_drop,
        before_drop,
        verdict_before,
        verdict_after: Verdict::Deny,
    }
}

fn with(moment: Moment) -> Denial {
    Denial { moment: Some(moment), ..example() }
}

fn other() -> Arc<Pod> {
    crate::serve::testing::pod("shop", "web-old", "10.244.1.5", &[])
}

#[test]
fn a_plain_moment_is_not_mentioned() {
    assert_eq!(block(&with(Moment::default())), block(&example()));
}

#[test]
fn everything_that_can_be_said_of_a_moment() {
    let owner = |who, since, until| Owner { who: Holder::Pod(who), since, until };
    let hows = [
        How::Interface { pod: web(), published: Vec::new() },
        How::Interface { pod: web(), published: vec![other()] },
        How::PublishedLater { pod: web(), after: SignedDuration::from_millis(1_200) },
        How::Gone { pod: other(), before: SignedDuration::from_secs(1) },
        How::Several(vec![owner(other(), None, Some(at(1))), owner(web(), Some(at(2)), None)]),
        How::NotKnown,
    ];
    let unevaluated = vec![Unevaluated { group: "cilium.io".into(), kind: "CiliumNetworkPolicy".into(), count: Some(3) }];
    let moment = Moment {
        past: PastKnown::Syncing { missing: vec![Kind::NetworkPolicy] },
        owners: hows.into_iter().map(|how| Attributed { ip: ip("10.244.1.5"), how }).collect(),
        changes: vec![changed(-400, Verdict::Undecided), changed(3_000, Verdict::Allow)],
        unevaluated,
    };
    assert_snapshot!(block(&with(moment)), @r#"
    14:02:11.482 DENIED ingress  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)
      by       NetworkPolicy shop/api-allow-frontend      isolates shop/api-5c4b for ingress, none of its 2 rules match
      nearest  ingress[0]  peer differs: podSelector wants app=frontend, shop/web-7d9f has app=web
               ingress[1]  port differs: wants 9090/TCP (named "metrics")
      fix      ingress[0].from += podSelector {app: web}      admits 1 more workload: shop/web
      moment   10.244.1.5 was not yet published; the interface is shop/web-7d9f's
               10.244.1.5 is shop/web-old's by what is published; the interface is shop/web-7d9f's
               10.244.1.5 was published as shop/web-7d9f's 1.2 s after the drop
               10.244.1.5 was shop/web-old's, which was gone 1 s before the drop
               10.244.1.5 was that of one of shop/web-old (until 14:02:12.482Z), shop/web-7d9f (since 14:02:13.482Z)
               the owner of 10.244.1.5 is not yet known
               NetworkPolicy shop/api changed 0.4 s after the drop: before that, it could not be decided
               NetworkPolicy shop/api changed 3 s before the drop: before that, the policies allowed it
               3 CiliumNetworkPolicies are not evaluated; what they say of it is not known
               the agent was still syncing: there is no list yet of NetworkPolicy
      kernel   NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0      agrees with the policies
    "#);
}

#[test]
fn a_cause_is_not_told_twice() {
    let why = "NetworkPolicy shop/api changed 3 s before the drop; before, they denied it".to_owned();
    let mut denial = innocent(Class::PolicyChanged, Agreement::PolicyChanged { why }, "The packet was dropped, and so on.");
    denial.moment = Some(Moment { changes: vec![changed(3_000, Verdict::Deny)], ..Moment::default() });
    assert_snapshot!(block(&denial), @"
    14:02:11.482 DROPPED policy changed  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)
      cause    The packet was dropped, and so on.
      kernel   NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0      NetworkPolicy shop/api changed 3 s before the drop; before, they denied it
    ");
}

#[test]
fn an_amendment_says_what_was_said_before() {
    let mut before = innocent(Class::Undecided, Agreement::CannotDecide { why: "?".into() }, "?");
    before.who.client.identity = Identity::UnownedPodAddress;
    let why = "10.244.1.5 was published as shop/web-7d9f's 5 s after the drop".into();
    let amendment = Amendment { before: Arc::new(before), earlier: Vec::new(), denial: Arc::new(example()), why };
    let item = Item::Amendment { key: crate::serve::testing::key(1), amendment, is_first: false };
    let oneline = Renderer { oneline: true, ..renderer() };
    assert_snapshot!(oneline.item(&item), @"
    14:02:11.482 amended 0000000000000001   was 10.244.1.5 (pod not known) → shop/api-5c4b:8080/TCP: 10.244.1.5 was published as shop/web-7d9f's 5 s after the drop
    14:02:11.482 DENIED ingress  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)  by shop/api-allow-frontend; nearest ingress[0]: peer differs: podSelector wants app=frontend, shop/web-7d9f has app=web
    ");
    assert!(renderer().item(&item).ends_with(&block(&example())));
}

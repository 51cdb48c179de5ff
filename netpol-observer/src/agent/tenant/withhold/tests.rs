//! As somebody who wants to know more than they may: whatever a drop holds of others is planted with a word, which must not come out.

use jiff::SignedDuration;
use jiff::tz::TimeZone;

use super::*;
use crate::cluster::{Direction, Kind, ObjectKey};
use crate::diagnose::{Attributed, Class, How, Moment, PastKnown, RecentChange, Unevaluated};
use crate::effect::{ChangeKind, Effect};
use crate::flow::{HookFunction, Interface, Peer, Socket};
use crate::pipeline::Amendment;
use crate::policy::{PolicyRef, Verdict};
use crate::serve::json::Line;
use crate::serve::render::{Palette, Renderer};
use crate::serve::testing::{api, api_service, at, denied_ingress, example, external, fix, in_tunnel, ip, key, node, party, pod, policy};
use crate::serve::{Item, filter::Filter, filter::Filters};
use crate::timeline::{Holder, Owner};

const SECRET_IP: &str = "10.244.66.6";

fn secret_pod() -> Arc<Pod> {
    let mut pod = pod("secret-ns", "secret-web", SECRET_IP, &[("app", "web"), ("secret-key", "secret-value")]);
    Arc::get_mut(&mut pod).unwrap().uid = "secret-uid".into();
    pod
}

fn secret_policy() -> PolicyRef {
    PolicyRef { namespace: "secret-ns".into(), ..policy("secret-policy") }
}

/// The policies of the secret pod's side.
fn secret_direction(direction: Direction) -> DirectionExplanation {
    let mut explained = denied_ingress();
    explained.direction = direction;
    explained.subject = Some("secret-ns/secret-web".into());
    if let Admission::Denied { isolating, nearest, .. } = &mut explained.admission {
        isolating.iter_mut().for_each(|isolating| isolating.policy = secret_policy());
        nearest.iter_mut().for_each(|near| near.rule.policy = secret_policy());
    }
    explained
}

/// Somebody else has had an address of theirs, and policies of others have changed.
fn secret_moment() -> Moment {
    let owner = |pod| Owner { who: Holder::Pod(pod), since: None, until: None };
    let change = |kind, namespace: &str, name: &str| RecentChange {
        key: ObjectKey { kind, namespace: namespace.into(), name: name.into() },
        kind: ChangeKind::Changed,
        when: at(1),
        before_drop: SignedDuration::from_secs(1),
        verdict_before: Verdict::Allow,
        verdict_after: Verdict::Deny,
    };
    Moment {
        past: PastKnown::Exact,
        owners: vec![
            Attributed { ip: ip("10.244.1.5"), how: How::Several(vec![owner(api()), owner(secret_pod())]) },
            Attributed { ip: ip("10.244.1.5"), how: How::Interface { pod: api(), published: vec![secret_pod()] } },
        ],
        changes: vec![
            change(Kind::NetworkPolicy, "shop", "api-allow-frontend"),
            change(Kind::NetworkPolicy, "secret-ns", "secret-policy"),
            change(Kind::Namespace, "", "secret-ns"),
        ],
        unevaluated: vec![Unevaluated { group: "secret.io".into(), kind: "SecretPolicy".into(), count: Some(3) }],
    }
}

/// shop/web, or shop/api, on one end, and the secret pod on the other; everything else that can be there is there.
fn planted(secret_is_client: bool) -> Denial {
    let mut denial = example();
    in_tunnel(&mut denial);
    let secret = secret_pod();
    let event = &mut denial.event;
    event.interface = Some(Interface { index: 12, name: "secret-veth".into() });
    event.netns = Some(4_026_666_666);
    event.socket = Some(Socket { cookie: Some(666_666), cgroup: Some(555_777), pod_uid: Some("secret-uid".into()) });
    event.filters = vec![HookFunction {
        function: "secret_function".into(),
        priority: 0,
        table: Some("secret-table".into()),
        chain: Some("secret-chain".into()),
    }];
    event.peer = Some(Peer { netns: 4_026_777_666, index: 2, name: "secret-eth0".into(), pod_uid: Some("secret-uid".into()) });
    event.location.symbol = None;
    event.location.address = 0xffff_ffff_c0a0_6666;
    denial.who.behind = Some(Arc::clone(&secret));
    denial.who.host_network = vec![Arc::clone(&secret)];
    denial.who.callers = vec![Arc::clone(&secret)];
    denial.moment = Some(secret_moment());
    let misses_secret = |explained: &mut DirectionExplanation| {
        if let Admission::Denied { isolating, nearest, .. } = &mut explained.admission {
            let wants = crate::serve::testing::wants("secret-key", "other");
            let condition =
                crate::policy::Condition::PodLabel { wants, pod: "secret-ns/secret-web".into(), has: Some("secret-value".into()) };
            isolating
                .iter_mut()
                .flat_map(|policy| &mut policy.rules)
                .flat_map(|rule| &mut rule.peers)
                .for_each(|peer| peer.failed = vec![condition.clone()]);
            nearest.iter_mut().for_each(|near| near.peer = vec![condition.clone()]);
        }
    };
    let explanation = &mut denial.explanation;
    let mut own = denied_ingress();
    misses_secret(&mut own);
    if secret_is_client {
        denial.who.client = party(&secret);
        event.flow.source = secret.ips[0];
        explanation.egress = secret_direction(Direction::Egress);
        explanation.ingress = own;
    } else {
        denial.who.server = party(&secret);
        event.flow.destination = secret.ips[0];
        own.direction = Direction::Egress;
        own.subject = Some("shop/web-7d9f".into());
        explanation.egress = own;
        explanation.ingress = secret_direction(Direction::Ingress);
        let mut service = (*api_service()).clone();
        (service.namespace, service.name) = ("secret-ns".into(), "secret-service".into());
        let call = denial.who.service.as_mut().unwrap();
        call.service = Arc::new(service);
        call.port_name = Some("secret-port".into());
        call.backends = vec![(secret.ips[0], 8080), (ip("10.244.66.7"), 8080)];
    }
    explanation.fixes = vec![
        fix(
            Direction::Ingress,
            Some(policy("api-allow-frontend")),
            "ingress[0].from += podSelector {secret-key: secret-value}",
            &["secret-ns/secret-web"],
        ),
        fix(Direction::Egress, Some(secret_policy()), "egress[0].to += secret", &["shop/api"]),
    ];
    explanation.remaining = vec![
        Remaining::ServiceWithoutEndpoints { service: "secret-ns/secret-service".into() },
        Remaining::OtherEndpointsDenied { service: "shop/api".into(), endpoints: vec!["secret-ns/secret-api (10.0.0.66):8080".into()] },
        Remaining::DnsDenied { service: "secret-ns/secret-dns".into() },
        Remaining::NoFix { direction: Direction::Egress, why: "secret reasons".into() },
    ];
    explanation.notes = vec!["secret-ns/secret-policy has parts that are secret".into()];
    denial.diagnosis.summary = "Policies deny secret-ns/secret-web.".into();
    denial.diagnosis.agreement = Agreement::CannotDecide { why: "secret-ns/secret-web is ambiguous".into() };
    denial
}

fn shown_to(denial: &Denial, readable: &[&str]) -> Option<Denial> {
    let may_read = |namespace: &str| readable.contains(&namespace);
    Sight { may_read: &may_read, node: "node-2", ids: &RandomState::new() }.of(denial)
}

/// Everything a reader can get of it, in every form.
fn written(denial: &Denial) -> String {
    let mut text = Vec::new();
    let item = Item::Denial { key: key(1), denial: Arc::new(denial.clone()) };
    Line::of(&item, Some("node-2")).write(&mut text).unwrap();
    let mut text = String::from_utf8(text).unwrap();
    for oneline in [false, true] {
        let renderer = Renderer { palette: Palette::PLAIN, time_zone: TimeZone::UTC, node: Some("node-2".into()), oneline };
        text.push_str(&renderer.item(&item));
    }
    // What JSON and text leave out today.
    text + &format!("{denial:?}")
}

fn assert_withheld(text: &str) {
    for word in ["secret", "66666", "777666", "555777", "c0a06666", "18446744072646124134"] {
        assert!(!text.contains(word), "{word} in {text}");
    }
}

#[test]
fn nothing_of_the_other_end_comes_out() {
    for secret_is_client in [true, false] {
        let planted = planted(secret_is_client);
        assert!(written(&planted).contains("secret-value"));
        let shown = shown_to(&planted, &["shop"]).unwrap();
        let text = written(&shown);
        assert_withheld(&text);
        // What is theirs is there.
        assert!(text.contains("shop/api-allow-frontend") && text.contains("NETFILTER_DROP"), "{text}");
        let theirs = if secret_is_client { "shop/api-5c4b" } else { "shop/web-7d9f" };
        assert!(text.contains(theirs), "{text}");
        assert_eq!(shown.diagnosis.class, Class::PolicyDenied(vec![Direction::Ingress]));
        assert!(shown.explanation.fixes.is_empty());
        assert_eq!(shown.explanation.notes, [NOTE]);
    }
}

#[test]
fn a_drop_between_others_is_not_shown() {
    assert!(shown_to(&planted(true), &[]).is_none());
    assert!(shown_to(&planted(true), &["kube-system", "sho", "shop2"]).is_none());
    let mut outside = example();
    outside.who.client = external("203.0.113.7");
    outside.who.server = external("198.51.100.7");
    assert!(shown_to(&outside, &["shop"]).is_none());
    // A Service in a readable namespace is no end when others answer for it.
    let mut between = planted(true);
    between.who.server = party(&secret_pod());
    assert!(shown_to(&between, &["shop"]).is_none());
}

#[test]
fn who_may_read_both_ends_sees_the_whole_but_for_the_node() {
    let planted = planted(true);
    let shown = shown_to(&planted, &["shop", "secret-ns"]).unwrap();
    assert_eq!(shown.explanation, planted.explanation);
    assert_eq!(shown.diagnosis, planted.diagnosis);
    assert_eq!(shown.who.client.ip, planted.who.client.ip);
    let text = written(&shown);
    assert!(text.contains("secret-value"));
    for of_the_node in ["66666", "555777", "c0a06666", "node-1", "192.0.2."] {
        assert!(!text.contains(of_the_node), "{of_the_node} in {text}");
    }
}

#[test]
fn a_fix_that_admits_others_says_so_without_naming_them() {
    let mut denial = example();
    denial.explanation.fixes = vec![fix(
        Direction::Ingress,
        Some(policy("api-allow-frontend")),
        "ingress[0].from += all",
        &["shop/web", "secret-ns/a", "10.0.0.0/8"],
    )];
    let shown = shown_to(&denial, &["shop"]).unwrap();
    assert_eq!(shown.explanation.fixes[0].newly_admits, ["shop/web", "10.0.0.0/8"]);
    assert_eq!(shown.explanation.notes, [ADMITS_OTHERS]);
    assert_withheld(&written(&shown));
    assert!(shown_to(&example(), &["shop"]).unwrap().explanation.notes.is_empty());
}

#[test]
fn a_client_sees_what_it_dialled_and_not_who_answers() {
    let shown = shown_to(&planted(false), &["shop"]).unwrap();
    let text = written(&shown);
    assert!(!text.contains(SECRET_IP) && !text.contains("10.244.66.7"), "{text}");
    assert!(text.contains("10.96.0.10"), "{text}");
    assert_eq!(shown.who.server.ip, ip("10.96.0.10"));
    assert_eq!(shown.event.flow.destination_port, Some(80));
    assert!(shown.who.service.is_none());
    // The same of an answer on its way back.
    let mut reply = planted(false);
    let flow = &mut reply.event.flow;
    std::mem::swap(&mut flow.source, &mut flow.destination);
    std::mem::swap(&mut flow.source_port, &mut flow.destination_port);
    reply.event.conntrack.as_mut().unwrap().reply = true;
    let shown = shown_to(&reply, &["shop"]).unwrap();
    assert!(shown.event.is_reply());
    assert!(!written(&shown).contains(SECRET_IP));
    assert_eq!((shown.event.flow.source, shown.event.flow.source_port), (ip("10.96.0.10"), Some(80)));
}

#[test]
fn a_server_sees_the_address_on_the_packet_and_not_who_dialled_from_where() {
    let mut rewritten = planted(true);
    // The node has put its own address in the place of the pod's.
    rewritten.event.flow.source = ip("10.244.2.1");
    rewritten.event.conntrack.as_mut().unwrap().original.source = ip(SECRET_IP);
    let shown = shown_to(&rewritten, &["shop"]).unwrap();
    assert_eq!(shown.who.client.ip, ip("10.244.2.1"));
    assert!(!written(&shown).contains(SECRET_IP));
}

#[test]
fn an_address_that_may_be_somebody_elses_is_nobodys() {
    let mut ambiguous = example();
    ambiguous.who.server.identity = Identity::AmbiguousPods(vec![api(), secret_pod()]);
    ambiguous.who.client = external("203.0.113.7");
    assert!(shown_to(&ambiguous, &["shop"]).is_none());
    ambiguous.who.client = party(&crate::serve::testing::web());
    let shown = shown_to(&ambiguous, &["shop"]).unwrap();
    assert!(matches!(shown.who.server.identity, Identity::NotShown));
    assert_withheld(&written(&shown));
}

#[test]
fn nodes_have_a_name_only_when_it_is_this_one() {
    for (name, shown_name) in [("node-2", true), ("node-secret", false)] {
        let mut denial = example();
        denial.who.client = node(name, "192.0.2.1");
        if let Identity::Node(node) = &mut denial.who.client.identity {
            Arc::get_mut(node).unwrap().labels = crate::serve::testing::labels(&[("secret-key", "secret-value")]);
        }
        let shown = shown_to(&denial, &["shop"]).unwrap();
        assert_withheld(&written(&shown));
        assert_eq!(matches!(shown.who.client.identity, Identity::Node(_)), shown_name);
    }
}

#[test]
fn of_the_moment_they_see_what_names_nobody_else() {
    let mut denial = example();
    denial.moment = Some(secret_moment());
    denial.moment.as_mut().unwrap().unevaluated.clear();
    let shown = shown_to(&denial, &["shop"]).unwrap();
    assert_withheld(&written(&shown));
    let moment = shown.moment.unwrap();
    assert!(moment.owners.is_empty());
    assert_eq!(moment.changes.len(), 1);
    let whole = shown_to(&denial, &["shop", "secret-ns"]).unwrap().moment.unwrap();
    assert_eq!((whole.owners.len(), whole.changes.len()), (2, 3));
}

fn amended(before: Denial, denial: Denial, readable: &[&str]) -> Amended {
    let why = "10.244.66.6 was published as secret-ns/secret-web's 2 s after the drop".to_owned();
    let amendment = Amendment { before: Arc::new(before), earlier: Vec::new(), denial: Arc::new(denial), why };
    let may_read = |namespace: &str| readable.contains(&namespace);
    Sight { may_read: &may_read, node: "node-2", ids: &RandomState::new() }.amendment(&amendment)
}

#[test]
fn amendments_are_put_into_words_anew() {
    // Nobody was known, and now it is theirs; or it is another one's.
    let mut unknown = example();
    unknown.who.client.identity = Identity::UnownedPodAddress;
    let Amended::Shown(amendment) = amended(unknown.clone(), example(), &["shop"]) else { panic!("shown") };
    assert!(amendment.why.contains("shop/web"), "{}", amendment.why);
    let Amended::Shown(amendment) = amended(unknown.clone(), planted(true), &["shop"]) else { panic!("shown") };
    assert_withheld(&format!("{}{}", amendment.why, written(&amendment.denial)));
    assert!(matches!(amended(planted(true), planted(true), &["shop"]), Amended::Nothing));

    // Between others before, and theirs now; theirs before, and of others now.
    let mut others = planted(true);
    others.who.server = party(&secret_pod());
    assert!(matches!(amended(others.clone(), example(), &["shop"]), Amended::New(_)));
    assert!(matches!(amended(example(), others.clone(), &["shop"]), Amended::NotTheirs));
    assert!(matches!(amended(others.clone(), others, &["shop"]), Amended::Nothing));
}

#[test]
fn of_a_change_they_see_that_it_was_and_not_what_it_does() {
    let effect = crate::serve::testing::policy_change();
    let shown = |readable: &[&str]| {
        let may_read = |namespace: &str| readable.contains(&namespace);
        Sight { may_read: &may_read, node: "node-2", ids: &RandomState::new() }.policy_change(&effect)
    };
    let Effect { key, difference, .. } = shown(&["shop"]).unwrap();
    assert_eq!((&*key.namespace, &key.name), ("shop", &effect.key.name));
    assert!(matches!(difference, crate::policy::Difference::NotCounted(crate::policy::NotCounted::NotShown)));
    assert!(shown(&["secret-ns"]).is_none());
}

/// A filter is a question: it must not be answered from what is withheld.
#[test]
fn filters_do_not_ask_what_is_withheld() {
    let shown = shown_to(&planted(true), &["shop"]).unwrap();
    let admits = |filter: Filter| {
        let mut filters = Filters::default();
        filters.wanted.push(filter);
        filters.admit(&shown)
    };
    use crate::serve::filter::Side;
    use crate::serve::label_selector::parse_selector;
    assert!(admits(Filter::Namespace(Side::Either, "shop".into())));
    assert!(!admits(Filter::Namespace(Side::Either, "secret-ns".into())));
    assert!(!admits(Filter::Pod(Side::From, "*".parse().unwrap())));
    assert!(!admits(Filter::Selector(parse_selector("secret-key").unwrap())));
    assert!(!admits(Filter::Policy("secret-ns/*".parse().unwrap())));
}

#[test]
fn ids_tell_nothing_and_stay_the_same() {
    let ids = RandomState::new();
    let (one, other) = (FoldId(1), FoldId(2));
    assert_eq!(id(one, &ids), id(one, &ids));
    assert_ne!(id(one, &ids), id(other, &ids));
    assert_ne!(id(one, &ids), one);
    assert_ne!(id(one, &ids), id(one, &RandomState::new()));
}

#[test]
fn every_namespace_of_a_drop_is_asked_about() {
    let mut denial = planted(false);
    let names = |denial: &Denial| namespaces(denial).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&denial), ["secret-ns", "shop"]);
    denial.explanation.fixes[0].newly_admits = (0..100).map(|number| format!("ns-{number:03}/x")).collect();
    assert_eq!(names(&denial).len(), 2 + ADMITTED_NAMESPACES);
}

//! Notes, doubts and the order of near misses.

use super::*;

const API: &str = "{podSelector: {matchLabels: {app: api}}, ";

fn api_and_web(spec: &str) -> Index {
    index(
        &[pod("api", "app: api", "10.0.0.1", None), pod("web", "app: web", "10.0.0.2", None), policy("api", &format!("{API}{spec}}}"))]
            .concat(),
    )
}

/// Of two rules that miss one condition each, the one about the port that was called comes first.
#[test]
fn the_rule_for_the_port_is_nearer() {
    let rules = "ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 81}]}, \
                 {from: [{podSelector: {matchLabels: {app: x}}}], ports: [{port: 80}]}]";
    let explanation = explained(&api_and_web(rules), "10.0.0.2", "10.0.0.1", 80);
    let Admission::Denied { nearest, .. } = &explanation.ingress.admission else { panic!("{explanation:#?}") };
    assert_eq!(nearest.iter().map(|miss| (miss.rule.index, miss.distance)).collect::<Vec<_>>(), [(1, 1), (0, 1)]);
}

/// What the profile decided is said, whichever way it was.
#[test]
fn blocks_and_pod_addresses_are_a_matter_of_profile() {
    let index = api_and_web("ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/24}}]}]");
    let connection = call(&index, "10.0.0.2", "10.0.0.1", 80);
    let by_default = explain(&connection, &index, &Profile::default());
    assert_eq!(by_default.verdict, Verdict::Allow);
    assert_eq!(
        by_default.notes,
        ["ingress: an ipBlock matches the pod address 10.0.0.2; the API leaves that open, and some implementations do not"]
    );

    let otherwise = explain(&connection, &index, &Profile { ip_block_matches_pods: false, ..Profile::default() });
    assert_eq!(otherwise.verdict, Verdict::Deny);
    assert_eq!(
        otherwise.notes,
        ["ingress: an ipBlock does not match the pod address 10.0.0.2; the API leaves that open, and some implementations do"]
    );
    let Admission::Denied { nearest, .. } = &otherwise.ingress.admission else { panic!("{otherwise:#?}") };
    assert!(matches!(nearest[0].peer.as_slice(), [Condition::BlockIgnoresPods { .. }]));

    // An external address is none of that matter.
    assert_eq!(explained(&index, "10.0.0.77", "10.0.0.1", 80).notes, [""; 0]);
}

#[test]
fn refused_parts_are_named_once() {
    let index = index(
        &[
            pod("api", "app: api", "10.0.0.1", None),
            pod("web", "app: web", "10.0.0.2", None),
            policy("half", "{podSelector: {}, ingress: [{from: [{}]}], egress: [{}]}"),
            policy("nobody", "{podSelector: {matchExpressions: [{key: app, operator: Is}]}, policyTypes: [Ingress, Egress]}"),
        ]
        .concat(),
    );
    assert_eq!(
        explained(&index, "10.0.0.2", "10.0.0.1", 80).notes,
        [
            "NetworkPolicy shop/half has parts that the API server would refuse and that match nothing: \
             spec.ingress[0].from[0]: Required value: must specify a peer",
            "NetworkPolicy shop/nobody selects no pod: its podSelector is one that the API server would refuse",
        ]
    );
}

#[test]
fn every_rule_for_icmp_is_labelled() {
    let index = api_and_web("ingress: [{}]");
    let connection = Connection { protocol: Protocol::Icmp, port: None, ..call(&index, "10.0.0.2", "10.0.0.1", 80) };
    let explanation = explain(&connection, &index, &Profile::default());
    assert_eq!(explanation.verdict, Verdict::Allow);
    assert!(explanation.notes[0].contains("ICMP is not defined by the API"), "{:?}", explanation.notes);
}

/// A caller may hand over the pod itself instead of its node; it is no subject and no peer of selectors all the same.
#[test]
fn a_host_network_pod_is_its_node() {
    let mut index = api_and_web("policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {}}]}]");
    let agent = Pod { host_network: true, ..Pod::clone(index.pod("shop", "api").unwrap()) };
    let agent = Arc::new(Pod { name: "agent".into(), ips: vec!["192.168.0.9".parse().unwrap()], ..agent });
    index.apply(Arc::clone(&agent));
    let agent = Party { ip: agent.ips[0], identity: Identity::Pod(agent) };

    let mut connection = call(&index, "10.0.0.2", "10.0.0.1", 80);
    assert_eq!(verdict(&connection, &index, &Profile::default()), Verdict::Allow);
    connection.source = agent.clone();
    let explanation = explain(&connection, &index, &Profile::default());
    assert!(matches!(explanation.egress.admission, Admission::NotSubject { .. }), "{explanation:#?}");
    assert!(matches!(explanation.ingress.admission, Admission::Denied { .. }), "{explanation:#?}");
    let towards = Connection { destination: agent, ..call(&index, "10.0.0.2", "10.0.0.1", 80) };
    assert_eq!(verdict(&towards, &index, &Profile::default()), Verdict::Allow);
}

#[test]
fn endpoints_of_a_service_are_counted() {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\n\
                   spec: {clusterIP: 10.96.0.1, selector: {app: api}, ports: [{port: 80}]}\n";
    let pods = [
        pod("api-1", "app: api, track: old", "10.0.0.1", None),
        pod("api-2", "app: api, track: new", "10.0.0.2", None),
        pod("web", "app: web", "10.0.0.3", None),
    ];
    let with = |policies: &str| index(&[&pods.concat(), service, policies].concat());
    let notes = |index: &Index, port: u16| {
        let explanation = explained(index, "10.0.0.3", "10.96.0.1", port);
        (explanation.verdict, explanation.notes)
    };

    let (verdict, said) = notes(&with(""), 80);
    assert_eq!((verdict, said), (Verdict::Allow, vec!["all 2 endpoints of Service shop/api are admitted; shown is shop/api-1:80".into()]));
    let (verdict, said) = notes(&with(&policy("all", "{podSelector: {}}")), 80);
    let none = "none of the 2 endpoints of Service shop/api is admitted; explained, and mended, is shop/api-1:80";
    assert_eq!((verdict, said), (Verdict::Deny, vec![none.into()]));
    let some = with(&policy("new", "{podSelector: {matchLabels: {track: new}}}"));
    let (verdict, said) = notes(&some, 80);
    let which = "1 of the 2 endpoints of Service shop/api are denied: shop/api-2:80; which one a call goes to is chosen at random";
    assert_eq!((verdict, said), (Verdict::Undecided, vec![which.into()]));
    assert_eq!(explained(&some, "10.0.0.3", "10.96.0.1", 80).ingress.subject.as_deref(), Some("shop/api-2"));

    let missing = explained(&some, "10.0.0.3", "10.96.0.1", 81);
    let Admission::Undecided { why } = &missing.ingress.admission else { panic!("{missing:#?}") };
    assert!(why.starts_with("Service shop/api has no port 81/TCP"), "{why}");
}

#[test]
fn doubts_name_the_address() {
    let node = "---\napiVersion: v1\nkind: Node\nmetadata: {name: n}\nspec: {podCIDRs: [10.0.1.0/24]}\n";
    let rules = "{podSelector: {matchLabels: {app: api}}, ingress: [{from: [{podSelector: {matchLabels: {app: left}}}]}]}";
    let index = index(
        &[
            pod("api", "app: api", "10.0.0.1", None),
            pod("a", "app: left", "10.0.0.9", None),
            pod("b", "app: right", "10.0.0.9", None),
            policy("api", rules),
        ]
        .concat()
        .replacen("---", &format!("{node}---"), 1),
    );
    let why = |source: &str| match explained(&index, source, "10.0.0.1", 80).ingress.admission {
        Admission::Undecided { why } => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why("10.0.0.9"), "10.0.0.9 is claimed by several pods, which policies may treat differently: shop/a, shop/b");
    assert_eq!(why("10.0.1.5"), "the owner of 10.0.1.5 is not yet known");
}

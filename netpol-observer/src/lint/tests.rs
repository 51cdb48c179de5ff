//! Per lint what triggers it, and a near case that does not.

mod cluster_kinds;

use std::collections::BTreeSet;

use super::{Code, Finding, Options, Report, Severity, lint};
use crate::cluster::{Index, Object, manifests};
use crate::policy::{Engine, Profile};

/// Two namespaces with pods, a node, and the cluster's DNS.
const CLUSTER: &str = r"
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: shop}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: monitoring, labels: {team: ops}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: kube-system}}
---
{apiVersion: v1, kind: Node, metadata: {name: node-1, labels: {zone: a}}, spec: {podCIDR: 10.244.0.0/24}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: api-1, namespace: shop, labels: {app: api, tier: back}}, spec: {containers: [{name: a, image: a, ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 5353, protocol: UDP}]}]}, status: {podIP: 10.244.0.11}}
---
{apiVersion: v1, kind: Pod, metadata: {name: api-2, namespace: shop, labels: {app: api, tier: back}}, spec: {containers: [{name: a, image: a, ports: [{name: http, containerPort: 8080}, {name: dns, containerPort: 5353, protocol: UDP}]}]}, status: {podIP: 10.244.0.12}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, labels: {app: web, tier: front}}, spec: {containers: [{name: a, image: a}]}, status: {podIP: 10.244.0.13}}
---
{apiVersion: v1, kind: Pod, metadata: {name: agent, namespace: shop, labels: {app: agent}}, spec: {hostNetwork: true, containers: [{name: a, image: a}]}, status: {podIP: 192.168.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: prometheus, namespace: monitoring, labels: {app: prometheus}}, spec: {containers: [{name: a, image: a}]}, status: {podIP: 10.244.0.21}}
---
{apiVersion: v1, kind: Pod, metadata: {name: dns-1, namespace: kube-system, labels: {k8s-app: kube-dns}}, spec: {containers: [{name: a, image: a}]}, status: {podIP: 10.244.0.31}}
---
{apiVersion: v1, kind: Service, metadata: {name: kube-dns, namespace: kube-system}, spec: {clusterIP: 10.96.0.10, selector: {k8s-app: kube-dns}, ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: api, namespace: shop}, spec: {clusterIP: 10.96.0.20, selector: {app: api}, ports: [{port: 80, targetPort: 8080}]}}
---
";

/// A rule that lets DNS through, so that `egress-without-dns` keeps quiet.
const DNS: &str = "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}";

fn read(text: &str) -> (Vec<Object>, Vec<manifests::Problem>) {
    let loaded = manifests::load(&["-".into()], &mut text.as_bytes()).unwrap();
    (loaded.objects, loaded.warnings)
}

fn report_of(text: &str, options: &Options) -> Report {
    let (objects, problems) = read(text);
    let mut index = Index::default();
    index.reset(objects);
    lint(&Engine::over(index, Profile::default()), &problems, options)
}

fn findings(text: &str) -> Vec<Finding> {
    report_of(text, &Options::default()).findings
}

/// A policy of namespace shop.
fn policy(spec: &str) -> String {
    format!("{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: p, namespace: shop}}, spec: {spec}}}\n---\n")
}

/// What a lint finds in a policy beside the cluster: field, severity and message of each.
fn found(code: Code, specs: &[&str]) -> Vec<(String, Severity, String)> {
    let policies: String = specs.iter().enumerate().map(|(i, spec)| policy(spec).replace("name: p,", &format!("name: p{i},"))).collect();
    let findings = findings(&format!("{CLUSTER}{policies}"));
    findings.into_iter().filter(|finding| finding.code == code).map(|f| (f.field.unwrap_or_default(), f.severity, f.message)).collect()
}

#[track_caller]
fn finds(code: Code, spec: &str, field: &str, severity: Severity, message: &str) {
    assert_eq!(found(code, &[spec]), [(field.to_owned(), severity, message.to_owned())]);
}

#[track_caller]
fn finds_nothing(code: Code, specs: &[&str]) {
    assert_eq!(found(code, specs), []);
}

const ALL: &str = "podSelector: {}";

#[test]
fn selects_no_pod() {
    finds(
        Code::SelectsNoPod,
        "{podSelector: {matchLabels: {app: ap}}}",
        "spec.podSelector",
        Severity::Warning,
        "the policy selects no pod: no pod of namespace shop has app=ap; 2 have app=api, 1 has app=web",
    );
    finds(
        Code::SelectsNoPod,
        "{podSelector: {matchLabels: {app: api, tier: front}}}",
        "spec.podSelector",
        Severity::Warning,
        "the policy selects no pod: no pod of namespace shop has all of app=api,tier=front: the nearest, shop/api-1, has app=api, but has tier=back where tier=front is wanted",
    );
    finds(
        Code::SelectsNoPod,
        "{podSelector: {matchLabels: {name: api}}}",
        "spec.podSelector",
        Severity::Warning,
        "the policy selects no pod: no pod of namespace shop has name=api; none has a label name, but 2 have app=api",
    );
    let [(.., message)] = &found(Code::SelectsNoPod, &["{podSelector: {matchLabels: {app: agent}}}"])[..] else { panic!() };
    assert!(message.contains("shop/agent would match, but it is in its node's network"), "{message}");
    finds_nothing(Code::SelectsNoPod, &["{podSelector: {matchLabels: {app: api}}}", "{podSelector: {}}", "{}"]);
}

#[test]
fn peers_that_match_nothing() {
    let of = |from: &str| format!("{{{ALL}, ingress: [{{from: [{from}]}}]}}");
    for (from, message) in [
        ("{podSelector: {matchLabels: {app: wbe}}}", "no pod of namespace shop has app=wbe; 1 has app=web, 2 have app=api"),
        (
            "{namespaceSelector: {matchLabels: {name: monitoring}}}",
            "no namespace has name=monitoring; none has a label name, but 1 has kubernetes.io/metadata.name=monitoring",
        ),
        (
            "{namespaceSelector: {matchLabels: {team: ops}}, podSelector: {matchLabels: {app: grafana}}}",
            "no pod of namespace monitoring has app=grafana; 1 has app=prometheus",
        ),
    ] {
        let message = format!("the peer matches no pod: {message}");
        finds(Code::PeerMatchesNothing, &of(from), "spec.ingress[0].from[0]", Severity::Warning, &message);
    }
    let excepted = of("{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.0/25, 203.0.113.128/25]}}");
    let message = "the ipBlock matches no address: its exceptions leave nothing of 203.0.113.0/24";
    finds(Code::PeerMatchesNothing, &excepted, "spec.ingress[0].from[0]", Severity::Error, message);
    for from in [
        "{podSelector: {matchLabels: {app: web}}}",
        "{namespaceSelector: {matchLabels: {team: ops}}}",
        "{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.0/25]}}",
    ] {
        finds_nothing(Code::PeerMatchesNothing, &[&of(from)]);
    }
}

/// A pod that has ended, or namespaces whose pods are not among the manifests, leave open what will be there.
#[test]
fn what_is_not_there_is_not_judged() {
    let alone = policy(
        "{podSelector: {matchLabels: {app: x}}, ingress: [{from: [{podSelector: {matchLabels: {app: y}}}], ports: [{port: http}]}]}",
    );
    let codes = |findings: Vec<Finding>| findings.into_iter().map(|finding| (finding.code, finding.message)).collect::<Vec<_>>();
    let [(Code::NoPods, message)] =
        &codes(findings(&format!("{alone}{}", alone.replace("name: p", "name: q").replace("app: x", "app: z"))))[..]
    else {
        panic!()
    };
    assert_eq!(message, "no Pod among the manifests: whether selectors and named ports match anything is not judged");
    let elsewhere = format!("{CLUSTER}{}", alone.replace("namespace: shop", "namespace: default"));
    let [(Code::NoPods, message)] = &codes(findings(&elsewhere))[..] else { panic!("{:?}", findings(&elsewhere)) };
    assert_eq!(message, "no Pod of namespace default among the manifests: whether policies there select anything is not judged");
    let ended = CLUSTER.replace("status: {podIP: 10.244.0.13}", "status: {phase: Succeeded}");
    assert_eq!(codes(findings(&format!("{ended}{}", policy("{podSelector: {matchLabels: {app: web}}}")))), []);
}

#[test]
fn named_ports() {
    let of = |port: &str| format!("{{podSelector: {{matchLabels: {{app: api}}}}, ingress: [{{ports: [{port}]}}]}}");
    let message = "no pod that the policy selects has a port named htpt for TCP, so that the entry matches nothing: they have dns (5353/UDP), http (8080/TCP)";
    finds(Code::NamedPortMissing, &of("{port: htpt}"), "spec.ingress[0].ports[0]", Severity::Warning, message);
    assert_eq!(found(Code::NamedPortMissing, &[&of("{port: dns}")]).len(), 1, "the protocol counts");
    finds_nothing(Code::NamedPortMissing, &[&of("{port: http}"), &of("{port: dns, protocol: UDP}"), &of("{port: 1}")]);
    let egress = |to: &str| format!("{{{ALL}, policyTypes: [Egress], egress: [{{to: [{to}], ports: [{{port: http}}]}}, {DNS}]}}");
    finds_nothing(Code::NamedPortMissing, &[&egress("{podSelector: {matchLabels: {app: api}}}")]);
    assert_eq!(found(Code::NamedPortMissing, &[&egress("{podSelector: {matchLabels: {app: web}}}")]).len(), 1);
    let block = egress("{ipBlock: {cidr: 203.0.113.0/24}}");
    let message = "the named port http is looked up on the destination pod, and an address has none: the rule admits nothing by it";
    finds(Code::NamedPortAddress, &block, "spec.egress[0].ports[0]", Severity::Error, message);
    finds_nothing(Code::NamedPortAddress, &[&egress("{podSelector: {}}")]);
}

#[test]
fn rules_that_another_makes_superfluous() {
    let ingress = |selector: &str, rules: &str| format!("{{podSelector: {selector}, ingress: [{rules}]}}");
    let (all, api) = ("{}", "{matchLabels: {app: api}}");
    let web = "{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 80}]}";
    let wide =
        "{from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [web, api]}]}}], ports: [{port: 1, endPort: 100}]}";
    let found = |specs: &[String]| {
        let specs: Vec<&str> = specs.iter().map(String::as_str).collect();
        found(Code::ShadowedRule, &specs).into_iter().map(|(field, _, message)| format!("{field} {message}")).collect::<Vec<_>>()
    };
    let same = found(&[ingress(all, &format!("{web}, {wide}"))]);
    assert_eq!(same.len(), 1, "{same:?}");
    assert!(same[0].starts_with("spec.ingress[0] everything that the rule admits is already admitted by spec.ingress[1] (-:"), "{same:?}");
    assert_eq!(found(&[ingress(all, &format!("{web}, {web}"))]).len(), 1, "of two that are equal one is superfluous");
    let by_another = found(&[ingress(api, web), ingress(all, wide)]);
    assert!(by_another[0].contains("of NetworkPolicy shop/p1") && by_another.len() == 1, "{by_another:?}");
    // The other one selects fewer pods, or admits fewer peers or ports.
    let none: Vec<String> = Vec::new();
    assert_eq!(found(&[ingress(all, web), ingress(api, wide)]), none);
    assert_eq!(found(&[ingress(all, &format!("{wide}, {}", wide.replace("endPort: 100", "endPort: 101").replace("web, ", "")))]), none);
    assert_eq!(found(&[ingress(all, &format!("{web}, {}", web.replace("port: 80", "port: 80, protocol: UDP")))]), none);
    let blocks = "{from: [{ipBlock: {cidr: 203.0.113.0/25}}]}, {from: [{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.7/32]}}]}";
    assert_eq!(found(&[ingress(all, blocks)]), none);
    assert_eq!(found(&[ingress(all, &blocks.replace(".7/32", ".200/32"))]).len(), 1);
}

#[test]
fn or_and_and() {
    let of = |from: &str| format!("{{podSelector: {{matchLabels: {{app: api}}}}, ingress: [{{from: [{from}]}}]}}");
    let or = of("{namespaceSelector: {matchLabels: {team: ops}}}, {podSelector: {matchLabels: {app: prometheus}}}");
    let message = "from[0] and from[1] are two items and mean either: all pods of namespaces with team=ops, or pods with app=prometheus of namespace \
                   shop, of which there is none, while namespaces with team=ops have such pods";
    finds(Code::OrInsteadOfAnd, &or, "spec.ingress[0].from[0]", Severity::Warning, message);
    finds_nothing(Code::PeerMatchesNothing, &[&or]);
    let meant = of("{namespaceSelector: {matchLabels: {team: ops}}}, {podSelector: {matchLabels: {app: web}}}");
    finds_nothing(Code::OrInsteadOfAnd, &[&meant]);
    let and = of("{namespaceSelector: {matchLabels: {team: ops}}, podSelector: {matchLabels: {app: web}}}");
    let message =
        "the peer matches no pod, since it wants both selectors to match: no pod of namespace monitoring has app=web; 1 has app=prometheus";
    finds(Code::AndInsteadOfOr, &and, "spec.ingress[0].from[0]", Severity::Warning, message);
    finds_nothing(
        Code::AndInsteadOfOr,
        &[&of("{namespaceSelector: {matchLabels: {team: ops}}, podSelector: {matchLabels: {app: prometheus}}}")],
    );
}

#[test]
fn peers_that_hold_much() {
    let of = |rule: &str| format!("{{{ALL}, ingress: [{rule}]}}");
    let message = "the rule has no `from`: everybody may connect on every port of every protocol, addresses outside the cluster included";
    finds(Code::AnyPeer, &of("{from: []}"), "spec.ingress[0]", Severity::Note, message);
    assert_eq!(found(Code::AnyPeer, &[&of("{ports: [{port: 80}]}"), &of("{}")]).len(), 2);
    finds_nothing(Code::AnyPeer, &[&of("{from: [{podSelector: {}}]}"), "{podSelector: {}, ingress: []}"]);
    let every = of("{from: [{namespaceSelector: {}}]}");
    finds(
        Code::AnyNamespace,
        &every,
        "spec.ingress[0].from[0]",
        Severity::Note,
        "the empty namespaceSelector means every namespace: all pods of the cluster may connect",
    );
    finds_nothing(Code::AnyNamespace, &[&of("{from: [{namespaceSelector: {matchLabels: {team: ops}}}]}")]);
    let dns = format!(
        "{{{ALL}, policyTypes: [Egress], egress: [{{to: [{{namespaceSelector: {{}}, podSelector: {{matchLabels: {{k8s-app: kube-dns}}}}}}]}}]}}"
    );
    finds_nothing(Code::AnyNamespace, &[&dns]);
}

#[test]
fn address_ranges() {
    let of = |block: &str| format!("{{{ALL}, policyTypes: [Egress], egress: [{{to: [{{ipBlock: {block}}}]}}, {DNS}]}}");
    for (block, severity, holds) in [
        ("{cidr: 10.244.0.11/32}", Severity::Warning, "10.244.0.11/32 holds 10.244.0.11 of pod shop/api-1"),
        (
            "{cidr: 10.244.0.128/25}",
            Severity::Warning,
            "10.244.0.128/25 holds addresses of the range 10.244.0.0/24 that a node gives to pods",
        ),
        ("{cidr: 0.0.0.0/0}", Severity::Note, "0.0.0.0/0 holds 10.244.0.11 of pod shop/api-1"),
    ] {
        let found = found(Code::IpBlockOverPods, &[&of(block)]);
        assert!(
            matches!(&found[..], [(field, of, message)] if field == "spec.egress[0].to[0]" && *of == severity && message.starts_with(holds)),
            "{found:?}"
        );
    }
    finds_nothing(Code::IpBlockOverPods, &[&of("{cidr: 203.0.113.0/24}"), &of("{cidr: 0.0.0.0/0, except: [10.0.0.0/8]}")]);
    assert_eq!(found(Code::IpBlockOverService, &[&of("{cidr: 10.96.0.20/32}")]).len(), 1);
    // The DNS Service's address is served by node-local caches, and a range for all that is private is not meant for Services.
    finds_nothing(Code::IpBlockOverService, &[&of("{cidr: 10.96.0.10/32}"), &of("{cidr: 10.0.0.0/8}")]);
}

#[test]
fn dns() {
    let of = |rules: &str| format!("{{podSelector: {{matchLabels: {{app: api}}}}, policyTypes: [Egress], egress: [{rules}]}}");
    let web = "{to: [{podSelector: {matchLabels: {app: web}}}]}";
    let found = |rules: &str| {
        found(Code::EgressWithoutDns, &[&of(rules)]).into_iter().map(|(_, severity, message)| (severity, message)).collect::<Vec<_>>()
    };
    let words = "egress of shop/api-1 is restricted and does not reach the cluster's DNS, Service kube-system/kube-dns at port 53, by ";
    assert_eq!(found(web), [(Severity::Warning, format!("{words}UDP and TCP"))]);
    assert_eq!(found(&format!("{web}, {DNS}")), []);
    assert_eq!(found(&DNS.replace(", {port: 53}]", "]")), [(Severity::Note, format!("{words}TCP (to which long answers fall back)"))]);
    let [(Severity::Note, message)] = &found(&format!("{web}, {{to: [{{ipBlock: {{cidr: 169.254.20.10/32}}}}]}}"))[..] else { panic!() };
    assert!(message.contains("they reach 169.254.20.10 only"), "{message}");
    assert_eq!(found(""), [], "who may call nobody needs no names");
    // What keeps calls from arriving is the doing of the policies there.
    let closed = policy("{podSelector: {}}").replace("namespace: shop", "namespace: kube-system").replace("name: p", "name: closed");
    let closed = findings(&format!("{CLUSTER}{}{closed}", policy(&of(&format!("{web}, {DNS}")))));
    assert!(!closed.iter().any(|finding| finding.code == Code::EgressWithoutDns), "{closed:?}");
    // Without the DNS among the manifests: as most clusters have it.
    let shop_only = |rules: &str| {
        let objects = CLUSTER.replace("k8s-app: kube-dns", "k8s-app: something").replace("name: kube-dns", "name: something");
        findings(&format!("{objects}{}", policy(&of(rules)))).into_iter().any(|finding| finding.code == Code::EgressWithoutDns)
    };
    assert!(shop_only(web));
    assert!(!shop_only(&format!("{web}, {{to: [{{namespaceSelector: {{}}, podSelector: {{matchLabels: {{k8s-app: kube-dns}}}}}}]}}")));
    assert!(
        !shop_only(&format!("{web}, {{to: [{{ipBlock: {{cidr: 10.0.0.0/8}}}}], ports: [{{port: 53, protocol: UDP}}]}}")),
        "it may be there"
    );
}

#[test]
fn what_shows_on_the_policy() {
    let egress = format!("{{{ALL}, policyTypes: [Ingress], egress: [{{}}]}}");
    let message = "the rules in spec.egress are ignored: policyTypes does not name Egress, so that the policy leaves egress alone";
    finds(Code::IgnoredRules, &egress, "spec.egress", Severity::Error, message);
    finds_nothing(Code::IgnoredRules, &[&egress.replace("[Ingress]", "[Ingress, Egress]"), &format!("{{{ALL}, egress: [{{}}]}}")]);

    let both = format!("{{{ALL}, policyTypes: [Ingress, Egress], ingress: [{{from: [{{podSelector: {{}}}}]}}]}}");
    assert_eq!(found(Code::IsolatesCompletely, &[&both]).len(), 1);
    finds_nothing(Code::IsolatesCompletely, &[&format!("{{{ALL}, policyTypes: [Ingress, Egress]}}")]);
    finds_nothing(Code::IsolatesCompletely, &[&format!("{{{ALL}, policyTypes: [Ingress, Egress], egress: [{DNS}]}}")]);
    finds_nothing(Code::IsolatesCompletely, &[&both, &format!("{{{ALL}, policyTypes: [Ingress, Egress]}}")]);

    let udp = format!("{{{ALL}, ingress: [{{ports: [{{port: 99, protocol: UDP}}]}}]}}");
    assert_eq!(found(Code::NoTcp, &[&udp]).len(), 1);
    finds_nothing(Code::NoTcp, &[&udp.replace("]}]}", ", {port: 80}]}]}")]);
    finds_nothing(Code::NoTcp, &[&udp, &format!("{{{ALL}}}")]);

    let hash = "{podSelector: {matchLabels: {pod-template-hash: abc}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}";
    assert_eq!(found(Code::PassingLabel, &[hash])[0].0, "spec.podSelector");
    finds_nothing(Code::PassingLabel, &[&hash.replace("pod-template-hash: abc", "app: api")]);

    let range = format!("{{{ALL}, ingress: [{{ports: [{{port: 1000, endPort: 2000}}]}}]}}");
    finds(Code::WidePortRange, &range, "spec.ingress[0].ports[0]", Severity::Note, "the range 1000-2000 holds 1001 ports");
    finds_nothing(Code::WidePortRange, &[&range.replace("2000", "1999")]);
}

#[test]
fn what_manifests_tell() {
    let invalid = policy("{podSelector: {},\n ingress: [\n  {ports: [\n   {port: 99999}]}]}");
    let found = findings(&format!("{CLUSTER}{invalid}"));
    let [finding] = &found.iter().filter(|finding| finding.severity == Severity::Error).collect::<Vec<_>>()[..] else {
        panic!("{found:?}")
    };
    assert_eq!((finding.code, finding.field.as_deref()), (Code::InvalidField, Some("spec.ingress[0].ports[0].port")));
    let line = 1 + format!("{CLUSTER}{invalid}").lines().position(|line| line.contains("99999")).unwrap();
    assert_eq!(finding.line, u32::try_from(line).ok());
    let misspelt = policy("{podSelector: {}, ingres: []}");
    let found = findings(&format!("{CLUSTER}{misspelt}"));
    assert!(matches!(&found[..], [Finding { code: Code::Manifest, severity: Severity::Warning, .. }]), "{found:?}");
    assert_eq!(found[0].object.as_ref().map(ToString::to_string).as_deref(), Some("NetworkPolicy shop/p"));
    let lost = policy("{podSelector: {}}").replace("namespace: shop", "namespace: shpo");
    let found = findings(&format!("{CLUSTER}{lost}"));
    assert!(
        found.iter().any(|finding| finding.code == Code::MissingNamespace && finding.message.ends_with("the nearest name is shop")),
        "{found:?}"
    );
    assert!(!findings(&format!("{CLUSTER}{}", policy("{podSelector: {}}"))).iter().any(|finding| finding.code == Code::MissingNamespace));
}

#[test]
fn suppression() {
    let text = format!("{CLUSTER}{}", policy("{podSelector: {matchLabels: {app: x}}, ingress: [{}]}"));
    let codes = |options: &Options| report_of(&text, options).findings.iter().map(|finding| finding.code).collect::<Vec<_>>();
    assert_eq!(codes(&Options::default()), [Code::SelectsNoPod, Code::AnyPeer]);
    assert_eq!(codes(&Options { ignore: BTreeSet::from([Code::AnyPeer]), ..Options::default() }), [Code::SelectsNoPod]);
    assert_eq!(codes(&Options { only: BTreeSet::from([Code::AnyPeer]), ..Options::default() }), [Code::AnyPeer]);
    let annotated = |value: &str| text.replace("name: p,", &format!("name: p, annotations: {{netpol-observer.io/ignore: '{value}'}},"));
    let report = report_of(&annotated("selects-no-pod, any-peer"), &Options::default());
    assert_eq!((report.findings.len(), report.suppressed, report.policies), (0, 2, 1));
    let report = report_of(&annotated("selects-no-pods"), &Options::default());
    assert!(report.findings.iter().any(|finding| finding.code == Code::UnknownCode));
    assert_eq!((report.findings.len(), report.suppressed), (3, 0));
}

/// `docs/lints.md` has a section for every lint, and none for others.
#[test]
fn every_lint_is_documented() {
    let document = include_str!("../../../docs/lints.md");
    let sections: Vec<&str> = document.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`')).collect();
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    assert_eq!(sections, codes);
}

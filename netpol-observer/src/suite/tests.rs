//! Tests about tests: what passes, what does not, and in what words.

use std::io;

use super::*;
use crate::cluster::{Index, manifests};
use crate::policy::Profile;

const SHOP: &str = r#"
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: shop}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {selector: {}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, ports: [{containerPort: 80}]}]}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: shop}
spec: {selector: {}, replicas: 1, template: {metadata: {labels: {app: api}}, spec: {containers: [{name: api, ports: [{name: http, containerPort: 8080}]}]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: data}
spec: {selector: {}, serviceName: db, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: db, ports: [{containerPort: 5432}]}]}}}
---
{apiVersion: v1, kind: Service, metadata: {name: api, namespace: shop}, spec: {selector: {app: api}, ports: [{port: 80, targetPort: http}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: api}}
  ingress:
    - from: [{podSelector: {matchLabels: {app: web}}}, {ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.64/26]}}]
      ports: [{port: http}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: default-deny, namespace: data}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}
"#;

fn report(tests: &str) -> Report {
    report_of(SHOP, tests)
}

fn report_of(manifests: &str, tests: &str) -> Report {
    let text = format!(
        "{manifests}\n---\napiVersion: netpol-observer.io/v1alpha1\nkind: PolicyTest\nmetadata: {{name: shop}}\nnamespace: shop\ntests:\n{tests}"
    );
    let loaded = manifests::load(&["-".into()], &mut io::Cursor::new(text)).unwrap_or_else(|errors| panic!("{errors}")).with_stand_ins();
    let mut index = Index::default();
    index.reset(loaded.objects);
    run(&Engine::over(index, Profile::default()), &loaded.tests)
}

/// A line for each test, and one for each failure.
fn lines(report: &Report) -> Vec<String> {
    let of = |result: &TestResult| -> Vec<String> {
        let mut lines = vec![format!("{:?} {} ({})", result.outcome, result.name, result.connections)];
        lines.extend(result.failures.iter().map(|failure| {
            let Failure { from, to, port, message, origin, .. } = failure;
            let place = origin.as_ref().map(|origin| format!(" at {}", origin.line)).unwrap_or_default();
            format!("  {from} -> {to} on {port} {message}{place}")
        }));
        lines.extend(result.problem.iter().map(|problem| format!("  {}; {}", problem.message, problem.hints.join("; "))));
        lines
    };
    report.results.iter().flat_map(of).collect()
}

#[test]
fn what_is_as_expected_passes() {
    let report = report(
        "  - {from: deploy/web, to: deploy/api, port: 8080, expect: allow, by: api}
  - {from: deploy/web, to: 'http://api/', expect: allow}
  - {from: deploy/web, to: svc/api, port: 80, expect: allow, by: shop/api}
  - {from: [203.0.113.7, 203.0.113.128/25], to: deploy/api, port: 8080, expect: allow}
  - {from: [203.0.113.64/26, 198.51.100.0/24], to: deploy/api, expect: deny, by: api}
  - {from: '*/*', to: data/*, expect: deny, by: data/default-deny}
  - {from: '*', to: 'deploy/a*', expect: deny, except: [{from: deploy/web, port: 8080}]}
  - {from: data/app=db, to: '0.0.0.0/0', expect: deny}
  - {from: '*/app=web', to: '203.0.113.0/24', expect: allow}
  - {from: 203.0.113.0/24, to: deploy/api, expect: deny, except: [{from: 203.0.0.0/16, port: 8080}]}
  - {from: 203.0.113.0/24, to: deploy/api, port: 8080, expect: allow, except: [{from: 203.0.113.64/26}]}
",
    );
    assert!(report.all_passed(), "{:#?}", lines(&report));
    let connections: Vec<u64> = report.results.iter().map(|result| result.connections).collect();
    assert_eq!(connections[0], 1);
    assert!(connections.iter().all(|connections| *connections > 0), "{connections:?}");
}

#[test]
fn what_is_not_as_expected_is_told_with_its_reason_and_place() {
    let report = report(
        "  - {name: api in the open, from: deploy/web, to: deploy/api, port: 9090, expect: allow}
  - {name: nobody at all, from: '*/*', to: deploy/api, expect: deny}
  - {from: 203.0.113.0/24, to: deploy/api, port: 8080, expect: allow}
  - {from: deploy/web, to: data/sts/db, port: 5432, expect: allow}
  - {from: deploy/web, to: deploy/api, port: 8080, expect: allow, by: data/default-deny}
  - {from: deploy/api, to: deploy/web, port: 80, expect: allow, by: shop/api}
  - {from: data/sts/db, to: 'http://api.shop/', expect: allow}
",
    );
    assert_eq!(
        lines(&report),
        [
            "Failed api in the open (1)",
            "  shop/deploy/web -> shop/deploy/api on 9090/TCP is denied: no ingress rule of NetworkPolicy shop/api admits it at 27",
            "Failed nobody at all (8)",
            "  shop/deploy/web -> shop/deploy/api on 8080/TCP is admitted: no policy isolates shop/web-xxxxx for egress; by NetworkPolicy shop/api ingress[0] at 27",
            "Failed 203.0.113.0/24 to deploy/api on 8080 (3)",
            "  203.0.113.64 -> shop/deploy/api on 8080/TCP is denied: no ingress rule of NetworkPolicy shop/api admits it at 27",
            "Failed deploy/web to data/sts/db on 5432 (1)",
            "  shop/deploy/web -> data/sts/db on 5432/TCP is denied: no ingress rule of NetworkPolicy data/default-deny admits it at 30",
            "Failed deploy/web to deploy/api on 8080 (1)",
            "  shop/deploy/web -> shop/deploy/api on 8080/TCP is admitted as expected, but by NetworkPolicy shop/api, and not by data/default-deny at 27",
            "Failed deploy/api to deploy/web on 80 (1)",
            "  shop/deploy/api -> shop/deploy/web on 80/TCP is admitted as expected, but no policy decides it, and shop/api was to",
            "Failed data/sts/db to http://api.shop/ (2)",
            "  data/sts/db -> http://api.shop on 80/TCP is denied: no egress rule of NetworkPolicy data/default-deny admits it; no ingress rule of NetworkPolicy shop/api admits it at 30",
        ]
    );
}

#[test]
fn a_test_about_nobody_is_broken() {
    let report = report(
        "  - {from: deploy/wep, to: deploy/api, port: 8080, expect: deny}
  - {from: 'nobody/*', to: deploy/api, expect: deny}
  - {from: deploy/web, to: deploy/api, port: http, expect: allow}
  - {from: deploy/web, to: deploy/api, port: 8080, expect: allow, by: shop/other}
  - {from: deploy/api, to: deploy/api, port: 8080, expect: allow}
  - {from: deploy/web, to: 'http://apis/', expect: allow}
  - {from: deploy/web, to: deploy/api, expect: deny, except: [{from: deploy/old}]}
  - {from: [], to: deploy/api, expect: deny}
  - {from: 2001:db8::1, to: 203.0.113.7, port: 1, expect: allow}
",
    );
    assert_eq!(report.count(Outcome::Broken), report.results.len(), "{:#?}", lines(&report));
    let told = lines(&report);
    for expected in [
        "  no pod of Deployment shop/wep; did you mean shop/deploy/web?",
        "  nobody/* stands for no pod; a test about nobody cannot pass: correct the name, or add the workload's manifest",
        "  port: \"http\" is no port; write 8080, 53/UDP, 8000-8100/TCP, or a protocol alone",
        "  by: no policy shop/other; there are shop/api",
        "  no connection is left to judge; its two sides are one pod, their addresses are of different families, or `except` leaves nothing",
        "  from names nobody; name a workload, labels, an address or a wildcard",
    ] {
        assert!(told.iter().any(|line| line == expected), "{expected}: {told:#?}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]

    /// What people type may be anything.
    #[test]
    fn no_side_and_no_port_makes_it_panic(text in "[a-z*./:=!,() 0-9\\-]{0,24}|\\PC{0,12}") {
        let loaded = manifests::load(&["-".into()], &mut io::Cursor::new(SHOP.to_owned())).expect("manifests").with_stand_ins();
        let mut index = Index::default();
        index.reset(loaded.objects);
        let engine = Engine::over(index, Profile::default());
        let texts = |text: &str| crate::cluster::policy_test::Texts(vec![text.to_owned()]);
        let test = Test {
            name: None,
            from: texts(&text),
            to: texts(&text),
            port: crate::cluster::policy_test::Ports(vec![text.clone()]),
            expect: Expect::Deny,
            by: texts(&text),
            except: Vec::new(),
        };
        let any_port = Test { port: Default::default(), by: Default::default(), ..test.clone() };
        let document = PolicyTest { api_version: String::new(), kind: String::new(), metadata: Default::default(), namespace: None, tests: vec![test, any_port] };
        let origin = Origin { file: "-".into(), line: 1 };
        proptest::prop_assert_eq!(run(&engine, &[TestDocument { document, origin, lines: Vec::new() }]).results.len(), 2);
    }
}

/// Whatever the suite says of a pair on a port is what the engine says.
#[test]
fn the_suite_and_the_engine_agree() {
    let loaded = manifests::load(&["-".into()], &mut io::Cursor::new(SHOP.to_owned())).expect("manifests").with_stand_ins();
    let mut index = Index::default();
    index.reset(loaded.objects);
    let engine = Engine::over(index, Profile::default());
    let names = ["shop/deploy/web", "shop/deploy/api", "data/sts/db", "203.0.113.7", "203.0.113.70"];
    let mut compared = [0, 0];
    for from in names {
        for to in names.iter().take(3).filter(|to| **to != from) {
            for port in [80, 5432, 8080, 9090] {
                let question = crate::question::Question {
                    from: crate::question::End::parse(from, "default").expect("an end"),
                    to: crate::question::Callee::parse(to, "default").expect("an end"),
                    port: Some(port),
                    protocol: None,
                };
                let verdict = crate::question::verdict(&question, &engine).expect("a verdict");
                let tests = format!(
                    "  - {{from: {from}, to: {to}, port: {port}, expect: allow}}\n  - {{from: {from}, to: {to}, port: {port}, expect: deny}}\n"
                );
                let passed: Vec<bool> = report(&tests).results.iter().map(|result| result.outcome == Outcome::Passed).collect();
                let is_allowed = verdict == crate::policy::Verdict::Allow;
                assert_eq!(passed, [is_allowed, !is_allowed], "{from} {to} {port}: {verdict:?}");
                compared[usize::from(is_allowed)] += 1;
            }
        }
    }
    assert!(compared.iter().all(|count| *count > 3), "{compared:?}");
}

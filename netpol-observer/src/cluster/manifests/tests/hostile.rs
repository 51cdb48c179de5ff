//! Files made to break the reader: no panic, no overflow, bounded memory.

use proptest::prelude::*;

use super::super::documents::documents;
use super::super::tree::{Node, Value};
use super::*;

#[test]
fn deep_nesting_is_refused() {
    for text in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000), "{\"a\":".repeat(100_000)] {
        assert_eq!(read(&text).expect_err("too deep").problems.len(), 1);
    }
}

#[test]
fn aliases_of_aliases_are_refused() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for i in 1..10 {
        let aliases = vec![format!("*a{}", i - 1); 10].join(", ");
        text += &format!("a{i}: &a{i} [{aliases}]\n");
    }
    let found = read(&text).expect_err("too many");
    assert!(found.to_string().contains("limits breached"), "{found}");
}

#[test]
fn a_long_text_repeated_by_aliases_is_refused() {
    let text = format!("a: &a \"{}\\t\"\nb:\n{}", "x".repeat(2_000_000), "- *a\n".repeat(1000));
    let found = read(&text).expect_err("too much");
    assert!(found.to_string().contains("the document takes too much memory\n    hint: split the document"), "{found}");
}

#[test]
fn an_alias_within_itself_is_refused() {
    assert_eq!(errors("a: &a [*a]\n").len(), 1);
}

#[test]
fn many_broken_documents_are_counted_only() {
    let found = errors(&"[\n---\n".repeat(3000));
    assert_eq!(found.len(), 1001);
    assert_eq!(found.last().map(String::as_str), Some("-: 2000 more problems, here or in later files, are not listed"));
}

/// Pieces that files are made of, so that arbitrary texts get past the first character.
fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("---\n".to_owned()),
        Just("...\n".to_owned()),
        Just("\n  ".to_owned()),
        Just("- ".to_owned()),
        Just("{\"kind\": \"Pod\", \"apiVersion\": \"v1\"}".to_owned()),
        Just("apiVersion: v1\nkind: PodList\nitems:\n".to_owned()),
        Just("metadata: {name: a}\n".to_owned()),
        Just("&a *a <<: ".to_owned()),
        Just("!!binary ".to_owned()),
        Just("\r\n\t\u{feff}\0\u{85}".to_owned()),
        ".{0,8}",
        "[-:,{}\\[\\]&*!|>'\"%@`# \n]{0,8}",
    ]
}

const CLUSTER_POLICIES: &str = "
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: a}
spec:
  priority: 1
  subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: web}}}}
  ingress:
  - {action: Deny, from: [{namespaces: {}}], ports: [{namedPort: a}, {portNumber: {port: 80}}, {portRange: {start: 1, end: 2}}]}
  egress:
  - {action: Allow, to: [{networks: [10.0.0.0/8]}, {nodes: {}}, {domainNames: ['*.example.com']}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: b}
spec:
  tier: Baseline
  priority: 1
  subject: {namespaces: {matchExpressions: [{key: a, operator: In, values: [b]}]}}
  egress:
  - action: Pass
    to: [{pods: {podSelector: {}}}]
    protocols: [{tcp: {destinationPort: {number: 1}}}, {udp: {destinationPort: {range: {start: 1, end: 2}}}}, {destinationNamedPort: a}]
";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_it_panic(fragments in prop::collection::vec(fragment(), 0..24)) {
        let text = fragments.concat();
        if let Err(found) = read(&text) {
            prop_assert!(!found.problems.is_empty());
            let most = text.lines().count() as u32 + 1;
            for problem in found.problems {
                prop_assert!(problem.line.is_none_or(|line| (1..=most).contains(&line)), "{problem} of {most} lines");
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        let _ = load(&[PathBuf::from("-")], &mut bytes.as_slice());
    }

    /// A manifest with a part replaced by something else.
    #[test]
    fn no_mutation_makes_it_panic(at in 0..POLICY.len(), length in 0_usize..40, with in fragment()) {
        let end = (at + length).min(POLICY.len());
        let text = format!("{}{with}{}", &POLICY[..at], &POLICY[end..]);
        let _ = read(&text);
    }

    /// The same for the kinds whose fields are checked one by one.
    #[test]
    fn no_mutation_of_a_cluster_scoped_policy_makes_it_panic(
        at in 0..CLUSTER_POLICIES.len(),
        length in 0_usize..40,
        with in prop_oneof![
            fragment(),
            prop::sample::select(&["null", "[]", "{}", "-1", "65536", "4294967296", "1e9", "\"\"", "'*.'", "é", "/", "[null]"][..])
                .prop_map(str::to_owned),
        ],
    ) {
        let end = (at + length).min(CLUSTER_POLICIES.len());
        if let Ok(found) = read(&format!("{}{with}{}", &CLUSTER_POLICIES[..at], &CLUSTER_POLICIES[end..])) {
            for object in found.objects {
                let Object::ClusterPolicy(policy) = object else { continue };
                for message in &policy.invalid {
                    let field = message.split(": ").next().unwrap_or_default();
                    prop_assert!(field.starts_with("metadata.") || field.starts_with("spec"), "{message}");
                }
            }
        }
    }

    /// Documents do not overlap, keep their order, and know their lines.
    #[test]
    fn documents_are_parts_of_the_text(fragments in prop::collection::vec(fragment(), 0..24)) {
        let text = fragments.concat();
        let body = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let mut from = 0;
        for document in documents(&text) {
            let offset = document.text.as_ptr() as usize - body.as_ptr() as usize;
            prop_assert!(offset >= from);
            from = offset + document.text.len();
            prop_assert_eq!(document.line as usize, 1 + body[..offset].matches('\n').count());
        }
    }

    /// What is written as JSON is read back, with the types it had.
    #[test]
    fn json_is_read_as_it_is(
        texts in prop::collection::vec("[ -~\n\u{e9}\u{1f600}]{0,12}", 1..6),
        number in any::<i64>(),
        flag in any::<bool>(),
    ) {
        let value = serde_json::json!({"texts": texts, "number": number, "flag": flag, "none": null});
        for written in [value.to_string(), serde_json::to_string_pretty(&value).expect("JSON")] {
            let node = Node::parse(&written, 1).expect("JSON is YAML");
            let read: Vec<_> = node.get("texts").expect("texts").items().iter().map(|item| match &item.value {
                Value::String(text) => text.to_string(),
                other => panic!("{other:?}"),
            }).collect();
            prop_assert_eq!(&read, &texts);
            let read = match node.get("number").expect("a number").value {
                Value::Unsigned(number) => i128::from(number),
                Value::Signed(number) => i128::from(number),
                ref other => panic!("{other:?}"),
            };
            prop_assert_eq!(read, i128::from(number));
            prop_assert_eq!(&node.get("flag").expect("a flag").value, &Value::Bool(flag));
            prop_assert_eq!(&node.get("none").expect("nothing").value, &Value::Null);
        }
    }
}

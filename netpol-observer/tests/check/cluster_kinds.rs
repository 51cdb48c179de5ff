//! The cluster-scoped kinds, from their manifests.

use crate::Scene;

const POLICIES: &str = "\
apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: monitoring}
spec:
  priority: 10
  subject: {namespaces: {}}
  ingress:
    - action: Allow
      from: [{namespaces: {matchLabels: {kubernetes.io/metadata.name: shop}}}]
    - action: Deny
      from: [{pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}, podSelector: {matchLabels: {app: web}}}}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: tenants, annotations: {netpol-observer.io/ignore: tied-priorities}}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {}}
  ingress:
    - action: Deny
      from: [{namespaces: {}}]
";

#[test]
fn a_deny_behind_an_accept_is_an_error() {
    let scene = Scene::new(&[("policies.yaml", POLICIES), ("pods.yaml", super::CLUSTER)]);
    let (code, out, err) = scene.check(&["."]);
    assert_eq!((code, err.as_str()), (1, ""), "{out}");
    insta::assert_snapshot!(out, @r#"
    ./policies.yaml:10: error[deny-without-effect]: AdminNetworkPolicy monitoring: spec.ingress[1]: the Deny rule has no effect: the Accept rule spec.ingress[0] of the same policy (./policies.yaml:8) comes first and matches everything it matches
        help: put the rule before the other one (rules go in order, policies by priority, the lower number first), or remove it

    1 error in 2 policies (1 suppressed by annotations)
    "#);
}

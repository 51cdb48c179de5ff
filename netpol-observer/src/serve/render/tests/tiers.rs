//! Rules of the Admin and Baseline tiers, and commands.

use std::sync::Arc;

use insta::assert_snapshot;

use super::*;
use crate::cluster::{Action, Labels, Origin, Tier, Workload};
use crate::policy::{DirectionExplanation, Explanation, Fix, Manifest, PatchOperation, PolicyRef, RuleRef, TierOutcome, TierStep};
use crate::serve::render::why::write_why;

fn admin_rule(kind: &'static str, action: Action, name: Option<&str>) -> RuleRef {
    let origin = |line| Some(Origin { file: "admin.yaml".into(), line });
    RuleRef {
        policy: PolicyRef { kind, namespace: Arc::default(), name: "no-db".into(), resource_version: None, origin: origin(1) },
        direction: Direction::Ingress,
        index: 2,
        name: name.map(Into::into),
        action: Some(action),
        origin: origin(12),
    }
}

fn ingress(tiers: Vec<TierStep>, admission: Admission) -> DirectionExplanation {
    DirectionExplanation { direction: Direction::Ingress, subject: Some("shop/api-5c4b".into()), tiers, admission }
}

fn explained(ingress: DirectionExplanation) -> Explanation {
    let mut explanation = example().explanation;
    explanation.ingress = ingress;
    explanation.fixes.clear();
    explanation
}

fn why(explanation: &Explanation) -> String {
    let mut text = Text::new(Palette::PLAIN);
    write_why(&mut text, explanation);
    text.finish()
}

#[test]
fn a_deny_rule_of_the_admin_tier() {
    let by = admin_rule("AdminNetworkPolicy", Action::Deny, Some("keep-out"));
    let step = TierStep { tier: Tier::Admin, outcome: TierOutcome::Deny { by: Some(by.clone()) } };
    let admission = Admission::Denied { by: Some(by), isolating: vec![], nearest: vec![] };
    let mut denial = example();
    denial.explanation = explained(ingress(vec![step], admission));
    assert_snapshot!(block(&denial), @r#"
    14:02:11.482 DENIED ingress  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)
      by       AdminNetworkPolicy no-db      rule "keep-out", ingress[2] (admin.yaml:12), denies it for shop/api-5c4b
      kernel   NETFILTER_DROP in nft_do_chain, forward hook, nft chain ip filter FORWARD, on node-2, veth1a2b to eth0      agrees with the policies
    "#);
    assert!(oneline(&denial).ends_with("by rule \"keep-out\" (ingress[2]) of AdminNetworkPolicy no-db\n"), "{}", oneline(&denial));
    assert_snapshot!(why(&denial.explanation), @r#"
      egress   allowed: no policy restricts whom shop/web-7d9f may call
      ingress  denied: rule "keep-out" (ingress[2]) of AdminNetworkPolicy no-db denies it (admin.yaml:12); it comes before every NetworkPolicy, and none can overrule it
    "#);
}

#[test]
fn tiers_that_leave_it_to_the_next() {
    let pass = TierOutcome::Pass { by: admin_rule("ClusterNetworkPolicy", Action::Pass, None) };
    let deny = admin_rule("BaselineAdminNetworkPolicy", Action::Deny, None);
    let tiers = vec![
        TierStep { tier: Tier::Admin, outcome: pass },
        TierStep { tier: Tier::NetworkPolicy, outcome: TierOutcome::NoPolicy },
        TierStep { tier: Tier::Baseline, outcome: TierOutcome::Deny { by: Some(deny.clone()) } },
    ];
    let denied = explained(ingress(tiers, Admission::Denied { by: Some(deny), isolating: vec![], nearest: vec![] }));
    let accept = admin_rule("AdminNetworkPolicy", Action::Accept, Some("monitoring"));
    let allowed = explained(ingress(vec![], Admission::Allowed { by: vec![accept] }));
    let tiers = vec![TierStep { tier: Tier::Admin, outcome: TierOutcome::NoMatch { policies: 2 } }];
    let undecided = explained(ingress(tiers, Admission::NotIsolated));
    assert_snapshot!([why(&denied), why(&allowed), why(&undecided)].join("\n"), @r#"
      egress   allowed: no policy restricts whom shop/web-7d9f may call
      ingress  denied: rule ingress[2] of BaselineAdminNetworkPolicy no-db denies it (admin.yaml:12); it is the default where no NetworkPolicy restricts the pod, and a NetworkPolicy would overrule it
                 Admin tier, asked first: rule ingress[2] of ClusterNetworkPolicy no-db passes it on (admin.yaml:12)

      egress   allowed: no policy restricts whom shop/web-7d9f may call
      ingress  allowed: rule "monitoring" (ingress[2]) of AdminNetworkPolicy no-db accepts it (admin.yaml:12)

      egress   allowed: no policy restricts whom shop/web-7d9f may call
      ingress  allowed: no rule decides, and no NetworkPolicy restricts who may call shop/api-5c4b; what nothing denies is allowed
                 Admin tier, asked first: 2 policies select the pod, and no rule of theirs matches
    "#);
}

#[test]
fn commands_that_apply_a_fix() {
    let patch = || vec![PatchOperation::Add { path: "/spec/ingress/0/from/-".into(), value: serde_json::json!({"it's": 1}) }];
    let edit = |policy| Fix { patch: patch(), ..fix(Direction::Ingress, Some(policy), "…", &[]) };
    let mut lines = commands(&edit(policy("api")));
    lines.extend(commands(&edit(PolicyRef { name: "x; rm -rf '/'".into(), ..policy("api") })));
    lines.extend(commands(&edit(PolicyRef { kind: "ClusterNetworkPolicy", namespace: Arc::default(), ..policy("api") })));
    let relabel = |kind: &str| {
        let labels: Labels = crate::serve::testing::labels(&[("app", "web")]);
        let manifest = Manifest::Labels { workload: Workload { kind: kind.into(), name: "web".into() }, namespace: "shop".into(), labels };
        commands(&Fix { manifest, ..fix(Direction::Ingress, None, "…", &[]) })
    };
    lines.extend(["Pod", "Deployment", "CronJob", "Job"].into_iter().flat_map(relabel));
    assert_snapshot!(lines.join("\n"), @r###"
    kubectl patch networkpolicy api -n shop --type=json -p '[{"op":"add","path":"/spec/ingress/0/from/-","value":{"it'\''s":1}}]'
    kubectl patch networkpolicy 'x; rm -rf '\''/'\''' -n shop --type=json -p '[{"op":"add","path":"/spec/ingress/0/from/-","value":{"it'\''s":1}}]'
    kubectl patch clusternetworkpolicy.policy.networking.k8s.io api --type=json -p '[{"op":"add","path":"/spec/ingress/0/from/-","value":{"it'\''s":1}}]'
    kubectl label pod web -n shop --overwrite app=web
    kubectl patch deployment web -n shop --type=merge -p '{"spec":{"template":{"metadata":{"labels":{"app":"web"}}}}}'
    kubectl patch cronjob web -n shop --type=merge -p '{"spec":{"jobTemplate":{"spec":{"template":{"metadata":{"labels":{"app":"web"}}}}}}}'
    # add the labels to the pod template of Job web and create it anew
    "###);
    let policy = crate::cluster::NetworkPolicy { namespace: "shop".into(), name: "y".into(), ingress: Some(vec![]), ..Default::default() };
    let new = Fix { manifest: Manifest::NetworkPolicy(Arc::new(policy)), ..fix(Direction::Ingress, None, "…", &[]) };
    assert_snapshot!(commands(&new).join("\n"), @r#"
    kubectl apply -f - <<'EOF'
    apiVersion: networking.k8s.io/v1
    kind: NetworkPolicy
    metadata:
      name: "y"
      namespace: shop
    spec:
      ingress: []
      podSelector: {}
      policyTypes:
      - Ingress
    EOF
    "#);
}

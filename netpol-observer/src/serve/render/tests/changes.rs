//! Changes of policies as text.

use insta::assert_snapshot;

use super::renderer;
use crate::cluster::{Action, Direction, Kind, ObjectKey};
use crate::effect::{ChangeKind, Effect};
use crate::flow::Protocol;
use crate::policy::{Difference, NotCounted, PairEnd, Pairs, PolicyRef, RuleRef, Ruling, Turned};
use crate::serve::Item;
use crate::serve::render::Renderer;
use crate::serve::testing::{own_rule, pair, policy, policy_change, workload_end};

fn shown(effect: &Effect) -> String {
    renderer().item(&Item::PolicyChange(effect.clone().into()))
}

#[test]
fn the_example_of_the_documentation() {
    assert_snapshot!(shown(&policy_change()), @"
    14:02:11.482 CHANGED NetworkPolicy shop/api: 2 workload pairs newly denied, 1 newly allowed
      denied   shop/job → shop/api  every port                   rule ingress[1] no longer admits it
               shop/web → shop/api  8080/TCP                     rule ingress[0] no longer admits it
      allowed  shop/ops → shop/api  8080/TCP, 9000-9099/UDP      rule ingress[0] admits it
    ");
    let oneline = Renderer { oneline: true, ..renderer() };
    let text = oneline.policy_change(&policy_change());
    assert_eq!(text, "14:02:11.482 CHANGED NetworkPolicy shop/api: 2 workload pairs newly denied, 1 newly allowed\n");
}

fn by(name: &str, action: Action) -> RuleRef {
    let policy =
        PolicyRef { kind: "AdminNetworkPolicy", namespace: "".into(), name: "tenants".into(), resource_version: None, origin: None };
    RuleRef { policy, direction: Direction::Egress, index: 2, name: Some(name.into()), action: Some(action), origin: None }
}

/// Every way in which a verdict turns has its sentence, names that came with objects cannot act on a terminal, and what is left out is said.
#[test]
fn every_reason_has_its_words() {
    let denied_by = |name: &str| Ruling::Denied { by: Some(by(name, Action::Deny)), isolating: Vec::new() };
    let isolated = |names: &[&str]| Ruling::Denied { by: None, isolating: names.iter().map(|name| policy(name)).collect() };
    let undecided = || Ruling::Undecided { why: "nobody knows".into() };
    let ports =
        [(Protocol::Tcp, 1, 65535), (Protocol::Udp, 53, 53), (Protocol::Udp, 90, 99), (Protocol::Sctp, 7, 7), (Protocol::Sctp, 9, 9)];
    let outside = PairEnd::Outside("203.0.113.0/24".parse().unwrap());
    let api = || workload_end("shop", "api");
    let denied = vec![
        pair("a", api(), &ports, Ruling::Open, denied_by("no\u{1b}[31mdev")),
        pair("b", api(), &ports[1..2], Ruling::Open, isolated(&["api", "web", "x"])),
        pair("c", PairEnd::Nodes, &ports[..1], Ruling::Admitted { by: vec![by("yes", Action::Accept)] }, isolated(&["web"])),
        pair("d", outside, &ports[..1], Ruling::Admitted { by: Vec::new() }, isolated(&["api"])),
    ];
    let allowed = vec![
        pair("e", api(), &ports[..1], denied_by("no-dev"), Ruling::Open),
        pair("f", api(), &ports[..1], isolated(&["api"]), Ruling::Open),
        pair("g", api(), &ports[..1], denied_by("no-dev"), Ruling::Admitted { by: vec![by("yes", Action::Accept)] }),
        pair("h", api(), &ports[..1], isolated(&["api"]), Ruling::Admitted { by: vec![own_rule(1), own_rule(2)] }),
        pair("i", api(), &ports[..1], undecided(), Ruling::Admitted { by: Vec::new() }),
    ];
    let open = vec![pair("k", api(), &ports[..1], Ruling::Open, undecided()), pair("l", api(), &ports[..1], undecided(), Ruling::Open)];
    let turned = Turned {
        denied: Pairs { workloads: 12, outside: 3, named: denied },
        allowed: Pairs { workloads: 5, outside: 0, named: allowed },
        undecided: Pairs { workloads: 2, outside: 0, named: open },
    };
    let mut effect = Effect { difference: Difference::Counted(Box::new(turned)), ..policy_change() };
    assert_snapshot!(shown(&effect), @r#"
    14:02:11.482 CHANGED NetworkPolicy shop/api: 12 workload pairs newly denied, 5 newly allowed, 2 undecided; outside: 3 pairs newly denied
      denied   shop/a → shop/api        TCP, 53/UDP, 90-99/UDP and 2 more      rule "no\u{1b}[31mdev" (egress[2]) of AdminNetworkPolicy tenants denies it
               shop/b → shop/api        53/UDP                                 the policy, NetworkPolicy shop/web and 1 more isolate shop/api for ingress, and no rule admits it
               shop/c → nodes           TCP                                    rule "yes" (egress[2]) of AdminNetworkPolicy tenants no longer admits it
               shop/d → 203.0.113.0/24  TCP                                    the policy isolates 203.0.113.0/24 for ingress, and no rule admits it
               and 11 more
      allowed  shop/e → shop/api        TCP                                    rule "no-dev" (egress[2]) of AdminNetworkPolicy tenants no longer denies it
               shop/f → shop/api        TCP                                    the policy no longer isolates shop/api for ingress
               shop/g → shop/api        TCP                                    rule "yes" (egress[2]) of AdminNetworkPolicy tenants accepts it
               shop/h → shop/api        TCP                                    rule ingress[1] admits it
               shop/i → shop/api        TCP                                    admitted for ingress
      open     shop/k → shop/api        TCP                                    ingress: nobody knows
               shop/l → shop/api        TCP                                    no policy speaks of it for ingress
    "#);
    effect.difference = Difference::NotCounted(NotCounted::Verdicts(500_000));
    effect.change = ChangeKind::Added;
    assert_eq!(
        shown(&effect),
        "14:02:11.482 ADDED NetworkPolicy shop/api: not counted: more than 500000 verdicts would have to be compared\n"
    );
    effect.difference = Difference::none();
    effect.change = ChangeKind::Removed;
    effect.key = ObjectKey { kind: Kind::AdminNetworkPolicy, namespace: "".into(), name: "x\u{1b}".into() };
    assert_eq!(shown(&effect), "14:02:11.482 REMOVED AdminNetworkPolicy x\\u{1b}: no verdict changes\n");
}

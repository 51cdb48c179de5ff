//! Policies of kinds that the engine does not evaluate.
//!
//! Network plugins have kinds of their own: CiliumNetworkPolicy, Calico's GlobalNetworkPolicy. Where there are any, they may admit or deny
//! what the policies that are known say otherwise of. They are counted, so that an answer that they could change says how many they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

/// Names that are kept of each namespace (and of the kinds without namespaces): the first ones by name.
pub const MAX_FOREIGN_NAMES: usize = 5;

/// The policies of one kind that the engine does not evaluate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Foreign {
    /// API group: `cilium.io`. Two plugins may have kinds of one name.
    pub group: Arc<str>,
    /// Kind: `CiliumNetworkPolicy`.
    pub kind: Arc<str>,
    /// Whether its objects lie in namespaces. Otherwise each concerns the whole cluster.
    pub namespaced: bool,
    /// Whether they could be counted. Otherwise (no permission, not listed yet) there may be any number of them, and `count` is 0.
    pub counted: bool,
    /// How many there are.
    pub count: usize,
    /// Where they are, by namespace; those without a namespace under the empty name. No namespace is without policies here.
    pub namespaces: BTreeMap<Arc<str>, ForeignNames>,
}

/// The policies of one kind in one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ForeignNames {
    /// How many there are.
    pub count: usize,
    /// The first of them by name, at most [`MAX_FOREIGN_NAMES`].
    pub names: Vec<Arc<str>>,
}

impl Foreign {
    /// A kind with all its policies, as namespace (empty where there is none) and name, each once.
    pub fn counted<'a>(
        group: &str,
        kind: &str,
        namespaced: bool,
        policies: impl IntoIterator<Item = (&'a Arc<str>, &'a Arc<str>)>,
    ) -> Self {
        let mut foreign = Foreign { counted: true, ..Foreign::uncounted(group, kind, namespaced) };
        for (namespace, name) in policies {
            foreign.count += 1;
            let namespace = if namespaced { namespace.clone() } else { Arc::default() };
            let names = foreign.namespaces.entry(namespace).or_default();
            names.count += 1;
            let place = names.names.partition_point(|known| known < name);
            if place < MAX_FOREIGN_NAMES {
                names.names.insert(place, name.clone());
                names.names.truncate(MAX_FOREIGN_NAMES);
            }
        }
        foreign
    }

    /// A kind that the cluster has, and of which nobody knows how many policies there are.
    pub fn uncounted(group: &str, kind: &str, namespaced: bool) -> Self {
        Foreign { group: group.into(), kind: kind.into(), namespaced, counted: false, count: 0, namespaces: BTreeMap::new() }
    }

    /// How many may concern a pod of a namespace: those of that namespace, or all where the kind has no namespaces.
    pub fn concerning(&self, namespace: &str) -> usize {
        if self.namespaced { self.namespaces.get(namespace).map_or(0, |names| names.count) } else { self.count }
    }

    /// Whether any may concern a pod of a namespace; also where they could not be counted.
    pub fn may_concern(&self, namespace: &str) -> bool {
        !self.counted || self.concerning(namespace) > 0
    }
}

/// The policies of all kinds that a cluster has and the engine does not evaluate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForeignPolicies {
    kinds: BTreeMap<(Arc<str>, Arc<str>), Foreign>,
}

impl ForeignPolicies {
    /// This is how many there are of a kind now, whatever was known of it before.
    pub fn put(&mut self, foreign: Foreign) {
        self.kinds.insert((foreign.group.clone(), foreign.kind.clone()), foreign);
    }

    /// The cluster has no such kind any more.
    pub fn remove(&mut self, group: &str, kind: &str) {
        self.kinds.remove(&(Arc::from(group), Arc::from(kind)));
    }

    /// The kinds by group and name, those without policies included.
    pub fn kinds(&self) -> impl Iterator<Item = &Foreign> {
        self.kinds.values()
    }

    /// The kinds of which some policy may concern a pod of a namespace.
    pub fn concerning<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a Foreign> {
        self.kinds.values().filter(move |foreign| foreign.may_concern(namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[(&str, &str)]) -> Vec<(Arc<str>, Arc<str>)> {
        list.iter().map(|(namespace, name)| (Arc::from(*namespace), Arc::from(*name))).collect()
    }

    fn cilium(list: &[(&str, &str)]) -> Foreign {
        Foreign::counted("cilium.io", "CiliumNetworkPolicy", true, names(list).iter().map(|(namespace, name)| (namespace, name)))
    }

    #[test]
    fn policies_are_counted_by_namespace_and_the_first_are_named() {
        let list: Vec<_> = ["g", "c", "a", "f", "b", "e", "d"].iter().map(|name| ("shop", *name)).chain([("other", "x")]).collect();
        let foreign = cilium(&list);
        assert_eq!((foreign.count, foreign.concerning("shop"), foreign.concerning("other"), foreign.concerning("none")), (8, 7, 1, 0));
        let named: Vec<&str> = foreign.namespaces["shop"].names.iter().map(|name| &**name).collect();
        assert_eq!(named, ["a", "b", "c", "d", "e"]);
        assert!(foreign.may_concern("shop") && !foreign.may_concern("none"));
    }

    #[test]
    fn a_kind_of_the_cluster_concerns_every_namespace() {
        let list = names(&[("", "a"), ("", "b")]);
        let wide =
            Foreign::counted("cilium.io", "CiliumClusterwideNetworkPolicy", false, list.iter().map(|(namespace, name)| (namespace, name)));
        assert_eq!((wide.count, wide.concerning("shop"), wide.concerning("")), (2, 2, 2));
        assert_eq!(wide.namespaces[""].count, 2);
    }

    #[test]
    fn what_could_not_be_counted_may_concern_everybody() {
        let foreign = Foreign::uncounted("cilium.io", "CiliumNetworkPolicy", true);
        assert!(foreign.may_concern("shop"));
        assert_eq!((foreign.count, foreign.concerning("shop")), (0, 0));
    }

    #[test]
    fn kinds_come_and_go() {
        let mut policies = ForeignPolicies::default();
        policies.put(cilium(&[("shop", "a")]));
        policies.put(Foreign::counted("crd.projectcalico.org", "NetworkPolicy", true, []));
        policies.put(cilium(&[("shop", "a"), ("shop", "b")]));
        let concerning: Vec<_> = policies.concerning("shop").map(|foreign| (&*foreign.kind, foreign.concerning("shop"))).collect();
        assert_eq!(concerning, [("CiliumNetworkPolicy", 2)]);
        assert_eq!(policies.kinds().count(), 2);
        policies.remove("cilium.io", "CiliumNetworkPolicy");
        assert_eq!(policies.concerning("shop").count(), 0);
    }
}

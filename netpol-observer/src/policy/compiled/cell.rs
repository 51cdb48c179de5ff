//! What the tiers say of all ends on one port.

use super::set::{Bits, Set};
use super::space::EndId;
use crate::cluster::Tier as OfTier;

/// What the tiers say on one port.
#[derive(Clone, Copy, Debug)]
pub(in crate::policy) struct Cell<'a> {
    pub(super) admin: &'a TierCell,
    pub(super) network: &'a TierCell,
    pub(super) baseline: Option<&'a TierCell>,
}

/// What one tier says of each end on some ports: the sets overlap where it is not certain.
#[derive(Clone, Debug, Default)]
pub(super) struct TierCell {
    pub(super) accept: Set,
    pub(super) deny: Set,
    pub(super) pass: Set,
    /// No rule matches, and no NetworkPolicy isolates.
    pub(super) silent: Set,
}

/// What a tier says that is not asked.
static SILENT: TierCell = TierCell { accept: Set::None, deny: Set::None, pass: Set::None, silent: Set::All };

impl TierCell {
    /// The ends of which two tiers say something else, of the first `len`.
    pub(super) fn differing(&self, other: &TierCell, len: usize) -> Vec<EndId> {
        let sets = |cell: &TierCell| [&cell.accept, &cell.deny, &cell.pass, &cell.silent].map(|set| set.bits(len));
        let mut all = Bits::none(len);
        for (mut one, another) in sets(self).into_iter().zip(sets(other)) {
            one.xor(&another);
            all.or(&one);
        }
        all.iter().collect()
    }
}

impl<'a> Cell<'a> {
    /// What each tier says; of one that is not asked, nothing.
    pub(super) fn tiers(&self) -> [&'a TierCell; 3] {
        [self.admin, self.network, self.baseline.unwrap_or(&SILENT)]
    }

    /// Whether an end may be admitted, and whether it may be denied.
    pub(in crate::policy) fn possible(&self, end: EndId) -> (bool, bool) {
        let (mut may_pass, mut may_fail) = (false, false);
        for tier in [Some(self.admin), Some(self.network), self.baseline].into_iter().flatten() {
            may_pass |= tier.accept.contains(end);
            may_fail |= tier.deny.contains(end);
            if !(tier.silent.contains(end) || tier.pass.contains(end)) {
                return (may_pass, may_fail);
            }
        }
        // What no tier decides is admitted.
        (true, may_fail)
    }

    /// Whether an end is certainly denied because NetworkPolicies isolate the pod.
    pub(in crate::policy) fn isolates(&self, end: EndId) -> bool {
        let reached = self.admin.silent.contains(end) || self.admin.pass.contains(end);
        reached && self.network.deny.contains(end) && self.possible(end) == (false, true)
    }

    /// Whether a tier of cluster-scoped policies certainly has no rule that matches.
    pub(in crate::policy) fn is_silent(&self, tier: OfTier, end: EndId) -> bool {
        let tier = match tier {
            OfTier::Admin => Some(self.admin),
            OfTier::Baseline => self.baseline,
            OfTier::NetworkPolicy => None,
        };
        tier.is_some_and(|tier| {
            tier.silent.contains(end) && !tier.accept.contains(end) && !tier.deny.contains(end) && !tier.pass.contains(end)
        })
    }

    /// The ends that are certainly admitted, of the first `len`.
    pub(super) fn admitted(&self, len: usize) -> Bits {
        let (mut accept, deny) = self.sums(len);
        accept.minus(&deny);
        accept
    }

    /// The ends that may be admitted and those that may be denied, of the first `len`.
    pub(super) fn sums(&self, len: usize) -> (Bits, Bits) {
        let (mut accept, mut deny) = (Bits::none(len), Bits::none(len));
        let mut live = Bits::all(len);
        for tier in [Some(self.admin), Some(self.network), self.baseline].into_iter().flatten() {
            accept.or_both(&live, &tier.accept);
            deny.or_both(&live, &tier.deny);
            let mut rest = tier.silent.bits(len);
            rest.or_set(&tier.pass);
            live.and(&rest);
        }
        // What no tier decides is admitted.
        accept.or(&live);
        (accept, deny)
    }

    /// Whether it says the same because it is the same.
    pub(super) fn is(&self, other: &Cell<'_>) -> bool {
        let baseline = match (self.baseline, other.baseline) {
            (Some(a), Some(b)) => std::ptr::eq(a, b),
            (None, None) => true,
            _ => false,
        };
        baseline && std::ptr::eq(self.admin, other.admin) && std::ptr::eq(self.network, other.network)
    }
}

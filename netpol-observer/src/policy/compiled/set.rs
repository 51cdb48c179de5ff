//! Sets of ends: as bits while they are worked on, packed while they are kept.

/// A set under construction: one bit per end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bits {
    words: Vec<u64>,
    /// Ends there are; bits beyond are zero.
    len: usize,
}

/// A set as it is kept: most hold the few ends of one namespace, or everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::policy) enum Set {
    /// Empty.
    #[default]
    None,
    /// Every end, those still to come included.
    All,
    /// Sorted.
    Few(Box<[u32]>),
    /// Every end but these, which are sorted; those still to come included.
    AllBut(Box<[u32]>),
    /// One bit per end.
    Many(Box<[u64]>),
}

const WORD: usize = u64::BITS as usize;

fn place(end: u32) -> (usize, u64) {
    let end = end as usize;
    (end / WORD, 1 << (end % WORD))
}

impl Bits {
    pub(super) fn none(len: usize) -> Self {
        Bits { words: vec![0; len.div_ceil(WORD)], len }
    }

    pub(super) fn all(len: usize) -> Self {
        let mut bits = Bits { words: vec![u64::MAX; len.div_ceil(WORD)], len };
        if let Some(last) = bits.words.last_mut().filter(|_| !len.is_multiple_of(WORD)) {
            *last = (1 << (len % WORD)) - 1;
        }
        bits
    }

    pub(super) fn insert(&mut self, end: u32) {
        let (word, bit) = place(end);
        if let Some(word) = self.words.get_mut(word) {
            *word |= bit;
        }
    }

    pub(super) fn remove(&mut self, end: u32) {
        let (word, bit) = place(end);
        if let Some(word) = self.words.get_mut(word) {
            *word &= !bit;
        }
    }

    pub(super) fn count(&self) -> usize {
        self.words.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// The ends that are in one of the sets and not in the other.
    pub(super) fn differing(&self, other: &Bits) -> Vec<u32> {
        let words: Vec<u64> = self.words.iter().zip(&other.words).map(|(a, b)| a ^ b).collect();
        ends_of(&words).collect()
    }

    /// Takes the end out where it is in, and in where it is not.
    pub(super) fn flip(&mut self, end: u32) {
        let (word, bit) = place(end);
        if let Some(word) = self.words.get_mut(word) {
            *word ^= bit;
        }
    }

    /// Leaves the ends that are in one of the sets and not in the other.
    pub(super) fn xor(&mut self, other: &Bits) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word ^= other);
    }

    pub(super) fn or(&mut self, other: &Bits) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }

    pub(super) fn and(&mut self, other: &Bits) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
    }

    pub(super) fn minus(&mut self, other: &Bits) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= !other);
    }

    pub(super) fn or_set(&mut self, other: &Set) {
        match other {
            Set::None => {}
            Set::All => *self = Bits::all(self.len),
            Set::Few(few) => few.iter().for_each(|end| self.insert(*end)),
            Set::AllBut(few) => {
                let kept: Vec<u32> = few.iter().copied().filter(|end| !self.contains(*end)).collect();
                *self = Bits::all(self.len);
                kept.into_iter().for_each(|end| self.remove(end));
            }
            Set::Many(words) => self.words.iter_mut().zip(words).for_each(|(word, other)| *word |= other),
        }
    }

    pub(super) fn minus_set(&mut self, other: &Set) {
        match other {
            Set::None => {}
            Set::All => self.words.fill(0),
            Set::Few(few) => {
                few.iter().for_each(|end| self.remove(*end));
            }
            Set::AllBut(few) => {
                let kept: Vec<u32> = few.iter().copied().filter(|end| self.contains(*end)).collect();
                self.words.fill(0);
                kept.into_iter().for_each(|end| self.insert(end));
            }
            Set::Many(words) => self.words.iter_mut().zip(words).for_each(|(word, other)| *word &= !other),
        }
    }

    /// Adds the ends that are in both `a` and `b`.
    pub(super) fn or_both(&mut self, a: &Bits, b: &Set) {
        match b {
            Set::None => {}
            Set::All => self.or(a),
            Set::Few(few) => {
                for end in few.iter().filter(|end| a.contains(**end)) {
                    self.insert(*end);
                }
            }
            Set::AllBut(_) => {
                let mut both = a.clone();
                both.and(&b.bits(a.len));
                self.or(&both);
            }
            Set::Many(words) => {
                for ((word, a), b) in self.words.iter_mut().zip(&a.words).zip(words) {
                    *word |= a & b;
                }
            }
        }
    }

    pub(super) fn contains(&self, end: u32) -> bool {
        let (word, bit) = place(end);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u32> {
        ends_of(&self.words)
    }

    pub(super) fn words(&self) -> &[u64] {
        &self.words
    }

    /// In the form that takes the least room.
    pub(super) fn pack(&self) -> Set {
        match self.count() {
            0 => Set::None,
            count if count == self.len => Set::All,
            // Two ends take the room of one word; a few are found faster than a bit is fetched.
            count if count <= self.words.len() => Set::Few(self.iter().collect()),
            count if self.len - count <= self.words.len() => {
                let mut others = Bits::all(self.len);
                others.minus(self);
                Set::AllBut(others.iter().collect())
            }
            _ => Set::Many(self.words.as_slice().into()),
        }
    }
}

impl Set {
    pub(in crate::policy) fn contains(&self, end: u32) -> bool {
        match self {
            Set::None => false,
            Set::All => true,
            Set::Few(few) => few.binary_search(&end).is_ok(),
            Set::AllBut(few) => few.binary_search(&end).is_err(),
            Set::Many(words) => {
                let (word, bit) = place(end);
                words.get(word).is_some_and(|word| word & bit != 0)
            }
        }
    }

    /// A set of these, which are sorted.
    pub(super) fn few(ends: Vec<u32>) -> Set {
        if ends.is_empty() { Set::None } else { Set::Few(ends.into()) }
    }

    /// The set with one more end; `len` is the number of ends there are.
    pub(super) fn with(&self, end: u32, len: usize) -> Set {
        if self.contains(end) {
            return self.clone();
        }
        let mut bits = Bits::none(len);
        bits.or_set(self);
        bits.insert(end);
        // Not `All`: the next end is not in it.
        match bits.pack() {
            Set::All | Set::AllBut(_) => Set::Many(bits.words.into()),
            packed => packed,
        }
    }

    /// The ends in it, of the first `len`.
    pub(super) fn bits(&self, len: usize) -> Bits {
        let mut bits = Bits::none(len);
        bits.or_set(self);
        bits
    }
}

fn ends_of(words: &[u64]) -> impl Iterator<Item = u32> {
    words.iter().enumerate().flat_map(|(at, word)| {
        let mut rest = *word;
        std::iter::from_fn(move || {
            let bit = (rest != 0).then(|| rest.trailing_zeros())?;
            rest &= rest - 1;
            Some((at * WORD) as u32 + bit)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_sets_hold_what_their_bits_hold() {
        for (len, ends) in
            [(0, vec![]), (1, vec![0]), (64, (0..64).collect()), (65, vec![64]), (200, vec![3, 70, 199]), (200, (0..199).collect())]
        {
            let mut bits = Bits::none(len);
            ends.iter().for_each(|end| bits.insert(*end));
            let packed = bits.pack();
            assert_eq!(bits.iter().collect::<Vec<_>>(), ends);
            assert_eq!(packed.bits(len), bits, "{packed:?}");
            for end in 0..len as u32 {
                assert_eq!(packed.contains(end), ends.contains(&end), "{end} in {packed:?}");
            }
        }
    }

    #[test]
    fn working_on_packed_sets_equals_working_on_bits() {
        let sets = [vec![], vec![1, 5, 130], (0..150).collect(), (20..100).step_by(3).collect::<Vec<u32>>()];
        let of = |ends: &[u32]| {
            let mut bits = Bits::none(150);
            ends.iter().for_each(|end| bits.insert(*end));
            bits
        };
        for (a, b) in sets.iter().flat_map(|a| sets.iter().map(move |b| (of(a), of(b)))) {
            let mut by_bits = a.clone();
            by_bits.or(&b);
            let mut by_set = a.clone();
            by_set.or_set(&b.pack());
            assert_eq!(by_bits, by_set);
            (by_bits, by_set) = (a.clone(), a.clone());
            by_bits.minus(&b);
            by_set.minus_set(&b.pack());
            assert_eq!(by_bits, by_set);
            (by_bits, by_set) = (a.clone(), Bits::none(150));
            by_bits.and(&b);
            by_set.or_both(&a, &b.pack());
            assert_eq!(by_bits, by_set);
        }
    }

    #[test]
    fn one_more_end_is_only_one_more() {
        let mut bits = Bits::none(70);
        (0..69).for_each(|end| bits.insert(end));
        let all = bits.pack().with(69, 70);
        assert!(all.contains(69) && !all.contains(70));
        assert!(Set::None.with(3, 70).contains(3));
    }
}

//! Our eBPF programs and maps, found among all that the kernel has loaded.

use anyhow::{Context as _, Result};
use aya::maps::loaded_maps;
use aya::programs::loaded_programs;

/// Names of the object's programs as the kernel keeps them: the first fifteen bytes.
const PROGRAMS: &[&str] = &["kfree_skb", "kfree_skb_2nd", "kfree_skb_raw", "kfree_raw_2nd", "surroundings"];

/// Likewise of its maps. Read-only data and logs have names that every aya program uses, and are left out.
const MAPS: &[&str] = &[
    "RECORDS",
    "COUNTERS",
    "CORE_REASON_ACT",
    "SUBSYSTEM_REASO",
    "LOCATIONS",
    "EPOCH",
    "FOLD_EVEN",
    "FOLD_ODD",
    "DEVICES",
    "WAYS",
    "SURROUNDINGS",
];

/// How many there are, of all processes together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Programs.
    pub programs: usize,
    /// Maps.
    pub maps: usize,
}

impl Loaded {
    /// Walks all programs and maps. What vanishes during the walk is not counted.
    ///
    /// # Errors
    /// This process may not look (CAP_SYS_ADMIN).
    pub fn count() -> Result<Self> {
        let mut loaded = Self::default();
        let mut denied = None;
        for program in loaded_programs() {
            match program {
                Ok(program) => loaded.programs += usize::from(program.name_as_str().is_some_and(|name| PROGRAMS.contains(&name))),
                Err(error) => denied = Some(anyhow::Error::new(error)).filter(is_permission),
            }
        }
        for map in loaded_maps() {
            match map {
                Ok(map) => loaded.maps += usize::from(map.name_as_str().is_some_and(|name| MAPS.contains(&name))),
                Err(error) => denied = Some(anyhow::Error::new(error)).filter(is_permission),
            }
        }
        match denied {
            Some(error) => Err(error).context("cannot list the eBPF programs and maps of this machine"),
            None => Ok(loaded),
        }
    }
}

impl Loaded {
    /// Without what others have.
    #[must_use]
    pub fn less(self, others: Self) -> Self {
        Self { programs: self.programs.saturating_sub(others.programs), maps: self.maps.saturating_sub(others.maps) }
    }

    /// As many times.
    #[must_use]
    pub fn times(self, count: usize) -> Self {
        Self { programs: self.programs * count, maps: self.maps * count }
    }

    /// The share of one of `count`, which is not 0.
    #[must_use]
    pub fn divided(self, count: usize) -> Self {
        Self { programs: self.programs / count, maps: self.maps / count }
    }
}

fn is_permission(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|io| io.kind() == std::io::ErrorKind::PermissionDenied)
}

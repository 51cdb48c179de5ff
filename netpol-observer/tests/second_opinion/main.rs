//! What holds for the engine whatever the cluster, on random worlds given as manifests: a naive evaluator agrees with it, updates equal
//! a rebuild, fixes keep their promise, and no input makes it panic.
//!
//! `NETPOL_SEED` repeats a run, `NETPOL_TRIPLES` sets how many triples the agreement is tried on.

mod agreement;
mod engines;
mod fixes;
mod hostile;
mod incremental;
mod naive;
mod worlds;

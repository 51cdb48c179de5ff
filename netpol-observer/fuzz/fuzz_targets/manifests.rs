//! Bytes → manifests → engine: verdicts and explanations among its pods.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netpol_observer_fuzz::{ask, engine, load};

fuzz_target!(|text: &[u8]| {
    if let Some(loaded) = load(text) {
        ask(&engine(loaded));
    }
});

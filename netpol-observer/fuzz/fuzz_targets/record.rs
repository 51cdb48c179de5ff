//! Bytes → record → flow → identity → explanation → cause, in a small cluster.
#![no_main]

use std::sync::{Arc, LazyLock};

use libfuzzer_sys::fuzz_target;
use netpol_observer::capture::Captured;
use netpol_observer::flow::decode_record;
use netpol_observer::flow::testing::Names;
use netpol_observer::pipeline::Pipeline;
use netpol_observer_common::DropRecord;
use netpol_observer_fuzz::{engine, load};

static NAMES: LazyLock<Names> = LazyLock::new(Names::linux);
static PIPELINE: LazyLock<Pipeline> = LazyLock::new(|| {
    let shop = load(include_bytes!("../corpus/manifests/shop.yaml")).expect("the manifests of the corpus");
    Pipeline::new(Arc::new(engine(shop)))
});

fuzz_target!(|bytes: &[u8]| {
    // As they are, and at the length of a record: what is missing is zero.
    let _ = decode_record(bytes, &*NAMES);
    let mut record = bytes.to_vec();
    record.resize(size_of::<DropRecord>(), 0);
    let _ = PIPELINE.step(&Captured::Record(record.into()), &*NAMES);
});

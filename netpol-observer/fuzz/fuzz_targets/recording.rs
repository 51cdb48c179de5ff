//! Bytes → recording → what was captured → flows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use netpol_observer::capture::{Captured, RecordingReader};
use netpol_observer::flow::decode_record;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut recording) = RecordingReader::new(bytes) else { return };
    while let Ok(Some(captured)) = recording.next() {
        if let Captured::Record(record) = captured {
            let _ = decode_record(&record, &recording);
        }
    }
    assert!(recording.next().is_ok_and(|captured| captured.is_none()), "a recording goes on behind its end");
});

//! `--record`: keeps what is captured, before any filter. Trouble with the file never stops the capture.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::CommandError;
use crate::capture::Captured;
use crate::capture::{RecordingHeader, RecordingWriter};
use crate::flow::KernelNames;

/// A recording being written, until it fails.
pub(super) struct Recorder<W: Write> {
    name: String,
    writer: Option<RecordingWriter<W>>,
    missed: u64,
}

impl Recorder<File> {
    /// Creates the file, or empties it.
    pub(super) fn create(path: &Path, header: &RecordingHeader) -> Result<Self, CommandError> {
        let name = path.display().to_string();
        let failed = |error: &dyn std::fmt::Display| CommandError::failure(format!("cannot record to {name}: {error}"));
        let file = OpenOptions::new().write(true).create(true).truncate(true).open(path).map_err(|error| failed(&error))?;
        Recorder::new(&name, file, header).map_err(|error| failed(&error))
    }
}

impl<W: Write> Recorder<W> {
    fn new(name: &str, file: W, header: &RecordingHeader) -> Result<Self, crate::capture::WriteError> {
        Ok(Recorder { name: name.to_owned(), writer: Some(RecordingWriter::new(file, header)?), missed: 0 })
    }

    /// Adds one piece. The first failure gives a warning and ends the recording, for what comes behind a gap is worth nothing;
    /// from then on pieces are counted.
    #[must_use]
    pub(super) fn write(&mut self, captured: &Captured, names: &dyn KernelNames) -> Option<String> {
        let Some(writer) = &mut self.writer else {
            self.missed += 1;
            return None;
        };
        let error = writer.write(captured, names).err()?;
        self.missed += 1;
        self.give_up(&error)
    }

    /// Hands over what is collected, when nothing has come for a while.
    #[must_use]
    pub(super) fn flush(&mut self) -> Option<String> {
        let error = self.writer.as_mut()?.flush().err()?;
        self.give_up(&error)
    }

    /// Ends the recording; what there is to say.
    pub(super) fn finish(self) -> Option<String> {
        let name = &self.name;
        match self.writer.map(RecordingWriter::finish) {
            Some(Ok(_)) => None,
            Some(Err(error)) => Some(format!("the recording {name} is not complete: {error}")),
            None => Some(format!("{} pieces captured since are not in the recording {name}", self.missed)),
        }
    }

    fn give_up(&mut self, error: &dyn std::fmt::Display) -> Option<String> {
        self.writer = None;
        Some(format!("recording to {} has stopped, and the capture goes on: {error}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::flow::testing::{Names, RecordBuilder};

    /// Takes `room` bytes.
    struct SmallDisk {
        room: usize,
    }

    impl Write for SmallDisk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if self.room == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(self.room);
            self.room -= taken;
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn header(names: &Names) -> RecordingHeader {
        RecordingHeader::new("6.18.0".into(), "x86_64".into(), jiff::Timestamp::UNIX_EPOCH, names)
    }

    fn captured() -> Captured {
        let address = |text: &str| text.parse().unwrap();
        Captured::Record(RecordBuilder::tcp_syn(address("10.0.0.1:1"), address("10.0.0.2:2")).bytes())
    }

    #[test]
    fn a_full_disk_is_told_once_and_then_counted() {
        let names = Names::linux();
        let mut recorder = Recorder::new("drops.rec", SmallDisk { room: 5000 }, &header(&names)).unwrap();
        let mut told = Vec::new();
        for _ in 0..1000 {
            told.extend(recorder.write(&captured(), &names));
            told.extend(recorder.flush());
        }
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].contains("drops.rec") && told[0].contains("the capture goes on"), "{told:?}");
        let end = recorder.finish().unwrap();
        let missed: u64 = end.split(' ').next().unwrap().parse().unwrap();
        assert!((900..1000).contains(&missed), "{end}");
    }

    #[test]
    fn a_recording_that_fits_has_nothing_to_say() {
        let names = Names::linux();
        let mut recorder = Recorder::new("drops.rec", Vec::new(), &header(&names)).unwrap();
        assert_eq!(recorder.write(&captured(), &names), None);
        assert_eq!(recorder.flush(), None);
        assert_eq!(recorder.finish(), None);
    }
}

//! Drops read byte by byte, for what is told of a packet before anything is decoded.

use netpol_observer::capture::kernel::release;
use netpol_observer::capture::{Captured, KernelLedger};
use netpol_observer::flow::{decode, fold_key};
use netpol_observer_common::{DropRecord, FoldKey};
use xtask::netns::Netns;
use zerocopy::FromBytes as _;

use crate::capture::{Names, during};
use crate::shape::version;
use crate::support::{Pods, assert_balanced, is_slow};

/// A drop as the kernel reported it, repeats added.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) record: DropRecord,
    /// Packets: the record's and its repeats.
    pub(crate) packets: u64,
}

impl Seen {
    fn network(&self) -> (u8, usize) {
        match self.record.header[0] >> 4 {
            4 => (self.record.header[9], usize::from(self.record.header[0] & 15) * 4),
            _ => (self.record.header[6], 40),
        }
    }

    pub(crate) fn protocol(&self) -> u8 {
        self.network().0
    }

    pub(crate) fn destination_port(&self) -> u16 {
        let at = self.network().1 + 2;
        u16::from_be_bytes([self.record.header[at], self.record.header[at + 1]])
    }

    pub(crate) fn source_port(&self) -> u16 {
        let at = self.network().1;
        u16::from_be_bytes([self.record.header[at], self.record.header[at + 1]])
    }

    fn key(&self) -> ([u8; 16], [u8; 16], [u8; 2]) {
        let header = &self.record.header;
        let (mut src, mut dst) = ([0; 16], [0; 16]);
        let (_, transport) = self.network();
        if header[0] >> 4 == 4 {
            src[..4].copy_from_slice(&header[12..16]);
            dst[..4].copy_from_slice(&header[16..20]);
        } else {
            src.copy_from_slice(&header[8..24]);
            dst.copy_from_slice(&header[24..40]);
        }
        if header[0] >> 4 == 4 && u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0 {
            return (src, dst, [0; 2]);
        }
        let ports = if matches!(self.protocol(), 1 | 58) { transport } else { transport + 2 };
        (src, dst, [header[ports], header[ports + 1]])
    }
}

/// What was captured while packets were made.
pub(crate) struct Observed {
    pub(crate) seen: Vec<Seen>,
    ledger: KernelLedger,
    names: Names,
}

/// Captures while `traffic` runs between the pods, and a moment longer for what is under way.
pub(crate) fn observe(pods: &Pods, traffic: impl FnOnce() + Send) -> Observed {
    let namespaces = pods.namespaces();
    let inodes = namespaces.each_ref().map(|namespace| u32::try_from(namespace.inode().unwrap()).unwrap());
    let mut seen: Vec<Seen> = Vec::new();
    let (ledger, names) = during(&namespaces, traffic, |captured, _| match captured {
        Captured::Record(bytes) => {
            let record = DropRecord::read_from_bytes(&bytes).expect("a whole record");
            seen.push(Seen { record, packets: 1 });
        }
        Captured::Repeat { key, value } => {
            // A capture that is shared counts repeats of what it took before, of others.
            if is_slow() && !inodes.contains(&key.netns) {
                return;
            }
            let reported = seen.iter().any(|seen| user_space_key(&seen.record) == key);
            assert!(reported, "the kernel's key is the one user space makes of its record: {key:?}");
            let mut same = seen.iter_mut().rev().filter(|seen| is_same(seen, &key));
            same.next().expect("a repeat comes behind its record").packets += value.count;
        }
        Captured::Ledger(_) => {}
    });
    Observed { seen, ledger, names }
}

/// The key as user space makes it, to name a drop the same way in all records.
fn user_space_key(record: &DropRecord) -> FoldKey {
    let bytes = &record.header[..usize::from(record.header_len)];
    fold_key(record, &decode(record.ether_type, bytes).expect("a packet"))
}

fn is_same(seen: &Seen, key: &FoldKey) -> bool {
    let record = &seen.record;
    (record.netns, record.reason, seen.protocol()) == (key.netns, key.reason, key.protocol)
        && seen.key() == (key.src, key.dst, key.dst_port)
}

impl Observed {
    /// The drops in one network namespace.
    pub(crate) fn in_netns(&self, netns: &Netns) -> Vec<&Seen> {
        let inode = u32::try_from(netns.inode().unwrap()).unwrap();
        self.seen.iter().filter(|seen| seen.record.netns == inode).collect()
    }

    /// Whether the drop is for this reason, or for none that the kernel has a name for, as on those from before 5.17.
    pub(crate) fn is_for(&self, seen: &Seen, reason: &str) -> bool {
        let named = self.names.reason(seen.record.reason);
        if version(&release()) < (5, 17) { named.is_none() } else { named.as_deref() == Some(reason) }
    }

    /// Everything the program saw is accounted for.
    pub(crate) fn assert_balanced(&self) {
        assert_balanced(&self.ledger);
        // The ledger of a shared capture is of more than this.
        if !is_slow() {
            let packets: u64 = self.seen.iter().map(|seen| seen.packets).sum();
            assert_eq!(self.ledger.counters.seen - self.ledger.counters.ring_full, packets);
        }
    }
}

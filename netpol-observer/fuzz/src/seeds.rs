//! Writes the seeds of `record` and `recording` into the corpus: `cargo run --example seeds`, when the layout of a record changes.

use std::error::Error;
use std::fs;
use std::path::Path;

use netpol_observer::capture::{Captured, KernelLedger, RecordingHeader, RecordingWriter};
use netpol_observer::flow::Protocol;
use netpol_observer::flow::testing::{Names, RecordBuilder, SYN_ACK, icmp, sctp, tcp, udp};

fn main() -> Result<(), Box<dyn Error>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let names = Names::linux();
    let [web, api, service] = ["10.1.0.1:40000", "10.1.0.2:8080", "10.96.0.10:80"].map(str::parse);
    let (web, api, service) = (web?, api?, service?);
    let (web6, api6) = ("[fd00:1::1]:40000".parse()?, "[fd00:1::2]:8080".parse()?);
    let records = [
        ("syn", RecordBuilder::tcp_syn(web, api)),
        ("syn-ipv6", RecordBuilder::tcp_syn(web6, api6)),
        ("syn-ack", RecordBuilder::packet(&tcp(api, web, SYN_ACK)).conntrack(web, service, Protocol::Tcp, 3, 2)),
        ("to-service", RecordBuilder::tcp_syn(web, service).folded()),
        ("conntrack", RecordBuilder::tcp_syn(web, api).conntrack(web, service, Protocol::Tcp, 2, 0)),
        ("udp", RecordBuilder::packet(&udp(web, api)).socket(7, 9)),
        ("sctp", RecordBuilder::packet(&sctp(web, api)).outgoing()),
        ("icmp", RecordBuilder::packet(&icmp(web.ip(), api.ip(), 3, 1))),
    ];
    for (name, record) in &records {
        fs::write(corpus.join("record").join(name), record.bytes())?;
    }
    let header = RecordingHeader::new("6.18.0".into(), "x86_64".into(), jiff::Timestamp::UNIX_EPOCH, &names);
    let mut file = Vec::new();
    let mut writer = RecordingWriter::new(&mut file, &header)?;
    for (_, record) in &records[..3] {
        writer.write(&Captured::Record(record.bytes()), &names)?;
    }
    writer.write(&Captured::Ledger(KernelLedger::default()), &names)?;
    writer.finish()?;
    fs::write(corpus.join("recording/three-records"), file)?;
    Ok(())
}

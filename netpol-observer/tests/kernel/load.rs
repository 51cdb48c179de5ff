use crate::support;
use netpol_observer::capture::Captured;
use netpol_observer_common::DropRecord;
use std::net::UdpSocket;
use std::time::Duration;
use zerocopy::FromBytes;
#[tokio::test(flavor = "multi_thread")]
async fn a_call_to_a_closed_port_is_seen() {
    if !support::ready("load") {
        return;
    }
    let mut live = support::start();
    let s = UdpSocket::bind("127.0.0.1:0").unwrap();
    for _ in 0..5 {
        let _ = s.send_to(b"hello", "127.0.0.1:9");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (all, ledger) = support::rest(&mut live).await;
    let names = live.names();
    for c in &all {
        match c {
            Captured::Record(b) => {
                let r = DropRecord::read_from_bytes(b).unwrap();
                println!(
                    "reason {} {:?} loc {:?} if {} {:?} netns {} cookie {} cgroup {} ct {:x} {:?} flags {:x} len {} off {} hl {} proto {:x}",
                    r.reason,
                    names.reason(r.reason),
                    names.symbol(r.location),
                    r.ifindex,
                    String::from_utf8_lossy(&r.ifname),
                    r.netns,
                    r.socket_cookie,
                    r.cgroup_id,
                    r.ct_info,
                    r.ct_original,
                    r.flags,
                    r.packet_len,
                    r.network_offset,
                    r.header_len,
                    r.ether_type
                );
                for s in r.stack {
                    println!("   {:?}", names.symbol(s));
                }
                println!("   {:02x?}", &r.header[..40]);
            }
            other => println!("{other:?}"),
        }
    }
    println!("{ledger:?}");
    panic!();
}

//! The two forms of the program, attached at the same time, record the same.

use std::collections::BTreeMap;
use std::time::Duration;

use netpol_observer::capture::live::{Live, LiveOptions, open};
use netpol_observer::capture::{Attach, Captured, Form};
use netpol_observer_common::{DropRecord, FoldKey};
use zerocopy::{FromBytes as _, IntoBytes as _};

use crate::support::{Pods, call_tcp, machine, runtime, send_udp, serve_tcp, shows_types};

fn attach(attach: Attach) -> Live {
    open(LiveOptions { attach, ..LiveOptions::default() }).unwrap_or_else(|error| panic!("{error}\nhint: {}", error.hint()))
}

/// What it recorded in this namespace, without what must differ (the time and the frames of the program itself).
fn records(captured: &[Captured], netns: u32) -> Vec<DropRecord> {
    let read = |captured: &Captured| match captured {
        Captured::Record(bytes) => Some(DropRecord::read_from_bytes(bytes).expect("a whole record")),
        _ => None,
    };
    let mut records: Vec<DropRecord> = captured.iter().filter_map(read).filter(|record| record.netns == netns).collect();
    for record in &mut records {
        record.time_ns = 0;
        record.stack = [0; _];
    }
    records.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
    records
}

/// Repeats by key.
fn repeats(captured: &[Captured], netns: u32) -> BTreeMap<Vec<u8>, u64> {
    let mut sums = BTreeMap::new();
    for captured in captured {
        if let Captured::Repeat { key, value } = captured
            && key.netns == netns
        {
            *sums.entry(FoldKey::as_bytes(key).to_vec()).or_default() += value.count;
        }
    }
    sums
}

#[test]
fn both_record_the_same() {
    let Some(_machine) = machine("forms::both_record_the_same") else { return };
    if !shows_types("forms::both_record_the_same") {
        return;
    }
    let pods = Pods::new();
    pods.node
        .nft(
            "table inet test {
               chain policies {
                 type filter hook forward priority 0; policy accept;
                 meta l4proto { tcp, udp } th dport 9001-9010 drop
               }
             }",
        )
        .unwrap();
    serve_tcp(&pods.api, "10.244.1.20:8080".parse().unwrap());
    // A fold that does not turn meanwhile: each form's first drop of a key is then the same packet.
    let options = |attach| LiveOptions { attach, fold_interval: Duration::from_secs(600), ..LiveOptions::default() };
    let netns = u32::try_from(pods.node.inode().unwrap()).unwrap();
    let (typed, raw) = runtime().block_on(async {
        let typed = open(options(Attach::Typed)).unwrap();
        let raw = open(options(Attach::Raw)).unwrap();
        assert_eq!((typed.form(), raw.form()), (Form::Typed, Form::Raw));
        let traffic = || {
            for port in 9001..=9010 {
                for address in ["10.244.1.20", "fd00:10:244:1::20"] {
                    let to = std::net::SocketAddr::new(address.parse().unwrap(), port);
                    call_tcp(to, Duration::from_millis(50)).expect_err("denied");
                    send_udp(to, b"query");
                    send_udp(to, b"query");
                }
            }
            for _ in 0..100 {
                call_tcp("10.244.1.20:8080".parse().unwrap(), Duration::from_secs(5)).expect("allowed");
            }
        };
        tokio::task::block_in_place(|| pods.web.in_ns(traffic).unwrap());
        (typed.finish().await, raw.finish().await)
    });
    let [of_typed, of_raw] = [&typed, &raw].map(|captured| records(captured, netns));
    assert_eq!(of_typed.len(), 40, "ten ports, two protocols, two families");
    for (typed, raw) in of_typed.iter().zip(&of_raw) {
        assert!(typed.as_bytes() == raw.as_bytes(), "typed {typed:?}\nraw {raw:?}");
    }
    assert_eq!(of_typed.len(), of_raw.len());
    assert_eq!(repeats(&typed, netns), repeats(&raw, netns));
    for captured in [&typed, &raw] {
        let Some(Captured::Ledger(ledger)) = captured.last() else { panic!("the final ledger") };
        assert_eq!(ledger.counters.seen, ledger.counters.reported + ledger.counters.folded + ledger.counters.ring_full);
    }
}

/// `fold::key`, hook and everything else hang on the stack: it is there in both forms.
#[test]
fn both_take_the_stack() {
    let Some(_machine) = machine("forms::both_take_the_stack") else { return };
    if !shows_types("forms::both_take_the_stack") {
        return;
    }
    let pods = Pods::new();
    pods.node
        .nft("table inet test { chain policies { type filter hook forward priority 0; policy accept; udp dport 9001 drop\n}\n}")
        .unwrap();
    let netns = u32::try_from(pods.node.inode().unwrap()).unwrap();
    for form in [Attach::Typed, Attach::Raw] {
        let stacks: Vec<Vec<String>> = runtime().block_on(async {
            let live = attach(form);
            let names = live.names();
            pods.web.in_ns(|| send_udp("10.244.1.20:9001".parse().unwrap(), b"x")).unwrap();
            let captured = live.finish().await;
            let read = |captured: &Captured| match captured {
                Captured::Record(bytes) => DropRecord::read_from_bytes(bytes).ok().filter(|record| record.netns == netns),
                _ => None,
            };
            let frames = |record: DropRecord| {
                record.stack.iter().filter_map(|&address| names.symbol(address)).map(|s| s.base_name().to_owned()).collect()
            };
            captured.iter().filter_map(read).map(frames).collect()
        });
        assert_eq!(stacks.len(), 1, "{form:?}");
        assert!(stacks[0].iter().any(|frame| frame == "ip_forward" || frame == "ip_rcv"), "{form:?}: {stacks:?}");
    }
}

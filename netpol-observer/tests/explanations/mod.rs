//! What the engine says about denials in a shop (`tests/explanations/shop.yaml`), in full. Read a snapshot before accepting it:
//! it is what people act upon.

use std::path::Path;

use crate::queries::{Query, load_engine};
use netpol_observer::flow::Protocol;

const WEB: &str = "shop/web-6d4cf56db6-k2x9p";
const WORKER: &str = "shop/worker-5b9c7d8f66-q8w2m";
const API: &str = "shop/api-7f8b9c6d54-aaaaa";
const PROMETHEUS: &str = "monitoring/prometheus-0";

fn explained(from: &str, to: &str, port: Option<u16>, protocol: Protocol) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/explanations");
    let engine = load_engine(&directory);
    let query = Query { from: from.into(), to: to.into(), port, protocol, verdict: String::new() };
    let explanation = engine.explain(&query.connections(engine.index())[0]);
    let json = serde_json::to_string_pretty(&explanation).unwrap();
    json.replace(&format!("{}/", directory.display()), "")
}

macro_rules! explanations {
    ($($name:ident: $from:expr, $to:expr, $port:expr, $protocol:ident;)*) => {$(
        #[test]
        fn $name() {
            insta::assert_snapshot!(explained($from, $to, $port, Protocol::$protocol));
        }
    )*};
}

explanations! {
    // app=web where app=frontend is wanted; and web may not ask DNS either.
    a_label_differs_behind_a_service: WEB, "10.96.0.10", Some(80), Tcp;
    // The peer of the second rule, on a port that its name does not stand for.
    a_named_port_stands_for_another_number: PROMETHEUS, API, Some(9091), Tcp;
    // Nothing lets the worker out, nothing lets it in.
    both_directions_deny: WORKER, API, Some(8080), Tcp;
    // Pods without labels, so that no policy of their own could select them: both fixes edit one policy, and the second manifest
    // holds both edits.
    one_policy_denies_both_directions: "bare/one", "bare/two", Some(5432), Tcp;
    // Adding to default-deny would let everybody in and out: here policies of their own are the smallest change.
    a_default_deny_is_left_alone: WORKER, "shop/db-0", Some(5432), Tcp;
    an_address_is_excepted: WEB, "203.0.113.7", Some(443), Tcp;
    dns_is_denied: WEB, "10.96.0.53", Some(53), Udp;
    an_external_caller: "198.51.100.9", API, Some(8080), Tcp;
    another_protocol: WEB, API, Some(8080), Udp;
    icmp_is_not_defined: PROMETHEUS, API, None, Icmp;
    a_policy_the_api_server_would_refuse: WEB, "legacy/billing", Some(80), Tcp;
    an_admitted_call: PROMETHEUS, API, Some(9090), Tcp;
}

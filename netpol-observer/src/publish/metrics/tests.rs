use std::collections::BTreeSet;

use super::*;
use crate::agent::{About, HubStatus, KernelAbout, ObjectsStatus};
use crate::diagnose::{Agreement, Class};
use crate::flow::FoldId;
use crate::serve::testing::{at, example, innocent, pod};
use crate::serve::{Brief, Settled};
use crate::watch::{ResourceStatus, State, Status, Use};

fn settled(brief: Brief, count: u64) -> Settled {
    Settled { id: FoldId(1), brief: Arc::new(brief), denial: None, count, last: at(0) }
}

fn snapshot() -> Snapshot {
    Snapshot {
        about: About { version: "1.2.3", node: "node-1".into(), pod: None, started: at(0) },
        now: at(60),
        missing: Vec::new(),
        kernel: Some(KernelAbout { release: "6.1.0".into(), attach: Some("tp_btf"), problems: Vec::new() }),
        hub: HubStatus::default(),
        objects: ObjectsStatus { objects: [("pods", 4)].into(), ..ObjectsStatus::default() },
        watches: None,
        waiting_since: None,
    }
}

fn page(drops: &Drops, progress: &Arc<Progress>) -> String {
    Metrics::new(drops.clone(), Arc::clone(progress), Outlets::default(), &Timings::default()).text(&snapshot())
}

/// Lines of this name.
fn lines<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    let mut lines: Vec<&str> = page.lines().filter(|line| line.starts_with(name) && line[name.len()..].starts_with(['{', ' '])).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn drops_are_counted_by_whom_they_concern_and_who_is_to_blame() {
    let drops = Drops::new(10);
    let mut sink = drops.sink();
    sink.take(&settled(Brief::of(&example()), 3), at(0));
    sink.take(&settled(Brief::of(&example()), 4), at(1));
    sink.take(&settled(Brief::of(&innocent(Class::HostFirewall, Agreement::PoliciesAllow, "")), 1), at(1));
    let page = page(&drops, &Arc::default());
    insta::assert_snapshot!(lines(&page, "netpol_observer_drops_total").join("\n"), @r#"
    netpol_observer_drops_total{direction="",namespace="shop",workload="Deployment/api",peer_namespace="shop",policy="",rule="",class="hostFirewall",reason="NETFILTER_DROP"} 1
    netpol_observer_drops_total{direction="ingress",namespace="shop",workload="Deployment/api",peer_namespace="shop",policy="NetworkPolicy shop/api-allow-frontend",rule="ingress[0]",class="policyDenied",reason="NETFILTER_DROP"} 7
    "#);
    assert!(page.ends_with("# EOF\n"), "{page}");
}

#[test]
fn the_number_of_series_is_bounded_and_no_drop_is_lost() {
    let drops = Drops::new(50);
    let mut sink = drops.sink();
    for number in 0..10_000_u32 {
        let mut denial = example();
        let name = format!("team-{number}");
        denial.who.server.identity = crate::identify::Identity::Pod(pod(&name, "api-1", "10.0.0.1", &[]));
        sink.take(&settled(Brief::of(&denial), 2), at(0));
    }
    let page = page(&drops, &Arc::default());
    let lines = lines(&page, "netpol_observer_drops_total");
    assert_eq!((lines.len(), drops.series(), drops.overflowed()), (51, 50, 2 * 9950));
    let sum: u64 = lines.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert_eq!(sum, 20_000);
}

#[test]
fn the_page_as_a_whole() {
    let page = page(&Drops::new(10), &Arc::default());
    // What the machine is, what nobody has seen yet, and what has no order.
    let is_fixed = |line: &&str| !["process_", "_bucket{", "{stage="].iter().any(|part| line.contains(part));
    insta::assert_snapshot!(page.lines().filter(is_fixed).collect::<Vec<_>>().join("\n"));
    assert!(lines(&page, "process_cpu_seconds_total").len() == 1 && lines(&page, "process_open_fds").len() == 1);
    insta::assert_snapshot!(lines(&page, "netpol_observer_ledger_drops_total").join("\n"), @r#"
    netpol_observer_ledger_drops_total{stage="not_counted_reader_behind"} 0
    netpol_observer_ledger_drops_total{stage="not_counted_unattributed"} 0
    netpol_observer_ledger_drops_total{stage="received_records"} 0
    netpol_observer_ledger_drops_total{stage="settled"} 0
    netpol_observer_ledger_drops_total{stage="undecodable"} 0
    "#);
}

#[test]
fn watches_are_told_of_by_their_resource() {
    let resource = |name: &str, state: State| ResourceStatus {
        resource: name.into(),
        version: "v1".into(),
        used: Use::Required,
        state,
        objects: 1,
        listed_at: Some(at(0)),
        heard_at: Some(at(50)),
        lists: 1,
        watches: 1,
        failures: 3,
        unreadable: 0,
        requests: 5,
        bytes: 100,
    };
    let watches = Status {
        synced: true,
        resources: vec![
            resource("pods", State::Watching),
            resource("services", State::Retrying { problem: "away".into() }),
            resource("others", State::Unserved),
        ],
        discovered_at: None,
        discovery_problem: None,
        requests: 10,
        bytes: 1000,
        warnings: Vec::new(),
        warnings_omitted: 0,
    };
    let snapshot = Snapshot { watches: Some(watches), waiting_since: Some(at(57)), ..snapshot() };
    let drops = Drops::new(10);
    drops.sink().take(&settled(Brief::of(&example()), 1), at(0));
    let outlets = Outlets { otlp: Some(Arc::default()), events: Some(Arc::default()) };
    let page = Metrics::new(drops, Arc::default(), outlets, &Timings::default()).text(&snapshot);
    let expected = [r#"netpol_observer_watch_working{resource="pods"} 1"#, r#"netpol_observer_watch_working{resource="services"} 0"#];
    assert_eq!(lines(&page, "netpol_observer_watch_working"), expected);
    assert_eq!(lines(&page, "netpol_observer_watch_waiting_seconds"), ["netpol_observer_watch_waiting_seconds 3.0"]);
    assert_eq!(lines(&page, "netpol_observer_watch_failures_total").len(), 2);
    assert_documented(&page);
}

/// docs/metrics.md has a row for each name, and no others.
fn assert_documented(page: &str) {
    let told: BTreeSet<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let rows: BTreeSet<&str> = include_str!("../../../../docs/metrics.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|name| name.starts_with("netpol_observer_") || name.starts_with("process_"))
        .map(|name| name.trim_end_matches("_total").trim_end_matches("_info"))
        .collect();
    assert_eq!(told, rows);
}

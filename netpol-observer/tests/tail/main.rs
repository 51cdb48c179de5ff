//! `observer tail` as people run it: the real program on recordings and manifests.

mod scene;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use insta::assert_snapshot;
use scene::{Scene, record, syn, write};
use serde_json::Value;

/// Standard output and standard error of a run that succeeds.
fn succeed(mut command: assert_cmd::Command) -> (String, String) {
    let output = command.output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{:?}\n{out}\n{err}", output.status);
    (out, err)
}

fn fail(mut command: assert_cmd::Command, code: i32) -> String {
    let output = command.output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{err}");
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "{err}");
    err
}

/// The first words of each line: what happened to whom.
fn headlines(scene: &Scene, arguments: &[&str]) -> Vec<String> {
    let (out, _) = succeed(scene.tail(&[&["--oneline"], arguments].concat()));
    let route = |line: &str| line.split("  ").nth(1).unwrap_or_default().to_owned();
    out.lines().filter(|line| !line.contains("the same in")).map(route).collect()
}

const API: &str = "shop/web-7d9f → shop/api-5c4b:8080/TCP";
const DB: &str = "shop/web-7d9f → shop/db-0:5432/TCP";
const DNS: &str = "shop/web-7d9f → kube-system/dns-1:53/UDP";

#[test]
fn a_replay_as_text() {
    let (out, err) = succeed(Scene::new().tail(&[]));
    assert_snapshot!(out, @r#"
    08:00:00.000 DENIED ingress  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)
      by       NetworkPolicy shop/api-allow-frontend      isolates shop/api-5c4b for ingress, none of its 2 rules match
      nearest  ingress[0]  peer differs: podSelector wants app=frontend, shop/web-7d9f has app=web
               ingress[1]  port differs: wants 9090/TCP (named "metrics")
      fix      ingress[0].from += podSelector {app: web}      admits 1 more workload: shop/web-7d9f
      kernel   NETFILTER_DROP in nf_hook_slow, forward hook, on node-2, veth1a2b      agrees with the policies
    08:00:04.000 DROPPED host firewall  shop/web-7d9f → shop/db-0:5432/TCP
      cause    The packet was dropped in the forward hook on veth1a2b (NETFILTER_DROP in nf_hook_slow), and the policies allow it: a firewall rule outside the policies, or enforcement rules that are stale.
      kernel   NETFILTER_DROP in nf_hook_slow, forward hook, on node-2, veth1a2b      the policies allow it
    08:00:03.000 +5 the same in 3 s   shop/web-7d9f → shop/api-5c4b:8080/TCP
    08:00:06.000 DROPPED host firewall  shop/web-7d9f → kube-system/dns-1:53/UDP
      cause    The packet was dropped in the forward hook on veth1a2b (NETFILTER_DROP in nf_hook_slow), and the policies allow it: a firewall rule outside the policies, or enforcement rules that are stale.
      kernel   NETFILTER_DROP in nf_hook_slow, forward hook, on node-2, veth1a2b      the policies allow it
    "#);
    assert_snapshot!(err, @"
    replaying drops.rec (kernel 6.18.0, 4 pods, 1 policy)
    kernel   12 seen = 6 reported + 5 folded + 1 lost because the ring was full
    drops    11 received = 3 shown + 5 repeats + 1 elsewhere + 1 unattributed + 1 undecodable
    ");
}

#[test]
fn a_replay_in_lines() {
    let (out, _) = succeed(Scene::new().tail(&["--oneline"]));
    assert_snapshot!(out, @"
    08:00:00.000 DENIED ingress  shop/web-7d9f → shop/api-5c4b:8080/TCP  (Service shop/api:80)  by shop/api-allow-frontend; nearest ingress[0]: peer differs: podSelector wants app=frontend, shop/web-7d9f has app=web
    08:00:04.000 DROPPED host firewall  shop/web-7d9f → shop/db-0:5432/TCP  The packet was dropped in the forward hook on veth1a2b (NETFILTER_DROP in nf_hook_slow), and the policies allow it: a firewall rule outside the policies, or enforcement rules that are stale.
    08:00:03.000 +5 the same in 3 s   shop/web-7d9f → shop/api-5c4b:8080/TCP
    08:00:06.000 DROPPED host firewall  shop/web-7d9f → kube-system/dns-1:53/UDP  The packet was dropped in the forward hook on veth1a2b (NETFILTER_DROP in nf_hook_slow), and the policies allow it: a firewall rule outside the policies, or enforcement rules that are stale.
    ");
}

#[test]
fn a_replay_as_json() {
    let (out, err) = succeed(Scene::new().tail(&["-o", "json"]));
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let types: Vec<_> = lines.iter().map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["notice", "denial", "denial", "repeat", "denial", "ledger"]);
    let denied = &lines[1];
    assert_eq!((&denied["class"], &denied["directions"][0]), (&"policyDenied".into(), &"ingress".into()));
    assert_eq!(denied["service"]["port"], 80);
    assert_eq!(denied["kernel"]["node"], "node-2");
    assert_eq!(denied["explanation"]["ingress"]["isolating"][0]["policy"]["name"], "api-allow-frontend");
    let repeats = &lines[3];
    assert_eq!((&repeats["id"], &repeats["count"], &repeats["total"]), (&denied["id"], &5.into(), &6.into()));
    let ledger = lines.last().unwrap();
    assert_eq!(ledger["balanced"], true);
    for (field, count) in [
        ("records", 6),
        ("counted", 5),
        ("undecodable", 1),
        ("shown", 3),
        ("repeats", 5),
        ("elsewhere", 1),
        ("unattributed", 1),
        ("pending", 0),
    ] {
        assert_eq!(ledger[field], count, "{field}");
    }
    assert!(err.starts_with("replaying drops.rec"), "{err}");
}

#[test]
fn filters_choose_and_not_turns_round() {
    let scene = Scene::new();
    for (arguments, expected) in [
        (&[][..], &[API, DB, DNS][..]),
        (&["-n", "kube-system"], &[DNS]),
        (&["-n", "shop"], &[API, DB, DNS]),
        (&["--to-namespace", "shop"], &[API, DB]),
        (&["--from-namespace", "kube-system"], &[]),
        (&["--pod", "db-0"], &[DB]),
        (&["--to-pod", "shop/*", "--port", "5432", "--port", "53"], &[DB]),
        (&["-l", "app in (db,api)"], &[API, DB]),
        (&["--ip", "10.244.3.0/24"], &[DNS]),
        (&["--to-ip", "10.96.0.10"], &[API]),
        (&["--port", "80"], &[API]),
        (&["--protocol", "udp"], &[DNS]),
        (&["--direction", "ingress"], &[API]),
        (&["--policy", "shop/api-*"], &[API]),
        (&["--policy", "other"], &[]),
        (&["--reason", "netfilter_drop"], &[API, DB, DNS]),
        (&["--reason", "TC_INGRESS"], &[]),
        (&["--class", "host-firewall"], &[DB, DNS]),
        (&["--not", "-n", "kube-system"], &[API, DB]),
        (&["-n", "shop", "--not", "--port", "80", "--not", "--protocol", "UDP"], &[DB]),
        (&["--not", "--port", "53", "--protocol", "TCP"], &[API, DB, DNS]),
        (&["--port", "53", "--not", "--protocol", "TCP"], &[DNS]),
    ] {
        assert_eq!(headlines(&scene, arguments), expected, "{arguments:?}");
    }
    assert!(headlines(&scene, &["--all"]).contains(&"203.0.113.5 → 198.51.100.7:443/TCP".to_owned()));
}

#[test]
fn what_the_filters_leave_out_is_accounted() {
    let (out, err) = succeed(Scene::new().tail(&["--not", "--port", "8080"]));
    assert!(!out.contains("api-5c4b"), "{out}");
    assert!(err.contains("11 received = 2 shown + 0 repeats + 6 filtered out + 1 elsewhere + 1 unattributed + 1 undecodable"), "{err}");
}

#[test]
fn history() {
    let scene = Scene::new();
    assert_eq!(headlines(&scene, &["--last", "1"]), [DNS]);
    assert_eq!(headlines(&scene, &["--last", "2"]), [DB, DNS]);
    // The end is at 8 s; api goes on until 3 s.
    assert_eq!(headlines(&scene, &["--since", "3s"]), [DNS]);
    assert_eq!(headlines(&scene, &["--since", "6s"]), [API, DB, DNS]);
    assert_eq!(headlines(&scene, &["--since", "2027-01-15T08:00:05Z"]), [DNS]);
    let (_, err) = succeed(scene.tail(&["--last", "1"]));
    assert!(err.contains("1 shown + 0 repeats + 7 earlier + 1 elsewhere"), "{err}");
}

#[test]
fn without_manifests_addresses_are_shown() {
    let scene = Scene::new();
    let (out, err) = succeed(scene.observer(&["tail", "--replay", "drops.rec", "--oneline"]));
    assert!(out.contains("10.244.1.5 → 10.244.2.7:8080/TCP"), "{out}");
    assert!(out.contains("203.0.113.5 → 198.51.100.7:443/TCP"), "{out}");
    assert!(err.contains("warning: without --manifests"), "{err}");
}

#[test]
fn manifests_from_standard_input_and_colours() {
    let scene = Scene::new();
    let mut command = scene.observer(&["tail", "--replay", "drops.rec", "-f", "-", "--color", "always", "--node-name", "node-9"]);
    command.write_stdin(scene::MANIFESTS);
    let (out, _) = succeed(command);
    assert!(out.contains("\u{1b}[31mDENIED\u{1b}[0m"), "{out:?}");
    assert!(out.contains("on node-9"), "{out}");
    assert!(!succeed(scene.tail(&[])).0.contains('\u{1b}'), "a pipe is no terminal");
}

#[test]
fn a_recording_of_a_replay_is_the_same() {
    let scene = Scene::new();
    let (before, _) = succeed(scene.tail(&["--record", "copy.rec", "--port", "53"]));
    assert!(!before.contains("api-5c4b"));
    let copy = scene.observer(&["tail", "--replay", "copy.rec", "-f", "cluster.yaml"]);
    assert_eq!(succeed(copy).0, succeed(scene.tail(&[])).0, "--record comes before the filters");
}

#[test]
fn a_disk_that_is_full_from_the_start_is_an_error() {
    let err = fail(Scene::new().tail(&["--record", "/dev/full"]), 1);
    assert!(err.contains("cannot record to /dev/full"), "{err}");
}

#[test]
fn a_cut_recording_is_replayed_as_far_as_it_goes() {
    let scene = Scene::new();
    let bytes = std::fs::read(scene.path("drops.rec")).unwrap();
    std::fs::write(scene.path("drops.rec"), &bytes[..bytes.len() - 300]).unwrap();
    let (out, err) = succeed(scene.tail(&[]));
    assert!(out.contains("DENIED ingress"), "{out}");
    assert!(err.contains("warning: drops.rec: recording ends"), "{err}");
    assert!(err.contains("drops    "), "the account is given all the same: {err}");
}

#[test]
fn a_damaged_recording_is_an_error_after_what_could_be_read() {
    let scene = Scene::new();
    let mut bytes = std::fs::read(scene.path("drops.rec")).unwrap();
    let at = bytes.len() - 300;
    bytes[at..].fill(0xff);
    std::fs::write(scene.path("drops.rec"), &bytes).unwrap();
    let output = scene.tail(&[]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("DENIED ingress"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("error: drops.rec: recording is damaged"));
}

#[test]
fn errors_say_what_and_where() {
    let scene = Scene::new();
    std::fs::write(scene.path("bad.yaml"), "apiVersion: v1\nkind: Pod\nmetadata: [").unwrap();
    let err = fail(scene.observer(&["tail", "--replay", "drops.rec", "-f", "missing.yaml"]), 1);
    assert!(err.contains("error: the manifests cannot be used") && err.contains("missing.yaml"), "{err}");
    let err = fail(scene.observer(&["tail", "--replay", "drops.rec", "-f", "bad.yaml"]), 1);
    assert!(err.contains("bad.yaml"), "{err}");
    let err = fail(scene.observer(&["tail", "--replay", "missing.rec"]), 1);
    assert!(err.contains("error: missing.rec: "), "{err}");
    let err = fail(scene.observer(&["tail", "--replay", "cluster.yaml"]), 1);
    assert!(err.contains("error: cluster.yaml: this is no recording"), "{err}");
    let err = fail(scene.tail(&["--record", "missing/x.rec"]), 1);
    assert!(err.contains("cannot record to missing/x.rec"), "{err}");
}

#[test]
fn command_lines_that_make_no_sense() {
    let scene = Scene::new();
    for (arguments, expected) in [
        (&["tail", "--since", "5m"][..], "history comes from --replay FILE"),
        (&["tail", "--last", "5"], "history comes from --replay FILE"),
        (&["tail", "--replay", "drops.rec", "--last", "0"], "0 is not in"),
        (&["tail", "--replay", "drops.rec", "--duration", "5s"], "cannot be used with"),
        (&["tail", "--replay", "drops.rec", "--oneline", "-o", "json"], "--oneline is about text"),
        (&["tail", "--replay", "drops.rec", "--record", "./drops.rec"], "would overwrite"),
        (&["tail", "--replay", "drops.rec", "--not"], "--not needs a filter"),
        (&["tail", "--replay", "drops.rec", "--port", "http"], "expected a port number"),
        (&["tail", "--replay", "drops.rec", "-l", "app in"], "expected terms such as app=web"),
        (&["tail", "--replay", "drops.rec", "--class", "x"], "expected one of policy-denied"),
        (&["tail", "--replay", "drops.rec", "--since", "yesterday"], "expected a duration such as 5m"),
        (&["tail", "--replay", "drops.rec", "-o", "yaml"], "possible values: text, json"),
        (&["tail", "-f", "-", "-f", "-"], "more than once"),
        (&["trail"], "unrecognized subcommand"),
        (&[], "Usage: observer"),
    ] {
        let err = fail(scene.observer(arguments), 2);
        assert!(err.contains(expected), "{arguments:?}: {err}");
    }
    let version = concat!("observer ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(succeed(scene.observer(&["--version"])).0, version);
}

/// So many drops that no pipe holds what is printed of them.
fn flood() -> Scene {
    let drops: Vec<_> = (0..5000).map(|i| record(&syn("10.244.1.5:41000", &format!("10.244.2.8:{}", 1000 + i), 1))).collect();
    Scene::with(&drops)
}

fn spawn(scene: &Scene) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_observer"))
        .current_dir(&scene.directory)
        .args(["tail", "--replay", "drops.rec", "-f", "cluster.yaml"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_reader_that_goes_ends_the_tail_quietly() {
    let scene = flood();
    let mut child = spawn(&scene);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("shop/db-0:1000"), "{line}");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.starts_with("replaying") && err.lines().count() == 1, "{err}");
}

#[test]
fn signals_end_the_tail_with_its_account() {
    for signal in [libc::SIGINT, libc::SIGTERM] {
        let scene = flood();
        let mut child = spawn(&scene);
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        // SAFETY: sends a signal to a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(i32::try_from(child.id()).unwrap(), signal) }, 0);
        // The program waits for room in the pipe; what it finds when it goes on is the signal.
        std::thread::sleep(std::time::Duration::from_millis(200));
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{signal}: {output:?}");
        let err = String::from_utf8(output.stderr).unwrap();
        let received: u64 = err.split("drops    ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();
        assert!((1..5000).contains(&received), "{signal}: {err}");
    }
}

#[test]
fn repeats_are_printed_at_the_interval() {
    let scene = Scene::new();
    let drops: Vec<_> = (0..20).map(|second| record(&syn("10.244.1.5:41000", "10.244.2.8:5432", second))).collect();
    write(&scene.path("drops.rec"), &drops);
    let counts = |arguments: &[&str]| -> Vec<String> {
        let (out, _) = succeed(scene.tail(arguments));
        out.lines().filter_map(|line| line.split_once('+')).map(|(_, count)| count.split(' ').next().unwrap().to_owned()).collect()
    };
    assert_eq!(counts(&[]), ["4", "5", "5", "5"]);
    assert_eq!(counts(&["--summary-interval", "1h"]), ["19"]);
    assert_eq!(drops.len(), 20);
    assert!(drops_are_balanced(&scene));
}

fn drops_are_balanced(scene: &Scene) -> bool {
    let (out, _) = succeed(scene.tail(&["-o", "json"]));
    let ledger: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    ledger["balanced"] == true
}

//! The demo on the real kernel, as root; without root each test says that it is skipped.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use xtask::demo;
use xtask::netns::{self, Bed};

const XTASK: &str = env!("CARGO_BIN_EXE_xtask");

fn can_run(test: &str) -> bool {
    let can = xtask::command::is_root() && netns::required_tools().is_empty();
    if !can {
        xtask::testing::skipped(test, "needs root, iproute2 and nftables");
    }
    can
}

#[test]
fn the_kernel_does_with_every_call_what_the_policies_mean() {
    if !can_run("the_kernel_does_with_every_call_what_the_policies_mean") {
        return;
    }
    let rehearsal = demo::rehearse(Path::new(XTASK)).unwrap();
    assert_eq!(rehearsal.surprises, Vec::<String>::new());
    let idle: Vec<_> = rehearsal.counters.iter().filter(|(_, packets)| *packets == 0).collect();
    assert!(idle.is_empty(), "rules that denied nothing: {idle:?}");
    assert_eq!(rehearsal.counters.len(), 10);
}

/// A stand-in that only says it is attached: the demo must not take silence for an explanation, and an interrupted demo
/// must remove everything.
#[test]
fn an_interrupted_demo_fails_and_leaves_nothing() {
    if !can_run("an_interrupted_demo_fails_and_leaves_nothing") {
        return;
    }
    // Only for its directory.
    let bed = Bed::new("npo-demo-test").unwrap();
    let observer = bed.directory().join("observer");
    fs::write(&observer, "#!/bin/sh\ntrap 'exit 0' INT\necho 'watching nothing' >&2\nwhile sleep 0.1; do :; done\n").unwrap();
    fs::set_permissions(&observer, fs::Permissions::from_mode(0o755)).unwrap();

    for signal in [libc::SIGINT, libc::SIGTERM] {
        let mut child =
            Command::new(XTASK).args(["demo", "--observer"]).arg(&observer).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = child.id();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        assert!(output.any(|line| line.contains('▶')), "no step began");
        let begun = Instant::now();
        // SAFETY: kill takes two integers; the child has not been waited for, so its id is its own.
        assert_eq!(unsafe { libc::kill(i32::try_from(pid).unwrap(), signal) }, 0);
        let result = child.wait_with_output().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(8), "took {:?}", begun.elapsed());
        assert!(!result.status.success());
        let said = String::from_utf8_lossy(&result.stderr).into_owned();
        assert!(said.contains("interrupted"), "{said}");
        for directory in ["/run/netns", "/tmp"] {
            let left: Vec<_> = fs::read_dir(directory)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .filter(|name| name.starts_with(&format!("npo-demo-{pid}-")))
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
}

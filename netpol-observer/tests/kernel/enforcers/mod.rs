//! Every way of enforcing policies, as shapes: who drops, how, where, in which family.

mod ebpf;
mod ipset;
mod iptables;
mod nfqueue;
mod products;
mod services;
mod unenforced;
mod xdp;

use std::net::IpAddr;

use netpol_observer::diagnose::{Agreement, Class};
use xtask::command::find;
use xtask::netns::Netns;

use crate::shape::{API, Scene, Shape, tcp};

/// What a rule is refused with where the kernel lacks a part.
const LACKING: &[&str] = &[
    "No chain/target/match",
    "does not exist",
    "missing kernel module",
    "not supported",
    "No such file or directory",
    "can't initialize",
    "Couldn't load match",
    "Failed to load TC action module",
    "Unknown filter",
    "Specified qdisc",
    "NLMSG",
    "Cannot open session to kernel",
];

/// Why a command cannot be obeyed here: its program or the kernel's part is missing. Any other failure is the test's.
fn lacking(netns: &Netns, words: &[&str]) -> Option<String> {
    if find(words[0]).is_none() {
        return Some(format!("the program {} is not there", words[0]));
    }
    let error = netns.exec(words).err().map(|error| format!("{error:#}"))?;
    assert!(LACKING.iter().any(|lacking| error.contains(lacking)), "{error}");
    let said = error.split_once("exit status: ").map_or(&*error, |(_, rest)| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
    Some(format!("`{}`{}", words[0], said.lines().next().unwrap_or_default()))
}

/// Runs commands, one a line. Gives why the kernel cannot obey the first one that it cannot.
fn commands(netns: &Netns, lines: &str) -> Result<(), String> {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        lacking(netns, &words).map_or(Ok(()), Err)?;
    }
    Ok(())
}

/// The iptables of a family: `iptables-legacy`, `ip6tables-nft`.
fn xtables(variant: &str, ipv6: bool) -> String {
    format!("{}-{variant}", if ipv6 { "ip6tables" } else { "iptables" })
}

/// Packets that rules of a chain with this target have counted.
fn xtables_packets(netns: &Netns, program: &str, chain: &str, target: &str) -> u64 {
    let listed = netns.exec(&[program, "-nvxL", chain]).unwrap().stdout;
    let rules = listed.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rules.filter(|words| words.get(2) == Some(&target)).map(|words| words[0].parse::<u64>().unwrap()).sum()
}

fn address(of: [&str; 2], ipv6: bool) -> IpAddr {
    of[usize::from(ipv6)].parse().unwrap()
}

/// The function that frees what netfilter drops, where nf_tables does so itself.
fn frees(variant: &str) -> &'static str {
    if variant == "nft" { "nft_do_chain" } else { "nf_hook_slow" }
}

/// A forwarded call from `web` to `api`, denied by the policies and by netfilter on the node, on the link it came in by.
fn forwarded(name: &str, ipv6: bool, policies: &str, frees: &str, class: &Class) -> Shape {
    let agreement = if matches!(class, Class::PolicyDenied(_)) { Agreement::Agrees } else { Agreement::PoliciesAllow };
    Shape::new(name, ipv6, policies).netfilter(frees, "forward", class, &agreement).on("vethweb").behind("shop/web")
}

/// TCP from `web` to `api`.
fn web_to_api(scene: &Scene, ipv6: bool) -> impl FnOnce() + Send + use<> {
    tcp(scene.ns("web"), scene.ns("api"), address(API, ipv6))
}

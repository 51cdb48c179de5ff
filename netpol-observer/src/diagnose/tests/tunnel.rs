//! Packets of tunnels: the fault is never a policy's.

use super::*;
use crate::flow::testing::{Tunnelled, tunnelled};
use crate::identify::TunnelEnds;

fn ends() -> Who {
    let outside = |address| Party { ip: ip(address), identity: Identity::External };
    Who { tunnel: Some(TunnelEnds { source: outside("192.0.2.1"), destination: outside("192.0.2.2") }), ..who() }
}

fn inside(how: Tunnelled<'_>, flags: TcpFlags) -> DropEvent {
    let inner = testing::tcp(end(WEB, 40_000), end(API, 8080), flags);
    let record = RecordBuilder::packet(&tunnelled(ip("192.0.2.1"), ip("192.0.2.2"), how, &inner));
    decode_record(&record.bytes(), &Names::linux()).unwrap()
}

const VXLAN: Tunnelled<'static> = Tunnelled::Vxlan(8472, 1);

#[test]
fn a_firewall_drop_of_the_tunnel_is_the_firewalls_whatever_the_policies_say() {
    let summary = check(&inside(VXLAN, SYN).hook(Hook::Input), &ends(), &allow(), Class::HostFirewall, NotEnforcement);
    check_summary(
        &summary,
        "The VXLAN packet from 192.0.2.1 to 192.0.2.2 was dropped in the input hook on veth1a2b (NETFILTER_DROP in nf_hook_slow): a rule of \
         the node's own firewall, by which the pods of the two cannot reach each other. Let 192.0.2.1 and 192.0.2.2 exchange 8472/UDP; no \
         policy speaks of tunnels. Inside was a packet from shop/web to shop/api on 8080/TCP. The policies allow that connection.",
    );
    let summary = check(&inside(VXLAN, SYN), &ends(), &deny(), Class::HostFirewall, NotEnforcement);
    assert!(summary.contains("it was not for them"), "{summary}");
    let summary = check(&inside(Tunnelled::IpInIp, SYN), &ends(), &undecided(), Class::HostFirewall, NotEnforcement);
    assert!(summary.contains("exchange IP protocol 4;"), "{summary}");
    // Packets that outside of a tunnel would be told by what they are: an answer, a segment of a connection that nobody tracks.
    for flags in [SYN_ACK, ACK] {
        check(&inside(Tunnelled::Geneve(1, &[]), flags), &ends(), &deny(), Class::HostFirewall, NotEnforcement);
    }
    let traffic_control = inside(VXLAN, SYN).reason("TC_EGRESS").at("__dev_queue_xmit");
    let summary = check(&traffic_control, &ends(), &allow(), Class::HostFirewall, NotEnforcement);
    assert!(summary.contains("a traffic-control (eBPF) program"), "{summary}");
}

#[test]
fn other_causes_speak_of_the_tunnels_ends() {
    let summary = check(&inside(VXLAN, SYN).reason("NO_SOCKET"), &ends(), &deny(), Class::NoListener, NotEnforcement);
    assert!(summary.starts_with("Nothing at 192.0.2.2 receives VXLAN (8472/UDP): "), "{summary}");
    check(&inside(VXLAN, ACK).reason("NO_SOCKET"), &ends(), &deny(), Class::NoListener, NotEnforcement);
    let summary = check(&inside(Tunnelled::IpInIp, SYN).reason("IP_NOPROTO"), &ends(), &allow(), Class::NoListener, NotEnforcement);
    assert!(summary.starts_with("Nothing at 192.0.2.2 receives IP-in-IP (IP protocol 4): "), "{summary}");
    let summary = check(&inside(VXLAN, SYN).reason("IP_RPFILTER"), &ends(), &allow(), Class::ReversePathFilter, NotEnforcement);
    assert!(summary.starts_with("The kernel does not accept source address 192.0.2.1, the other end of the VXLAN tunnel, on"), "{summary}");
    let summary = check(&inside(VXLAN, SYN).reason("IP_OUTNOROUTES"), &ends(), &allow(), Class::NoRoute, NotEnforcement);
    assert!(summary.starts_with("The kernel has no route to 192.0.2.2, the other end of the VXLAN tunnel"), "{summary}");
    check(&inside(VXLAN, SYN).reason("IP_INHDR"), &ends(), &deny(), Class::Undecided, NotEnforcement);
    check(&inside(VXLAN, RST), &ends(), &deny(), Class::Noise, NotEnforcement);
}

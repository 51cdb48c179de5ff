//! Shapes of drops on the ways that packets take in real clusters: bridges, tunnels, Services, rewritten sources, states of connections.

mod beds;
mod calls;
mod ends;
mod packets;
mod services;
mod states;
mod tunnels;

use netpol_observer::cluster::Direction;
use netpol_observer::diagnose::{Agreement, Class};

use crate::shape::Shape;

/// Priority, interface, and what is dropped, in a chain of its own with the counter `denied`.
fn filter(hook: &str, condition: &str) -> String {
    format!(
        "table inet policies {{
           counter denied {{ }}
           chain drops {{
             type filter hook {hook} priority 0; policy accept;
             {condition} counter name denied drop
           }}
         }}"
    )
}

const DENIED_TCP: &str = "tcp dport 9001-9010";

fn ingress() -> Class {
    Class::PolicyDenied(vec![Direction::Ingress])
}

impl Shape {
    /// nftables drops it in this hook for the policies, which deny ingress.
    fn dropped_by_nft(self, hook: &str) -> Self {
        self.netfilter("nft_do_chain", hook, &ingress(), &Agreement::Agrees)
    }

    /// nftables drops it in this hook, and it is something else than what the policies say.
    fn dropped_otherwise(self, hook: &str, class: &Class, agreement: &Agreement) -> Self {
        self.netfilter("nft_do_chain", hook, class, agreement)
    }
}

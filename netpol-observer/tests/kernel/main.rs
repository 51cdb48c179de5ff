//! Tests on the running kernel: real programs, namespaces, firewall rules and packets.
//!
//! They need root, nftables and a build with the eBPF program; without, each prints that it was skipped and why. The packets
//! of a record are read here byte by byte, independently of the decoder.

mod boutique;
mod capture;
mod confined;
mod conntrack;
mod datapaths;
mod doctor;
mod enforcers;
mod flood;
mod forms;
mod nftables;
mod observed;
mod packets;
mod perf;
mod shape;
mod soak;
mod support;
mod surroundings;
mod tail;
mod together;
mod verifier;

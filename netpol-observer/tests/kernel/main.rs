//! Tests on the running kernel: real programs, namespaces, firewall rules and packets. They need root and a binary with the
//! eBPF program; without, each says that it was skipped and why.
mod load;
mod support;

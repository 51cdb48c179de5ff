//! `observer tail`, `explain` and `status` on a cluster: the real program, real HTTP through the test API server's port-forward, and agents
//! that speak the API by the letter.

mod access;
mod agent;
mod commands;
mod faults;
mod order;
mod scene;
mod shells;
mod tenant;

use scene::PATIENCE;

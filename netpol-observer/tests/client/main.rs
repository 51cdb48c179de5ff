//! `observer tail`, `explain` and `status` on a cluster: the real program, real HTTP through the test API server's port-forward, and agents
//! that speak the API by the letter, or the real agent with real drops.

mod access;
mod agent;
mod before;
mod churn;
mod commands;
mod container;
mod denials;
mod events;
mod faults;
mod install;
mod node;
mod order;
mod scene;
mod shells;
mod storms;
mod tenant;

use scene::PATIENCE;

//! Watches on the test API server: what comes of them is at the end what the server has, whatever happens in between.

mod access;
mod faults;
mod lists;
mod optional;
mod scene;

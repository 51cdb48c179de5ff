//! The test API server, asked by the real client and by plain HTTP.

mod access;
mod client;
mod faults;
mod lists;
mod portforward;
mod raw;
mod served;
mod watches;
mod writes;

//! `observer agent` as clients meet it: the real program, asked by plain HTTP.

mod api;
mod hostile;
mod http;
mod live;
mod metrics;
mod otlp;
mod process;
mod scene;
mod tenant;

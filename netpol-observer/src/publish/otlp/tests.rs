use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Mutex;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use prost::Message as _;
use tokio::net::TcpListener;

use super::counters::Fate;
use super::*;
use crate::diagnose::Agreement;
use crate::flow::FoldId;
use crate::serve::Brief;
use crate::serve::testing::{at, example, example_at, innocent};

mod account;
mod mapping;
mod sending;

fn settled(denial: crate::diagnose::Denial, count: u64, in_full: bool) -> Settled {
    let denial = Arc::new(denial);
    let (id, brief, last) = (denial.event.id, Arc::new(Brief::of(&denial)), denial.event.time);
    Settled { id, brief, denial: in_full.then_some(denial), count, last }
}

fn full(id: u64, count: u64) -> Settled {
    settled(crate::diagnose::Denial::clone(&example_at(id, 0)), count, true)
}

fn repeats(id: u64, count: u64) -> Settled {
    settled(crate::diagnose::Denial::clone(&example_at(id, 0)), count, false)
}

fn about() -> About {
    About { version: "0.1.0", node: "node-2".into(), pod: Some("netpol-observer-x7k2p".into()), started: at(-60) }
}

fn options(url: &str) -> Options {
    Options {
        endpoint: Endpoint::parse(url, Protocol::Http).unwrap(),
        headers: headers_from_lines("x-key: secret").unwrap(),
        ca: None,
        interval: Duration::from_secs(30),
        queue: 8,
        series: 4,
        about: about(),
        host: Some("host-2".into()),
        resource: vec![("k8s.cluster.name".into(), "blue".into()), ("service.name".into(), "other".into())],
    }
}

fn attributes(all: &[KeyValue]) -> String {
    let lines = all.iter().map(|KeyValue { key, value, .. }| {
        let value = match value.as_ref().and_then(|any| any.value.as_ref()) {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => number.to_string(),
            Some(Value::BoolValue(flag)) => flag.to_string(),
            other => panic!("{key}: {other:?}"),
        };
        format!("{key} = {value}")
    });
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines.join("\n")
}

//! The options for a collector of OpenTelemetry, and what stands in its variables.

use std::env;
use std::path::PathBuf;

use clap::Args;
use http::HeaderMap;
use jiff::SignedDuration;
use tokio::runtime::Runtime;

use super::say;
use crate::agent::About;
use crate::cli::CommandError;
use crate::cli::time::parse_duration;
use crate::publish::otlp::{self, Endpoint, Options, Otlp, Protocol};

/// Headers of each request; values may be secret.
const HEADERS: &str = "OTEL_EXPORTER_OTLP_HEADERS";
/// Attributes of the resource.
const RESOURCE: &str = "OTEL_RESOURCE_ATTRIBUTES";

/// Where to send drops as OTLP.
#[derive(Args)]
pub(super) struct OtlpArgs {
    /// Send drops to a collector there, as OTLP log records and a metric (docs/opentelemetry.md): http://HOST:PORT or https://HOST:PORT, without a port
    /// 4317 or 4318 for http, and 443 for https.
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT", hide_env_values = true, help_heading = "OpenTelemetry")]
    otlp_endpoint: Option<String>,

    /// How to speak to it: grpc or http/protobuf. The latter appends /v1/logs and /v1/metrics to the URL.
    #[arg(
        long,
        value_name = "PROTOCOL",
        env = "OTEL_EXPORTER_OTLP_PROTOCOL",
        hide_env_values = true,
        default_value = "http/protobuf",
        help_heading = "OpenTelemetry"
    )]
    otlp_protocol: String,

    /// Send the headers of this file with each request, one a line: `Authorization: Bearer …`. OTEL_EXPORTER_OTLP_HEADERS (name=value,name=value) is read
    /// too; the file takes precedence.
    #[arg(long, value_name = "FILE", help_heading = "OpenTelemetry")]
    otlp_headers_file: Option<PathBuf>,

    /// Trust the certificates of this file (PEM) for https, instead of those of the machine.
    #[arg(long, value_name = "FILE", env = "OTEL_EXPORTER_OTLP_CERTIFICATE", hide_env_values = true, help_heading = "OpenTelemetry")]
    otlp_ca: Option<PathBuf>,

    /// Send the metric, and counts of repeated drops, so often.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_interval, help_heading = "OpenTelemetry")]
    otlp_interval: SignedDuration,

    /// Let so many log records wait while the collector is slow or away; more are lost, and counted.
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = "OpenTelemetry")]
    otlp_queue: u32,

    /// Give the metric so many series at most; what is beyond is counted in one for each class and direction.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = "OpenTelemetry")]
    otlp_series: u32,
}

impl OtlpArgs {
    /// The sink, where one is wanted. A variable that is empty says nothing, as the specification has it.
    pub(super) fn sink(&self, runtime: &Runtime, about: &About) -> Result<Option<Otlp>, CommandError> {
        let Some(url) = self.otlp_endpoint.as_deref().filter(|url| !url.is_empty()) else { return Ok(None) };
        let protocol = match self.otlp_protocol.as_str() {
            "" => Protocol::default(),
            text => Protocol::parse(text).map_err(|error| CommandError::usage(format!("--otlp-protocol: {error}")))?,
        };
        let endpoint = Endpoint::parse(url, protocol).map_err(|error| {
            CommandError::usage(format!("--otlp-endpoint: {error}")).hint("such as http://collector.observability:4318")
        })?;
        let headers = self.headers()?;
        if endpoint.is_plain() && !headers.is_empty() {
            say(&format!("warning: headers that may be secret go to {endpoint} without TLS"));
        }
        let ca = self.otlp_ca.clone().filter(|path| !path.as_os_str().is_empty());
        let resource = list(RESOURCE)?;
        let resource = otlp::pairs(&resource).map_err(|error| CommandError::failure(format!("{RESOURCE}: {error}")))?;
        let named = endpoint.to_string();
        let options = Options {
            endpoint,
            headers,
            ca,
            interval: self.otlp_interval.unsigned_abs(),
            queue: usize::try_from(self.otlp_queue).unwrap_or(usize::MAX),
            series: usize::try_from(self.otlp_series).unwrap_or(usize::MAX),
            about: about.clone(),
            host: super::source::host_name(),
            resource,
        };
        let sink = Otlp::start(options, runtime.handle()).map_err(|error| {
            CommandError::failure(format!("cannot send to {named}: {error}")).hint("--otlp-ca takes a file with the certificates to trust")
        })?;
        say(&format!("sending drops to {named} ({protocol})"));
        Ok(Some(sink))
    }

    fn headers(&self) -> Result<HeaderMap, CommandError> {
        let mut headers = otlp::headers_from_list(&list(HEADERS)?).map_err(|error| CommandError::failure(format!("{HEADERS}: {error}")))?;
        if let Some(path) = &self.otlp_headers_file {
            let failed = |why: &dyn std::fmt::Display| CommandError::failure(format!("--otlp-headers-file {}: {why}", path.display()));
            let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
            let own = otlp::headers_from_lines(&text)
                .map_err(|error| failed(&error).hint("one header a line, such as `Authorization: Bearer …`"))?;
            headers.extend(own);
        }
        Ok(headers)
    }
}

/// A variable, or nothing.
fn list(name: &str) -> Result<String, CommandError> {
    match env::var(name) {
        Ok(text) => Ok(text),
        Err(env::VarError::NotPresent) => Ok(String::new()),
        Err(env::VarError::NotUnicode(_)) => Err(CommandError::failure(format!("{name} is not UTF-8"))),
    }
}

/// Once a second is as often as there is something to do.
fn parse_interval(text: &str) -> Result<SignedDuration, String> {
    let interval = parse_duration(text)?;
    let bounds = SignedDuration::from_secs(1)..=SignedDuration::from_hours(1);
    if bounds.contains(&interval) { Ok(interval) } else { Err("expected a time from 1s to 1h".to_owned()) }
}

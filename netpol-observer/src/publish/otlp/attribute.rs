//! The names of what is sent, and values of bounded length.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};

use crate::serve::render::clean;

/// The version of the semantic conventions that the names are from.
pub const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";

/// Longest value, in bytes: what is longer ends with `…`. Names of Kubernetes have 253 at most.
pub const MAX_VALUE: usize = 1024;

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
        $($(#[$doc])* pub(in crate::publish::otlp) const $name: &str = $text;)*
        /// All of them.
        #[cfg(test)]
        pub(in crate::publish::otlp) const ALL: &[&str] = &[$($text),*];
    };
}

/// Attributes of log records.
pub(super) mod log {
    names! {
        // Of the semantic conventions.
        SOURCE_ADDRESS = "source.address";
        SOURCE_PORT = "source.port";
        DESTINATION_ADDRESS = "destination.address";
        DESTINATION_PORT = "destination.port";
        CLIENT_ADDRESS = "client.address";
        CLIENT_PORT = "client.port";
        SERVER_ADDRESS = "server.address";
        SERVER_PORT = "server.port";
        NETWORK_TRANSPORT = "network.transport";
        NETWORK_TYPE = "network.type";
        NETWORK_INTERFACE = "network.interface.name";
        K8S_NAMESPACE = "k8s.namespace.name";
        K8S_POD = "k8s.pod.name";
        K8S_POD_UID = "k8s.pod.uid";
        K8S_DEPLOYMENT = "k8s.deployment.name";
        K8S_STATEFUL_SET = "k8s.statefulset.name";
        K8S_DAEMON_SET = "k8s.daemonset.name";
        K8S_REPLICA_SET = "k8s.replicaset.name";
        K8S_JOB = "k8s.job.name";
        K8S_CRON_JOB = "k8s.cronjob.name";
        // Of our own.
        CLASS = "netpol_observer.class";
        DIRECTION = "netpol_observer.direction";
        VERDICT = "netpol_observer.verdict";
        AGREEMENT = "netpol_observer.agreement";
        POLICY = "netpol_observer.policy.name";
        POLICY_KIND = "netpol_observer.policy.kind";
        RULE = "netpol_observer.rule";
        NEAREST_MISS = "netpol_observer.nearest_miss";
        FIX = "netpol_observer.fix";
        REASON = "netpol_observer.reason";
        COUNT = "netpol_observer.count";
        FOLD_ID = "netpol_observer.fold_id";
        REPLY = "netpol_observer.reply";
        SERVICE = "netpol_observer.service.name";
        SERVICE_PORT = "netpol_observer.service.port";
        WORKLOAD = "netpol_observer.workload";
        PEER_NAMESPACE = "netpol_observer.peer.namespace";
        PEER_POD = "netpol_observer.peer.pod";
        PEER_WORKLOAD = "netpol_observer.peer.workload";
    }
}

/// Attributes of data points: the labels of the Prometheus metrics.
pub(super) mod point {
    names! {
        DIRECTION = "direction";
        NAMESPACE = "namespace";
        WORKLOAD = "workload";
        PEER_NAMESPACE = "peer_namespace";
        POLICY = "policy";
        RULE = "rule";
        CLASS = "class";
        REASON = "reason";
        /// Of the SDKs' specification: what did not get a series of its own.
        OVERFLOW = "otel.metric.overflow";
    }
}

/// Attributes of the resource.
pub(super) mod resource {
    names! {
        SERVICE_NAME = "service.name";
        SERVICE_VERSION = "service.version";
        SERVICE_INSTANCE = "service.instance.id";
        K8S_NODE = "k8s.node.name";
        K8S_POD = "k8s.pod.name";
        HOST_NAME = "host.name";
    }
}

/// Text of any origin, fit to be printed and of bounded length.
pub(super) fn bounded(text: &str) -> String {
    let text = clean(text);
    if text.len() <= MAX_VALUE {
        return text.into_owned();
    }
    let end = text.floor_char_boundary(MAX_VALUE - '…'.len_utf8());
    format!("{}…", &text[..end])
}

/// An attribute with text.
pub(super) fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(bounded(value)))
}

/// An attribute with a number; what is more than OTLP can say is the most it can.
pub(super) fn number(key: &str, value: impl TryInto<i64>) -> KeyValue {
    attribute(key, Value::IntValue(value.try_into().unwrap_or(i64::MAX)))
}

/// An attribute that is true or false.
pub(super) fn flag(key: &str, value: bool) -> KeyValue {
    attribute(key, Value::BoolValue(value))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_bounded_and_fit_to_be_printed() {
        assert_eq!(bounded("shop/web"), "shop/web");
        let long = bounded(&"é".repeat(MAX_VALUE));
        assert!(long.len() <= MAX_VALUE && long.len() > MAX_VALUE - 8 && long.ends_with("é…"), "{}", long.len());
        assert!(!bounded("a\u{1b}[31mb").contains('\u{1b}'));
        let Some(Value::IntValue(most)) = number("n", u64::MAX).value.and_then(|any| any.value) else { unreachable!() };
        assert_eq!(most, i64::MAX);
    }
}

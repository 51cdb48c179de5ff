//! The connection to the API server, as long-lived watches need it.

use std::time::Duration;

use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// After how much silence the kernel asks whether the other side is still there, how often, and how often in vain.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(30), Duration::from_secs(10), 3);

/// A client for [`start`](super::start), from what kube found out about the cluster: a kubeconfig, or the files in a pod, whose token is
/// read anew when it is rotated.
///
/// It differs from kube's own client in what is below: TCP keepalives, so that half-open connections that nobody uses die too; and requests
/// are not tried again unseen, since the watches do that themselves, and say so.
///
/// # Errors
/// The configuration is not usable: a certificate or a token file that cannot be read, a proxy.
pub fn connect(config: Config) -> kube::Result<Client> {
    if config.proxy_url.is_some() {
        // kube says that proxies are not compiled in.
        return Client::try_from(config);
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    connector.set_keepalive(Some(KEEPALIVE.0));
    connector.set_keepalive_interval(Some(KEEPALIVE.1));
    connector.set_keepalive_retries(Some(KEEPALIVE.2));
    let connector = config.rustls_https_connector_with_connector(connector)?;
    let client: legacy::Client<_, Body> = legacy::Client::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(client);
    Ok(Client::new(service, config.default_namespace))
}

//! The way into the cluster: kubeconfig or the ServiceAccount of a pod, and what the API server's errors mean.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kube::config::{Config, KubeConfigOptions, Kubeconfig};

use super::call::Access;
use super::dial::Forward;
use super::tenant::{Pin, Tenant};

/// How long a connection to the API server may take.
const CONNECT: Duration = Duration::from_secs(10);

/// A watch that hears nothing for so long has lost its connection: the server ends it earlier by itself.
const SILENCE: Duration = Duration::from_secs(310);

/// Where the cluster is and how its agents are reached.
#[derive(Clone, Debug, Default)]
pub struct ClusterOptions {
    /// `--kubeconfig`; otherwise KUBECONFIG, then ~/.kube/config, then the ServiceAccount of the pod that this runs in.
    pub kubeconfig: Option<PathBuf>,
    /// `--context`; otherwise the current one.
    pub context: Option<String>,
    /// Namespace of the agents.
    pub agent_namespace: String,
    /// Port of the agents' API in their pods.
    pub agent_port: u16,
    /// In tenant mode: the ServiceAccount to speak as, the audience of its token, and how to know the agents.
    pub tenant: Option<TenantOptions>,
}

/// Tenant mode.
#[derive(Clone, Debug)]
pub struct TenantOptions {
    /// Namespace of the ServiceAccount.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Audience of the token.
    pub audience: String,
    /// What the agents' certificate is checked by.
    pub pin: Pin,
}

/// Why there is no way into the cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// There is no configuration at all.
    #[error("no cluster is configured: there is no kubeconfig, and this is no pod")]
    NoConfiguration,
    /// The configuration cannot be used.
    #[error("{place}: {why}")]
    Unusable {
        /// Which file, or the pod's ServiceAccount.
        place: String,
        /// What is wrong.
        why: String,
    },
}

/// A cluster, before anything was asked of it.
pub struct Cluster {
    pub(super) client: kube::Client,
    pub(super) options: ClusterOptions,
    /// Context or server, for people.
    name: String,
    access: Access,
}

/// Where a configuration is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    /// The files that KUBECONFIG names.
    Environment(String),
    Pod,
}

impl ClusterOptions {
    fn place(&self) -> Option<Place> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(path) = &self.kubeconfig {
            return Some(Place::File(path.clone()));
        }
        if let Some(paths) = set("KUBECONFIG") {
            return Some(Place::Environment(paths.to_string_lossy().into_owned()));
        }
        let default = set("HOME").map(|home| Path::new(&home).join(".kube/config")).filter(|path| path.is_file());
        match default {
            Some(path) => Some(Place::File(path)),
            None => set("KUBERNETES_SERVICE_HOST").map(|_| Place::Pod),
        }
    }

    /// Whether there is a cluster to ask.
    pub fn is_configured(&self) -> bool {
        self.place().is_some()
    }

    /// Reads the configuration: with it, its name for people, and where it is. Nothing is asked yet.
    ///
    /// # Errors
    /// There is none, or it cannot be used.
    pub async fn read(&self) -> Result<Configuration, ClusterError> {
        let place = self.place().ok_or(ClusterError::NoConfiguration)?;
        let shown = match &place {
            Place::File(path) => path.display().to_string(),
            Place::Environment(paths) => format!("KUBECONFIG={paths}"),
            Place::Pod => "the ServiceAccount of this pod".to_owned(),
        };
        let unusable = |error: &dyn std::error::Error| ClusterError::Unusable { place: shown.clone(), why: chain(error) };
        let (config, name) = match &place {
            Place::Pod => {
                let config = Config::incluster().map_err(|error| unusable(&error))?;
                let name = config.cluster_url.to_string();
                (config, name)
            }
            Place::File(_) | Place::Environment(_) => {
                let file = match &place {
                    Place::File(path) => Kubeconfig::read_from(path),
                    _ => Kubeconfig::read(),
                };
                let file = file.map_err(|error| unusable(&error))?;
                let name = self.context.clone().or_else(|| file.current_context.clone()).unwrap_or_default();
                let chosen = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
                (Config::from_custom_kubeconfig(file, &chosen).await.map_err(|error| unusable(&error))?, name)
            }
        };
        Ok(Configuration { config, name, place: shown })
    }
}

/// How to reach an API server.
pub struct Configuration {
    /// For a client.
    pub config: Config,
    /// Context or server, for people.
    pub name: String,
    /// Where it was read from, for people.
    pub place: String,
}

impl Configuration {
    /// It was read, and cannot be used.
    pub fn unusable(&self, error: &dyn std::error::Error) -> ClusterError {
        ClusterError::Unusable { place: self.place.clone(), why: chain(error) }
    }
}

impl Cluster {
    /// Reads the configuration. Nothing is asked yet.
    ///
    /// # Errors
    /// There is none, or it cannot be used.
    pub async fn configure(options: ClusterOptions) -> Result<Cluster, ClusterError> {
        let mut read = options.read().await?;
        read.config.connect_timeout = Some(CONNECT);
        read.config.read_timeout = Some(SILENCE);
        let client = kube::Client::try_from(read.config.clone()).map_err(|error| read.unusable(&error))?;
        let name = read.name;
        let tenant = match &options.tenant {
            Some(wanted) => {
                let tenant = Tenant::new(client.clone(), &wanted.namespace, &wanted.name, &wanted.audience, &wanted.pin);
                Some(Arc::new(tenant.map_err(|why| ClusterError::Unusable { place: wanted.pin.to_string(), why })?))
            }
            None => None,
        };
        let access = Access::new(Arc::new(Forward::new(client.clone(), options.agent_port)), tenant);
        Ok(Cluster { client, options, name, access })
    }

    /// Context, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where agents are looked for.
    pub fn agent_namespace(&self) -> &str {
        &self.options.agent_namespace
    }

    /// The way to the agents.
    pub fn access(&self) -> Access {
        self.access.clone()
    }
}

/// An error of the API server in its own words; anything else with its causes.
pub(super) fn describe(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 401 => {
            "the API server does not accept the credential of the kubeconfig (401 Unauthorized)".to_owned()
        }
        kube::Error::Api(status) => status.message.clone(),
        kube::Error::Service(error) => format!("the API server cannot be reached: {}", chain(error.as_ref())),
        error => chain(error),
    }
}

/// An error and its causes, without saying anything twice.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

//! The shop as its manifests describe it: who has which address and serves which ports.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// What the demo needs of `deploy/examples/shop`.
#[derive(Clone, Debug)]
pub(super) struct Shop {
    /// The ruleset of the node.
    pub(super) ruleset: String,
    /// The node's addresses.
    pub(super) node: Vec<IpAddr>,
    /// All pods.
    pub(super) pods: Vec<Pod>,
    /// All Services.
    pub(super) services: Vec<Service>,
}

/// A pod.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    /// `NAMESPACE/APP` by its label `app`, how the demo speaks of it.
    pub(super) key: String,
    /// `status.podIPs`
    pub(super) addresses: Vec<IpAddr>,
    /// It shares the node's network.
    pub(super) host_network: bool,
    /// Its `containerPort`s: protocol and number.
    pub(super) ports: Vec<(String, u16)>,
}

/// A Service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    /// `NAMESPACE/NAME`
    pub(super) key: String,
    /// `spec.clusterIPs`
    pub(super) addresses: Vec<IpAddr>,
}

impl Shop {
    /// Reads the directory.
    ///
    /// # Errors
    /// A file cannot be read, is no YAML, or lacks a field that is needed here.
    pub(super) fn load(directory: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let mut shop = Self { ruleset: read("enforce.nft")?, node: Vec::new(), pods: Vec::new(), services: Vec::new() };
        for file in ["cluster.yaml", "pods.yaml", "services.yaml"] {
            let objects: Vec<Value> = serde_saphyr::from_multiple(&read(file)?).with_context(|| format!("{file} is not valid YAML"))?;
            for object in objects {
                shop.add(&object).with_context(|| format!("in {file}"))?;
            }
        }
        if shop.node.is_empty() {
            bail!("no Node in {}", directory.display());
        }
        Ok(shop)
    }

    /// The pod `NAMESPACE/APP`.
    pub(super) fn pod(&self, key: &str) -> Result<&Pod> {
        self.pods.iter().find(|pod| pod.key == key).with_context(|| format!("no pod {key} in pods.yaml"))
    }

    /// The Service `NAMESPACE/NAME`.
    pub(super) fn service(&self, key: &str) -> Result<&Service> {
        self.services.iter().find(|service| service.key == key).with_context(|| format!("no Service {key} in services.yaml"))
    }

    fn add(&mut self, object: &Value) -> Result<()> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (kind, namespace, name) = (text("/kind"), text("/metadata/namespace"), text("/metadata/name"));
        let read = || -> Result<Option<Added>> {
            Ok(match kind {
                "Node" => {
                    let internal =
                        list(object, "/status/addresses").filter(|address| address.get("type").is_some_and(|kind| kind == "InternalIP"));
                    Some(Added::Node(internal.map(|address| ip(address.get("address"))).collect::<Result<_>>()?))
                }
                "Pod" => {
                    let ports = list(object, "/spec/containers").flat_map(|container| list(container, "/ports"));
                    Some(Added::Pod(Pod {
                        key: format!("{namespace}/{}", text("/metadata/labels/app")),
                        addresses: list(object, "/status/podIPs").map(|entry| ip(entry.get("ip"))).collect::<Result<_>>()?,
                        host_network: object.pointer("/spec/hostNetwork") == Some(&Value::Bool(true)),
                        ports: ports.map(port).collect::<Result<_>>()?,
                    }))
                }
                "Service" => Some(Added::Service(Service {
                    key: format!("{namespace}/{name}"),
                    addresses: list(object, "/spec/clusterIPs").map(|address| ip(Some(address))).collect::<Result<_>>()?,
                })),
                _ => None,
            })
        };
        match read().with_context(|| format!("{kind} {namespace}/{name}"))? {
            Some(Added::Node(addresses)) => self.node = addresses,
            Some(Added::Pod(pod)) => self.pods.push(pod),
            Some(Added::Service(service)) => self.services.push(service),
            None => {}
        }
        Ok(())
    }
}

enum Added {
    Node(Vec<IpAddr>),
    Pod(Pod),
    Service(Service),
}

fn list<'a>(object: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    object.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn ip(value: Option<&Value>) -> Result<IpAddr> {
    let text = value.and_then(Value::as_str).context("an address is missing")?;
    text.parse().with_context(|| format!("`{text}` is no IP address"))
}

fn port(value: &Value) -> Result<(String, u16)> {
    let number = value.get("containerPort").and_then(Value::as_u64).and_then(|number| u16::try_from(number).ok());
    let protocol = value.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
    Ok((protocol.to_owned(), number.context("a containerPort is missing or no port number")?))
}

/// The address of a family.
pub(super) fn of_family(addresses: &[IpAddr], ipv6: bool) -> Result<IpAddr> {
    addresses.iter().copied().find(|address| address.is_ipv6() == ipv6).context("no address of that family")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::demo::steps::{ALLOWED, CRASHED, DENIED};

    fn directory() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/shop")
    }

    fn objects(file: &str) -> Vec<Value> {
        serde_saphyr::from_multiple(&fs::read_to_string(directory().join(file)).unwrap()).unwrap()
    }

    #[test]
    fn every_address_has_one_owner_and_both_families() {
        let shop = Shop::load(&directory()).unwrap();
        let pods = shop.pods.iter().filter(|pod| !pod.host_network).map(|pod| &pod.addresses);
        let mut seen = BTreeSet::new();
        for addresses in pods.chain(shop.services.iter().map(|service| &service.addresses)).chain([&shop.node]) {
            assert_eq!(addresses.iter().filter(|address| address.is_ipv6()).count(), 1, "{addresses:?}");
            assert_eq!(addresses.len(), 2, "{addresses:?}");
            for address in addresses {
                assert!(seen.insert(*address), "{address} has two owners");
            }
        }
    }

    #[test]
    fn endpoint_slices_hold_the_pods_addresses() {
        let shop = Shop::load(&directory()).unwrap();
        let slices: Vec<Value> = objects("services.yaml").into_iter().filter(|object| object["kind"] == "EndpointSlice").collect();
        assert_eq!(slices.len(), 14);
        for slice in slices {
            for endpoint in list(&slice, "/endpoints") {
                let address = ip(endpoint.pointer("/addresses/0")).unwrap();
                let owner = shop.pods.iter().find(|pod| pod.addresses.contains(&address)).unwrap();
                let name = endpoint.pointer("/targetRef/name").and_then(Value::as_str).unwrap();
                assert!(name.starts_with(owner.key.split_once('/').unwrap().1), "{name} is not {}", owner.key);
            }
        }
    }

    #[test]
    fn the_ruleset_speaks_of_every_service_address() {
        let shop = Shop::load(&directory()).unwrap();
        for service in &shop.services {
            for address in &service.addresses {
                assert!(shop.ruleset.contains(&format!(" daddr {address} ")), "{} {address}", service.key);
            }
        }
    }

    #[test]
    fn the_steps_speak_of_objects_that_exist() {
        let policies: BTreeSet<String> = objects("policies.yaml")
            .iter()
            .map(|policy| format!("{}/{}", policy["metadata"]["namespace"].as_str().unwrap(), policy["metadata"]["name"].as_str().unwrap()))
            .collect();
        let blamed: BTreeSet<String> =
            DENIED.iter().flat_map(|step| step.denied.unwrap().policies).map(|policy| (*policy).to_owned()).collect();
        assert_eq!(blamed, policies, "every policy denies something, and nothing else is blamed");
        let shop = Shop::load(&directory()).unwrap();
        for step in ALLOWED.iter().chain(DENIED).filter(|step| step.caller.contains('/')) {
            shop.pod(step.caller).unwrap();
        }
        for (pod, port) in CRASHED {
            assert!(shop.pod(pod).unwrap().ports.contains(&("TCP".to_owned(), *port)), "{pod} declares {port}");
        }
    }
}

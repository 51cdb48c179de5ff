//! The maps of the index. Each is shared between clones of the index until one of them writes to it.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::cluster::{Node, Pod, Service};

/// Objects by namespace and name. The two levels allow look-ups by `&str` and copy one namespace at a time.
#[derive(Debug)]
pub(super) struct Namespaced<T> {
    namespaces: Arc<BTreeMap<Arc<str>, Arc<ByName<T>>>>,
}

type ByName<T> = BTreeMap<Arc<str>, Arc<T>>;

impl<T> Namespaced<T> {
    /// Returns the object that had the name before.
    pub(super) fn insert(&mut self, namespace: &Arc<str>, name: &Arc<str>, object: Arc<T>) -> Option<Arc<T>> {
        let names = Arc::make_mut(&mut self.namespaces).entry(namespace.clone()).or_default();
        Arc::make_mut(names).insert(name.clone(), object)
    }

    pub(super) fn remove(&mut self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.get(namespace, name)?;
        let namespaces = Arc::make_mut(&mut self.namespaces);
        let names = Arc::make_mut(namespaces.get_mut(namespace)?);
        let removed = names.remove(name);
        if names.is_empty() {
            namespaces.remove(namespace);
        }
        removed
    }

    pub(super) fn get(&self, namespace: &str, name: &str) -> Option<&Arc<T>> {
        self.namespaces.get(namespace)?.get(name)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.namespaces.values().flat_map(|names| names.values())
    }

    pub(super) fn iter_in(&self, namespace: &str) -> impl Iterator<Item = &Arc<T>> {
        self.namespaces.get(namespace).into_iter().flat_map(|names| names.values())
    }

    pub(super) fn len(&self) -> usize {
        self.namespaces.values().map(|names| names.len()).sum()
    }
}

// Derived impls would ask for `T: Clone` and `T: Default`.
impl<T> Clone for Namespaced<T> {
    fn clone(&self) -> Self {
        Self { namespaces: self.namespaces.clone() }
    }
}

impl<T> Default for Namespaced<T> {
    fn default() -> Self {
        Self { namespaces: Arc::default() }
    }
}

/// What orders the holders of one address.
pub(super) trait Named {
    fn full_name(&self) -> (&str, &str);
}

impl Named for Pod {
    fn full_name(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

impl Named for Service {
    fn full_name(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

impl Named for Node {
    fn full_name(&self) -> (&str, &str) {
        ("", &self.name)
    }
}

/// Objects by address, those that share one sorted by name. IPv4-mapped IPv6 addresses are IPv4 here.
#[derive(Debug)]
pub(super) struct ByAddress<T> {
    holders: Arc<HashMap<IpAddr, Holders<T>>>,
}

/// Who has an address: nearly always one object, which then needs no list.
#[derive(Debug)]
enum Holders<T> {
    One(Arc<T>),
    Many(Box<[Arc<T>]>),
}

impl<T> Holders<T> {
    fn as_slice(&self) -> &[Arc<T>] {
        match self {
            Holders::One(holder) => std::slice::from_ref(holder),
            Holders::Many(holders) => holders,
        }
    }
}

impl<T> Clone for Holders<T> {
    fn clone(&self) -> Self {
        match self {
            Holders::One(holder) => Holders::One(holder.clone()),
            Holders::Many(holders) => Holders::Many(holders.clone()),
        }
    }
}

impl<T: Named> ByAddress<T> {
    pub(super) fn insert(&mut self, object: &Arc<T>, ips: &[IpAddr]) {
        for ip in ips {
            let map = Arc::make_mut(&mut self.holders);
            let holders = map.entry(ip.to_canonical()).or_insert_with(|| Holders::One(object.clone()));
            // The same address may be written twice in one object, as IPv4 and mapped, or as cluster and external address.
            if let Err(place) = holders.as_slice().binary_search_by(|holder| holder.full_name().cmp(&object.full_name())) {
                let mut list = holders.as_slice().to_vec();
                list.insert(place, object.clone());
                *holders = Holders::Many(list.into());
            }
        }
    }

    pub(super) fn remove(&mut self, object: &Arc<T>, ips: &[IpAddr]) {
        for ip in ips.iter().map(IpAddr::to_canonical) {
            if !self.holders.contains_key(&ip) {
                continue;
            }
            let map = Arc::make_mut(&mut self.holders);
            let Some(holders) = map.get_mut(&ip) else { continue };
            let others = holders.as_slice().iter().filter(|holder| holder.full_name() != object.full_name());
            let mut others: Vec<_> = others.cloned().collect();
            match (others.pop(), others.is_empty()) {
                (None, _) => {
                    map.remove(&ip);
                }
                (Some(last), true) => *holders = Holders::One(last),
                (Some(last), false) => {
                    others.push(last);
                    *holders = Holders::Many(others.into());
                }
            }
        }
    }

    pub(super) fn get(&self, ip: IpAddr) -> &[Arc<T>] {
        self.holders.get(&ip.to_canonical()).map(Holders::as_slice).unwrap_or_default()
    }
}

impl<T> Clone for ByAddress<T> {
    fn clone(&self) -> Self {
        Self { holders: self.holders.clone() }
    }
}

impl<T> Default for ByAddress<T> {
    fn default() -> Self {
        Self { holders: Arc::default() }
    }
}

/// Address ranges with the number of times each was added. Clusters use one or two prefix lengths for all nodes, so a look-up is
/// one hash look-up per length, whatever the number of nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    by_length: Arc<BTreeMap<u8, HashMap<IpNet, usize>>>,
}

impl Ranges {
    pub(super) fn insert(&mut self, range: IpNet) {
        *Arc::make_mut(&mut self.by_length).entry(range.prefix_len()).or_default().entry(range.trunc()).or_default() += 1;
    }

    pub(super) fn remove(&mut self, range: IpNet) {
        let by_length = Arc::make_mut(&mut self.by_length);
        let Some(ranges) = by_length.get_mut(&range.prefix_len()) else {
            return;
        };
        if let Some(count) = ranges.get_mut(&range.trunc()) {
            *count -= 1;
            if *count == 0 {
                ranges.remove(&range.trunc());
            }
        }
        if ranges.is_empty() {
            by_length.remove(&range.prefix_len());
        }
    }

    /// The largest range that the address lies in.
    pub(super) fn around(&self, ip: IpAddr) -> Option<IpNet> {
        let ip = ip.to_canonical();
        let around = |length: u8| IpNet::new(ip, length).ok().map(|range| range.trunc());
        self.by_length.iter().find_map(|(length, ranges)| around(*length).filter(|range| ranges.contains_key(range)))
    }
}

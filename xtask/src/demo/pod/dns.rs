//! DNS over UDP, as much of it as the shop needs: A and AAAA.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use simple_dns::rdata::{A, AAAA, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE};

/// Where DNS servers listen.
pub(super) const PORT: u16 = 53;

/// Seconds an answer may be kept; nobody here does.
const TIME_TO_LIVE: u32 = 5;

/// A name and an address of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Without the final dot.
    pub name: String,
    /// IPv4 for A, IPv6 for AAAA.
    pub address: IpAddr,
}

impl FromStr for Record {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, address) = text.split_once('=').context("expected NAME=ADDRESS")?;
        Name::new(name).with_context(|| format!("`{name}` is no DNS name"))?;
        let address = address.parse().with_context(|| format!("`{address}` is no IP address"))?;
        Ok(Self { name: name.to_owned(), address })
    }
}

/// The answer to a query; none for what is not one.
pub(super) fn answer(query: &[u8], records: &[Record]) -> Option<Vec<u8>> {
    let query = Packet::parse(query).ok().filter(|query| !query.has_flags(PacketFlag::RESPONSE))?;
    let question = query.questions.first()?.clone();
    let mut reply = Packet::new_reply(query.id());
    reply.set_flags(PacketFlag::AUTHORITATIVE_ANSWER | PacketFlag::RECURSION_AVAILABLE);
    let asked = question.qname.to_string();
    let mut known = false;
    for record in records.iter().filter(|record| record.name.eq_ignore_ascii_case(&asked)) {
        known = true;
        let data = match record.address {
            IpAddr::V4(address) => RData::A(A::from(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA::from(address)),
        };
        let resource = ResourceRecord::new(question.qname.clone(), CLASS::IN, TIME_TO_LIVE, data);
        if resource.match_qtype(question.qtype) && resource.match_qclass(question.qclass) {
            reply.answers.push(resource);
        }
    }
    if !known {
        *reply.rcode_mut() = RCODE::NameError;
    }
    reply.questions.push(question);
    reply.build_bytes_vec().ok()
}

/// Asks a server for an address of a name.
pub(super) fn look_up(name: &str, server: IpAddr, ipv6: bool, timeout: Duration) -> Result<std::result::Result<IpAddr, String>> {
    let id = u16::try_from(std::process::id() & 0xffff)?;
    let query = query(name, id, ipv6)?;
    let reply = super::exchange(SocketAddr::new(server, PORT), &query, timeout)?;
    Ok(reply.and_then(|reply| first_address(&reply, id, name)).map_err(|failure| format!("DNS server {server}: {failure}")))
}

fn query(name: &str, id: u16, ipv6: bool) -> Result<Vec<u8>> {
    let name = Name::new(name).with_context(|| format!("`{name}` is no DNS name"))?;
    let kind = if ipv6 { TYPE::AAAA } else { TYPE::A };
    let mut query = Packet::new_query(id);
    query.set_flags(PacketFlag::RECURSION_DESIRED);
    query.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    query.build_bytes_vec().context("cannot write a DNS query")
}

fn first_address(reply: &[u8], id: u16, name: &str) -> std::result::Result<IpAddr, String> {
    let reply = Packet::parse(reply).map_err(|error| format!("not a DNS message: {error}"))?;
    if reply.id() != id || !reply.has_flags(PacketFlag::RESPONSE) {
        return Err("not an answer to the question".to_owned());
    }
    let address = reply.answers.iter().find_map(|record| match &record.rdata {
        RData::A(a) => Some(IpAddr::V4(a.address.into())),
        RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.address.into())),
        _ => None,
    });
    address.ok_or_else(|| format!("{name} has no such address ({:?})", reply.rcode()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone() -> Vec<Record> {
        ["api.shop.svc.cluster.local=10.96.1.20", "api.shop.svc.cluster.local=fd00:10:96::1:20"].map(|text| text.parse().unwrap()).to_vec()
    }

    fn ask(name: &str, ipv6: bool) -> Result<IpAddr, String> {
        first_address(&answer(&query(name, 7, ipv6).unwrap(), &zone()).unwrap(), 7, name)
    }

    #[test]
    fn a_name_has_an_address_of_each_family() {
        assert_eq!(ask("api.shop.svc.cluster.local", false), Ok("10.96.1.20".parse().unwrap()));
        assert_eq!(ask("API.shop.svc.cluster.local", true), Ok("fd00:10:96::1:20".parse().unwrap()));
        assert!(ask("nobody.shop.svc.cluster.local", false).unwrap_err().contains("NameError"));
    }

    #[test]
    fn answers_to_others_are_refused() {
        let reply = answer(&query("api.shop.svc.cluster.local", 7, false).unwrap(), &zone()).unwrap();
        assert!(first_address(&reply, 8, "api").is_err());
        assert_eq!(answer(&reply, &zone()), None, "an answer is no question");
    }

    #[test]
    fn records_are_a_name_and_an_address() {
        let long = format!("{}=10.0.0.1", "a".repeat(64));
        for text in ["", "api", "api=", "api=x", &long] {
            assert!(text.parse::<Record>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_datagram_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = answer(&bytes, &zone());
            let _ = first_address(&bytes, 7, "api");
        }

        #[test]
        fn damaged_messages_are_survived(position in 0_usize..60, byte in any::<u8>()) {
            let mut message = answer(&query("api.shop.svc.cluster.local", 7, false).unwrap(), &zone()).unwrap();
            if let Some(place) = message.get_mut(position) {
                *place = byte;
            }
            let _ = answer(&message, &zone());
            let _ = first_address(&message, 7, "api");
        }
    }
}

//! What people ask: ends, Services and URLs as they type them → who that is in the cluster → the engine's answers, link by link.
//!
//! Pure. `end` and `target` read what was typed, `find` looks it up and says what was probably meant when it is not there, `service`
//! finds the endpoints behind a name, `ask` puts the connections before the engine and gathers its answers. What a connection comes to is
//! the [`Engine`](crate::policy::Engine)'s to say; here is only decided which connections a question is about.
#![forbid(unsafe_code)]

mod answer;
mod ask;
mod close;
mod end;
mod error;
mod find;
mod group;
pub mod label_selector;
mod plan;
pub mod profile;
mod service;
mod target;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Link, NotReady, Path, ServiceLink, Step};
pub use ask::{explain, verdict};
pub use end::{End, WorkloadKind};
pub use error::QuestionError;
pub use find::{Member, members};
pub use target::{Callee, Host, PortProtocol, Url};

use crate::flow::Protocol;

/// A question: may this one open a connection to that one?
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// Who opens the connection.
    pub from: End,
    /// Who is called.
    pub to: Callee,
    /// The port called; absent for protocols without ports, and where the URL tells it.
    pub port: Option<u16>,
    /// The protocol; what the URL says goes before the default.
    pub protocol: Option<Protocol>,
}

impl Question {
    /// The port, from the question or from the URL.
    pub fn called_port(&self) -> Option<u16> {
        match &self.to {
            Callee::Url(url) => self.port.or(url.port),
            Callee::End(_) => self.port,
        }
    }

    /// The protocol: asked for, or that of the URL, or TCP.
    pub fn called_protocol(&self) -> Protocol {
        let of_url = match &self.to {
            Callee::Url(url) => url.protocol,
            Callee::End(_) => None,
        };
        self.protocol.or(of_url).unwrap_or(Protocol::Tcp)
    }
}

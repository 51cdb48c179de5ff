//! Connections that are opened for real, and what became of each: an answer, or an entry of the firewall's in its list of what it dropped. That nothing
//! comes back proves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, UdpSocket};
use tokio::task::JoinSet;

use super::stage::{Connection, Stage};
use crate::support::runtime;

/// How many connections are open at once: each is a file.
const AT_ONCE: usize = 400;

/// Until each of these has its answer or was dropped.
const PATIENCE: Duration = Duration::from_secs(20);

/// From, to, protocol, port.
type Key = (Ipv4Addr, Ipv4Addr, String, u16);

/// What became of connections, by their numbers: who answered, or the error.
type Answers = Arc<Mutex<BTreeMap<usize, io::Result<String>>>>;

/// A socket in the caller's namespace, which it stays in.
enum Socket {
    Tcp(TcpSocket),
    Udp(std::net::UdpSocket),
}

/// Opens them, and says which were answered by whom they were for; all others were dropped by the rules.
pub(super) fn open(stage: &Stage, connections: &[Connection]) -> BTreeSet<usize> {
    let runtime = runtime();
    let numbered: Vec<(usize, &Connection)> = connections.iter().enumerate().collect();
    let mut admitted = BTreeSet::new();
    for some in numbered.chunks(AT_ONCE) {
        let answers = Answers::default();
        let mut calls = JoinSet::new();
        for of_caller in some.chunk_by(|(_, one), (_, other)| one.from == other.from) {
            for (number, socket, to) in sockets(stage, of_caller) {
                let answers = answers.clone();
                let call = async move {
                    let answer = call(socket, to).await;
                    answers.lock().unwrap().insert(number, answer);
                };
                calls.spawn_on(call, runtime.handle());
            }
        }
        let end = Instant::now() + PATIENCE;
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let dropped = dropped(stage);
            let answers = answers.lock().unwrap();
            let open: Vec<String> = some
                .iter()
                .filter(|(number, connection)| !answers.contains_key(number) && !dropped.contains(&key(stage, connection)))
                .map(|(_, connection)| connection.to_string())
                .collect();
            if open.is_empty() {
                break;
            }
            assert!(Instant::now() < end, "neither answered nor dropped:\n{}", open.join("\n"));
        }
        runtime.block_on(calls.shutdown());
        for (number, answer) in &*answers.lock().unwrap() {
            let connection = &connections[*number];
            let answer = answer.as_ref().unwrap_or_else(|error| panic!("{connection}: {error}"));
            assert_eq!(answer, &connection.to, "{connection}");
            admitted.insert(*number);
        }
    }
    let dropped = dropped(stage);
    for (number, connection) in numbered {
        assert_ne!(
            admitted.contains(&number),
            dropped.contains(&key(stage, connection)),
            "{connection} was answered and dropped, or neither"
        );
    }
    for counter in ["denied_egress", "denied_ingress"] {
        assert!(stage.node.counter(counter).unwrap().packets > 0, "{counter}");
    }
    admitted
}

/// Sockets for connections of one caller.
fn sockets(stage: &Stage, connections: &[(usize, &Connection)]) -> Vec<(usize, Socket, SocketAddr)> {
    let caller = &stage.places[&connections[0].1.from];
    let socket = |protocol: &str| -> io::Result<Socket> {
        let own = SocketAddr::new(caller.address.into(), 0);
        if protocol == "UDP" {
            return std::net::UdpSocket::bind(own).map(Socket::Udp);
        }
        let socket = TcpSocket::new_v4()?;
        socket.bind(own)?;
        Ok(Socket::Tcp(socket))
    };
    let make =
        || connections.iter().map(|(number, connection)| (*number, socket(connection.protocol).unwrap(), connection)).collect::<Vec<_>>();
    let made = caller.netns.in_ns(make).unwrap();
    let address = |connection: &Connection| SocketAddr::new(stage.places[&connection.to].address.into(), connection.port);
    made.into_iter().map(|(number, socket, connection)| (number, socket, address(connection))).collect()
}

/// Calls, and waits for the answer as long as it takes.
async fn call(socket: Socket, to: SocketAddr) -> io::Result<String> {
    let mut answer = Vec::new();
    match socket {
        Socket::Tcp(socket) => {
            socket.connect(to).await?.read_to_end(&mut answer).await?;
        }
        Socket::Udp(socket) => {
            socket.set_nonblocking(true)?;
            let socket = UdpSocket::from_std(socket)?;
            socket.connect(to).await?;
            socket.send(b"?").await?;
            answer.resize(256, 0);
            let length = socket.recv(&mut answer).await?;
            answer.truncate(length);
        }
    }
    String::from_utf8(answer).map_err(io::Error::other)
}

fn key(stage: &Stage, connection: &Connection) -> Key {
    let address = |name: &String| stage.places[name].address;
    (address(&connection.from), address(&connection.to), connection.protocol.to_lowercase(), connection.port)
}

/// What the rules have dropped.
fn dropped(stage: &Stage) -> BTreeSet<Key> {
    let output = stage.node.exec(&["nft", "-j", "list", "set", "inet", "boutique", "dropped"]).unwrap();
    let answer: Value = serde_json::from_str(&output.stdout).unwrap();
    let sets = answer["nftables"].as_array().unwrap().iter().filter_map(|entry| entry.get("set"));
    let elements = sets.filter_map(|set| set.get("elem")?.as_array()).flatten();
    let parse = |element: &Value| {
        let parts = element.get("elem").map_or(element, |element| &element["val"])["concat"].as_array()?;
        let [from, to, protocol, port] = &parts[..] else { return None };
        let port = port.as_u64()?.try_into().ok()?;
        Some((from.as_str()?.parse().ok()?, to.as_str()?.parse().ok()?, protocol.as_str()?.to_owned(), port))
    };
    elements.map(|element| parse(element).unwrap_or_else(|| panic!("no element of the set: {element}"))).collect()
}

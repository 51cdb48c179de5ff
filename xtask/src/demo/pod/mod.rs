//! What runs inside the demo's pods: small servers and clients, started through hidden subcommands of this program.

mod dns;

use std::io::{self, ErrorKind, Read as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use tiny_http::{Response, Server};

pub(super) use dns::Record;

/// What a server prints once it accepts connections on every port.
pub(super) const READY: &str = "ready";

/// Exit status of a client that got no answer; its standard output says what it got instead.
pub(super) const NOT_ANSWERED: i32 = 3;

/// What a pod serves, on all its addresses of both families.
#[derive(Args, Clone, Debug)]
pub struct ServeOptions {
    /// Name the answers carry.
    #[arg(long)]
    pub name: String,
    /// TCP port to answer HTTP requests on; may be given more than once.
    #[arg(long)]
    pub http: Vec<u16>,
    /// UDP port to acknowledge datagrams on; may be given more than once.
    #[arg(long)]
    pub udp: Vec<u16>,
    /// `NAME=ADDRESS` to answer DNS questions with, on UDP port 53; may be given more than once.
    #[arg(long)]
    pub record: Vec<Record>,
}

/// A call a pod makes.
#[derive(Args, Clone, Debug)]
pub struct CallOptions {
    /// What to call.
    #[command(subcommand)]
    pub call: Call,
    /// How long to wait for an answer, in milliseconds.
    #[arg(long, default_value_t = 1000, global = true)]
    pub timeout_ms: u64,
}

/// Kinds of calls.
#[derive(Clone, Debug, Subcommand)]
pub enum Call {
    /// GET over HTTP.
    Http {
        /// Host of the URL: a DNS name, or an address.
        host: String,
        /// Port of the URL.
        port: u16,
        /// DNS server to ask for the name.
        #[arg(long)]
        dns: Option<IpAddr>,
        /// Ask for the IPv6 address of the name.
        #[arg(long)]
        ipv6: bool,
    },
    /// Send a datagram and wait for its acknowledgement.
    Udp {
        /// Where to.
        address: SocketAddr,
    },
    /// Look a name up.
    Dns {
        /// The name.
        name: String,
        /// DNS server to ask.
        server: IpAddr,
        /// Ask for the IPv6 address of the name.
        #[arg(long)]
        ipv6: bool,
    },
}

/// Serves until standard input ends, which it does when the demo goes away, however that happens.
///
/// # Errors
/// A port cannot be bound.
pub fn serve(options: ServeOptions) -> Result<()> {
    for port in &options.http {
        let listener = TcpListener::bind(any(*port)).with_context(|| format!("cannot listen on TCP port {port}"))?;
        let server = Server::from_listener(listener, None).map_err(|error| anyhow::anyhow!("cannot serve HTTP on port {port}: {error}"))?;
        let body = format!("hello from {} on port {port}", options.name);
        thread::spawn(move || {
            for request in server.incoming_requests() {
                // A caller that has gone away needs no answer.
                let _ = request.respond(Response::from_string(body.clone()));
            }
        });
    }
    for port in &options.udp {
        let socket = UdpSocket::bind(any(*port)).with_context(|| format!("cannot listen on UDP port {port}"))?;
        thread::spawn(move || answer_datagrams(&socket, |_| Some(b"ok".to_vec())));
    }
    if !options.record.is_empty() {
        let socket = UdpSocket::bind(any(dns::PORT)).context("cannot listen on UDP port 53")?;
        let records = options.record;
        thread::spawn(move || answer_datagrams(&socket, |query| dns::answer(query, &records)));
    }
    println!("{READY}");
    io::stdin().read_to_end(&mut Vec::new()).context("cannot read standard input")?;
    Ok(())
}

/// All addresses; on Linux an IPv6 wildcard socket also takes IPv4 unless told otherwise.
fn any(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

fn answer_datagrams(socket: &UdpSocket, answer: impl Fn(&[u8]) -> Option<Vec<u8>>) {
    let mut buffer = [0; 1500];
    loop {
        // Errors here are those of earlier answers (an ICMP message came back), not of the socket.
        let Ok((length, peer)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        if let Some(reply) = buffer.get(..length).and_then(&answer) {
            let _ = socket.send_to(&reply, peer);
        }
    }
}

/// Makes a call and prints what came of it. The exit status tells an answer from none ([`NOT_ANSWERED`]).
///
/// # Errors
/// The call could not be tried: bad arguments, no socket.
pub fn call(options: &CallOptions) -> Result<ExitCode> {
    let timeout = Duration::from_millis(options.timeout_ms);
    let outcome = match &options.call {
        Call::Http { host, port, dns, ipv6 } => http(host, *port, *dns, *ipv6, timeout)?,
        Call::Udp { address } => udp(*address, timeout)?,
        Call::Dns { name, server, ipv6 } => match dns::look_up(name, *server, *ipv6, timeout)? {
            Ok(address) => Ok(format!("{name} is {address}")),
            Err(failure) => Err(failure),
        },
    };
    match outcome {
        Ok(answer) => {
            println!("{answer}");
            Ok(ExitCode::SUCCESS)
        }
        Err(failure) => {
            println!("{failure}");
            Ok(ExitCode::from(u8::try_from(NOT_ANSWERED)?))
        }
    }
}

/// An answer, or in words why there is none.
pub(super) type Outcome = std::result::Result<String, String>;

fn http(host: &str, port: u16, dns: Option<IpAddr>, ipv6: bool, timeout: Duration) -> Result<Outcome> {
    let address = match (host.parse::<IpAddr>(), dns) {
        (Ok(address), _) => address,
        (Err(_), Some(server)) => match dns::look_up(host, server, ipv6, timeout)? {
            Ok(address) => address,
            Err(failure) => return Ok(Err(format!("cannot resolve {host}: {failure}"))),
        },
        (Err(_), None) => bail!("{host} is no address: give --dns"),
    };
    let agent = ureq::Agent::new_with_config(
        // A proxy from the environment would make the call from elsewhere.
        ureq::Agent::config_builder().timeout_global(Some(timeout)).proxy(None).http_status_as_error(false).build(),
    );
    let url = format!("http://{}/", SocketAddr::new(address, port));
    let response = agent.get(&url).header("Host", host).call().and_then(|mut response| {
        let body = response.body_mut().read_to_string()?;
        Ok((response.status(), body))
    });
    Ok(match response {
        Ok((status, body)) if status.is_success() => Ok(format!("HTTP {}: {body}", status.as_u16())),
        Ok((status, body)) => Err(format!("HTTP {}: {body}", status.as_u16())),
        Err(ureq::Error::Timeout(_)) => Err(no_answer(timeout)),
        Err(ureq::Error::Io(error)) => Err(in_words(&error, timeout)),
        Err(error) => Err(error.to_string()),
    })
}

fn udp(address: SocketAddr, timeout: Duration) -> Result<Outcome> {
    Ok(exchange(address, b"shop.frontend.requests:1|c", timeout)?.map(|reply| format!("acknowledged: {}", String::from_utf8_lossy(&reply))))
}

/// Sends a datagram and waits for one back.
fn exchange(address: SocketAddr, datagram: &[u8], timeout: Duration) -> Result<std::result::Result<Vec<u8>, String>> {
    let socket = UdpSocket::bind(match address {
        SocketAddr::V4(_) => "0.0.0.0:0",
        SocketAddr::V6(_) => "[::]:0",
    })
    .context("cannot open a UDP socket")?;
    socket.set_read_timeout(Some(timeout)).context("cannot set the timeout of a UDP socket")?;
    let mut buffer = vec![0; 1500];
    // Connected, so that ICMP errors come back as errors and datagrams of others do not come at all.
    let outcome = socket.connect(address).and_then(|()| socket.send(datagram)).and_then(|_| socket.recv(&mut buffer));
    Ok(match outcome {
        Ok(length) => {
            buffer.truncate(length);
            Ok(buffer)
        }
        Err(error) => Err(in_words(&error, timeout)),
    })
}

fn in_words(error: &io::Error, timeout: Duration) -> String {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => no_answer(timeout),
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::ConnectionReset => "connection reset".to_owned(),
        ErrorKind::HostUnreachable => "host unreachable".to_owned(),
        ErrorKind::NetworkUnreachable => "network unreachable".to_owned(),
        ErrorKind::PermissionDenied => "administratively prohibited".to_owned(),
        _ => error.to_string(),
    }
}

fn no_answer(timeout: Duration) -> String {
    format!("no answer within {} s", timeout.as_secs_f32())
}

//! `pods/portforward` over WebSockets, as kubelet serves it: two channels per port, one for data and one for an error.

use std::io;
use std::net::TcpStream;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use hyper::HeaderMap;
use hyper::body::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::state::{State, lock};
use super::status::Refusal;

/// Connects to where a pod's port is. Runs on a thread that may block.
pub type Connector = Arc<dyn Fn() -> io::Result<TcpStream> + Send + Sync>;

/// The subprotocol: binary frames, the channel in the first byte.
pub(super) const PROTOCOL: &str = "v4.channel.k8s.io";

/// Whether a request wants to become a WebSocket.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    let has = |name: &str, wanted: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        value.split(',').any(|part| part.trim().eq_ignore_ascii_case(wanted))
    };
    has("connection", "upgrade") && has("upgrade", "websocket")
}

/// The ports of a request, and the key to answer its handshake with.
pub(super) fn negotiate(headers: &HeaderMap, query: &str) -> Result<(Vec<u16>, String), Refusal> {
    if !is_upgrade(headers) {
        return Err(Refusal::bad_request("Upgrade request required"));
    }
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !text("sec-websocket-protocol").split(',').any(|protocol| protocol.trim() == PROTOCOL) {
        return Err(Refusal::bad_request(format!("unable to upgrade: the only subprotocol for port-forward here is {PROTOCOL}")));
    }
    let key = text("sec-websocket-key");
    if key.is_empty() || text("sec-websocket-version") != "13" {
        return Err(Refusal::bad_request("unable to upgrade: missing or bad WebSocket-Version or -Key"));
    }
    let mut ports = Vec::new();
    for (_, value) in form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name == "ports") {
        for port in value.split(',') {
            let parsed = port.trim().parse().ok().filter(|port| *port > 0);
            ports.push(parsed.ok_or_else(|| Refusal::bad_request(format!("invalid query parameter \"port\": \"{port}\"")))?);
        }
    }
    if ports.is_empty() {
        return Err(Refusal::bad_request("query parameter \"port\" is required"));
    }
    Ok((ports, key.to_owned()))
}

/// Serves the ports of a pod until all of them are done or the client leaves.
pub(super) async fn serve(state: Arc<State>, upgrade: OnUpgrade, namespace: String, pod: String, ports: Vec<u16>) {
    let Ok(upgraded) = upgrade.await else { return };
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    let (mut to_client, mut from_client) = socket.split();
    let (frames, mut pending) = mpsc::channel::<Vec<u8>>(16);
    let mut tasks = JoinSet::new();
    let mut inputs = Vec::new();
    for (index, port) in ports.into_iter().enumerate() {
        // A request has at most a few ports: channels are numbered by a byte.
        let Ok(channel) = u8::try_from(index * 2) else { return };
        let (input, received) = mpsc::channel::<Bytes>(16);
        inputs.push(input);
        let connector = lock(&state.forwards).get(&(namespace.clone(), pod.clone(), port)).cloned();
        tasks.spawn(forward(connector, pod.clone(), port, channel, frames.clone(), received));
    }
    drop(frames);
    let write = async {
        while let Some(frame) = pending.recv().await {
            if to_client.send(Message::binary(frame)).await.is_err() {
                return;
            }
        }
        let _ = to_client.close().await;
    };
    let read = async {
        while let Some(Ok(message)) = from_client.next().await {
            match message {
                Message::Binary(mut bytes) if !bytes.is_empty() => {
                    let channel = bytes.split_to(1)[0];
                    // Error channels and unknown ones are not for the client to write to.
                    let input = channel.is_multiple_of(2).then(|| inputs.get(usize::from(channel / 2))).flatten();
                    if let Some(input) = input {
                        let _ = input.send(bytes).await;
                    }
                }
                // Reading on answers a Close, and ends.
                _ => {}
            }
        }
    };
    let mut read = pin!(read);
    tokio::select! {
        () = &mut read => {}
        // Closed from here: the client's Close is waited for, or what is under way to it would be lost.
        () = write => {
            let _ = timeout(Duration::from_secs(1), read).await;
        }
    }
}

async fn forward(
    connector: Option<Connector>,
    pod: String,
    port: u16,
    channel: u8,
    frames: mpsc::Sender<Vec<u8>>,
    mut input: mpsc::Receiver<Bytes>,
) {
    let [low, high] = port.to_le_bytes();
    for channel in [channel, channel + 1] {
        if frames.send(vec![channel, low, high]).await.is_err() {
            return;
        }
    }
    let connected = match connector {
        Some(connector) => tokio::task::spawn_blocking(move || connector()).await.unwrap_or_else(|error| Err(io::Error::other(error))),
        None => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
    };
    let stream = connected.and_then(|stream| {
        stream.set_nonblocking(true)?;
        tokio::net::TcpStream::from_std(stream)
    });
    let failed = match stream {
        Ok(stream) => copy(stream, channel, &frames, &mut input).await.err().map(|error| error.to_string()),
        Err(error) => Some(format!("failed to connect to localhost:{port} inside namespace of pod: {error}")),
    };
    if let Some(why) = failed {
        let mut frame = vec![channel + 1];
        frame.extend_from_slice(format!("error forwarding port {port} to pod {pod}, uid : {why}").as_bytes());
        let _ = frames.send(frame).await;
    }
}

/// Copies both ways until the pod closes, or the client is gone.
async fn copy(
    stream: tokio::net::TcpStream,
    channel: u8,
    frames: &mpsc::Sender<Vec<u8>>,
    input: &mut mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    let (mut from_pod, mut to_pod) = stream.into_split();
    let send = async {
        while let Some(bytes) = input.recv().await {
            to_pod.write_all(&bytes).await?;
        }
        std::future::pending::<io::Result<()>>().await
    };
    let receive = async {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let count = from_pod.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            let mut frame = Vec::with_capacity(count + 1);
            frame.push(channel);
            frame.extend_from_slice(&buffer[..count]);
            if frames.send(frame).await.is_err() {
                return Ok(());
            }
        }
    };
    tokio::select! {
        failed = send => failed,
        done = receive => done,
    }
}

//! Plain HTTP: what the real client would not send, and answers as they are.

use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use serde_json::{Value, json};
use xtask::apiserver::{Options, Server};

/// Long enough for a loaded machine; nothing waits for it to pass.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An answer: status, headers and body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    pub(crate) fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or_default()
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.body["items"].as_array().into_iter().flatten().filter_map(|item| item["metadata"]["name"].as_str()).collect()
    }
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into()
}

/// A request by hand. The body of an answer that is no JSON becomes a string.
pub(crate) fn ask(server: &Server, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", server.url()));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = agent().run(request.body(body.to_owned()).unwrap()).unwrap();
    let text = response.body_mut().read_to_string().unwrap();
    let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
    Answer { code: response.status().as_u16(), headers: response.headers().clone(), body }
}

/// A GET of the administrator.
pub(crate) fn get(server: &Server, path: &str) -> Answer {
    ask(server, "GET", path, &[("authorization", "Bearer admin-token")], "")
}

/// A JSON request of the administrator.
pub(crate) fn send(server: &Server, method: &str, path: &str, body: &Value) -> Answer {
    let headers = [("authorization", "Bearer admin-token"), ("content-type", "application/json")];
    ask(server, method, path, &headers, &body.to_string())
}

/// A watch, event by event.
pub(crate) struct Events(Box<dyn Iterator<Item = std::io::Result<String>>>);

impl Events {
    /// The next event; `None` when the stream has ended in order.
    pub(crate) fn next(&mut self) -> Option<Value> {
        self.0.next().map(|line| serde_json::from_str(&line.unwrap()).unwrap())
    }

    /// Type, name and revision of the next event.
    pub(crate) fn brief(&mut self) -> Option<(String, String, String)> {
        let event = self.next()?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &event["object"]["metadata"];
        Some((text(&event["type"]), text(&metadata["name"]), text(&metadata["resourceVersion"])))
    }

    /// The next line as it comes: an error when the connection broke.
    pub(crate) fn line(&mut self) -> Option<std::io::Result<String>> {
        self.0.next()
    }
}

/// Opens a watch of the administrator.
pub(crate) fn watch(server: &Server, path: &str) -> Events {
    let request = ureq::http::Request::get(format!("{}{path}", server.url())).header("authorization", "Bearer admin-token");
    let response = agent().run(request.body(()).unwrap()).unwrap();
    assert_eq!(response.status(), 200);
    Events(Box::new(BufReader::new(response.into_body().into_reader()).lines()))
}

/// A server with the defaults.
pub(crate) fn server() -> Server {
    Server::start(Options::default()).unwrap()
}

/// A server with pods in the namespace `shop`.
pub(crate) fn with_pods(names: &[&str]) -> Server {
    let server = server();
    server.create(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})).unwrap();
    for name in names {
        server.create(pod(name)).unwrap();
    }
    server
}

/// A pod that runs on a node.
pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Running", "podIP": "10.0.0.1"},
    })
}

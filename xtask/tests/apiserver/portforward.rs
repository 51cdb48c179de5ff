//! `pods/portforward` with the real client.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;

use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;
use xtask::apiserver::{ADMIN, Options, Server};

use crate::client::client;
use crate::raw::{PATIENCE, get, pod, with_pods};

/// Answers each line in capitals, without its end, until the other side closes.
fn shouting() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
                    let _ = stream.write_all(line.to_uppercase().as_bytes());
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn bytes_go_both_ways_on_several_ports() {
    let server = with_pods(&["web"]);
    let address = shouting();
    server.forward("shop", "web", 80, address);
    server.forward_with("shop", "web", 81, Arc::new(move || TcpStream::connect(address)));
    let api: Api<Pod> = Api::namespaced(client(&server, ADMIN).await, "shop");
    let mut forwarder = api.portforward("web", &[80, 81]).await.unwrap();
    let long = "long ".repeat(50_000);
    for (port, sent) in [(81, "second"), (80, long.as_str())] {
        let mut stream = forwarder.take_stream(port).unwrap();
        stream.write_all(format!("{sent}\n").as_bytes()).await.unwrap();
        let mut answer = vec![0; sent.len()];
        timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), sent.to_uppercase());
    }
    timeout(PATIENCE, forwarder.join()).await.unwrap().unwrap();
    assert_eq!(server.stats().requests("get", "pods/portforward"), 1);
}

#[tokio::test]
async fn what_a_pod_sends_before_it_closes_arrives() {
    let server = with_pods(&["web"]);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    server.forward("shop", "web", 80, listener.local_addr().unwrap());
    let sent = "x".repeat(1 << 20);
    let expected = sent.clone();
    thread::spawn(move || listener.accept().unwrap().0.write_all(sent.as_bytes()));
    let api: Api<Pod> = Api::namespaced(client(&server, ADMIN).await, "shop");
    let mut forwarder = api.portforward("web", &[80]).await.unwrap();
    let mut received = Vec::new();
    timeout(PATIENCE, forwarder.take_stream(80).unwrap().read_to_end(&mut received)).await.unwrap().unwrap();
    assert_eq!(received.len(), expected.len());
}

#[tokio::test]
async fn a_port_that_nobody_listens_on_is_told_on_its_error_channel() {
    let server = with_pods(&["web"]);
    let api: Api<Pod> = Api::namespaced(client(&server, ADMIN).await, "shop");
    let mut forwarder = api.portforward("web", &[81]).await.unwrap();
    let error = timeout(PATIENCE, forwarder.take_error(81).unwrap()).await.unwrap().unwrap();
    assert!(error.starts_with("error forwarding port 81 to pod web, uid : failed to connect to localhost:81"), "{error}");
    // The connection ends, since no port is left.
    let mut rest = Vec::new();
    timeout(PATIENCE, forwarder.take_stream(81).unwrap().read_to_end(&mut rest)).await.unwrap().unwrap();
    assert!(rest.is_empty());
}

/// The status and message of a refusal; 101 when there is none.
async fn answered(server: &Server, user: &str, pod: &str) -> (u16, String) {
    let api: Api<Pod> = Api::namespaced(client(server, user).await, "shop");
    match timeout(PATIENCE, api.portforward(pod, &[80])).await.unwrap() {
        Ok(_) => (101, String::new()),
        Err(kube::Error::Api(status)) => (status.code, status.message.clone()),
        Err(error) => panic!("{error:?}"),
    }
}

#[tokio::test]
async fn who_may_and_for_which_pods() {
    let server = with_pods(&["web"]);
    server.create(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": "waiting"}, "spec": {"containers": [{"name": "c"}]}})).unwrap();
    assert_eq!(answered(&server, ADMIN, "nobody").await, (404, "pods \"nobody\" not found".to_owned()));
    assert_eq!(answered(&server, ADMIN, "waiting").await, (400, "pod waiting does not have a host assigned".to_owned()));
    server.add_user("jane", &[]);
    let allow = |verbs: &[&str]| {
        let rule = json!({"verbs": verbs, "apiGroups": [""], "resources": ["pods/portforward"]});
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"namespace": "shop", "name": "forward"}, "rules": [rule]})
    };
    let denied = |verb: &str| {
        let why = format!(
            "pods \"web\" is forbidden: User \"jane\" cannot {verb} resource \"pods/portforward\" in API group \"\" in the namespace \"shop\""
        );
        (403, why)
    };
    server.create(allow(&["get"])).unwrap();
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"namespace": "shop", "name": "forward"},
        "subjects": [{"kind": "User", "name": "jane"}], "roleRef": {"kind": "Role", "name": "forward"},
    });
    server.create(binding.clone()).unwrap();
    // A WebSocket begins with a GET; since 1.35 that is not enough.
    assert_eq!(answered(&server, "jane", "web").await, denied("create"));
    server.replace(allow(&["create"])).unwrap();
    assert_eq!(answered(&server, "jane", "web").await, denied("get"));
    server.replace(allow(&["get", "create"])).unwrap();
    assert_eq!(answered(&server, "jane", "web").await.0, 101);

    let older = Server::start(Options { websocket_needs_create: false, ..Options::default() }).unwrap();
    older.add_user("jane", &[]);
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    older.load([namespace, pod("web"), allow(&["get"]), binding]).unwrap();
    assert_eq!(answered(&older, "jane", "web").await.0, 101);
}

#[tokio::test]
async fn a_server_that_goes_away_breaks_it() {
    let server = with_pods(&["web"]);
    let address = shouting();
    server.forward("shop", "web", 80, address);
    let api: Api<Pod> = Api::namespaced(client(&server, ADMIN).await, "shop");
    let mut forwarder = api.portforward("web", &[80]).await.unwrap();
    let mut stream = forwarder.take_stream(80).unwrap();
    stream.write_all(b"half of a line").await.unwrap();
    server.go_away().unwrap();
    let mut rest = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty());
    assert!(timeout(PATIENCE, forwarder.join()).await.unwrap().is_err());
}

#[test]
fn without_an_upgrade() {
    let server = with_pods(&["web"]);
    let answer = get(&server, "/api/v1/namespaces/shop/pods/web/portforward?ports=80");
    assert_eq!((answer.code, answer.message()), (400, "Upgrade request required"));
}

//! Tenant mode: TLS, tokens that the test API server checks, and what a tenant gets.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use serde_json::{Value, json};
use xtask::apiserver::{Options, Server};

use crate::http::{Answer, PATIENCE, connect, items, send};
use crate::process::Agent;
use crate::scene::Scene;

/// Takes the one certificate that has this fingerprint.
#[derive(Debug)]
struct Pinned {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let digest = ::ring::digest::digest(&::ring::digest::SHA256, end_entity);
        let found: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        if found == self.fingerprint {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::General("another certificate".into()))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

pub(crate) fn tls(address: SocketAddr, fingerprint: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Pinned { fingerprint: fingerprint.to_owned(), provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
    StreamOwned::new(connection, connect(address))
}

/// An API server with a ServiceAccount for the agent and one that may read the pods of shop, and an agent that asks it.
pub(crate) struct Bed {
    pub(crate) server: Server,
    pub(crate) agent: Agent,
    pub(crate) fingerprint: String,
}

pub(crate) fn role_and_binding(name: &str, rules: &Value, namespace: Option<&str>, account: &str) -> [Value; 2] {
    let kinds = if namespace.is_some() { ("Role", "RoleBinding") } else { ("ClusterRole", "ClusterRoleBinding") };
    let (account_namespace, account) = account.split_once('/').unwrap();
    let mut metadata = json!({"name": name});
    if let Some(namespace) = namespace {
        metadata["namespace"] = namespace.into();
    }
    [
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kinds.0, "metadata": metadata, "rules": rules}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kinds.1, "metadata": metadata,
            "subjects": [{"kind": "ServiceAccount", "namespace": account_namespace, "name": account}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kinds.0, "name": name},
        }),
    ]
}

fn pods() -> Value {
    json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}])
}

impl Bed {
    fn new(scene: &Scene, arguments: &[&str]) -> Bed {
        Bed::without_tenants(scene, &[&["--tenant-mode"], arguments].concat())
    }

    pub(crate) fn without_tenants(scene: &Scene, arguments: &[&str]) -> Bed {
        let server = Server::start(Options::default()).unwrap();
        let account = |namespace: &str, name: &str| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": namespace, "name": name}});
        let namespaces = ["netpol-observer", "shop", "bank"];
        server.load(namespaces.map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}))).unwrap();
        let accounts = [account("netpol-observer", "agent"), account("shop", "dev"), account("bank", "dev"), account("shop", "admin")];
        server.load(accounts).unwrap();
        let mut delegator = role_and_binding("agent", &json!([]), None, "netpol-observer/agent");
        delegator[1]["roleRef"]["name"] = "system:auth-delegator".into();
        server.load([delegator[1].clone()]).unwrap();
        server.load(role_and_binding("dev", &pods(), Some("shop"), "shop/dev")).unwrap();
        server.load(role_and_binding("all", &pods(), None, "shop/admin")).unwrap();
        let token = server.service_account_token("netpol-observer", "agent", &[], 3600).unwrap();
        std::fs::write(scene.path("kubeconfig"), server.kubeconfig_of("agent", &token)).unwrap();
        let kubeconfig = scene.path("kubeconfig");
        let mut agent = scene.agent(arguments, &[("KUBECONFIG", kubeconfig.to_str().unwrap())]);
        agent.wait_for("its fingerprint", |agent| agent.find("certificate SHA-256").is_some());
        let fingerprint = agent.find("certificate SHA-256").unwrap().rsplit(' ').next().unwrap().to_owned();
        Bed { server, agent, fingerprint }
    }

    pub(crate) fn token(&self, namespace: &str, name: &str) -> String {
        self.server.service_account_token(namespace, name, &["netpol-observer"], 600).unwrap()
    }

    fn ask(&self, method: &str, path: &str, token: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        let mut headers = vec![("content-type", "application/json")];
        if !token.is_empty() {
            headers.push(("authorization", &bearer));
        }
        send(tls(self.agent.address, &self.fingerprint), method, path, &headers, body)
    }

    fn get(&self, path: &str, token: &str) -> Answer {
        self.ask("GET", path, token, "")
    }

    /// The frames of all drops of the recording that a token gets.
    fn drops(&self, query: &str, token: &str) -> Vec<Value> {
        self.get(&format!("/v1/drops?{query}"), token).frames().rest()
    }
}

/// Nothing of namespace bank, and no address of its pods.
fn assert_nothing_of_bank(text: &str) {
    for word in ["bank", "vault", "teller", "gold", "ringFull"] {
        assert!(!text.contains(word), "{word} in {text}");
    }
}

#[test]
fn a_tenant_gets_what_is_theirs() {
    let scene = Scene::new();
    let bed = Bed::new(&scene, &[]);
    let token = bed.token("shop", "dev");
    let end = Instant::now() + PATIENCE;
    let frames = loop {
        let frames = bed.drops("", &token);
        if items(&frames, "denial").len() == 3 || Instant::now() > end {
            break frames;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let denials = items(&frames, "denial");
    let ends: Vec<_> = denials
        .iter()
        .map(|denial| {
            let end = |end: &str| denial[end]["name"].as_str().or(denial[end]["ip"].as_str()).unwrap().to_owned();
            (end("client"), end("server"))
        })
        .collect();
    // vault calls api, and web calls vault; teller calls vault is between others.
    let expected = [("web", "api"), ("10.244.3.3", "api"), ("web", "10.244.3.3")];
    assert_eq!(ends, expected.map(|(client, server)| (client.to_owned(), server.to_owned())));
    assert_eq!(denials[1]["client"]["kind"], "notShown");
    assert_eq!(denials[1]["explanation"]["ingress"]["isolating"][0]["policy"]["name"], "api-allow-frontend");
    assert_eq!(denials[0]["explanation"]["fixes"][0]["policy"]["name"], "api-allow-frontend", "both ends are theirs");
    assert_eq!(items(&frames, "repeat").len(), 1, "the repeats of their own drop");
    assert_nothing_of_bank(&frames.iter().map(ToString::to_string).collect::<String>());
    let ledger = &items(&frames, "ledger")[0];
    assert_eq!((&ledger["records"], &ledger["counted"]), (&3.into(), &3.into()), "others are not counted either: {ledger}");
    // Filters are answered from what is shown.
    for filter in ["arg=-n&arg=bank", "arg=-l&arg=tier%3Dgold", "arg=--pod&arg=vault", "arg=--policy&arg=vault*", "arg=--from-pod&arg=v*"] {
        assert!(items(&bed.drops(filter, &token), "denial").is_empty(), "{filter}");
    }
    assert_eq!(items(&bed.drops("arg=--ip&arg=10.244.3.3", &token), "denial").len(), 2, "the address is on the packet");
    let text: String = bed.drops("form=text", &token).iter().filter_map(|frame| frame["text"].as_str().map(str::to_owned)).collect();
    assert!(text.contains("10.244.3.3 (not shown to you) → shop/api:8080/TCP"), "{text}");
    assert_nothing_of_bank(&text);
    // The whole for those who may read all.
    let whole = bed.drops("all=true", &bed.token("shop", "admin"));
    assert_eq!(items(&whole, "denial").len(), 5);
    assert!(items(&whole, "ledger")[0]["kernel"]["seen"].is_u64());
    // Nothing for those who may read nothing.
    let nothing = bed.drops("all=true", &bed.token("bank", "dev"));
    assert!(items(&nothing, "denial").is_empty() && items(&nothing, "notice").is_empty());
    assert_eq!(items(&nothing, "ledger")[0]["records"], 0);
}

#[test]
fn status_and_explain_are_no_way_around() {
    let scene = Scene::new();
    let bed = Bed::new(&scene, &[]);
    let (dev, admin) = (bed.token("shop", "dev"), bed.token("shop", "admin"));
    let status = bed.get("/v1/status", &dev).json();
    assert_eq!((&status["node"], &status["certificateSha256"]), (&"node-2".into(), &bed.fingerprint.as_str().into()));
    for hidden in ["ledger", "objects", "clients", "retained", "kernel", "sync"] {
        assert!(status.get(hidden).is_none(), "{hidden}: {status}");
    }
    assert_eq!(bed.get("/v1/status", &admin).json()["objects"]["pods"], 4);
    let question = json!({"args": ["--from", "shop/web", "--to", "bank/vault", "--port", "5432"]}).to_string();
    let refused = bed.ask("POST", "/v1/explain", &dev, &question);
    assert_eq!(refused.code, 403);
    assert_nothing_of_bank(&refused.text());
    assert!(bed.ask("POST", "/v1/explain", &admin, &question).json()["out"].as_str().unwrap().contains("vault-keeps-to-itself"));
    // Probes need no token, and tell nothing.
    let address = bed.agent.address.to_string();
    assert_eq!(scene.observer(&["agent", "--probe", "readyz", "--tenant-mode", "--listen", &address]).1, 0);
    assert_eq!((bed.get("/healthz", "").text(), bed.get("/readyz", "").text()), ("ok\n".into(), "ok\n".into()));
}

#[test]
fn tokens_that_do_not_open() {
    let scene = Scene::new();
    let bed = Bed::new(&scene, &[]);
    let good = bed.token("shop", "dev");
    let for_the_api_server = bed.server.service_account_token("shop", "dev", &[], 600).unwrap();
    let for_others = bed.server.service_account_token("shop", "dev", &["vault", "netpol-observer.evil"], 600).unwrap();
    let static_user = bed.server.add_user("jane", &["system:masters"]);
    let revoked = bed.token("shop", "dev");
    bed.server.revoke(&revoked);
    for token in ["", "x", &for_the_api_server, &for_others, &static_user, &revoked, &good[..good.len() - 1], &"y".repeat(20_000)] {
        for path in ["/v1/status", "/v1/drops", "/v1/drops?follow=true"] {
            let answer = bed.get(path, token);
            assert_eq!(answer.code, 401, "{path} {token:.30}");
            assert!(answer.headers.iter().any(|(name, value)| name == "www-authenticate" && value == "Bearer"));
            assert!(answer.json()["error"].as_str().unwrap().contains("netpol-observer"));
        }
    }
    assert_eq!(bed.get("/v1/status", &good).code, 200);
    // Expired: the server's clock is ahead by more than the token's time. It was not used before, so that nothing is kept of it.
    let expired = bed.token("shop", "dev");
    bed.server.set_clock_skew(700);
    assert_eq!(bed.get("/v1/status", &expired).code, 401);
    bed.server.set_clock_skew(0);
    // Tokens stand nowhere in what the agent said, and a request without TLS is no request.
    let said = bed.agent.said();
    for token in [&good, &for_the_api_server, &static_user, &revoked] {
        assert!(!said.contains(token.as_str()), "{said}");
    }
    use std::io::{Read as _, Write as _};
    let mut plain = connect(bed.agent.address);
    plain.write_all(format!("GET /v1/drops HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {good}\r\n\r\n").as_bytes()).unwrap();
    let mut answer = Vec::new();
    _ = plain.read_to_end(&mut answer);
    assert!(!String::from_utf8_lossy(&answer).contains("200 OK"));
}

/// A stream that runs ends when the token goes, when access goes, and when the API server cannot be asked.
#[test]
fn streams_end_with_what_they_stood_on() {
    let scene = Scene::new();
    let bed = Bed::new(&scene, &[]);
    let follow = |token: &str| {
        let mut frames = bed.get("/v1/drops?follow=true&last=100", token).frames();
        frames.until("a watermark", |frame| frame["frame"] == "watermark");
        frames
    };
    let reason = |frames: crate::http::Frames| {
        let rest = frames.rest();
        let end = rest.last().unwrap();
        assert_eq!(end["frame"], "end", "{end}");
        end["reason"].as_str().unwrap().to_owned()
    };
    let revoked = bed.token("shop", "dev");
    let stream = follow(&revoked);
    bed.server.revoke(&revoked);
    assert!(reason(stream).contains("not valid"));

    let admin = bed.token("shop", "admin");
    let stream = follow(&admin);
    bed.server.delete_now("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "", "all").unwrap();
    assert!(reason(stream).contains("what you may read has changed"));
    assert!(items(&bed.drops("", &admin), "denial").is_empty());

    let token = bed.token("shop", "dev");
    let stream = follow(&token);
    bed.server.go_away().unwrap();
    assert!(reason(stream).contains("cannot be checked"));
    let answer = bed.get("/v1/status", &token);
    assert_eq!(answer.code, 503);
    assert!(answer.json()["error"].as_str().unwrap().contains("cannot check who you are"));
    bed.server.come_back().unwrap();
    assert_eq!(bed.get("/v1/status", &token).code, 200);
}

#[test]
fn the_agent_without_the_role_says_which() {
    let scene = Scene::new();
    let bed = Bed::new(&scene, &[]);
    bed.server.delete_now("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "", "agent").unwrap();
    let answer = bed.get("/v1/status", &bed.token("shop", "dev"));
    assert_eq!(answer.code, 503);
    let error = answer.json()["error"].as_str().unwrap().to_owned();
    assert!(error.contains("system:auth-delegator") && error.contains("tokenreviews"), "{error}");
}

#[test]
fn a_certificate_from_files() {
    let scene = Scene::new();
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(scene.path("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(scene.path("tls.key"), made.signing_key.serialize_pem()).unwrap();
    let bed = Bed::new(&scene, &["--tls-cert", "tls.crt", "--tls-key", "tls.key"]);
    let digest = ::ring::digest::digest(&::ring::digest::SHA256, made.cert.der());
    assert_eq!(bed.fingerprint, digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    assert_eq!(bed.get("/v1/status", &bed.token("shop", "dev")).code, 200);
    // Another certificate is another agent: the client hangs up.
    let other = "0".repeat(64);
    let refused = std::panic::catch_unwind(|| send(tls(bed.agent.address, &other), "GET", "/healthz", &[], ""));
    assert!(refused.is_err());

    let wrong = |chain: &str, key: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_observer"))
            .current_dir(scene.path(""))
            .args(["agent", "--tenant-mode", "-f", "cluster.yaml", "--replay", "drops.rec", "--listen", "127.0.0.1:0"])
            .args(["--tls-cert", chain, "--tls-key", key])
            .env("KUBECONFIG", scene.path("kubeconfig"))
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(scene.path("other.key"), other.signing_key.serialize_pem()).unwrap();
    assert!(wrong("missing.crt", "tls.key").contains("missing.crt"));
    assert!(wrong("cluster.yaml", "tls.key").contains("there is no certificate"));
    assert!(wrong("tls.crt", "tls.crt").contains("tls.crt"));
    assert!(wrong("tls.crt", "other.key").contains("cannot be used with its key"));
    assert!(Path::new(&scene.path("tls.key")).exists());
}

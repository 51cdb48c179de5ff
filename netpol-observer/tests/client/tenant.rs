//! Tenant mode: TLS with a certificate that is pinned, and a token for nothing but agents.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use base64::Engine as _;
use jiff::Timestamp;
use serde_json::json;

use crate::agent::{Agent, Setup};
use crate::scene::Scene;

struct Tenants {
    scene: Scene,
    agent: Agent,
    pem: String,
    fingerprint: String,
}

/// A cluster with one agent in tenant mode, and the ServiceAccount shop/viewer.
fn tenants() -> Tenants {
    let scene = Scene::new();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}});
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "shop", "name": "viewer"}});
    scene.server.load([namespace, account]).unwrap();
    let made = rcgen::generate_simple_self_signed(["agent.example".to_owned()]).unwrap();
    let certificate = made.cert.der().to_vec();
    let fingerprint = ring::digest::digest(&ring::digest::SHA256, &certificate);
    let fingerprint = fingerprint.as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    let tls = Some((certificate, made.signing_key.serialize_der()));
    // Which token is good is known when it was made: the agent takes any, and the test looks at it.
    let agent = scene.agent(Setup { node: "node-1".to_owned(), tls, tokens: Some(BTreeSet::new()), ..Setup::default() });
    agent.saw(1, Timestamp::now());
    Tenants { scene, agent, pem: made.cert.pem(), fingerprint }
}

fn tail<'a>(rest: &[&'a str]) -> Vec<&'a str> {
    [&["tail", "--no-follow", "--since", "1h", "--as-service-account", "shop/viewer"], rest].concat()
}

#[test]
fn a_token_for_agents_and_nothing_else_goes_to_an_agent_that_is_known() {
    let Tenants { scene, agent, pem, fingerprint } = tenants();
    std::fs::write(scene.path("agent.pem"), &pem).unwrap();
    for pin in [["--agent-fingerprint", &fingerprint], ["--agent-ca", "agent.pem"]] {
        agent.accepts_any_token();
        let run = scene.run(&tail(&pin));
        assert_eq!((run.out.as_str(), run.code), ("DENIED 1 on node-1\n", Some(0)), "{}", run.err);
        let request = agent.requests().pop().unwrap();
        let token = request.header("authorization").unwrap().strip_prefix("Bearer ").unwrap().to_owned();
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!((&claims["aud"], &claims["sub"]), (&json!(["netpol-observer"]), &json!("system:serviceaccount:shop:viewer")));
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);
        assert!(!agent.has_received(b"admin-token"));
    }
    let run = scene.run(&[&tail(&["--agent-fingerprint", &fingerprint, "--token-audience", "other"])[..]].concat());
    assert_eq!(run.code, Some(0), "{}", run.err);
}

#[test]
fn an_agent_with_another_certificate_gets_no_token() {
    let Tenants { scene, agent, .. } = tenants();
    let other = rcgen::generate_simple_self_signed(["netpol-observer".to_owned()]).unwrap();
    std::fs::write(scene.path("other.pem"), other.cert.pem()).unwrap();
    std::fs::write(scene.path("empty.pem"), "").unwrap();
    let wrong = "00".repeat(32);
    for pin in [["--agent-fingerprint", &wrong], ["--agent-ca", "other.pem"]] {
        let run = scene.run(&tail(&pin));
        assert_eq!(run.out, "", "{}", run.err);
        assert!(run.err.contains("node-1: the agent cannot be reached: no TLS with the agent: "), "{}", run.err);
    }
    assert!(agent.requests().is_empty());
    assert!(!agent.has_received(b"Bearer"));
    assert_eq!(scene.server.stats().requests("create", "serviceaccounts/token"), 0, "no token is made for one that is not known");
    let run = scene.run(&tail(&["--agent-ca", "empty.pem"]));
    assert_eq!(run.code, Some(1));
    assert!(run.err.contains("--agent-ca empty.pem: the file holds no certificate in PEM"), "{}", run.err);
}

#[test]
fn a_certificate_of_an_authority_is_good_for_its_name() {
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = parameters.self_signed(&authority).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority);
    for (name, good) in [("netpol-observer", true), ("elsewhere", false)] {
        let scene = Scene::new();
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"namespace": "default", "name": "viewer"}});
        scene.server.load([account]).unwrap();
        std::fs::write(scene.path("ca.pem"), root.pem()).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let signed = rcgen::CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let tls = Some((signed.der().to_vec(), key.serialize_der()));
        let agent = scene.agent(Setup { node: "node-1".to_owned(), tls, tokens: Some(BTreeSet::new()), ..Setup::default() });
        agent.accepts_any_token();
        agent.saw(1, Timestamp::now());
        let run = scene.run(&["tail", "--no-follow", "--since", "1h", "--as-service-account", "default/viewer", "--agent-ca", "ca.pem"]);
        assert_eq!(run.out.lines().count() == 1, good, "{name}: {}", run.err);
    }
}

#[test]
fn a_token_that_is_not_accepted_any_more_is_made_anew() {
    let Tenants { scene, agent, fingerprint, .. } = tenants();
    let tail = scene.tail(&["--as-service-account", "shop/viewer", "--agent-fingerprint", &fingerprint]);
    tail.wait_for("node-1: the agent cannot be reached: the agent answers 401: no token that is good here");
    agent.accepts_any_token();
    tail.wait_for("node-1: the agent can be reached again");
    assert!(scene.server.stats().requests("create", "serviceaccounts/token") > 1);
    agent.sees(2);
    assert_eq!(tail.next().1, 2);
}

#[test]
fn who_may_make_no_token_is_told() {
    let Tenants { scene, fingerprint, .. } = tenants();
    scene.jane(&json!([
        {"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods"]},
        {"verbs": ["get", "create"], "apiGroups": [""], "resources": ["pods/portforward"]},
    ]));
    let run = scene.run(&tail(&["--agent-fingerprint", &fingerprint]));
    assert!(run.err.contains("no token for ServiceAccount viewer: serviceaccounts \"viewer\" is forbidden: User \"jane\" cannot create resource \"serviceaccounts/token\""), "{}", run.err);
}

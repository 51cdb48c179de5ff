//! Discovery and health: what is there, and what comes and goes.

use serde_json::{Value, json};
use xtask::apiserver::{Server, crd};

use crate::raw::{ask, get, server};

fn groups(server: &Server) -> Vec<String> {
    let groups = get(server, "/apis").body["groups"].clone();
    groups.as_array().unwrap().iter().filter_map(|group| group["name"].as_str().map(str::to_owned)).collect()
}

#[test]
fn health_version_and_unknown_paths() {
    let server = server();
    for path in ["/livez", "/readyz", "/healthz"] {
        assert_eq!(get(&server, path).body, Value::String("ok".to_owned()));
    }
    assert_eq!(get(&server, "/version").body["gitVersion"], "v1.35.0");
    assert_eq!(get(&server, "/version").body["minor"], "35");
    for path in ["/api/v2", "/apis/networking.k8s.io/v2", "/api/v1/widgets", "/api/v1/namespaces/default/nodes"] {
        let answer = get(&server, path);
        assert_eq!((answer.code, answer.message()), (404, "the server could not find the requested resource"), "{path}");
    }
    for path in ["/nothing", "/apis/example.com", "/apis/example.com/v1/widgets"] {
        let answer = get(&server, path);
        assert_eq!((answer.code, &answer.body), (404, &Value::String("404 page not found\n".to_owned())), "{path}");
    }
}

#[test]
fn resources_of_core_with_their_subresources() {
    let server = server();
    assert_eq!(get(&server, "/api").body["versions"], json!(["v1"]));
    let list = get(&server, "/api/v1").body;
    let names: Vec<_> = list["resources"].as_array().unwrap().iter().map(|resource| resource["name"].as_str().unwrap()).collect();
    for name in ["pods", "pods/portforward", "pods/status", "serviceaccounts/token", "nodes"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    assert!(get(&server, "/apis/authentication.k8s.io/v1").body["resources"].to_string().contains("tokenreviews"));
}

#[test]
fn a_definition_makes_its_resource_appear_and_takes_it_away() {
    let server = server();
    let path = "/apis/cilium.io/v2/ciliumnetworkpolicies";
    assert_eq!(get(&server, path).code, 404);
    for definition in crd::cilium() {
        server.create(definition).unwrap();
    }
    assert!(groups(&server).contains(&"cilium.io".to_owned()));
    let list = get(&server, path);
    assert_eq!((list.code, &list.body["kind"]), (200, &json!("CiliumNetworkPolicyList")));
    let resources = get(&server, "/apis/cilium.io/v2").body["resources"].clone();
    assert_eq!(
        resources
            .as_array()
            .unwrap()
            .iter()
            .filter(|resource| resource["namespaced"] == true && resource["kind"] == "CiliumNetworkPolicy")
            .count(),
        2
    );
    let policy =
        json!({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"namespace": "default", "name": "p"}, "spec": {}});
    server.create(policy.clone()).unwrap();
    assert_eq!(get(&server, path).names(), ["p"]);
    let conditions = get(&server, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/ciliumnetworkpolicies.cilium.io").body["status"]
        ["conditions"]
        .clone();
    assert!(conditions.to_string().contains("\"type\":\"Established\""), "{conditions}");

    server.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "ciliumnetworkpolicies.cilium.io").unwrap();
    assert_eq!(get(&server, path).code, 404);
    assert!(groups(&server).contains(&"cilium.io".to_owned()), "the other one is still there");
    server.delete("apiextensions.k8s.io/v1", "CustomResourceDefinition", "", "ciliumclusterwidenetworkpolicies.cilium.io").unwrap();
    assert!(!groups(&server).contains(&"cilium.io".to_owned()));
    let refusal = server.create(policy).unwrap_err();
    assert_eq!((refusal.code, refusal.message.as_str()), (404, "no matches for kind \"CiliumNetworkPolicy\" in version \"cilium.io/v2\""));
}

#[test]
fn two_resources_of_one_name_in_two_groups() {
    let server = server();
    for definition in crd::calico() {
        server.create(definition).unwrap();
    }
    server.create(json!({"apiVersion": "crd.projectcalico.org/v1", "kind": "NetworkPolicy", "metadata": {"namespace": "default", "name": "calico"}, "spec": {}})).unwrap();
    server.create(json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "plain"}, "spec": {"podSelector": {}}})).unwrap();
    assert_eq!(get(&server, "/apis/networking.k8s.io/v1/networkpolicies").names(), ["plain"]);
    assert_eq!(get(&server, "/apis/crd.projectcalico.org/v1/networkpolicies").names(), ["calico"]);
}

#[test]
fn versions_of_a_definition_show_the_same_objects() {
    let server = server();
    server.create(crd::definition("example.com", &["v1alpha1", "v1"], "things", "Thing", false)).unwrap();
    server.create(json!({"apiVersion": "example.com/v1alpha1", "kind": "Thing", "metadata": {"name": "t"}})).unwrap();
    let thing = get(&server, "/apis/example.com/v1/things/t").body;
    assert_eq!((&thing["apiVersion"], &thing["metadata"]["name"]), (&json!("example.com/v1"), &json!("t")));
    assert_eq!(get(&server, "/apis/example.com").body["preferredVersion"]["version"], "v1");
}

#[test]
fn aggregated_discovery_is_not_offered() {
    let server = server();
    let aggregated = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let accept = |accept: &str| ask(&server, "GET", "/apis", &[("authorization", "Bearer admin-token"), ("accept", accept)], "");
    assert_eq!(accept(aggregated).code, 406);
    assert_eq!(accept(&format!("{aggregated}, application/json")).body["kind"], "APIGroupList");
}

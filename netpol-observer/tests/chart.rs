//! The Helm chart in deploy/helm: what it renders is what `observer install` prints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gtmpl::{Context, FuncError, Template, Value as Data};
use netpol_observer::install::{ACROSS_NAMESPACES, NAME, OWN_NAMESPACE, Options, Otlp, objects};
use serde_json::{Map, Value, json};

const REPOSITORY: &str = "registry.example/netpol-observer";

fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/helm/netpol-observer")
}

fn yaml(file: &str) -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(chart().join(file)).unwrap()).unwrap()
}

/// Values on top of those of values.yaml, as `helm --set` has it.
fn values(changes: &Value) -> Value {
    let mut values = yaml("values.yaml");
    merge(&mut values, changes);
    values
}

fn merge(values: &mut Value, changes: &Value) {
    match (values, changes) {
        (Value::Object(values), Value::Object(changes)) => {
            for (name, change) in changes {
                merge(values.entry(name.clone()).or_insert(Value::Null), change);
            }
        }
        (value, change) => *value = change.clone(),
    }
}

fn data(value: &Value) -> Data {
    match value {
        Value::Null => Data::Nil,
        Value::Bool(value) => (*value).into(),
        Value::Number(number) => number.as_i64().map_or(Data::Nil, Into::into),
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => Data::Array(items.iter().map(data).collect()),
        Value::Object(members) => Data::Map(members.iter().map(|(name, member)| (name.clone(), data(member))).collect()),
    }
}

fn value(data: &Data) -> Value {
    match data {
        Data::Bool(value) => json!(value),
        Data::String(text) => json!(text),
        Data::Number(number) => json!(number.as_i64()),
        Data::Array(items) => items.iter().map(value).collect(),
        Data::Map(members) | Data::Object(members) => {
            Value::Object(members.iter().map(|(name, member)| (name.clone(), value(member))).collect())
        }
        Data::NoValue | Data::Nil | Data::Function(_) => Value::Null,
    }
}

fn is_empty(data: &Data) -> bool {
    matches!(value(data), Value::Null | Value::Bool(false)) || value(data) == "" || value(data) == json!([]) || value(data) == json!({})
}

fn text(data: &Data) -> String {
    match value(data) {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// Sprig's and Helm's functions that the templates use; an error for fewer arguments than they need.
fn arguments<const N: usize>(given: &[Data]) -> Result<&[Data; N], FuncError> {
    given.try_into().map_err(|_| FuncError::Generic(format!("expected {N} arguments")))
}

fn quote(given: &[Data]) -> Result<Data, FuncError> {
    let [what] = arguments(given)?;
    Ok(json!(text(what)).to_string().into())
}

fn to_yaml(given: &[Data]) -> Result<Data, FuncError> {
    let [what] = arguments(given)?;
    let text = serde_saphyr::to_string(&value(what)).map_err(|error| FuncError::Generic(error.to_string()))?;
    Ok(text.trim_end().into())
}

fn nindent(given: &[Data]) -> Result<Data, FuncError> {
    let [by, what] = arguments(given)?;
    let by = usize::try_from(value(by).as_u64().unwrap_or_default()).unwrap_or_default();
    let lines: Vec<String> = text(what).lines().map(|line| format!("\n{:by$}{line}", "")).collect();
    Ok(lines.concat().into())
}

fn default(given: &[Data]) -> Result<Data, FuncError> {
    let [otherwise, what] = arguments(given)?;
    Ok(if is_empty(what) { otherwise.clone() } else { what.clone() })
}

fn required(given: &[Data]) -> Result<Data, FuncError> {
    let [message, what] = arguments(given)?;
    if is_empty(what) { Err(FuncError::Generic(text(message))) } else { Ok(what.clone()) }
}

/// What a template makes of values.
fn rendered(file: &str, namespace: &str, values: &Value) -> Result<String, String> {
    let source = std::fs::read_to_string(chart().join("templates").join(file)).unwrap();
    let mut template = Template::default();
    template.add_func("quote", quote);
    template.add_func("toYaml", to_yaml);
    template.add_func("nindent", nindent);
    template.add_func("default", default);
    template.add_func("required", required);
    template.parse(source).unwrap_or_else(|error| panic!("{file}: {error}"));
    let about = yaml("Chart.yaml");
    let context = json!({
        "Values": values, "Release": {"Namespace": namespace, "Name": "observer", "Service": "Helm"},
        "Chart": {"Name": about["name"], "Version": about["version"], "AppVersion": about["appVersion"]},
    });
    template.render(&Context::from(data(&context))).map_err(|error| format!("{file}: {error}"))
}

/// All objects of the chart, by kind and name, without the label that says whose they are.
fn objects_of(namespace: &str, values: &Value) -> Result<BTreeMap<String, Value>, String> {
    let mut objects = BTreeMap::new();
    for entry in std::fs::read_dir(chart().join("templates")).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let text = rendered(&file, namespace, values)?;
        if !file.ends_with(".yaml") {
            continue;
        }
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{file}: {error}\n{text}"));
        for mut object in documents.into_iter().filter(|object| !object.is_null()) {
            let managed = object["metadata"]["labels"].as_object_mut().and_then(|labels| labels.remove("app.kubernetes.io/managed-by"));
            assert_eq!(managed, Some(json!("Helm")), "{file}");
            objects.insert(key(&object), object);
        }
    }
    Ok(objects)
}

fn key(object: &Value) -> String {
    format!("{} {}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap())
}

/// What `observer install` prints; Helm makes no namespaces.
fn installed(options: &Options) -> BTreeMap<String, Value> {
    let objects = objects(options).into_iter().filter(|object| object["kind"] != "Namespace");
    objects.map(|object| (key(&object), object)).collect()
}

fn options() -> Options {
    Options::new(NAME, &format!("{REPOSITORY}:{}", env!("CARGO_PKG_VERSION")))
}

#[test]
fn it_renders_what_install_prints() {
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    let otlp = Otlp {
        endpoint: "http://collector:4318".to_owned(),
        protocol: "http/protobuf".to_owned(),
        headers_secret: None,
        ca_config_map: None,
    };
    let cases = [
        (json!({}), options()),
        (json!({"tenantMode": true}), Options { tenant_mode: true, ..options() }),
        (json!({"metrics": {"enabled": true}}), Options { metrics: true, ..options() }),
        (
            json!({"tenantMode": true, "metrics": {"enabled": true, "podMonitor": true}}),
            Options { tenant_mode: true, metrics: true, pod_monitor: true, ..options() },
        ),
        (json!({"olderKernels": true}), Options { older_kernels: true, ..options() }),
        (json!({"image": {"tag": "7"}}), Options { image: format!("{REPOSITORY}:7"), ..options() }),
        (json!({"image": {"tag": "7", "digest": digest}}), Options { image: format!("{REPOSITORY}@{digest}"), ..options() }),
        (
            json!({"imagePullSecrets": [{"name": "a"}, {"name": "b"}]}),
            Options { image_pull_secrets: vec!["a".to_owned(), "b".to_owned()], ..options() },
        ),
        (json!({"otlp": {"endpoint": otlp.endpoint}}), Options { otlp: Some(otlp.clone()), ..options() }),
        (
            json!({"otlp": {"endpoint": otlp.endpoint, "protocol": "grpc", "headersSecret": "a"}}),
            Options { otlp: Some(Otlp { protocol: "grpc".to_owned(), headers_secret: Some("a".to_owned()), ..otlp.clone() }), ..options() },
        ),
        (
            json!({"otlp": {"endpoint": otlp.endpoint, "headersSecret": "a", "caConfigMap": "b"}}),
            Options {
                otlp: Some(Otlp { headers_secret: Some("a".to_owned()), ca_config_map: Some("b".to_owned()), ..otlp.clone() }),
                ..options()
            },
        ),
        (json!({"events": "own-namespace"}), Options { events: Some(OWN_NAMESPACE), ..options() }),
        (json!({"events": "across-namespaces"}), Options { events: Some(ACROSS_NAMESPACES), ..options() }),
        (json!({"priorityClassName": "high"}), Options { priority_class: Some("high".to_owned()), ..options() }),
        (json!({"seccompProfile": "a/b.json"}), Options { seccomp_profile: Some("a/b.json".to_owned()), ..options() }),
    ];
    for (changes, options) in cases {
        for namespace in [NAME, "kube-system"] {
            let mut changes = changes.clone();
            merge(&mut changes, &json!({"image": {"repository": REPOSITORY}}));
            let options = Options { namespace: namespace.to_owned(), ..options.clone() };
            let (found, expected) = (objects_of(namespace, &values(&changes)).unwrap(), installed(&options));
            assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{changes}");
            for (name, object) in &expected {
                assert_eq!(found[name], *object, "{changes}: {name}");
            }
        }
    }
}

/// A value that only the chart has, and what becomes of it.
fn changed(changes: Value) -> (Value, BTreeMap<String, Value>) {
    let mut changes = changes;
    merge(&mut changes, &json!({"image": {"repository": REPOSITORY}}));
    let mut objects = objects_of(NAME, &values(&changes)).unwrap();
    (objects.remove(&format!("DaemonSet {NAME}")).unwrap(), objects)
}

#[test]
fn the_other_values_are_heeded() {
    let pod = |changes: Value| changed(changes).0["spec"]["template"].take();
    assert_eq!(pod(json!({"podAnnotations": {"a/b": "true"}}))["metadata"]["annotations"], json!({"a/b": "true"}));
    assert_eq!(pod(json!({"extraArgs": ["--remember", "30m"]}))["spec"]["containers"][0]["args"], json!(["agent", "--remember", "30m"]));
    assert_eq!(pod(json!({"image": {"pullPolicy": "Always"}}))["spec"]["containers"][0]["imagePullPolicy"], "Always");
    let tolerations = json!([{"key": "a", "operator": "Exists", "effect": "NoSchedule"}]);
    assert_eq!(pod(json!({"tolerations": tolerations}))["spec"]["tolerations"], tolerations);
    let selected = pod(json!({"nodeSelector": {"pool": "yes"}}));
    assert_eq!(selected["spec"]["nodeSelector"], json!({"kubernetes.io/os": "linux", "pool": "yes"}));
    let resources = pod(json!({"resources": {"limits": {"memory": "1Gi"}}}))["spec"]["containers"][0]["resources"].take();
    assert_eq!(resources, json!({"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}));
    for at_once in [json!(3), json!("25%")] {
        assert_eq!(changed(json!({"maxUnavailable": at_once})).0["spec"]["updateStrategy"]["rollingUpdate"]["maxUnavailable"], at_once);
    }
    let (_, others) = changed(json!({"metrics": {"enabled": true, "podMonitor": true, "podMonitorLabels": {"release": "monitoring"}}}));
    assert_eq!(others[&format!("PodMonitor {NAME}")]["metadata"]["labels"]["release"], "monitoring");
    let (_, others) = changed(json!({"networkPolicy": {"enabled": false}}));
    assert!(!others.keys().any(|name| name.starts_with("NetworkPolicy")), "{others:?}");
}

#[test]
fn an_image_has_to_be_named() {
    let error = objects_of(NAME, &values(&json!({}))).unwrap_err();
    assert!(error.contains("image.repository: name the image of the agents"), "{error}");
}

#[test]
fn notes_name_the_namespace_where_it_is_another() {
    let notes = |namespace| rendered("NOTES.txt", namespace, &values(&json!({}))).unwrap();
    assert!(notes("on").contains("observer tail -A --agent-namespace on\n") && notes(NAME).contains("observer tail -A\n"));
}

/// Every value that there is has a schema and a comment, and the schema takes them and nothing else.
#[test]
fn the_schema_knows_the_values() {
    let schema =
        jsonschema::validator_for(&serde_json::from_str(&std::fs::read_to_string(chart().join("values.schema.json")).unwrap()).unwrap());
    let schema = schema.unwrap();
    assert!(schema.is_valid(&yaml("values.yaml")), "{:?}", schema.validate(&yaml("values.yaml")).err());
    for wrong in [
        json!({"tenantmode": true}),
        json!({"tenantMode": "yes"}),
        json!({"image": {"repository": "Registry/Observer"}}),
        json!({"image": {"digest": "sha256:12"}}),
        json!({"imagePullSecrets": ["name"]}),
        json!({"maxUnavailable": 0}),
        json!({"metrics": true}),
        json!({"metrics": {"podMonitor": true}}),
        json!({"seccompProfile": "/netpol-observer.json"}),
        json!({"seccompProfile": "a/../b.json"}),
        json!({"resources": {"limit": {}}}),
        json!({"networkPolicy": false}),
        json!({"otlp": {"endpoint": "collector:4317"}}),
        json!({"otlp": {"protocol": "http/json"}}),
        json!({"events": true}),
        json!({"events": "everywhere"}),
    ] {
        assert!(!schema.is_valid(&values(&wrong)), "{wrong}");
    }
    let text = std::fs::read_to_string(chart().join("values.yaml")).unwrap();
    let properties = serde_json::from_str::<Value>(&std::fs::read_to_string(chart().join("values.schema.json")).unwrap()).unwrap();
    let known: &Map<String, Value> = properties["properties"].as_object().unwrap();
    for (name, _) in yaml("values.yaml").as_object().unwrap() {
        assert!(known.contains_key(name), "values.schema.json does not know {name}");
        let before = text.split(&format!("\n{name}:")).next().unwrap();
        assert!(before.len() == text.len() || before.lines().last().is_some_and(|line| line.starts_with('#')), "{name} has no comment");
    }
}

//! Requests for resources: which part of the server answers each verb and subresource.

use std::sync::Arc;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, header};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::handle::{self, Answer, Asking, Connection, authorize};
use super::list::{self, Unready, View};
use super::options::ListOptions;
use super::rbac::Attributes;
use super::resource::Resource;
use super::selector::Selector;
use super::state::{State, lock};
use super::status::{Cause, Refusal};
use super::store::{Key, Object};
use super::watch::{FUTURE_WAIT, Watch};
use super::write::{self, Deleted, Target};
use super::{discovery, patch, portforward, review};

/// The largest body a real server reads.
const MAX_BODY: usize = 3 * 1024 * 1024;

/// Answers a request that is allowed.
pub(super) async fn answer(
    state: &Arc<State>,
    connection: &Connection,
    asking: Asking,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let asked = &asking.route.attributes;
    if discovery::REVIEWS.iter().any(|(group, plural, _)| *group == asked.group && *plural == asked.resource)
        && asking.route.version == "v1"
    {
        if asked.verb != "create" {
            return Err(Refusal::method_not_allowed());
        }
        let review = body(&asking.headers, request.into_body()).await?;
        return review::answer(state, &asking.user, &asked.resource, review).map(|review| handle::json(201, &review));
    }
    let found = {
        let store = lock(&state.store);
        let table = store.table(&asked.group, &asked.resource).filter(|table| table.resource.versions.contains(&asking.route.version));
        table.map(|table| (Arc::clone(&table.resource), table.generation))
    };
    let builtin = lock(&state.store).has_builtin_group(&asked.group);
    let Some((resource, generation)) = found else {
        return no_such_path(builtin);
    };
    if !resource.namespaced && !asked.namespace.is_empty() && resource.key() != "namespaces" {
        return no_such_path(builtin);
    }
    let misplaced = match asked.verb.as_str() {
        "update" | "patch" => asked.name.is_empty(),
        "create" => !asked.name.is_empty() && asked.subresource.is_empty(),
        // Namespaces are deleted one by one.
        "deletecollection" => resource.key() == "namespaces",
        _ => false,
    };
    if !resource.custom && misplaced {
        return Err(Refusal::method_not_allowed());
    }
    if resource.namespaced && asked.namespace.is_empty() && !matches!(asked.verb.as_str(), "list" | "watch") {
        return if builtin && asked.name.is_empty() { Err(Refusal::method_not_allowed()) } else { no_such_path(builtin) };
    }
    match (asked.subresource.as_str(), asked.verb.as_str()) {
        ("", "list") => listed(state, &asking).await,
        ("", "watch") => watched(state, connection, asking, &resource, generation),
        ("", "deletecollection") => delete_all(state, &asking),
        ("" | "status", "get") if asked.subresource.is_empty() || resource.has_status => get(state, &asking, &resource).await,
        ("", "create") => {
            let value = body(&asking.headers, request.into_body()).await?;
            refuse_dry_run(&asking.query)?;
            let object = write::create(&mut lock(&state.store), target(state, &asking, &resource), value)?;
            Ok(shown(201, &asking, &resource, &object))
        }
        ("" | "status", "update") if asked.subresource.is_empty() || resource.has_status => {
            let value = body(&asking.headers, request.into_body()).await?;
            refuse_dry_run(&asking.query)?;
            let status = asked.subresource == "status";
            let object = write::replace(&mut lock(&state.store), target(state, &asking, &resource), value, status)?;
            Ok(shown(200, &asking, &resource, &object))
        }
        ("" | "status", "patch") if asked.subresource.is_empty() || resource.has_status => {
            let media = media_type(&asking.headers);
            let bytes = bytes(request.into_body()).await?;
            refuse_dry_run(&asking.query)?;
            let mut store = lock(&state.store);
            let target = target(state, &asking, &resource);
            let existing = target.existing(&store)?;
            let value = patch::apply(&resource, &media, existing.typed(&resource, &asking.route.version), &bytes)?;
            let object = write::replace(&mut store, target, value, asked.subresource == "status")?;
            Ok(shown(200, &asking, &resource, &object))
        }
        ("", "delete") => {
            let options = delete_options(&asking, request.into_body()).await?;
            refuse_dry_run(&asking.query)?;
            let deleted = write::delete(&mut lock(&state.store), target(state, &asking, &resource), &options)?;
            Ok(deleted_shown(&asking, &resource, &deleted))
        }
        ("token", "create") if resource.key() == "serviceaccounts" => {
            let review = body(&asking.headers, request.into_body()).await?;
            let now = state.now();
            let answer = lock(&state.tokens).issue(&lock(&state.store), &asked.namespace, &asked.name, &review, now)?;
            Ok(handle::json(201, &answer))
        }
        ("portforward", "get" | "create") if resource.key() == "pods" => port_forward(state, connection, &asking, &resource, request),
        ("", _) => Err(Refusal::method_not_allowed()),
        ("status", "create" | "delete") if resource.has_status => Err(Refusal::method_not_allowed()),
        ("token", _) if resource.key() == "serviceaccounts" => Err(Refusal::method_not_allowed()),
        _ if resource.custom => Err(Refusal::not_found(&asked.group, &asked.resource, &asked.name)),
        _ => no_such_path(builtin),
    }
}

/// A path that is none. The groups that are built in answer with a Status, others are the server's own: plain text.
pub(super) fn no_such_path(builtin: bool) -> Result<Answer, Refusal> {
    if builtin {
        return Err(Refusal::no_such_resource());
    }
    Ok(handle::respond(404, "text/plain; charset=utf-8", b"404 page not found\n".to_vec()))
}

fn target<'a>(state: &State, asking: &'a Asking, resource: &Resource) -> Target<'a> {
    let asked = &asking.route.attributes;
    let namespace = if resource.namespaced { asked.namespace.as_str() } else { "" };
    Target { group: &asked.group, plural: &asked.resource, namespace, name: &asked.name, now: state.now(), with_status: false }
}

fn selected(resource: &Resource, options: &ListOptions) -> Result<Selector, Refusal> {
    Selector::parse(resource, &options.labels, &options.fields)
}

/// The namespace that a collection is limited to.
fn namespace(asking: &Asking, resource: &Resource) -> Option<String> {
    Some(asking.route.attributes.namespace.clone()).filter(|namespace| resource.namespaced && !namespace.is_empty())
}

async fn listed(state: &State, asking: &Asking) -> Result<Answer, Refusal> {
    let asked = &asking.route.attributes;
    let options = ListOptions::parse(&asking.query, state.options.streaming_lists)?;
    let look = || {
        let store = lock(&state.store);
        let table = store.table(&asked.group, &asked.resource).ok_or_else(Refusal::no_such_resource)?;
        let selector = selected(&table.resource, &options)?;
        list::list(&store, table, namespace(asking, &table.resource).as_deref(), &options, &selector)
    };
    let page = match look() {
        Err(Unready::Future(revision)) => {
            state.reached(revision, FUTURE_WAIT).await;
            look()
        }
        looked => looked,
    };
    let page = page.map_err(|unready| match unready {
        Unready::Refused(refusal) => refusal,
        Unready::Future(revision) => Refusal::too_large_resource_version(revision, lock(&state.store).revision(), Some(1)),
    })?;
    Ok(handle::respond(200, "application/json", page.body(&asking.route.version, asking.view)))
}

fn watched(
    state: &Arc<State>,
    connection: &Connection,
    asking: Asking,
    resource: &Arc<Resource>,
    generation: u64,
) -> Result<Answer, Refusal> {
    let options = ListOptions::parse(&asking.query, state.options.streaming_lists)?;
    let selector = selected(resource, &options)?;
    options.revision().map_err(|cause| Refusal::unreadable_revision(&cause))?;
    let (send, pieces) = mpsc::channel(4);
    let watch = Watch {
        state: Arc::clone(state),
        resource: Arc::clone(resource),
        generation,
        namespace: namespace(&asking, resource),
        version: asking.route.version,
        options,
        selector,
        view: asking.view,
        asked: asking.asked,
        slow: asking.slow,
        reset: Arc::clone(&connection.reset),
    };
    tokio::spawn(watch.run(send));
    Ok(handle::stream(pieces))
}

async fn get(state: &State, asking: &Asking, resource: &Resource) -> Result<Answer, Refusal> {
    let options = ListOptions::parse(&asking.query, true)?;
    let revision = options.revision().map_err(|cause| Refusal::unreadable_revision(&cause))?;
    if !state.reached(revision, FUTURE_WAIT).await {
        return Err(Refusal::too_large_resource_version(revision, lock(&state.store).revision(), Some(1)));
    }
    let object = target(state, asking, resource).existing(&lock(&state.store))?;
    Ok(shown(200, asking, resource, &object))
}

fn shown(code: u16, asking: &Asking, resource: &Resource, object: &Object) -> Answer {
    let mut out = Vec::new();
    list::write(object, resource, &asking.route.version, asking.view, &mut out);
    out.push(b'\n');
    handle::respond(code, "application/json", out)
}

/// Some kinds give back the object that is gone, others a Status.
fn deleted_shown(asking: &Asking, resource: &Resource, deleted: &Deleted) -> Answer {
    match deleted {
        Deleted::Marked(object) => shown(200, asking, resource, object),
        Deleted::Gone(object) if matches!(resource.key().as_str(), "namespaces" | "pods" | "services" | "serviceaccounts") => {
            shown(200, asking, resource, object)
        }
        Deleted::Gone(object) => {
            let uid = object.value()["metadata"]["uid"].take();
            let mut details = json!({"name": object.key.1, "kind": resource.plural, "uid": uid});
            if !resource.group.is_empty() {
                details["group"] = resource.group.as_str().into();
            }
            handle::json(200, &json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}))
        }
    }
}

fn delete_all(state: &State, asking: &Asking) -> Result<Answer, Refusal> {
    refuse_dry_run(&asking.query)?;
    let asked = &asking.route.attributes;
    let options = ListOptions::parse(&asking.query, true)?;
    let mut store = lock(&state.store);
    let table = store.table(&asked.group, &asked.resource).ok_or_else(Refusal::no_such_resource)?;
    let selector = selected(&table.resource, &options)?;
    let everything = ListOptions::default();
    let page =
        list::list(&store, table, namespace(asking, &table.resource).as_deref(), &everything, &selector).map_err(
            |unready| match unready {
                Unready::Refused(refusal) => refusal,
                Unready::Future(_) => Refusal::internal("the present is in the future"),
            },
        )?;
    for object in &page.items {
        let Key(namespace, name) = &object.key;
        let target = Target { group: &asked.group, plural: &asked.resource, namespace, name, now: state.now(), with_status: false };
        write::delete(&mut store, target, &Value::Null)?;
    }
    Ok(handle::respond(200, "application/json", page.body(&asking.route.version, View::Full)))
}

async fn delete_options(asking: &Asking, incoming: Incoming) -> Result<Value, Refusal> {
    let bytes = bytes(incoming).await?;
    let mut options = if bytes.is_empty() { json!({}) } else { parse(&bytes)? };
    if !options.is_object() {
        return Err(Refusal::bad_request("the body is not a DeleteOptions"));
    }
    // The query counts only where there is no body.
    for (name, value) in form_urlencoded::parse(asking.query.as_bytes()).filter(|_| bytes.is_empty()) {
        if name == "gracePeriodSeconds" {
            let seconds: i64 =
                value.parse().map_err(|_| Refusal::bad_request(format!("strconv.ParseInt: parsing \"{value}\": invalid syntax")))?;
            options["gracePeriodSeconds"] = seconds.into();
        }
    }
    Ok(options)
}

/// Nothing here can write without writing: better refused than done.
fn refuse_dry_run(query: &str) -> Result<(), Refusal> {
    let asked = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "dryRun").map(|(_, value)| value.into_owned());
    match asked {
        None => Ok(()),
        Some(value) if value == "All" => Err(Refusal::bad_request("this server offers no dry run")),
        Some(value) => Err(Refusal::invalid("meta.k8s.io", "CreateOptions", "", &[Cause::not_supported("dryRun", &value, &["All"])])),
    }
}

fn port_forward(
    state: &Arc<State>,
    connection: &Connection,
    asking: &Asking,
    resource: &Resource,
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let asked = &asking.route.attributes;
    if state.options.websocket_needs_create && asked.verb == "get" && portforward::is_upgrade(&asking.headers) {
        authorize(state, &asking.user, &Attributes { verb: "create".to_owned(), ..asked.clone() })?;
    }
    let pod = target(state, asking, resource).existing(&lock(&state.store))?.value();
    if pod["spec"]["nodeName"].as_str().unwrap_or_default().is_empty() {
        return Err(Refusal::bad_request(format!("pod {} does not have a host assigned", asked.name)));
    }
    let (ports, key) = portforward::negotiate(&asking.headers, &asking.query)?;
    let mut answer = handle::respond(101, "application/json", Vec::new());
    let headers = answer.headers_mut();
    headers.clear();
    let text = |text: &str| header::HeaderValue::from_str(text).map_err(Refusal::internal);
    headers.insert(header::CONNECTION, text("Upgrade")?);
    headers.insert(header::UPGRADE, text("websocket")?);
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, text(&derive_accept_key(key.as_bytes()))?);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, text(portforward::PROTOCOL)?);
    let (state, mut listening, reset) = (Arc::clone(state), connection.listening.clone(), Arc::clone(&connection.reset));
    let (namespace, name) = (asked.namespace.clone(), asked.name.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = portforward::serve(state, hyper::upgrade::on(request), namespace, name, ports) => {}
            // The connection's own task ended with the upgrade: a server that goes away breaks it from here.
            _ = listening.changed() => reset.store(true, std::sync::atomic::Ordering::Relaxed),
        }
    });
    Ok(answer)
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_owned()
}

async fn bytes(incoming: Incoming) -> Result<Vec<u8>, Refusal> {
    let collected = Limited::new(incoming, MAX_BODY).collect().await;
    let collected = collected.map_err(|_| Refusal::new(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"))?;
    Ok(collected.to_bytes().to_vec())
}

async fn body(headers: &HeaderMap, incoming: Incoming) -> Result<Value, Refusal> {
    // Clients that send no type mean JSON, as the API server assumes.
    if !matches!(media_type(headers).as_str(), "" | "application/json") {
        return Err(Refusal::unsupported_media_type(&["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"]));
    }
    parse(&bytes(incoming).await?)
}

fn parse(bytes: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(bytes).map_err(|error| Refusal::bad_request(format!("couldn't get version/kind; json parse error: {error}")))
}

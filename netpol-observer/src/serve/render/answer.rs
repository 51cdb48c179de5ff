//! The answer to a question as text.

use super::explanation::more;
use super::text::{Palette, Text};
use super::why::write_why;
use crate::flow::Protocol;
use crate::policy::Verdict;
use crate::question::{Answer, Link, Path, ServiceLink, Step};

/// Names on one line.
const NAMES_SHOWN: usize = 3;
/// Pods that are not ready named.
const NOT_READY_SHOWN: usize = 5;

/// The whole answer, with its last newline.
pub fn answer(answer: &Answer, palette: Palette) -> String {
    let mut text = Text::new(palette);
    if answer.verdict == Verdict::Undecided && problem(answer).is_some() {
        text.styled(palette.dropped, "FAILS");
    } else if answer.verdict == Verdict::Undecided && answer.chain.iter().any(|link| mixed(link.step.paths())) {
        text.styled(palette.dropped, "PARTLY DENIED");
    } else {
        verdict(&mut text, answer.verdict);
    }
    text.put(&format!(" {} → {}", answer.from, called(answer)));
    text.newline();
    let several = answer.chain.len() > 1;
    for (number, link) in answer.chain.iter().enumerate() {
        if several {
            text.newline();
            text.put(&format!("{}. {}: ", number.saturating_add(1), title(&link.step)));
            summary(&mut text, link);
            text.newline();
        }
        write_step(&mut text, link, several);
    }
    if several {
        text.end_block();
    }
    if answer.verdict == Verdict::Undecided && problem(answer).is_some() {
        text.label("note");
        text.put("no call can work, whatever the policies say, and there is no pod whose policies could be asked");
        text.newline();
    }
    for note in &answer.notes {
        text.label("note");
        text.put(note);
        text.newline();
    }
    text.finish()
}

/// What keeps a Service from being called at all.
fn problem(answer: &Answer) -> Option<&str> {
    answer.chain.iter().find_map(|link| match &link.step {
        Step::Service(service) => service.problem.as_deref(),
        _ => None,
    })
}

fn called(answer: &Answer) -> String {
    let to = &answer.to;
    match answer.port {
        // A URL tells its port itself.
        Some(_) if to.contains("://") => to.clone(),
        Some(port) if to.ends_with(&format!(":{port}")) => format!("{to}/{}", answer.protocol),
        port => endpoint(to, port, answer.protocol),
    }
}

/// `shop/api:8080/TCP`, `[fd00::1]:80/TCP`, `shop/api ICMP`
fn endpoint(name: &str, port: Option<u16>, protocol: Protocol) -> String {
    match port {
        Some(port) if name.parse::<std::net::Ipv6Addr>().is_ok() => format!("[{name}]:{port}/{protocol}"),
        Some(port) if name.contains(' ') => format!("{name} port {port}/{protocol}"),
        Some(port) => format!("{name}:{port}/{protocol}"),
        None => format!("{name} {protocol}"),
    }
}

fn verdict(text: &mut Text, verdict: Verdict) {
    let palette = text.palette();
    match verdict {
        Verdict::Allow => text.styled(palette.fix, "ALLOWED"),
        Verdict::Deny => text.styled(palette.denied, "DENIED"),
        Verdict::Undecided => text.styled(palette.dropped, "CANNOT DECIDE"),
    }
}

fn title(step: &Step) -> &'static str {
    match step {
        Step::Dns { .. } => "looking the name up",
        Step::Alias { .. } | Step::Name { .. } => "where the name leads",
        Step::Service(_) => "the Service",
        Step::Connection { .. } => "the connection",
    }
}

/// What stands behind the title.
fn summary(text: &mut Text, link: &Link) {
    let words = match (&link.step, link.verdict) {
        (Step::Dns { service, unchecked: Some(why), .. }, _) => {
            format!("not judged, {why} (DNS is Service {service} in nearly every cluster)")
        }
        (Step::Dns { service, .. }, Verdict::Allow) => format!("allowed, the cluster's DNS (Service {service}) may be asked"),
        (Step::Dns { service, .. }, Verdict::Deny) => {
            format!("denied, the cluster's DNS (Service {service}) may not be asked, so the name stays unknown to the caller")
        }
        (Step::Dns { service, .. }, Verdict::Undecided) => format!("cannot be decided for the cluster's DNS (Service {service})"),
        (Step::Alias { service, name }, _) => format!("Service {service} is of type ExternalName and stands for {name}"),
        (Step::Name { name, addresses: None }, _) => format!("{name} is outside the cluster, and its addresses are not known"),
        (Step::Name { name, addresses: Some(addresses) }, _) if addresses.is_empty() => format!("{name} has no address"),
        (Step::Name { name, addresses: Some(addresses) }, _) => {
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            format!("{name} is outside the cluster, at {}", names(&addresses))
        }
        (Step::Service(service), _) => service_words(service),
        (Step::Connection { paths }, Verdict::Allow) => format!("allowed{}", all_of(paths)),
        (Step::Connection { paths }, Verdict::Deny) => format!("denied{}", all_of(paths)),
        (Step::Connection { paths }, Verdict::Undecided) if mixed(paths) => {
            "some of the pods it may go to or come from are admitted and some are not".to_owned()
        }
        (Step::Connection { .. }, Verdict::Undecided) => "cannot be decided".to_owned(),
    };
    text.put(&words);
}

fn service_words(service: &ServiceLink) -> String {
    if let Some(problem) = &service.problem {
        // The title names the Service already.
        return problem.strip_prefix("Service ").unwrap_or(problem).to_owned();
    }
    let port = match (service.port, &service.port_name) {
        (Some(port), Some(name)) => format!(" port {port} ({name})"),
        (Some(port), None) => format!(" port {port}"),
        (None, _) => String::new(),
    };
    let how = if service.headless { "is headless: its name stands for the pods themselves," } else { "leads to" };
    let name = &service.service;
    match service.endpoints.len() {
        1 => format!("{name}{port} {how} {}", names(&service.endpoints)),
        count => format!("{name}{port} {how} {count} ready endpoints: {}", names(&service.endpoints)),
    }
}

fn all_of(paths: &[Path]) -> String {
    let ends: usize = paths.iter().map(|path| path.to.len()).sum();
    if ends > 1 { " for every endpoint".to_owned() } else { String::new() }
}

fn mixed(paths: &[Path]) -> bool {
    paths.iter().any(|path| path.verdict == Verdict::Allow) && paths.iter().any(|path| path.verdict == Verdict::Deny)
}

fn write_step(text: &mut Text, link: &Link, several: bool) {
    match &link.step {
        // What is allowed needs no reasons of its own when it is only a step on the way.
        Step::Dns { .. } if link.verdict == Verdict::Allow => {}
        Step::Dns { paths, .. } => write_paths(text, paths.iter().filter(|path| path.protocol == Protocol::Udp), several),
        Step::Connection { paths } => write_paths(text, paths.iter(), several || paths.len() > 1),
        Step::Service(service) => {
            if !several {
                text.label("Service");
                summary(text, link);
                text.newline();
            }
            for pod in service.not_ready.iter().take(NOT_READY_SHOWN) {
                text.label("without");
                text.put(&format!("{} {}", pod.pod, pod.why));
                text.newline();
            }
            if service.not_ready.len() > NOT_READY_SHOWN {
                text.label("without");
                text.put(&format!("and {} more pods", service.not_ready.len().saturating_sub(NOT_READY_SHOWN)));
                text.newline();
            }
        }
        Step::Alias { .. } | Step::Name { .. } => {}
    }
}

fn write_paths<'a>(text: &mut Text, paths: impl Iterator<Item = &'a Path>, headed: bool) {
    for (number, path) in paths.enumerate() {
        if headed && number > 0 {
            text.newline();
        }
        if headed {
            text.put("  ");
            verdict(text, path.verdict);
            text.put(&format!(" {} → {}", names(&path.from), destinations(path)));
            text.newline();
        } else if path.from.len() > 1 || path.to.len() > 1 {
            text.label("for");
            text.put(&format!("{} → {}", names(&path.from), destinations(path)));
            text.newline();
        }
        write_why(text, &path.explanation);
        text.end_block();
    }
}

fn destinations(path: &Path) -> String {
    match path.to.as_slice() {
        [only] => endpoint(only, path.port, path.protocol),
        several => endpoint(&names(several), path.port, path.protocol),
    }
}

fn names(names: &[String]) -> String {
    let shown = names.iter().take(NAMES_SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    format!("{shown}{}", more(names.len().saturating_sub(NAMES_SHOWN)))
}

//! `observer explain`

mod agents;
mod names;
mod queries;
mod words;

use std::io::{self, BufWriter, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

pub(super) use self::words::answer_words;

use clap::Args;

use super::cluster::ClusterArgs;
use super::tail::{ignore_closed, is_coloured, load, skipped};
use super::{Colour, CommandError};
use crate::cluster::Index;
use crate::flow::{Protocol, UnknownProtocol};
use crate::policy::{Engine, Verdict};
use crate::question::profile::{Switch, profile};
use crate::question::{Answer, Callee, End, PortProtocol, Question, QuestionError, Url, explain};
use crate::serve::json::{AnswerObject, write_value};
use crate::serve::render::{Palette, answer, clean_lines};

/// Say whether a connection would be allowed, by which rules, and if not, what is missing and what to change.
///
/// Nothing is sent: the answer is worked out from the cluster's objects. With --manifests they are read from files, such as `kubectl get` writes
/// them; without, an agent of the cluster that the kubeconfig names is asked, which knows them as they are now. A Service called by its name is
/// followed all the way: the cluster's DNS, the Service and its port, and each of its endpoints.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ExplainArgs {
    /// Call this: http://api.shop:80/orders, api.shop:8080, or api alone for a Service of the caller's own namespace.
    #[arg(value_name = "URL", conflicts_with = "to", required_unless_present_any = ["to", "queries"])]
    url: Option<String>,

    /// Read Kubernetes objects from this file, from all YAML and JSON files of this directory, or from standard input (-).
    /// May be given several times.
    #[arg(short = 'f', long, value_name = "FILE|DIR|-")]
    manifests: Vec<PathBuf>,

    /// Who opens the connection: namespace/pod, namespace/deploy/name (also sts, ds, job, cronjob, rs, svc) for all pods of a workload,
    /// namespace/label=value, node/name, or an IP address.
    #[arg(long, value_name = "END", required_unless_present = "queries", help_heading = "Question")]
    from: Option<String>,

    /// Who is called: as in --from, where svc/name is the Service by its name; or a URL.
    #[arg(long, value_name = "END|URL", help_heading = "Question")]
    to: Option<String>,

    /// The port called, such as 8080 or 53/UDP. May be given several times, for an answer each.
    #[arg(short, long = "port", value_name = "PORT[/PROTOCOL]", help_heading = "Question")]
    ports: Vec<PortProtocol>,

    /// The protocol: TCP (unless the port or the URL says otherwise), UDP, SCTP, or ICMP, which has no ports.
    #[arg(long, value_name = "PROTOCOL", value_parser = |text: &str| text.parse::<Protocol>().map_err(|error: UnknownProtocol| error.to_string()), help_heading = "Question")]
    protocol: Option<Protocol>,

    /// The namespace of names that are given without one.
    #[arg(short, long, value_name = "NAMESPACE", default_value = "default", help_heading = "Question")]
    namespace: String,

    /// Answer many questions: each line of this file, or of standard input (-), is a JSON object with from, to, port and protocol, and is
    /// written again with verdict and explanation (described in docs/json.md).
    #[arg(long, value_name = "FILE|-", conflicts_with_all = ["from", "to", "url", "ports", "protocol", "output"], help_heading = "Question")]
    queries: Option<PathBuf>,

    /// With --queries: answer with the verdict alone, which is faster.
    #[arg(long, help_heading = "Question")]
    no_explanation: bool,

    /// Take the addresses of names outside the cluster from this file: a JSON object such as {"api.example.com": ["203.0.113.7"]}.
    #[arg(long, value_name = "FILE")]
    domain_names: Option<PathBuf>,

    /// Decide what the API leaves open otherwise than by default: ip-block-matches-pods=false, tied-priorities=by-name,
    /// other-protocols=denied or admitted, baseline=per-pod. May be given several times.
    #[arg(long, value_name = "SWITCH=VALUE", value_parser = Switch::parse)]
    profile: Vec<Switch>,

    /// Print text for people, or one object per port (described in docs/json.md).
    #[arg(short, long, value_enum, default_value_t = AnswerForm::Text, value_name = "FORMAT")]
    output: AnswerForm,

    #[command(flatten)]
    cluster: ClusterArgs,
}

/// `-o`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum AnswerForm {
    /// For people.
    Text,
    /// For programs: one object per line.
    Json,
    /// For programs: one document each.
    Yaml,
}

const EXAMPLES: &str = "\
Examples:
  In the cluster of the kubeconfig, as it is now:
    observer explain --from shop/deploy/web http://api.shop:80/orders

  May the web pods call the api?
    kubectl get po,svc,endpointslices,netpol,ns,no -A -o yaml > cluster.yaml
    observer explain -f cluster.yaml --from shop/deploy/web --to shop/deploy/api --port 8080

  May they call it the way the program does, by its name?
    observer explain -f cluster.yaml --from shop/deploy/web http://api.shop:80/orders

  May anybody from outside?
    observer explain -f cluster.yaml --from 203.0.113.7 --to shop/app=web --port 8080

  Many at once:
    echo '{\"from\": \"shop/web\", \"to\": \"shop/api\", \"port\": 8080}' | observer explain -f cluster.yaml --queries -

Exit status:
  0  allowed; with --queries: every line was answered, whatever the answer
  1  denied (of several ports: at least one)
  2  an error: there is no answer, or with --queries a line has none
  3  cannot be decided, or only some of the pods are admitted";

/// Runs `observer explain`.
pub(super) fn run(arguments: &ExplainArgs, colour: Colour) -> Result<ExitCode, CommandError> {
    answer_all(arguments, colour).map_err(CommandError::instead_of_an_answer)
}

fn answer_all(arguments: &ExplainArgs, colour: Colour) -> Result<ExitCode, CommandError> {
    arguments.check()?;
    arguments.check_source()?;
    let profile = profile(&arguments.profile).map_err(CommandError::usage)?;
    // What can be said without the objects is said before they are read.
    let questions = if arguments.queries.is_some() { Vec::new() } else { arguments.questions().map_err(usage)? };
    if arguments.manifests.is_empty() {
        return agents::answer(arguments, is_coloured(colour));
    }
    let mut loaded = load(&arguments.manifests)?.with_stand_ins();
    for warning in loaded.warnings.iter().map(ToString::to_string).chain(skipped(&loaded.skipped)) {
        ignore_closed(writeln!(io::stderr(), "warning: {}", clean_lines(&warning)))?;
    }
    if let Some(path) = &arguments.domain_names {
        loaded.objects.extend(names::read(path)?.into_iter().map(Into::into));
    }
    let mut index = Index::default();
    index.reset(std::mem::take(&mut loaded.objects));
    let engine = Engine::over(index, profile);
    if let Some(path) = &arguments.queries {
        let options = queries::Options { namespace: &arguments.namespace, explain: !arguments.no_explanation };
        return queries::run(path, &engine, &options);
    }
    let answers = questions.iter().map(|question| explain(question, &engine)).collect::<Result<Vec<Answer>, _>>();
    let answers = answers.map_err(usage)?;
    let written = arguments.write(&answers, colour).and_then(|text| {
        let mut out = BufWriter::new(io::stdout());
        out.write_all(text.as_bytes())?;
        out.flush()
    });
    closed(written)?;
    Ok(ExitCode::from(exit_code(&answers)))
}

impl ExplainArgs {
    /// What `clap` cannot say of the arguments.
    fn check(&self) -> Result<(), CommandError> {
        if self.no_explanation && self.queries.is_none() {
            return Err(CommandError::usage("--no-explanation is about --queries").hint("leave it out, or ask with --queries FILE"));
        }
        Ok(())
    }

    /// Where the objects come from.
    fn check_source(&self) -> Result<(), CommandError> {
        let is_stdin = |path: &&PathBuf| path.as_os_str() == "-";
        let readers = self.manifests.iter().chain(&self.queries).chain(&self.domain_names).filter(is_stdin).count();
        if readers > 1 {
            return Err(CommandError::usage("standard input (-) is asked for more than once, and it can be read only once")
                .hint("put one of them in a file"));
        }
        if let (false, Some(option)) = (self.manifests.is_empty(), self.cluster.given()) {
            return Err(
                CommandError::usage(format!("{option} is about a cluster, and --manifests are files")).hint("leave one of them out")
            );
        }
        if self.manifests.is_empty() {
            let files = [(self.queries.is_some(), "--queries"), (self.domain_names.is_some(), "--domain-names")];
            if !self.profile.is_empty() {
                return Err(CommandError::usage("--profile is decided by the agents of the cluster")
                    .hint("leave it out, or give the cluster's objects with --manifests"));
            }
            if let Some((_, option)) = files.iter().find(|(given, _)| *given) {
                return Err(CommandError::usage(format!("{option} needs the cluster's objects in files")).hint(
                    "write them with `kubectl get po,svc,endpointslices,netpol,ns,no -A -o yaml`, and give the file with --manifests",
                ));
            }
            if !self.cluster.is_configured() {
                return Err(CommandError::usage("no cluster is configured, and no manifests are given")
                    .hint("give the cluster's objects with --manifests, or a cluster with --kubeconfig"));
            }
        }
        Ok(())
    }

    fn questions(&self) -> Result<Vec<Question>, QuestionError> {
        let namespace = &self.namespace;
        let from = End::parse(self.from.as_deref().unwrap_or_default(), namespace).map_err(|error| at("--from", error))?;
        let to = match (&self.url, &self.to) {
            (Some(url), _) => Url::parse(url).map(Callee::Url)?,
            (None, to) => Callee::parse(to.as_deref().unwrap_or_default(), namespace).map_err(|error| at("--to", error))?,
        };
        let question = |port: Option<PortProtocol>| Question {
            from: from.clone(),
            to: to.clone(),
            port: port.map(|port| port.port),
            protocol: port.and_then(|port| port.protocol).or(self.protocol),
        };
        let ports: Vec<_> = if self.ports.is_empty() { vec![None] } else { self.ports.iter().copied().map(Some).collect() };
        let questions: Vec<Question> = ports.into_iter().map(question).collect();
        for (question, port) in questions.iter().zip(self.ports.iter().map(Some).chain([None])) {
            let protocol = question.called_protocol();
            if let (Some(port), Some(asked)) = (port, self.protocol)
                && port.protocol.is_some_and(|protocol| protocol != asked)
            {
                return Err(error(
                    format!("--port {}/{protocol} and --protocol {asked} contradict each other", port.port),
                    "leave one of them out",
                ));
            }
            match question.called_port() {
                Some(_) if !protocol.has_ports() => {
                    return Err(error(format!("{protocol} has no ports"), "leave --port out"));
                }
                // A Service may have but one.
                None if protocol.has_ports() && !matches!(question.to, Callee::End(End::Service { .. }) | Callee::Url(_)) => {
                    return Err(error("which port is called?".to_owned(), "give it with --port, such as --port 8080 or --port 53/UDP"));
                }
                _ => {}
            }
        }
        Ok(questions)
    }

    fn write(&self, answers: &[Answer], colour: Colour) -> io::Result<String> {
        let mut text = String::new();
        let palette = if is_coloured(colour) { Palette::COLOURED } else { Palette::PLAIN };
        for (number, found) in answers.iter().enumerate() {
            match self.output {
                AnswerForm::Text => {
                    if number > 0 {
                        text.push('\n');
                    }
                    text.push_str(&answer(found, palette));
                }
                AnswerForm::Json => {
                    let mut line = Vec::new();
                    write_value(&AnswerObject::of(found), &mut line)?;
                    line.push(b'\n');
                    text.push_str(&String::from_utf8_lossy(&line));
                }
                AnswerForm::Yaml => {
                    if number > 0 {
                        text.push_str("---\n");
                    }
                    text.push_str(&yaml(&AnswerObject::of(found))?);
                }
            }
        }
        Ok(text)
    }
}

/// By way of JSON, so that both forms hold the same.
fn yaml(object: &impl serde::Serialize) -> io::Result<String> {
    let value = serde_json::to_value(object)?;
    let text = serde_saphyr::to_string(&value).map_err(io::Error::other)?;
    Ok(clean_lines(&text) + "\n")
}

/// The worst of them.
fn exit_code(answers: &[Answer]) -> u8 {
    let any = |verdict| answers.iter().any(|answer| answer.verdict == verdict);
    if any(Verdict::Deny) {
        1
    } else if any(Verdict::Undecided) {
        3
    } else {
        0
    }
}

fn error(message: String, hint: &str) -> QuestionError {
    QuestionError { message, hints: vec![hint.to_owned()] }
}

fn at(option: &str, error: QuestionError) -> QuestionError {
    QuestionError { message: format!("{option}: {}", error.message), ..error }
}

fn usage(error: QuestionError) -> CommandError {
    error.hints.iter().fold(CommandError::usage(&error.message), CommandError::hint)
}

/// A reader that has gone is no error.
fn closed(result: io::Result<()>) -> Result<(), CommandError> {
    match result {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(CommandError::failure(format!("standard output: {error}"))),
        _ => Ok(()),
    }
}

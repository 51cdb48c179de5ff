//! The filter options, which mean something by their order: `--not` turns those behind it round.

use std::collections::BTreeMap;

use clap::builder::ValueParser;
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches};

use crate::serve::filter::{Filter, Filters, Group, Side, parse_direction, parse_ip};
use crate::serve::label_selector::parse_selector;

/// The filters of the command line.
#[derive(Clone, Debug, Default)]
pub(super) struct FilterArgs {
    pub(super) filters: Filters,
    /// The same as words of a command line, in their order.
    pub(super) words: Vec<String>,
}

struct FilterOption {
    name: &'static str,
    short: Option<char>,
    value: &'static str,
    parse: fn(&str) -> Result<Filter, String>,
    help: &'static str,
}

const NOT: &str = "not";

const OPTIONS: &[FilterOption] = &[
    FilterOption {
        name: "namespace",
        short: Some('n'),
        value: "NAMESPACE",
        parse: |s| Ok(Filter::Namespace(Side::Either, s.to_owned())),
        help: "Only drops with a pod or Service of this namespace on either side",
    },
    FilterOption {
        name: "from-namespace",
        short: None,
        value: "NAMESPACE",
        parse: |s| Ok(Filter::Namespace(Side::From, s.to_owned())),
        help: "Only connections opened from this namespace",
    },
    FilterOption {
        name: "to-namespace",
        short: None,
        value: "NAMESPACE",
        parse: |s| Ok(Filter::Namespace(Side::To, s.to_owned())),
        help: "Only connections to this namespace",
    },
    FilterOption {
        name: "pod",
        short: None,
        value: "[NAMESPACE/]NAME",
        parse: |s| Ok(Filter::Pod(Side::Either, s.parse()?)),
        help: "Only drops with this pod on either side; a * at the end stands for any ending",
    },
    FilterOption {
        name: "from-pod",
        short: None,
        value: "[NAMESPACE/]NAME",
        parse: |s| Ok(Filter::Pod(Side::From, s.parse()?)),
        help: "Only connections opened by this pod",
    },
    FilterOption {
        name: "to-pod",
        short: None,
        value: "[NAMESPACE/]NAME",
        parse: |s| Ok(Filter::Pod(Side::To, s.parse()?)),
        help: "Only connections to this pod",
    },
    FilterOption {
        name: "selector",
        short: Some('l'),
        value: "SELECTOR",
        parse: |s| parse_selector(s).map(Filter::Selector).map_err(|error| error.to_string()),
        help: "Only drops with a pod on either side that has these labels, such as app=web,tier!=db",
    },
    FilterOption {
        name: "ip",
        short: None,
        value: "IP|CIDR",
        parse: |s| Ok(Filter::Ip(Side::Either, parse_ip(s)?)),
        help: "Only drops with this address on either side",
    },
    FilterOption {
        name: "from-ip",
        short: None,
        value: "IP|CIDR",
        parse: |s| Ok(Filter::Ip(Side::From, parse_ip(s)?)),
        help: "Only connections opened from this address",
    },
    FilterOption {
        name: "to-ip",
        short: None,
        value: "IP|CIDR",
        parse: |s| Ok(Filter::Ip(Side::To, parse_ip(s)?)),
        help: "Only connections to this address; the address of the Service dialled counts too",
    },
    FilterOption {
        name: "port",
        short: None,
        value: "PORT",
        parse: |s| s.parse().map(Filter::Port).map_err(|_| "expected a port number from 0 to 65535".to_owned()),
        help: "Only connections to this port, of the server or of the Service dialled",
    },
    FilterOption {
        name: "protocol",
        short: None,
        value: "PROTOCOL",
        parse: |s| s.parse().map(Filter::Protocol).map_err(|error: crate::flow::UnknownProtocol| error.to_string()),
        help: "Only this protocol: TCP, UDP, SCTP, ICMP or ICMPv6",
    },
    FilterOption {
        name: "direction",
        short: None,
        value: "DIRECTION",
        parse: |s| parse_direction(s).map(Filter::Direction),
        help: "Only what policies deny in this direction: ingress or egress",
    },
    FilterOption {
        name: "policy",
        short: None,
        value: "[NAMESPACE/]NAME",
        parse: |s| Ok(Filter::Policy(s.parse()?)),
        help: "Only what this policy has a part in denying; a * at the end stands for any ending",
    },
    FilterOption {
        name: "reason",
        short: None,
        value: "REASON",
        parse: |s| Ok(Filter::Reason(s.to_owned())),
        help: "Only this kernel drop reason, by name or number, such as NETFILTER_DROP",
    },
    FilterOption {
        name: "class",
        short: None,
        value: "CLASS",
        parse: |s| s.parse().map(Filter::Class),
        help: "Only this kind of cause: policy-denied, policy-changed, dropped-reply, host-firewall, no-listener, service-without-endpoints, \
               no-route, reverse-path-filter, connection-state, noise or undecided",
    },
];

/// Reads filters from words that did not come from this command line.
///
/// # Errors
/// What is wrong with them, in one line or few.
pub(super) fn parse_words(words: &[String]) -> Result<Filters, String> {
    let command = FilterArgs::augment_args(clap::Command::new("filters")).no_binary_name(true).disable_help_flag(true);
    let parsed = command.try_get_matches_from(words).and_then(|matches| FilterArgs::from_arg_matches(&matches));
    parsed.map(|arguments| arguments.filters).map_err(|error| {
        let text = error.render().to_string();
        // Behind the first empty line is the usage, which is that of a command that nobody called.
        let said = text.split("\n\n").next().unwrap_or_default().trim();
        said.strip_prefix("error: ").unwrap_or(said).to_owned()
    })
}

impl Args for FilterArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        let filters = OPTIONS.iter().map(|option| {
            let arg = Arg::new(option.name)
                .long(option.name)
                .value_name(option.value)
                .value_parser(ValueParser::new(option.parse))
                .action(ArgAction::Append)
                .help_heading("Filters")
                .help(option.help);
            match option.short {
                Some(short) => arg.short(short),
                None => arg,
            }
        });
        // An option without values and not a flag: of a flag given twice clap keeps the last place only.
        let not = Arg::new(NOT)
            .long(NOT)
            .num_args(0)
            .default_missing_value("true")
            .value_parser(clap::value_parser!(bool))
            .action(ArgAction::Append)
            .help_heading("Filters")
            .help("Leave out what the filters behind it match, up to the next --not")
            .long_help(
                "Leave out what the filters behind it match, up to the next --not.\n\nA drop is shown when it matches the filters before \
                 the first --not, and none of the groups that the --nots begin. In each group, filters of one kind are alternatives, and \
                 of every kind given one has to match: `--not -n kube-system --port 53` leaves out DNS in kube-system, `--not -n \
                 kube-system --not --port 53` leaves out kube-system, and DNS everywhere.",
            );
        command.args(filters).arg(not)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for FilterArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        // `None` is a `--not`.
        let mut in_order: BTreeMap<usize, (Option<&Filter>, String)> = BTreeMap::new();
        for option in OPTIONS {
            let places = matches.indices_of(option.name).into_iter().flatten();
            let filters = matches.get_many::<Filter>(option.name).into_iter().flatten();
            let raw = matches.get_raw(option.name).into_iter().flatten();
            let words = raw.map(|value| format!("--{}={}", option.name, value.to_string_lossy()));
            in_order.extend(places.zip(filters.map(Some).zip(words)));
        }
        in_order.extend(matches.indices_of(NOT).into_iter().flatten().map(|place| (place, (None, format!("--{NOT}")))));

        let mut filters = Filters::default();
        let mut words = Vec::with_capacity(in_order.len());
        for (filter, word) in in_order.into_values() {
            words.push(word);
            match filter {
                None => filters.unwanted.push(Group::default()),
                Some(filter) => filters.unwanted.last_mut().unwrap_or(&mut filters.wanted).push(filter.clone()),
            }
        }
        if filters.unwanted.iter().any(Group::is_empty) {
            return Err(clap::Error::raw(ErrorKind::MissingRequiredArgument, "--not needs a filter behind it"));
        }
        Ok(FilterArgs { filters, words })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Filters, clap::Error> {
        let command = FilterArgs::augment_args(clap::Command::new("observer"));
        let matches = command.try_get_matches_from([&["observer"], arguments].concat())?;
        FilterArgs::from_arg_matches(&matches).map(|args| args.filters)
    }

    fn group(filters: impl IntoIterator<Item = Filter>) -> Group {
        let mut group = Group::default();
        for filter in filters {
            group.push(filter);
        }
        group
    }

    fn namespace(name: &str) -> Filter {
        Filter::Namespace(Side::Either, name.into())
    }

    #[test]
    fn not_turns_round_what_follows_it() {
        let filters = parse(&["-n", "a", "--not", "--port", "53", "-n", "b", "--not", "--port=80"]).unwrap();
        assert_eq!(filters.wanted, group([namespace("a")]));
        assert_eq!(filters.unwanted, [group([Filter::Port(53), namespace("b")]), group([Filter::Port(80)])]);
        let filters = parse(&["-n", "a", "--port", "53"]).unwrap();
        assert_eq!(filters.wanted, group([namespace("a"), Filter::Port(53)]));
        assert!(filters.unwanted.is_empty());
        assert_eq!(parse(&[]).unwrap(), Filters::default());
    }

    #[test]
    fn words_from_elsewhere() {
        let words = |words: &[&str]| parse_words(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(words(&["-n", "a", "--not", "--port", "53"]), Ok(parse(&["-n", "a", "--not", "--port", "53"]).unwrap()));
        assert_eq!(words(&[]), Ok(Filters::default()));
        for (bad, named) in [
            (&["--port", "http"][..], "--port"),
            (&["--frobnicate"], "--frobnicate"),
            (&["shop"], "shop"),
            (&["--help"], "--help"),
            (&["--manifests", "/etc/shadow"], "--manifests"),
            (&["-n"], "--namespace"),
        ] {
            let error = words(bad).unwrap_err();
            assert!(error.contains(named) && !error.contains("Usage") && !error.starts_with("error"), "{error}");
        }
    }

    #[test]
    fn the_order_of_different_options_is_kept() {
        let before = parse(&["--port", "53", "--not", "-n", "b"]).unwrap();
        let behind = parse(&["--not", "-n", "b", "--port", "53"]).unwrap();
        assert_eq!((before.wanted, before.unwanted), (group([Filter::Port(53)]), vec![group([namespace("b")])]));
        assert_eq!(behind.wanted, Group::default());
        assert_eq!(behind.unwanted, [group([namespace("b"), Filter::Port(53)])]);
    }

    #[test]
    fn the_words_mean_the_same() {
        let arguments = ["-n", "a", "--not", "--port=53", "-l", "app in (x, y)", "--not", "-lz", "--ip", "10.0.0.0/8"];
        let command = || FilterArgs::augment_args(clap::Command::new("observer"));
        let read = |words: &[&str]| {
            let matches = command().try_get_matches_from([&["observer"], words].concat()).unwrap();
            FilterArgs::from_arg_matches(&matches).unwrap()
        };
        let first = read(&arguments);
        let words: Vec<_> = first.words.iter().map(String::as_str).collect();
        assert_eq!(words, ["--namespace=a", "--not", "--port=53", "--selector=app in (x, y)", "--not", "--selector=z", "--ip=10.0.0.0/8"]);
        let again = read(&words);
        assert_eq!((again.filters, &again.words), (first.filters, &first.words));
    }

    #[test]
    fn a_not_without_filter_is_refused() {
        for arguments in [&["--not"][..], &["-n", "a", "--not"], &["--not", "--not", "-n", "a"]] {
            assert!(parse(arguments).unwrap_err().to_string().contains("--not needs a filter"), "{arguments:?}");
        }
    }

    #[test]
    fn values_that_make_no_sense_are_refused() {
        for arguments in [
            ["--port", "http"],
            ["--ip", "10.0.0"],
            ["--protocol", "tcpp"],
            ["--direction", "both"],
            ["--class", "denied"],
            ["--selector", "app in"],
            ["--pod", "a/b/c"],
        ] {
            let error = parse(&arguments).unwrap_err().to_string();
            assert!(error.contains(arguments[0]) && error.contains(arguments[1]), "{error}");
        }
        assert!(parse(&["--port", "x", "--class", "y"]).is_err());
    }
}

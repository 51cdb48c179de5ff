use proptest::prelude::*;

use super::*;

fn end(text: &str) -> String {
    End::parse(text, "dflt").map_or_else(|error| format!("error: {error}"), |end| end.to_string())
}

#[test]
fn ends() {
    for (text, expected) in [
        ("web", "dflt/web"),
        ("shop/web", "shop/web"),
        ("pod/web", "dflt/web"),
        ("shop/po/web", "shop/web"),
        ("Deploy/web", "Deployment dflt/web"),
        ("shop/statefulsets/db", "StatefulSet shop/db"),
        ("svc/api", "Service dflt/api"),
        ("node/n1", "node n1"),
        ("[fd00::1]", "fd00::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        (" 10.0.0.1 ", "10.0.0.1"),
        ("app=web", "pods of dflt with app=web"),
        ("shop/app=web,tier!=db", "pods of shop with app=web,tier!=db"),
        ("shop/!app", "pods of shop with !app"),
        ("app.kubernetes.io/name=x", "pods of dflt with app.kubernetes.io/name=x"),
        ("shop/app.kubernetes.io/name=x", "pods of shop with app.kubernetes.io/name=x"),
    ] {
        assert_eq!(end(text), expected, "{text}");
    }
    for text in ["", "/", "a/", "/a", "a/b/c/d", "a b", "10.0.0.0/8", "http://x", "a:80", "shop/app=", "shop/=x", "a/(b"] {
        let found = end(text);
        assert!(found.starts_with("error: ") || text == "shop/app=", "{text}: {found}");
    }
}

fn url(text: &str) -> String {
    match Url::parse(text) {
        Ok(Url { host, port, protocol, .. }) => {
            let host = match host {
                Host::Ip(ip) => format!("ip {ip}"),
                Host::Name(name) => name,
            };
            let port = port.map_or_else(|| "-".to_owned(), |port| port.to_string());
            format!("{host} {port}{}", protocol.map(|protocol| format!(" {protocol}")).unwrap_or_default())
        }
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn urls() {
    for (text, expected) in [
        ("http://api.shop:8080/orders?x=1#y", "api.shop 8080"),
        ("HTTP://API.Shop./", "api.shop 80"),
        ("https://api", "api 443"),
        ("https://api?x", "api 443"),
        ("postgres://user:p@ss@db.shop/orders", "db.shop 5432"),
        ("api", "api -"),
        ("api:80", "api 80"),
        ("udp://dns.kube-system:53", "dns.kube-system 53 UDP"),
        ("dns://dns.kube-system", "dns.kube-system 53 UDP"),
        ("http://10.0.0.1", "ip 10.0.0.1 80"),
        ("http://[fd00::1]:8080/", "ip fd00::1 8080"),
        ("[fd00::1]", "ip fd00::1 -"),
        ("fd00::1", "ip fd00::1 -"),
        ("foo://api:7", "api 7"),
    ] {
        assert_eq!(url(text), expected, "{text}");
    }
    for text in [
        "",
        "http://",
        "http://:80",
        "api:",
        "api:x",
        "api:0",
        "api:70000",
        "api:+80",
        "foo://api",
        "http://[fd00::1",
        "http://a..b",
        "a b",
    ] {
        assert!(url(text).starts_with("error: "), "{text}: {}", url(text));
    }
    let shown = Url::parse("https://user:secret@api.shop/x").unwrap().shown;
    assert_eq!(shown, "https://api.shop", "no password is shown");
}

#[test]
fn ports() {
    let of = |text: &str| text.parse::<PortProtocol>().map(|port| (port.port, port.protocol));
    assert_eq!(of("8080"), Ok((8080, None)));
    assert_eq!(of("53/udp"), Ok((53, Some(Protocol::Udp))));
    for text in ["", "0", "65536", "-1", "http", "80/", "80/x", "/tcp"] {
        assert!(of(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn nothing_typed_panics(text in "\\PC{0,40}|[a-z0-9:/@.\\[\\]=!,()?#%-]{0,40}|(\\PC|\\pC){0,20}") {
        _ = End::parse(&text, "default");
        _ = Url::parse(&text);
        _ = Callee::parse(&text, "default");
        _ = text.parse::<PortProtocol>();
        _ = profile::Switch::parse(&text);
    }

    #[test]
    fn no_question_panics(from in "[a-c/:.=]{1,8}|10.0.0.[1-3]", to in "(http://)?[a-c.:0-9/]{1,12}", port in proptest::option::of(any::<u16>())) {
        let engine = crate::policy::Engine::default();
        if let (Ok(from), Ok(to)) = (End::parse(&from, "a"), Callee::parse(&to, "a")) {
            let question = Question { from, to, port, protocol: None };
            let (explained, quick) = (explain(&question, &engine), verdict(&question, &engine));
            prop_assert_eq!(explained.map(|answer| answer.verdict), quick);
        }
    }
}

//! Where the receiver is, and what it wants to be told with each request.

use std::fmt;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme, Uri};

/// How requests are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Unary calls over HTTP/2.
    Grpc,
    /// POST with protobuf. What the specification asks for where nothing is said.
    #[default]
    Http,
}

/// A receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// How it is spoken to.
    pub protocol: Protocol,
    scheme: Scheme,
    authority: Authority,
    /// The path that those of the signals are appended to, without a slash at its end.
    base: String,
}

/// Why an endpoint or a header is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EndpointError(String);

impl Protocol {
    /// `grpc` or `http/protobuf`.
    ///
    /// # Errors
    /// It is something else.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        match text {
            "grpc" => Ok(Protocol::Grpc),
            "http/protobuf" => Ok(Protocol::Http),
            _ => Err(EndpointError(format!("expected grpc or http/protobuf, not {text:?}"))),
        }
    }

    fn port(self) -> u16 {
        match self {
            Protocol::Grpc => 4317,
            Protocol::Http => 4318,
        }
    }
}

/// As it is parsed.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Protocol::Grpc => "grpc",
            Protocol::Http => "http/protobuf",
        })
    }
}

impl Endpoint {
    /// From a URL, as OTEL_EXPORTER_OTLP_ENDPOINT has it. Without a port, `http` means OTLP's own, and `https` 443.
    ///
    /// # Errors
    /// It is no URL of http or https, or has parts that mean nothing.
    pub fn parse(url: &str, protocol: Protocol) -> Result<Self, EndpointError> {
        let failed = |why: &dyn fmt::Display| EndpointError(format!("{url:?} is no URL of a collector: {why}"));
        let has_scheme =
            ["http://", "https://"].iter().any(|scheme| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
        if !has_scheme {
            return Err(failed(&"it does not begin with http:// or https://"));
        }
        let parts = url.parse::<Uri>().map_err(|error| failed(&error))?.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else { return Err(failed(&"it names no host")) };
        if authority.as_str().contains('@') {
            return Err(EndpointError("a URL of a collector must not hold a password: credentials go into a file of headers".to_owned()));
        }
        let (base, query) = parts.path_and_query.map(|path| (path.path().to_owned(), path.query().map(str::to_owned))).unwrap_or_default();
        if query.is_some() {
            return Err(failed(&"it has a query"));
        }
        let authority = match authority.port_u16() {
            Some(0) => return Err(failed(&"port 0")),
            Some(_) => authority,
            None if authority.as_str().len() > authority.host().len() => return Err(failed(&"its port is no number up to 65535")),
            None if scheme == Scheme::HTTPS => authority,
            None => format!("{}:{}", authority.host(), protocol.port()).parse().map_err(|error| failed(&error))?,
        };
        Ok(Endpoint { protocol, scheme, authority, base: base.trim_end_matches('/').to_owned() })
    }

    /// Whether what is sent can be read on its way.
    pub fn is_plain(&self) -> bool {
        self.scheme == Scheme::HTTP
    }

    /// Where HTTP requests of a signal go: `/v1/logs` and `/v1/metrics` behind the base.
    pub(super) fn uri(&self, path: &'static str) -> Result<Uri, http::Error> {
        let path: PathAndQuery = format!("{}{path}", self.base).parse()?;
        Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query(path).build()
    }

    /// Where gRPC calls go. A path has no meaning for them.
    pub(super) fn origin(&self) -> Result<Uri, http::Error> {
        Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone()).path_and_query("/").build()
    }
}

/// As people write it.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority)?;
        if self.protocol == Protocol::Http { f.write_str(&self.base) } else { Ok(()) }
    }
}

/// Headers from a file: `Name: value`, one a line. Empty lines and those that begin with `#` say nothing.
///
/// # Errors
/// A line is no header, or one that is not to be set; the message names the line and never its value.
pub fn headers_from_lines(text: &str) -> Result<HeaderMap, EndpointError> {
    let mut headers = HeaderMap::new();
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| EndpointError(format!("line {number} is not `Name: value`")))?;
        put(&mut headers, name.trim(), value.trim()).map_err(|why| EndpointError(format!("line {number}: {why}")))?;
    }
    Ok(headers)
}

/// Headers as OTEL_EXPORTER_OTLP_HEADERS has them: `name=value,name=value`, values percent-encoded.
///
/// # Errors
/// A part is no header, or one that is not to be set.
pub fn headers_from_list(text: &str) -> Result<HeaderMap, EndpointError> {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs(text)? {
        put(&mut headers, &name, &value).map_err(EndpointError)?;
    }
    Ok(headers)
}

/// `key=value,key=value`, values percent-encoded: the form of the lists in OTEL_ variables.
///
/// # Errors
/// A part has no `=`, or an encoding that is none; the message names its key or its number.
pub fn pairs(text: &str) -> Result<Vec<(String, String)>, EndpointError> {
    let mut pairs = Vec::new();
    for (number, part) in text.split(',').map(str::trim).enumerate().filter(|(_, part)| !part.is_empty()) {
        let (name, value) = part.split_once('=').ok_or_else(|| EndpointError(format!("part {} is not `name=value`", number + 1)))?;
        let name = name.trim();
        let value = decode(value.trim()).ok_or_else(|| EndpointError(format!("the value of {name:?} is not percent-encoded text")))?;
        pairs.push((name.to_owned(), value));
    }
    Ok(pairs)
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes().iter();
    while let Some(byte) = rest.next() {
        let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(if *byte == b'%' { digit(rest.next())? << 4 | digit(rest.next())? } else { *byte });
    }
    String::from_utf8(bytes).ok()
}

/// Headers that are the transport's.
const RESERVED: &[&str] =
    &["connection", "content-encoding", "content-length", "content-type", "host", "te", "trailer", "transfer-encoding", "upgrade"];

fn put(headers: &mut HeaderMap, name: &str, value: &str) -> Result<(), String> {
    let name: HeaderName = name.parse().map_err(|_| format!("{name:?} is no name of a header"))?;
    let text = name.as_str();
    if RESERVED.contains(&text) || text.starts_with("grpc-") || text.ends_with("-bin") {
        return Err(format!("{text} cannot be set"));
    }
    let mut value = HeaderValue::from_str(value).map_err(|_| format!("the value of {text} holds characters that no header may"))?;
    if value.to_str().is_err() {
        return Err(format!("the value of {text} is not ASCII"));
    }
    value.set_sensitive(true);
    headers.insert(name, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn http(url: &str) -> Result<String, String> {
        let endpoint = Endpoint::parse(url, Protocol::Http).map_err(|error| error.to_string())?;
        Ok(endpoint.uri("/v1/logs").unwrap().to_string())
    }

    #[test]
    fn urls_are_as_the_specification_has_them() {
        for (url, expected) in [
            ("http://collector:4318", "http://collector:4318/v1/logs"),
            ("http://collector", "http://collector:4318/v1/logs"),
            ("http://[2001:db8::1]", "http://[2001:db8::1]:4318/v1/logs"),
            ("https://collector/", "https://collector/v1/logs"),
            ("https://collector:8443/otlp/", "https://collector:8443/otlp/v1/logs"),
            ("HTTPS://collector/a/b", "https://collector/a/b/v1/logs"),
        ] {
            assert_eq!(http(url).unwrap(), expected, "{url}");
        }
        let grpc = Endpoint::parse("http://collector/ignored", Protocol::Grpc).unwrap();
        assert_eq!(
            (grpc.origin().unwrap().to_string().as_str(), grpc.to_string().as_str()),
            ("http://collector:4317/", "http://collector:4317")
        );
        assert!(grpc.is_plain());
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for (url, why) in [
            ("collector:4317", "begin with http"),
            ("", "begin with http"),
            ("ftp://collector", "begin with http"),
            ("http://", "no URL"),
            ("http://a b", "no URL"),
            ("http://collector:99999", "no URL"),
            ("http://collector:0", "port 0"),
            ("http://collector:", "port is no number"),
            ("http://user:secret@collector", "password"),
            ("http://collector/?x=1", "query"),
        ] {
            let error = http(url).unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{url}: {error}");
        }
    }

    #[test]
    fn headers_are_read_and_their_values_never_told() {
        let headers = headers_from_lines("# key\n\nAuthorization: Bearer a:b \napi-key:x\n").unwrap();
        assert_eq!((headers["authorization"].to_str().unwrap(), headers["api-key"].to_str().unwrap()), ("Bearer a:b", "x"));
        let headers = headers_from_list("authorization=Basic%20Zm9v, api-key=x,").unwrap();
        assert_eq!((headers["authorization"].to_str().unwrap(), headers.len()), ("Basic Zm9v", 2));
        for (text, why) in [
            ("a: 1\nsecret", "line 2 is not"),
            ("a b: secret", "line 1: \"a b\" is no name"),
            ("Host: secret", "line 1: host cannot be set"),
            ("grpc-timeout: secret", "cannot be set"),
            ("x: secr\u{e9}t", "not ASCII"),
            ("x: a\u{1}secret", "no header may"),
        ] {
            let error = headers_from_lines(text).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
        for (text, why) in
            [("secret", "part 1 is not"), ("x=secret%2", "the value of \"x\""), ("x=%zz", "percent-encoded"), ("x=%+1", "percent")]
        {
            let error = headers_from_list(text).unwrap_err().to_string();
            assert!(error.contains(why) && !error.contains("secret"), "{error}");
        }
    }
}

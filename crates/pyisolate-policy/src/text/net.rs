//! The section `net`: hosts, ports, URLs.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use super::reader::{Reader, shorten};
use super::tree::{Located, Value};
use crate::cover::ANY_METHOD;
use crate::policy::{Effect, Rule};
use crate::prefix;
use crate::right::{ConnectRight, HostPattern, HttpRight, Right};
use crate::url::{HttpUrl, Scheme};

/// Every port.
pub(crate) const PORTS: RangeInclusive<u16> = 1..=u16::MAX;

const CONNECT_EXAMPLE: &str = "db.example.org:5432, or {host: db.example.org, ports: 8000-8100}";
const URL_EXAMPLE: &str = "https://api.example.org/v1";

/// Reads what `net` grants, and its own denials.
pub(crate) fn grants(reader: &mut Reader, node: &Located, rules: &mut Vec<Rule>) {
    let fields = reader.fields(node, "net", &["connect", "http", "resolve", "deny"]);
    for node in reader.items(fields.get("connect")) {
        if let Some(right) = connect(reader, node, Effect::Allow) {
            rules.push(reader.rule(Effect::Allow, Right::Connect(right), node.spot));
        }
    }
    for node in reader.items(fields.get("http")) {
        if let Some(right) = http(reader, node, Effect::Allow) {
            rules.push(reader.rule(Effect::Allow, Right::Http(right), node.spot));
        }
    }
    for node in reader.items(fields.get("resolve")) {
        if let Some(pattern) = reader.parsed(node, "a host") {
            rules.push(reader.rule(Effect::Allow, Right::Resolve(pattern), node.spot));
        }
    }
    denials(reader, fields.get("deny"), rules);
}

/// Reads what is denied: a host for everything with it, `host:port` for everything at that port, a
/// URL for requests, or one of `connect`, `http` and `resolve`.
pub(crate) fn denials(reader: &mut Reader, node: Option<&Located>, rules: &mut Vec<Rule>) {
    for node in reader.items(node) {
        let rights = match &node.value {
            Value::Table(_) => denied_table(reader, node),
            Value::Text(text) if text.contains("://") => {
                http(reader, node, Effect::Deny).map(Right::Http).into_iter().collect()
            }
            _ => denied_host(reader, node),
        };
        for right in rights {
            rules.push(reader.rule(Effect::Deny, right, node.spot));
        }
    }
}

fn denied_table(reader: &mut Reader, node: &Located) -> Vec<Right> {
    let before = reader.problems.len();
    let fields = reader.fields(node, "a denial", &["connect", "http", "resolve"]);
    let mut rights = Vec::new();
    for node in reader.items(fields.get("connect")) {
        rights.extend(connect(reader, node, Effect::Deny).map(Right::Connect));
    }
    for node in reader.items(fields.get("http")) {
        rights.extend(http(reader, node, Effect::Deny).map(Right::Http));
    }
    for node in reader.items(fields.get("resolve")) {
        rights.extend(reader.parsed(node, "a host").map(Right::Resolve));
    }
    if rights.is_empty() && reader.problems.len() == before {
        reader.problem(node.spot, "this denies nothing", "write it as {connect: host:port}");
    }
    rights
}

fn denied_host(reader: &mut Reader, node: &Located) -> Vec<Right> {
    let Some(text) = reader.text(node, "a host, host:port or URL") else { return Vec::new() };
    let whole: Result<HostPattern, _> = bare(text).parse();
    let requests = |host: HostPattern, port| HttpRight {
        scheme: None,
        host,
        port,
        path: "/".to_owned(),
        methods: [ANY_METHOD.to_owned()].into(),
        private: false,
    };
    match (whole, split_port(text)) {
        (Ok(host), _) => vec![
            Right::Connect(ConnectRight { host: host.clone(), ports: PORTS, private: false }),
            Right::Http(requests(host.clone(), None)),
            Right::Resolve(host),
        ],
        (Err(_), Some((host, ports))) => {
            let Some(right) = connect_text(reader, node, host, ports) else { return Vec::new() };
            let mut rights = Vec::new();
            // A range has no short form as requests; each port of it would be a rule.
            if right.ports.start() == right.ports.end() {
                rights.push(Right::Http(requests(right.host.clone(), Some(*right.ports.start()))));
            } else if right.ports == PORTS {
                rights.push(Right::Http(requests(right.host.clone(), None)));
            } else {
                let advice = "write {connect: host:8000-8100}, and {http: ...} for requests";
                reader.problem(node.spot, "a range of ports is denied to connections only", advice);
            }
            rights.insert(0, Right::Connect(right));
            rights
        }
        (Err(error), None) => {
            reader.problem(node.spot, error.to_string(), "");
            Vec::new()
        }
    }
}

/// Without the brackets around an IPv6 address or network.
fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// `host:port`, where a host with colons has brackets.
fn split_port(text: &str) -> Option<(&str, &str)> {
    let (host, ports) = text.rsplit_once(':')?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    (bracketed || !host.contains([':', '[', ']'])).then_some((host, ports))
}

/// `443`, `8000-8100` or `*`.
fn ports(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u16>().ok()).flatten().filter(|port| *port > 0)
    };
    if text == "*" {
        return Some(PORTS);
    }
    let (low, high) = match text.split_once('-') {
        Some((low, high)) => (port(low)?, port(high)?),
        None => (port(text)?, port(text)?),
    };
    (low <= high).then_some(low..=high)
}

fn port_problem(reader: &mut Reader, node: &Located) {
    let advice = "use a number from 1 to 65535, a range as in 8000-8100, or *";
    reader.problem(node.spot, "this is no port", advice);
}

fn connect(reader: &mut Reader, node: &Located, effect: Effect) -> Option<ConnectRight> {
    if !matches!(node.value, Value::Table(_)) {
        let text = reader.text(node, "a host and port")?;
        let Some((host, ports)) = split_port(text) else {
            let message = format!("{:?} has no port", shorten(text));
            let advice = match text.matches(':').count() {
                0 | 1 => format!("write it as {CONNECT_EXAMPLE}"),
                _ => "an IPv6 address before a port has brackets, as in [::1]:80".to_owned(),
            };
            reader.problem(node.spot, message, advice);
            return None;
        };
        return connect_text(reader, node, host, ports);
    }
    let fields = reader.fields(node, "a connection", &["host", "port", "ports", "private"]);
    let host = fields.get("host").and_then(|node| host_pattern(reader, node));
    let (one, many) = (fields.get("port"), fields.get("ports"));
    let range = match one.or(many) {
        Some(node) => {
            let range = match &node.value {
                Value::Number(number) => ports(&number.to_string()),
                Value::Text(text) => ports(text),
                _ => None,
            };
            if range.is_none() {
                port_problem(reader, node);
            }
            range
        }
        None if effect == Effect::Deny => Some(PORTS),
        None => None,
    };
    if fields.get("host").is_none() || (range.is_none() && one.or(many).is_none()) {
        let advice = format!("write it as {CONNECT_EXAMPLE}");
        reader.problem(node.spot, "the host or port is missing", advice);
    }
    if let (Some(_), Some(many)) = (one, many) {
        reader.problem(many.spot, "\"ports\" stands beside \"port\"", "keep one of them");
    }
    let private = reader.bool(fields.get("private"));
    Some(ConnectRight { host: host?, ports: range?, private })
}

fn connect_text(
    reader: &mut Reader,
    node: &Located,
    host: &str,
    range: &str,
) -> Option<ConnectRight> {
    let range = ports(range).or_else(|| {
        port_problem(reader, node);
        None
    });
    match bare(host).parse() {
        Ok(host) => Some(ConnectRight { host, ports: range?, private: false }),
        Err(error) => {
            let error: crate::pattern::PatternError = error;
            reader.problem(node.spot, error.to_string(), "");
            None
        }
    }
}

fn host_pattern(reader: &mut Reader, node: &Located) -> Option<HostPattern> {
    let text = reader.text(node, "a host")?;
    match bare(text).parse::<HostPattern>() {
        Ok(host) => Some(host),
        Err(error) => {
            reader.problem(node.spot, error.to_string(), "");
            None
        }
    }
}

const HTTP_KEYS: [&str; 7] = ["url", "methods", "private", "scheme", "host", "port", "path"];

fn http(reader: &mut Reader, node: &Located, effect: Effect) -> Option<HttpRight> {
    let mut right = HttpRight {
        scheme: None,
        host: HostPattern::Any,
        port: None,
        path: "/".to_owned(),
        methods: default_methods(effect),
        private: false,
    };
    if !matches!(node.value, Value::Table(_)) {
        let text = reader.text(node, "a URL")?;
        let good = url(reader, node, text, &mut right);
        return (good && is_clear(reader, node, &right, effect)).then_some(right);
    }
    let fields = reader.fields(node, "a request", &HTTP_KEYS);
    right.private = reader.bool(fields.get("private"));
    match fields.get("methods").map(|node| (node, &node.value)) {
        None => {}
        // To deny a request is to deny it by every method.
        Some((_, Value::Null)) if effect == Effect::Deny => {}
        Some((node, _)) => {
            let before = reader.problems.len();
            right.methods = methods(reader, node);
            if effect == Effect::Deny && right.methods.is_empty() && reader.problems.len() == before
            {
                reader.problem(node.spot, "this denies nothing", "name a method, or * for all");
            }
        }
    }
    let good = match (fields.get("url"), fields.get("host")) {
        (Some(node), None) => {
            for key in ["scheme", "port", "path"] {
                if let Some(entry) = fields.entry(key) {
                    let message = format!("{key:?} is a part of the URL");
                    reader.problem(entry.spot, message, "write it into \"url\"");
                }
            }
            let text = reader.text(node, "a URL")?;
            url(reader, node, text, &mut right)
        }
        (None, Some(host)) => {
            right.host = host_pattern(reader, host)?;
            if let Some(node) = fields.get("scheme") {
                right.scheme = match reader.text(node, "http or https")? {
                    "http" => Some(Scheme::Http),
                    "https" => Some(Scheme::Https),
                    _ => {
                        reader.problem(node.spot, "the scheme is http or https", "");
                        return None;
                    }
                };
            }
            if let Some(node) = fields.get("port") {
                match reader.number(node).map(u16::try_from) {
                    Some(Ok(port)) if port > 0 => right.port = Some(port),
                    _ => port_problem(reader, node),
                }
            }
            match fields.get("path").map(|node| (node, reader.text(node, "a path"))) {
                Some((node, Some(text))) => path(reader, node, text, &mut right),
                Some((_, None)) => false,
                None => true,
            }
        }
        _ => {
            let advice = format!("write it as {{url: {URL_EXAMPLE}}}, or {{host: 10.0.0.0/8}}");
            reader.problem(node.spot, "a request needs either \"url\" or \"host\"", advice);
            false
        }
    };
    (good && is_clear(reader, node, &right, effect) && !right.methods.is_empty()).then_some(right)
}

/// Whether a grant's path has one reading; one with more would cover no request.
fn is_clear(reader: &mut Reader, node: &Located, right: &HttpRight, effect: Effect) -> bool {
    let clear = effect == Effect::Deny || prefix::is_plain(&right.path);
    if !clear {
        let message = "servers read this path in different ways, so it cannot be granted";
        reader.problem(node.spot, message, "grant the part before the odd component");
    }
    clear
}

/// GET and HEAD, which change nothing, are what a grant means if it does not say; a denial means
/// everything.
pub(crate) fn default_methods(effect: Effect) -> BTreeSet<String> {
    match effect {
        Effect::Allow => ["GET".to_owned(), "HEAD".to_owned()].into(),
        Effect::Deny => [ANY_METHOD.to_owned()].into(),
    }
}

fn methods(reader: &mut Reader, node: &Located) -> BTreeSet<String> {
    let mut methods = BTreeSet::new();
    for node in reader.items(Some(node)) {
        let Some(text) = reader.text(node, "a method") else { continue };
        let method = text.to_ascii_uppercase();
        if is_method(&method) {
            methods.insert(method);
        } else {
            let message = format!("{:?} is no method", shorten(text));
            reader.problem(node.spot, message, "use GET, POST and the like, or * for all");
        }
    }
    methods
}

fn is_method(method: &str) -> bool {
    let fits =
        |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    method == ANY_METHOD || (!method.is_empty() && method.len() <= 32 && method.bytes().all(fits))
}

/// Reads a URL whose host may be a pattern.
fn url(reader: &mut Reader, node: &Located, text: &str, right: &mut HttpRight) -> bool {
    let (scheme, rest) = match text.split_once("://") {
        Some(("https", rest)) => (Scheme::Https, rest),
        Some(("http", rest)) => (Scheme::Http, rest),
        _ => {
            let message = format!("{:?} is no http or https URL", shorten(text));
            reader.problem(node.spot, message, format!("write it as {URL_EXAMPLE}"));
            return false;
        }
    };
    let (authority, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (host, port) = match split_port(authority) {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    right.scheme = Some(scheme);
    if let Some(port) = port {
        match ports(port) {
            Some(range) if range.start() == range.end() => right.port = Some(*range.start()),
            _ => {
                port_problem(reader, node);
                return false;
            }
        }
    }
    match bare(host).parse::<HostPattern>() {
        Ok(host) => right.host = host,
        Err(error) => {
            reader.problem(node.spot, error.to_string(), "");
            return false;
        }
    }
    path(reader, node, if rest.is_empty() { "/" } else { rest }, right)
}

fn path(reader: &mut Reader, node: &Located, text: &str, right: &mut HttpRight) -> bool {
    match clean_path(text) {
        Some(path) => {
            right.path = path;
            true
        }
        None => {
            let advice = "it begins with '/', and has no '?', '#', '*' or '\\\\'";
            reader.problem(node.spot, "this is no path of a URL", advice);
            false
        }
    }
}

/// A path as requests have it, so that the two can be compared. A star would be taken for a
/// wildcard, which a prefix has not.
pub(crate) fn clean_path(text: &str) -> Option<String> {
    if !text.starts_with('/') || text.contains(['?', '#', '*']) {
        return None;
    }
    let url: HttpUrl = format!("https://host.invalid{text}").parse().ok()?;
    Some(url.path)
}

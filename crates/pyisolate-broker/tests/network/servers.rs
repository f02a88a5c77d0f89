//! Real servers on loopback, and cells' sessions that talk to them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pyisolate_abi::pickle::Value;
use pyisolate_broker::{
    Broker, BrokerOptions, Denied, Failure, Granted, Refusal, Resolve, SecretValue, Session,
    SessionOptions,
};
use pyisolate_policy::{
    CellName, ConnectRight, Effect, HostPattern, HttpRight, Limits, Origin, Policy, Right, Rule,
    Scheme, SecretRight,
};

/// Something that listens, with a thread for each connection. Ends when it is dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) taken: Arc<AtomicUsize>,
    ends: Arc<AtomicBool>,
    address: SocketAddr,
}

impl Server {
    pub(crate) fn new(handle: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::at(Ipv4Addr::LOCALHOST.into(), handle).unwrap()
    }

    pub(crate) fn at(
        ip: IpAddr,
        handle: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind((ip, 0))?;
        let address = listener.local_addr()?;
        let taken = Arc::new(AtomicUsize::new(0));
        let ends = Arc::new(AtomicBool::new(false));
        let handle = Arc::new(handle);
        let (count, over) = (Arc::clone(&taken), Arc::clone(&ends));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                count.fetch_add(1, Ordering::SeqCst);
                let handle = Arc::clone(&handle);
                let stream = stream.unwrap();
                std::thread::spawn(move || handle(stream));
            }
        });
        Ok(Self { port: address.port(), taken, ends, address })
    }

    /// Answers every request with what `answer` makes of it, and closes.
    pub(crate) fn http(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::http_at(Ipv4Addr::LOCALHOST.into(), answer)
    }

    pub(crate) fn http_at(
        ip: IpAddr,
        answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        let served = Self::at(ip, move |mut stream| {
            if let Some(asked) = Asked::read(&mut stream) {
                let _ = stream.write_all(&answer(&asked));
                farewell(&stream);
            }
        });
        served.unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

/// Closes without a reset: what the other side sent has to be read first.
pub(crate) fn farewell(stream: &TcpStream) {
    let _ = stream.shutdown(Shutdown::Write);
    let _ = std::io::copy(&mut { stream }, &mut std::io::sink());
}

/// Waits until the other side closes.
pub(crate) fn wait_for_close(mut stream: &TcpStream) {
    let _ = std::io::copy(&mut stream, &mut std::io::sink());
}

/// A request as a server got it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Asked {
    pub(crate) fn read(stream: &mut impl Read) -> Option<Self> {
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(b"\r\n\r\n") {
            if stream.read(&mut byte).ok()? == 0 {
                return None;
            }
            text.push(byte[0]);
        }
        let text = String::from_utf8(text).unwrap();
        let mut lines = text.trim_end().split("\r\n");
        let line = lines.next().unwrap().to_owned();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        let mut asked = Self { line, headers, body: Vec::new() };
        let length = asked.header("content-length").map_or(0, |length| length.parse().unwrap());
        asked.body.resize(length, 0);
        stream.read_exact(&mut asked.body).ok()?;
        Some(asked)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap()
    }
}

/// An answer with a length.
pub(crate) fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    answer("200 OK", "", body)
}

pub(crate) fn answer(status: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let mut all =
        format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n").into_bytes();
    all.extend_from_slice(body);
    all
}

pub(crate) fn redirect(status: &str, to: &str) -> Vec<u8> {
    answer(status, &format!("Location: {to}\r\n"), "")
}

/// A resolver with answers of the test's, the last of which is repeated.
#[derive(Debug, Default)]
pub(crate) struct Names {
    answers: Mutex<BTreeMap<String, Vec<Vec<IpAddr>>>>,
    pub(crate) asked: AtomicUsize,
    /// Never answers this name before the test is over.
    pub(crate) silent: Option<String>,
}

impl Names {
    pub(crate) fn new(names: &[(&str, &[&[&str]])]) -> Arc<Self> {
        let read = |answer: &&[&str]| answer.iter().map(|ip| ip.parse().unwrap()).collect();
        let answers = names
            .iter()
            .map(|(name, answers)| ((*name).to_owned(), answers.iter().map(read).collect()))
            .collect();
        Arc::new(Self { answers: Mutex::new(answers), ..Self::default() })
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Resolve for Names {
    fn resolve(&self, name: &str) -> std::io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if self.silent.as_deref() == Some(name) {
            std::thread::sleep(Duration::from_secs(3600));
        }
        let mut answers = self.answers.lock().unwrap();
        let answers = answers.get_mut(name).ok_or_else(|| std::io::Error::other("no such name"))?;
        Ok(if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() })
    }
}

// --- policies

fn rule(effect: Effect, right: Right) -> Rule {
    Rule { effect, right, origin: Origin { source: "test.yml".into(), line: 7, column: 1 } }
}

pub(crate) fn connect(host: &str, private: bool) -> Rule {
    let host: HostPattern = host.parse().unwrap();
    rule(Effect::Allow, Right::Connect(ConnectRight { host, ports: 1..=65535, private }))
}

pub(crate) fn deny_connect(host: &str) -> Rule {
    Rule { effect: Effect::Deny, ..connect(host, false) }
}

/// Requests with any method to a host, at one port, as the policy's text would have it.
pub(crate) fn http(scheme: Option<Scheme>, host: &str, port: u16, path: &str) -> Rule {
    let right = HttpRight {
        scheme,
        host: host.parse().unwrap(),
        port: Some(port),
        path: path.to_owned(),
        methods: ["*".to_owned()].into(),
        private: true,
    };
    rule(Effect::Allow, Right::Http(right))
}

pub(crate) fn deny_http(host: &str, port: u16, path: &str) -> Rule {
    Rule { effect: Effect::Deny, ..http(None, host, port, path) }
}

pub(crate) fn secret(name: &str, reveal: bool, hosts: &[&str]) -> Rule {
    let hosts = hosts.iter().map(|host| host.parse().unwrap()).collect();
    rule(Effect::Allow, Right::Secret(SecretRight { name: name.to_owned(), reveal, hosts }))
}

pub(crate) fn policy(rules: &[Rule]) -> Arc<Policy> {
    Arc::new(Policy { rules: rules.to_vec(), ..Policy::default() })
}

// --- sessions

/// How a session is to be.
pub(crate) struct Cell {
    pub(crate) rules: Vec<Rule>,
    pub(crate) names: Option<Arc<Names>>,
    pub(crate) secrets: Vec<(&'static str, SecretValue)>,
    pub(crate) limits: Limits,
    pub(crate) roots: Option<Vec<Vec<u8>>>,
    pub(crate) takes_descriptors: bool,
}

impl Cell {
    pub(crate) fn new(rules: impl Into<Vec<Rule>>) -> Self {
        Self {
            rules: rules.into(),
            names: None,
            secrets: Vec::new(),
            limits: Limits::default(),
            roots: None,
            takes_descriptors: true,
        }
    }

    pub(crate) fn session(self) -> Arc<Session> {
        let resolver = self.names.map(|names| names as Arc<dyn Resolve>);
        let options = BrokerOptions { resolver, tls_roots: self.roots, ..Default::default() };
        let secrets = self.secrets.into_iter().map(|(name, value)| (name.to_owned(), value));
        let session = SessionOptions {
            cell: CellName::new("test").unwrap(),
            policy: policy(&self.rules),
            limits: self.limits,
            secrets: secrets.collect(),
            takes_descriptors: self.takes_descriptors,
            scratch: None,
            journal: None,
        };
        Arc::new(Session::new(Arc::new(Broker::new(options)), session))
    }
}

/// Requests anywhere on IPv4's loopback, at this port.
pub(crate) fn cell_for(server: &Server) -> Arc<Session> {
    Cell::new([http(None, "127.0.0.0/8", server.port, "/")]).session()
}

// --- requests

pub(crate) fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

pub(crate) fn dict(entries: &[(&str, Value)]) -> Value {
    Value::Dict(entries.iter().map(|(key, value)| (text(key), value.clone())).collect())
}

pub(crate) fn ask(
    session: &Session,
    capability: &str,
    action: &str,
    entries: &[(&str, Value)],
) -> Result<Granted, Refusal> {
    let ready =
        session.begin(capability, action, &dict(entries)).map_err(|refused| refused.refusal)?;
    ready.perform(session)
}

pub(crate) fn ask_connect(session: &Session, host: &str, port: u16) -> Result<Granted, Refusal> {
    let port = Value::Int(port.into());
    ask(session, "network", "connect", &[("host", text(host)), ("port", port)])
}

/// A request, by its method, URL and what else is said.
pub(crate) fn ask_http(
    session: &Session,
    method: &str,
    url: &str,
    more: &[(&str, Value)],
) -> Result<Answer, Refusal> {
    let mut entries = vec![("method", text(method)), ("url", text(url))];
    entries.extend_from_slice(more);
    ask(session, "network", "http", &entries).map(|granted| Answer(granted.value))
}

pub(crate) fn get(session: &Session, url: &str) -> Result<Answer, Refusal> {
    ask_http(session, "GET", url, &[])
}

pub(crate) fn headers(pairs: &[(&str, &str)]) -> (&'static str, Value) {
    let pair = |(name, value): &(&str, &str)| Value::List(vec![text(name), text(value)]);
    ("headers", Value::List(pairs.iter().map(pair).collect()))
}

/// What a guest gets for a request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer(pub(crate) Value);

impl Answer {
    pub(crate) fn field(&self, name: &str) -> &Value {
        let Value::Dict(entries) = &self.0 else { panic!("{self:?}") };
        &entries.iter().find(|(key, _)| *key == text(name)).unwrap().1
    }

    pub(crate) fn status(&self) -> i64 {
        let Value::Int(status) = self.field("status") else { panic!("{self:?}") };
        *status
    }

    pub(crate) fn url(&self) -> &str {
        let Value::Text(url) = self.field("url") else { panic!("{self:?}") };
        url
    }

    pub(crate) fn handle(&self) -> Option<Value> {
        Some(self.field("handle").clone()).filter(|handle| *handle != Value::None)
    }

    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let Value::List(pairs) = self.field("headers") else { panic!("{self:?}") };
        pairs.iter().find_map(|pair| match pair {
            Value::List(pair) => match &pair[..] {
                [Value::Text(other), Value::Text(value)] if other.eq_ignore_ascii_case(name) => {
                    Some(value.clone())
                }
                _ => None,
            },
            _ => panic!("{self:?}"),
        })
    }

    /// The whole body, read to its end.
    pub(crate) fn body(&self, session: &Session) -> Result<Vec<u8>, Refusal> {
        let Value::Bytes(first) = self.field("body") else { panic!("{self:?}") };
        let mut all = first.clone();
        if let Some(handle) = self.handle() {
            loop {
                let piece = receive(session, &handle)?;
                if piece.is_empty() {
                    break;
                }
                all.extend_from_slice(&piece);
            }
        }
        Ok(all)
    }
}

pub(crate) fn receive(session: &Session, handle: &Value) -> Result<Vec<u8>, Refusal> {
    let granted = ask(session, "network", "receive", &[("handle", handle.clone())])?;
    let Value::Bytes(piece) = granted.value else { panic!("{granted:?}") };
    Ok(piece)
}

#[track_caller]
pub(crate) fn denied<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Denied {
    match result {
        Err(Refusal::Denied(denied)) => *denied,
        other => panic!("not denied: {other:?}"),
    }
}

#[track_caller]
pub(crate) fn failed<T: std::fmt::Debug>(result: Result<T, Refusal>) -> Failure {
    match result {
        Err(Refusal::Failed(failure)) => failure,
        other => panic!("not failed: {other:?}"),
    }
}

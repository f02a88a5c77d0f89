//! Rights in the plain form that Python's authorities are made of: a kind, and fields by name.
//!
//! The names are those of the dataclasses in `pyisolate.authorities`. A right that is read here is
//! put through the policy text once, so that what no text could say is refused, and the rest has
//! the one spelling that the text gives it.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;

use pyisolate_supervisor::LimitName;
use pyisolate_supervisor::policy::{
    ClockAction, ConnectRight, Direction, Document, Effect, FilesRight, Format, HostPattern,
    HttpRight, Origin, Policy, Problem, Right, Rule, RunRight, Scheme, SecretRight,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::errors::value_error;
use crate::fields::Fields;
use crate::limits;

/// What an authority comes to.
pub(crate) enum Part {
    /// A rule's right.
    Right(Right),
    /// A limit.
    Limit(LimitName, u64),
}

const CLOCK_ACTIONS: [(&str, ClockAction); 3] = [
    ("time", ClockAction::Time),
    ("monotonic", ClockAction::Monotonic),
    ("sleep", ClockAction::Sleep),
];
const DIRECTIONS: [(&str, Direction); 2] =
    [("send", Direction::Send), ("receive", Direction::Receive)];

/// Checks an authority's fields and returns them in their one spelling.
#[pyfunction]
pub(crate) fn checked<'py>(
    py: Python<'py>,
    kind: &str,
    fields: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyDict>> {
    // A secret's name alone says something only where it is denied, and then that is all of it.
    let is_name = kind == "secret" && secret_is_open(&Fields(fields))?;
    let effect = if is_name { Effect::Deny } else { Effect::Allow };
    let Part::Right(right) = part(kind, fields, effect)? else { return Ok(fields.clone()) };
    let checked = written(py, &right)?.1;
    if is_name {
        checked.set_item("reveal", false)?;
        checked.set_item("use", PyTuple::empty(py))?;
    }
    for (name, given) in fields {
        // What was left open is decided by whether it is granted or denied.
        if given.is_none() {
            checked.set_item(name, given)?;
        }
    }
    Ok(checked)
}

/// Splits `host:port`, `host:first-last`, `host:*` or `[address]:port`.
#[pyfunction]
pub(crate) fn split_address<'py>(
    py: Python<'py>,
    address: &str,
) -> PyResult<(String, Bound<'py, PyAny>)> {
    let wrong = || value_error(format!("{address:?} is no address: write it as host:port"));
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bare.is_none() && host.contains(':') {
        return Err(value_error(format!("{address:?}: write an IPv6 address as [::1]:80")));
    }
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    let ports = match port.split_once('-') {
        _ if port == "*" => 1..=u16::MAX,
        Some((first, last)) => number(first)?..=number(last)?,
        None => number(port)?..=number(port)?,
    };
    Ok((bare.unwrap_or(host).to_owned(), ports_object(py, &ports)?))
}

/// Reads an authority. What it leaves open is little where it is granted, and all where it is denied.
pub(crate) fn part(kind: &str, fields: &Bound<'_, PyDict>, effect: Effect) -> PyResult<Part> {
    let fields = Fields(fields);
    let files = |read, write| -> PyResult<Right> {
        Ok(Right::Files(FilesRight { read, write, pattern: fields.parsed_path("path")? }))
    };
    let right = match kind {
        "read_path" => files(true, false)?,
        "write_path" => files(false, true)?,
        "read_write_path" => files(true, true)?,
        "connect" => Right::Connect(ConnectRight {
            host: fields.parsed("host")?,
            ports: fields.ports("port")?,
            private: fields.get("private", "a bool")?,
        }),
        "http" => Right::Http(http(&fields, effect)?),
        "resolve" => Right::Resolve(fields.parsed("host")?),
        "run" => Right::Run(run(&fields, effect)?),
        "secret" => Right::Secret(secret(&fields, effect)?),
        "clock" => Right::Clock(fields.choices("actions", &CLOCK_ACTIONS)?),
        "random" => {
            let seed = fields.get("seed", "a whole number from 0, or None")?;
            Right::Random { seed: if effect == Effect::Deny { None } else { seed } }
        }
        "ipc" => Right::Ipc {
            channel: fields.text("name")?,
            directions: fields.choices("directions", &DIRECTIONS)?,
        },
        "host" => Right::Host {
            capability: fields.text("name")?,
            actions: fields
                .get::<Option<Vec<String>>>("actions", "a list of str, or None")?
                .map(BTreeSet::from_iter),
        },
        "import" => Right::Import(fields.text("module")?),
        "limit" => return limit(&fields.text("name")?, &fields, "value"),
        "cpu_budget" => return limit(LimitName::Cpu.as_str(), &fields, "ms"),
        other => return Err(value_error(format!("{other:?} is no kind of authority"))),
    };
    spelt(right, effect).map(Part::Right)
}

/// Writes a right.
pub(crate) fn written<'py>(
    py: Python<'py>,
    right: &Right,
) -> PyResult<(&'static str, Bound<'py, PyDict>)> {
    let fields = PyDict::new(py);
    let kind = match right {
        Right::Files(files) => {
            fields.set_item("path", files.pattern.to_string())?;
            match (files.read, files.write) {
                (true, true) => "read_write_path",
                (true, false) => "read_path",
                (false, _) => "write_path",
            }
        }
        Right::Connect(connect) => {
            fields.set_item("host", connect.host.to_string())?;
            fields.set_item("port", ports_object(py, &connect.ports)?)?;
            fields.set_item("private", connect.private)?;
            "connect"
        }
        Right::Http(http) => {
            fields.set_item("url", url(http))?;
            fields.set_item("methods", PyTuple::new(py, &http.methods)?)?;
            fields.set_item("private", http.private)?;
            "http"
        }
        Right::Resolve(host) => {
            fields.set_item("host", host.to_string())?;
            "resolve"
        }
        Right::Run(run) => {
            fields.set_item("program", &run.program)?;
            fields.set_item("args", PyTuple::new(py, &run.args)?)?;
            fields.set_item("env", PyTuple::new(py, run.env.iter().collect::<Vec<_>>())?)?;
            fields.set_item("read", texts(py, &run.read)?)?;
            fields.set_item("wall_time_ms", run.wall_time_ms)?;
            fields.set_item("output_bytes", run.output_bytes)?;
            fields.set_item("mem_bytes", run.mem_bytes)?;
            "run"
        }
        Right::Secret(secret) => {
            fields.set_item("name", &secret.name)?;
            fields.set_item("reveal", secret.reveal)?;
            fields.set_item("use", texts(py, &secret.hosts)?)?;
            "secret"
        }
        Right::Clock(actions) => {
            fields.set_item("actions", names(py, actions, &CLOCK_ACTIONS)?)?;
            "clock"
        }
        Right::Random { seed } => {
            fields.set_item("seed", seed)?;
            "random"
        }
        Right::Ipc { channel, directions } => {
            fields.set_item("name", channel)?;
            fields.set_item("directions", names(py, directions, &DIRECTIONS)?)?;
            "ipc"
        }
        Right::Host { capability, actions } => {
            fields.set_item("name", capability)?;
            let actions = actions.as_ref().map(|actions| PyTuple::new(py, actions)).transpose()?;
            fields.set_item("actions", actions)?;
            "host"
        }
        Right::Import(module) => {
            fields.set_item("module", module)?;
            "import"
        }
        other => return Err(value_error(format!("no authority stands for {other:?}"))),
    };
    Ok((kind, fields))
}

/// Adds what `pyisolate.authorities` is built from.
pub(crate) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("COMMAND_WALL_TIME_MS", RunRight::WALL_TIME_MS)?;
    module.add("COMMAND_OUTPUT_BYTES", RunRight::OUTPUT_BYTES)?;
    module.add("COMMAND_MEM_BYTES", RunRight::MEM_BYTES)?;
    module.add_function(wrap_pyfunction!(checked, module)?)?;
    module.add_function(wrap_pyfunction!(split_address, module)?)
}

/// The right as the policy text says it.
fn spelt(right: Right, effect: Effect) -> PyResult<Right> {
    let rule = Rule { effect, right, origin: Origin::default() };
    let policy = Policy { rules: vec![rule], ..Policy::default() };
    let read = Document::parse(&policy.to_json(), "", Format::Json).map_err(|error| {
        let mut problems = error.problems();
        value_error(problems.next().map_or_else(String::new, |problem| {
            let Problem { message, advice, .. } = problem;
            if advice.is_empty() { message.clone() } else { format!("{message}: {advice}") }
        }))
    })?;
    let mut rights = read.defaults.rules.into_iter().map(|rule| rule.right);
    let first = rights.next().ok_or_else(|| value_error("it grants nothing"))?;
    rights.try_fold(first, |first, next| match (first, next) {
        // The text has a line for each end of a channel.
        (
            Right::Ipc { channel, mut directions },
            Right::Ipc { channel: same, directions: others },
        ) if channel == same => {
            directions.extend(others);
            Ok(Right::Ipc { channel, directions })
        }
        (first, _) => Err(value_error(format!("{first:?} is more than one rule"))),
    })
}

fn secret(fields: &Fields<'_, '_>, effect: Effect) -> PyResult<SecretRight> {
    let name = fields.text("name")?;
    if !secret_is_open(fields)? {
        let reveal = fields.get("reveal", "a bool")?;
        return Ok(SecretRight { name, reveal, hosts: fields.parsed_list("use")? });
    }
    match effect {
        Effect::Deny => Ok(SecretRight { name, reveal: true, hosts: vec![HostPattern::Any] }),
        Effect::Allow => Err(value_error(format!(
            "Secret({name:?}) grants nothing: add reveal=True, or use=[host]"
        ))),
    }
}

/// Whether an authority names a secret and says no more.
fn secret_is_open(fields: &Fields<'_, '_>) -> PyResult<bool> {
    let hosts: Vec<String> = fields.get("use", "a list of str")?;
    Ok(hosts.is_empty() && !fields.get::<bool>("reveal", "a bool")?)
}

fn run(fields: &Fields<'_, '_>, effect: Effect) -> PyResult<RunRight> {
    let args: Option<Vec<String>> = fields.get("args", "a list of str")?;
    let open = || match effect {
        Effect::Allow => Vec::new(),
        Effect::Deny => vec!["**".to_owned()],
    };
    Ok(RunRight {
        program: fields.text("program")?,
        args: args.unwrap_or_else(open),
        env: fields.env("env")?,
        read: fields.paths("read")?,
        wall_time_ms: fields.number("wall_time_ms")?,
        output_bytes: fields.number("output_bytes")?,
        mem_bytes: fields.number("mem_bytes")?,
    })
}

// --- URLs with a pattern for a host

/// `https://host:port/path`, with or without the scheme; a host that is a network has brackets.
fn http(fields: &Fields<'_, '_>, effect: Effect) -> PyResult<HttpRight> {
    let text = fields.text("url")?;
    let wrong = |why: &str| value_error(format!("url={text:?}: {why}"));
    let (scheme, rest) = match text.split_once("://") {
        None => (None, text.as_str()),
        Some(("http", rest)) => (Some(Scheme::Http), rest),
        Some(("https", rest)) => (Some(Scheme::Https), rest),
        Some(_) => return Err(wrong("the scheme is http or https, or is left out")),
    };
    let host_len = if rest.starts_with('[') { rest.find(']') } else { None }.unwrap_or(0);
    let (authority, path) = match rest[host_len..].find('/') {
        Some(at) => rest.split_at(host_len + at),
        None => (rest, "/"),
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') && (host_len > 0 || !host.contains(':')) => {
            let port = port.parse().ok().filter(|port| *port > 0);
            (host, Some(port.ok_or_else(|| wrong("its port is no number from 1 to 65535"))?))
        }
        _ => (authority, None),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host: HostPattern = host.parse().map_err(|error| wrong(&format!("{error}")))?;
    let methods: Option<Vec<String>> = fields.get("methods", "a list of str")?;
    let open = || match effect {
        Effect::Allow => vec!["GET".to_owned(), "HEAD".to_owned()],
        Effect::Deny => vec!["*".to_owned()],
    };
    Ok(HttpRight {
        scheme,
        host,
        port,
        path: path.to_owned(),
        methods: methods.unwrap_or_else(open).iter().map(|it| it.to_ascii_uppercase()).collect(),
        private: fields.get("private", "a bool")?,
    })
}

fn url(http: &HttpRight) -> String {
    let scheme = http.scheme.map_or_else(String::new, |scheme| format!("{}://", scheme.as_str()));
    let host = match &http.host {
        HostPattern::Exactly(host) => host.in_url(),
        HostPattern::Network(net) => format!("[{net}]"),
        other => other.to_string(),
    };
    let port = http.port.map_or_else(String::new, |port| format!(":{port}"));
    let path = if http.path == "/" { "" } else { &http.path };
    format!("{scheme}{host}{port}{path}")
}

fn texts<'py>(py: Python<'py>, items: &[impl Display]) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, items.iter().map(ToString::to_string))
}

fn names<'py, T: Ord>(
    py: Python<'py>,
    chosen: &BTreeSet<T>,
    all: &[(&'static str, T)],
) -> PyResult<Bound<'py, PyTuple>> {
    let names = all.iter().filter(|(_, choice)| chosen.contains(choice)).map(|(name, _)| *name);
    PyTuple::new(py, names.collect::<Vec<_>>())
}

fn ports_object<'py>(py: Python<'py>, ports: &RangeInclusive<u16>) -> PyResult<Bound<'py, PyAny>> {
    let (first, last) = (*ports.start(), *ports.end());
    if first == last {
        return Ok(first.into_pyobject(py)?.into_any());
    }
    Ok((first, last).into_pyobject(py)?.into_any())
}

fn limit(name: &str, fields: &Fields<'_, '_>, value: &str) -> PyResult<Part> {
    limits::checked(name, &fields.object(value)?).map(|(limit, value)| Part::Limit(limit, value))
}

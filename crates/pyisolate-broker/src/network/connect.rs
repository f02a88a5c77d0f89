//! `network.connect` and `network.resolve`.

use std::net::IpAddr;
use std::time::Duration;

use pyisolate_abi::pickle::Value;
use pyisolate_policy::{Act, Effect, Host, HttpUrl, Policy, Right, Scheme};
use rustix::io::Errno;

use super::TIMEOUT_SECONDS;
use super::address::{allowed, route};
use super::line::{Turn, dial};
use crate::outcome::{Failure, Granted, Refusal};
use crate::payload::{Payload, int, record};
use crate::session::Session;
use crate::task::{Pace, Task};

fn host(payload: &mut Payload<'_>) -> Result<Host, Failure> {
    let text = payload.text("host")?;
    text.parse().map_err(|error| payload.wrong(error))
}

pub(super) fn parse(payload: &Value) -> Result<Box<dyn Task>, Failure> {
    let mut payload = Payload::new("network", "connect", payload)?;
    let host = host(&mut payload)?;
    let port = payload.size("port")?;
    let port = u16::try_from(port).ok().filter(|port| *port > 0);
    let port = port.ok_or_else(|| payload.wrong("a port is an int from 1 to 65535"))?;
    let timeout = payload.seconds_or_none("timeout")?;
    payload.end()?;
    let timeout = timeout.unwrap_or(Duration::from_secs(TIMEOUT_SECONDS));
    Ok(Box::new(Connect { act: Act::Connect { host: host.clone(), port }, host, port, timeout }))
}

pub(super) fn parse_resolve(payload: &Value) -> Result<Box<dyn Task>, Failure> {
    let mut payload = Payload::new("network", "resolve", payload)?;
    let host = host(&mut payload)?;
    payload.end()?;
    Ok(Box::new(Lookup { act: Act::Resolve { host } }))
}

#[derive(Debug)]
struct Connect {
    act: Act,
    host: Host,
    port: u16,
    timeout: Duration,
}

impl Connect {
    /// Whether the guest is to send a request instead of opening a stream.
    fn is_for_http(&self, session: &Session) -> bool {
        let policy = session.policy();
        !policy.decide(&self.act).allowed && requests_go_to(&policy, &self.host, self.port)
    }
}

impl Task for Connect {
    fn act(&self) -> Option<&Act> {
        Some(&self.act)
    }

    fn check(&self, session: &Session) -> Result<(), Refusal> {
        if self.is_for_http(session) {
            return Ok(());
        }
        session.check(&self.act)
    }

    fn pace(&self) -> Pace {
        Pace::Slow
    }

    fn perform(self: Box<Self>, session: &Session) -> Result<Granted, Refusal> {
        if self.is_for_http(session) {
            return Ok(record([("http", Value::Bool(true))]).into());
        }
        session.check(&self.act)?;
        session.streams.has_room()?;
        session.use_network_op()?;
        let turn = Turn::new(session, self.timeout);
        let addresses = route(turn, &self.act, self.port)?;
        let dialled = dial(turn, &addresses)?;
        let peer = dialled.peer;
        let family = if peer.is_ipv4() { "inet" } else { "inet6" };
        let told = [
            ("address", Value::Text(peer.ip().to_string())),
            ("port", Value::Int(peer.port().into())),
            ("family", Value::Text(family.to_owned())),
        ];
        if session.takes_descriptors() {
            let descriptor = session.streams.hand_out(session, dialled, self.act)?;
            return Ok(Granted { value: record(told), descriptor: Some(descriptor) });
        }
        // What a socket of the guest's own would tell it.
        let own = dialled.socket.local_addr().map_err(|error| Failure::io(&error))?;
        let handle = session.streams.held().keep_connection(session, dialled, self.act)?;
        let by_handle = [
            ("handle", int(handle)),
            ("own_address", Value::Text(own.ip().to_string())),
            ("own_port", Value::Int(own.port().into())),
        ];
        Ok(record(told.into_iter().chain(by_handle)).into())
    }
}

/// Whether some request to this host and port is granted, and the connection itself is not denied.
fn requests_go_to(policy: &Policy, host: &Host, port: u16) -> bool {
    let connect = Act::Connect { host: host.clone(), port };
    if policy.rules.iter().any(|rule| rule.effect == Effect::Deny && rule.matches(&connect)) {
        return false;
    }
    policy.rules.iter().any(|rule| {
        let (Effect::Allow, Right::Http(right)) = (rule.effect, &rule.right) else { return false };
        let schemes = match right.scheme {
            Some(scheme) => vec![scheme],
            None => vec![Scheme::Http, Scheme::Https],
        };
        schemes.iter().any(|scheme| {
            right.methods.iter().any(|method| {
                let method = if method == "*" { "GET" } else { method };
                let url = HttpUrl {
                    scheme: *scheme,
                    host: host.clone(),
                    port,
                    path: right.path.clone(),
                    query: None,
                };
                let act = Act::Http { method: method.to_owned(), url };
                rule.matches(&act) && policy.decide(&act).allowed
            })
        })
    })
}

#[derive(Debug)]
struct Lookup {
    act: Act,
}

impl Task for Lookup {
    fn act(&self) -> Option<&Act> {
        Some(&self.act)
    }

    fn pace(&self) -> Pace {
        Pace::Slow
    }

    fn perform(self: Box<Self>, session: &Session) -> Result<Granted, Refusal> {
        session.check(&self.act)?;
        let turn = Turn::new(session, Duration::from_secs(TIMEOUT_SECONDS));
        let addresses = allowed(turn, &self.act)?;
        let text = |address: &IpAddr| Value::Text(address.to_string());
        Ok(Value::List(addresses.iter().map(text).collect()).into())
    }
}

/// An `OSError` with a text of ours.
pub(super) fn failure(errno: Errno, text: impl std::fmt::Display) -> Failure {
    Failure::new("OSError", format!("[Errno {}] {text}", errno.raw_os_error()))
}

//! `network`: TCP streams, the addresses of names, and HTTP requests.
//!
//! Everything goes to an address that was checked: a host is read in one way, its name is resolved
//! once, every address is put to the policy, and the socket is connected to an address and never to
//! a name. A redirect is a new request that takes the whole way again.
//!
//! The client is our own, over `httparse` and `rustls` with blocking threads and `poll`. The libraries
//! that would do more resolve names, pool connections, follow redirects or run an executor themselves,
//! and each of these would have to be taken away from them; what is left, writing a head and reading
//! three kinds of body, is small. It speaks HTTP/1.1, one request a connection. It knows no cookies, no
//! proxies (not the host's environment either), no compression, and cannot leave out TLS's checks.

mod address;
mod body;
mod chunked;
mod connect;
mod connection;
mod exchange;
mod held;
mod http;
mod line;
mod receive;
mod redirect;
mod request;
mod response;
mod streams;
mod tcp_info;
mod tls;

use pyisolate_abi::pickle::Value;
use pyisolate_policy::Act;

use crate::outcome::{DecidedBy, Denied, Failure, Refusal};
use crate::task::{Task, no_action};

pub use address::Resolve;
pub(crate) use address::SystemResolver;
pub use streams::HandedOut;
pub(crate) use streams::Streams;
pub(crate) use tls::Tls;

/// How long a connection or request may take if nothing is said, in seconds.
const TIMEOUT_SECONDS: u64 = 30;

const ACTIONS: [&str; 9] =
    ["connect", "resolve", "http", "receive", "close", "send", "shutdown", "wait", "wake"];

pub(crate) fn parse(action: &str, payload: &Value) -> Result<Box<dyn Task>, Failure> {
    match action {
        "connect" => connect::parse(payload),
        "resolve" => connect::parse_resolve(payload),
        "http" => http::parse(payload),
        "receive" => receive::parse(payload),
        "close" => receive::parse_close(payload),
        "send" => connection::parse_send(payload),
        "shutdown" => connection::parse_shutdown(payload),
        "wait" => connection::parse_wait(payload),
        "wake" => connection::parse_wake(payload),
        _ => Err(no_action("network", action, &ACTIONS)),
    }
}

/// What no grant could allow.
fn denied_by_broker(act: &Act, reason: String) -> Refusal {
    Refusal::Denied(Box::new(Denied {
        act: Some(act.clone()),
        reason,
        rule: "the broker".to_owned(),
        layer: DecidedBy::Broker,
        grant: None,
    }))
}

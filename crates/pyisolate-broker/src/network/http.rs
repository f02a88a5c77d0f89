//! `network.http`: a request, the redirects that it is to follow, and its answer.

use std::collections::BTreeSet;
use std::time::Duration;

use pyisolate_abi::pickle::Value;
use pyisolate_policy::{Act, HttpUrl};
use rustix::io::Errno;

use super::TIMEOUT_SECONDS;
use super::body::{Body, Sent};
use super::connect::failure;
use super::exchange::{Answer, Hop, check_secrets, exchange};
use super::line::Turn;
use super::redirect::next_hop;
use super::request;
use crate::outcome::{Failure, Granted, Refusal};
use crate::payload::{Payload, record};
use crate::secret::Scrubbing;
use crate::session::Session;
use crate::task::{Pace, Task};

/// The longest body of a request.
const BODY_BYTES_MAX: usize = 32 << 20;

/// The most redirects that are followed.
const REDIRECTS_MAX: u64 = 20;

pub(super) fn parse(payload: &Value) -> Result<Box<dyn Task>, Failure> {
    let mut payload = Payload::new("network", "http", payload)?;
    let method = request::method(payload.text("method")?);
    let method = method.map_err(|what| payload.wrong(what))?;
    let url: Result<HttpUrl, _> = payload.text("url")?.parse();
    let url = url.map_err(|error| payload.wrong(error))?;
    let headers = request::headers(&url, &payload.pairs("headers")?);
    let headers = headers.map_err(|what| payload.wrong(what))?;
    let body = payload.bytes_or_none("body")?.unwrap_or_default();
    if body.len() > BODY_BYTES_MAX {
        return Err(payload.wrong(format_args!("a body has at most {BODY_BYTES_MAX} bytes")));
    }
    let body = body.to_vec();
    let timeout = payload.seconds_or_none("timeout")?;
    let timeout = timeout.unwrap_or(Duration::from_secs(TIMEOUT_SECONDS));
    let redirects = payload.size_or_none("redirects")?.unwrap_or(0);
    if redirects > REDIRECTS_MAX {
        return Err(payload.wrong(format_args!("at most {REDIRECTS_MAX} redirects are followed")));
    }
    payload.end()?;
    let hop = Hop {
        act: Act::Http { method: method.clone(), url: url.clone() },
        method,
        url,
        headers,
        body,
    };
    Ok(Box::new(Request { hop, timeout, redirects }))
}

#[derive(Debug)]
struct Request {
    hop: Hop,
    timeout: Duration,
    redirects: u64,
}

impl Task for Request {
    fn act(&self) -> Option<&Act> {
        Some(&self.hop.act)
    }

    fn check(&self, session: &Session) -> Result<(), Refusal> {
        session.check(&self.hop.act)?;
        check_secrets(session, &self.hop).map(drop)
    }

    fn pace(&self) -> Pace {
        Pace::Slow
    }

    fn perform(self: Box<Self>, session: &Session) -> Result<Granted, Refusal> {
        session.streams.held().has_room_for_answer()?;
        let turn = Turn::new(session, self.timeout);
        let mut hop = self.hop;
        let mut used = BTreeSet::new();
        let mut left = self.redirects;
        let mut came_from: Option<HttpUrl> = None;
        loop {
            let answer = exchange(turn, &hop, &mut used)
                .map_err(|refusal| explained(refusal, came_from.as_ref()))?;
            if self.redirects > 0
                && let Some(next) = next_hop(&hop, &answer)?
            {
                if left == 0 {
                    let text = format!("more than {} redirects", self.redirects);
                    return Err(failure(Errno::LOOP, text).into());
                }
                left -= 1;
                came_from = Some(hop.url);
                hop = next;
                continue;
            }
            return finish(turn, hop, answer, self.timeout);
        }
    }
}

/// A refusal of what the guest did not ask for itself says how it came to it.
fn explained(refusal: Refusal, came_from: Option<&HttpUrl>) -> Refusal {
    match (refusal, came_from) {
        (Refusal::Denied(mut denied), Some(url)) => {
            denied.reason.push_str(&format!(" (the request came here by a redirect from {url})"));
            Refusal::Denied(denied)
        }
        (refusal, _) => refusal,
    }
}

fn finish(turn: Turn<'_>, hop: Hop, answer: Answer, timeout: Duration) -> Result<Granted, Refusal> {
    let Answer { mut head, line, peer, scrub, scrubbed } = answer;
    let framing = head.framing(&hop.method)?;
    let is_scrubbed = !scrub.is_empty();
    if is_scrubbed && framing.is_some() && head.is_encoded() {
        let text = "Protocol error: the server compressed its answer, \
                    so that a secret could not be found in it";
        return Err(failure(Errno::PROTO, text).into());
    }
    if is_scrubbed && head.status == 206 {
        let text = "Protocol error: the server sent a part of its answer, \
                    in which a part of a secret could not be found";
        return Err(failure(Errno::PROTO, text).into());
    }
    let text = |bytes: &[u8]| Value::Text(latin1(&scrub.text(bytes)));
    let headers = head
        .told(is_scrubbed && framing.is_some())
        .map(|(name, value)| Value::List(vec![text(name.as_bytes()), text(value)]));
    let headers = Value::List(headers.collect());
    let reason = text(&head.reason);
    let status = Value::Int(head.status.into());
    let (first, handle) = match framing {
        None => (Vec::new(), Value::None),
        Some(framing) => {
            let ahead = std::mem::take(&mut head.ahead);
            let scrubbing = is_scrubbed.then(|| Scrubbing::new(scrub));
            let sent = Sent { host: hop.url.host.clone(), secrets: scrubbed };
            let mut body = Body::new(line, ahead, framing, scrubbing, sent, timeout);
            let first = body.first(turn)?;
            let handle = match body.is_over() {
                true => Value::None,
                false => {
                    let mut held = turn.session.streams.held();
                    crate::payload::int(held.keep_answer(hop.act, peer, body)?)
                }
            };
            (first, handle)
        }
    };
    Ok(record([
        ("status", status),
        ("reason", reason),
        ("headers", headers),
        ("url", Value::Text(hop.url.to_string())),
        ("body", Value::Bytes(first)),
        ("handle", handle),
    ])
    .into())
}

/// One character a byte, as HTTP's headers are read.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

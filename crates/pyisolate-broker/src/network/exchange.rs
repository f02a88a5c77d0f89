//! One request and the head of its answer, over a connection of its own.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use pyisolate_policy::{Act, HttpUrl, Scheme, SecretPurpose};
use zeroize::Zeroizing;

use super::address::{check_address, route};
use super::denied_by_broker;
use super::line::{Fault, Line, Turn, dial};
use super::request;
use super::response::Head;
use crate::outcome::{Failure, Refusal};
use crate::secret::Scrub;
use crate::session::Session;

/// A request, as the guest made it or as a redirect changed it. It has no secret in it, but
/// placeholders.
#[derive(Debug)]
pub(super) struct Hop {
    pub(super) act: Act,
    pub(super) method: String,
    pub(super) url: HttpUrl,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// The head of an answer, and the connection with the rest.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) head: Head,
    pub(super) line: Line,
    /// Where it comes from.
    pub(super) peer: SocketAddr,
    pub(super) scrub: Scrub,
    /// The secrets that are looked for.
    pub(super) scrubbed: BTreeSet<String>,
}

/// Asks the policy for every secret that the headers speak of, and refuses them anywhere else. The
/// body is left for [`check_body`], since it takes time to read.
pub(super) fn check_secrets(session: &Session, hop: &Hop) -> Result<BTreeSet<String>, Refusal> {
    let placeholders = &session.placeholders;
    let elsewhere = [
        ("URL", placeholders.named_in(hop.url.to_string().as_bytes())),
        ("name of a header", {
            let names = hop.headers.iter().map(|(name, _)| placeholders.named_in(name.as_bytes()));
            names.flatten().collect()
        }),
    ];
    elsewhere.iter().try_for_each(|(place, named)| refuse_in(place, named, hop))?;
    let named = hop.headers.iter().map(|(name, value)| placeholders.named_in_header(name, value));
    let named: BTreeSet<String> = named.flatten().collect();
    for name in &named {
        let purpose = SecretPurpose::Send(hop.url.host.clone());
        session.check(&Act::Secret { name: name.clone(), purpose })?;
    }
    Ok(named)
}

fn check_body(session: &Session, hop: &Hop) -> Result<(), Refusal> {
    refuse_in("body", &session.placeholders.named_in(&hop.body), hop)
}

fn refuse_in(place: &str, named: &BTreeSet<String>, hop: &Hop) -> Result<(), Refusal> {
    let Some(name) = named.first() else { return Ok(()) };
    Err(denied_by_broker(
        &hop.act,
        format!(
            "network: the secret {name:?} was put into the {place} of a request: \
             secrets go into the values of headers only"
        ),
    ))
}

/// Sends a request, and reads the head of its answer. What is `used` so far in the whole exchange is
/// taken out of the answer, and what was sent to this host before.
pub(super) fn exchange(
    turn: Turn<'_>,
    hop: &Hop,
    used: &mut BTreeSet<String>,
) -> Result<Answer, Refusal> {
    let session = turn.session;
    let policy = session.policy();
    session.check(&hop.act)?;
    let named = check_secrets(session, hop)?;
    check_body(session, hop)?;
    session.use_network_op()?;
    let addresses = route(turn, &hop.act, hop.url.port)?;
    check_is_private(hop, &named, &addresses)?;

    used.extend(named.iter().cloned());
    let mut scrubbed = session.placeholders.sent_to(&hop.url.host);
    scrubbed.extend(used.iter().cloned());
    let scrub = session.placeholders.scrub(session, &scrubbed)?;
    let headers = headers(session, hop, !scrub.is_empty())?;

    let dialled = dial(turn, &addresses)?;
    let peer = dialled.peer;
    // Another policy may have come while the host was looked up and dialled.
    if !Arc::ptr_eq(&policy, &session.policy()) {
        check_address(session, &hop.act, peer.ip())?;
        check_secrets(session, hop)?;
    }
    let tls = match hop.url.scheme {
        Scheme::Http => None,
        Scheme::Https => Some(session.broker().tls.client(&hop.url.host)?),
    };
    let mut line = Line::new(dialled, tls);
    session.placeholders.sending(&hop.url.host, &named);
    let has_body = !hop.body.is_empty() || ["POST", "PUT", "PATCH"].contains(&&*hop.method);
    let length = has_body.then_some(hop.body.len());
    let text = request::head(&hop.method, &hop.url, &headers, length);
    let sent = line.write_all(turn, &text).and_then(|()| match &hop.body[..] {
        [] => Ok(()),
        body => line.write_all(turn, body),
    });
    let head = match sent {
        Ok(()) => Head::read(&mut line, turn)?,
        // A server may answer and close before it has read everything.
        Err(fault @ Fault::Io(_)) => {
            Head::read(&mut line, turn).map_err(|_| Refusal::from(fault))?
        }
        Err(fault) => return Err(fault.into()),
    };
    // Another request may have brought it one since.
    let scrub = match session.placeholders.was_sent_more(&hop.url.host, &scrubbed) {
        false => scrub,
        true => {
            scrubbed.extend(session.placeholders.sent_to(&hop.url.host));
            session.placeholders.scrub(session, &scrubbed)?
        }
    };
    Ok(Answer { head, line, peer, scrub, scrubbed })
}

/// Secrets go over TLS, or do not leave the machine.
fn check_is_private(
    hop: &Hop,
    named: &BTreeSet<String>,
    addresses: &[SocketAddr],
) -> Result<(), Refusal> {
    let is_open = hop.url.scheme == Scheme::Http
        && !addresses.iter().all(|address| address.ip().is_loopback());
    match named.first() {
        Some(name) if is_open => Err(denied_by_broker(
            &hop.act,
            format!("network: the secret {name:?} is not sent without TLS: use https"),
        )),
        _ => Ok(()),
    }
}

/// A header's name, and its value with the secrets in it.
type Filled<'h> = (&'h str, Zeroizing<Vec<u8>>);

/// The headers as they go out.
fn headers<'h>(
    session: &Session,
    hop: &'h Hop,
    is_scrubbed: bool,
) -> Result<Vec<Filled<'h>>, Refusal> {
    let mut headers = Vec::with_capacity(hop.headers.len() + 1);
    for (name, value) in &hop.headers {
        if is_scrubbed && name.eq_ignore_ascii_case("accept-encoding") {
            continue;
        }
        if is_scrubbed && name.eq_ignore_ascii_case("range") {
            return Err(denied_by_broker(
                &hop.act,
                "network: a host that was sent a secret is not asked for a part of an answer, \
                 in which a part of the secret could not be found"
                    .to_owned(),
            ));
        }
        headers.push((name.as_str(), session.placeholders.fill(session, name, value)?));
    }
    if is_scrubbed {
        headers.push(("Accept-Encoding", Zeroizing::new(b"identity".to_vec())));
    }
    let bytes: usize = headers.iter().map(|(_, value)| value.len()).sum();
    if bytes > 2 * request::HEADER_BYTES_MAX {
        return Err(Failure::new("ValueError", "the headers are too long with the secrets").into());
    }
    Ok(headers)
}

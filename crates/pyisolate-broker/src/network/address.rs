//! From a host to the addresses that may be connected to. A name is resolved once, and what was
//! checked is what is connected to: nothing looks the name up again.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use pyisolate_policy::{Act, Host, Policy};

use super::line::{Fault, Turn};
use crate::outcome::{DecidedBy, Denied, Failure, Refusal};
use crate::session::Session;

/// Finds the addresses of names.
pub trait Resolve: Send + Sync + std::fmt::Debug {
    /// The addresses behind a name, in the order in which they are to be tried. It may block: it
    /// has a thread of its own, which is left behind when the cell ends or the time is over.
    ///
    /// # Errors
    /// What the resolver said.
    fn resolve(&self, name: &str) -> std::io::Result<Vec<IpAddr>>;
}

/// The system's own resolver.
#[derive(Debug)]
pub(crate) struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: &str) -> std::io::Result<Vec<IpAddr>> {
        use std::net::ToSocketAddrs;
        Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
    }
}

/// How many names a cell may look up at a time. A resolver that hangs holds a thread for each.
const LOOKUPS_MAX: usize = 8;

/// How many addresses of a name are looked at: more than any site lists.
const ADDRESSES_MAX: usize = 64;

/// How many lookups of a cell are under way.
#[derive(Clone, Debug, Default)]
pub(super) struct Lookups(Arc<AtomicUsize>);

impl Lookups {
    fn begin(&self) -> Result<Lookup, Failure> {
        let lookup = Lookup(Arc::clone(&self.0));
        if self.0.fetch_add(1, Ordering::Relaxed) >= LOOKUPS_MAX {
            let text = format!("[Errno 11] more than {LOOKUPS_MAX} names are being looked up");
            return Err(Failure::new("OSError", text));
        }
        Ok(lookup)
    }
}

struct Lookup(Arc<AtomicUsize>);

impl Drop for Lookup {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Where an act may go: every address of its host that the policy lets through, in order.
///
/// The policy that is in force after the lookup decides. It is asked before as well, by whoever
/// calls, so that a resolver is told no name that is not granted.
pub(super) fn route(turn: Turn<'_>, act: &Act, port: u16) -> Result<Vec<SocketAddr>, Refusal> {
    let addresses = allowed(turn, act)?;
    Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

/// As [`route`], without a port.
pub(super) fn allowed(turn: Turn<'_>, act: &Act) -> Result<Vec<IpAddr>, Refusal> {
    let Some(host) = act.host() else { return Err(Failure::os(rustix::io::Errno::INVAL).into()) };
    let found = match host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => lookup(turn, name)?,
    };
    turn.session.check(act)?;
    let policy = turn.session.policy();
    let Some(rule) = policy.decide(act).rule else {
        return turn.session.check(act).map(|()| vec![]);
    };
    let mut allowed = Vec::new();
    for address in &found {
        let address = address.to_canonical();
        if policy.allows_address(act, rule, address) && !allowed.contains(&address) {
            allowed.push(address);
        }
    }
    match found.first() {
        None => Err(unknown().into()),
        Some(first) if allowed.is_empty() => {
            Err(Refusal::Denied(Box::new(refused(&policy, act, first.to_canonical()))))
        }
        Some(_) => Ok(allowed),
    }
}

/// Whether a policy lets an act go to an address of its host.
pub(super) fn is_granted(policy: &Policy, act: &Act, address: IpAddr) -> bool {
    let verdict = policy.decide(act);
    let reaches = |rule| policy.allows_address(act, rule, address.to_canonical());
    verdict.allowed && verdict.rule.is_some_and(reaches)
}

/// Asks the policy that is in force now about an act that went to this address of its host.
pub(super) fn check_address(session: &Session, act: &Act, address: IpAddr) -> Result<(), Refusal> {
    session.check(act)?;
    let policy = session.policy();
    if is_granted(&policy, act, address) {
        return Ok(());
    }
    Err(Refusal::Denied(Box::new(refused(&policy, act, address.to_canonical()))))
}

fn lookup(turn: Turn<'_>, name: &str) -> Result<Vec<IpAddr>, Refusal> {
    let running = turn.session.streams.lookups().begin()?;
    let resolver = Arc::clone(&turn.session.broker().resolver);
    let (sender, answers) = mpsc::channel();
    let stop = sender.clone();
    let _on_cancel = turn.session.cancel().on_cancel(move || {
        let _ = stop.send(None);
    });
    let name = name.to_owned();
    let spawned = std::thread::Builder::new().name("pyisolate-resolve".into()).spawn(move || {
        let answer = resolver.resolve(&name);
        drop(running);
        let _ = sender.send(Some(answer));
    });
    spawned.map_err(|error| Failure::io(&error))?;
    match answers.recv_timeout(turn.left()) {
        Ok(Some(Ok(mut addresses))) => {
            addresses.truncate(ADDRESSES_MAX);
            Ok(addresses)
        }
        Ok(Some(Err(error))) if error.raw_os_error().is_some() => Err(Failure::io(&error).into()),
        Ok(Some(Err(_))) => Err(unknown().into()),
        Ok(None) => Err(Refusal::Cancelled),
        Err(_) => Err(Fault::TimedOut.into()),
    }
}

/// With the number that Python's `socket.gaierror` has for it.
fn unknown() -> Failure {
    Failure::new("OSError", "[Errno -2] Name or service not known")
}

/// The policy allows the act, but not where its host leads.
fn refused(policy: &Policy, act: &Act, address: IpAddr) -> Denied {
    let explanation = policy.explain_address(act, address);
    Denied {
        act: Some(act.clone()),
        reason: explanation.summary(),
        rule: explanation.rule.map_or_else(|| "no rule matched".to_owned(), |rule| rule.place),
        layer: DecidedBy::Policy,
        grant: explanation.grant_line,
    }
}

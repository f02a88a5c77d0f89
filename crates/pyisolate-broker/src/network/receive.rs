//! `network.receive` and `network.close`: the rest of an answer, or a connection that stays here.

use std::sync::{Mutex, TryLockError};

use pyisolate_abi::pickle::Value;
use pyisolate_policy::Act;
use rustix::io::Errno;

use super::body::Body;
use super::connect::failure;
use super::connection;
use super::held::Kind;
use super::line::{Fault, Turn};
use crate::outcome::{Failure, Granted, Refusal};
use crate::payload::Payload;
use crate::session::Session;
use crate::task::{Pace, Task};

pub(super) fn parse(payload: &Value) -> Result<Box<dyn Task>, Failure> {
    let mut payload = Payload::new("network", "receive", payload)?;
    let handle = payload.size("handle")?;
    let length = payload.size_or_none("length")?;
    payload.end()?;
    Ok(Box::new(Receive { handle, length }))
}

pub(super) fn parse_close(payload: &Value) -> Result<Box<dyn Task>, Failure> {
    let mut payload = Payload::new("network", "close", payload)?;
    let handle = payload.size("handle")?;
    payload.end()?;
    Ok(Box::new(Close { handle }))
}

#[derive(Debug)]
struct Receive {
    handle: u64,
    /// The most that is wanted of a connection.
    length: Option<u64>,
}

impl Task for Receive {
    fn act(&self) -> Option<&Act> {
        None
    }

    /// The request that is being answered, or the connection, has to be granted still.
    fn check(&self, session: &Session) -> Result<(), Refusal> {
        let held = session.streams.held().get(self.handle)?;
        held.check(session).inspect_err(|_| session.streams.held().close(self.handle))
    }

    fn pace(&self) -> Pace {
        Pace::Slow
    }

    fn perform(self: Box<Self>, session: &Session) -> Result<Granted, Refusal> {
        let held = session.streams.held().get(self.handle)?;
        match held.kind {
            Kind::Answer(body, _) => rest(session, self.handle, &body),
            Kind::Connection(connection) => {
                connection::receive(session, self.handle, &connection, self.length)
            }
        }
    }
}

/// The next piece of an answer.
fn rest(session: &Session, handle: u64, body: &Mutex<Body>) -> Result<Granted, Refusal> {
    let mut body = match body.try_lock() {
        Ok(body) => body,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        Err(TryLockError::WouldBlock) => {
            return Err(failure(Errno::BUSY, "another thread reads this answer").into());
        }
    };
    let turn = Turn::new(session, body.timeout());
    let piece = body.next(turn);
    // What failed once cannot be gone on with, but for waiting longer.
    let is_over = match &piece {
        Ok(piece) => piece.is_empty(),
        Err(fault) => !matches!(fault, Fault::TimedOut),
    };
    drop(body);
    if is_over {
        session.streams.held().close(handle);
    }
    Ok(Value::Bytes(piece?).into())
}

#[derive(Debug)]
struct Close {
    handle: u64,
}

impl Task for Close {
    fn act(&self) -> Option<&Act> {
        None
    }

    fn pace(&self) -> Pace {
        Pace::Quick
    }

    fn perform(self: Box<Self>, session: &Session) -> Result<Granted, Refusal> {
        session.streams.held().close(self.handle);
        Ok(Value::None.into())
    }
}

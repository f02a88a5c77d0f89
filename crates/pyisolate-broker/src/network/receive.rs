//! `network.receive` and `network.close`: the rest of an answer.

use std::sync::TryLockError;

use pyisolate_abi::pickle::Value;
use pyisolate_policy::Act;
use rustix::io::Errno;

use super::connect::failure;
use super::line::{Fault, Turn};
use crate::outcome::{Failure, Granted, Refusal};
use crate::payload::Payload;
use crate::session::Session;
use crate::task::{Pace, Task};

fn handle(action: &'static str, payload: &Value) -> Result<u64, Failure> {
    let mut payload = Payload::new("network", action, payload)?;
    let handle = payload.size("handle")?;
    payload.end()?;
    Ok(handle)
}

pub(super) fn parse(payload: &Value) -> Result<Box<dyn Task>, Failure> {
    Ok(Box::new(Receive { handle: handle("receive", payload)? }))
}

pub(super) fn parse_close(payload: &Value) -> Result<Box<dyn Task>, Failure> {
    Ok(Box::new(Close { handle: handle("close", payload)? }))
}

#[derive(Debug)]
struct Receive {
    handle: u64,
}

impl Task for Receive {
    fn act(&self) -> Option<&Act> {
        None
    }

    /// The request that is being answered has to be granted still.
    fn check(&self, session: &Session) -> Result<(), Refusal> {
        let open = session.streams.open(self.handle)?;
        open.check(session).inspect_err(|_| session.streams.close(self.handle))
    }

    fn pace(&self) -> Pace {
        Pace::Slow
    }

    fn perform(self: Box<Self>, session: &Session) -> Result<Granted, Refusal> {
        let open = session.streams.open(self.handle)?;
        let mut body = match open.body.try_lock() {
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
            session.streams.close(self.handle);
        }
        Ok(Value::Bytes(piece?).into())
    }
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
        session.streams.close(self.handle);
        Ok(Value::None.into())
    }
}

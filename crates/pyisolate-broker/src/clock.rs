//! `clock`: the time of day, a clock that only goes forward, and waiting.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pyisolate_abi::pickle::Value;
use pyisolate_policy::{Act, ClockAction};
use rustix::time::{ClockId, clock_gettime};

use crate::outcome::{Failure, Granted, Refusal};
use crate::payload::Payload;
use crate::session::Session;
use crate::task::{Pace, Task, no_action};

const ACTIONS: [&str; 3] = ["time", "monotonic", "sleep"];

pub(crate) fn parse(action: &str, payload: &Value) -> Result<Box<dyn Task>, Failure> {
    let mut payload = Payload::new("clock", action, payload)?;
    let (clock, seconds) = match action {
        "time" => (ClockAction::Time, None),
        "monotonic" => (ClockAction::Monotonic, None),
        "sleep" => {
            let seconds = payload.seconds_or_none("seconds")?;
            let seconds = seconds.ok_or_else(|| payload.wrong("\"seconds\" is missing"))?;
            (ClockAction::Sleep, Some(seconds))
        }
        _ => return Err(no_action("clock", action, &ACTIONS)),
    };
    payload.end()?;
    Ok(Box::new(ClockTask { act: Act::Clock { action: clock }, seconds }))
}

#[derive(Debug)]
struct ClockTask {
    act: Act,
    /// How long to wait.
    seconds: Option<Duration>,
}

impl Task for ClockTask {
    fn act(&self) -> Option<&Act> {
        Some(&self.act)
    }

    fn pace(&self) -> Pace {
        if self.seconds.is_some() { Pace::Slow } else { Pace::Quick }
    }

    fn perform(self: Box<Self>, session: &Session) -> Result<Granted, Refusal> {
        if let Some(seconds) = self.seconds {
            let slept = session.cancel().sleep(seconds);
            return if slept { Ok(Value::None.into()) } else { Err(Refusal::Cancelled) };
        }
        let time = match self.act {
            Act::Clock { action: ClockAction::Monotonic } => monotonic(),
            _ => now(),
        };
        Ok(Value::Int(time).into())
    }
}

/// Nanoseconds since 1970, before that less than none; good until the year 2262.
fn now() -> i64 {
    let nanoseconds = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => nanoseconds(since),
        Err(before) => -nanoseconds(before.duration()),
    }
}

/// Nanoseconds since a moment that is the same for every cell, as Python's `time.monotonic_ns`.
fn monotonic() -> i64 {
    let time = clock_gettime(ClockId::Monotonic);
    time.tv_sec.saturating_mul(1_000_000_000).saturating_add(time.tv_nsec)
}

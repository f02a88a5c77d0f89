//! `ipc`: named channels between the cells of one supervisor.
//!
//! A channel is there while somebody waits at it or something lies in it. Messages come out in the
//! order in which they went in, and whoever waited longest at either end is served first. What a
//! cell sent stays when the cell ends.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyisolate_abi::pickle::Value;
use pyisolate_policy::{Act, Direction};
use rustix::io::Errno;

use crate::cancel::{Cancel, OnCancel};
use crate::outcome::{Failure, Granted, Refusal};
use crate::payload::Payload;
use crate::session::Session;
use crate::task::{Pace, Task, no_action};

/// How many messages a channel holds before its senders wait.
const MESSAGES_MAX: usize = 1000;

/// How many bytes of messages a channel holds; a larger message is refused. Half of the largest
/// message that a cell can send by default.
const CHANNEL_BYTES_MAX: u64 = 64 << 20;

/// How many bytes all channels hold: sixteen full ones. Past it sending fails at once, as what
/// would make room may be another channel.
const BYTES_MAX: u64 = 1 << 30;

/// How many channels there are at a time. Only names that a policy grants become channels.
const CHANNELS_MAX: usize = 4096;

/// How long an end waits that does not say.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) fn parse(action: &str, payload: &Value) -> Result<Box<dyn Task>, Failure> {
    let mut payload = Payload::new("ipc", action, payload)?;
    let (direction, message) = match action {
        "send" => (Direction::Send, Some(payload.any("message")?.clone())),
        "receive" => (Direction::Receive, None),
        _ => return Err(no_action("ipc", action, &["send", "receive"])),
    };
    let channel = payload.text("channel")?.to_owned();
    let timeout = payload.seconds_or_none("timeout")?.unwrap_or(TIMEOUT);
    payload.end()?;
    let bytes = message.as_ref().map_or(0, size);
    let act = Act::Ipc { channel: channel.clone(), direction };
    Ok(Box::new(IpcTask { act, channel, message, bytes, timeout }))
}

#[derive(Debug)]
struct IpcTask {
    act: Act,
    channel: String,
    /// What is sent; `None` to receive.
    message: Option<Value>,
    bytes: u64,
    timeout: Duration,
}

impl Task for IpcTask {
    fn act(&self) -> Option<&Act> {
        Some(&self.act)
    }

    fn pace(&self) -> Pace {
        Pace::Slow
    }

    fn perform(self: Box<Self>, session: &Session) -> Result<Granted, Refusal> {
        let Self { act, channel, message, bytes, timeout } = *self;
        // Another policy may have come while this waited for its turn.
        session.check(&act)?;
        let channels = &session.broker().channels;
        let answer = match message {
            Some(message) => {
                channels.send(
                    &channel,
                    Message { value: message, bytes },
                    timeout,
                    session.cancel(),
                )?;
                Value::None
            }
            None => {
                channels.receive(&channel, timeout, session.cancel(), || session.check(&act))?
            }
        };
        Ok(answer.into())
    }
}

/// What a message takes in memory, nearly: every value's own place and what it owns.
fn size(value: &Value) -> u64 {
    let own = size_of::<Value>();
    let all = |items: &[Value]| items.iter().map(size).sum::<u64>();
    let below = match value {
        Value::Text(text) | Value::Decimal(text) => text.len() as u64,
        Value::BigInt(bytes)
        | Value::SurrogateText(bytes)
        | Value::Bytes(bytes)
        | Value::ByteArray(bytes) => bytes.len() as u64,
        Value::List(items) | Value::Tuple(items) | Value::Set(items) | Value::FrozenSet(items) => {
            all(items)
        }
        Value::Dict(items) => items.iter().map(|(key, value)| size(key) + size(value)).sum(),
        _ => 0,
    };
    own as u64 + below
}

/// The channels between the cells of one supervisor.
#[derive(Debug, Default)]
pub(crate) struct Channels(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    channels: HashMap<String, Channel>,
    /// What lies in all of them.
    bytes: u64,
    /// What was given to somebody who waits and has not woken yet.
    delivered: HashMap<u64, Message>,
    /// Senders whose message was taken and who have not woken yet.
    taken: HashSet<u64>,
    /// The number of the last one who waited.
    last: u64,
}

#[derive(Debug, Default)]
struct Channel {
    messages: VecDeque<Message>,
    bytes: u64,
    /// Who waits to put a message in; there is none while it would fit.
    senders: VecDeque<Sender>,
    /// Who waits for a message; nobody while there is one.
    receivers: VecDeque<Receiver>,
}

#[derive(Debug)]
struct Message {
    value: Value,
    bytes: u64,
}

#[derive(Debug)]
struct Sender {
    number: u64,
    message: Message,
    wake: Arc<Condvar>,
}

#[derive(Debug)]
struct Receiver {
    number: u64,
    wake: Arc<Condvar>,
}

/// How waiting ended without what was waited for.
enum Ended {
    Time,
    Cell,
}

impl State {
    /// The channel, made if it is not there.
    fn channel(&mut self, name: &str) -> Result<&mut Channel, Failure> {
        if !self.channels.contains_key(name) && self.channels.len() >= CHANNELS_MAX {
            let text = format!("ipc: there are {CHANNELS_MAX} channels in use already");
            return Err(Failure::new("RuntimeError", text));
        }
        Ok(self.channels.entry(name.to_owned()).or_default())
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Moves what fits from the senders that wait, and forgets a channel that nobody uses.
    fn settle(&mut self, name: &str) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        while let Some(sender) = channel.senders.pop_front() {
            if !channel.fits(sender.message.bytes) {
                channel.senders.push_front(sender);
                break;
            }
            self.bytes += sender.message.bytes;
            channel.put(sender.message);
            self.taken.insert(sender.number);
            sender.wake.notify_all();
        }
        if channel.is_unused() {
            self.channels.remove(name);
        }
    }

    /// Gives a message to who waits longest; back if nobody waits.
    fn deliver(&mut self, name: &str, message: Message) -> Option<Message> {
        let receiver = self.channels.get_mut(name).and_then(|it| it.receivers.pop_front());
        let Some(receiver) = receiver else { return Some(message) };
        self.delivered.insert(receiver.number, message);
        receiver.wake.notify_all();
        None
    }

    /// Puts back what was delivered to somebody who may not have it any more.
    fn give_back(&mut self, name: &str, message: Message) {
        if let Some(message) = self.deliver(name, message) {
            self.bytes += message.bytes;
            let channel = self.channels.entry(name.to_owned()).or_default();
            channel.bytes += message.bytes;
            channel.messages.push_front(message);
        }
    }
}

impl Channel {
    fn fits(&self, bytes: u64) -> bool {
        self.messages.len() < MESSAGES_MAX && self.bytes + bytes <= CHANNEL_BYTES_MAX
    }

    fn put(&mut self, message: Message) {
        self.bytes += message.bytes;
        self.messages.push_back(message);
    }

    fn is_unused(&self) -> bool {
        self.messages.is_empty() && self.senders.is_empty() && self.receivers.is_empty()
    }
}

impl Channels {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is woken by the end of the cell as well, while the second of the two lives.
    fn waker(&self, cancel: &Cancel) -> (Arc<Condvar>, OnCancel) {
        let wake = Arc::new(Condvar::new());
        let (state, woken) = (Arc::clone(&self.0), Arc::clone(&wake));
        let on_cancel = cancel.on_cancel(move || {
            // Whoever looked before the cell ended is waiting by the time that this has the lock.
            drop(state.lock());
            woken.notify_all();
        });
        (wake, on_cancel)
    }

    fn send(
        &self,
        name: &str,
        message: Message,
        timeout: Duration,
        cancel: &Cancel,
    ) -> Result<(), Refusal> {
        if message.bytes > CHANNEL_BYTES_MAX {
            return Err(Failure::os(Errno::MSGSIZE).into());
        }
        let (wake, _on_cancel) = self.waker(cancel);
        let mut state = self.state();
        let Some(message) = state.deliver(name, message) else { return Ok(()) };
        if state.bytes + message.bytes > BYTES_MAX {
            return Err(Failure::os(Errno::NOBUFS).into());
        }
        let number = state.next();
        state.channel(name)?.senders.push_back(Sender { number, message, wake: Arc::clone(&wake) });
        state.settle(name);
        let (mut state, ended) =
            wait(state, &wake, timeout, cancel, |state| state.taken.remove(&number).then_some(()));
        let Err(ended) = ended else { return Ok(()) };
        if let Some(channel) = state.channels.get_mut(name) {
            channel.senders.retain(|sender| sender.number != number);
        }
        // Those behind it may fit where it did not.
        state.settle(name);
        Err(match ended {
            Ended::Cell => Refusal::Cancelled,
            Ended::Time => timed_out("send", "is full", name, timeout),
        })
    }

    /// `check` asks again whether it is allowed once a wait is over.
    fn receive(
        &self,
        name: &str,
        timeout: Duration,
        cancel: &Cancel,
        check: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<Value, Refusal> {
        let (wake, _on_cancel) = self.waker(cancel);
        let mut state = self.state();
        let number = state.next();
        let channel = state.channel(name)?;
        if let Some(message) = channel.messages.pop_front() {
            channel.bytes -= message.bytes;
            state.bytes -= message.bytes;
            state.settle(name);
            return Ok(message.value);
        }
        channel.receivers.push_back(Receiver { number, wake: Arc::clone(&wake) });
        let (mut state, ended) =
            wait(state, &wake, timeout, cancel, |state| state.delivered.remove(&number));
        let answer = match ended {
            Ok(message) => {
                let ended = if cancel.is_cancelled() { Err(Refusal::Cancelled) } else { check() };
                match ended {
                    Ok(()) => Ok(message.value),
                    // The message goes to the next, before all others.
                    Err(refusal) => {
                        state.give_back(name, message);
                        Err(refusal)
                    }
                }
            }
            Err(Ended::Cell) => Err(Refusal::Cancelled),
            Err(Ended::Time) => Err(timed_out("receive", "is empty", name, timeout)),
        };
        if let Some(channel) = state.channels.get_mut(name) {
            channel.receivers.retain(|receiver| receiver.number != number);
        }
        state.settle(name);
        answer
    }
}

/// Waits until `done` says something, with the lock given up meanwhile.
fn wait<'s, T>(
    mut state: MutexGuard<'s, State>,
    wake: &Condvar,
    timeout: Duration,
    cancel: &Cancel,
    mut done: impl FnMut(&mut State) -> Option<T>,
) -> (MutexGuard<'s, State>, Result<T, Ended>) {
    let begin = Instant::now();
    loop {
        if let Some(done) = done(&mut state) {
            return (state, Ok(done));
        }
        if cancel.is_cancelled() {
            return (state, Err(Ended::Cell));
        }
        let left = timeout.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return (state, Err(Ended::Time));
        }
        state = wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn timed_out(action: &str, how: &str, name: &str, timeout: Duration) -> Refusal {
    let text = format!("ipc.{action}: the channel {name:?} {how} after {timeout:?}");
    Refusal::Failed(Failure::new("TimeoutError", text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Message {
        let value = Value::Bytes(vec![0; bytes]);
        let bytes = size(&value);
        Message { value, bytes }
    }

    const NOW: Duration = Duration::ZERO;

    fn kind(refusal: Refusal) -> String {
        match refusal {
            Refusal::Failed(failure) => format!("{}: {}", failure.kind, failure.message),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn sizes_count_what_is_inside() {
        let one = size(&Value::None);
        let list = Value::List(vec![Value::Int(1), Value::Text("abcd".into())]);
        assert_eq!(size(&list), 3 * one + 4);
        let dict = Value::Dict(vec![(Value::None, list)]);
        assert_eq!(size(&dict), 5 * one + 4);
    }

    #[test]
    fn a_channel_is_bounded_in_number_and_bytes() {
        let (channels, cancel) = (Channels::default(), Cancel::default());
        for _ in 0..MESSAGES_MAX {
            channels.send("n", message(0), NOW, &cancel).unwrap();
        }
        let full = channels.send("n", message(0), NOW, &cancel).unwrap_err();
        assert!(kind(full).starts_with("TimeoutError"));
        channels.receive("n", NOW, &cancel, || Ok(())).unwrap();
        channels.send("n", message(0), NOW, &cancel).unwrap();

        let half = usize::try_from(CHANNEL_BYTES_MAX / 2).unwrap();
        channels.send("b", message(half), NOW, &cancel).unwrap();
        channels.send("b", message(half), NOW, &cancel).unwrap_err();
        let large = channels.send("b", message(2 * half), NOW, &cancel).unwrap_err();
        assert!(kind(large).contains("[Errno 90]"));
    }

    #[test]
    fn all_channels_together_are_bounded() {
        let (channels, cancel) = (Channels::default(), Cancel::default());
        channels.state().bytes = BYTES_MAX;
        let full = channels.send("b", message(1), NOW, &cancel).unwrap_err();
        assert!(kind(full).contains("[Errno 105]"));
        channels.state().bytes = 0;
        for number in 0..CHANNELS_MAX {
            channels.send(&number.to_string(), message(0), NOW, &cancel).unwrap();
        }
        let more = channels.send("more", message(0), NOW, &cancel).unwrap_err();
        assert!(kind(more).starts_with("RuntimeError"));
        channels.receive("0", NOW, &cancel, || Ok(())).unwrap();
        channels.send("more", message(0), NOW, &cancel).unwrap();
    }

    #[test]
    fn nothing_is_left_of_a_channel_that_nobody_uses() {
        let (channels, cancel) = (Channels::default(), Cancel::default());
        channels.receive("x", NOW, &cancel, || Ok(())).unwrap_err();
        channels.send("x", message(5), NOW, &cancel).unwrap();
        channels.receive("x", NOW, &cancel, || Ok(())).unwrap();
        cancel.cancel();
        channels.receive("x", TIMEOUT, &cancel, || Ok(())).unwrap_err();
        let state = channels.state();
        assert!(state.channels.is_empty() && state.bytes == 0);
        assert!(state.delivered.is_empty() && state.taken.is_empty());
    }

    #[test]
    fn who_sends_to_a_full_channel_is_served_in_turn() {
        let (channels, cancel) = (Arc::new(Channels::default()), Cancel::default());
        for _ in 0..MESSAGES_MAX {
            channels.send("x", message(0), NOW, &cancel).unwrap();
        }
        let mut senders = Vec::new();
        for turn in 1..=5 {
            let (channels, cancel) = (Arc::clone(&channels), cancel.clone());
            let before = usize::try_from(turn).unwrap() - 1;
            while channels.0.lock().unwrap().channels["x"].senders.len() < before {
                std::thread::yield_now();
            }
            senders.push(std::thread::spawn(move || {
                let message = Message { value: Value::Int(turn), bytes: 1 };
                channels.send("x", message, TIMEOUT, &cancel).unwrap();
            }));
        }
        while channels.state().channels["x"].senders.len() < 5 {
            std::thread::yield_now();
        }
        for _ in 0..MESSAGES_MAX {
            channels.receive("x", NOW, &cancel, || Ok(())).unwrap();
        }
        let rest: Vec<Value> =
            (0..5).map(|_| channels.receive("x", NOW, &cancel, || Ok(())).unwrap()).collect();
        assert_eq!(rest, (1..=5).map(Value::Int).collect::<Vec<_>>());
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    }

    #[test]
    fn a_message_for_a_cell_that_ended_goes_to_the_next() {
        let (channels, cancel) = (Arc::new(Channels::default()), Cancel::default());
        let waiting = {
            let (channels, cancel) = (Arc::clone(&channels), cancel.clone());
            std::thread::spawn(move || channels.receive("x", TIMEOUT, &cancel, || Ok(())))
        };
        while channels.state().channels.get("x").is_none_or(|it| it.receivers.is_empty()) {
            std::thread::yield_now();
        }
        // The cell ends, and the message is handed over before its thread can wake.
        let mut state = channels.state();
        let late = Message { value: Value::Int(1), bytes: 1 };
        assert!(state.deliver("x", late).is_none());
        let ending = cancel.clone();
        let ended = std::thread::spawn(move || ending.cancel());
        while !cancel.is_cancelled() {
            std::thread::yield_now();
        }
        drop(state);
        ended.join().unwrap();
        let other = Cancel::default();
        assert!(matches!(waiting.join().unwrap(), Err(Refusal::Cancelled)));
        assert_eq!(channels.receive("x", NOW, &other, || Ok(())).unwrap(), Value::Int(1));
        assert!(channels.state().channels.is_empty());
    }
}

//! What frames mean: one enum for each direction, checked when it is read.
//!
//! Seven operations cross the wall. Around them each side needs a few words of its own, none of
//! which guest code can send or see: `Configure`, `Room`, `Stop` and `Ready`, `Done`, `Result`,
//! `Failed`, `Want`.

use crate::frame::{Frame, FrameError, Part};

/// The longest name that crosses (a call's target, a log's level, a metric's name, a capability or
/// an action), in bytes. A dotted Python path or a metric name of over a kilobyte is a mistake.
pub const NAME_BYTES_MAX: usize = 1024;

/// The longest text that crosses inline (a log's message, an error's message or traceback), in
/// bytes. Half of a frame, so that two such texts and their table fit one.
pub const TEXT_BYTES_MAX: usize = 30 * 1024;

/// The id under which a guest says `Done` once it has applied its settings. Operations count from 1.
pub const CONFIGURED: u32 = 0;

/// The exit status of a cell whose runtime had no memory left to say so.
pub const EXIT_OUT_OF_MEMORY: i32 = 75;

/// A pickled object: the pickle and its out-of-band buffers, all of which may be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Protocol 5 pickle.
    pub pickle: Part<'a>,
    /// The buffers that it refers to, in order.
    pub buffers: Vec<Part<'a>>,
}

impl<'a> Payload<'a> {
    /// A payload without buffers, inline.
    #[must_use]
    pub fn inline(pickle: &'a [u8]) -> Self {
        Self { pickle: Part::Inline(pickle), buffers: Vec::new() }
    }

    fn push_to(&self, parts: &mut Vec<Part<'a>>) {
        parts.push(self.pickle);
        parts.extend_from_slice(&self.buffers);
    }

    fn from_parts(parts: &[Part<'a>]) -> Option<Self> {
        let (pickle, buffers) = parts.split_first()?;
        Some(Self { pickle: *pickle, buffers: buffers.to_vec() })
    }
}

/// What the broker said to a `request`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The action was done; this is its result.
    Granted(Payload<'a>),
    /// The action was done; its result is this, inline, and a descriptor: an opened file or a
    /// connected socket. It is next on the socket, under the frame's store number.
    Handed(Payload<'a>),
    /// The action is not allowed; the text says what is missing.
    Denied(&'a str),
    /// The action was allowed and failed.
    Failed {
        /// The exception's type name, from the builtins.
        kind: &'a str,
        /// Its message, free of host paths.
        message: &'a str,
    },
}

/// Host to guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToGuest<'a> {
    /// The cell's settings, a pickled dict; sent once, before anything else. To a guest that goes on
    /// from a snapshot nobody's come before, by which it renews its randomness.
    Configure(&'a [u8]),
    /// `exec`
    Exec {
        /// Answered by `Done` or `Failed` with the same id.
        id: u32,
        /// UTF-8 source text.
        source: Part<'a>,
    },
    /// `call`
    Call {
        /// Answered by `Result` or `Failed` with the same id.
        id: u32,
        /// `module.func`
        target: &'a str,
        /// The pickled pair `(args, kwargs)`.
        arguments: Payload<'a>,
    },
    /// `post`
    Post(Payload<'a>),
    /// The answer to a `request`.
    Answer {
        /// The request's id.
        id: u32,
        /// What the broker said.
        answer: Answer<'a>,
    },
    /// The answer to `Want`: a buffer (its descriptor is next on the socket, under the frame's
    /// store number), or why there is none.
    Room {
        /// The id of the `Want`.
        id: u32,
        /// The buffer's number, or the reason for refusing.
        store: Result<u32, &'a str>,
    },
    /// Finish what was sent so far, then exit.
    Stop,
}

/// Guest to host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToHost<'a> {
    /// The cell is confined; this is what the kernel says of it. Sent before any guest code runs.
    Ready(&'a str),
    /// An `exec` ended without an error; or, with [`CONFIGURED`], the settings are applied.
    Done(u32),
    /// A `call` returned.
    Result {
        /// The call's id.
        id: u32,
        /// What it returned.
        value: Payload<'a>,
    },
    /// An `exec` or `call` raised.
    Failed {
        /// The operation's id.
        id: u32,
        /// The exception's type name.
        kind: &'a str,
        /// `str(exception)`
        message: &'a str,
        /// The formatted traceback.
        traceback: &'a str,
    },
    /// `post`
    Post(Payload<'a>),
    /// `log`, and what guest code prints.
    Log {
        /// For instance `info`.
        level: &'a str,
        /// The text.
        message: &'a str,
        /// A pickled dict of further fields.
        fields: Payload<'a>,
    },
    /// `metric`
    Metric {
        /// For instance `rows`.
        name: &'a str,
        /// The pickled pair `(value, tags)`.
        sample: Payload<'a>,
    },
    /// `request`
    Request {
        /// Answered by `Answer` with the same id.
        id: u32,
        /// For instance `filesystem`.
        capability: &'a str,
        /// For instance `read`.
        action: &'a str,
        /// The pickled payload.
        payload: Payload<'a>,
    },
    /// Asks for a shared buffer in which the next frame's large parts will lie.
    Want {
        /// Answered by `Room` with the same id.
        id: u32,
        /// How large it must be.
        bytes: u64,
    },
}

mod kind {
    pub(super) const CONFIGURE: u8 = 1;
    pub(super) const EXEC: u8 = 2;
    pub(super) const CALL: u8 = 3;
    pub(super) const POST: u8 = 4;
    pub(super) const ANSWER: u8 = 5;
    pub(super) const ROOM: u8 = 6;
    pub(super) const STOP: u8 = 7;

    pub(super) const READY: u8 = 17;
    pub(super) const DONE: u8 = 18;
    pub(super) const RESULT: u8 = 19;
    pub(super) const FAILED: u8 = 20;
    pub(super) const POSTED: u8 = 21;
    pub(super) const LOG: u8 = 22;
    pub(super) const METRIC: u8 = 23;
    pub(super) const REQUEST: u8 = 24;
    pub(super) const WANT: u8 = 25;
}

const GRANTED: &[u8] = b"granted";
const HANDED: &[u8] = b"handed";
const DENIED: &[u8] = b"denied";
const FAILED: &[u8] = b"failed";

impl<'a> ToGuest<'a> {
    /// Lays the message out; `store` is the shared buffer that its stored parts lie in, or 0.
    #[must_use]
    pub fn to_frame(&self, store: u32) -> Frame<'a> {
        let mut parts = Vec::new();
        let mut frame_id = 0;
        let mut store = store;
        let kind = match self {
            Self::Configure(settings) => {
                parts.push(Part::Inline(settings));
                kind::CONFIGURE
            }
            Self::Exec { id, source } => {
                frame_id = *id;
                parts.push(*source);
                kind::EXEC
            }
            Self::Call { id, target, arguments } => {
                frame_id = *id;
                parts.push(Part::Inline(target.as_bytes()));
                arguments.push_to(&mut parts);
                kind::CALL
            }
            Self::Post(message) => {
                message.push_to(&mut parts);
                kind::POST
            }
            Self::Answer { id, answer } => {
                frame_id = *id;
                match answer {
                    Answer::Granted(value) => {
                        parts.push(Part::Inline(GRANTED));
                        value.push_to(&mut parts);
                    }
                    Answer::Handed(value) => {
                        parts.push(Part::Inline(HANDED));
                        value.push_to(&mut parts);
                    }
                    Answer::Denied(why) => {
                        parts.extend([Part::Inline(DENIED), Part::Inline(why.as_bytes())]);
                    }
                    Answer::Failed { kind, message } => parts.extend([
                        Part::Inline(FAILED),
                        Part::Inline(kind.as_bytes()),
                        Part::Inline(message.as_bytes()),
                    ]),
                }
                kind::ANSWER
            }
            Self::Room { id, store: room } => {
                frame_id = *id;
                match room {
                    Ok(number) => store = *number,
                    Err(why) => parts.push(Part::Inline(why.as_bytes())),
                }
                kind::ROOM
            }
            Self::Stop => kind::STOP,
        };
        Frame { kind, id: frame_id, store, parts }
    }

    /// Reads a frame that the host sent.
    ///
    /// # Errors
    /// [`FrameError`] where the frame is not in the contract.
    pub fn from_frame(frame: &Frame<'a>) -> Result<Self, FrameError> {
        let read = Reader(frame);
        let id = frame.id;
        Ok(match frame.kind {
            kind::CONFIGURE => {
                read.exactly(1)?;
                Self::Configure(read.bytes(0, usize::MAX)?)
            }
            kind::EXEC => {
                read.exactly(1)?;
                Self::Exec { id, source: frame.parts[0] }
            }
            kind::CALL => Self::Call { id, arguments: read.payload(1)?, target: read.name(0)? },
            kind::POST => Self::Post(read.payload(0)?),
            kind::ANSWER => {
                read.at_least(2)?;
                let answer = match read.bytes(0, NAME_BYTES_MAX)? {
                    GRANTED => Answer::Granted(read.payload(1)?),
                    HANDED => Answer::Handed(read.payload(1)?),
                    DENIED => Answer::Denied(read.text(1)?),
                    FAILED => {
                        read.exactly(3)?;
                        Answer::Failed { kind: read.name(1)?, message: read.text(2)? }
                    }
                    _ => return Err(FrameError::Text(0)),
                };
                Self::Answer { id, answer }
            }
            kind::ROOM if frame.store != 0 => {
                read.exactly(0)?;
                Self::Room { id, store: Ok(frame.store) }
            }
            kind::ROOM => {
                read.exactly(1)?;
                Self::Room { id, store: Err(read.text(0)?) }
            }
            kind::STOP => {
                read.exactly(0)?;
                Self::Stop
            }
            other => return Err(FrameError::Kind(other)),
        })
    }
}

impl<'a> ToHost<'a> {
    /// Whether the host must look even if nobody there is waiting.
    #[must_use]
    pub fn is_urgent(&self) -> bool {
        match self {
            Self::Request { .. } | Self::Want { .. } => true,
            // Of interest to whoever asks for the report, who reads.
            Self::Done(CONFIGURED) => false,
            // The clock of the running operation stops when the host sees these.
            Self::Ready(_) | Self::Done(_) | Self::Result { .. } | Self::Failed { .. } => true,
            Self::Post(_) | Self::Log { .. } | Self::Metric { .. } => false,
        }
    }

    /// Lays the message out; `store` is the shared buffer that its stored parts lie in, or 0.
    #[must_use]
    pub fn to_frame(&self, store: u32) -> Frame<'a> {
        let mut parts = Vec::new();
        let mut frame_id = 0;
        let kind = match self {
            Self::Ready(report) => {
                parts.push(Part::Inline(report.as_bytes()));
                kind::READY
            }
            Self::Done(id) => {
                frame_id = *id;
                kind::DONE
            }
            Self::Result { id, value } => {
                frame_id = *id;
                value.push_to(&mut parts);
                kind::RESULT
            }
            Self::Failed { id, kind, message, traceback } => {
                frame_id = *id;
                parts.extend([kind, message, traceback].map(|text| Part::Inline(text.as_bytes())));
                kind::FAILED
            }
            Self::Post(message) => {
                message.push_to(&mut parts);
                kind::POSTED
            }
            Self::Log { level, message, fields } => {
                parts.extend([level, message].map(|text| Part::Inline(text.as_bytes())));
                fields.push_to(&mut parts);
                kind::LOG
            }
            Self::Metric { name, sample } => {
                parts.push(Part::Inline(name.as_bytes()));
                sample.push_to(&mut parts);
                kind::METRIC
            }
            Self::Request { id, capability, action, payload } => {
                frame_id = *id;
                parts.extend([capability, action].map(|text| Part::Inline(text.as_bytes())));
                payload.push_to(&mut parts);
                kind::REQUEST
            }
            Self::Want { id, bytes } => {
                // The store field is free here and wide enough: buffers are counted in units of
                // STORE_ALIGN bytes, as the places in them are.
                let units = bytes.div_ceil(crate::frame::STORE_ALIGN);
                let store = u32::try_from(units).unwrap_or(u32::MAX);
                return Frame { kind: kind::WANT, id: *id, store, parts };
            }
        };
        Frame { kind, id: frame_id, store, parts }
    }

    /// Reads a frame that a guest sent.
    ///
    /// # Errors
    /// [`FrameError`] where the frame is not in the contract; the cell that sent it must die.
    pub fn from_frame(frame: &Frame<'a>) -> Result<Self, FrameError> {
        let read = Reader(frame);
        let id = frame.id;
        Ok(match frame.kind {
            kind::READY => {
                read.exactly(1)?;
                Self::Ready(read.text(0)?)
            }
            kind::DONE => {
                read.exactly(0)?;
                Self::Done(id)
            }
            kind::RESULT => Self::Result { id, value: read.payload(0)? },
            kind::FAILED => {
                read.exactly(3)?;
                Self::Failed {
                    id,
                    kind: read.name(0)?,
                    message: read.text(1)?,
                    traceback: read.text(2)?,
                }
            }
            kind::POSTED => Self::Post(read.payload(0)?),
            kind::LOG => {
                Self::Log { fields: read.payload(2)?, level: read.name(0)?, message: read.text(1)? }
            }
            kind::METRIC => Self::Metric { sample: read.payload(1)?, name: read.name(0)? },
            kind::REQUEST => Self::Request {
                id,
                payload: read.payload(2)?,
                capability: read.name(0)?,
                action: read.name(1)?,
            },
            kind::WANT => {
                read.exactly(0)?;
                Self::Want { id, bytes: u64::from(frame.store) * crate::frame::STORE_ALIGN }
            }
            other => return Err(FrameError::Kind(other)),
        })
    }
}

struct Reader<'f, 'a>(&'f Frame<'a>);

impl<'a> Reader<'_, 'a> {
    fn wrong_parts(&self) -> FrameError {
        FrameError::Parts { kind: self.0.kind, parts: self.0.parts.len() }
    }

    fn exactly(&self, count: usize) -> Result<(), FrameError> {
        if self.0.parts.len() == count { Ok(()) } else { Err(self.wrong_parts()) }
    }

    fn at_least(&self, count: usize) -> Result<(), FrameError> {
        if self.0.parts.len() >= count { Ok(()) } else { Err(self.wrong_parts()) }
    }

    fn payload(&self, first: usize) -> Result<Payload<'a>, FrameError> {
        self.0.parts.get(first..).and_then(Payload::from_parts).ok_or_else(|| self.wrong_parts())
    }

    fn bytes(&self, index: usize, cap: usize) -> Result<&'a [u8], FrameError> {
        match self.0.parts.get(index) {
            Some(Part::Inline(bytes)) if bytes.len() <= cap => Ok(bytes),
            Some(_) => Err(FrameError::PartTooLong(index)),
            None => Err(self.wrong_parts()),
        }
    }

    fn str(&self, index: usize, cap: usize) -> Result<&'a str, FrameError> {
        std::str::from_utf8(self.bytes(index, cap)?).map_err(|_| FrameError::Text(index))
    }

    fn name(&self, index: usize) -> Result<&'a str, FrameError> {
        self.str(index, NAME_BYTES_MAX)
    }

    fn text(&self, index: usize) -> Result<&'a str, FrameError> {
        self.str(index, TEXT_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn payload() -> Payload<'static> {
        Payload {
            pickle: Part::Inline(b"N."),
            buffers: vec![Part::Stored { offset: 128, len: 70 }, Part::Inline(b"xy")],
        }
    }

    #[test]
    fn every_message_to_the_host_is_read_as_it_was_written() {
        let value = payload();
        for message in [
            ToHost::Ready("seccomp enforced"),
            ToHost::Done(4),
            ToHost::Result { id: 1, value: value.clone() },
            ToHost::Failed { id: 2, kind: "ValueError", message: "no", traceback: "Traceback" },
            ToHost::Post(value.clone()),
            ToHost::Log { level: "info", message: "hello", fields: value.clone() },
            ToHost::Metric { name: "rows", sample: value.clone() },
            ToHost::Request { id: 3, capability: "fs", action: "read", payload: value },
            ToHost::Want { id: 5, bytes: 64 << 20 },
        ] {
            assert_eq!(ToHost::from_frame(&message.to_frame(7)), Ok(message));
        }
    }

    #[test]
    fn every_message_to_the_guest_is_read_as_it_was_written() {
        let value = payload();
        for message in [
            ToGuest::Configure(b"}."),
            ToGuest::Exec { id: 1, source: Part::Inline(b"x = 1") },
            ToGuest::Call { id: 2, target: "math.sqrt", arguments: value.clone() },
            ToGuest::Post(value.clone()),
            ToGuest::Answer { id: 3, answer: Answer::Granted(value) },
            ToGuest::Answer { id: 3, answer: Answer::Denied("no rule") },
            ToGuest::Answer { id: 3, answer: Answer::Failed { kind: "OSError", message: "gone" } },
            ToGuest::Room { id: 4, store: Ok(9) },
            ToGuest::Stop,
        ] {
            assert_eq!(ToGuest::from_frame(&message.to_frame(7)), Ok(message));
        }
        let refused = ToGuest::Room { id: 4, store: Err("too large") };
        assert_eq!(ToGuest::from_frame(&refused.to_frame(0)), Ok(refused));
    }

    #[test]
    fn a_name_over_its_cap_is_refused() {
        let name = "n".repeat(NAME_BYTES_MAX + 1);
        let frame = ToHost::Metric { name: &name, sample: payload() }.to_frame(1);
        assert_eq!(ToHost::from_frame(&frame), Err(FrameError::PartTooLong(0)));
    }

    #[test]
    fn the_hosts_words_are_not_the_guests() {
        let frame = ToGuest::Stop.to_frame(0);
        assert_eq!(ToHost::from_frame(&frame), Err(FrameError::Kind(7)));
    }

    proptest! {
        #[test]
        fn any_frame_is_a_message_or_an_error(
            kind in 0u8..32,
            id in any::<u32>(),
            store in any::<u32>(),
            parts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
        ) {
            let parts = parts.iter().map(|part| Part::Inline(part)).collect();
            let frame = Frame { kind, id, store, parts };
            let _ = ToHost::from_frame(&frame);
            let _ = ToGuest::from_frame(&frame);
        }
    }
}

//! The guest's end of the channel, shared by the cell's threads.
//!
//! Whoever waits reads: the first waiting thread takes the reader and hands out what arrives; the
//! others sleep until their item is there or the reader is free. Nothing in here knows Python, so
//! all of it runs with the interpreter's lock released.

use std::collections::{HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pyisolate_abi::frame::{
    FRAME_BYTES_MAX, Frame, FrameError, Part, STORE_ALIGN, encoded_len, store_layout,
};
use pyisolate_abi::message::{Answer, Payload, ToGuest, ToHost};
use pyisolate_channel::{
    ChannelError, GuestDescriptors, GuestEnd, GuestReader, GuestWriter, Received, Sent, fill_buffer,
};
use thiserror::Error;

/// Why something could not cross.
#[derive(Debug, Error)]
pub(crate) enum LinkError {
    #[error("the channel to the host broke: {0}")]
    Channel(#[from] ChannelError),
    #[error("the host sent a frame that is none: {0}")]
    Frame(#[from] FrameError),
    #[error("the host asked this cell to stop")]
    Stopped,
    #[error("message of {bytes} bytes is over message_bytes_max={limit}: send it in pieces")]
    TooLarge { bytes: u64, limit: u64 },
    #[error("the host gave no room for a message of {bytes} bytes: {why}")]
    NoRoom { bytes: u64, why: String },
    #[error("reading a large message failed: {0}")]
    Store(std::io::Error),
}

/// A pickled object from the host, owned.
#[derive(Debug)]
pub(crate) struct Parcel {
    /// The shared buffer that stored parts lie in, and its length in bytes.
    pub(crate) store: Option<(OwnedFd, u64)>,
    /// The pickle, then its buffers.
    pub(crate) parts: Vec<OwnedPart>,
}

#[derive(Debug)]
pub(crate) enum OwnedPart {
    Inline(Vec<u8>),
    Stored { offset: u64, len: u32 },
}

impl From<&Part<'_>> for OwnedPart {
    fn from(part: &Part<'_>) -> Self {
        match *part {
            Part::Inline(bytes) => Self::Inline(bytes.to_vec()),
            Part::Stored { offset, len } => Self::Stored { offset, len },
        }
    }
}

/// What the host wants done.
#[derive(Debug)]
pub(crate) enum Command {
    Configure(Vec<u8>),
    Exec { id: u32, source: Parcel },
    Call { id: u32, target: String, arguments: Parcel },
}

/// What the broker said, owned.
#[derive(Debug)]
pub(crate) enum OwnedAnswer {
    Granted(Parcel),
    Handed(Parcel, OwnedFd),
    Denied(String),
    Failed { kind: String, message: String },
}

#[derive(Default)]
struct Inbox {
    commands: VecDeque<Command>,
    posts: VecDeque<Parcel>,
    /// About what `posts` takes of the cell's memory.
    post_bytes: u64,
    answers: HashMap<u32, OwnedAnswer>,
    rooms: HashMap<u32, Result<OwnedFd, String>>,
    stopped: bool,
}

/// The channel as the guest runtime uses it.
pub(crate) struct Link {
    writer: Mutex<GuestWriter>,
    reader: Mutex<Incoming>,
    inbox: Mutex<Inbox>,
    arrived: Condvar,
    next_id: AtomicU32,
    message_bytes_max: AtomicU64,
    post_bytes_max: AtomicU64,
}

/// Whether a thread that waits goes on reading when posts that nobody takes fill the inbox.
#[derive(Clone, Copy)]
enum Reading {
    /// No: the host's next `post` finds the channel full.
    Bounded,
    /// Yes: this thread waits for an answer, and the host sends few of those.
    Always,
}

/// The reading half: records, and the descriptors that some of them name.
struct Incoming {
    records: GuestReader,
    descriptors: GuestDescriptors,
}

/// A thread that panicked under one of these locks has left nothing half-written: every update is
/// one push or one remove.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    pub(crate) fn new(end: GuestEnd) -> Self {
        Self {
            writer: Mutex::new(end.writer),
            reader: Mutex::new(Incoming { records: end.reader, descriptors: end.descriptors }),
            inbox: Mutex::new(Inbox::default()),
            arrived: Condvar::new(),
            next_id: AtomicU32::new(1),
            message_bytes_max: AtomicU64::new(FRAME_BYTES_MAX as u64),
            post_bytes_max: AtomicU64::new(FRAME_BYTES_MAX as u64),
        }
    }

    /// Takes the cell's limits. Posts that wait to be taken may fill a quarter of its memory.
    pub(crate) fn set_limits(&self, message_bytes: u64, mem_bytes: u64) {
        self.message_bytes_max.store(message_bytes, Ordering::Relaxed);
        self.post_bytes_max.store(mem_bytes / 4, Ordering::Relaxed);
    }

    fn fresh_id(&self) -> u32 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    // --- receiving

    /// The next operation, or `None` once the host said stop.
    pub(crate) fn next_command(&self) -> Result<Option<Command>, LinkError> {
        let next = self.wait(None, Reading::Bounded, |inbox| match inbox.commands.pop_front() {
            Some(command) => Some(Some(command)),
            None => inbox.stopped.then_some(None),
        })?;
        Ok(next.flatten())
    }

    /// The next posted message, or `None` past the deadline.
    pub(crate) fn next_post(&self, deadline: Option<Instant>) -> Result<Option<Parcel>, LinkError> {
        self.wait(deadline, Reading::Bounded, |inbox| match inbox.posts.pop_front() {
            Some(post) => {
                inbox.post_bytes -= post.cost_bytes();
                Some(Ok(post))
            }
            None => inbox.stopped.then_some(Err(LinkError::Stopped)),
        })?
        .transpose()
    }

    /// Waits until `take` finds its item; `None` past the deadline.
    fn wait<T>(
        &self,
        deadline: Option<Instant>,
        reading: Reading,
        mut take: impl FnMut(&mut Inbox) -> Option<T>,
    ) -> Result<Option<T>, LinkError> {
        let mut record = Vec::new();
        loop {
            let mut inbox = lock(&self.inbox);
            if let Some(item) = take(&mut inbox) {
                return Ok(Some(item));
            }
            let passed = deadline.is_some_and(|deadline| deadline <= Instant::now());
            let full = inbox.post_bytes >= self.post_bytes_max.load(Ordering::Relaxed);
            let reader = match reading {
                Reading::Bounded if full => None,
                _ => self.reader.try_lock().ok(),
            };
            let Some(mut reader) = reader else {
                if passed {
                    return Ok(None);
                }
                // The thread that reads wakes us under this lock when it has something or leaves.
                let longest = Duration::from_millis(100);
                let patience = deadline.map_or(longest, |deadline| {
                    deadline.saturating_duration_since(Instant::now()).min(longest)
                });
                drop(self.arrived.wait_timeout(inbox, patience));
                continue;
            };
            drop(inbox);
            record.clear();
            let outcome = reader.records.recv(&mut record, deadline);
            let accepted = match outcome {
                Ok(Received::Record) => self.accept(&record, &mut reader),
                Ok(Received::TimedOut) => Ok(()),
                Ok(Received::PeerGone) => Err(LinkError::Stopped),
                Err(error) => Err(error.into()),
            };
            let record_came = accepted.is_ok() && !record.is_empty();
            drop(reader);
            drop(lock(&self.inbox));
            self.arrived.notify_all();
            accepted?;
            if passed && !record_came {
                return Ok(None);
            }
        }
    }

    fn accept(&self, record: &[u8], reader: &mut Incoming) -> Result<(), LinkError> {
        let frame = Frame::decode(record)?;
        let message = ToGuest::from_frame(&frame)?;
        let mut store = match frame.store {
            0 => None,
            number => Some(reader.descriptors.recv_named(number)?),
        };
        let mut parcel = |payload: &Payload<'_>| Parcel {
            store: store.take().map(|fd| {
                let len = rustix::fs::fstat(&fd).map_or(0, |stat| stat.st_size);
                (fd, u64::try_from(len).unwrap_or(0))
            }),
            parts: std::iter::once(&payload.pickle)
                .chain(&payload.buffers)
                .map(Into::into)
                .collect(),
        };
        let mut inbox = lock(&self.inbox);
        match message {
            ToGuest::Configure(settings) => {
                inbox.commands.push_back(Command::Configure(settings.to_vec()));
            }
            ToGuest::Exec { id, source } => {
                let source = parcel(&Payload { pickle: source, buffers: Vec::new() });
                inbox.commands.push_back(Command::Exec { id, source });
            }
            ToGuest::Call { id, target, arguments } => {
                let (target, arguments) = (target.to_owned(), parcel(&arguments));
                inbox.commands.push_back(Command::Call { id, target, arguments });
            }
            ToGuest::Post(message) => {
                let message = parcel(&message);
                inbox.post_bytes += message.cost_bytes();
                inbox.posts.push_back(message);
            }
            ToGuest::Answer { id, answer } => {
                let answer = match answer {
                    Answer::Granted(value) => OwnedAnswer::Granted(parcel(&value)),
                    Answer::Handed(value) => {
                        let value = parcel(&value);
                        match value {
                            Parcel { store: Some((fd, _)), parts } => {
                                OwnedAnswer::Handed(Parcel { store: None, parts }, fd)
                            }
                            value => OwnedAnswer::Granted(value),
                        }
                    }
                    Answer::Denied(why) => OwnedAnswer::Denied(why.to_owned()),
                    Answer::Failed { kind, message } => {
                        OwnedAnswer::Failed { kind: kind.to_owned(), message: message.to_owned() }
                    }
                };
                inbox.answers.insert(id, answer);
            }
            ToGuest::Room { id, store: Err(why) } => {
                inbox.rooms.insert(id, Err(why.to_owned()));
            }
            ToGuest::Room { id, store: Ok(_) } => {
                if let Some(fd) = store.take() {
                    inbox.rooms.insert(id, Ok(fd));
                }
            }
            ToGuest::Stop => inbox.stopped = true,
        }
        Ok(())
    }

    // --- sending

    /// Refuses a message over the cell's limit, where the error points at the guest's line.
    pub(crate) fn check_size(&self, pickle: &[u8], buffers: &[&[u8]]) -> Result<(), LinkError> {
        let bytes: u64 =
            pickle.len() as u64 + buffers.iter().map(|buffer| buffer.len() as u64).sum::<u64>();
        let limit = self.message_bytes_max.load(Ordering::Relaxed);
        if bytes > limit { Err(LinkError::TooLarge { bytes, limit }) } else { Ok(()) }
    }

    /// Sends a message without a payload, or with a small one.
    pub(crate) fn send(&self, message: &ToHost<'_>) -> Result<(), LinkError> {
        self.send_frame(&message.to_frame(0), message.is_urgent())
    }

    /// Sends without waiting; `false` if the ring is full or another thread is sending.
    pub(crate) fn try_send(&self, message: &ToHost<'_>) -> Result<bool, LinkError> {
        let frame = message.to_frame(0);
        if encoded_len(&frame.parts) > FRAME_BYTES_MAX {
            return Ok(false);
        }
        let Ok(mut writer) = self.writer.try_lock() else { return Ok(false) };
        let mut record = Vec::new();
        frame.encode(&mut record);
        Ok(writer.try_send(&[&record], message.is_urgent())? == Sent::Sent)
    }

    fn send_frame(&self, frame: &Frame<'_>, urgent: bool) -> Result<(), LinkError> {
        let mut record = Vec::new();
        frame.encode(&mut record);
        match lock(&self.writer).send(&[&record], urgent, None)? {
            Sent::Sent => Ok(()),
            Sent::Full | Sent::PeerGone => Err(LinkError::Stopped),
        }
    }

    /// Sends a message with a payload: inline if it fits a frame, else through a shared buffer that
    /// the host lends. `message` builds it around wherever the payload's bytes ended up.
    pub(crate) fn send_payload<'a>(
        &self,
        pickle: &'a [u8],
        buffers: &[&'a [u8]],
        message: impl Fn(Payload<'a>) -> ToHost<'a>,
    ) -> Result<(), LinkError> {
        let inline = Payload {
            pickle: Part::Inline(pickle),
            buffers: buffers.iter().map(|bytes| Part::Inline(bytes)).collect(),
        };
        let inline = message(inline);
        let frame = inline.to_frame(0);
        if encoded_len(&frame.parts) <= FRAME_BYTES_MAX {
            return self.send_frame(&frame, inline.is_urgent());
        }
        let parts = || std::iter::once(pickle).chain(buffers.iter().copied());
        let (places, end) = store_layout(parts().map(<[u8]>::len));
        // The zeros between the parts, which are aligned.
        static PADDING: [u8; STORE_ALIGN as usize] = [0; STORE_ALIGN as usize];
        let pieces: Vec<&[u8]> = parts()
            .flat_map(|bytes| {
                let padding = bytes.len().next_multiple_of(PADDING.len()) - bytes.len();
                [bytes, &PADDING[..padding]]
            })
            .collect();
        let (store, memory) = self.room(end)?;
        fill_buffer(memory, &pieces)?;
        let mut places = places.into_iter();
        let stored = Payload {
            pickle: places.next().unwrap_or(Part::Inline(&[])),
            buffers: places.collect(),
        };
        let stored = message(stored);
        self.send_frame(&stored.to_frame(store), stored.is_urgent())
    }

    /// Asks the host for a shared buffer; its number is the id under which it was asked for.
    fn room(&self, bytes: u64) -> Result<(u32, OwnedFd), LinkError> {
        let id = self.fresh_id();
        self.send(&ToHost::Want { id, bytes })?;
        let room = self.wait(None, Reading::Always, |inbox| match inbox.rooms.remove(&id) {
            Some(room) => Some(Ok(room)),
            None => inbox.stopped.then_some(Err(LinkError::Stopped)),
        })?;
        match room.ok_or(LinkError::Stopped)?? {
            Ok(fd) => Ok((id, fd)),
            Err(why) => Err(LinkError::NoRoom { bytes, why }),
        }
    }

    /// `request`: sends the question and waits for its answer.
    pub(crate) fn request(
        &self,
        capability: &str,
        action: &str,
        pickle: &[u8],
        buffers: &[&[u8]],
    ) -> Result<OwnedAnswer, LinkError> {
        self.check_size(pickle, buffers)?;
        let id = self.fresh_id();
        self.send_payload(pickle, buffers, |payload| ToHost::Request {
            id,
            capability,
            action,
            payload,
        })?;
        self.wait(None, Reading::Always, |inbox| match inbox.answers.remove(&id) {
            Some(answer) => Some(Ok(answer)),
            None => inbox.stopped.then_some(Err(LinkError::Stopped)),
        })?
        .ok_or(LinkError::Stopped)?
    }
}

impl Parcel {
    /// About what it takes of the cell's memory, in bytes.
    fn cost_bytes(&self) -> u64 {
        let inline = self.parts.iter().map(|part| match part {
            OwnedPart::Inline(bytes) => bytes.len() as u64,
            OwnedPart::Stored { .. } => 0,
        });
        256 + inline.sum::<u64>()
    }

    /// The bytes of the first part, read out of the store if they lie there.
    pub(crate) fn first_bytes(&self) -> std::io::Result<Vec<u8>> {
        match (self.parts.first(), &self.store) {
            (Some(OwnedPart::Inline(bytes)), _) => Ok(bytes.clone()),
            (Some(&OwnedPart::Stored { offset, len }), Some((fd, _))) => {
                let mut bytes = vec![0; len as usize];
                let mut filled = 0;
                while filled < bytes.len() {
                    match rustix::io::pread(fd, &mut bytes[filled..], offset + filled as u64)? {
                        0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                        count => filled += count,
                    }
                }
                Ok(bytes)
            }
            _ => Err(std::io::ErrorKind::InvalidData.into()),
        }
    }
}

//! The relay in the host, which holds the guest's end of the channel. The machine is the enemy: what
//! it sends is taken by the head, each piece has to fit a buffer that the host lent, and the frames
//! are the host end's to judge.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use pyisolate_abi::frame::Frame;
use pyisolate_abi::message::{Answer, ToGuest, ToHost};

use super::wire::{Message, RelayError, StreamReader, StreamWriter, Told};
use crate::buffer::{map_buffer, write_all};
use crate::guest::{GuestDescriptors, GuestEnd, GuestReader, GuestWriter};
use crate::ring::{Received, Sent};

/// How long the ring may be full before the machine is looked at.
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// How a relay in the host ended.
#[derive(Debug)]
pub enum RelayEnd {
    /// The machine told it.
    Told(Told),
    /// The stream ended: the machine is gone.
    Gone,
    /// It broke, or the machine broke its rules.
    Failed(RelayError),
}

/// A buffer that the host lent and the guest fills.
struct Lent {
    memory: OwnedFd,
    filled_bytes: u64,
}

type LentBuffers = Arc<Mutex<HashMap<u32, Lent>>>;

fn lock(lent: &LentBuffers) -> std::sync::MutexGuard<'_, HashMap<u32, Lent>> {
    lent.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Relays between a guest's end and the stream to a machine, in two threads, until either ends.
/// `ended` is called once, in one of them, after which the end of the channel is closed.
///
/// `is_over` says whether the machine is gone. What it sent before and has no room in the ring, then
/// has nobody to wait for it: the host may be taking it slowly, or not at all.
///
/// # Errors
/// The kernel has no thread to give.
pub fn relay_host(
    end: GuestEnd,
    from_machine: impl Read + Send + 'static,
    to_machine: impl Write + Send + 'static,
    is_over: impl Fn() -> bool + Send + 'static,
    ended: impl FnOnce(RelayEnd) + Send + 'static,
) -> io::Result<()> {
    let GuestEnd { writer, reader, descriptors, control } = end;
    let lent = LentBuffers::default();
    let lent_too = Arc::clone(&lent);
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let control_too = control.clone();
    thread("pyisolate-to-vm").spawn(move || {
        // What went wrong the other thread finds out as well: the stream's end.
        let _ = pass_down(reader, descriptors, &lent_too, StreamWriter::new(to_machine));
        drop(control_too);
    })?;
    thread("pyisolate-from-vm").spawn(move || {
        let end = match pass_up(writer, &lent, StreamReader::new(from_machine), &is_over) {
            Ok(Some(told)) => RelayEnd::Told(told),
            Ok(None) => RelayEnd::Gone,
            Err(error) => RelayEnd::Failed(error),
        };
        ended(end);
        // The other thread comes back and lets go of its half, which closes the channel's socket.
        let _ = control.mark_dead();
    })?;
    Ok(())
}

/// The host's records, until the channel is marked dead.
fn pass_down(
    mut reader: GuestReader,
    mut descriptors: GuestDescriptors,
    lent: &LentBuffers,
    mut out: StreamWriter<impl Write>,
) -> Result<(), RelayError> {
    let mut record = Vec::new();
    loop {
        match reader.recv(&mut record, None)? {
            Received::Record => {}
            Received::TimedOut => continue,
            Received::PeerGone => return Ok(()),
        }
        if let Ok(frame) = Frame::decode(&record)
            && frame.store != 0
        {
            let memory = descriptors.recv_named(frame.store)?;
            match ToGuest::from_frame(&frame) {
                Ok(ToGuest::Room { id, .. }) => {
                    lock(lent).insert(id, Lent { memory, filled_bytes: 0 });
                }
                // The session of such a cell is told that it takes none.
                Ok(ToGuest::Answer { answer: Answer::Handed(_), .. }) => {}
                _ => send_buffer(&mut out, frame.store, memory)?,
            }
        }
        out.record(&record)?;
    }
}

fn send_buffer(
    out: &mut StreamWriter<impl Write>,
    number: u32,
    memory: OwnedFd,
) -> Result<(), RelayError> {
    let len_bytes = rustix::fs::fstat(memory.as_fd()).map_err(io::Error::from)?.st_size;
    let len_bytes = usize::try_from(len_bytes).unwrap_or(0);
    let mapping = map_buffer(memory, len_bytes)?;
    out.buffer(number, len_bytes as u64)?;
    Ok(out.pieces(number, &mapping)?)
}

/// The machine's messages, until it tells something beside them or the stream ends.
fn pass_up(
    mut writer: GuestWriter,
    lent: &LentBuffers,
    mut stream: StreamReader<impl Read>,
    is_over: &impl Fn() -> bool,
) -> Result<Option<Told>, RelayError> {
    loop {
        match stream.next()? {
            None => return Ok(None),
            Some(Message::Told(told)) => return Ok(Some(told)),
            Some(Message::Buffer { .. }) => {
                return Err(RelayError::Foreign("a buffer that nobody lent"));
            }
            Some(Message::Piece { number }) => {
                let mut lent = lock(lent);
                let buffer = lent
                    .get_mut(&number)
                    .ok_or(RelayError::Foreign("bytes for a buffer that nobody lent"))?;
                // Its size is sealed: what does not fit is an error.
                write_all(buffer.memory.as_fd(), buffer.filled_bytes, &stream.body)?;
                buffer.filled_bytes += stream.body.len() as u64;
            }
            Some(Message::Record) => {
                let mut urgent = true;
                if let Ok(frame) = Frame::decode(&stream.body) {
                    lock(lent).remove(&frame.store);
                    urgent = ToHost::from_frame(&frame).is_ok_and(|message| message.is_urgent());
                }
                loop {
                    let look = Instant::now() + BETWEEN_LOOKS;
                    match writer.send(&[&stream.body], urgent, Some(look))? {
                        Sent::Sent => break,
                        Sent::Full if !is_over() => {}
                        Sent::Full | Sent::PeerGone => return Ok(None),
                    }
                }
            }
        }
    }
}

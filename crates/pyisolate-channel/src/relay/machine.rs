//! The relay in the machine, which holds the host's end of the guest's channel. To it both sides are
//! strangers; but all that it could lose is the machine.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use pyisolate_abi::frame::Frame;
use pyisolate_abi::message::{ToGuest, ToHost};

use super::wire::{Message, RelayError, StreamReader, StreamWriter, Told};
use crate::buffer::SharedBuffer;
use crate::host::{HostControl, HostEnd, HostReader, HostWriter};
use crate::ring::{Received, Sent};

/// How long a guest is given to take a descriptor before it is offered again.
const DESCRIPTOR_PAUSE: Duration = Duration::from_millis(1);

/// What the two directions share: buffers that the guest asked for, and those that it fills.
#[derive(Default)]
struct Buffers {
    wanted_bytes: HashMap<u32, u64>,
    lent: HashMap<u32, SharedBuffer>,
}

type SharedBuffers = Arc<Mutex<Buffers>>;

fn lock(buffers: &SharedBuffers) -> MutexGuard<'_, Buffers> {
    buffers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is heard of the host beside the channel's records, with the stream behind it; `None` at its
/// end.
type Heard<R> = Result<Option<(StreamReader<R>, Told)>, RelayError>;

/// A relay that runs.
#[derive(Debug)]
pub struct MachineRelay<R> {
    control: HostControl,
    up: JoinHandle<()>,
    down: JoinHandle<Heard<R>>,
}

impl<R> MachineRelay<R> {
    /// After the guest's process ended: waits until what it still said is passed on. The other
    /// direction goes on, and ends with what the host says next beside the channel.
    ///
    /// # Errors
    /// The relay itself failed.
    pub fn finish(self) -> Result<JoinHandle<Heard<R>>, RelayError> {
        self.control.mark_dead()?;
        self.up.join().map_err(|_| RelayError::Foreign("the relay itself failed"))?;
        Ok(self.down)
    }
}

/// Relays between a host's end and the stream to the host, in two threads. `first` is what the guest
/// has said already.
///
/// # Errors
/// The kernel has no thread to give.
pub fn relay_machine<R: Read + Send + 'static, W: Write + Send + 'static>(
    end: HostEnd,
    first: Vec<u8>,
    from_host: StreamReader<R>,
    mut to_host: StreamWriter<W>,
) -> io::Result<MachineRelay<R>> {
    let HostEnd { writer, reader, control } = end;
    let buffers = SharedBuffers::default();
    let buffers_too = Arc::clone(&buffers);
    let thread = || std::thread::Builder::new();
    let up = thread().spawn(move || {
        // A stream that broke is the end of the machine, which the other direction hears too.
        let _ = pass_up(reader, first, &buffers_too, &mut to_host);
    })?;
    let control_too = control.clone();
    let down = thread().spawn(move || {
        let heard = pass_down(writer, &control_too, &buffers, from_host);
        if !matches!(heard, Ok(Some(_))) {
            let _ = control_too.mark_dead();
        }
        heard
    })?;
    Ok(MachineRelay { control, up, down })
}

/// The guest's records, until it is marked dead and everything it said is passed on.
fn pass_up(
    mut reader: HostReader,
    first: Vec<u8>,
    buffers: &SharedBuffers,
    out: &mut StreamWriter<impl Write>,
) -> Result<(), RelayError> {
    out.record(&first)?;
    let mut record = first;
    reader.enter_reading();
    loop {
        match reader.recv(&mut record, None)? {
            Received::Record => {}
            Received::TimedOut => continue,
            Received::PeerGone => return Ok(()),
        }
        if let Ok(frame) = Frame::decode(&record) {
            if let Ok(ToHost::Want { id, bytes }) = ToHost::from_frame(&frame) {
                lock(buffers).wanted_bytes.insert(id, bytes);
            } else if frame.store != 0
                && let Some(buffer) = { lock(buffers).lent.remove(&frame.store) }
            {
                out.pieces(frame.store, &buffer.seal_and_map()?)?;
            }
        }
        out.record(&record)?;
    }
}

/// The host's messages, until it says something beside them or the stream ends.
fn pass_down<R: Read>(
    mut writer: HostWriter,
    control: &HostControl,
    buffers: &SharedBuffers,
    mut stream: StreamReader<R>,
) -> Heard<R> {
    let mut filling: Option<(u32, SharedBuffer, u64)> = None;
    loop {
        match stream.next()? {
            None => return Ok(None),
            Some(Message::Told(told)) => return Ok(Some((stream, told))),
            Some(Message::Buffer { number, len_bytes }) => {
                let buffer =
                    SharedBuffer::create(usize::try_from(len_bytes).unwrap_or(usize::MAX))?;
                filling = Some((number, buffer, 0));
            }
            Some(Message::Piece { number }) => match &mut filling {
                Some((filled, buffer, at)) if *filled == number => {
                    buffer.write_at(*at, &stream.body)?;
                    *at += stream.body.len() as u64;
                }
                _ => return Err(RelayError::Foreign("bytes for no buffer")),
            },
            Some(Message::Record) => {
                if let Ok(frame) = Frame::decode(&stream.body)
                    && frame.store != 0
                {
                    if let Ok(ToGuest::Room { id, .. }) = ToGuest::from_frame(&frame) {
                        let mut buffers = lock(buffers);
                        let bytes = buffers.wanted_bytes.remove(&id).unwrap_or(0);
                        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                        let buffer = SharedBuffer::create(bytes)?;
                        hand_over(control, frame.store, &buffer)?;
                        buffers.lent.insert(id, buffer);
                    } else if let Some((_, buffer, _)) =
                        filling.take_if(|(number, ..)| *number == frame.store)
                    {
                        hand_over(control, frame.store, &buffer.seal_for_guest()?)?;
                    }
                }
                // A guest that is gone misses nothing.
                let _ = writer.send(&[&stream.body], None)?;
            }
        }
    }
}

fn hand_over(control: &HostControl, tag: u32, buffer: &impl AsFd) -> Result<(), RelayError> {
    while control.send_descriptor(tag, buffer.as_fd())? == Sent::Full {
        std::thread::sleep(DESCRIPTOR_PAUSE);
    }
    Ok(())
}

//! What is on the stream: messages, each with a head of twelve bytes.
//!
//! ```text
//! 0   u8   kind
//! 1   3x   zero
//! 4   u32  number    of the shared buffer, or a status
//! 8   u32  length    of what follows, in bytes
//! ```

use std::io::{self, IoSlice, Read, Write};

use pyisolate_abi::frame::FRAME_BYTES_MAX;
use thiserror::Error;

use crate::error::ChannelError;

const HEAD_BYTES: usize = 12;

/// The longest piece of a shared buffer, in bytes: what a port of the machine takes in one turn costs
/// as much as its bytes from about here on.
pub(super) const PIECE_BYTES: usize = 256 * 1024;

/// The longest text that is told, in bytes.
const TEXT_BYTES_MAX: usize = 16 * 1024;

/// How much fresh randomness a machine is woken with, in bytes: what its kernel's generator holds,
/// twice.
pub const SEED_BYTES: usize = 64;

/// Why a relay ended before the guest did.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The stream could not be read or written.
    #[error("the stream to the machine broke: {0}")]
    Stream(#[from] io::Error),
    /// The other side sent what has no place on the stream.
    #[error("the stream holds what has no place in it: {0}")]
    Foreign(&'static str),
    /// This side's channel.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

/// What a machine is told when it goes on from its snapshot.
#[derive(Clone, PartialEq, Eq)]
pub struct Wake {
    /// For the kernel's random generator, whose state every machine of the snapshot shares.
    pub seed: [u8; SEED_BYTES],
    /// The time, in nanoseconds since 1970.
    pub realtime_ns: u64,
    /// Whether what it runs becomes a template: it is told so before the first operation.
    pub is_template: bool,
}

/// What is told beside the channel's records.
#[derive(Debug, PartialEq, Eq)]
pub enum Told {
    /// By the host: go on.
    Wake(Wake),
    /// By the machine: everything is there, and no guest's code has run yet.
    Booted,
    /// By the machine: the guest's process ended.
    Ended {
        /// As `wait` gives it.
        status: i32,
        /// The CPU time that it used, in milliseconds.
        cpu_ms: u64,
    },
    /// By the machine: it could not go on.
    Fatal(String),
}

/// One message of the stream; its bytes are in the reader.
pub(super) enum Message {
    /// A frame of the channel.
    Record,
    /// A buffer comes, so long.
    Buffer { number: u32, len_bytes: u64 },
    /// The next bytes of it.
    Piece { number: u32 },
    /// Something beside the channel.
    Told(Told),
}

/// The seed stays out of logs.
impl std::fmt::Debug for Wake {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Wake")
            .field("realtime_ns", &self.realtime_ns)
            .field("is_template", &self.is_template)
            .finish_non_exhaustive()
    }
}

/// The writing half.
#[derive(Debug)]
pub struct StreamWriter<W>(W);

/// The reading half.
#[derive(Debug)]
pub struct StreamReader<R> {
    stream: R,
    /// Of the message that was read last.
    pub(super) body: Vec<u8>,
}

impl StreamWriter<std::fs::File> {
    /// Another writer to the same stream, for when this one is silent.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

impl<W: Write> StreamWriter<W> {
    /// Writes to `stream`, which is not buffered.
    pub fn new(stream: W) -> Self {
        Self(stream)
    }

    /// Tells something.
    ///
    /// # Errors
    /// The stream's.
    pub fn tell(&mut self, told: &Told) -> io::Result<()> {
        match told {
            Told::Wake(wake) => {
                let mut body = wake.seed.to_vec();
                body.extend(wake.realtime_ns.to_le_bytes());
                body.push(wake.is_template.into());
                self.send(b'W', 0, &body)
            }
            Told::Booted => self.send(b'B', 0, &[]),
            Told::Ended { status, cpu_ms } => {
                self.send(b'E', status.cast_unsigned(), &cpu_ms.to_le_bytes())
            }
            Told::Fatal(why) => {
                let end = why.floor_char_boundary(TEXT_BYTES_MAX);
                self.send(b'!', 0, &why.as_bytes()[..end])
            }
        }
    }

    pub(super) fn record(&mut self, record: &[u8]) -> io::Result<()> {
        self.send(b'R', 0, record)
    }

    pub(super) fn buffer(&mut self, number: u32, len_bytes: u64) -> io::Result<()> {
        self.send(b'L', number, &len_bytes.to_le_bytes())
    }

    pub(super) fn pieces(&mut self, number: u32, bytes: &[u8]) -> io::Result<()> {
        bytes.chunks(PIECE_BYTES).try_for_each(|piece| self.send(b'S', number, piece))
    }

    fn send(&mut self, kind: u8, number: u32, body: &[u8]) -> io::Result<()> {
        let mut head = [0; HEAD_BYTES];
        head[0] = kind;
        head[4..8].copy_from_slice(&number.to_le_bytes());
        let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
        head[8..].copy_from_slice(&length.to_le_bytes());
        // At once as far as it goes: a port of the machine costs by the write.
        let written = loop {
            match self.0.write_vectored(&[IoSlice::new(&head), IoSlice::new(body)]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        match written.checked_sub(HEAD_BYTES) {
            Some(done) => self.0.write_all(&body[done..]),
            None => {
                self.0.write_all(&head[written..])?;
                self.0.write_all(body)
            }
        }
    }
}

impl<R: Read> StreamReader<R> {
    /// Reads from `stream`, which may be buffered.
    pub fn new(stream: R) -> Self {
        Self { stream, body: Vec::new() }
    }

    /// What is told next; `None` at the stream's end.
    ///
    /// # Errors
    /// The stream's, or the other side's: only what stands beside the channel may come now.
    pub fn hear(&mut self) -> Result<Option<Told>, RelayError> {
        match self.next()? {
            None => Ok(None),
            Some(Message::Told(told)) => Ok(Some(told)),
            Some(_) => Err(RelayError::Foreign("a record before its time")),
        }
    }

    /// The next message; `None` at the end. Reads no further than its end.
    pub(super) fn next(&mut self) -> Result<Option<Message>, RelayError> {
        let mut head = [0; HEAD_BYTES];
        if !fill_or_end(&mut self.stream, &mut head)? {
            return Ok(None);
        }
        let [kind, 0, 0, 0, n0, n1, n2, n3, l0, l1, l2, l3] = head else {
            return Err(RelayError::Foreign("a message without a head"));
        };
        let number = u32::from_le_bytes([n0, n1, n2, n3]);
        let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        let longest = match kind {
            b'R' => FRAME_BYTES_MAX,
            b'S' => PIECE_BYTES,
            b'L' | b'E' => size_of::<u64>(),
            b'W' => SEED_BYTES + size_of::<u64>() + 1,
            b'!' => TEXT_BYTES_MAX,
            b'B' => 0,
            _ => return Err(RelayError::Foreign("a message of no known kind")),
        };
        if length > longest {
            return Err(RelayError::Foreign("a message that is too long"));
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body)?;
        Ok(Some(match kind {
            b'R' => Message::Record,
            b'S' => Message::Piece { number },
            b'L' => Message::Buffer { number, len_bytes: self.number()? },
            b'E' => {
                let (status, cpu_ms) = (number.cast_signed(), self.number()?);
                Message::Told(Told::Ended { status, cpu_ms })
            }
            b'W' => Message::Told(Told::Wake(self.wake()?)),
            b'B' => Message::Told(Told::Booted),
            _ => Message::Told(Told::Fatal(String::from_utf8_lossy(&self.body).into_owned())),
        }))
    }

    fn number(&self) -> Result<u64, RelayError> {
        let bytes = <[u8; 8]>::try_from(self.body.as_slice());
        bytes.map(u64::from_le_bytes).map_err(|_| RelayError::Foreign("a number that is cut off"))
    }

    fn wake(&self) -> Result<Wake, RelayError> {
        let cut_off = RelayError::Foreign("a word to go on that is cut off");
        let Some((seed, rest)) = self.body.split_first_chunk() else { return Err(cut_off) };
        let Some((realtime_ns, [is_template])) = rest.split_first_chunk() else {
            return Err(cut_off);
        };
        Ok(Wake {
            seed: *seed,
            realtime_ns: u64::from_le_bytes(*realtime_ns),
            is_template: *is_template != 0,
        })
    }
}

/// Fills `bytes`; false if the stream ended before the first of them.
fn fill_or_end(stream: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    let mut filled = 0;
    while filled < bytes.len() {
        match stream.read(&mut bytes[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // How a socket tells of an end that did not read everything.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && filled == 0 => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(bytes: &[u8]) -> Result<Option<Told>, RelayError> {
        StreamReader::new(bytes).hear()
    }

    #[test]
    fn what_is_told_is_heard() {
        let wake = Wake { seed: [7; SEED_BYTES], realtime_ns: 1 << 60, is_template: true };
        for told in [
            Told::Wake(wake),
            Told::Booted,
            Told::Ended { status: -9, cpu_ms: 5 },
            Told::Fatal("no port".to_owned()),
        ] {
            let mut bytes = Vec::new();
            StreamWriter::new(&mut bytes).tell(&told).unwrap();
            assert_eq!(heard(&bytes).unwrap(), Some(told));
        }
    }

    #[test]
    fn what_has_no_place_is_refused() {
        let message = |kind: u8, length: u32, body: &[u8]| {
            let mut bytes = vec![kind, 0, 0, 0, 0, 0, 0, 0];
            bytes.extend(length.to_le_bytes());
            bytes.extend(body);
            bytes
        };
        assert!(matches!(heard(&[]), Ok(None)));
        assert!(matches!(heard(b"B\0\0"), Err(RelayError::Stream(_))));
        for bytes in [
            message(b'X', 0, &[]),
            message(b'B', 1, b"x"),
            message(b'R', u32::MAX, &[]),
            message(b'S', (PIECE_BYTES + 1) as u32, &[]),
            message(b'E', 3, b"abc"),
            message(b'W', 8, &[0; 8]),
            message(b'R', 1, b"x"),
            vec![b'B', 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert!(matches!(heard(&bytes), Err(RelayError::Foreign(_))), "{bytes:?}");
        }
    }
}

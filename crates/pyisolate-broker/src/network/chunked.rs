//! The `chunked` transfer coding, read as it comes.

use super::line::protocol;
use crate::outcome::Refusal;

/// The longest line of a chunk's size, with what is said beside it.
const LINE_BYTES_MAX: usize = 4096;

/// The longest trailer.
const TRAILER_BYTES_MAX: usize = 64 << 10;

/// Where in the coding the next byte stands.
#[derive(Debug)]
pub(super) enum Chunked {
    /// In the line with a chunk's size.
    Size {
        line: Vec<u8>,
    },
    /// In a chunk, with so much to come.
    Data(u64),
    /// Behind a chunk.
    DataEnd,
    /// Behind the last chunk. Trailers are dropped.
    Trailer {
        line: usize,
        all: usize,
    },
    End,
}

impl Default for Chunked {
    fn default() -> Self {
        Self::Size { line: Vec::new() }
    }
}

impl Chunked {
    pub(super) const fn is_end(&self) -> bool {
        matches!(self, Self::End)
    }

    /// Takes bytes up to the end of the coding, and gives what they carry.
    pub(super) fn push(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
        while let Some((first, rest)) = input.split_first() {
            match self {
                Self::Data(left) => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                    out.extend_from_slice(&input[..take]);
                    *left -= u64::try_from(take).unwrap_or(u64::MAX);
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    input = &input[take..];
                    continue;
                }
                Self::Size { line } if *first == b'\n' => {
                    let size = size(line)?;
                    *self = match size {
                        0 => Self::Trailer { line: 0, all: 0 },
                        size => Self::Data(size),
                    };
                }
                Self::Size { line } if line.len() >= LINE_BYTES_MAX => {
                    return Err(protocol("a chunk's size is too long"));
                }
                Self::Size { line } => line.push(*first),
                Self::DataEnd => match first {
                    b'\r' => {}
                    b'\n' => *self = Self::default(),
                    _ => return Err(protocol("a chunk does not end where it says")),
                },
                Self::Trailer { line, .. } if *first == b'\n' && *line == 0 => *self = Self::End,
                Self::Trailer { line, all } => {
                    *all += 1;
                    if *all > TRAILER_BYTES_MAX {
                        return Err(protocol("the trailer is too long"));
                    }
                    match first {
                        b'\n' => *line = 0,
                        b'\r' => {}
                        _ => *line += 1,
                    }
                }
                // What a server says behind its answer is not read.
                Self::End => return Ok(()),
            }
            input = rest;
        }
        Ok(())
    }
}

fn size(line: &[u8]) -> Result<u64, Refusal> {
    let error = || protocol("a chunk's size is no number");
    let line = std::str::from_utf8(line).map_err(|_| error())?;
    let digits = line.split(';').next().unwrap_or_default().trim_end();
    // Not `+5`, which Rust would read.
    if digits.is_empty() || digits.len() > 15 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(error());
    }
    u64::from_str_radix(digits, 16).map_err(|_| error())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<(Vec<u8>, bool), Refusal> {
        let mut whole = Vec::new();
        let mut state = Chunked::default();
        state.push(text, &mut whole)?;
        let mut bytewise = Vec::new();
        let mut other = Chunked::default();
        for byte in text {
            other.push(std::slice::from_ref(byte), &mut bytewise)?;
        }
        assert_eq!(whole, bytewise);
        assert_eq!(state.is_end(), other.is_end());
        Ok((whole, state.is_end()))
    }

    #[test]
    fn chunks_are_put_together() {
        let text = b"3\r\nabc\r\nA;x=\"y\"\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nmore";
        assert_eq!(read(text).unwrap(), (b"abc0123456789".to_vec(), true));
        assert_eq!(read(b"0\r\n\r\n").unwrap(), (vec![], true));
        assert_eq!(read(b"3\r\nabc\r\n0\r\n").unwrap(), (b"abc".to_vec(), false));
        assert_eq!(read(b"3\r\nab").unwrap(), (b"ab".to_vec(), false));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            &b"\r\n"[..],
            b"+3\r\nabc\r\n",
            b"-1\r\n",
            b"g\r\n",
            b"3\r\nabcd\r\n",
            b"ffffffffffffffff\r\n",
            b"0x3\r\nabc",
        ] {
            assert!(read(text).is_err(), "{text:?}");
        }
        assert!(read(&vec![b'1'; LINE_BYTES_MAX + 1]).is_err());
        let mut trailer = b"0\r\n".to_vec();
        trailer.extend(vec![b'x'; TRAILER_BYTES_MAX + 1]);
        assert!(read(&trailer).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(text in "[0-9a-f;\r\n]{0,60}") {
            let whole = Chunked::default().push(text.as_bytes(), &mut Vec::new()).is_ok();
            let mut state = Chunked::default();
            let bytewise = text.bytes().all(|byte| state.push(&[byte], &mut Vec::new()).is_ok());
            proptest::prop_assert_eq!(whole, bytewise);
        }
    }
}

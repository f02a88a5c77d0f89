//! A message that came out of a cell, decoded.

use std::sync::Arc;

use pyisolate_abi::frame::Part;
use pyisolate_abi::message::Payload;
use pyisolate_abi::pickle::{Caps, Message, TrustedNames, decode};
use pyisolate_channel::Mapping;

use crate::error::Breach;

/// A decoded message and the buffers that it refers to by index.
#[derive(Debug)]
pub struct Delivery {
    /// The decoded values. Its buffer nodes index `buffers`.
    pub message: Message<'static>,
    /// The out-of-band buffers.
    pub buffers: Vec<Buffer>,
}

impl Delivery {
    /// About what it takes of the host's memory, in bytes.
    pub(crate) fn cost_bytes(&self) -> u64 {
        // A value is 16 bytes and as much again in the tables around it; its text and bytes lie in
        // the pickle.
        let values = 32 * self.message.len() as u64 + self.message.pickle_bytes() as u64;
        let buffers = self.buffers.iter().map(|buffer| buffer.as_slice().len() as u64);
        values + buffers.sum::<u64>()
    }
}

/// Bytes that no guest can change any more.
#[derive(Clone, Debug)]
pub enum Buffer {
    /// Copied out of the ring.
    Owned(Arc<[u8]>),
    /// In a sealed shared buffer.
    Shared {
        /// The whole buffer, privately mapped.
        mapping: Arc<Mapping>,
        /// Where this part begins, in bytes.
        offset: usize,
        /// How long it is, in bytes.
        len: usize,
    },
}

impl Buffer {
    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared { mapping, offset, len } => &mapping[*offset..offset + len],
        }
    }
}

/// What the host does with a payload that decodes, and with one that may not cross.
pub(crate) enum Decoded {
    Delivery(Delivery),
    /// An honest sender's value that may not cross; the text names it.
    Refused(String),
}

/// Decodes a payload whose stored parts lie in `store`.
pub(crate) fn open(
    payload: &Payload<'_>,
    store: Option<&Arc<Mapping>>,
    trusted: &TrustedNames,
    caps: &Caps,
) -> Result<Decoded, Breach> {
    let buffers = payload
        .buffers
        .iter()
        .map(|part| buffer(part, store))
        .collect::<Result<Vec<_>, Breach>>()?;
    check_disjoint(&buffers)?;
    let lens: Vec<u64> = buffers.iter().map(|buffer| buffer.as_slice().len() as u64).collect();
    let pickle = match &payload.pickle {
        Part::Inline(bytes) => bytes.to_vec(),
        stored @ Part::Stored { .. } => buffer(stored, store)?.as_slice().to_vec(),
    };
    match decode(pickle, &lens, trusted, caps) {
        Ok(message) => Ok(Decoded::Delivery(Delivery { message, buffers })),
        Err(error) if error.is_malformed() => Err(Breach::Pickle(error)),
        Err(error) => Ok(Decoded::Refused(error.to_string())),
    }
}

/// Parts that overlap could make one buffer cost the host as much as a thousand.
fn check_disjoint(buffers: &[Buffer]) -> Result<(), Breach> {
    let mut ranges: Vec<_> = buffers
        .iter()
        .filter_map(|buffer| match buffer {
            Buffer::Shared { offset, len, .. } => Some((*offset, offset + len)),
            Buffer::Owned(_) => None,
        })
        .collect();
    ranges.sort_unstable();
    if ranges.windows(2).any(|pair| pair[0].1 > pair[1].0) {
        return Err(Breach::OverlappingParts);
    }
    Ok(())
}

fn buffer(part: &Part<'_>, store: Option<&Arc<Mapping>>) -> Result<Buffer, Breach> {
    match *part {
        Part::Inline(bytes) => Ok(Buffer::Owned(bytes.into())),
        Part::Stored { offset, len } => {
            let mapping = store.ok_or(Breach::UnknownBuffer(0))?;
            let end = offset + u64::from(len);
            let outside = Breach::OutsideBuffer { end, len: mapping.len() as u64 };
            match (usize::try_from(offset), usize::try_from(end)) {
                (Ok(offset), Ok(end)) if end <= mapping.len() => {
                    let (mapping, len) = (Arc::clone(mapping), len as usize);
                    Ok(Buffer::Shared { mapping, offset, len })
                }
                _ => Err(outside),
            }
        }
    }
}

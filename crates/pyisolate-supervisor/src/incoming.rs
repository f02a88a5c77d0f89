//! What comes out of a cell, in its order, as far as its rates allow.

use std::time::Instant;

use pyisolate_channel::{ChannelError, HostReader, Received};

use crate::pace::Paces;

/// The ring from the guest, and the one record that was taken from it and has to wait.
#[derive(Debug)]
pub(crate) struct Incoming {
    ring: HostReader,
    held: Option<Vec<u8>>,
    /// The record that was taken last had to wait before.
    waited: bool,
    /// `None` until the cell has limits.
    pub(crate) paces: Option<Paces>,
}

impl Incoming {
    pub(crate) fn new(ring: HostReader) -> Self {
        Self { ring, held: None, waited: false, paces: None }
    }

    /// Keeps a record to be the next one again.
    pub(crate) fn hold(&mut self, record: &mut Vec<u8>) {
        self.held = Some(std::mem::take(record));
    }

    pub(crate) fn is_holding(&self) -> bool {
        self.held.is_some()
    }

    /// Whether the record that was taken last had to wait before.
    pub(crate) fn has_waited(&self) -> bool {
        self.waited
    }

    fn take_held(&mut self, record: &mut Vec<u8>) -> bool {
        let held = self.held.take();
        self.waited = held.is_some();
        if let Some(held) = held {
            *record = held;
        }
        self.waited
    }

    /// The next record, if there is one.
    pub(crate) fn try_recv(&mut self, record: &mut Vec<u8>) -> Result<bool, ChannelError> {
        if self.take_held(record) { Ok(true) } else { self.ring.try_recv(record) }
    }

    /// The next record, waited for.
    pub(crate) fn recv(
        &mut self,
        record: &mut Vec<u8>,
        deadline: Option<Instant>,
    ) -> Result<Received, ChannelError> {
        if self.take_held(record) { Ok(Received::Record) } else { self.ring.recv(record, deadline) }
    }

    pub(crate) fn enter_reading(&mut self) {
        self.ring.enter_reading();
    }

    /// `true` if records are left that nobody was told of.
    pub(crate) fn leave_reading(&mut self) -> Result<bool, ChannelError> {
        self.ring.leave_reading()
    }
}

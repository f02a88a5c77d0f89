//! What a host takes from a cell's channel.

use std::time::Duration;

use crate::delivery::Delivery;

/// One item of the channel, in the order in which the guest produced it.
#[derive(Debug)]
pub enum Event {
    /// `post`
    Message(Delivery),
    /// `log`, or what guest code printed.
    Log {
        /// For instance `info`.
        level: String,
        /// The text.
        message: String,
        /// A dict of further fields.
        fields: Delivery,
    },
    /// `metric`
    Metric {
        /// For instance `rows`.
        name: String,
        /// The pair of value and tags.
        sample: Delivery,
    },
}

/// A refused `request`, as the host recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The cell's name.
    pub cell: String,
    /// The capability that was asked for.
    pub capability: String,
    /// What was to be done with it.
    pub action: String,
    /// What it was aimed at, for people: `read /etc/passwd`. Empty if it was never understood.
    pub target: String,
    /// The place of the rule that refused, as `file:line`, or `no rule matched`.
    pub rule: String,
    /// Who decided: `policy`, `broker` or `kernel`.
    pub layer: &'static str,
    /// The smallest grant that would allow it, as policy text.
    pub grant: Option<String>,
    /// Why it was refused.
    pub reason: String,
    /// When, from the cell's start.
    pub at: Duration,
}

/// What a cell used so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// CPU time, in milliseconds.
    pub cpu_ms: u64,
    /// Resident memory, in bytes, pages shared with its zygote among them; 0 once it ended.
    pub mem_bytes: u64,
    /// Time since it was spawned, in milliseconds.
    pub wall_ms: u64,
    /// Frames that crossed to the host.
    pub received: u64,
    /// Frames that crossed to the guest.
    pub sent: u64,
    /// Bytes of log events.
    pub output_bytes: u64,
    /// Requests that the broker refused.
    pub denied: u64,
    /// For how long its rates made it wait, in milliseconds.
    pub throttled_ms: u64,
    /// It was a sub-interpreter's and could not be ended: its thread and its memory stay until this
    /// process ends.
    pub abandoned: bool,
}

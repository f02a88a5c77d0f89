//! The numbers that bound a cell.

use std::fmt;

use thiserror::Error;

/// One limit, by the name that users type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LimitName {
    /// `wall_time_ms`
    WallTime,
    /// `cpu_ms`
    Cpu,
    /// `mem_bytes`
    Memory,
    /// `output_bytes_max`
    Output,
    /// `message_bytes_max`
    Message,
    /// `unread_bytes_max`
    Unread,
    /// `open_files_max`
    OpenFiles,
    /// `child_work_max`
    Threads,
    /// `network_ops_max`
    NetworkOps,
    /// `network_bytes_max`
    NetworkBytes,
    /// `disk_bytes_max`
    DiskBytes,
}

impl LimitName {
    /// Every limit there is.
    pub const ALL: [Self; 11] = [
        Self::WallTime,
        Self::Cpu,
        Self::Memory,
        Self::Output,
        Self::Message,
        Self::Unread,
        Self::OpenFiles,
        Self::Threads,
        Self::NetworkOps,
        Self::NetworkBytes,
        Self::DiskBytes,
    ];

    /// The keyword of `spawn` that sets this limit.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WallTime => "wall_time_ms",
            Self::Cpu => "cpu_ms",
            Self::Memory => "mem_bytes",
            Self::Output => "output_bytes_max",
            Self::Message => "message_bytes_max",
            Self::Unread => "unread_bytes_max",
            Self::OpenFiles => "open_files_max",
            Self::Threads => "child_work_max",
            Self::NetworkOps => "network_ops_max",
            Self::NetworkBytes => "network_bytes_max",
            Self::DiskBytes => "disk_bytes_max",
        }
    }
}

impl serde::Serialize for LimitName {
    fn serialize<S: serde::Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(self.as_str())
    }
}

impl fmt::Display for LimitName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// What a cell may use. Every limit has a default, so that a cell which nobody thought about is
/// bounded all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Wall time that one `exec` or `call` may take, in milliseconds. Default 60,000: an answer
    /// that a person or an agent waits for comes within a minute or not at all.
    pub wall_time_ms: u64,
    /// CPU time of the whole cell over its life, in milliseconds. Default 60,000: a minute of one
    /// core, which a loop that never ends uses up in a minute.
    pub cpu_ms: u64,
    /// Memory of the cell's own, in bytes: heap, thread stacks and writable data of libraries,
    /// large messages that it holds, and page tables; not files that are only read. Default 512
    /// MiB: a data frame of some millions of rows fits, and twenty cells fit a small server.
    pub mem_bytes: u64,
    /// What `print`, stderr and `log` may write over the cell's life, in bytes. Default 16 MiB:
    /// more than anybody reads.
    pub output_bytes: u64,
    /// The largest single message, in bytes, pickle and buffers together. Default 128 MiB: one
    /// large array.
    pub message_bytes: u64,
    /// Messages that the guest sent and the host has not taken, in bytes. Past it the guest waits.
    /// Default 256 MiB: one message of the largest size in flight while one is being read.
    pub unread_bytes: u64,
    /// Open descriptors, the cell's own channel among them. Default 64: an event loop and some
    /// dozens of files.
    pub open_files: u64,
    /// Threads, the main one among them. Default 16: a thread pool's usual size, at 8 MiB of stack
    /// each a quarter of the default memory.
    pub threads: u64,
    /// Connections and HTTP requests over the cell's life, redirects among them. Default 1,000: a
    /// crawl of a small site.
    pub network_ops: u64,
    /// Bytes that cross the network for the cell over its life, both ways. Default 256 MiB.
    pub network_bytes: u64,
    /// Bytes that the cell writes to files over its life. Default 1 GiB.
    pub disk_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_time_ms: 60_000,
            cpu_ms: 60_000,
            mem_bytes: 512 << 20,
            output_bytes: 16 << 20,
            message_bytes: 128 << 20,
            unread_bytes: 256 << 20,
            open_files: 64,
            threads: 16,
            network_ops: 1000,
            network_bytes: 256 << 20,
            disk_bytes: 1 << 30,
        }
    }
}

/// A limit that no cell could live under, or that could not be enforced.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{limit}={value} is outside {least}..={most}")]
pub struct LimitError {
    /// Which limit.
    pub limit: LimitName,
    /// What was asked for.
    pub value: u64,
    /// The smallest value that makes sense.
    pub least: u64,
    /// The largest value that can be enforced.
    pub most: u64,
}

impl Limits {
    /// The number behind a name.
    pub fn slot(&mut self, name: LimitName) -> &mut u64 {
        match name {
            LimitName::WallTime => &mut self.wall_time_ms,
            LimitName::Cpu => &mut self.cpu_ms,
            LimitName::Memory => &mut self.mem_bytes,
            LimitName::Output => &mut self.output_bytes,
            LimitName::Message => &mut self.message_bytes,
            LimitName::Unread => &mut self.unread_bytes,
            LimitName::OpenFiles => &mut self.open_files,
            LimitName::Threads => &mut self.threads,
            LimitName::NetworkOps => &mut self.network_ops,
            LimitName::NetworkBytes => &mut self.network_bytes,
            LimitName::DiskBytes => &mut self.disk_bytes,
        }
    }

    /// Checks each number against what a cell needs to live and what can be enforced.
    ///
    /// # Errors
    /// [`LimitError`] for the first number out of range.
    pub fn check(&self) -> Result<(), LimitError> {
        // A year; past it the sum of two times could leave 64-bit nanoseconds one day.
        let year_ms = 366 * 24 * 3600 * 1000;
        // An interpreter with its runtime takes some 10 MiB before guest code runs.
        let memory_least = 32 << 20;
        // A frame's store counts its length in 32 bits.
        let message_most = u64::from(u32::MAX) - (1 << 20);
        let check = |limit, value, least, most| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(LimitError { limit, value, least, most })
            }
        };
        check(LimitName::WallTime, self.wall_time_ms, 1, year_ms)?;
        check(LimitName::Cpu, self.cpu_ms, 1, year_ms)?;
        check(LimitName::Memory, self.mem_bytes, memory_least, 1 << 46)?;
        check(LimitName::Output, self.output_bytes, 0, 1 << 46)?;
        check(LimitName::Message, self.message_bytes, 1024, message_most)?;
        // A few hundred small messages: under less, a guest that prints hardly gets on.
        check(LimitName::Unread, self.unread_bytes, 64 << 10, 1 << 46)?;
        // Three standard streams, the channel's socket, and one to open.
        check(LimitName::OpenFiles, self.open_files, 5, 1 << 20)?;
        check(LimitName::Threads, self.threads, 1, 1 << 15)?;
        check(LimitName::NetworkOps, self.network_ops, 0, 1 << 46)?;
        check(LimitName::NetworkBytes, self.network_bytes, 0, 1 << 46)?;
        check(LimitName::DiskBytes, self.disk_bytes, 0, 1 << 46)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_in_range() {
        assert_eq!(Limits::default().check(), Ok(()));
    }

    #[test]
    fn a_limit_out_of_range_is_named() {
        let limits = Limits { threads: 0, ..Limits::default() };
        let error = limits.check().unwrap_err();
        assert_eq!(error.to_string(), "child_work_max=0 is outside 1..=32768");
    }
}

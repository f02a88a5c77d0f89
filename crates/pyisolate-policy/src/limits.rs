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
    /// `cpu_rate_max`
    CpuRate,
    /// `mem_bytes`
    Memory,
    /// `output_bytes_max`
    Output,
    /// `output_bytes_per_second`
    OutputRate,
    /// `message_bytes_max`
    Message,
    /// `unread_bytes_max`
    Unread,
    /// `unread_messages_max`
    UnreadMessages,
    /// `requests_per_second_max`
    RequestRate,
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
    /// `scratch_bytes`
    Scratch,
}

impl LimitName {
    /// Every limit there is.
    pub const ALL: [Self; 16] = [
        Self::WallTime,
        Self::Cpu,
        Self::CpuRate,
        Self::Memory,
        Self::Output,
        Self::OutputRate,
        Self::Message,
        Self::Unread,
        Self::UnreadMessages,
        Self::RequestRate,
        Self::OpenFiles,
        Self::Threads,
        Self::NetworkOps,
        Self::NetworkBytes,
        Self::DiskBytes,
        Self::Scratch,
    ];

    /// The keyword of `spawn` that sets this limit.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WallTime => "wall_time_ms",
            Self::Cpu => "cpu_ms",
            Self::CpuRate => "cpu_rate_max",
            Self::Memory => "mem_bytes",
            Self::Output => "output_bytes_max",
            Self::OutputRate => "output_bytes_per_second",
            Self::Message => "message_bytes_max",
            Self::Unread => "unread_bytes_max",
            Self::UnreadMessages => "unread_messages_max",
            Self::RequestRate => "requests_per_second_max",
            Self::OpenFiles => "open_files_max",
            Self::Threads => "child_work_max",
            Self::NetworkOps => "network_ops_max",
            Self::NetworkBytes => "network_bytes_max",
            Self::DiskBytes => "disk_bytes_max",
            Self::Scratch => "scratch_bytes",
        }
    }

    /// What its number counts.
    #[must_use]
    pub const fn unit(self) -> Unit {
        match self {
            Self::WallTime | Self::Cpu => Unit::Milliseconds,
            Self::CpuRate => Unit::Thousandths,
            Self::Memory
            | Self::Output
            | Self::OutputRate
            | Self::Message
            | Self::Unread
            | Self::NetworkBytes
            | Self::DiskBytes
            | Self::Scratch => Unit::Bytes,
            Self::UnreadMessages
            | Self::RequestRate
            | Self::OpenFiles
            | Self::Threads
            | Self::NetworkOps => Unit::Count,
        }
    }

    /// Its number as users write it.
    #[must_use]
    pub fn written(self, value: u64) -> String {
        match self.unit() {
            Unit::Thousandths => thousandths(value),
            Unit::Milliseconds | Unit::Bytes | Unit::Count => value.to_string(),
        }
    }
}

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Time.
    Milliseconds,
    /// Bytes, or bytes a second.
    Bytes,
    /// Things.
    Count,
    /// Thousandths of what users write, who may write a fraction.
    Thousandths,
}

/// A number of thousandths as a decimal fraction: 1500 is `1.5`.
fn thousandths(value: u64) -> String {
    let text = format!("{}.{:03}", value / 1000, value % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Reads a decimal fraction with up to three places as thousandths.
#[must_use]
pub fn parse_thousandths(text: &str) -> Option<u64> {
    let (whole, places) = text.split_once('.').unwrap_or((text, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + places.len() == 0
        || places.len() > 3
        || !is_digits(whole)
        || !is_digits(places)
    {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    whole.checked_mul(1000)?.checked_add(format!("{places:0<3}").parse().ok()?)
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

/// A thousand cores: no limit, on any machine there is.
pub const CPU_RATE_UNLIMITED: u64 = 1_000_000;

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
    /// CPU time that the whole cell may use in any while, in thousandths of a core; past it the
    /// cell stands still for a moment. Default [`CPU_RATE_UNLIMITED`]: a cell alone on a machine
    /// may use it, and shares it fairly otherwise.
    pub cpu_rate_millicores: u64,
    /// Memory of the cell's own, in bytes: heap, thread stacks and writable data of libraries,
    /// large messages that it holds, and page tables; not files that are only read. Default 512
    /// MiB: a data frame of some millions of rows fits, and twenty cells fit a small server.
    pub mem_bytes: u64,
    /// What `print`, stderr and `log` may write over the cell's life, in bytes. Default 16 MiB:
    /// more than anybody reads.
    pub output_bytes: u64,
    /// What `print`, stderr and `log` may write a second, in bytes; what was not written is saved
    /// up for one second. Past it the guest waits. Default 16 MiB: with the default total nobody
    /// waits.
    pub output_bytes_per_second: u64,
    /// The largest single message, in bytes, pickle and buffers together. Default 128 MiB: one
    /// large array.
    pub message_bytes: u64,
    /// Messages that the guest sent and the host has not taken, in bytes. Past it the guest waits.
    /// Default 256 MiB: one message of the largest size in flight while one is being read.
    pub unread_bytes: u64,
    /// The same by number, failed `exec`s that nobody was told of among them. Past it the guest
    /// waits. Default 250,000: of small messages, which take the host some 700 bytes each, most of
    /// what may wait by bytes.
    pub unread_messages: u64,
    /// Requests a second; what was not asked is saved up for one second. Past it the guest waits.
    /// Default 50,000: more than a loop gets through that uses the answers.
    pub requests_per_second: u64,
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
    /// A private file system in memory at [`SCRATCH`], in bytes: what is in it counts as the cell's
    /// memory, too. Default 0: none.
    pub scratch_bytes: u64,
}

/// Where a cell finds its scratch files, if it has any.
pub const SCRATCH: &str = "/tmp";

impl Default for Limits {
    fn default() -> Self {
        Self {
            wall_time_ms: 60_000,
            cpu_ms: 60_000,
            cpu_rate_millicores: CPU_RATE_UNLIMITED,
            mem_bytes: 512 << 20,
            output_bytes: 16 << 20,
            output_bytes_per_second: 16 << 20,
            message_bytes: 128 << 20,
            unread_bytes: 256 << 20,
            unread_messages: 250_000,
            requests_per_second: 50_000,
            open_files: 64,
            threads: 16,
            network_ops: 1000,
            network_bytes: 256 << 20,
            disk_bytes: 1 << 30,
            scratch_bytes: 0,
        }
    }
}

/// A limit that no cell could live under, or that could not be enforced.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{limit}={} is outside {}..={}", .limit.written(*.value), .limit.written(*.least), .limit.written(*.most))]
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
            LimitName::CpuRate => &mut self.cpu_rate_millicores,
            LimitName::Memory => &mut self.mem_bytes,
            LimitName::Output => &mut self.output_bytes,
            LimitName::OutputRate => &mut self.output_bytes_per_second,
            LimitName::Message => &mut self.message_bytes,
            LimitName::Unread => &mut self.unread_bytes,
            LimitName::UnreadMessages => &mut self.unread_messages,
            LimitName::RequestRate => &mut self.requests_per_second,
            LimitName::OpenFiles => &mut self.open_files,
            LimitName::Threads => &mut self.threads,
            LimitName::NetworkOps => &mut self.network_ops,
            LimitName::NetworkBytes => &mut self.network_bytes,
            LimitName::DiskBytes => &mut self.disk_bytes,
            LimitName::Scratch => &mut self.scratch_bytes,
        }
    }

    /// CPU time in any while, in thousandths of a core; `None` if that is not limited.
    #[must_use]
    pub fn cpu_rate(&self) -> Option<u64> {
        Some(self.cpu_rate_millicores).filter(|rate| *rate < CPU_RATE_UNLIMITED)
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
        // Under a hundredth of a core an interpreter takes seconds to say hello.
        check(LimitName::CpuRate, self.cpu_rate_millicores, 10, CPU_RATE_UNLIMITED)?;
        check(LimitName::Memory, self.mem_bytes, memory_least, 1 << 46)?;
        check(LimitName::Output, self.output_bytes, 0, 1 << 46)?;
        // Ten short lines.
        check(LimitName::OutputRate, self.output_bytes_per_second, 1024, 1 << 46)?;
        check(LimitName::Message, self.message_bytes, 1024, message_most)?;
        // A few hundred small messages: under less, a guest that prints hardly gets on.
        check(LimitName::Unread, self.unread_bytes, 64 << 10, 1 << 46)?;
        check(LimitName::UnreadMessages, self.unread_messages, 1, 1 << 46)?;
        check(LimitName::RequestRate, self.requests_per_second, 1, 1 << 46)?;
        // Three standard streams, the channel's socket, and one to open.
        check(LimitName::OpenFiles, self.open_files, 5, 1 << 20)?;
        check(LimitName::Threads, self.threads, 1, 1 << 15)?;
        check(LimitName::NetworkOps, self.network_ops, 0, 1 << 46)?;
        check(LimitName::NetworkBytes, self.network_bytes, 0, 1 << 46)?;
        check(LimitName::DiskBytes, self.disk_bytes, 0, 1 << 46)?;
        check(LimitName::Scratch, self.scratch_bytes, 0, 1 << 46)
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
        let limits = Limits { cpu_rate_millicores: 5, ..Limits::default() };
        let error = limits.check().unwrap_err();
        assert_eq!(error.to_string(), "cpu_rate_max=0.005 is outside 0.01..=1000");
    }

    #[test]
    fn fractions_of_a_core_are_read_as_they_are_written() {
        for (text, value) in [
            ("0.5", Some(500)),
            ("2", Some(2000)),
            ("1.25", Some(1250)),
            ("0.001", Some(1)),
            (".5", Some(500)),
            ("", None),
            (".", None),
            ("0.0005", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            ("1.5.2", None),
            ("18446744073709551615", None),
        ] {
            assert_eq!(parse_thousandths(text), value, "{text}");
        }
        for value in [1, 10, 500, 1000, 1250, 1_000_000] {
            assert_eq!(parse_thousandths(&LimitName::CpuRate.written(value)), Some(value));
        }
    }
}

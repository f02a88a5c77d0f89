//! One crossing, as it is written.

use std::cell::RefCell;
use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use pyisolate_policy::Act;
use serde::{Deserialize, Serialize};

use super::chain::LineHash;
use crate::outcome::DecidedBy;

/// The longest payload that is kept whole, in bytes; of a longer one there is the hash. In base64
/// it stays well under the longest line that a reader takes.
const PAYLOAD_BYTES_MAX: usize = 32 << 20;
/// The longest payload that is kept as text, in bytes with its escapes: as long as the longest in
/// base64. A control character takes six bytes, so that a text could outgrow every line.
const TEXT_PAYLOAD_BYTES_MAX: usize = PAYLOAD_BYTES_MAX.div_ceil(3) * 4;
/// The longest act that is kept, in bytes of JSON: the arguments of a command are the guest's. That
/// is over what the kernel lets a program be started with.
const ACT_BYTES_MAX: usize = 4 << 20;
/// The longest text of any other field, in bytes: what a person reads of a reason.
const TEXT_BYTES_MAX: usize = 4096;
/// A buffer that grew past this is given back.
const BUFFER_BYTES_KEPT: usize = 64 << 10;

/// What is kept of a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payloads {
    /// All of it, up to 32 MiB; of a longer one the hash. What the broker tells of a secret is left
    /// out as ever, but what a guest does with one that was revealed to it is not.
    Full,
    /// Its SHA-256. Short payloads can be guessed from it.
    #[default]
    Hash,
    /// Its length alone.
    None,
}

/// Which way something crossed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the host into the cell.
    ToGuest,
    /// Out of the cell.
    ToHost,
    /// Neither: the host did something with the cell.
    Host,
}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Kind {
    /// The head of the file; written by the journal itself.
    Journal,
    /// The file was opened again, to go on; written by the journal itself.
    Open,
    /// The file was closed in good order; written by the journal itself.
    Close,
    /// `exec`
    Exec,
    /// `call`
    Call,
    /// `post`, either way.
    Post,
    /// `recv`
    Recv,
    /// `log`
    Log,
    /// `metric`
    Metric,
    /// `request`. With its act and outcome it is what `learn` and `replay` go by.
    Request,
    /// An answer to an `exec`, a `call` or a `request`.
    Answer,
    /// An act that came up while a request was performed and was allowed: a redirect, the other
    /// half of a file that is read and written, a secret on its way to a host.
    Grant,
    /// A refusal that came up while a request was performed, or one by the kernel.
    Denial,
    /// A limit that was reached.
    Limit,
    /// A cell was made. Its payload is its policy as JSON, which is kept whole.
    Spawn,
    /// What confines a cell, once it is known. Its payload is the report as JSON, kept whole.
    Confinement,
    /// A cell was given its policy and limits. Its payload is the policy as JSON, kept whole.
    Configure,
    /// A running cell was given another policy. Its payload is that as JSON, kept whole.
    Policy,
    /// A cell ended, with the reason.
    End,
}

impl Kind {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Open => "open",
            Self::Close => "close",
            Self::Exec => "exec",
            Self::Call => "call",
            Self::Post => "post",
            Self::Recv => "recv",
            Self::Log => "log",
            Self::Metric => "metric",
            Self::Request => "request",
            Self::Answer => "answer",
            Self::Grant => "grant",
            Self::Denial => "denial",
            Self::Limit => "limit",
            Self::Spawn => "spawn",
            Self::Confinement => "confinement",
            Self::Configure => "configure",
            Self::Policy => "policy",
            Self::End => "end",
        }
    }

    /// Whether the payload is always kept: a policy, without which a run cannot be learnt from, or a
    /// report. Neither holds a secret.
    const fn is_kept_whole(self) -> bool {
        matches!(self, Self::Spawn | Self::Confinement | Self::Configure | Self::Policy)
    }
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// It was allowed and done.
    Granted,
    /// It was not allowed.
    Denied,
    /// It was allowed, or needed no right, and failed.
    Failed,
    /// It used up a limit.
    Exhausted,
    /// The cell ended before it was done.
    Cancelled,
}

impl Outcome {
    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Exhausted => "exhausted",
            Self::Cancelled => "cancelled",
        }
    }
}

/// One crossing, to be written. Its number and the time are added when it is.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// The cell's name.
    pub cell: &'a str,
    /// Which way.
    pub direction: Direction,
    /// What it is about.
    pub kind: Kind,
    /// The number that ties an answer to what it answers.
    pub operation: Option<u32>,
    /// The capability that was asked for.
    pub capability: Option<&'a str>,
    /// What was to be done with it.
    pub action: Option<&'a str>,
    /// What the policy was asked.
    pub act: Option<&'a Act>,
    /// What became of it.
    pub outcome: Option<Outcome>,
    /// Who refused.
    pub layer: Option<DecidedBy>,
    /// The name of an exception.
    pub error: Option<&'a str>,
    /// Why, in words. Cut at 4 KiB.
    pub reason: Option<&'a str>,
    /// The place of the rule that decided.
    pub rule: Option<&'a str>,
    /// How long the payload is, with its buffers, in bytes.
    pub bytes: u64,
    /// The pickle, or the source text.
    pub payload: Option<&'a [u8]>,
    /// Whether the payload holds a secret: nothing of it is written, not even its hash.
    pub sensitive: bool,
}

impl<'a> Record<'a> {
    /// A record with nothing in it yet.
    #[must_use]
    pub fn new(cell: &'a str, direction: Direction, kind: Kind) -> Self {
        Self {
            cell,
            direction,
            kind,
            operation: None,
            capability: None,
            action: None,
            act: None,
            outcome: None,
            layer: None,
            error: None,
            reason: None,
            rule: None,
            bytes: 0,
            payload: None,
            sensitive: false,
        }
    }

    /// With a payload, whose length it takes.
    #[must_use]
    pub fn with_payload(mut self, payload: &'a [u8]) -> Self {
        self.bytes = payload.len() as u64;
        self.payload = Some(payload);
        self
    }

    /// Writes the fields that come after the times, without a closing brace.
    fn write(&self, out: &mut Vec<u8>, payloads: Payloads) {
        let mut fields = Fields(out);
        fields.text("cell", Some(self.cell));
        fields.json("direction", &self.direction);
        fields.text("kind", Some(self.kind.as_str()));
        if let Some(operation) = self.operation {
            fields.json("operation", &operation);
        }
        fields.text("capability", self.capability);
        fields.text("action", self.action);
        if let Some(act) = self.act {
            fields.act(act);
        }
        fields.text("outcome", self.outcome.map(Outcome::as_str));
        fields.text("layer", self.layer.map(DecidedBy::as_str));
        fields.text("error", self.error);
        fields.text("reason", self.reason);
        fields.text("rule", self.rule);
        fields.json("bytes", &self.bytes);
        if self.sensitive {
            fields.json("sensitive", &true);
        } else if let Some(payload) = self.payload {
            fields.payload(
                payload,
                if self.kind.is_kept_whole() { Payloads::Full } else { payloads },
            );
        }
    }

    /// Calls `take` with the written fields.
    pub(crate) fn written<T>(&self, payloads: Payloads, take: impl FnOnce(&[u8]) -> T) -> T {
        thread_local! {
            static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        BUFFER.with(|buffer| {
            // Taken out, so that nothing that `take` does could find it in use.
            let mut body = buffer.take();
            body.clear();
            self.write(&mut body, payloads);
            let result = take(&body);
            if body.capacity() <= BUFFER_BYTES_KEPT {
                buffer.replace(body);
            }
            result
        })
    }
}

/// The fields of an object being written, each with a comma before it.
struct Fields<'a>(&'a mut Vec<u8>);

impl Fields<'_> {
    fn key(&mut self, key: &str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(key.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    fn json(&mut self, key: &str, value: &impl Serialize) {
        self.key(key);
        let before = self.0.len();
        // Numbers, texts and enums of them: neither they nor the buffer can fail.
        if serde_json::to_writer(&mut *self.0, value).is_err() {
            self.0.truncate(before);
            self.0.extend_from_slice(b"null");
        }
    }

    fn text(&mut self, key: &str, text: Option<&str>) {
        if let Some(text) = text {
            let end = text.floor_char_boundary(TEXT_BYTES_MAX);
            self.json(key, &&text[..end]);
        }
    }

    fn act(&mut self, act: &Act) {
        let before = self.0.len();
        self.json("act", act);
        let bytes = self.0.len() - before;
        if bytes > ACT_BYTES_MAX {
            self.0.truncate(before);
            self.json("act_omitted", &(bytes as u64));
        }
    }

    fn payload(&mut self, payload: &[u8], payloads: Payloads) {
        match payloads {
            Payloads::None => {}
            Payloads::Full if payload.len() <= PAYLOAD_BYTES_MAX => {
                self.key("payload");
                let text = std::str::from_utf8(payload);
                match text.ok().filter(|text| escaped_len(text) <= TEXT_PAYLOAD_BYTES_MAX) {
                    Some(text) => {
                        self.0.extend_from_slice(b"{\"text\":");
                        let _ = serde_json::to_writer(&mut *self.0, text);
                    }
                    None => {
                        self.0.extend_from_slice(b"{\"base64\":\"");
                        let start = self.0.len();
                        self.0.resize(start + payload.len().div_ceil(3) * 4, 0);
                        let _ = STANDARD.encode_slice(payload, &mut self.0[start..]);
                        self.0.push(b'"');
                    }
                }
                self.0.push(b'}');
            }
            Payloads::Full | Payloads::Hash => {
                self.key("payload");
                self.0.extend_from_slice(b"{\"sha256\":\"");
                self.0.extend_from_slice(&LineHash::of(payload).digits());
                self.0.extend_from_slice(b"\"}");
            }
        }
    }
}

/// How long a text is as JSON, without its quotes.
fn escaped_len(text: &str) -> usize {
    let escaped = |byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 8 | 12 => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

/// Writes a time as RFC 3339 in UTC with nanoseconds.
pub(crate) fn write_time(out: &mut Vec<u8>, wall_ns: i128) {
    let (seconds, nanos) = (wall_ns.div_euclid(1_000_000_000), wall_ns.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Years that begin in March, in cycles of 400: the leap day is then the last of its year.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + i128::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let _ =
        write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(wall_ns: i128) -> String {
        let mut out = Vec::new();
        write_time(&mut out, wall_ns);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        let second = 1_000_000_000;
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000000Z"),
            (951_868_799, "2000-02-29T23:59:59.000000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000000Z"),
        ] {
            assert_eq!(time(seconds * second), text);
        }
        assert_eq!(time(-1), "1969-12-31T23:59:59.999999999Z");
    }

    fn body(record: &Record<'_>, payloads: Payloads) -> String {
        record.written(payloads, |body| String::from_utf8(body.to_vec()).unwrap())
    }

    #[test]
    fn a_sensitive_payload_leaves_nothing_behind() {
        for payloads in [Payloads::Full, Payloads::Hash, Payloads::None] {
            let mut record = Record::new("a", Direction::ToGuest, Kind::Answer);
            record = record.with_payload(b"hunter2");
            record.sensitive = true;
            assert_eq!(
                body(&record, payloads),
                ",\"cell\":\"a\",\"direction\":\"to_guest\",\"kind\":\"answer\",\"bytes\":7,\
                 \"sensitive\":true"
            );
        }
    }

    #[test]
    fn payloads_are_kept_as_it_was_said() {
        let record =
            |payload| Record::new("a", Direction::ToHost, Kind::Post).with_payload(payload);
        let ends = |payload, payloads, end| {
            let body = body(&record(payload), payloads);
            assert!(body.ends_with(end), "{body}");
        };
        ends(b"x\"y", Payloads::Full, "\"payload\":{\"text\":\"x\\\"y\"}");
        ends(b"\x80\x05K*.", Payloads::Full, "\"payload\":{\"base64\":\"gAVLKi4=\"}");
        ends(b"x", Payloads::None, "\"bytes\":1");
        ends(
            b"",
            Payloads::Hash,
            "{\"sha256\":\"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\"}",
        );
    }

    #[test]
    fn a_text_of_many_escapes_still_fits_a_line() {
        for text in ["\u{1}", "\"", "\n", "\u{8}", "\u{7f}é", "\\", "\u{1f}\u{c}"] {
            let json = serde_json::to_string(text).unwrap();
            assert_eq!(escaped_len(text), json.len() - 2, "{text:?}");
        }
        for payload in [vec![1; PAYLOAD_BYTES_MAX], vec![b'"'; PAYLOAD_BYTES_MAX]] {
            let body = body(&record_of(&payload), Payloads::Full);
            assert!(body.len() + 4096 < super::super::LINE_BYTES_MAX, "{}", body.len());
            assert!(body.contains("\"base64\":"));
        }
    }

    fn record_of(payload: &[u8]) -> Record<'_> {
        Record::new("a", Direction::ToHost, Kind::Post).with_payload(payload)
    }

    #[test]
    fn a_policy_is_kept_whole() {
        let record = Record::new("a", Direction::Host, Kind::Spawn).with_payload(b"{}");
        assert!(body(&record, Payloads::None).ends_with("{\"text\":\"{}\"}"));
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let reason = "é".repeat(TEXT_BYTES_MAX);
        let mut record = Record::new("a", Direction::ToHost, Kind::Denial);
        record.reason = Some(&reason);
        let act = Act::Run { program: "x".into(), args: vec!["y".repeat(ACT_BYTES_MAX)] };
        record.act = Some(&act);
        let body = body(&record, Payloads::Hash);
        assert!(body.len() < TEXT_BYTES_MAX + 300, "{}", body.len());
        assert!(body.contains("\"act_omitted\":41943"), "{body}");
    }
}

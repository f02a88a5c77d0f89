//! The head of an answer.

use super::body::Framing;
use super::chunked::Chunked;
use super::line::{Fault, Line, Turn, protocol};
use crate::outcome::Refusal;

/// The most bytes of an answer's head, those of interim answers before it among them.
const HEAD_BYTES_MAX: usize = 256 << 10;

/// The most headers of an answer.
const HEADERS_MAX: usize = 512;

/// The most interim answers before an answer.
const INTERIM_MAX: usize = 16;

/// What is read from a socket at a time.
const READ_BYTES: usize = 16 << 10;

/// What speaks of the connection, which is not the guest's, or of a coding that is undone.
const HOP: [&str; 6] =
    ["connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade"];

/// The head of an answer, and what was read behind it.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) reason: Vec<u8>,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    pub(super) ahead: Vec<u8>,
}

impl Head {
    /// Reads up to the head that is not an interim one.
    pub(super) fn read(line: &mut Line, turn: Turn<'_>) -> Result<Self, Refusal> {
        let mut text = Vec::new();
        let mut all = 0;
        // Up to here no end was found: so each byte is looked at once, however they trickle.
        let mut looked = 0;
        let mut interim = 0;
        loop {
            if let Some(end) = end_of_head(&text, looked) {
                let ahead = text.split_off(end);
                let head = Self::parse(&text, ahead)?;
                if head.status >= 200 {
                    return Ok(head);
                }
                interim += 1;
                if head.status == 101 || interim > INTERIM_MAX {
                    return Err(protocol("the server does not answer the request"));
                }
                text = head.ahead;
                looked = 0;
                continue;
            }
            looked = text.len().saturating_sub(3);
            if all >= HEAD_BYTES_MAX {
                return Err(protocol(format_args!(
                    "the answer's headers have more than {HEAD_BYTES_MAX} bytes"
                )));
            }
            let mut piece = [0; READ_BYTES];
            let room = READ_BYTES.min(HEAD_BYTES_MAX - all);
            let length = line.read(turn, &mut piece[..room])?;
            if length == 0 {
                return Err(Fault::Io(std::io::ErrorKind::UnexpectedEof.into()).into());
            }
            all += length;
            text.extend_from_slice(&piece[..length]);
        }
    }

    fn parse(text: &[u8], ahead: Vec<u8>) -> Result<Self, Refusal> {
        let mut headers = vec![httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        match response.parse(text) {
            Ok(httparse::Status::Complete(length)) if length == text.len() => {}
            Ok(_) => return Err(protocol("the answer's head ends too early")),
            Err(error) => return Err(protocol(format_args!("the answer's head: {error}"))),
        }
        let headers = response
            .headers
            .iter()
            .map(|header| (header.name.to_owned(), header.value.trim_ascii().to_vec()));
        Ok(Self {
            status: response.code.unwrap_or_default(),
            reason: response.reason.unwrap_or_default().as_bytes().to_vec(),
            headers: headers.collect(),
            ahead,
        })
    }

    fn all<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        let named = move |(other, _): &&(String, Vec<u8>)| other.eq_ignore_ascii_case(name);
        self.headers.iter().filter(named).map(|(_, value)| &value[..])
    }

    /// The first header of this name.
    pub(super) fn first(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .find(|(other, _)| other.eq_ignore_ascii_case(name))
            .map(|(_, value)| &value[..])
    }

    /// Where the body ends; `None` if there is none.
    pub(super) fn framing(&self, method: &str) -> Result<Option<Framing>, Refusal> {
        if method == "HEAD" || self.status == 204 || self.status == 304 {
            return Ok(None);
        }
        let codings: Vec<&[u8]> = self.all("transfer-encoding").collect();
        match codings[..] {
            [] => {}
            [coding] if coding.eq_ignore_ascii_case(b"chunked") => {
                return Ok(Some(Framing::Chunked(Chunked::default())));
            }
            _ => return Err(protocol("the answer has a transfer coding other than chunked")),
        }
        let mut lengths = self.all("content-length");
        let Some(first) = lengths.next() else { return Ok(Some(Framing::Close)) };
        if lengths.any(|other| other != first) {
            return Err(protocol("the answer has two lengths"));
        }
        let digits = std::str::from_utf8(first).ok();
        let digits = digits.filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
        let length = digits.and_then(|digits| digits.parse().ok());
        let length = length.ok_or_else(|| protocol("the answer's length is no number"))?;
        Ok(if length == 0 { None } else { Some(Framing::Length(length)) })
    }

    /// Whether the body is in a form in which nothing can be found.
    pub(super) fn is_encoded(&self) -> bool {
        self.all("content-encoding")
            .any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity"))
    }

    /// The headers that are of use to the guest. The length is not, where the body changes.
    pub(super) fn told(&self, is_changed: bool) -> impl Iterator<Item = &(String, Vec<u8>)> {
        let is_chunked = self.first("transfer-encoding").is_some();
        self.headers.iter().filter(move |(name, _)| {
            let lower = name.to_ascii_lowercase();
            let is_length = lower == "content-length" && (is_changed || is_chunked);
            !is_length && !HOP.contains(&&*lower)
        })
    }
}

/// Behind the empty line that ends a head, which may begin at `from` at the earliest.
fn end_of_head(text: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(found) = text.get(at..)?.iter().position(|byte| *byte == b'\n') {
        let behind = at + found + 1;
        match text.get(behind..)? {
            [b'\n', ..] => return Some(behind + 1),
            [b'\r', b'\n', ..] => return Some(behind + 2),
            _ => at = behind,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Head, Refusal> {
        Head::parse(text.as_bytes(), Vec::new())
    }

    fn framing(headers: &str) -> Result<Option<Framing>, Refusal> {
        head(&format!("HTTP/1.1 200 OK\r\n{headers}\r\n")).unwrap().framing("GET")
    }

    #[test]
    fn the_end_of_a_head_is_found_wherever_it_is_looked_for() {
        let text = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody";
        let end = text.len() - 4;
        assert_eq!(end_of_head(text, 0), Some(end));
        for cut in 0..text.len() {
            let looked = end_of_head(&text[..cut], 0).map_or(cut.saturating_sub(3), |_| 0);
            assert_eq!(end_of_head(text, looked), Some(end), "{cut}");
        }
        assert_eq!(end_of_head(b"HTTP/1.1 200 OK\n\n", 0), Some(17));
    }

    #[test]
    fn a_body_ends_where_its_head_says() {
        assert!(matches!(framing("").unwrap(), Some(Framing::Close)));
        let length = framing("Content-Length: 3\r\ncontent-length: 3\r\n").unwrap();
        assert!(matches!(length, Some(Framing::Length(3))));
        let chunked = framing("Transfer-Encoding: Chunked\r\nContent-Length: 3\r\n").unwrap();
        assert!(matches!(chunked, Some(Framing::Chunked(_))));
        assert!(framing("Content-Length: 0\r\n").unwrap().is_none());
        for wrong in [
            "Content-Length: 3\r\nContent-Length: 4\r\n",
            "Content-Length: +3\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length:\r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        ] {
            assert!(framing(wrong).is_err(), "{wrong}");
        }
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n";
        assert!(head(text).unwrap().framing("HEAD").unwrap().is_none());
        assert!(head("HTTP/1.1 204 No\r\n\r\n").unwrap().framing("GET").unwrap().is_none());
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for text in ["SSH-2.0-x\r\n\r\n", "HTTP/2.0 200 OK\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n"] {
            assert!(head(text).is_err(), "{text}");
        }
        let many = "a: b\r\n".repeat(HEADERS_MAX + 1);
        assert!(head(&format!("HTTP/1.1 200 OK\r\n{many}\r\n")).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_head_is_read_or_refused(
            line in "HTTP/1.[01] [0-9]{2,4}( [ -~]{0,9})?",
            headers in proptest::collection::vec("[ -~]{0,30}", 0..5),
            method in "GET|HEAD",
        ) {
            let text = format!("{line}\r\n{}\r\n\r\n", headers.join("\r\n"));
            if let Ok(head) = head(&text) {
                let _ = head.framing(&method);
                proptest::prop_assert!(head.told(false).count() <= headers.len());
            }
        }
    }
}

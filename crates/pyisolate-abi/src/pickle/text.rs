//! Text as Python has it: Unicode in which lone surrogates may occur.

use std::borrow::Cow;

/// A Python `str`, as UTF-8 in which each lone surrogate is three bytes.
///
/// This is what `str.encode("utf-8", "surrogatepass")` gives. Python makes such strings from file
/// names that are not UTF-8, so they are kept rather than refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'m>(&'m [u8]);

impl<'m> Text<'m> {
    /// `bytes` has passed [`is_text`].
    pub(super) fn new(bytes: &'m [u8]) -> Self {
        Self(bytes)
    }

    /// The bytes, for a decoder that passes surrogates.
    #[must_use]
    pub fn as_bytes(self) -> &'m [u8] {
        self.0
    }

    /// The text, or `None` if it holds a lone surrogate. Checks the bytes again.
    #[must_use]
    pub fn to_str(self) -> Option<&'m str> {
        str::from_utf8(self.0).ok()
    }

    /// The text with U+FFFD in place of surrogates.
    #[must_use]
    pub fn to_string_lossy(self) -> Cow<'m, str> {
        String::from_utf8_lossy(self.0)
    }
}

/// Whether CPython would decode `bytes` with `surrogatepass`.
pub(super) fn is_text(mut bytes: &[u8]) -> bool {
    loop {
        let Err(error) = str::from_utf8(bytes) else { return true };
        match &bytes[error.valid_up_to()..] {
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, rest @ ..] => bytes = rest,
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surrogates_pass_and_other_damage_does_not() {
        assert!(is_text("grüße 🐍".as_bytes()));
        assert!(is_text(b"a\xed\xb2\x80b\xed\xa0\x80"));
        assert!(!is_text(b"\xff"));
        assert!(!is_text(b"\xed\xb2"));
        assert!(!is_text(b"\xc0\x80"));
        assert_eq!(Text::new(b"a\xed\xb2\x80").to_str(), None);
    }
}

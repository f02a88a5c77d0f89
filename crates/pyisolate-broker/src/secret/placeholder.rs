//! The texts that stand for secrets, and putting the values in their place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use pyisolate_policy::Host;
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

use super::{Scrub, lookup};
use crate::outcome::Failure;
use crate::session::Session;

/// What every placeholder begins with.
const PREFIX: &str = "pyisolate-secret-";

/// The placeholders that stand for secrets in one cell.
#[derive(Debug, Default)]
pub(crate) struct Placeholders(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By the secrets' names.
    texts: BTreeMap<String, String>,
    /// Which secrets each host was sent, since it may give them back in a later answer.
    sent: BTreeMap<Host, BTreeSet<String>>,
}

impl Placeholders {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What stands for this secret, in this cell alone.
    pub(super) fn of(&self, name: &str) -> Result<String, Failure> {
        let mut state = self.state();
        if let Some(text) = state.texts.get(name) {
            return Ok(text.clone());
        }
        let mut random = [0_u8; 16];
        getrandom(&mut random, GetRandomFlags::empty()).map_err(Failure::os)?;
        let safe = |c: char| if c.is_ascii_alphanumeric() || "-_".contains(c) { c } else { '_' };
        let shown: String = name.chars().take(64).map(safe).collect();
        let text = format!("{PREFIX}{shown}-{:032x}", u128::from_be_bytes(random));
        state.texts.insert(name.to_owned(), text.clone());
        Ok(text)
    }

    /// The secrets that a text speaks of.
    pub(crate) fn named_in(&self, text: &[u8]) -> BTreeSet<String> {
        let state = self.state();
        let mut named = BTreeSet::new();
        if state.texts.is_empty() {
            return named;
        }
        let mut rest = text;
        // A text may be long: it is gone through once, by the byte that all placeholders begin with.
        while let Some(at) = rest.iter().position(|byte| *byte == PREFIX.as_bytes()[0]) {
            rest = &rest[at..];
            if rest.starts_with(PREFIX.as_bytes()) {
                let begins = state.texts.iter().find(|(_, text)| rest.starts_with(text.as_bytes()));
                named.extend(begins.map(|(name, _)| name.clone()));
            }
            rest = &rest[1..];
        }
        named
    }

    /// The secrets that a header speaks of: in its value, or in the base64 of `Basic` credentials.
    pub(crate) fn named_in_header(&self, name: &str, value: &str) -> BTreeSet<String> {
        let mut named = self.named_in(value.as_bytes());
        if let Some((_, decoded)) = basic(name, value) {
            named.extend(self.named_in(&decoded));
        }
        named
    }

    /// A header's value with the secrets in it. Whether they may go where it goes is asked before.
    pub(crate) fn fill(
        &self,
        session: &Session,
        name: &str,
        value: &str,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        if let Some((scheme, decoded)) = basic(name, value) {
            let secrets = self.named_in(&decoded);
            if !secrets.is_empty() {
                let decoded = self.replaced(session, &secrets, decoded, true)?;
                let encoded = Zeroizing::new(BASE64_STANDARD.encode(&*decoded));
                let mut value = Zeroizing::new(Vec::with_capacity(scheme.len() + encoded.len()));
                value.extend_from_slice(scheme.as_bytes());
                value.extend_from_slice(encoded.as_bytes());
                return Ok(value);
            }
        }
        let value = Zeroizing::new(latin1(value));
        let secrets = self.named_in(&value);
        self.replaced(session, &secrets, value, false)
    }

    fn replaced(
        &self,
        session: &Session,
        secrets: &BTreeSet<String>,
        mut text: Zeroizing<Vec<u8>>,
        is_encoded: bool,
    ) -> Result<Zeroizing<Vec<u8>>, Failure> {
        for name in secrets {
            let placeholder = self.of(name)?;
            let value = lookup(session, name)?.bytes();
            let is_control = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f;
            if !is_encoded && value.iter().any(is_control) {
                let text = format!(
                    "the secret {name:?} has a control character or line end in its value, \
                     which no header can carry"
                );
                return Err(Failure::new("ValueError", text));
            }
            text = replace(&text, placeholder.as_bytes(), value);
        }
        Ok(text)
    }

    /// Remembers what a host is about to be sent.
    pub(crate) fn sending(&self, host: &Host, secrets: &BTreeSet<String>) {
        if !secrets.is_empty() {
            let mut state = self.state();
            state.sent.entry(host.clone()).or_default().extend(secrets.iter().cloned());
        }
    }

    /// The secrets that a host was sent in the life of this cell.
    pub(crate) fn sent_to(&self, host: &Host) -> BTreeSet<String> {
        self.state().sent.get(host).cloned().unwrap_or_default()
    }

    /// Whether a host was sent a secret that is not among these.
    pub(crate) fn was_sent_more(&self, host: &Host, secrets: &BTreeSet<String>) -> bool {
        self.state().sent.get(host).is_some_and(|sent| !sent.is_subset(secrets))
    }

    /// Takes these secrets out of what comes back.
    pub(crate) fn scrub(
        &self,
        session: &Session,
        secrets: &BTreeSet<String>,
    ) -> Result<Scrub, Failure> {
        let mut scrub = Scrub::default();
        for name in secrets {
            scrub.add(lookup(session, name)?.bytes(), &self.of(name)?);
        }
        Ok(scrub)
    }
}

/// The scheme, as it was written, and the decoded credentials of an `Authorization: Basic` header.
fn basic<'v>(name: &str, value: &'v str) -> Option<(&'v str, Zeroizing<Vec<u8>>)> {
    const SCHEME: &str = "basic ";
    if !name.eq_ignore_ascii_case("authorization") {
        return None;
    }
    let scheme = value.get(..SCHEME.len())?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    let decoded = BASE64_STANDARD.decode(value[SCHEME.len()..].trim()).ok()?;
    Some((scheme, Zeroizing::new(decoded)))
}

/// One byte a character; whoever calls has made sure that there are no others.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect()
}

/// All in one allocation, so that no copy of a value is left behind; and of the length that it needs,
/// since the guest says how long a text is, and a text that already has one secret in it may be long.
fn replace(text: &[u8], old: &[u8], new: &[u8]) -> Zeroizing<Vec<u8>> {
    let places = places(text, old);
    let room = text.len() - places * old.len() + places * new.len();
    let mut out = Zeroizing::new(Vec::with_capacity(room));
    let mut rest = text;
    while let Some((first, more)) = rest.split_first() {
        match rest.strip_prefix(old) {
            Some(behind) => {
                out.extend_from_slice(new);
                rest = behind;
            }
            None => {
                out.push(*first);
                rest = more;
            }
        }
    }
    out
}

/// How often a text is found in another.
fn places(text: &[u8], wanted: &[u8]) -> usize {
    let mut places = 0;
    let mut rest = text;
    while let Some((_, more)) = rest.split_first() {
        rest = match rest.strip_prefix(wanted) {
            Some(behind) => {
                places += 1;
                behind
            }
            None => more,
        };
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_stays_the_same_and_is_safe_in_a_header() {
        let placeholders = Placeholders::default();
        let text = placeholders.of("my key\r\n").unwrap();
        assert_eq!(text, placeholders.of("my key\r\n").unwrap());
        assert!(text.starts_with("pyisolate-secret-my_key__-"), "{text}");
        assert_ne!(text, Placeholders::default().of("my key\r\n").unwrap());
    }

    #[test]
    fn placeholders_are_found_in_basic_credentials() {
        let placeholders = Placeholders::default();
        let text = placeholders.of("key").unwrap();
        let credentials = BASE64_STANDARD.encode(format!("user:{text}"));
        let found = placeholders.named_in_header("AUTHORIZATION", &format!("bAsIc {credentials}"));
        assert_eq!(found, BTreeSet::from(["key".to_owned()]));
        assert!(placeholders.named_in_header("X-Other", &credentials).is_empty());
    }

    #[test]
    fn replacing_takes_every_place() {
        assert_eq!(*replace(b"a-xx-xx", b"xx", b"long"), b"a-long-long");
        assert_eq!(*replace(b"none", b"xx", b""), b"none");
    }

    #[test]
    fn replacing_takes_no_more_memory_than_its_result() {
        let mut text = vec![b'-'; 1 << 20];
        text.extend_from_slice(b"placeholder");
        let replaced = replace(&text, b"placeholder", &[b'v'; 8192]);
        assert_eq!(replaced.len(), (1 << 20) + 8192);
        assert!(replaced.capacity() < 2 * replaced.len(), "{}", replaced.capacity());
    }
}

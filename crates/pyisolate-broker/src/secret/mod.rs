//! `secret`: values that a cell may hold, or only have sent for it.
//!
//! `reveal` hands a value over. `use` gives a placeholder instead, which the guest puts into a header
//! of an HTTP request; the broker puts the value in its place on the way out, for the hosts that the
//! policy names, and takes it out of what comes back. So a cell can use a key that it never has.
//!
//! What is taken out is the value as it is and in its common encodings, of everything that a host
//! answers after it was sent the value. A host that gives it back in another form (encrypted,
//! reversed, wrapped over lines, a piece at a time) cannot be stopped, nor one that gives it back
//! over a TCP stream: a host for which a secret is granted is trusted with it. The guest may learn
//! how long the value is; and if the host sends a guess of the guest's back and then pauses before
//! the answer's end, whether the value begins so, since what may be its beginning is held back.

mod placeholder;
mod scrub;

use pyisolate_abi::pickle::Value;
use pyisolate_policy::{Act, SecretPurpose};
use zeroize::Zeroizing;

use crate::outcome::{Failure, Granted, Refusal};
use crate::payload::Payload;
use crate::session::Session;
use crate::task::{Pace, Task, no_action};

pub(crate) use placeholder::Placeholders;
pub(crate) use scrub::{Scrub, Scrubbing};

/// The shortest value that can be sent for a guest. What is shorter could not be told from other
/// text when it comes back, nor would a guest need long to guess it.
const SENT_BYTES_MIN: usize = 8;

/// The longest value that can be sent for a guest: more than servers take in a header.
const SENT_BYTES_MAX: usize = 8192;

/// A secret's value. It is wiped from memory when it is dropped, and never shown.
#[derive(Clone)]
pub struct SecretValue {
    bytes: Zeroizing<Vec<u8>>,
    is_text: bool,
}

impl std::fmt::Debug for SecretValue {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("SecretValue(..)")
    }
}

/// A value that the guest gets as `bytes`.
impl From<Vec<u8>> for SecretValue {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes: Zeroizing::new(bytes), is_text: false }
    }
}

/// A value that the guest gets as `str`.
impl From<String> for SecretValue {
    fn from(text: String) -> Self {
        Self { bytes: Zeroizing::new(text.into_bytes()), is_text: true }
    }
}

impl SecretValue {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn to_value(&self) -> Value {
        match std::str::from_utf8(&self.bytes) {
            Ok(text) if self.is_text => Value::Text(text.to_owned()),
            _ => Value::Bytes(self.bytes.to_vec()),
        }
    }
}

pub(crate) fn parse(action: &str, payload: &Value) -> Result<Box<dyn Task>, Failure> {
    let purpose = match action {
        "reveal" => SecretPurpose::Reveal,
        "use" => SecretPurpose::Use,
        _ => return Err(no_action("secret", action, &["reveal", "use"])),
    };
    let mut payload = Payload::new("secret", action, payload)?;
    let name = payload.text("name")?.to_owned();
    if name.is_empty() || name.len() > 200 {
        return Err(payload.wrong("a secret's name has 1 to 200 bytes"));
    }
    payload.end()?;
    let is_reveal = purpose == SecretPurpose::Reveal;
    let act = Act::Secret { name: name.clone(), purpose };
    Ok(Box::new(Ask { act, name, is_reveal }))
}

#[derive(Debug)]
struct Ask {
    act: Act,
    name: String,
    is_reveal: bool,
}

impl Task for Ask {
    fn act(&self) -> Option<&Act> {
        Some(&self.act)
    }

    fn pace(&self) -> Pace {
        Pace::Quick
    }

    fn perform(self: Box<Self>, session: &Session) -> Result<Granted, Refusal> {
        let value = lookup(session, &self.name)?;
        if self.is_reveal {
            return Ok(value.to_value().into());
        }
        can_be_sent(&self.name, value)?;
        Ok(Value::Text(session.placeholders.of(&self.name)?).into())
    }
}

fn lookup<'s>(session: &'s Session, name: &str) -> Result<&'s SecretValue, Failure> {
    session.secret(name).ok_or_else(|| {
        let text = format!("the host gave no value for the secret {name:?}: pass it to spawn");
        Failure::new("LookupError", text)
    })
}

fn can_be_sent(name: &str, value: &SecretValue) -> Result<(), Failure> {
    // Without white space around it, which is no secret and gets lost on the way.
    let length = value.bytes().trim_ascii().len();
    if (SENT_BYTES_MIN..=SENT_BYTES_MAX).contains(&length) {
        return Ok(());
    }
    let text = format!(
        "the secret {name:?} cannot be sent for a cell: \
         its value has to have {SENT_BYTES_MIN} to {SENT_BYTES_MAX} bytes"
    );
    Err(Failure::new("ValueError", text))
}

//! Reading a request's payload: a dict whose keys and types are all checked before anything happens.

use std::time::Duration;

use pyisolate_abi::pickle::Value;

use crate::outcome::Failure;

/// A payload being read. Every key that the action knows is taken; what is left is an error.
#[derive(Debug)]
pub(crate) struct Payload<'v> {
    capability: &'static str,
    action: &'v str,
    entries: Vec<(&'v str, &'v Value)>,
}

/// The longest text, in bytes: that of a URL. Names and paths are shorter.
const TEXT_BYTES_MAX: usize = 8192;

/// The longest time that a request may wait, in seconds: a day.
const SECONDS_MAX: f64 = 86_400.0;

impl<'v> Payload<'v> {
    pub(crate) fn new(
        capability: &'static str,
        action: &'v str,
        payload: &'v Value,
    ) -> Result<Self, Failure> {
        let mut entries = Vec::new();
        let mut this = Self { capability, action, entries: Vec::new() };
        match payload {
            Value::None => {}
            Value::Dict(items) => {
                for (key, value) in items {
                    let Value::Text(key) = key else {
                        return Err(this.wrong("the payload's keys are str"));
                    };
                    entries.push((key.as_str(), value));
                }
            }
            _ => return Err(this.wrong("the payload is a dict")),
        }
        this.entries = entries;
        Ok(this)
    }

    pub(crate) fn wrong(&self, what: impl std::fmt::Display) -> Failure {
        Failure::payload(self.capability, self.action, what)
    }

    /// Takes a key, wherever it stands; the last of several, as a dict would have it.
    fn take(&mut self, key: &str) -> Option<&'v Value> {
        let mut found = None;
        self.entries.retain(|(name, value)| {
            if *name == key {
                found = Some(*value);
            }
            *name != key
        });
        found.filter(|value| !matches!(value, Value::None))
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T, Failure> {
        value.ok_or_else(|| self.wrong(format_args!("{key:?} is missing")))
    }

    fn typed<T>(
        &mut self,
        key: &str,
        kind: &str,
        read: impl FnOnce(&'v Value) -> Option<T>,
    ) -> Result<Option<T>, Failure> {
        match self.take(key) {
            None => Ok(None),
            Some(value) => read(value)
                .map(Some)
                .ok_or_else(|| self.wrong(format_args!("{key:?} is not {kind}"))),
        }
    }

    /// A text that may become a part of what is told and kept of a refusal.
    pub(crate) fn text_or_none(&mut self, key: &str) -> Result<Option<&'v str>, Failure> {
        let text = self.long_text_or_none(key)?;
        match text.filter(|text| text.len() > TEXT_BYTES_MAX) {
            None => Ok(text),
            Some(_) => {
                Err(self.wrong(format_args!("{key:?} is longer than {TEXT_BYTES_MAX} bytes")))
            }
        }
    }

    /// A text of any length, for whoever bounds it with an error of its own.
    pub(crate) fn long_text_or_none(&mut self, key: &str) -> Result<Option<&'v str>, Failure> {
        self.typed(key, "a str", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    pub(crate) fn text(&mut self, key: &str) -> Result<&'v str, Failure> {
        let value = self.text_or_none(key)?;
        self.required(key, value)
    }

    pub(crate) fn bytes_or_none(&mut self, key: &str) -> Result<Option<&'v [u8]>, Failure> {
        self.typed(key, "bytes", |value| match value {
            Value::Bytes(bytes) | Value::ByteArray(bytes) => Some(bytes.as_slice()),
            _ => None,
        })
    }

    pub(crate) fn bytes(&mut self, key: &str) -> Result<&'v [u8], Failure> {
        let value = self.bytes_or_none(key)?;
        self.required(key, value)
    }

    pub(crate) fn bool(&mut self, key: &str, default: bool) -> Result<bool, Failure> {
        let value = self.typed(key, "a bool", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })?;
        Ok(value.unwrap_or(default))
    }

    /// An int from 0 up.
    pub(crate) fn size_or_none(&mut self, key: &str) -> Result<Option<u64>, Failure> {
        self.typed(key, "an int from 0 to 2**63-1", |value| match value {
            Value::Int(value) => u64::try_from(*value).ok(),
            _ => None,
        })
    }

    pub(crate) fn size(&mut self, key: &str) -> Result<u64, Failure> {
        let value = self.size_or_none(key)?;
        self.required(key, value)
    }

    /// A time in seconds: an int or a float from 0 to a day.
    pub(crate) fn seconds_or_none(&mut self, key: &str) -> Result<Option<Duration>, Failure> {
        self.typed(key, "a number of seconds from 0 to 86400", |value| {
            let seconds = match value {
                #[expect(clippy::cast_precision_loss, reason = "far below 2**53, or refused")]
                Value::Int(seconds) => *seconds as f64,
                Value::Float(seconds) => *seconds,
                _ => return None,
            };
            let fits = (0.0..=SECONDS_MAX).contains(&seconds);
            fits.then(|| Duration::from_secs_f64(seconds))
        })
    }

    /// A list (or tuple) of ints from 0 up.
    pub(crate) fn sizes(&mut self, key: &str) -> Result<Vec<u64>, Failure> {
        let list = self.typed(key, "a list of ints from 0 to 2**63-1", |value| {
            items(value)?
                .iter()
                .map(|item| match item {
                    Value::Int(value) => u64::try_from(*value).ok(),
                    _ => None,
                })
                .collect()
        })?;
        Ok(list.unwrap_or_default())
    }

    /// A list (or tuple) of str.
    pub(crate) fn texts(&mut self, key: &str) -> Result<Vec<&'v str>, Failure> {
        let list = self.typed(key, "a list of str", |value| {
            items(value)?
                .iter()
                .map(|item| match item {
                    Value::Text(text) => Some(text.as_str()),
                    _ => None,
                })
                .collect()
        })?;
        Ok(list.unwrap_or_default())
    }

    /// A list of pairs of str.
    pub(crate) fn pairs(&mut self, key: &str) -> Result<Vec<(&'v str, &'v str)>, Failure> {
        let list = self.typed(key, "a list of pairs of str", |value| {
            items(value)?
                .iter()
                .map(|item| match items(item)? {
                    [Value::Text(name), Value::Text(value)] => {
                        Some((name.as_str(), value.as_str()))
                    }
                    _ => None,
                })
                .collect()
        })?;
        Ok(list.unwrap_or_default())
    }

    /// Any value, `None` too, but it has to be there.
    pub(crate) fn any(&mut self, key: &str) -> Result<&'v Value, Failure> {
        let found = self.entries.iter().rev().find(|(name, _)| *name == key);
        let value = found.map(|(_, value)| *value);
        self.take(key);
        self.required(key, value)
    }

    /// Nothing else may have been sent.
    pub(crate) fn end(self) -> Result<(), Failure> {
        match self.entries.first() {
            None => Ok(()),
            Some((key, _)) => {
                let key: String = key.chars().take(100).collect();
                Err(self.wrong(format_args!("unknown key {key:?}")))
            }
        }
    }
}

fn items(value: &Value) -> Option<&[Value]> {
    match value {
        Value::List(items) | Value::Tuple(items) => Some(items),
        _ => None,
    }
}

/// A dict with names for keys, as answers have them.
pub(crate) fn record(entries: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    Value::Dict(
        entries.into_iter().map(|(key, value)| (Value::Text(key.to_owned()), value)).collect(),
    )
}

/// An int that may be over `i64`'s, which no size or time of ours is.
pub(crate) fn int(value: u64) -> Value {
    Value::Int(i64::try_from(value).unwrap_or(i64::MAX))
}

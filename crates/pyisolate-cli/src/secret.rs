//! `--secret NAME=@FILE|env:VAR`

use std::collections::BTreeMap;
use std::path::PathBuf;

use pyisolate_supervisor::broker::SecretValue;

use crate::report::Trouble;
use crate::source::{bytes, is_stdin, usage};

/// The longest secret, in bytes: a bundle of certificates fits.
const SECRET_BYTES_MAX: u64 = 1 << 20;

/// One `--secret`.
#[derive(Debug)]
struct Named {
    name: String,
    place: Place,
}

/// Where a secret's value is.
#[derive(Debug)]
enum Place {
    File(PathBuf),
    Variable(String),
}

/// Reads `NAME=@FILE` or `NAME=env:VARIABLE`. What is wrong is not repeated: it may be the secret.
fn named(text: &str) -> Result<Named, String> {
    let form = "a secret is written NAME=@FILE or NAME=env:VARIABLE";
    let (name, place) = text.split_once('=').ok_or(form)?;
    if name.is_empty() || name.contains(char::is_control) {
        return Err(form.to_owned());
    }
    let place = match (place.strip_prefix('@'), place.strip_prefix("env:")) {
        (Some(path), _) if !path.is_empty() => Place::File(path.into()),
        (_, Some(variable)) if !variable.is_empty() => Place::Variable(variable.to_owned()),
        _ => return Err(format!("{form}: a value on the command line could be read by others")),
    };
    Ok(Named { name: name.to_owned(), place })
}

/// How many of them come from standard input.
pub(crate) fn from_stdin(secrets: &[String]) -> usize {
    let is_own = |text: &&String| matches!(named(text), Ok(Named { place: Place::File(path), .. }) if is_stdin(&path));
    secrets.iter().filter(is_own).count()
}

/// Reads the values.
pub(crate) fn read(secrets: &[String]) -> Result<BTreeMap<String, SecretValue>, Trouble> {
    let mut values = BTreeMap::new();
    for text in secrets {
        let Named { name, place } = named(text).map_err(|why| usage(format!("--secret: {why}")))?;
        let value = match place {
            Place::File(path) => {
                match String::from_utf8(bytes(&path, SECRET_BYTES_MAX, "a secret")?) {
                    Ok(text) => SecretValue::from(without_line_end(text)),
                    Err(error) => SecretValue::from(error.into_bytes()),
                }
            }
            Place::Variable(variable) => {
                let value = std::env::var(&variable).map_err(|error| {
                    usage(format!("--secret {name}: {variable}: {}", told(&error)))
                })?;
                SecretValue::from(value)
            }
        };
        if values.insert(name.clone(), value).is_some() {
            return Err(usage(format!("--secret {name} is given twice")));
        }
    }
    Ok(values)
}

/// Editors and `echo` end a file with a line feed, which belongs to no key.
fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}

/// Why a variable cannot be read, without what is in it.
fn told(error: &std::env::VarError) -> &'static str {
    match error {
        std::env::VarError::NotPresent => "there is no such variable in the environment",
        std::env::VarError::NotUnicode(_) => "the variable is not UTF-8",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_never_on_the_command_line() {
        for text in ["key=hunter2", "key=", "key", "=@file", "key=@", "key=env:", "a\nb=@x"] {
            let told = named(text).unwrap_err();
            assert!(told.contains("NAME=@FILE") && !told.contains("hunter2"), "{told}");
        }
        assert!(matches!(named("key=@/run/key").unwrap().place, Place::File(_)));
        assert!(matches!(named("key=env:KEY").unwrap().place, Place::Variable(_)));
    }

    #[test]
    fn standard_input_is_counted() {
        let secrets = ["a=@-", "b=@-x", "c=env:-", "d"].map(str::to_owned);
        assert_eq!(from_stdin(&secrets), 1);
    }

    #[test]
    fn one_line_end_is_left_out() {
        for (content, value) in
            [("key\n", "key"), ("key\r\n", "key"), ("key", "key"), ("a\n\n", "a\n")]
        {
            assert_eq!(without_line_end(content.to_owned()), value);
        }
    }
}

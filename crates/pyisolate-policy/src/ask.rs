//! Acts from words, as they are typed at a command line.

use thiserror::Error;

use crate::act::{Access, Act, ClockAction, Direction, SecretPurpose};
use crate::host::{Host, HostError};
use crate::imports::is_dotted_name;
use crate::path::{CleanPath, PathError};
use crate::url::UrlError;

/// Words that are no act.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum ActError {
    /// The first word.
    #[error(
        "{0:?} is no act: use read, write, connect, resolve, get, post (or http METHOD), run, \
         reveal, use, clock, random, send, receive, import, or NAME.ACTION of the host's own"
    )]
    Verb(String),
    /// Too few or too many words follow.
    #[error("write it as: {0}")]
    Usage(&'static str),
    /// A path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A host.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A URL.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A port.
    #[error("{0:?} is no port: a number from 1 to 65535")]
    Port(String),
    /// A module's name.
    #[error("{0:?} is no dotted module name")]
    Module(String),
}

impl Act {
    /// Reads an act from a verb and what follows it: `read /data/x`, `connect db:5432`,
    /// `post https://h/path`, `run git status`, `db.query`.
    ///
    /// # Errors
    /// [`ActError`], which says how to write it.
    pub fn parse(verb: &str, target: &[String]) -> Result<Self, ActError> {
        let one = |usage| match target {
            [one] => Ok(one.as_str()),
            _ => Err(ActError::Usage(usage)),
        };
        let file = |access, usage| Ok(Self::File { access, path: CleanPath::new(one(usage)?)? });
        let ipc = |direction, usage| Ok(Self::Ipc { channel: one(usage)?.to_owned(), direction });
        match verb {
            "read" => file(Access::Read, "read PATH"),
            "write" => file(Access::Write, "write PATH"),
            "connect" => connect(one("connect HOST:PORT")?),
            "resolve" => Ok(Self::Resolve { host: one("resolve HOST")?.parse()? }),
            "http" => match target {
                [method, url] => http(method, url),
                _ => Err(ActError::Usage("http METHOD URL")),
            },
            "get" | "head" | "post" | "put" | "patch" | "delete" | "options" => {
                http(verb, one("get URL (or post, put, patch, delete, head, options)")?)
            }
            "run" => match target {
                [program, args @ ..] => {
                    Ok(Self::Run { program: program.clone(), args: args.to_vec() })
                }
                [] => Err(ActError::Usage("run PROGRAM ARGUMENTS...")),
            },
            "reveal" => {
                let name = one("reveal NAME")?.to_owned();
                Ok(Self::Secret { name, purpose: SecretPurpose::Reveal })
            }
            "use" => match target {
                [name] => Ok(Self::Secret { name: name.clone(), purpose: SecretPurpose::Use }),
                [name, host] => {
                    let purpose = SecretPurpose::Send(host.parse()?);
                    Ok(Self::Secret { name: name.clone(), purpose })
                }
                _ => Err(ActError::Usage("use NAME [HOST]")),
            },
            "clock" => {
                let usage = "clock time, clock monotonic or clock sleep";
                let action = match one(usage)? {
                    "time" => ClockAction::Time,
                    "monotonic" => ClockAction::Monotonic,
                    "sleep" => ClockAction::Sleep,
                    _ => return Err(ActError::Usage(usage)),
                };
                Ok(Self::Clock { action })
            }
            "random" => match target {
                [] => Ok(Self::Random),
                _ => Err(ActError::Usage("random")),
            },
            "send" => ipc(Direction::Send, "send CHANNEL"),
            "receive" => ipc(Direction::Receive, "receive CHANNEL"),
            "import" => match one("import MODULE")? {
                module if is_dotted_name(module) => Ok(Self::Import { module: module.to_owned() }),
                other => Err(ActError::Module(other.chars().take(300).collect())),
            },
            own => match (own.split_once('.'), target) {
                (Some((capability, action)), [])
                    if !capability.is_empty() && !action.is_empty() =>
                {
                    let (capability, action) = (capability.to_owned(), action.to_owned());
                    Ok(Self::Host { capability, action })
                }
                (Some(_), [_, ..]) => Err(ActError::Usage("NAME.ACTION")),
                _ => Err(ActError::Verb(own.chars().take(300).collect())),
            },
        }
    }
}

fn connect(text: &str) -> Result<Act, ActError> {
    let (host, port) = text.rsplit_once(':').ok_or(ActError::Usage("connect HOST:PORT"))?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bracketed.is_none() && host.contains(':') {
        return Err(ActError::Usage("connect [IPV6]:PORT"));
    }
    let host: Host = bracketed.unwrap_or(host).parse()?;
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    match port.parse() {
        Ok(port) if digits && port > 0 => Ok(Act::Connect { host, port }),
        _ => Err(ActError::Port(port.chars().take(300).collect())),
    }
}

fn http(method: &str, url: &str) -> Result<Act, ActError> {
    Ok(Act::Http { method: method.to_ascii_uppercase(), url: url.parse()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Act, ActError> {
        let mut words = line.split(' ').map(str::to_owned);
        Act::parse(&words.next().unwrap(), &words.collect::<Vec<_>>())
    }

    #[test]
    fn words_are_acts() {
        for (line, shown) in [
            ("read /data/../x", "read /x"),
            ("write /x", "write /x"),
            ("connect DB.example.:5432", "connect to db.example:5432"),
            ("connect [::1]:80", "connect to [::1]:80"),
            ("resolve a.example", "resolve a.example"),
            ("get https://a.example", "GET https://a.example/"),
            ("http purge http://a/x", "PURGE http://a/x"),
            ("run git log -1", "run git \"log\" \"-1\""),
            ("reveal key", "reveal key"),
            ("use key", "use key"),
            ("use key a.example", "send key to a.example"),
            ("clock sleep", "sleep"),
            ("random", "take random bytes"),
            ("send out", "send to out"),
            ("receive in", "receive from in"),
            ("import os.path", "import os.path"),
            ("db.query", "db.query"),
        ] {
            assert_eq!(read(line).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn other_words_say_how_to_write_it() {
        for bad in [
            "read",
            "read x",
            "read /x /y",
            "connect a",
            "connect a:0",
            "connect a:+80",
            "connect ::1:80",
            "connect a:65536",
            "resolve a/b",
            "get a",
            "http GET",
            "run",
            "use",
            "clock",
            "clock now",
            "random 7",
            "import a-b",
            "db.",
            ".query",
            "open",
            "db.query x",
        ] {
            let error = read(bad).unwrap_err().to_string();
            assert!(!error.is_empty(), "{bad}");
        }
        assert_eq!(
            read("clock").unwrap_err().to_string(),
            "write it as: clock time, clock monotonic or clock sleep"
        );
    }
}

//! The one reading of an HTTP URL.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::host::Host;

/// The longest URL, in bytes: what servers commonly take.
pub const URL_BYTES_MAX: usize = 8192;

/// An `http` or `https` URL, read once: the port is always there, the path has no dot segments, and
/// there is neither a user nor a fragment.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HttpUrl {
    /// How.
    pub scheme: Scheme,
    /// Where.
    pub host: Host,
    /// At which port.
    pub port: u16,
    /// Percent-encoded, beginning with a slash.
    pub path: String,
    /// Percent-encoded, without the question mark.
    pub query: Option<String>,
}

/// The schemes that the broker speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Without TLS.
    Http,
    /// With TLS.
    Https,
}

impl Scheme {
    /// As in a URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port where a URL names none.
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A text that is no URL for the broker.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum UrlError {
    /// It is longer than [`URL_BYTES_MAX`].
    #[error("the URL is longer than {URL_BYTES_MAX} bytes")]
    TooLong,
    /// A control character, white space or a backslash, which readers of URLs drop, keep or take
    /// for a slash as they please.
    #[error("the URL has a control character, white space or '\\' in it: percent-encode it")]
    Control,
    /// No URL at all.
    #[error("{text:?} is no URL: {why}")]
    Malformed {
        /// The text.
        text: String,
        /// Why.
        why: String,
    },
    /// Another scheme.
    #[error("the scheme {0:?} is not spoken: use http or https")]
    Scheme(String),
    /// A `%` in the path that begins no byte.
    #[error("the URL's path has a '%' without two hexadecimal digits behind it: write %25")]
    Percent,
    /// `user:password@`, which makes a host look like another.
    #[error("a URL may not carry a user or password: send an Authorization header")]
    UserInfo,
    /// No host that can be read.
    #[error("{0}")]
    Host(#[from] crate::host::HostError),
}

impl FromStr for HttpUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        if text.len() > URL_BYTES_MAX {
            return Err(UrlError::TooLong);
        }
        // The URL standard drops tabs and line ends silently, and reads `\` as `/`.
        if text.contains(|c: char| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(UrlError::Control);
        }
        let url = url::Url::parse(text).map_err(|error| UrlError::Malformed {
            text: text.chars().take(300).collect(),
            why: error.to_string(),
        })?;
        let scheme = match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => return Err(UrlError::Scheme(other.to_owned())),
        };
        let malformed = |why: &str| UrlError::Malformed {
            text: text.chars().take(300).collect(),
            why: why.to_owned(),
        };
        // The standard lets slashes be missing or too many, and then takes what follows for a host.
        let rest = text.get(url.scheme().len()..).and_then(|rest| rest.strip_prefix("://"));
        let authority = match rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or(rest)) {
            None | Some("") => return Err(malformed("write it as https://host/path")),
            Some(authority) => authority,
        };
        if authority.contains('@') || !url.username().is_empty() || url.password().is_some() {
            return Err(UrlError::UserInfo);
        }
        // The standard decodes it there; nobody who means well writes it.
        if authority.contains('%') {
            return Err(malformed("the host is percent-encoded"));
        }
        let host = url.host_str().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|six| six.strip_suffix(']')).unwrap_or(host);
        let host = host.parse()?;
        let port = url.port().unwrap_or(scheme.default_port());
        let path = clean_path(url.path()).ok_or(UrlError::Percent)?;
        let read = Self { scheme, host, port, path, query: url.query().map(str::to_owned) };
        // What is not ASCII has become longer.
        if read.to_string().len() > URL_BYTES_MAX {
            return Err(UrlError::TooLong);
        }
        Ok(read)
    }
}

/// Hexadecimal digits in capitals, and letters, digits, `-`, `_` and `~` not encoded, which means
/// the same by RFC 3986. `None` if a `%` begins no byte.
fn clean_path(path: &str) -> Option<String> {
    let mut clean = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((plain, encoded)) = rest.split_once('%') {
        clean.push_str(plain);
        let digits = encoded.get(..2).filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()))?;
        let byte = u8::from_str_radix(digits, 16).ok()?;
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~') {
            clean.push(char::from(byte));
        } else {
            clean.push('%');
            clean.push_str(&digits.to_ascii_uppercase());
        }
        rest = &encoded[2..];
    }
    clean.push_str(rest);
    Some(clean)
}

impl TryFrom<String> for HttpUrl {
    type Error = UrlError;

    fn try_from(text: String) -> Result<Self, UrlError> {
        text.parse()
    }
}

impl From<HttpUrl> for String {
    fn from(url: HttpUrl) -> Self {
        url.to_string()
    }
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}://{}", self.scheme.as_str(), self.host.in_url())?;
        if self.port != self.scheme.default_port() {
            write!(out, ":{}", self.port)?;
        }
        out.write_str(&self.path)?;
        self.query.as_ref().map_or(Ok(()), |query| write!(out, "?{query}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_one_url() {
        for (spelling, url) in [
            ("HTTPS://Example.ORG", "https://example.org/"),
            ("https://example.org:443/x", "https://example.org/x"),
            ("http://example.org:443", "http://example.org:443/"),
            ("https://example.org./a/../b/./c#part", "https://example.org/b/c"),
            ("https://example.org/%2e%2E/x", "https://example.org/x"),
            ("https://example.org/%7Ea/%61%2f%c3%a9", "https://example.org/~a/a%2F%C3%A9"),
            ("https://example.org/é?é", "https://example.org/%C3%A9?%C3%A9"),
            ("http://0x7f.1/", "http://127.0.0.1/"),
            ("http://[::ffff:127.0.0.1]:8080/", "http://127.0.0.1:8080/"),
            ("http://[::1]/", "http://[::1]/"),
            ("https://example.org?x=@", "https://example.org/?x=@"),
            ("https://example.org/@", "https://example.org/@"),
            ("https://example.org/?", "https://example.org/?"),
        ] {
            let read: HttpUrl = spelling.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(read.to_string(), url, "{spelling}");
            assert_eq!(url.parse::<HttpUrl>().unwrap(), read, "{spelling}");
        }
    }

    #[test]
    fn what_is_no_url() {
        for bad in [
            "",
            "example.org",
            "/x",
            "https:",
            "https://",
            "https:///x",
            "https:example.org",
            "https:example.org://a/",
            "https:@example.org/?://a",
            "https:/example.org",
            "https:////example.org",
            "http:/a@127.0.0.1/",
            "ftp://a/",
            "file:///x",
            "javascript:1",
            "https://user@a/",
            "https://user:pw@a/",
            "https://@a/",
            "https://:@a/",
            "https://a\\@b/",
            "https://a/\\b",
            "https://a/ b",
            "https://a/\tb",
            "ht\ntps://a/",
            " https://a/",
            "https://a\0b/",
            "https://a%2eb/",
            "https://%61/",
            "https://a:99999/",
            "https://a:b/",
            "https://*.a/",
            "https://a;b/",
            "https://a/%",
            "https://a/%4",
            "https://a/%zz",
            "https://a/%é0",
            "https://[::1%25eth0]/",
            "https://1.2.3.4.5/",
            &format!("https://a/{}", "é".repeat(4000)),
            &format!("https://a/{}", "a".repeat(8192)),
        ] {
            assert!(bad.parse::<HttpUrl>().is_err(), "{bad:?} {:?}", bad.parse::<HttpUrl>());
        }
    }
}

//! Where a redirect leads.

use pyisolate_policy::{Act, HttpUrl};

use super::denied_by_broker;
use super::exchange::{Answer, Hop};
use super::line::protocol;
use crate::outcome::Refusal;

/// What is for one site alone.
const CREDENTIALS: [&str; 2] = ["authorization", "cookie"];

/// What speaks of a body.
const OF_BODY: [&str; 4] =
    ["content-type", "content-encoding", "content-language", "content-location"];

/// The request that follows from an answer, if it is a redirect. It is not checked yet.
pub(super) fn next_hop(hop: &Hop, answer: &Answer) -> Result<Option<Hop>, Refusal> {
    let status = answer.head.status;
    if !matches!(status, 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = answer.head.first("location") else { return Ok(None) };
    // It would go into the journal, and to whoever it leads to. Reading it takes tabs out and
    // decodes what need not be encoded, so that a secret may be there afterwards alone.
    let has_no_secret = |url: &[u8]| match answer.scrub.text(url) == url {
        true => Ok(()),
        false => Err(denied_by_broker(
            &hop.act,
            format!("network: {} redirects to a URL with a secret in it", hop.url),
        )),
    };
    has_no_secret(location)?;
    let wrong = || protocol(format_args!("{} redirects to no URL", hop.url));
    let location = std::str::from_utf8(location).map_err(|_| wrong())?;
    let base = url::Url::parse(&hop.url.to_string()).map_err(|_| wrong())?;
    let target = base.join(location).map_err(|_| wrong())?;
    has_no_secret(target.as_str().as_bytes())?;
    let url: Result<HttpUrl, _> = target.as_str().parse();
    let url = url.map_err(|error| {
        protocol(format_args!("{} redirects to what is not followed: {error}", hop.url))
    })?;
    has_no_secret(url.to_string().as_bytes())?;
    Ok(Some(changed(hop, status, url)))
}

/// As browsers and Python do: 303 and, for POST, 301 and 302 ask with GET.
fn changed(hop: &Hop, status: u16, url: HttpUrl) -> Hop {
    let becomes_get = match status {
        303 => hop.method != "HEAD",
        301 | 302 => hop.method == "POST",
        _ => false,
    };
    let origin = |url: &HttpUrl| (url.scheme, url.host.clone(), url.port);
    let is_same_origin = origin(&hop.url) == origin(&url);
    let is_kept = |(name, _): &&(String, String)| {
        let is_one_of = |all: &[&str]| all.iter().any(|one| one.eq_ignore_ascii_case(name));
        (is_same_origin || !is_one_of(&CREDENTIALS)) && !(becomes_get && is_one_of(&OF_BODY))
    };
    let headers = hop.headers.iter().filter(is_kept).cloned().collect();
    let method = if becomes_get { "GET".to_owned() } else { hop.method.clone() };
    let body = if becomes_get { Vec::new() } else { hop.body.clone() };
    let act = Act::Http { method: method.clone(), url: url.clone() };
    Hop { act, method, url, headers, body }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(method: &str) -> Hop {
        let url: HttpUrl = "https://a.example/x".parse().unwrap();
        let header = |name: &str| (name.to_owned(), "v".to_owned());
        Hop {
            act: Act::Http { method: method.to_owned(), url: url.clone() },
            method: method.to_owned(),
            url,
            headers: ["Authorization", "COOKIE", "X-A", "Content-Type"].map(header).into(),
            body: b"body".to_vec(),
        }
    }

    fn names(hop: &Hop) -> Vec<&str> {
        hop.headers.iter().map(|(name, _)| name.as_str()).collect()
    }

    #[test]
    fn credentials_stay_with_their_origin() {
        let same = changed(&hop("GET"), 307, "https://a.example/y".parse().unwrap());
        assert_eq!(names(&same), ["Authorization", "COOKIE", "X-A", "Content-Type"]);
        for other in ["https://b.example/", "http://a.example/", "https://a.example:8443/"] {
            let other = changed(&hop("GET"), 307, other.parse().unwrap());
            assert_eq!(names(&other), ["X-A", "Content-Type"]);
        }
    }

    #[test]
    fn methods_change_as_in_browsers() {
        let url: HttpUrl = "https://a.example/y".parse().unwrap();
        for (method, status, expected) in [
            ("POST", 301, "GET"),
            ("POST", 302, "GET"),
            ("PUT", 302, "PUT"),
            ("PUT", 303, "GET"),
            ("HEAD", 303, "HEAD"),
            ("POST", 307, "POST"),
            ("POST", 308, "POST"),
        ] {
            let next = changed(&hop(method), status, url.clone());
            assert_eq!(next.method, expected, "{method} {status}");
            assert_eq!(next.body.is_empty(), expected == "GET", "{method} {status}");
            assert_eq!(next.act, Act::Http { method: expected.to_owned(), url: url.clone() });
        }
    }
}

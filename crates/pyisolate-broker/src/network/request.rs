//! What a guest may say in a request, and how it is written.

use pyisolate_policy::{HttpUrl, Scheme};
use zeroize::Zeroizing;

/// The most headers of a request.
const HEADERS_MAX: usize = 100;

/// The most bytes in the headers of a request.
pub(super) const HEADER_BYTES_MAX: usize = 64 << 10;

/// The longest name of a method.
const METHOD_BYTES_MAX: usize = 32;

/// What clients commonly send and the broker says itself: left out.
const REPLACED: [&str; 4] = ["host", "content-length", "connection", "keep-alive"];

/// What would change how the connection or the body is read. `proxy-` is one of them.
const REFUSED: [&str; 6] =
    ["transfer-encoding", "upgrade", "te", "trailer", "expect", "http2-settings"];

/// What some servers take for the method or path in the place of the request's own, which are what
/// the policy was asked for.
const OTHER_REQUEST: [&str; 5] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-original-url",
    "x-rewrite-url",
];

/// `token` of RFC 9110.
fn is_token(text: &str) -> bool {
    let is_tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_tchar)
}

/// A method, in capitals, as the policy has it. Not every token: one that a policy cannot name could
/// not be granted, and `*`, which stands there for every method, would be granted as all of them by
/// whoever takes up the advice of its refusal.
pub(super) fn method(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    if text.is_empty() || !text.bytes().all(fits) || text.len() > METHOD_BYTES_MAX {
        return Err(format!("{:?} is no method", shown(text)));
    }
    let method = text.to_ascii_uppercase();
    if method == "CONNECT" || method == "TRACE" {
        return Err(format!("the method {method} is not sent for anybody"));
    }
    Ok(method)
}

/// The headers that go out as they are, once all of them are in order.
pub(super) fn headers(
    url: &HttpUrl,
    headers: &[(&str, &str)],
) -> Result<Vec<(String, String)>, String> {
    if headers.len() > HEADERS_MAX {
        return Err(format!("more than {HEADERS_MAX} headers"));
    }
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    if bytes > HEADER_BYTES_MAX {
        return Err(format!("more than {HEADER_BYTES_MAX} bytes of headers"));
    }
    let mut kept = Vec::new();
    for (name, value) in headers {
        if !is_token(name) {
            return Err(format!("{:?} is no name of a header", shown(name)));
        }
        let is_wrong = |c: char| (c < ' ' && c != '\t') || c == '\x7f' || c > '\u{ff}';
        if value.contains(is_wrong) {
            return Err(format!(
                "the value of {} has a control character, a line end \
                 or a character outside of latin-1 in it",
                shown(name)
            ));
        }
        // Servers that hand headers on as variables read `_` as `-`.
        let lower = name.to_ascii_lowercase().replace('_', "-");
        if lower == "host" && !names(url, value.trim()) {
            return Err(format!("the Host header {:?} is not the URL's host", shown(value)));
        }
        if REFUSED.contains(&&*lower) || lower.starts_with("proxy-") {
            return Err(format!("the header {} cannot be sent: the broker speaks for it", lower));
        }
        if OTHER_REQUEST.contains(&&*lower) {
            return Err(format!(
                "the header {lower} cannot be sent: servers may take the request for another one"
            ));
        }
        if !REPLACED.contains(&&*lower) {
            kept.push(((*name).to_owned(), value.trim_matches([' ', '\t']).to_owned()));
        }
    }
    Ok(kept)
}

/// Whether a `Host` header means where the URL leads.
fn names(url: &HttpUrl, host: &str) -> bool {
    if host.contains(['/', '?', '#']) {
        return false;
    }
    let other: Result<HttpUrl, _> = format!("{}://{host}/", url.scheme.as_str()).parse();
    other.is_ok_and(|other| other.host == url.host && other.port == url.port)
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

/// A request's head, with whatever secrets are in it.
pub(super) fn head(
    method: &str,
    url: &HttpUrl,
    headers: &[(&str, Zeroizing<Vec<u8>>)],
    body: Option<usize>,
) -> Zeroizing<Vec<u8>> {
    let default = if url.scheme == Scheme::Https { 443 } else { 80 };
    let query = url.query.as_ref().map_or_else(String::new, |query| format!("?{query}"));
    let port = if url.port == default { String::new() } else { format!(":{}", url.port) };
    let host = url.host.in_url();
    let mut text = format!("{method} {}{query} HTTP/1.1\r\nHost: {host}{port}\r\n", url.path);
    let mut end = String::new();
    if let Some(length) = body {
        end.push_str(&format!("Content-Length: {length}\r\n"));
    }
    end.push_str("Connection: close\r\n\r\n");
    // In one allocation, so that no copy of a secret is left behind.
    let room: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    text.reserve_exact(room + end.len());
    let mut out = Zeroizing::new(text.into_bytes());
    for (name, value) in headers {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(end.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url() -> HttpUrl {
        "http://example.org:81/a?b".parse().unwrap()
    }

    #[test]
    fn methods_are_tokens_in_capitals() {
        assert_eq!(method("get"), Ok("GET".to_owned()));
        assert_eq!(method("M-SEARCH"), Ok("M-SEARCH".to_owned()));
        for wrong in ["", "GET /", "GET\r\nX: y", "G\u{e9}T", "CONNECT", "trace", &"A".repeat(33)] {
            assert!(method(wrong).is_err(), "{wrong:?}");
        }
        for unsaid in ["*", "G*T", "A.B"] {
            assert!(method(unsaid).is_err(), "{unsaid:?}");
        }
    }

    #[test]
    fn headers_in_order_are_kept_and_the_brokers_own_left_out() {
        let given = [
            ("Host", "EXAMPLE.org:81"),
            ("Content-Length", "7"),
            ("Content_Length", "7"),
            ("Connection", "keep-alive"),
            ("X-A", " b\u{e9}\tc "),
        ];
        let kept = headers(&url(), &given).unwrap();
        assert_eq!(kept, [("X-A".to_owned(), "b\u{e9}\tc".to_owned())]);
    }

    #[test]
    fn headers_that_smuggle_are_refused() {
        for (name, value) in [
            ("X-A", "b\r\nX-B: c"),
            ("X-A", "b\nc"),
            ("X-A", "b\rc"),
            ("X-A", "b\0"),
            ("X-A", "b\x1bc"),
            ("X-A", "b\x7f"),
            ("X-A", "\u{100}"),
            // Its low byte is a line feed.
            ("X-A", "\u{10a}"),
            ("X-A\r\nX-B", "c"),
            ("X A", "c"),
            ("X-A:", "c"),
            ("", "c"),
            ("Host", "example.org"),
            ("Host", "other.example:81"),
            ("Host", "example.org:81/x"),
            ("Host", "a@example.org:81"),
            ("Transfer-Encoding", "chunked"),
            ("transfer-encoding", "identity"),
            ("Upgrade", "h2c"),
            ("TE", "trailers"),
            ("Trailer", "x"),
            ("Expect", "100-continue"),
            ("Proxy-Authorization", "x"),
            ("Proxy-Connection", "close"),
            ("X-HTTP-Method-Override", "DELETE"),
            ("X-Original-URL", "/admin"),
            ("X_HTTP_Method_Override", "DELETE"),
            ("X-Original_URL", "/admin"),
            ("Transfer_Encoding", "chunked"),
            ("Proxy_Authorization", "x"),
        ] {
            assert!(headers(&url(), &[(name, value)]).is_err(), "{name:?}: {value:?}");
        }
        assert!(headers(&url(), &[("a", "b"); HEADERS_MAX]).is_ok());
        assert!(headers(&url(), &[("a", "b"); HEADERS_MAX + 1]).is_err());
        assert!(headers(&url(), &[("a", &"b".repeat(HEADER_BYTES_MAX))]).is_err());
    }

    #[test]
    fn a_head_is_written_as_it_is_read() {
        let value = Zeroizing::new(b"v".to_vec());
        let head = head("POST", &url(), &[("X-A", value)], Some(3));
        let expected = "POST /a?b HTTP/1.1\r\nHost: example.org:81\r\nX-A: v\r\n\
                        Content-Length: 3\r\nConnection: close\r\n\r\n";
        assert_eq!(String::from_utf8(head.to_vec()).unwrap(), expected);
    }
}

//! Prefixes of URL paths, judged without knowing how the server will read them.
//!
//! A server may decode `%2F` to a slash or take `..;` for `..`. A grant therefore covers only paths
//! that every server reads in one way, and a denial covers a path if any reading of it is denied.

/// How often a path is decoded in search of another reading. What still changes then was made to
/// be misread.
const READINGS_MAX: usize = 4;

/// Whether a grant of `prefix` covers `path`: the same whole components. A path that could be read
/// in another way is covered by `/` alone.
pub(crate) fn covers(prefix: &str, path: &str) -> bool {
    let prefix = prefix.trim_end_matches('/');
    if prefix.is_empty() {
        return true;
    }
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        && is_plain(path)
}

/// Whether a denial of `prefix` covers `path`, in any of its readings.
pub(crate) fn denies(prefix: &str, path: &str) -> bool {
    let prefix = readings(prefix).pop().unwrap_or_default();
    let prefix = components(&prefix, Server::Plain);
    let all = readings(path);
    let starts = |reading: &[u8]| {
        Server::ALL.iter().any(|&server| components(reading, server).starts_with(&prefix))
    };
    // What is written in C may take a path to end at its first NUL.
    let fits = |reading: &Vec<u8>| {
        starts(reading) || reading.split(|&byte| byte == 0).next().is_some_and(starts)
    };
    all.len() > READINGS_MAX || all.iter().any(fits)
}

/// How a server takes a path apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Server {
    /// By slashes alone.
    Plain,
    /// Walking `.` and `..`.
    Dots,
    /// Dropping what follows a `;` first.
    Parameters,
}

impl Server {
    const ALL: [Self; 3] = [Self::Plain, Self::Dots, Self::Parameters];
}

/// Whether there is one reading of the path's structure: no encoded slash, backslash or dot, once
/// or twice encoded, and no component that is dots with a parameter.
pub(crate) fn is_plain(path: &str) -> bool {
    let lower = path.to_ascii_lowercase();
    let odd = ["%2f", "%5c", "%2e", "%252f", "%255c", "%252e", "%00", "\\"];
    let is_dots = |part: &str| matches!(part.split(';').next(), Some("." | ".."));
    !odd.iter().any(|odd| lower.contains(odd)) && !path.split('/').any(is_dots)
}

/// The path, and what it becomes by decoding it again and again; one more than [`READINGS_MAX`] if
/// it does not come to an end.
fn readings(path: &str) -> Vec<Vec<u8>> {
    let mut all = vec![path.as_bytes().to_vec()];
    while all.len() <= READINGS_MAX {
        let last = &all[all.len() - 1];
        let next = decode(last);
        if next == *last {
            break;
        }
        all.push(next);
    }
    all
}

fn decode(text: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| byte.and_then(|&byte| char::from(byte).to_digit(16));
    let mut decoded = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (byte, digit(text.get(at + 1)), digit(text.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.extend(u8::try_from(high * 16 + low));
                at += 3;
            }
            _ => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

/// The components, without empty ones.
fn components(path: &[u8], server: Server) -> Vec<&[u8]> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| matches!(byte, b'/' | b'\\')) {
        let name = match server {
            Server::Parameters => part.split(|&byte| byte == b';').next().unwrap_or_default(),
            Server::Plain | Server::Dots => part,
        };
        match name {
            b"" => {}
            b"." if server != Server::Plain => {}
            b".." if server != Server::Plain => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_covers_whole_components() {
        for good in ["/v1", "/v1/", "/v1/x", "/v1//x", "/v1/x%20y"] {
            assert!(covers("/v1", good) && covers("/v1/", good), "{good}");
        }
        for bad in [
            "/",
            "/v1x",
            "/v2",
            "/V1",
            "//v1",
            "/x/v1",
            "/%761",
            "/v1%2fx",
            "/v1/..%2fadmin",
            "/v1/%2e%2e/admin",
            "/v1/%252e%252e/admin",
            "/v1/..;/admin",
            "/v1/a%5c..%5cb",
            "/v1/%00",
        ] {
            assert!(!covers("/v1", bad), "{bad}");
            assert!(covers("/", bad), "{bad}");
        }
    }

    #[test]
    fn a_denial_covers_every_reading() {
        for denied in [
            "/admin",
            "/admin/",
            "/admin/x",
            "//admin",
            "/%61dmin",
            "/%2561dmin",
            "/admin%2fx",
            "/x/..%2fadmin",
            "/x/..;/admin",
            "/admin;a=b/x",
            "/x%5c..%5cadmin",
            "/.%2fadmin",
            "/%252525252561",
            "/admin/..;/",
            "/admin;/x",
            "/admin%00",
            "/admin%00x",
            "/admin%2500",
        ] {
            assert!(denies("/admin", denied), "{denied}");
        }
        for free in ["/", "/adminx", "/x/admin", "/100%25"] {
            assert!(!denies("/admin", free), "{free}");
        }
        assert!(denies("/", "/anything"));
    }
}

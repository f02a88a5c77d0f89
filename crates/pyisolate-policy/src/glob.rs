//! Wildcards: `*`, `?` and `[…]` in one piece of text, and `**` between the components of a path.
//!
//! Written here, as a policy needs three things that glob libraries for files do not promise: `?`
//! and `[!a]` stand for one character and not one byte, a class never matches a slash, and a
//! pattern can be asked whether it matches a folder above a path. There are no alternatives in
//! braces; `{` stands for itself.

/// Whether `pattern` has a wildcard in it.
pub(crate) fn is_wild(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

/// Whether every `[` of `pattern` begins a class that says something and ends.
pub(crate) fn is_valid(pattern: &str) -> bool {
    let mut rest = pattern;
    while let Some((_, class)) = rest.split_once('[') {
        let Some((members, after)) = class.split_once(']') else { return false };
        if members.is_empty() || has_empty_range(members) {
            return false;
        }
        rest = after;
    }
    true
}

/// `text` with its wildcards taken literally.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '?' | '[') {
            escaped.extend(['[', c, ']']);
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// Whether `pattern` matches the whole of `text`, slashes being characters like any other. A class
/// that never ends matches nothing.
pub(crate) fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Where to go on if what follows the last star does not fit: behind the star, and the text one
    // character further. Earlier stars need no second try, so the time is the product of the
    // lengths at most.
    let mut retry: Option<(&str, &str)> = None;
    loop {
        if let Some(after) = pattern.strip_prefix('*') {
            pattern = after;
            retry = Some((pattern, text));
            continue;
        }
        let mut rest = text.chars();
        let step = match rest.next() {
            Some(c) => one(pattern, c),
            None if pattern.is_empty() => return true,
            None => return false,
        };
        if let Some(after) = step {
            pattern = after;
            text = rest.as_str();
            continue;
        }
        let Some((behind, from)) = retry else { return false };
        let mut further = from.chars();
        if further.next().is_none() {
            return false;
        }
        retry = Some((behind, further.as_str()));
        (pattern, text) = (behind, further.as_str());
    }
}

/// What is left of `pattern` behind the part that matches the one character `c`.
fn one(pattern: &str, c: char) -> Option<&str> {
    let mut chars = pattern.chars();
    match chars.next()? {
        '?' => Some(chars.as_str()),
        '[' => {
            let (members, after) = chars.as_str().split_once(']')?;
            is_member(members, c).then_some(after)
        }
        first => (first == c).then_some(chars.as_str()),
    }
}

/// Whether the inside of a class has a range such as `z-a`, in which nothing lies.
fn has_empty_range(members: &str) -> bool {
    let mut members: Vec<char> = members.chars().collect();
    if members.len() > 1 && matches!(members[0], '!' | '^') {
        members.remove(0);
    }
    let mut rest = members.as_slice();
    while let Some((&low, after)) = rest.split_first() {
        rest = match after {
            [_dash @ '-', high, after @ ..] => {
                if *high < low {
                    return true;
                }
                after
            }
            after => after,
        };
    }
    false
}

/// Whether the inside of a class names `c`: characters, ranges with `-`, all others with a leading
/// `!` or `^`.
fn is_member(members: &str, c: char) -> bool {
    let (negated, members) = match members.strip_prefix(['!', '^']) {
        Some(rest) if !rest.is_empty() => (true, rest),
        _ => (false, members),
    };
    let members: Vec<char> = members.chars().collect();
    let mut found = false;
    let mut at = 0;
    while let Some(&low) = members.get(at) {
        match (members.get(at + 1), members.get(at + 2)) {
            (Some('-'), Some(&high)) => {
                found |= (low..=high).contains(&c);
                at += 3;
            }
            _ => {
                found |= low == c;
                at += 1;
            }
        }
    }
    found != negated
}

/// How far the components of a path get in a pattern's components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    /// The path, whole, matches.
    pub(crate) whole: bool,
    /// The path, or a folder above it, matches.
    pub(crate) part: bool,
    /// Something below the path could match.
    pub(crate) below: bool,
}

/// Matches a path below a root against a pattern of components, in which `**` stands for any number
/// of components, none among them.
pub(crate) fn reach(pattern: &str, path: &str) -> Reach {
    let pattern: Vec<&str> = pattern.split('/').collect();
    // Which numbers of the pattern's components can have been used up.
    let mut states = vec![false; pattern.len() + 1];
    states[0] = true;
    skip_empty(&pattern, &mut states);
    let mut part = states[pattern.len()];
    for component in path.split('/').filter(|component| !component.is_empty()) {
        let mut next = vec![false; pattern.len() + 1];
        for (at, wanted) in pattern.iter().enumerate() {
            if !states[at] {
                continue;
            }
            if *wanted == "**" {
                next[at] = true;
            } else if matches(wanted, component) {
                next[at + 1] = true;
            }
        }
        skip_empty(&pattern, &mut next);
        states = next;
        part |= states[pattern.len()];
    }
    let below = pattern.iter().zip(&states).any(|(_, &state)| state);
    Reach { whole: states[pattern.len()], part, below }
}

/// A `**` may stand for nothing.
fn skip_empty(pattern: &[&str], states: &mut [bool]) {
    for (at, wanted) in pattern.iter().enumerate() {
        if states[at] && *wanted == "**" {
            states[at + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text() {
        for (pattern, yes, no) in [
            ("", "", "a"),
            ("*", "", "\u{1}never"),
            ("a*b*c", "aXbXbXc", "aXbXbX"),
            ("?.key", "é.key", ".key"),
            ("[!a]x", "éx", "ax"),
            ("[a-cx]", "b", "d"),
            ("[-a]", "-", "b"),
            ("[!]", "!", "a"),
            ("[^]", "^", "a"),
            ("[*]", "*", "a"),
            ("[[]", "[", "a"),
            ("a]", "a]", "a"),
            ("{a,b}", "{a,b}", "a"),
            ("*.csv", ".csv", "x.csvx"),
        ] {
            assert!(matches(pattern, yes), "{pattern} {yes}");
            assert!(pattern == "*" || !matches(pattern, no), "{pattern} {no}");
        }
        assert!(!matches("[a", "a"));
        assert!(!matches("[a", "[a"));
    }

    #[test]
    fn many_stars_take_no_longer_than_the_product() {
        assert!(!matches(&"*a".repeat(2000), &"a".repeat(1000)));
    }

    #[test]
    fn paths() {
        let whole = |pattern, path| reach(pattern, path).whole;
        assert!(whole("**", "") && whole("**", "a/b"));
        assert!(whole("**/*.key", "x.key") && whole("**/*.key", "a/b/x.key"));
        assert!(!whole("*.csv", "a/b.csv") && !whole("*", "") && !whole("*", "a/b"));
        assert!(whole("a/**", "a") && whole("a/**", "a/b/c") && !whole("a/**", "b"));
        assert!(whole("*/x/**/y", "1/x/y") && whole("*/x/**/y", "1/x/2/3/y"));
    }

    #[test]
    fn a_folder_above_a_path_is_a_part() {
        assert!(reach("**/*.key", "a/x.key/b").part);
        assert!(!reach("**/*.key", "a/x.key/b").whole);
        assert!(!reach("**/*.key", "a/x/b").part);
    }

    #[test]
    fn what_could_match_below() {
        assert!(reach("a/*/c", "a").below && reach("a/*/c", "a/b").below);
        assert!(!reach("a/*/c", "a/b/c").below && !reach("a/*/c", "b").below);
        assert!(reach("**/*.key", "any/where").below);
    }

    #[test]
    fn escaped_text_matches_itself_alone() {
        for text in ["*", "a[b]c?", "[!]", "plain"] {
            assert!(is_valid(&escape(text)), "{text}");
            assert!(matches(&escape(text), text), "{text}");
        }
        assert!(!matches(&escape("*"), "x"));
        assert!(!is_valid("[") && !is_valid("a[]") && is_valid("[a]"));
        assert!(!is_valid("[z-a]") && !is_valid("[!9-0x]") && !is_valid("[a-bz-y]"));
        assert!(is_valid("[a-a]") && is_valid("[a-]") && is_valid("[-a]") && is_valid("[^--a]"));
    }
}

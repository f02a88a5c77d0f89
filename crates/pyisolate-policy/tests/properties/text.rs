//! Objects to text and back.

use std::collections::BTreeSet;

use proptest::prelude::*;
use pyisolate_policy::{Document, Format, Host, HttpUrl, Policy};

use crate::strategies::{act, policy};

fn read(text: &str, format: Format) -> Policy {
    match Document::parse(text, "policy", format) {
        Ok(document) => document.defaults,
        Err(error) => panic!("{error}\n{text}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn object_to_text_to_object_is_the_identity(policy in policy()) {
        let canonical = policy.canonical();
        prop_assert_eq!(&canonical.canonical(), &canonical);
        prop_assert_eq!(&read(&policy.to_yaml(), Format::Yaml), &canonical);
        prop_assert_eq!(&read(&policy.to_toml(), Format::Toml), &canonical);
        prop_assert_eq!(&read(&policy.to_json(), Format::Json), &canonical);
        // JSON is YAML, too.
        prop_assert_eq!(&read(&policy.to_json(), Format::Yaml), &canonical);
    }

    #[test]
    fn the_canonical_form_means_the_same(
        policy in policy(),
        acts in prop::collection::vec(act(), 16),
    ) {
        let canonical = policy.canonical();
        for act in acts {
            let (one, other) = (policy.decide(&act), canonical.decide(&act));
            prop_assert_eq!(one.allowed, other.allowed, "{}", &act);
            prop_assert_eq!(one.rule.is_some(), other.rule.is_some(), "{}", &act);
        }
    }

    #[test]
    fn every_rule_says_where_it_stands(policy in policy()) {
        let text = policy.to_yaml();
        let lines = text.lines().count();
        for rule in read(&text, Format::Yaml).rules {
            let line = usize::try_from(rule.origin.line).unwrap();
            prop_assert!((3..=lines).contains(&line), "{:?}", rule.origin);
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,80}") {
        for format in [Format::Yaml, Format::Toml, Format::Json] {
            if let Err(error) = Document::parse(&text, "policy", format) {
                prop_assert!(error.problems().count() > 0);
                let _ = error.to_string();
            }
        }
    }

    #[test]
    fn any_text_like_a_policy_is_read_or_refused(
        words in prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..24)
    ) {
        let text = format!("version: 1\n{}", words.concat());
        for format in [Format::Yaml, Format::Toml, Format::Json] {
            if let Err(error) = Document::parse(&text, "policy", format) {
                let places: BTreeSet<_> = error.problems().map(|p| (p.line, p.column)).collect();
                prop_assert!(!places.is_empty());
                let _ = error.to_string();
            }
        }
    }

    #[test]
    fn a_host_is_read_once(text in "\\PC{0,12}") {
        if let Ok(host) = text.parse::<Host>() {
            prop_assert_eq!(host.to_string().parse::<Host>().unwrap(), host);
        }
    }

    #[test]
    fn a_url_is_read_once(text in "https?://[a-z0-9.:@%\\[\\]é]{0,8}[/?#%a-f0-9.;é*]{0,12}") {
        if let Ok(url) = text.parse::<HttpUrl>() {
            prop_assert_eq!(url.to_string().parse::<HttpUrl>().unwrap(), url);
        }
    }
}

const WORDS: [&str; 40] = [
    "fs:",
    "net:",
    "read:",
    "write:",
    "deny:",
    "allow:",
    "connect:",
    "http:",
    "resolve:",
    "run:",
    "subprocess:",
    "secrets:",
    "clock:",
    "random:",
    "ipc:",
    "imports:",
    "limits:",
    "mem:",
    "extends:",
    "cells:",
    "defaults:",
    " ",
    "  ",
    "\n",
    "\n  ",
    "\n    ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ", ",
    "\"/a\"",
    "/a/*",
    "a.example:80",
    "1",
    "true",
    "&a ",
    "*a",
    "ml",
];

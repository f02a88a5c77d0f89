//! Any text as a policy, and any act for it: reading neither panics nor takes for ever, what is
//! read is written and read again as the same in all three formats, and what is explained is what
//! is decided.
//!
//! The first line is an act in words; the rest is the policy.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pyisolate_policy::{Act, Document, Format, Policy, diff};

const FORMATS: [Format; 3] = [Format::Yaml, Format::Toml, Format::Json];

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (line, text) = text.split_once('\n').unwrap_or((text, ""));
    let mut words = line.split(' ').map(str::to_owned);
    let act = Act::parse(&words.next().unwrap_or_default(), &words.collect::<Vec<_>>());

    for format in FORMATS {
        match Document::parse(text, "policy", format) {
            Ok(document) => {
                let policies = std::iter::once(&document.defaults).chain(document.cells.values());
                policies.for_each(|policy| check(policy, act.as_ref().ok()));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    if let Ok(act) = &act {
        // What it asks for is enough for it.
        let asked =
            Policy::default().explain(act).grant_yaml.expect("an empty policy grants nothing");
        if let Ok(grant) = Document::parse(&format!("version: 1\n{asked}"), "", Format::Yaml) {
            assert!(grant.defaults.decide(act).allowed, "{asked}");
        }
    }
});

fn check(policy: &Policy, act: Option<&Act>) {
    let canonical = policy.canonical();
    for (format, text) in
        FORMATS.into_iter().zip([policy.to_yaml(), policy.to_toml(), policy.to_json()])
    {
        match Document::parse(&text, "written", format) {
            Ok(again) => assert_eq!(again.defaults, canonical, "{text}"),
            Err(error) => panic!("{error}\n{text}"),
        }
    }
    assert!(diff(policy, &canonical).is_empty());
    if let Some(act) = act {
        let explanation = policy.explain(act);
        assert_eq!(explanation.allowed, policy.decide(act).allowed);
        assert_eq!(explanation.allowed, canonical.decide(act).allowed);
        assert!(explanation.summary().len() <= 640);
    }
}

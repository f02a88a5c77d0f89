//! The judgement against slower ones that are written otherwise.

use globset::{GlobBuilder, GlobMatcher};
use proptest::collection::vec;
use proptest::prelude::*;
use pyisolate_policy::{
    Access, Act, CleanPath, Document, Effect, FilesRight, Format, Host, HostPattern, Origin,
    PathPattern, Policy, Right, Rule, is_public,
};

use crate::strategies::{act, host, host_pattern, path, path_pattern, policy};

/// Whether the pattern matches, by trying every way.
fn fits(pattern: &[&str], path: &[&str]) -> bool {
    match pattern {
        [] => path.is_empty(),
        ["**", rest @ ..] => (0..=path.len()).any(|taken| fits(rest, &path[taken..])),
        [first, rest @ ..] => match path {
            [name, below @ ..] => fits_name(first, name) && fits(rest, below),
            [] => false,
        },
    }
}

fn fits_name(pattern: &str, name: &str) -> bool {
    let mut pattern_chars = pattern.chars();
    let mut name_chars = name.chars();
    match pattern_chars.next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = pattern_chars.as_str();
            name.char_indices().any(|(at, _)| fits_name(rest, &name[at..])) || fits_name(rest, "")
        }
        Some('[') => {
            let (class, rest) = pattern_chars.as_str().split_once(']').unwrap();
            let Some(c) = name_chars.next() else { return false };
            let is_in = match class.strip_prefix('!') {
                Some(class) if !class.is_empty() => !class.contains(c),
                _ => class.contains(c),
            };
            is_in && fits_name(rest, name_chars.as_str())
        }
        Some(wanted) => {
            let found = name_chars.next();
            (wanted == '?' && found.is_some() || found == Some(wanted))
                && fits_name(pattern_chars.as_str(), name_chars.as_str())
        }
    }
}

fn grants(pattern: &PathPattern, path: &CleanPath) -> bool {
    let parts = |path: &CleanPath| path.components().map(str::to_owned).collect::<Vec<_>>();
    let (root, path) = (parts(&pattern.root), parts(path));
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let Some(below) =
        path.strip_prefix(root.iter().map(String::as_str).collect::<Vec<_>>().as_slice())
    else {
        return false;
    };
    match &pattern.glob {
        None => true,
        Some(glob) => fits(&glob.split('/').collect::<Vec<_>>(), below),
    }
}

/// The path and every folder above it.
fn upwards(path: &CleanPath) -> Vec<CleanPath> {
    let parts: Vec<&str> = path.components().collect();
    (0..=parts.len())
        .map(|n| CleanPath::new(&format!("/{}", parts[..n].join("/"))).unwrap())
        .collect()
}

fn reaches(pattern: &HostPattern, host: &Host) -> bool {
    match pattern {
        HostPattern::Any => true,
        HostPattern::Exactly(one) => one == host,
        HostPattern::Below(parent) => match host {
            Host::Name(name) => name.ends_with(&format!(".{parent}")),
            Host::Address(_) => false,
        },
        HostPattern::Network(net) => match host {
            Host::Address(address) => {
                net.addr().is_ipv4() == address.is_ipv4()
                    && net.network() <= *address
                    && *address <= net.broadcast()
            }
            Host::Name(_) => false,
        },
    }
}

fn host_of(right: &Right) -> &HostPattern {
    match right {
        Right::Connect(right) => &right.host,
        Right::Http(right) => &right.host,
        Right::Resolve(pattern) => pattern,
        _ => &HostPattern::Any,
    }
}

fn rule(effect: Effect, right: Right) -> Rule {
    Rule { effect, right, origin: Origin::default() }
}

/// Without `[!a]`, which matches a slash there.
fn component_glob() -> impl Strategy<Value = String> {
    let parts = vec!["a", "b", "?", "[ab]", "*a", "*b"];
    let with_star = (vec(prop::sample::select(parts), 0..4), any::<bool>())
        .prop_map(|(parts, star)| parts.concat() + if star { "*" } else { "" });
    with_star.prop_filter("not empty", |glob| !glob.is_empty())
}

fn globset(pattern: &str) -> GlobMatcher {
    GlobBuilder::new(pattern).literal_separator(true).build().unwrap().compile_matcher()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 512,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn files(pattern in path_pattern(), path in path(), read: bool, write: bool) {
        let covered = grants(&pattern, &path);
        let denied = upwards(&path).iter().any(|above| grants(&pattern, above));
        let right = Right::Files(FilesRight { read, write, pattern });
        for (access, has) in [(Access::Read, read), (Access::Write, write)] {
            let act = Act::File { access, path: path.clone() };
            prop_assert_eq!(right.covers(&act), has && covered);
            prop_assert_eq!(right.denies(&act), has && denied);
        }
    }

    #[test]
    fn a_denial_below_a_folder_is_never_missed(pattern in path_pattern(), path in path()) {
        let right = Right::Files(FilesRight { read: true, write: true, pattern });
        let policy = Policy { rules: vec![rule(Effect::Deny, right.clone())], ..Policy::default() };
        if right.denies(&Act::File { access: Access::Write, path: path.clone() }) {
            for above in upwards(&path) {
                prop_assert!(policy.denial_below(&above, Access::Write).is_some(), "{}", above);
            }
        }
    }

    #[test]
    fn components_as_globset_has_them(
        globs in vec(component_glob(), 1..3),
        deep: bool,
        path in vec("[ab]{1,3}", 1..5),
    ) {
        let glob = globs.join(if deep { "/**/" } else { "/" });
        let path = path.join("/");
        let pattern: PathPattern = format!("/{glob}").parse().unwrap();
        prop_assume!(pattern.glob.is_some());
        let right = Right::Files(FilesRight { read: true, write: false, pattern });
        let act = Act::File {
            access: Access::Read,
            path: CleanPath::new(&format!("/{path}")).unwrap(),
        };
        prop_assert_eq!(right.covers(&act), globset(&glob).is_match(&path), "{} {}", glob, path);
    }

    #[test]
    fn hosts(pattern in host_pattern(), host in host()) {
        let right = Right::Resolve(pattern.clone());
        let act = Act::Resolve { host: host.clone() };
        let is_public = !matches!(&host, Host::Address(address) if !is_public(*address));
        let is_granted = reaches(&pattern, &host) && (is_public || pattern != HostPattern::Any);
        prop_assert_eq!(right.covers(&act), is_granted);
        prop_assert!(!reaches(&pattern, &host) || right.denies(&act));
    }

    #[test]
    fn denials_win_and_nothing_is_granted_by_itself(policy in policy(), act in act()) {
        let by = |effect| {
            policy.rules.iter().filter({
                let act = &act;
                move |rule| rule.effect == effect && rule.matches(act)
            })
        };
        let verdict = policy.decide(&act);
        let (denial, grant) = (by(Effect::Deny).next(), by(Effect::Allow).next_back());
        prop_assert_eq!(verdict.allowed, denial.is_none() && grant.is_some());
        let decides = denial.or(grant);
        prop_assert_eq!(verdict.rule.map(std::ptr::from_ref), decides.map(std::ptr::from_ref));
        // A right that covers an act as a grant covers it as a denial, apart from two that are
        // documented: resolving behind a connection, and using a secret somewhere else.
        for rule in &policy.rules {
            let exempt = matches!(act, Act::Resolve { .. } | Act::Secret { .. });
            prop_assert!(exempt || !rule.right.covers(&act) || rule.right.denies(&act));
        }
    }

    #[test]
    fn explain_agrees_and_its_grant_suffices(policy in policy(), act in act()) {
        let verdict = policy.decide(&act);
        let explanation = policy.explain(&act);
        prop_assert_eq!(explanation.allowed, verdict.allowed);
        prop_assert_eq!(explanation.rule.is_some(), verdict.rule.is_some());
        prop_assert!(explanation.summary().len() <= 620);
        prop_assert_eq!(explanation.summary().contains("not granted"), verdict.rule.is_none());
        let _ = explanation.to_string();
        prop_assert_eq!(explanation.grant_yaml.is_some(), verdict.rule.is_none());
        if let Some(yaml) = explanation.grant_yaml {
            let text = format!("version: 1\n{yaml}");
            let grant = Document::parse(&text, "", Format::Yaml).map_err(|error| {
                TestCaseError::fail(format!("{error}\n{text}"))
            })?;
            let mut wider = policy.clone();
            wider.extend(&grant.defaults);
            prop_assert!(wider.decide(&act).allowed, "{}\n{}", act, text);
        }
    }

    #[test]
    fn no_private_address_without_its_name(policy in policy(), act in act(), address in host()) {
        let Host::Address(address) = address else { return Ok(()) };
        let verdict = policy.decide(&act);
        let (true, Some(rule)) = (verdict.allowed, verdict.rule) else { return Ok(()) };
        if !policy.allows_address(&act, rule, address) {
            return Ok(());
        }
        let at_address = act.at_address(address).unwrap();
        let denied = |rule: &Rule| rule.effect == Effect::Deny && rule.matches(&at_address);
        prop_assert!(!policy.rules.iter().any(denied));
        if is_public(address) {
            return Ok(());
        }
        let named = policy.rules.iter().any(|rule| match &rule.right {
            Right::Connect(right) => right.private || right.host != HostPattern::Any,
            Right::Http(right) => right.private || right.host != HostPattern::Any,
            Right::Resolve(pattern) => *pattern != HostPattern::Any,
            _ => false,
        });
        prop_assert!(named);
    }

    #[test]
    fn an_address_that_is_asked_for_is_granted_as_one_that_a_name_leads_to(
        policy in policy(),
        act in act(),
    ) {
        let Some(Host::Address(address)) = act.host() else { return Ok(()) };
        let verdict = policy.decide(&act);
        if let (true, Some(rule)) = (verdict.allowed, verdict.rule) {
            prop_assert!(policy.allows_address(&act, rule, *address), "{}", act);
        }
        prop_assert_eq!(policy.explain(&act).address.is_some(), {
            let reached = |rule: &Rule| match (&rule.right, &act) {
                _ if rule.effect == Effect::Deny => false,
                (Right::Connect(right), Act::Connect { port, .. }) => {
                    reaches(&right.host, act.host().unwrap()) && right.ports.contains(port)
                }
                (Right::Resolve(pattern), Act::Resolve { host }) => reaches(pattern, host),
                _ => rule.right.covers(&act.at_address([8, 8, 8, 8].into()).unwrap())
                    && reaches(host_of(&rule.right), act.host().unwrap()),
            };
            verdict.rule.is_none() && policy.rules.iter().any(reached)
        });
    }

    #[test]
    fn a_difference_tells_of_every_act(old in policy(), new in policy(), act in act()) {
        let difference = pyisolate_policy::diff(&old, &new);
        match (old.decide(&act).allowed, new.decide(&act).allowed) {
            (false, true) => prop_assert!(!difference.allowed.is_empty(), "{}", act),
            (true, false) => prop_assert!(!difference.denied.is_empty(), "{}", act),
            _ => {}
        }
        prop_assert!(pyisolate_policy::diff(&old, &old).is_empty());
        prop_assert!(pyisolate_policy::diff(&old, &old.canonical()).is_empty());
    }
}

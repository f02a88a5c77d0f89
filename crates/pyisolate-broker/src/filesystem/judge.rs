//! What the policy says to a path, and below which root it then lies. No I/O.

use pyisolate_policy::{
    Access, Act, CleanPath, Effect, FilesRight, Origin, PathPattern, Policy, Right, Rule,
};

use crate::outcome::{Denied, Refusal};
use crate::session::Session;

/// What a path is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// What is in a file.
    Read,
    /// Changing it, its name or its existence.
    Write,
    /// Both.
    Both,
    /// Listing, and what `stat` tells: reading, or being a folder that leads to what can be read.
    See,
}

impl Use {
    pub(super) fn accesses(self) -> &'static [Access] {
        match self {
            Self::Read | Self::See => &[Access::Read],
            Self::Write => &[Access::Write],
            Self::Both => &[Access::Read, Access::Write],
        }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    /// The root of the grant.
    pub(super) root: CleanPath,
    /// Whether the path is only on the way to what is granted, and so has to be a folder.
    pub(super) on_way: bool,
}

/// Asks the policy that is in force now.
pub(super) fn judge(session: &Session, usage: Use, path: &CleanPath) -> Result<Judged, Refusal> {
    loop {
        let policy = session.policy();
        match decide(&policy, usage, path) {
            Ok(judged) => return Ok(judged),
            // If another policy came meanwhile that allows it, that one is asked for its root.
            Err(act) => session.check(&act).map_err(|refusal| match refusal {
                Refusal::Denied(denied) if usage == Use::Both => both_ways(*denied),
                refusal => refusal,
            })?,
        }
    }
}

/// Asks for a change of an entry of its folder: to move or remove it. A grant of the entry alone
/// would not do, as what a rule names itself is neither moved nor removed; so the folder is named.
pub(super) fn judge_entry(session: &Session, path: &CleanPath) -> Result<(), Refusal> {
    let folder = |mut denied: Denied| {
        let parent = path.as_str().rsplit_once('/').map_or("", |(parent, _)| parent);
        let right = denied.act.as_ref().map(Act::smallest_right);
        if let (true, Some(Right::Files(right))) = (denied.grant.is_some(), right)
            && let Ok(root) = CleanPath::new(parent)
        {
            let pattern = PathPattern { root, glob: None };
            let right = Right::Files(FilesRight { pattern, ..right });
            denied = with_grant(denied, "to move or remove it", right);
        }
        Refusal::Denied(Box::new(denied))
    };
    judge(session, Use::Write, path).map(drop).map_err(|refusal| match refusal {
        Refusal::Denied(denied) => folder(*denied),
        refusal => refusal,
    })
}

/// A refusal that says what would allow it, where that is more than the act by itself.
fn with_grant(denied: Denied, wanted: &str, right: Right) -> Denied {
    let python = right.to_python();
    let grant = Rule { effect: Effect::Allow, right, origin: Origin::default() }.to_string();
    let target = denied.act.as_ref().map_or_else(String::new, ToString::to_string);
    let reason = format!(
        "filesystem: {target} {wanted} is not granted: {}. To allow it, add '{grant}' or grant \
         {python}.",
        denied.rule
    );
    Denied { reason, grant: Some(grant), ..denied }
}

/// The refusal of reading and writing at once, with a grant of both, if it is a grant that is wanted.
fn both_ways(mut denied: Denied) -> Refusal {
    let right = denied.act.as_ref().map(Act::smallest_right);
    if let (true, Some(Right::Files(right))) = (denied.grant.is_some(), right) {
        let right = Right::Files(FilesRight { read: true, write: true, ..right });
        denied = with_grant(denied, "and to write it", right);
    }
    Refusal::Denied(Box::new(denied))
}

/// The same, of one policy; the act that is not allowed if there is one.
fn decide(policy: &Policy, usage: Use, path: &CleanPath) -> Result<Judged, Act> {
    for &access in usage.accesses() {
        let act = Act::File { access, path: path.clone() };
        let verdict = policy.decide(&act);
        if verdict.allowed {
            continue;
        }
        if usage == Use::See
            && verdict.rule.is_none()
            && let Some(root) = root_on_way(policy, path)
        {
            return Ok(Judged { root, on_way: true });
        }
        return Err(act);
    }
    let covers = |rule: &&Rule| {
        let act = |access: &Access| Act::File { access: *access, path: path.clone() };
        rule.effect == Effect::Allow
            && usage.accesses().iter().any(|access| rule.right.covers(&act(access)))
    };
    // The deepest root is what the host said in most detail.
    let roots = policy.rules.iter().filter(covers).filter_map(files).map(|right| &right.pattern);
    let root = roots.map(|pattern| &pattern.root).max_by_key(|root| root.as_str().len());
    match root {
        Some(root) => Ok(Judged { root: root.clone(), on_way: false }),
        None => Err(Act::File { access: Access::Read, path: path.clone() }),
    }
}

fn files(rule: &Rule) -> Option<&FilesRight> {
    match &rule.right {
        Right::Files(right) => Some(right),
        _ => None,
    }
}

/// The rules of a kind that speak of files.
pub(super) fn files_rules(policy: &Policy, effect: Effect) -> impl Iterator<Item = &FilesRight> {
    policy.rules.iter().filter(move |rule| rule.effect == effect).filter_map(files)
}

/// The roots below which the policy lets the cell change something.
pub(super) fn written_roots(policy: &Policy) -> impl Iterator<Item = &CleanPath> {
    files_rules(policy, Effect::Allow).filter(|right| right.write).map(|right| &right.pattern.root)
}

/// The root of a grant with wildcards that could match below `path`, if `path` is the root or lies
/// between it and such a match.
fn root_on_way(policy: &Policy, path: &CleanPath) -> Option<CleanPath> {
    let rule = leading(policy, path)?;
    files(rule).map(|right| right.pattern.root.clone())
}

/// The grant with wildcards that `path` leads to: that with the deepest root.
pub(crate) fn leading<'p>(policy: &'p Policy, path: &CleanPath) -> Option<&'p Rule> {
    let leads = |rule: &&Rule| {
        let right = files(rule).filter(|right| rule.effect == Effect::Allow && right.read);
        right.is_some_and(|right| {
            right.pattern.glob.as_ref().is_some_and(|glob| leads_on(right, glob, path))
        })
    };
    let depth = |rule: &&Rule| files(rule).map_or(0, |right| right.pattern.root.as_str().len());
    policy.rules.iter().filter(leads).max_by_key(depth)
}

/// Whether `path` matches the first components of a glob, but not all of them: asked of the
/// policy's own matching, with a shorter glob.
fn leads_on(right: &FilesRight, glob: &str, path: &CleanPath) -> bool {
    if path.below(&right.pattern.root) == Some("") {
        return true;
    }
    let act = Act::File { access: Access::Read, path: path.clone() };
    glob.match_indices('/').any(|(end, _)| {
        let pattern =
            PathPattern { root: right.pattern.root.clone(), glob: Some(glob[..end].to_owned()) };
        Right::Files(FilesRight { read: true, write: false, pattern }).covers(&act)
    })
}

/// Whether a listing shows a path. `folder` says whether it is one.
pub(super) fn is_shown(policy: &Policy, path: &CleanPath, folder: bool) -> bool {
    decide(policy, Use::See, path).is_ok_and(|judged| folder || !judged.on_way)
}

/// Whether a denial speaks of a path.
pub(super) fn is_denied(policy: &Policy, usage: Use, path: &CleanPath) -> bool {
    usage.accesses().iter().any(|&access| {
        let verdict = policy.decide(&Act::File { access, path: path.clone() });
        !verdict.allowed && verdict.rule.is_some()
    })
}

/// Whether a path is the root of a rule.
pub(super) fn is_root(policy: &Policy, path: &CleanPath) -> bool {
    policy.rules.iter().filter_map(files).any(|right| right.pattern.root == *path)
}

/// Why something that may be changed at `from` and at `to` may still not be moved, if so.
///
/// Moving takes along what is in a folder, and what was written cannot become readable by it. So
/// nothing may be readable or writable at `to` that was not at `from`, and no rule may begin, or a
/// denial hold, inside either.
pub(super) fn against_move(
    policy: &Policy,
    from: &CleanPath,
    to: &CleanPath,
    folder: bool,
) -> Option<&'static str> {
    if is_root(policy, from) || is_root(policy, to) {
        return Some("the root of a rule is neither moved nor replaced");
    }
    let allowed =
        |access, path: &CleanPath| policy.decide(&Act::File { access, path: path.clone() }).allowed;
    if allowed(Access::Read, to) && !allowed(Access::Read, from) {
        return Some("it cannot be read where it is, and could be where it goes");
    }
    if !folder {
        return None;
    }
    let roots = || policy.rules.iter().filter_map(files).map(|right| &right.pattern.root);
    let inside = |folder: &CleanPath| {
        roots().any(|root| root.below(folder).is_some_and(|rest| !rest.is_empty()))
    };
    if inside(from) || inside(to) {
        return Some("another rule's root lies inside the folder");
    }
    if let Some(why) = denials_against_move(policy, from, to, folder) {
        return Some(why);
    }
    let whole = |access: Access, path: &CleanPath| {
        files_rules(policy, Effect::Allow).any(|right| {
            let has = if access == Access::Read { right.read } else { right.write };
            let pattern = &right.pattern;
            let all = pattern.glob.as_deref().is_none_or(|glob| glob == "**");
            has && all && path.below(&pattern.root).is_some()
        })
    };
    if !whole(Access::Write, from) || !whole(Access::Write, to) {
        return Some("moving a folder needs a grant of all that is in it, without wildcards");
    }
    let some_read = |path: &CleanPath| {
        files_rules(policy, Effect::Allow)
            .any(|right| right.read && path.below(&right.pattern.root).is_some())
    };
    if !whole(Access::Read, from) && some_read(to) {
        return Some("not all of the folder can be read, and more of it could be where it goes");
    }
    None
}

/// The part of it that denials have in it.
pub(super) fn denials_against_move(
    policy: &Policy,
    from: &CleanPath,
    to: &CleanPath,
    folder: bool,
) -> Option<&'static str> {
    let holds = |path| {
        [Access::Read, Access::Write]
            .into_iter()
            .any(|access| policy.denial_below(path, access).is_some())
    };
    (folder && (holds(from) || holds(to)))
        .then_some("a denial could hold for something inside the folder")
}

#[cfg(test)]
mod tests {
    use pyisolate_policy::{LimitChanges, Origin};

    use super::*;

    fn policy(rules: &[(&str, &str)]) -> Policy {
        let rules = rules.iter().map(|(what, pattern)| Rule {
            effect: if what.contains('!') { Effect::Deny } else { Effect::Allow },
            right: Right::Files(FilesRight {
                read: what.contains('r'),
                write: what.contains('w'),
                pattern: pattern.parse().unwrap(),
            }),
            origin: Origin::default(),
        });
        Policy { rules: rules.collect(), limits: LimitChanges::default() }
    }

    fn path(text: &str) -> CleanPath {
        CleanPath::new(text).unwrap()
    }

    #[test]
    fn the_deepest_root_is_taken() {
        let policy = policy(&[("r", "/a"), ("rw", "/a/b/c"), ("r", "/a/b"), ("!r", "/a/b/c/d")]);
        let root = |usage, at| decide(&policy, usage, &path(at)).map(|judged| judged.root);
        assert_eq!(root(Use::Read, "/a/x"), Ok(path("/a")));
        assert_eq!(root(Use::Both, "/a/b/c/x"), Ok(path("/a/b/c")));
        assert!(root(Use::Both, "/a/b/x").is_err());
        assert!(root(Use::See, "/a/b/c/d/e").is_err());
    }

    #[test]
    fn folders_on_the_way_to_a_match_are_seen() {
        let policy = policy(&[("r", "/a/*/x/**/*.csv"), ("!r", "/a/no")]);
        let seen = |at: &str| decide(&policy, Use::See, &path(at)).map(|judged| judged.on_way).ok();
        for at in ["/a", "/a/1", "/a/1/x", "/a/1/x/2/3"] {
            assert_eq!(seen(at), Some(true), "{at}");
            assert!(is_shown(&policy, &path(at), true), "{at}");
            assert!(!is_shown(&policy, &path(at), false), "{at}");
        }
        assert_eq!(seen("/a/1/x/2/3.csv"), Some(false));
        for at in ["/", "/b", "/a/1/y", "/a/no", "/a/no/x"] {
            assert_eq!(seen(at), None, "{at}");
        }
        assert!(decide(&policy, Use::Read, &path("/a")).is_err());
    }

    #[test]
    fn moves() {
        let check = |rules: &[(&str, &str)], from: &str, to: &str, folder| {
            against_move(&policy(rules), &path(from), &path(to), folder).is_none()
        };
        let plain: &[_] = &[("rw", "/d")];
        assert!(check(plain, "/d/a", "/d/b", true) && check(plain, "/d/a", "/d/b", false));
        assert!(!check(plain, "/d", "/d/b", true));
        // A denial inside, by its root or by a wildcard.
        let denied: &[_] = &[("rw", "/d"), ("!r", "/d/a/key"), ("!r", "/d/x/**/*.key")];
        assert!(!check(denied, "/d/a", "/d/b", true));
        assert!(!check(denied, "/d/x/y", "/d/b", true));
        assert!(!check(denied, "/d/b", "/d/x/y", true));
        assert!(check(denied, "/d/b", "/d/c", true));
        assert!(!check(denied, "/d/a/key", "/d/b", false), "unreadable, then readable");
        assert!(!check(&[("rw", "/d"), ("r", "/d/a/in")], "/d/a", "/d/b", true));
        // What may only be written does not become readable.
        let one_way: &[_] = &[("w", "/in"), ("rw", "/out"), ("w", "/in2"), ("r", "/in2/*/x")];
        for folder in [true, false] {
            assert!(!check(one_way, "/in/a", "/out/a", folder));
            assert!(check(one_way, "/out/a", "/in/a", folder));
        }
        assert!(!check(one_way, "/in/a", "/in2/a", true));
        // Wildcards grant the folder, not what is in it.
        assert!(!check(&[("rw", "/d/*")], "/d/a", "/d/b", true));
        assert!(check(&[("rw", "/d/*")], "/d/a", "/d/b", false));
    }
}

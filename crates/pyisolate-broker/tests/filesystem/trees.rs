//! Random trees with random links under random policies. Every file holds its own path, so that
//! what a cell reads says where it came from; what it changes is found by looking at all files again.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use pyisolate_abi::pickle::Value;
use pyisolate_policy::{Access, Act, CleanPath, PathPattern, Policy};

use crate::setup::*;

#[derive(Clone, Debug)]
enum Entry {
    Folder(Vec<&'static str>),
    File(Vec<&'static str>),
    /// Where it lies, how many folders up it leads, or to the top, and down again.
    Link(Vec<&'static str>, Option<usize>, Vec<&'static str>),
}

fn path(parts: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), parts)
}

fn entry() -> impl Strategy<Value = Entry> {
    let link = (path(1..=3), prop::option::of(0_usize..3), path(0..=3));
    prop_oneof![
        path(1..=3).prop_map(Entry::Folder),
        path(1..=4).prop_map(Entry::File),
        path(1..=4).prop_map(Entry::File),
        link.prop_map(|(at, up, down)| Entry::Link(at, up, down)),
    ]
}

fn rule() -> impl Strategy<Value = (String, String)> {
    let what = prop::sample::select(vec!["r", "rw", "rw", "w", "!r", "!rw", "!w"]);
    let part = prop::sample::select(vec!["a", "b", "c", "a", "b", "*", "?", "**", "[ab]"]);
    (what, prop::collection::vec(part, 0..=3)).prop_map(|(what, parts)| {
        let pattern = format!("in/{}", parts.join("/"));
        (what.to_owned(), pattern)
    })
}

/// Makes what can be made without going through a link.
fn make(top: &Path, entries: &[Entry]) {
    for entry in entries {
        let (Entry::Folder(at) | Entry::File(at) | Entry::Link(at, ..)) = entry;
        let mut folder = top.to_owned();
        let mut free = true;
        for part in &at[..at.len() - 1] {
            folder.push(part);
            let _ = fs::create_dir(&folder);
            free &= fs::symlink_metadata(&folder).is_ok_and(|there| there.is_dir());
            if !free {
                break;
            }
        }
        let here = folder.join(at[at.len() - 1]);
        if !free || fs::symlink_metadata(&here).is_ok() {
            continue;
        }
        match entry {
            Entry::Folder(_) => fs::create_dir(here).unwrap(),
            Entry::File(_) => fs::write(&here, here.to_str().unwrap()).unwrap(),
            Entry::Link(_, None, down) => symlink(top.join(down.join("/")), here).unwrap(),
            Entry::Link(_, Some(up), down) => {
                symlink(format!("./{}{}", "../".repeat(*up), down.join("/")), here).unwrap();
            }
        }
    }
}

/// All files, by where they really lie.
fn files(folder: &Path, all: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files(&entry.path(), all);
        } else if kind.is_file() {
            all.insert(entry.path(), fs::read(entry.path()).unwrap());
        }
    }
}

fn all_files(top: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    files(top, &mut all);
    all
}

/// The rules to whose roots no link leads: those would be the host's word, which is another matter.
fn without_links<'r>(place: &Place, rules: &'r [(String, String)]) -> Vec<(&'r str, &'r str)> {
    let is_plain = |text: &str| {
        let pattern: PathPattern = place.text(text).parse().unwrap();
        let root = Path::new(pattern.root.as_str());
        !root.ancestors().any(Path::is_symlink)
    };
    rules.iter().map(|(what, text)| (&**what, &**text)).filter(|(_, text)| is_plain(text)).collect()
}

fn allows(policy: &Policy, access: Access, path: &Path) -> bool {
    let path = CleanPath::new(path.to_str().unwrap()).unwrap();
    policy.decide(&Act::File { access, path }).allowed
}

/// Where the kernel would end up, walked by hand; `None` if it ends nowhere.
fn real(path: &Path) -> Option<PathBuf> {
    let mut done = PathBuf::from("/");
    let parts = |path: &Path| -> Vec<PathBuf> {
        let all = path.iter().filter(|part| *part != "/" && *part != ".");
        all.rev().map(PathBuf::from).collect()
    };
    let mut todo = parts(path);
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part == Path::new("..") {
            done.pop();
            continue;
        }
        let here = done.join(&part);
        let there = fs::symlink_metadata(&here).ok()?;
        if !there.is_symlink() {
            done = here;
            continue;
        }
        links += 1;
        if links > 40 {
            return None;
        }
        let target = fs::read_link(here).ok()?;
        if target.is_absolute() {
            done = PathBuf::from("/");
        }
        todo.extend(parts(&target));
    }
    Some(done)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn only_what_is_allowed_is_read_or_changed(
        entries in prop::collection::vec(entry(), 1..20),
        rules in prop::collection::vec(rule(), 1..5),
        asked in prop::collection::vec(path(1..=4), 1..20),
    ) {
        let place = Place::new();
        let top = place.at("in");
        fs::remove_file(top.join("public")).unwrap();
        make(&top, &entries);
        let rules = without_links(&place, &rules);
        let policy = place.policy(&rules);
        let cell = place.cell(&rules);
        for asked in &asked {
            let asked = top.join(asked.join("/"));
            let real = real(&asked);
            let answer = cell.read(&asked);
            if let Ok(bytes) = &answer {
                let from = PathBuf::from(String::from_utf8(bytes.clone()).unwrap());
                prop_assert!(allows(&policy, Access::Read, &from), "{:?} gave {:?}", asked, from);
                prop_assert_eq!(Some(&from), real.as_ref(), "asked for {:?}", asked);
            }
            // And what needs no link is given.
            if real.as_ref() == Some(&asked) && asked.is_file()
                && allows(&policy, Access::Read, &asked)
            {
                prop_assert!(answer.is_ok(), "{:?}: {:?}", asked, answer);
            }
            if let Ok(listed) = cell.on("list", &asked) {
                let Value::List(entries) = listed.value else { panic!("no list") };
                let folder = real.unwrap();
                for entry in entries {
                    let Value::List(parts) = entry else { panic!("no entry") };
                    let [Value::Text(name), Value::Text(kind), _] = &parts[..] else { panic!() };
                    let shown = allows(&policy, Access::Read, &folder.join(name));
                    prop_assert!(shown || kind == "dir", "{:?} showed {}", asked, name);
                }
            }
        }
        let before = all_files(place.at("").as_path());
        for (number, asked) in asked.iter().enumerate() {
            let asked = top.join(asked.join("/"));
            let _ = match number % 4 {
                0 => cell.write(&asked, b"changed"),
                1 => cell.append(&asked, b"changed"),
                2 => cell.open(&asked, "w"),
                _ => cell.on("remove", &asked),
            };
        }
        let after = all_files(place.at("").as_path());
        for path in before.keys().chain(after.keys()) {
            if before.get(path) != after.get(path) {
                prop_assert!(allows(&policy, Access::Write, path), "{:?} changed", path);
            }
        }
    }

    /// Nothing becomes readable or writable by being moved, whatever is moved where.
    #[test]
    fn moving_gives_no_right(
        entries in prop::collection::vec(entry(), 1..20),
        rules in prop::collection::vec(rule(), 1..5),
        moves in prop::collection::vec((path(1..=3), path(1..=3)), 1..20),
    ) {
        let place = Place::new();
        let top = place.at("in");
        fs::remove_file(top.join("public")).unwrap();
        make(&top, &entries);
        let rules = without_links(&place, &rules);
        let policy = place.policy(&rules);
        let cell = place.cell(&rules);
        for (from, to) in &moves {
            let _ = cell.rename(top.join(from.join("/")), top.join(to.join("/")));
        }
        // Every file still says where it was made.
        for (path, bytes) in all_files(&top) {
            let made = PathBuf::from(String::from_utf8(bytes).unwrap());
            for access in [Access::Read, Access::Write] {
                prop_assert!(
                    allows(&policy, access, &made) || !allows(&policy, access, &path),
                    "{:?} is at {:?} and allows to {:?}", made, path, access
                );
            }
            prop_assert!(made == path || allows(&policy, Access::Write, &path));
        }
    }
}

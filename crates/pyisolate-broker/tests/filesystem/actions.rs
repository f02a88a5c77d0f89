//! What each action does when it is allowed, and the errors that the kernel has for it.

use std::fs;

use pyisolate_abi::pickle::Value;
use pyisolate_broker::Refusal;

use crate::setup::*;

#[test]
fn files_are_read_written_and_appended_to() {
    let place = Place::new();
    let cell = place.cell(&[("rw", "in")]);
    let file = place.at("in/file");
    assert_eq!(errno(cell.read(&file)), ENOENT);
    assert_eq!(cell.write(&file, b"0123456789").unwrap().value, Value::Int(10));
    assert_eq!(cell.append(&file, b"ab").unwrap().value, Value::Int(12));
    assert_eq!(cell.read(&file).unwrap(), b"0123456789ab");
    let part = |offset, length| {
        let offset = ("offset", Value::Int(offset));
        bytes(cell.ask("read", &[("path", text(&file)), offset, ("length", length)]).unwrap())
    };
    assert_eq!(part(4, Value::Int(3)), b"456");
    assert_eq!(part(10, Value::None), b"ab");
    assert_eq!(part(0, Value::Int(i64::MAX)), b"0123456789ab");
    assert_eq!(part(i64::MAX, Value::Int(9)), b"");
    assert_eq!(part(3, Value::Int(0)), b"");
    cell.write(&file, b"less").unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"less");
    cell.ask("truncate", &[("path", text(&file)), ("size", Value::Int(6))]).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"less\0\0");
    cell.on("remove", &file).unwrap();
    assert_eq!(errno(cell.on("remove", &file)), ENOENT);
}

#[test]
fn what_is_created_is_no_program() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let cell = place.cell(&[("rw", "in")]);
    cell.write(place.at("in/file"), b"#!/bin/sh\n").unwrap();
    cell.on("mkdir", place.at("in/folder")).unwrap();
    let mode = |rest: &str| fs::metadata(place.at(rest)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("in/file") & !0o644, 0);
    assert_eq!(mode("in/folder") & !0o755, 0);
}

#[test]
fn an_answer_has_an_end() {
    let place = Place::new();
    let cell = place.cell(&[("rw", "in")]);
    let file = place.at("in/large");
    fs::File::create(&file).unwrap().set_len((8 << 20) + 1).unwrap();
    assert_eq!(errno(cell.read(&file)), EFBIG);
    let length = ("length", Value::Int(1 << 40));
    let most = bytes(cell.ask("read", &[("path", text(&file)), length]).unwrap());
    assert_eq!(most.len(), 8 << 20);
    let rest =
        bytes(cell.ask("read", &[("path", text(&file)), ("offset", Value::Int(1))]).unwrap());
    assert_eq!(rest.len(), 8 << 20);
}

#[test]
fn folders_are_made_and_removed() {
    let place = Place::new();
    let cell = place.cell(&[("rw", "in")]);
    let deep = place.at("in/a/b/c");
    let make = |parents, exist_ok| {
        let parents = ("parents", Value::Bool(parents));
        cell.ask("mkdir", &[("path", text(&deep)), parents, ("exist_ok", Value::Bool(exist_ok))])
    };
    assert_eq!(errno(make(false, false)), ENOENT);
    make(true, false).unwrap();
    assert!(deep.is_dir());
    assert_eq!(errno(make(true, false)), EEXIST);
    make(false, true).unwrap();
    let remove = |rest: &str, directory| {
        let directory = ("directory", Value::Bool(directory));
        cell.ask("remove", &[("path", text(place.at(rest))), directory])
    };
    assert_eq!(errno(remove("in/a", true)), ENOTEMPTY);
    assert_eq!(errno(remove("in/a/b/c", false)), EISDIR);
    assert_eq!(errno(remove("in/public", true)), ENOTDIR);
    remove("in/a/b/c", true).unwrap();
    assert!(!deep.exists());
    // A file in the way.
    let file = ("path", text(place.at("in/public")));
    assert_eq!(errno(cell.ask("mkdir", &[file, ("exist_ok", Value::Bool(true))])), EEXIST);
    let below = ("path", text(place.at("in/public/x")));
    assert_eq!(errno(cell.ask("mkdir", &[below, ("parents", Value::Bool(true))])), ENOTDIR);
}

#[test]
fn parents_are_not_made_outside() {
    let place = Place::new();
    let cell = place.cell(&[("rw", "new/root")]);
    let path = ("path", text(place.at("new/root/a")));
    by_policy(cell.ask("mkdir", &[path, ("parents", Value::Bool(true))]));
    assert!(!place.at("new").exists());
}

#[test]
fn a_root_may_be_a_file_or_not_be_there_yet() {
    let place = Place::new();
    let cell = place.cell(&[("r", "in/public"), ("rw", "report"), ("rw", "folder")]);
    assert_eq!(cell.read(place.at("in/public")).unwrap(), PUBLIC);
    assert_eq!(errno(cell.read(place.at("in/public/x"))), ENOTDIR);
    assert_eq!(errno(cell.read(place.at("report"))), ENOENT);
    assert_eq!(errno(cell.write(place.at("report/x"), b"")), ENOENT);
    assert_eq!(cell.on("exists", place.at("report")).unwrap().value, Value::Bool(false));
    cell.write(place.at("report"), b"done").unwrap();
    assert_eq!(fs::read(place.at("report")).unwrap(), b"done");
    cell.on("mkdir", place.at("folder")).unwrap();
    cell.write(place.at("folder/x"), b"x").unwrap();
    for root in ["report", "folder"] {
        by_broker(cell.on("remove", place.at(root)));
    }
    let directory = ("directory", Value::Bool(true));
    by_broker(cell.ask("remove", &[("path", text(place.at("folder"))), directory]));
}

#[test]
fn stat_tells_no_owner() {
    let place = Place::new();
    let cell = place.cell(&[("r", "in")]);
    let told = cell.on("stat", place.at("in/public")).unwrap().value;
    let Value::Dict(entries) = &told else { panic!("{told:?}") };
    let names: Vec<_> = entries.iter().map(|(name, _)| name.clone()).collect();
    let expected = ["mode", "ino", "dev", "nlink", "size", "atime_ns", "mtime_ns", "ctime_ns"];
    assert_eq!(names, expected.map(|name| Value::Text(name.to_owned())));
    assert_eq!(number(&told, "size"), 6);
    assert_eq!(number(&told, "mode") & 0o170_000, 0o100_000);
    assert!(number(&told, "mtime_ns") > 1_000_000_000_000_000_000);
}

#[test]
fn what_is_not_granted_is_denied_whether_it_is_there_or_not() {
    let place = Place::new();
    let cell = place.cell(&[("r", "in")]);
    for path in ["out/secret", "out/none", "inside", "in/../out/secret", "."] {
        for action in ["read", "open", "list", "stat", "exists"] {
            let reason = by_policy(cell.on(action, place.text(path)));
            assert!(reason.contains(place.at("").to_str().unwrap().trim_end_matches('/')));
        }
    }
    // The control.
    assert_eq!(fs::read(place.at("in/../out/secret")).unwrap(), SECRET);
    by_policy(cell.write(place.at("in/public"), b"x"));
    by_policy(cell.open(place.at("in/public"), "r+"));
    by_policy(cell.on("remove", place.at("in/public")));
    by_policy(cell.on("mkdir", place.at("in/x")));
    assert_eq!(fs::read(place.at("in/public")).unwrap(), PUBLIC);
}

#[test]
fn a_denied_write_changes_nothing() {
    let place = Place::new();
    fs::write(place.at("in/kept"), b"kept").unwrap();
    let cell = place.cell(&[("rw", "in"), ("!w", "in/kept"), ("!rw", "in/none")]);
    for mode in ["w", "a", "r+", "w+"] {
        by_policy(cell.open(place.at("in/kept"), mode));
    }
    by_policy(cell.write(place.at("in/kept"), b"new"));
    by_policy(cell.rename(place.at("in/public"), place.at("in/kept")));
    by_policy(cell.write(place.at("in/none"), b"new"));
    assert_eq!(fs::read(place.at("in/kept")).unwrap(), b"kept");
    assert!(!place.at("in/none").exists());
}

#[test]
fn long_names_and_paths_are_errors_of_the_guest() {
    let place = Place::new();
    let cell = place.cell(&[("rw", "in")]);
    assert_eq!(errno(cell.read(place.at(&format!("in/{}", "n".repeat(256))))), ENAMETOOLONG);
    let longest = place.at(&format!("in/{}", "n".repeat(255)));
    cell.write(&longest, b"x").unwrap();
    assert_eq!(cell.read(&longest).unwrap(), b"x");
    let root = place.text("in");
    let path = |bytes: usize| {
        let mut path = root.clone();
        while path.len() < bytes {
            path.push('/');
            path.extend(std::iter::repeat_n('d', (bytes - path.len()).min(200)));
        }
        path
    };
    assert_eq!(errno(cell.read(path(4096))), ENOENT);
    assert_eq!(errno(cell.read(path(4098))), ENAMETOOLONG);
    let nul = cell.read(format!("{root}/a\0b"));
    match nul {
        Err(Refusal::Failed(failure)) => {
            assert_eq!((&*failure.kind, &*failure.message), ("ValueError", "embedded null byte"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn deep_trees() {
    let place = Place::new();
    let cell = place.cell(&[("rw", "in")]);
    let deep = place.text(&format!("in{}", "/d".repeat(1000)));
    let parents = ("parents", Value::Bool(true));
    cell.ask("mkdir", &[("path", text(&deep)), parents]).unwrap();
    cell.write(format!("{deep}/file"), b"deep").unwrap();
    std::os::unix::fs::symlink(&deep, place.at("in/link")).unwrap();
    assert_eq!(cell.read(place.at("in/link/file")).unwrap(), b"deep");
}

#[test]
fn a_cell_that_ended_gets_nothing_done() {
    let place = Place::new();
    let cell = place.cell(&[("rw", "in")]);
    cell.0.end();
    assert!(matches!(cell.write(place.at("in/x"), b"x"), Err(Refusal::Cancelled)));
    assert!(!place.at("in/x").exists());
}

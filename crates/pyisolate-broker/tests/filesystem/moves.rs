//! Renaming.

use std::fs;

use pyisolate_abi::pickle::Value;

use crate::setup::*;

#[test]
fn files_and_folders_are_renamed() {
    let place = Place::new();
    fs::create_dir_all(place.at("in/a/b")).unwrap();
    let cell = place.cell(&[("rw", "in")]);
    cell.rename(place.at("in/public"), place.at("in/a/moved")).unwrap();
    assert_eq!(fs::read(place.at("in/a/moved")).unwrap(), PUBLIC);
    cell.rename(place.at("in/a"), place.at("in/c")).unwrap();
    assert!(place.at("in/c/b").is_dir());
    fs::write(place.at("in/x"), b"x").unwrap();
    let keep = |path: &str, to: &str| {
        let paths = [("path", text(place.at(path))), ("to", text(place.at(to)))];
        cell.ask("rename", &[&paths[..], &[("replace", Value::Bool(false))]].concat())
    };
    assert_eq!(errno(keep("in/x", "in/c/moved")), EEXIST);
    keep("in/x", "in/y").unwrap();
    cell.rename(place.at("in/y"), place.at("in/c/moved")).unwrap();
    assert_eq!(fs::read(place.at("in/c/moved")).unwrap(), b"x");
    assert_eq!(errno(cell.rename(place.at("in/none"), place.at("in/n"))), ENOENT);
    assert_eq!(errno(cell.rename(place.at("in/c/moved"), place.at("in/c/b"))), EISDIR);
    by_policy(cell.rename(place.at("in/c"), place.at("out/c")));
    by_policy(cell.rename(place.at("out/secret"), place.at("in/secret")));
    by_broker(cell.rename(place.at("in"), place.at("in/itself")));
}

/// What a denial covers cannot be moved to where it does not.
#[test]
fn denials_are_not_moved_away() {
    let place = Place::new();
    fs::create_dir_all(place.at("in/keys/deep")).unwrap();
    fs::write(place.at("in/keys/deep/a.key"), SECRET).unwrap();
    let below: &[_] = &[("rw", "in"), ("!r", "in/keys/deep/a.key")];
    let wild: &[_] = &[("rw", "in"), ("!r", "in/**/*.key")];
    let all: &[_] = &[("rw", "in"), ("!r", "in/keys/**")];
    let other: &[_] = &[("rw", "in"), ("!w", "in/keys/deep/*")];
    for rules in [below, wild, all, other] {
        let cell = place.cell(rules);
        for from in ["in/keys", "in/keys/deep"] {
            by_broker(cell.rename(place.at(from), place.at("in/free")));
        }
    }
    for rules in [below, wild, all] {
        let cell = place.cell(rules);
        let from = place.at("in/keys/deep/a.key");
        by_broker(cell.rename(from, place.at("in/free")));
    }
    // The control: a cell with no denial moves it, and reads it.
    let cell = place.cell(&[("rw", "in")]);
    cell.rename(place.at("in/keys"), place.at("in/free")).unwrap();
    assert_eq!(cell.read(place.at("in/free/deep/a.key")).unwrap(), SECRET);
}

#[test]
fn what_may_only_be_written_is_not_moved_to_where_it_can_be_read() {
    let place = Place::new();
    fs::create_dir_all(place.at("drop/folder")).unwrap();
    fs::write(place.at("drop/file"), SECRET).unwrap();
    fs::write(place.at("drop/folder/file"), SECRET).unwrap();
    let cell = place.cell(&[("w", "drop"), ("rw", "in")]);
    by_broker(cell.rename(place.at("drop/file"), place.at("in/file")));
    by_broker(cell.rename(place.at("drop/folder"), place.at("in/folder")));
    cell.rename(place.at("in/public"), place.at("drop/public")).unwrap();
    by_policy(cell.read(place.at("drop/public")));
}

//! What a listing shows.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use pyisolate_abi::pickle::Value;

use crate::setup::*;

#[test]
fn kinds_are_told_and_denied_names_are_not() {
    let place = Place::new();
    fs::create_dir(place.at("in/folder")).unwrap();
    symlink("/nowhere", place.at("in/link")).unwrap();
    fs::write(place.at("in/a.key"), SECRET).unwrap();
    fs::create_dir(place.at("in/hidden")).unwrap();
    fs::write(place.at("in").join(OsStr::from_bytes(b"\xff")), SECRET).unwrap();
    let cell = place.cell(&[("r", "in"), ("!r", "in/**/*.key"), ("!r", "in/hidden")]);
    assert_eq!(cell.names(place.at("in")), ["folder dir", "link link", "public file"]);
    // The control.
    assert_eq!(fs::read_dir(place.at("in")).unwrap().count(), 6);
}

#[test]
fn a_grant_with_wildcards_shows_what_it_matches_and_the_way_there() {
    let place = Place::new();
    for folder in ["in/1", "in/1/deep", "in/2", "in/x"] {
        fs::create_dir(place.at(folder)).unwrap();
        fs::write(place.at(folder).join("a.csv"), b"a,b").unwrap();
        fs::write(place.at(folder).join("a.txt"), SECRET).unwrap();
    }
    fs::write(place.at("in/3"), SECRET).unwrap();
    let cell = place.cell(&[("r", "in/[0-9]/*.csv")]);
    assert_eq!(cell.names(place.at("in")), ["1 dir", "2 dir"]);
    assert_eq!(cell.names(place.at("in/1")), ["a.csv file"]);
    assert_eq!(cell.on("exists", place.at("in/1")).unwrap().value, Value::Bool(true));
    assert_eq!(cell.on("exists", place.at("in/1/b.csv")).unwrap().value, Value::Bool(false));
    let mode = number(&cell.on("stat", place.at("in/2")).unwrap().value, "mode");
    assert_eq!(mode & 0o170_000, 0o040_000);
    for denied in ["in/x", "in/1/a.txt", "in/1/deep", "in/public", "."] {
        by_policy(cell.on("list", place.text(denied)));
        by_policy(cell.on("stat", place.text(denied)));
    }
    // On the way only folders are seen, and nothing is read.
    by_policy(cell.on("stat", place.at("in/3")));
    by_policy(cell.on("exists", place.at("in/3")));
    by_policy(cell.on("list", place.at("in/3")));
    by_policy(cell.read(place.at("in/1")));
    by_policy(cell.on("mkdir", place.at("in/4")));
}

#[test]
fn links_on_the_way_are_judged() {
    let place = Place::new();
    symlink("../out", place.at("in/1")).unwrap();
    let cell = place.cell(&[("r", "in/*/*")]);
    by_policy(cell.on("list", place.at("in/1")));
    by_policy(cell.read(place.at("in/1/secret")));
    assert_eq!(fs::read(place.at("in/1/secret")).unwrap(), SECRET);
}

#[test]
fn a_listing_has_an_end() {
    let place = Place::new();
    // Names of two files, as that is quicker than so many files; none has too many names.
    fs::write(place.at("in/other"), b"").unwrap();
    for number in 0..99_998_u32 {
        let file = if number % 2 == 0 { "in/public" } else { "in/other" };
        fs::hard_link(place.at(file), place.at(&format!("in/{number}"))).unwrap();
    }
    let cell = place.cell(&[("r", "in")]);
    assert_eq!(cell.names(place.at("in")).len(), 100_000);
    fs::write(place.at("in/more"), b"").unwrap();
    assert_eq!(errno(cell.on("list", place.at("in"))), EFBIG);
}

//! Somebody swaps what is granted with what is not, all the time.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pyisolate_broker::Refusal;
use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::setup::*;

const ROUNDS: u32 = 100_000;

/// Exchanges two names until it is dropped.
fn swapping<T>(one: PathBuf, other: PathBuf, meanwhile: impl FnOnce() -> T) -> (T, u64) {
    let (stop, swaps) = (AtomicBool::new(false), AtomicU64::new(0));
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
                swaps.fetch_add(1, Ordering::Relaxed);
            }
        });
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(meanwhile));
        stop.store(true, Ordering::Relaxed);
        result
    });
    match result {
        Ok(result) => (result, swaps.into_inner()),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A folder of the cell's, and a link to the folder outside that takes its place.
fn folders(place: &Place) -> (PathBuf, PathBuf) {
    fs::create_dir(place.at("in/folder")).unwrap();
    fs::write(place.at("in/folder/secret"), PUBLIC).unwrap();
    symlink(place.at("out"), place.at("in/link")).unwrap();
    (place.at("in/folder"), place.at("in/link"))
}

#[test]
fn nothing_outside_is_read() {
    let place = Place::new();
    let (folder, link) = folders(&place);
    let cell = place.cell(&[("rw", "in")]);
    let path = place.at("in/folder/secret");
    let ((granted, denied), swaps) = swapping(folder, link, || {
        let (mut granted, mut denied) = (0, 0);
        for _ in 0..ROUNDS {
            match cell.read(&path) {
                Ok(bytes) => {
                    assert_eq!(bytes, PUBLIC);
                    granted += 1;
                }
                Err(Refusal::Denied(_)) => denied += 1,
                // It changed on the way.
                Err(Refusal::Failed(_)) => {}
                Err(other) => panic!("{other:?}"),
            }
        }
        // The control: by name alone it leaks.
        let leaks = (0..ROUNDS).any(|_| fs::read(&path).is_ok_and(|bytes| bytes == SECRET));
        assert!(leaks, "nobody swapped");
        (granted, denied)
    });
    assert!(granted > 0 && denied > 0 && swaps > 0, "{granted} {denied} {swaps}");
}

#[test]
fn nothing_outside_is_written() {
    let place = Place::new();
    let (folder, link) = folders(&place);
    let cell = place.cell(&[("rw", "in")]);
    let path = |name: &str| place.at("in/folder").join(name);
    let (granted, swaps) = swapping(folder, link, || {
        let mut granted = 0;
        for round in 0..ROUNDS / 8 {
            let new = path(&format!("new-{round}"));
            let answers = [
                cell.write(path("secret"), PUBLIC),
                cell.append(path("secret"), b""),
                cell.write(&new, PUBLIC),
                cell.rename(path("secret"), path("moved")),
                cell.rename(path("moved"), path("secret")),
                cell.on("remove", &new),
                cell.on("mkdir", path("made")),
                cell.ask(
                    "remove",
                    &[
                        ("path", text(path("made"))),
                        ("directory", pyisolate_abi::pickle::Value::Bool(true)),
                    ],
                ),
            ];
            granted += answers.iter().filter(|answer| answer.is_ok()).count();
        }
        granted
    });
    assert!(granted > 0 && swaps > 0, "{granted} {swaps}");
    let outside: Vec<_> =
        fs::read_dir(place.at("out")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(outside, ["secret"]);
    assert_eq!(fs::read(place.at("out/secret")).unwrap(), SECRET);
    // The control.
    fs::write(place.at("in/link/leak"), b"")
        .or(fs::write(place.at("in/folder/leak"), b""))
        .unwrap();
}

/// The file itself is a link now and then.
#[test]
fn a_file_that_becomes_a_link_is_not_followed_out() {
    let place = Place::new();
    symlink("../out/secret", place.at("in/link")).unwrap();
    let cell = place.cell(&[("rw", "in")]);
    let path = place.at("in/public");
    let (granted, swaps) = swapping(path.clone(), place.at("in/link"), || {
        let mut granted = 0;
        for round in 0..ROUNDS {
            if round % 2 == 0 {
                if let Ok(bytes) = cell.read(&path) {
                    assert_eq!(bytes, PUBLIC);
                    granted += 1;
                }
            } else if cell.open(&path, "r+").is_ok_and(|granted| {
                let handle = field(&granted.value, "handle");
                cell.ask("close", &[("handle", handle)]).unwrap();
                true
            }) {
                granted += 1;
            }
            if round % 100 == 0 {
                drop(cell.write(&path, PUBLIC));
            }
        }
        granted
    });
    assert!(granted > 0 && swaps > 0);
    assert_eq!(fs::read(place.at("out/secret")).unwrap(), SECRET);
}

/// A folder could hold what may be read where it goes; a file cannot.
#[test]
fn a_file_that_becomes_a_folder_is_not_moved() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let place = Place::new();
    fs::create_dir_all(place.at("in/victim")).unwrap();
    fs::write(place.at("in/victim/x"), SECRET).unwrap();
    let cell = place.cell(&[("w", "in"), ("w", "out"), ("r", "out/0/*/x")]);
    // Many of the host's links make the way there long, and so the time in which it can change.
    fs::create_dir(place.at("out/0")).unwrap();
    for number in 1..39 {
        symlink((number - 1).to_string(), place.at(&format!("out/{number}"))).unwrap();
    }
    let (file, victim) = (place.at("in/file"), place.at("in/victim"));
    let (way, to) = (place.at("out/38/moved"), place.at("out/0/moved"));
    // The control: as a folder it is not moved.
    by_broker(cell.rename(&victim, &to));
    let is_over = AtomicBool::new(false);
    let moved = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Long enough for the other to find what is there then.
            let rest = || std::thread::sleep(std::time::Duration::from_micros(500));
            while !is_over.load(Ordering::Relaxed) {
                let _ = cell.write(&file, PUBLIC);
                rest();
                let _ = cell.on("remove", &file);
                if cell.rename(&victim, &file).is_ok() {
                    rest();
                    let _ = cell.rename(&file, &victim);
                }
            }
        });
        let mut moved = 0;
        for _ in 0..ROUNDS / 32 {
            if cell.rename(&file, &way).is_ok() {
                moved += 1;
                if to.is_dir() {
                    break;
                }
                // A folder would not replace it.
                fs::remove_file(&to).unwrap();
            }
        }
        is_over.store(true, Ordering::Relaxed);
        moved
    });
    assert!(moved > 0 && !to.is_dir(), "{moved}");
}

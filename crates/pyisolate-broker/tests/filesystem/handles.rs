//! Files that stay open, and descriptors that are handed over.

use std::fs;
use std::io::{Read, Write};

use pyisolate_abi::pickle::Value;
use pyisolate_policy::Limits;

use crate::setup::*;

fn write(cell: &Cell, handle: &Value, offset: i64, data: &[u8]) -> Answer {
    let data = ("data", Value::Bytes(data.to_vec()));
    cell.ask("write", &[("handle", handle.clone()), ("offset", Value::Int(offset)), data])
}

fn on(cell: &Cell, action: &str, handle: &Value) -> Answer {
    cell.ask(action, &[("handle", handle.clone())])
}

#[test]
fn modes_are_what_they_are_in_python() {
    let place = Place::new();
    let cell = place.cell(&[("rw", "in")]);
    let file = place.at("in/file");
    assert_eq!(errno(cell.open(&file, "r")), ENOENT);
    assert_eq!(errno(cell.open(&file, "r+")), ENOENT);
    let made = cell.handle(&file, "x");
    assert_eq!(errno(cell.open(&file, "x")), EEXIST);
    write(&cell, &made, 0, b"hello").unwrap();
    assert_eq!(errno(on(&cell, "read", &made)), EBADF);
    let both = cell.handle(&file, "r+");
    write(&cell, &both, 1, b"E").unwrap();
    assert_eq!(bytes(on(&cell, "read", &both).unwrap()), b"hEllo");
    let append = cell.handle(&file, "a");
    write(&cell, &append, 0, b"!").unwrap();
    let data = ("data", Value::Bytes(b"?".to_vec()));
    let length = cell.ask("append", &[("handle", both.clone()), data]).unwrap().value;
    assert_eq!(length, Value::Int(7));
    assert_eq!(fs::read(&file).unwrap(), b"hEllo!?");
    let opened = cell.open(&file, "r").unwrap();
    assert!(opened.descriptor.is_none());
    assert_eq!(number(&opened.value, "size"), 7);
    let reader = field(&opened.value, "handle");
    assert_eq!(errno(write(&cell, &reader, 0, b"x")), EBADF);
    assert_eq!(number(&on(&cell, "stat", &append).unwrap().value, "size"), 7);
    let truncated = cell.open(&file, "w+").unwrap();
    assert_eq!(number(&truncated.value, "size"), 0);
    assert_eq!(bytes(on(&cell, "read", &both).unwrap()), b"");
    on(&cell, "close", &both).unwrap();
    assert_eq!(errno(on(&cell, "close", &both)), EBADF);
    assert_eq!(errno(on(&cell, "read", &Value::Int(0))), EBADF);
}

#[test]
fn a_descriptor_reads_and_does_nothing_else() {
    let place = Place::new();
    let cell = place.cell_with(&[("rw", "in")], true, Limits::default());
    let granted = cell.on("open", place.at("in/public")).unwrap();
    assert_eq!(number(&granted.value, "size"), 6);
    let mut file = fs::File::from(granted.descriptor.unwrap());
    let mut read = Vec::new();
    file.read_to_end(&mut read).unwrap();
    assert_eq!(read, PUBLIC);
    assert!(file.write(b"x").is_err() && file.set_len(0).is_err());
    // What writes stays with the broker.
    for mode in ["w", "a", "r+", "w+"] {
        let granted = cell.open(place.at("in/other"), mode);
        if mode != "r+" {
            assert!(granted.unwrap().descriptor.is_none());
        }
    }
}

#[test]
fn another_policy_holds_for_open_files() {
    let place = Place::new();
    let cell = place.cell(&[("rw", "in")]);
    let handle = cell.handle(place.at("in/public"), "r+");
    write(&cell, &handle, 0, b"P").unwrap();
    cell.0.set_policy(place.policy(&[("r", "in")]).into());
    by_policy(write(&cell, &handle, 0, b"x"));
    by_policy(cell.ask("truncate", &[("handle", handle.clone()), ("size", Value::Int(0))]));
    assert_eq!(bytes(on(&cell, "read", &handle).unwrap()), b"Public");
    cell.0.set_policy(place.policy(&[("r", "out")]).into());
    by_policy(on(&cell, "read", &handle));
    by_policy(on(&cell, "stat", &handle));
    on(&cell, "close", &handle).unwrap();
}

/// A request that was allowed is judged again when it is performed.
#[test]
fn another_policy_holds_for_what_was_begun() {
    let place = Place::new();
    let cell = place.cell(&[("rw", "in")]);
    let path = (Value::Text("path".into()), text(place.at("in/public")));
    let ready = cell.0.begin("filesystem", "read", &Value::Dict(vec![path])).unwrap();
    cell.0.set_policy(place.policy(&[("r", "out")]).into());
    by_policy(ready.perform(&cell.0));
}

#[test]
fn a_handle_stays_with_its_file() {
    let place = Place::new();
    let cell = place.cell(&[("rw", "in")]);
    let handle = cell.handle(place.at("in/public"), "r");
    fs::rename(place.at("out/secret"), place.at("in/public")).unwrap();
    assert_eq!(bytes(on(&cell, "read", &handle).unwrap()), PUBLIC);
}

#[test]
fn there_are_so_many_and_no_more() {
    let place = Place::new();
    let cell = place.cell(&[("rw", "in")]);
    let handles: Vec<Value> = (0..64).map(|_| cell.handle(place.at("in/public"), "r")).collect();
    assert_eq!(errno(cell.open(place.at("in/new"), "w")), EMFILE);
    assert!(!place.at("in/new").exists());
    on(&cell, "close", &handles[10]).unwrap();
    let next = cell.handle(place.at("in/public"), "r");
    assert!(!handles.contains(&next));
}

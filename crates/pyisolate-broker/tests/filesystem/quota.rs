//! What is written is counted to the byte, before it is written.

use std::fs;

use pyisolate_abi::pickle::Value;
use pyisolate_policy::Limits;

use crate::setup::*;

fn cell(place: &Place, disk_bytes: u64) -> Cell {
    place.cell_with(&[("rw", "in")], false, Limits { disk_bytes, ..Limits::default() })
}

#[test]
fn the_last_byte_fits_and_the_next_does_not() {
    let place = Place::new();
    let cell = cell(&place, 10);
    cell.write(place.at("in/a"), b"1234").unwrap();
    cell.append(place.at("in/a"), b"56").unwrap();
    assert_eq!(errno(cell.append(place.at("in/a"), b"12345")), EDQUOT);
    cell.append(place.at("in/a"), b"7890").unwrap();
    assert_eq!(errno(cell.append(place.at("in/a"), b"1")), EDQUOT);
    assert_eq!(fs::read(place.at("in/a")).unwrap(), b"1234567890");
    // Nothing more can be written, and nothing is lost by trying.
    assert_eq!(errno(cell.write(place.at("in/a"), b"1")), EDQUOT);
    assert_eq!(errno(cell.write(place.at("in/new"), b"1")), EDQUOT);
    assert_eq!(fs::read(place.at("in/a")).unwrap(), b"1234567890");
    assert!(!place.at("in/new").exists());
    cell.write(place.at("in/empty"), b"").unwrap();
}

#[test]
fn holes_count() {
    let place = Place::new();
    let cell = cell(&place, 100);
    let handle = cell.handle(place.at("in/a"), "w");
    let write = |offset, data: &[u8]| {
        let data = ("data", Value::Bytes(data.to_vec()));
        cell.ask("write", &[("handle", handle.clone()), ("offset", Value::Int(offset)), data])
    };
    let truncate =
        |size| cell.ask("truncate", &[("handle", handle.clone()), ("size", Value::Int(size))]);
    write(49, b"x").unwrap();
    assert_eq!(errno(write(100, b"x")), EDQUOT);
    assert_eq!(errno(truncate(101)), EDQUOT);
    truncate(80).unwrap();
    truncate(0).unwrap();
    assert_eq!(errno(truncate(21)), EDQUOT);
    truncate(20).unwrap();
    assert_eq!(errno(write(0, b"x")), EDQUOT);
    assert_eq!(errno(write(i64::MAX, b"x")), EFBIG);
    // Writing nothing makes no hole.
    write(1000, b"").unwrap();
    assert_eq!(fs::metadata(place.at("in/a")).unwrap().len(), 20);
}

#[test]
fn what_was_not_written_is_given_back() {
    let place = Place::new();
    let cell = cell(&place, 10);
    by_broker(cell_write_folder(&cell, &place));
    assert_eq!(errno(cell.write(place.at("in/none/x"), b"1234567890")), ENOENT);
    assert_eq!(errno(cell.write(place.at("in"), b"1234567890")), EISDIR);
    cell.write(place.at("in/a"), b"1234567890").unwrap();
}

fn cell_write_folder(cell: &Cell, place: &Place) -> Answer {
    fs::hard_link(place.at("in/public"), place.at("in/second")).unwrap();
    cell.write(place.at("in/second"), b"1234567890")
}

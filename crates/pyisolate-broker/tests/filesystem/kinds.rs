//! What is no regular file, or is one by more names than can be seen.

use std::fs;
use std::os::unix::net::UnixListener;
use std::sync::mpsc;
use std::time::Duration;

use pyisolate_abi::pickle::Value;
use rustix::fs::{CWD, FileType, Mode, mkfifoat, mknodat};

use crate::setup::*;

#[track_caller]
fn never_opened(cell: &Cell, path: &std::path::Path) {
    for answer in [
        cell.on("read", path),
        cell.on("open", path),
        cell.write(path, b"x"),
        cell.append(path, b"x"),
        cell.open(path, "r+"),
        cell.open(path, "w"),
        cell.ask("truncate", &[("path", text(path)), ("size", Value::Int(0))]),
    ] {
        assert!(by_broker(answer).contains("only regular files"));
    }
    // It is listed and told of, and can be taken away.
    assert_eq!(cell.on("exists", path).unwrap().value, Value::Bool(true));
    assert_eq!(number(&cell.on("stat", path).unwrap().value, "nlink"), 1);
    cell.on("remove", path).unwrap();
}

#[test]
fn a_fifo_does_not_block() {
    let place = Place::new();
    let cell = place.cell(&[("rw", "in")]);
    let fifo = place.at("in/fifo");
    mkfifoat(CWD, &fifo, Mode::from(0o600)).unwrap();
    // The control: an ordinary open waits for the other end.
    let (opened, wait) = mpsc::channel();
    let path = fifo.clone();
    let reader = std::thread::spawn(move || {
        let file = fs::File::open(path);
        opened.send(()).unwrap();
        file
    });
    assert!(wait.recv_timeout(Duration::from_millis(100)).is_err());
    let writer = fs::File::options().write(true).open(&fifo).unwrap();
    drop((writer, reader.join().unwrap()));
    never_opened(&cell, &fifo);
}

#[test]
fn a_socket_is_not_opened() {
    let place = Place::new();
    let cell = place.cell(&[("rw", "in")]);
    let _listener = UnixListener::bind(place.at("in/socket")).unwrap();
    assert_eq!(cell.names(place.at("in")), ["public file", "socket other"]);
    never_opened(&cell, &place.at("in/socket"));
}

#[test]
fn a_device_is_not_opened() {
    let place = Place::new();
    let cell = place.cell(&[("rw", "in"), ("r", "/dev/null")]);
    by_broker(cell.on("read", "/dev/null"));
    let null = rustix::fs::makedev(1, 3);
    let device = place.at("in/null");
    if mknodat(CWD, &device, FileType::CharacterDevice, Mode::from(0o600), null).is_err() {
        eprintln!("skipped: making a device node needs privileges");
        return;
    }
    never_opened(&cell, &device);
}

#[test]
fn folders_are_not_read_as_files() {
    let place = Place::new();
    let cell = place.cell(&[("rw", "in")]);
    for answer in [cell.on("read", place.at("in")), cell.write(place.at("in"), b"x")] {
        assert_eq!(errno(answer), EISDIR);
    }
    assert_eq!(errno(cell.open(place.at("in"), "r")), EISDIR);
    assert_eq!(errno(cell.on("list", place.at("in/public"))), ENOTDIR);
}

#[test]
fn a_second_name_is_read_but_not_written() {
    let place = Place::new();
    fs::write(place.at("out/shared"), b"shared").unwrap();
    let name = place.at("in/name");
    fs::hard_link(place.at("out/shared"), &name).unwrap();
    let cell = place.cell(&[("rw", "in")]);
    assert_eq!(cell.read(&name).unwrap(), b"shared");
    for mode in ["w", "a", "r+"] {
        assert!(by_broker(cell.open(&name, mode)).contains("hard links"));
    }
    by_broker(cell.write(&name, b"changed"));
    by_broker(cell.append(&name, b"changed"));
    by_broker(cell.ask("truncate", &[("path", text(&name)), ("size", Value::Int(0))]));
    assert_eq!(fs::read(place.at("out/shared")).unwrap(), b"shared");
    // The control.
    fs::write(&name, b"changed").unwrap();
    assert_eq!(fs::read(place.at("out/shared")).unwrap(), b"changed");
    // The name is the cell's, and with it gone the file has one name again.
    cell.on("remove", &name).unwrap();
    assert_eq!(fs::read(place.at("out/shared")).unwrap(), b"changed");
}

#[test]
fn a_program_that_runs_as_its_owner_is_not_written() {
    use std::os::unix::fs::PermissionsExt;
    let place = Place::new();
    let file = place.at("in/public");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o4755)).unwrap();
    let cell = place.cell(&[("rw", "in")]);
    assert_eq!(cell.read(&file).unwrap(), PUBLIC);
    by_broker(cell.write(&file, b"x"));
}

#[test]
fn the_kernels_own_file_systems_are_closed_whatever_is_granted() {
    let place = Place::new();
    let cell = place.cell(&[("rw", "/proc"), ("rw", "/sys"), ("rw", "/dev/pts")]);
    for path in ["/proc/self/environ", "/proc/version", "/sys/kernel/notes", "/proc/1/root"] {
        if fs::symlink_metadata(path).is_err() {
            eprintln!("skipped: there is no {path}");
            continue;
        }
        for action in ["read", "open", "list", "stat", "exists"] {
            by_broker(cell.on(action, path));
        }
        by_broker(cell.write(path, b"x"));
    }
    for folder in ["/proc", "/sys", "/proc/self"] {
        by_broker(cell.on("list", folder));
        by_broker(cell.on("mkdir", format!("{folder}/x")));
    }
    // The control.
    assert!(fs::read("/proc/self/environ").is_ok() && fs::read_dir("/proc/self/fd").is_ok());
}

#[test]
fn a_root_above_procfs_does_not_open_it() {
    let place = Place::new();
    std::os::unix::fs::symlink("/proc/self/root", place.at("in/root")).unwrap();
    std::os::unix::fs::symlink("/proc/self/cwd", place.at("in/cwd")).unwrap();
    std::os::unix::fs::symlink("/proc/self/fd/0", place.at("in/fd")).unwrap();
    let cell = place.cell(&[("r", "/")]);
    for rest in ["in/root/etc/passwd", "in/cwd", "in/cwd/Cargo.toml", "in/fd"] {
        by_broker(cell.on("stat", place.at(rest)));
        by_broker(cell.read(place.at(rest)));
    }
    assert!(fs::metadata(place.at("in/root/etc")).is_ok());
    assert_eq!(cell.read(place.at("in/public")).unwrap(), PUBLIC);
}

#[test]
fn a_mounted_data_volume_is_walked_into() {
    use std::os::unix::fs::MetadataExt;
    let place = Place::new();
    let device = |path: &str| fs::metadata(path).map(|there| there.dev()).ok();
    if device("/dev/shm").is_none() || device("/dev/shm") == device("/") {
        eprintln!("skipped: /dev/shm is no mount of its own");
        return;
    }
    let Ok(volume) = tempfile::tempdir_in("/dev/shm") else {
        eprintln!("skipped: /dev/shm cannot be written");
        return;
    };
    fs::write(volume.path().join("file"), b"mounted").unwrap();
    let cell = place.cell(&[("r", "/"), ("w", volume.path().to_str().unwrap())]);
    assert_eq!(cell.read(volume.path().join("file")).unwrap(), b"mounted");
    let names = cell.names(volume.path());
    assert_eq!(names, ["file file"]);
    // From one file system to another nothing is renamed, as the kernel says.
    let cell = place.cell(&[("rw", "in"), ("rw", volume.path().to_str().unwrap())]);
    assert_eq!(errno(cell.rename(volume.path().join("file"), place.at("in/file"))), EXDEV);
}

//! Regular files: reading and writing them.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use pyisolate_abi::pickle::Value;
use pyisolate_policy::CleanPath;
use rustix::fs::{CWD, Mode as Permissions, OFlags, fstat, ftruncate, openat};
use rustix::io::Errno;

use super::beneath::open_beneath;
use super::bytes::{self, Reserved};
use super::find::{Spot, find};
use super::judge::Use;
use super::kind;
use super::open::OpenFile;
use super::request::{Mode, Target};
use super::root::proc_name;
use super::stop::{Stop, os};
use crate::outcome::{Granted, Refusal};
use crate::payload::{int, record};
use crate::session::Session;

/// What a created file may be: the owner changes it, others look. Never a program.
const NEW_FILE: Permissions = Permissions::from_raw_mode(0o644);

/// How often a file is looked for again that was removed, or made by somebody else, in between.
const TRIES: u32 = 8;

/// A file that was opened.
struct Opened {
    path: CleanPath,
    real: CleanPath,
    file: OwnedFd,
}

/// Opens a file. What is there is first named by a handle, looked at, and only then opened, as the
/// very same file; what is not there is created with `O_EXCL`, so that nothing else is opened.
fn open_file(session: &Session, path: &CleanPath, mode: Mode) -> Result<Opened, Stop> {
    for _ in 0..TRIES {
        let spot = find(session, mode.usage(), path, !mode.exclusive)?;
        let file = match &spot.node {
            Some(_) if mode.exclusive => return Err(Errno::EXIST.into()),
            Some(node) => open_there(session, &spot, node, mode)?,
            None if !mode.create => return Err(Errno::NOENT.into()),
            None => match create(session, &spot, mode) {
                Err(Stop::Kernel(Errno::EXIST)) if !mode.exclusive => continue,
                made => made?,
            },
        };
        return Ok(Opened { real: spot.real()?, path: spot.path, file });
    }
    Err(Errno::STALE.into())
}

fn flags(mode: Mode) -> OFlags {
    let access = match (mode.read, mode.write) {
        (true, true) => OFlags::RDWR,
        (_, true) => OFlags::WRONLY,
        _ => OFlags::RDONLY,
    };
    let append = if mode.append { OFlags::APPEND } else { OFlags::empty() };
    access | append | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC
}

/// Opens what `node` names, if it is what may be opened.
fn open_there(session: &Session, spot: &Spot, node: &OwnedFd, mode: Mode) -> Result<OwnedFd, Stop> {
    let seen = fstat(node)?;
    kind::check_file(&seen, mode.usage(), &spot.path)?;
    // Our own handle's magic link leads to the file that it names and to no other. Where procfs is
    // not mounted, the name is opened again, and has to be the same file still.
    let file = match openat(CWD, proc_name(node), flags(mode), Permissions::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => {
            let (parent, name) = spot.entry(session)?;
            open_beneath(parent, name, flags(mode) | OFlags::NOFOLLOW, Permissions::empty())?
        }
        opened => opened?,
    };
    let stat = fstat(&file)?;
    if (stat.st_dev, stat.st_ino) != (seen.st_dev, seen.st_ino) {
        return Err(Errno::STALE.into());
    }
    kind::check_file(&stat, mode.usage(), &spot.path)?;
    Ok(file)
}

fn create(session: &Session, spot: &Spot, mode: Mode) -> Result<OwnedFd, Stop> {
    let (parent, name) = spot.entry(session)?;
    let flags = flags(mode) | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
    session.use_disk_name()?;
    Ok(open_beneath(parent, name, flags, NEW_FILE)?)
}

/// A file by its path, opened for one use; or one that is open, if it may still be used so.
fn target(session: &Session, target: &Target, mode: Mode) -> Result<Arc<OpenFile>, Refusal> {
    match target {
        Target::Path(path) => Ok(Arc::new(opened(open_file(session, path, mode)?, mode))),
        Target::Handle(number) => {
            let file = session.files.get(*number)?;
            file.check(session, mode.usage())?;
            Ok(file)
        }
    }
}

fn opened(opened: Opened, mode: Mode) -> OpenFile {
    let Opened { path, real, file } = opened;
    OpenFile { path, real, file, mode, writing: Mutex::new(()) }
}

pub(super) fn read(
    session: &Session,
    from: &Target,
    offset: u64,
    length: Option<u64>,
) -> Result<Granted, Refusal> {
    let file = target(session, from, Mode::READ)?;
    let bytes = bytes::read(session, &file.file, offset, length)?;
    Ok(Value::Bytes(bytes).into())
}

pub(super) fn write(session: &Session, path: &CleanPath, data: &[u8]) -> Result<Granted, Refusal> {
    // Before anything is truncated or made.
    let mut reserved = Reserved::take(session, data.len() as u64)?;
    let Opened { file, .. } = open_file(session, path, Mode { create: true, ..Mode::WRITE })?;
    ftruncate(&file, 0).map_err(os)?;
    bytes::fill(session, &mut reserved, &file, data)?;
    Ok(int(data.len() as u64).into())
}

pub(super) fn write_at(
    session: &Session,
    handle: u64,
    offset: u64,
    data: &[u8],
) -> Result<Granted, Refusal> {
    let file = target(session, &Target::Handle(handle), Mode::WRITE)?;
    let _writing = file.writing();
    if file.mode.append {
        bytes::append(session, &file.file, data)?;
    } else {
        bytes::write_at(session, &file.file, offset, data)?;
    }
    Ok(int(data.len() as u64).into())
}

pub(super) fn append(session: &Session, to: &Target, data: &[u8]) -> Result<Granted, Refusal> {
    let file = target(session, to, Mode { create: true, append: true, ..Mode::WRITE })?;
    let _writing = file.writing();
    let length = bytes::append(session, &file.file, data)?;
    Ok(int(length).into())
}

pub(super) fn truncate(session: &Session, of: &Target, size: u64) -> Result<Granted, Refusal> {
    let file = target(session, of, Mode::WRITE)?;
    let _writing = file.writing();
    bytes::truncate(session, &file.file, size)?;
    Ok(Value::None.into())
}

pub(super) fn open(session: &Session, path: &CleanPath, mode: Mode) -> Result<Granted, Refusal> {
    let handed_over = mode.usage() == Use::Read && session.takes_descriptors();
    if !handed_over {
        session.files.check_room()?;
    }
    let opened = open_file(session, path, mode)?;
    if mode.truncate {
        ftruncate(&opened.file, 0).map_err(os)?;
    }
    let stat = fstat(&opened.file).map_err(os)?;
    let told = [
        ("size", Value::Int(stat.st_size)),
        ("mode", Value::Int(stat.st_mode.into())),
        ("ino", int(stat.st_ino)),
        ("mtime_ns", super::folder::nanoseconds(stat.st_mtime, stat.st_mtime_nsec)),
    ];
    if handed_over {
        session.files.hand_over(path);
        return Ok(Granted { value: record(told), descriptor: Some(opened.file) });
    }
    let number = session.files.insert(self::opened(opened, mode))?;
    let handle = [("handle", int(number))];
    Ok(record(handle.into_iter().chain(told)).into())
}

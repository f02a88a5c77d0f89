//! Names: listing, telling, making, removing and renaming. All through the folder's handle.

use pyisolate_abi::pickle::Value;
use pyisolate_policy::CleanPath;
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, Stat, fstat, mkdirat, renameat_with, statat,
    unlinkat,
};
use rustix::io::Errno;

use super::alias::Aliases;
use super::beneath::open_beneath;
use super::find::{Spot, find};
use super::judge::{self, Use};
use super::kind;
use super::request::Target;
use super::root::join;
use super::stop::{Stop, os, refused};
use crate::outcome::{Granted, Refusal};
use crate::payload::{int, record};
use crate::session::Session;

/// How many entries a listing has at most: some 20 MB of names at their longest.
const ENTRIES_MAX: usize = 100_000;

/// What a created folder may be.
const NEW_FOLDER: Mode = Mode::from_raw_mode(0o755);

/// How many entries are read between two looks at whether the cell is still there.
const STEP_ENTRIES: usize = 1000;

pub(super) fn list(session: &Session, path: &CleanPath) -> Result<Granted, Refusal> {
    Ok(entries(session, path).map(Value::List)?.into())
}

fn entries(session: &Session, path: &CleanPath) -> Result<Vec<Value>, Stop> {
    let spot = find(session, Use::See, path, true)?;
    let node = spot.there()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let folder = match FileType::from_raw_mode(fstat(node)?.st_mode) {
        FileType::Directory => open_beneath(node, "", flags, Mode::empty())?,
        _ => {
            refuse_on_way(session, &spot)?;
            return Err(Errno::NOTDIR.into());
        }
    };
    let policy = session.policy();
    let real = spot.real()?;
    let aliases = Aliases::now(session)?;
    let mut shown = Vec::new();
    for (count, entry) in Dir::new(folder)?.enumerate() {
        if count % STEP_ENTRIES == 0 && session.cancel().is_cancelled() {
            return Err(Refusal::Cancelled.into());
        }
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if matches!(name, "." | "..") {
            continue;
        }
        // A name so deep that it cannot be asked for is not shown either.
        let (Ok(at), Ok(real_at)) = (join(&spot.path, name), join(&real, name)) else { continue };
        let kind = match entry.file_type() {
            FileType::Unknown => match statat(node, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(_) => continue,
            },
            kind => kind,
        };
        if !judge::is_shown(&policy, &at, kind == FileType::Directory)
            || (real != spot.path && judge::is_denied(&policy, Use::See, &real_at))
            || aliases.deny(Use::See, &real_at)
        {
            continue;
        }
        if shown.len() == ENTRIES_MAX {
            return Err(Errno::FBIG.into());
        }
        shown.push(Value::List(vec![
            Value::Text(name.to_owned()),
            Value::Text(kind::name(kind).to_owned()),
            int(entry.ino()),
        ]));
    }
    Ok(shown)
}

/// What is only on the way to what is granted is seen if it is a folder.
fn refuse_on_way(session: &Session, spot: &Spot) -> Result<(), Refusal> {
    if spot.on_way { judge::judge(session, Use::Read, &spot.path).map(drop) } else { Ok(()) }
}

pub(super) fn stat(session: &Session, of: &Target, follow: bool) -> Result<Granted, Refusal> {
    let stat = match of {
        Target::Path(path) => stat_path(session, path, follow)?,
        Target::Handle(number) => {
            let file = session.files.get(*number)?;
            file.check_any(session)?;
            fstat(&file.file).map_err(os)?
        }
    };
    Ok(told(&stat).into())
}

fn stat_path(session: &Session, path: &CleanPath, follow: bool) -> Result<Stat, Stop> {
    let spot = find(session, Use::See, path, follow)?;
    let stat = fstat(spot.there()?)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
        refuse_on_way(session, &spot)?;
    }
    Ok(stat)
}

/// All that a guest is told. Not the owner, whose numbers say nothing in a cell.
fn told(stat: &Stat) -> Value {
    record([
        ("mode", Value::Int(stat.st_mode.into())),
        ("ino", int(stat.st_ino)),
        ("dev", int(stat.st_dev)),
        ("nlink", Value::Int(i64::try_from(stat.st_nlink).unwrap_or(i64::MAX))),
        ("size", Value::Int(stat.st_size)),
        ("atime_ns", nanoseconds(stat.st_atime, stat.st_atime_nsec)),
        ("mtime_ns", nanoseconds(stat.st_mtime, stat.st_mtime_nsec)),
        ("ctime_ns", nanoseconds(stat.st_ctime, stat.st_ctime_nsec)),
    ])
}

pub(super) fn nanoseconds(seconds: i64, nanoseconds: u64) -> Value {
    let nanoseconds = i64::try_from(nanoseconds).unwrap_or(0);
    Value::Int(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}

pub(super) fn exists(session: &Session, path: &CleanPath) -> Result<Granted, Refusal> {
    match stat_path(session, path, true) {
        Ok(_) => Ok(Value::Bool(true).into()),
        Err(Stop::Kernel(Errno::NOENT | Errno::NOTDIR | Errno::LOOP)) => {
            Ok(Value::Bool(false).into())
        }
        Err(stop) => Err(stop.into()),
    }
}

pub(super) fn mkdir(
    session: &Session,
    path: &CleanPath,
    parents: bool,
    exist_ok: bool,
) -> Result<Granted, Refusal> {
    // From the folder upwards until a parent can be made or is there, then down again.
    let mut missing = vec![path.clone()];
    let mut down = !parents;
    while let Some(at) = missing.last() {
        if session.cancel().is_cancelled() {
            return Err(Refusal::Cancelled);
        }
        match make(session, at) {
            Ok(()) => {}
            Err(Stop::Kernel(Errno::NOENT)) if !down && at.as_str() != "/" => {
                let above = join(at, "..")?;
                missing.push(above);
                continue;
            }
            // Somebody else made the parent, which is as good.
            Err(Stop::Kernel(Errno::EXIST)) if missing.len() > 1 => {}
            Err(Stop::Kernel(Errno::EXIST)) if exist_ok && is_folder(session, path)? => {}
            Err(stop) => return Err(stop.into()),
        }
        down = true;
        missing.pop();
    }
    Ok(Value::None.into())
}

fn make(session: &Session, path: &CleanPath) -> Result<(), Stop> {
    let spot = find(session, Use::Write, path, false)?;
    if spot.node.is_some() {
        return Err(Errno::EXIST.into());
    }
    let (parent, name) = spot.entry(session)?;
    session.use_disk_name()?;
    Ok(mkdirat(parent, name, NEW_FOLDER)?)
}

fn is_folder(session: &Session, path: &CleanPath) -> Result<bool, Stop> {
    let spot = find(session, Use::Write, path, true)?;
    let stat = fstat(spot.there()?)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

pub(super) fn remove(
    session: &Session,
    path: &CleanPath,
    directory: bool,
) -> Result<Granted, Refusal> {
    let spot = find(session, Use::Write, path, false)?;
    spot.there().map_err(os)?;
    if judge::is_root(&session.policy(), &spot.path) {
        return Err(refused(Use::Write, &spot.path, "the root of a rule is not removed"));
    }
    let real = spot.real()?;
    if let Some(why) = Aliases::now(session)?.against_move(&real, &real, false) {
        return Err(refused(Use::Write, &spot.path, format_args!("it is not removed: {why}")));
    }
    let (parent, name) = spot.entry(session)?;
    let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    unlinkat(parent, name, flags).map_err(os)?;
    Ok(Value::None.into())
}

pub(super) fn rename(
    session: &Session,
    path: &CleanPath,
    to: &CleanPath,
    replace: bool,
) -> Result<Granted, Refusal> {
    let _moving = session.files.moving();
    let from = find(session, Use::Write, path, false)?;
    let to = find(session, Use::Write, to, false)?;
    let stat = fstat(from.there().map_err(os)?).map_err(os)?;
    let folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    check_move(session, &from, &to, folder)?;
    let (from_parent, from_name) = from.entry(session)?;
    let (to_parent, to_name) = to.entry(session)?;
    let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    renameat_with(from_parent, from_name, to_parent, to_name, flags).map_err(os)?;
    Ok(Value::None.into())
}

fn check_move(session: &Session, from: &Spot, to: &Spot, folder: bool) -> Result<(), Refusal> {
    let policy = session.policy();
    let aliases = Aliases::now(session)?;
    let (from_real, to_real) = (from.real()?, to.real()?);
    let unreadable =
        |real| judge::is_denied(&policy, Use::Read, real) || aliases.deny(Use::Read, real);
    let reason = judge::against_move(&policy, &from.path, &to.path, folder)
        // Where the host's links lead a root elsewhere, denials of that place hold as well.
        .or_else(|| judge::denials_against_move(&policy, &from_real, &to_real, folder))
        .or_else(|| aliases.against_move(&from_real, &to_real, folder))
        .or_else(|| {
            (unreadable(&from_real) && !unreadable(&to_real))
                .then_some("it is denied to be read where it is, and would not be where it goes")
        });
    match reason {
        None => Ok(()),
        Some(why) => {
            let why = format_args!("it is not moved to {}: {why}", to.path);
            Err(refused(Use::Write, &from.path, why))
        }
    }
}

//! The files that are open for one cell.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use pyisolate_policy::{Act, CleanPath};
use rustix::io::Errno;

use super::alias::Aliases;
use super::judge::{self, Use};
use super::request::Mode;
use super::stop::{bad_handle, refused};
use crate::network::HandedOut;
use crate::outcome::{Failure, Refusal};
use crate::session::Session;

/// How many files one cell can have open: a program has a handful, and each is a descriptor of the
/// host's.
const OPEN_FILES_MAX: usize = 64;

/// How many files that were handed over are remembered; the journal has all.
const HANDED_MAX: usize = 1000;

/// The open files. Numbers are never used twice.
#[derive(Debug, Default)]
pub(crate) struct Open {
    table: Mutex<Table>,
    /// Held while a name is moved: what was looked at is then what is moved, as far as the cell
    /// itself could change it.
    moving: Mutex<()>,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    files: BTreeMap<u64, Arc<OpenFile>>,
    /// What was handed over as descriptors, and when first.
    handed: BTreeMap<CleanPath, SystemTime>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) path: CleanPath,
    /// Where it lies if the host's links lead its root elsewhere.
    pub(super) real: CleanPath,
    pub(super) file: OwnedFd,
    pub(super) mode: Mode,
    /// Held while the file is written, so that its growth is counted right.
    pub(super) writing: Mutex<()>,
}

impl Open {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn moving(&self) -> MutexGuard<'_, ()> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a file that is handed over as a descriptor. Nobody says when the guest closes it.
    pub(super) fn hand_over(&self, path: &CleanPath) {
        let handed = &mut self.table().handed;
        if handed.len() < HANDED_MAX {
            handed.entry(path.clone()).or_insert_with(SystemTime::now);
        }
    }

    /// What was handed over, by path.
    pub(crate) fn handed_out(&self) -> Vec<HandedOut> {
        let told = |(path, since): (&CleanPath, &SystemTime)| HandedOut {
            what: format!("file {path} (to be read)"),
            since: *since,
        };
        self.table().handed.iter().map(told).collect()
    }

    /// Whether another one can be opened: asked before anything is created.
    pub(super) fn check_room(&self) -> Result<(), Failure> {
        if self.table().files.len() < OPEN_FILES_MAX {
            Ok(())
        } else {
            Err(Failure::os(Errno::MFILE))
        }
    }

    pub(super) fn insert(&self, file: OpenFile) -> Result<u64, Failure> {
        let mut table = self.table();
        if table.files.len() >= OPEN_FILES_MAX {
            return Err(Failure::os(Errno::MFILE));
        }
        table.last += 1;
        let number = table.last;
        table.files.insert(number, Arc::new(file));
        Ok(number)
    }

    pub(super) fn get(&self, number: u64) -> Result<Arc<OpenFile>, Failure> {
        self.table().files.get(&number).cloned().ok_or_else(bad_handle)
    }

    /// Closes all: the cell is gone.
    pub(crate) fn close_all(&self) {
        let files = std::mem::take(&mut self.table().files);
        drop(files);
    }

    pub(super) fn close(&self, number: u64) -> Result<(), Failure> {
        let file = self.table().files.remove(&number);
        // The file itself is closed outside of the lock: that may wait for a server.
        file.map(drop).ok_or_else(bad_handle)
    }
}

impl OpenFile {
    /// Whether it was opened for this, and the policy that is in force now still allows it.
    pub(super) fn check(&self, session: &Session, usage: Use) -> Result<(), Refusal> {
        let opened = match usage {
            Use::Read | Use::See => self.mode.read,
            Use::Write => self.mode.write,
            Use::Both => self.mode.read && self.mode.write,
        };
        if !opened {
            return Err(bad_handle().into());
        }
        for &access in usage.accesses() {
            session.check(&Act::File { access, path: self.path.clone() })?;
        }
        let is_elsewhere = self.real != self.path;
        if (is_elsewhere && judge::is_denied(&session.policy(), usage, &self.real))
            || Aliases::now(session)?.deny(usage, &self.real)
        {
            let why = "the host's links make it another name of what the policy denies";
            return Err(refused(usage, &self.path, why));
        }
        Ok(())
    }

    /// The same, for what whoever opened the file may know of it.
    pub(super) fn check_any(&self, session: &Session) -> Result<(), Refusal> {
        self.check(session, if self.mode.read { Use::Read } else { Use::Write })
    }

    pub(super) fn writing(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! Programs that the broker runs, started by the launcher: fed, read, timed and ended from here.
//!
//! The host itself starts nothing. Each run has a line of its own to the jail that the launcher
//! builds for it. Whoever waits for the run reads that line and the program's output, and closes
//! both when enough is enough, which ends whatever the program started.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use pyisolate_broker::{Cancel, Command, EndedBy, Finished, Run, RunError};
use pyisolate_channel::control::Control;
use pyisolate_jail::{Report, Status};
use pyisolate_policy::CellName;
use rustix::event::{EventfdFlags, eventfd};

use crate::cell::lock;

mod footprint;
mod running;
#[cfg(test)]
mod tests;

use running::{Running, no_room};

/// Programs of one supervisor at a time: each is a handful of processes and up to its memory limit.
const AT_ONCE: usize = 8;
/// Of those, the programs of one cell.
const AT_ONCE_OF_A_CELL: usize = 2;

/// Runs programs through the launcher of the zygote that serves.
#[derive(Debug, Default)]
pub(crate) struct Programs {
    launcher: Mutex<Option<Arc<Control>>>,
    places: Arc<Places>,
    confinement: Mutex<Option<Report>>,
}

#[derive(Debug, Default)]
struct Places {
    /// By cell; a cell without programs is not in it.
    taken: Mutex<HashMap<CellName, usize>>,
    freed: Condvar,
}

/// One of the programs that may run at a time.
#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    cell: CellName,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = lock(&self.places.taken);
        if let Some(count) = taken.get_mut(&self.cell) {
            *count -= 1;
        }
        taken.retain(|_, count| *count > 0);
        drop(taken);
        self.places.freed.notify_all();
    }
}

impl Programs {
    /// From now on programs are asked for there. Those under way end with the launcher that they
    /// have.
    pub(crate) fn use_launcher(&self, programs: Option<Arc<Control>>) {
        if let Some(programs) = &programs {
            // A launcher that takes nothing any more fails the requests that find no room.
            let _ = rustix::io::ioctl_fionbio(&**programs, true);
        }
        *lock(&self.launcher) = programs;
    }

    /// What confined the last program.
    #[cfg(test)]
    fn confinement(&self) -> Option<Report> {
        lock(&self.confinement).clone()
    }

    /// Waits for a place; `None` if the cell ends meanwhile.
    fn place(&self, cell: &CellName, cancel: &Cancel) -> Option<Place> {
        let places = Arc::clone(&self.places);
        let _wake = cancel.on_cancel(move || {
            // Locked, so that nobody is between a look at `cancel` and the wait.
            drop(lock(&places.taken));
            places.freed.notify_all();
        });
        let mut taken = lock(&self.places.taken);
        loop {
            if cancel.is_cancelled() {
                return None;
            }
            let (all, own) = (taken.values().sum::<usize>(), taken.get(cell).copied());
            if all < AT_ONCE && own.unwrap_or(0) < AT_ONCE_OF_A_CELL {
                *taken.entry(cell.clone()).or_default() += 1;
                return Some(Place { places: Arc::clone(&self.places), cell: cell.clone() });
            }
            taken = self.places.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Takes the report of a jail, and says once what it lacks.
    fn confined(&self, report: &str) {
        let Ok(report) = Report::decode(report.as_bytes()) else { return };
        let mut known = lock(&self.confinement);
        if known.as_ref() != Some(&report) {
            for layer in report.layers.iter().filter(|layer| layer.status != Status::Enforced) {
                let (layer, detail) = (layer.name, &layer.detail);
                tracing::warn!(%layer, detail, "a program's jail lacks a layer");
            }
        }
        *known = Some(report);
    }
}

impl Run for Programs {
    fn run(&self, command: &Command, cancel: &Cancel) -> Result<Finished, RunError> {
        let Some(_place) = self.place(&command.cell, cancel) else {
            let (stdout, stderr) = (Vec::new(), Vec::new());
            return Ok(Finished { returncode: 0, stdout, stderr, ended: Some(EndedBy::Cancelled) });
        };
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(no_room)?;
        let bell = rustix::io::fcntl_dupfd_cloexec(&stop, 0).map_err(no_room)?;
        let _wake = cancel.on_cancel(move || {
            // It fails only if it was rung 2**64 times.
            let _ = rustix::io::write(&bell, &1_u64.to_ne_bytes());
        });
        let launcher = lock(&self.launcher).clone();
        let launcher = launcher.ok_or_else(|| RunError::Launcher("none was started".to_owned()))?;
        let running = Running::start(&launcher, command)?;
        running.follow(command, &stop, &|report| self.confined(report))
    }
}

//! Control groups of cells, in a thread of their own: to move a process takes the kernel some ten
//! milliseconds, and a cell is not to wait for them.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pyisolate_jail::{Cgroups, Controller, Group, GroupLimits, Layer, LayerName, Status};
use pyisolate_policy::Limits;

use crate::cell::{CellShared, lock};
use crate::error::SpawnError;

/// How long a move is waited for before the report is given without it.
const PLACING_PATIENCE: Duration = Duration::from_secs(5);
/// How soon a group that could not be removed is tried again: what stays of its last process is gone in
/// a few milliseconds, unless the machine is starved.
const REMOVE_AGAIN: Duration = Duration::from_millis(50);
/// How long that is tried at the end.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);
/// What a group has beyond the cell's own memory and its messages on their way, in bytes: the
/// kernel's own for a process, its threads and its channel, and page cache of the runtime.
const KERNEL_BYTES: u64 = 32 << 20;

/// What a group is to hold a cell to. The precise limit on a cell's own memory is the process's; the
/// group bounds what that one does not count, and all of it together.
pub(crate) fn group_limits(limits: &Limits) -> GroupLimits {
    GroupLimits {
        memory_bytes: limits
            .mem_bytes
            .saturating_add(limits.unread_bytes)
            .saturating_add(limits.message_bytes)
            .saturating_add(KERNEL_BYTES),
        threads: limits.threads,
        cpu_millicores: limits.cpu_rate(),
    }
}

/// How a cell's process stands to its group.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    state: Mutex<PlacementState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct PlacementState {
    asked_for: bool,
    limits: Option<GroupLimits>,
    group: Option<Group>,
    /// What came of it, where that is not to be asked of the group: there is none, or no more, or
    /// it did not take its limits.
    layer: Option<Layer>,
}

fn layer(status: Status, detail: String) -> Layer {
    Layer { name: LayerName::Cgroup, status, detail }
}

impl Placement {
    /// Sets what the group holds the cell to, now or as soon as there is one.
    pub(crate) fn limit(&self, limits: GroupLimits) {
        let mut state = lock(&self.state);
        state.limits = Some(limits);
        state.apply();
    }

    /// The layer, once it is known what came of the move.
    pub(crate) fn layer(&self) -> Layer {
        let state = self.settled();
        match (&state.layer, &state.group) {
            (Some(layer), _) => layer.clone(),
            (None, Some(group)) => describe(group),
            (None, None) if state.asked_for => {
                layer(Status::Missing, "the process is not in its group yet".to_owned())
            }
            (None, None) => layer(Status::Missing, "a template's process has none".to_owned()),
        }
    }

    /// Waits until the process is in its group, or cannot be.
    pub(crate) fn wait(&self) {
        drop(self.settled());
    }

    fn settled(&self) -> MutexGuard<'_, PlacementState> {
        let open = |state: &mut PlacementState| {
            state.asked_for && state.group.is_none() && state.layer.is_none()
        };
        let state = lock(&self.state);
        let waited = self.changed.wait_timeout_while(state, PLACING_PATIENCE, open);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// The process is in its group, or cannot be for that reason.
    fn settle(&self, came: Result<Group, String>) {
        let mut state = lock(&self.state);
        match came {
            Ok(group) => {
                state.group = Some(group);
                state.apply();
            }
            Err(why) => state.layer = Some(layer(Status::Missing, why)),
        }
        drop(state);
        self.changed.notify_all();
    }

    /// The group, which is to be removed; what it held the cell to is still told.
    fn take(&self) -> Option<Group> {
        let mut state = lock(&self.state);
        let group = state.group.take()?;
        state.layer.get_or_insert_with(|| describe(&group));
        Some(group)
    }

    /// For how long the kernel held the group to its share of CPU time.
    pub(crate) fn throttled(&self) -> Duration {
        lock(&self.state).group.as_ref().map_or(Duration::ZERO, Group::throttled)
    }

    /// If the kernel killed for want of memory: the most that was charged, in bytes, where that is
    /// known.
    pub(crate) fn out_of_memory(&self) -> Option<Option<u64>> {
        let state = lock(&self.state);
        let group = state.group.as_ref().filter(|group| group.ran_out_of_memory())?;
        Some(group.memory_peak_bytes())
    }
}

impl PlacementState {
    /// Sets the group's limits, once there are both.
    fn apply(&mut self) {
        if let (Some(group), Some(limits)) = (&self.group, &self.limits)
            && let Err(error) = group.limit(limits)
        {
            self.layer = Some(layer(Status::Missing, error.to_string()));
        }
    }
}

/// What the kernel holds a group to now.
fn describe(group: &Group) -> Layer {
    match group.describe() {
        Err(error) => layer(Status::Missing, error.to_string()),
        Ok(detail) if group.has(Controller::Memory) && group.has(Controller::Pids) => {
            layer(Status::Enforced, detail)
        }
        Ok(detail) => layer(
            Status::Partial,
            format!("{detail}; no other controller is to be had: rlimits stand for them"),
        ),
    }
}

enum Job {
    Place(Arc<CellShared>),
    Remove(Arc<CellShared>),
}

#[derive(Debug)]
struct Worker {
    queue: Sender<Job>,
    handle: JoinHandle<()>,
}

/// The thread that makes groups, fills and removes them.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// Started with the first cell.
    worker: Mutex<Option<Worker>>,
}

impl Groups {
    /// Puts a cell's process, which was born, into a group of its own.
    pub(crate) fn place(&self, cell: &CellShared) -> Result<(), SpawnError> {
        let (Some(placement), Some(cell)) = (cell.body.placement(), cell.me.upgrade()) else {
            return Ok(());
        };
        lock(&placement.state).asked_for = true;
        let mut worker = lock(&self.worker);
        if worker.is_none() {
            let (queue, jobs) = channel();
            let handle = std::thread::Builder::new()
                .name("pyisolate-groups".to_owned())
                .spawn(move || work(&jobs))
                .map_err(|source| SpawnError::Monitor { call: "clone", source })?;
            *worker = Some(Worker { queue, handle });
        }
        if let Some(Worker { queue, .. }) = &*worker {
            // Its receiver lives until the sender is dropped.
            let _ = queue.send(Job::Place(cell));
        }
        Ok(())
    }

    /// Removes the group of a cell whose process ended.
    pub(crate) fn remove(&self, cell: &Arc<CellShared>) {
        if let Some(Worker { queue, .. }) = &*lock(&self.worker) {
            let _ = queue.send(Job::Remove(Arc::clone(cell)));
        }
    }

    /// Removes all groups. Their processes have ended.
    pub(crate) fn close(&self) {
        let worker = lock(&self.worker).take();
        if let Some(Worker { queue, handle }) = worker {
            drop(queue);
            // A thread that panicked has said so on stderr.
            let _ = handle.join();
        }
    }
}

fn work(jobs: &Receiver<Job>) {
    let groups = Cgroups::prepare();
    if let Err(error) = &groups {
        tracing::debug!(%error, "no control groups");
    }
    // Groups whose last process was still being taken down when they were to be removed.
    let mut staying: Vec<Group> = Vec::new();
    loop {
        let job = match staying.is_empty() {
            true => jobs.recv().map_err(RecvTimeoutError::from),
            false => jobs.recv_timeout(REMOVE_AGAIN),
        };
        staying.retain(|group| !group.remove());
        match job {
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                // A killed monitor gives back its memory before it is gone.
                let deadline = Instant::now() + LEAVE_PATIENCE;
                while !staying.is_empty() && Instant::now() < deadline {
                    std::thread::sleep(REMOVE_AGAIN);
                    staying.retain(|group| !group.remove());
                }
                return;
            }
            Ok(Job::Place(cell)) => {
                let Some(placement) = cell.body.placement() else { continue };
                placement.settle(match &groups {
                    Ok(groups) => place(groups, &cell, &mut staying),
                    Err(error) => Err(error.to_string()),
                });
            }
            Ok(Job::Remove(cell)) => {
                if let Some(group) = cell.body.placement().and_then(Placement::take) {
                    cell.add_throttled(group.throttled());
                    staying.extend(Some(group).filter(|group| !group.remove()));
                }
            }
        }
    }
}

/// Makes a cell's group and moves its process there; else why not.
fn place(groups: &Cgroups, cell: &CellShared, staying: &mut Vec<Group>) -> Result<Group, String> {
    let pid = cell.body.pid().ok_or("the process ended before it was moved")?;
    let group = groups.group(cell.number).map_err(|error| error.to_string())?;
    match group.add(pid) {
        Ok(()) => Ok(group),
        Err(error) => {
            // A process that ended on its way is still in some of the folders.
            staying.extend(Some(group).filter(|group| !group.remove()));
            Err(error.to_string())
        }
    }
}

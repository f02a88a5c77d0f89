//! The supervisor's one thread: hears bells and deaths, and looks at the clocks.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pyisolate_abi::message::EXIT_OUT_OF_MEMORY;
use pyisolate_channel::Bells;
use pyisolate_policy::LimitName;
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::time::Timespec;

use crate::body::{End, InterpreterEnd};
use crate::cell::{CellShared, lock};
use crate::error::{Death, SpawnError};
use crate::groups::{Groups, Placement};
use crate::workers::Workers;
use crate::zygote::Zygote;

/// How often the clocks of running operations are looked at. A limit is noticed at most this late;
/// fifty looks a second cost a hundredth of a core with a hundred busy cells.
const TICK: Duration = Duration::from_millis(20);
/// How long the ticking goes on after the last operation: a host that makes calls in a row should
/// not have to wake this thread for each.
const LINGER: Duration = Duration::from_secs(2);

/// How often every live cell is looked at: threads may go on after an operation ended.
const ROUND: Duration = Duration::from_secs(1);

const POKE: u64 = 0;
const CELL: u64 = 1 << 32;
const ZYGOTE: u64 = 2 << 32;

/// Shared between the thread and everybody who registers with it.
#[derive(Debug)]
pub(crate) struct Monitor {
    epoll: OwnedFd,
    poke: OwnedFd,
    cells: Mutex<HashMap<u32, Arc<CellShared>>>,
    zygotes: Mutex<HashMap<u32, Arc<Zygote>>>,
    /// Cells with something in their ring for which they will not ring.
    unread: Mutex<Vec<u32>>,
    asleep: AtomicBool,
    stopped: AtomicBool,
    /// Who does the broker's work for the cells.
    pub(crate) workers: Arc<Workers>,
    /// The control groups of the cells.
    pub(crate) groups: Groups,
}

fn failed(call: &'static str) -> impl Fn(rustix::io::Errno) -> SpawnError {
    move |errno| SpawnError::Monitor { call, source: errno.into() }
}

impl Monitor {
    /// Starts the thread.
    pub(crate) fn start() -> Result<(Arc<Self>, JoinHandle<()>), SpawnError> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(failed("epoll_create"))?;
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let poke = eventfd(0, flags).map_err(failed("eventfd"))?;
        epoll::add(&epoll, &poke, epoll::EventData::new_u64(POKE), epoll::EventFlags::IN)
            .map_err(failed("epoll_ctl"))?;
        let monitor = Arc::new(Self {
            epoll,
            poke,
            cells: Mutex::default(),
            zygotes: Mutex::default(),
            unread: Mutex::default(),
            asleep: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            workers: Arc::default(),
            groups: Groups::default(),
        });
        let run = Arc::clone(&monitor);
        let thread = std::thread::Builder::new()
            .name("pyisolate-monitor".to_owned())
            .spawn(move || run.run())
            .map_err(|source| SpawnError::Monitor { call: "clone", source })?;
        Ok((monitor, thread))
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.wake();
    }

    fn wake(&self) {
        // It fails only when the counter is full, and then the thread is awake.
        let _ = rustix::io::write(&self.poke, &1_u64.to_ne_bytes());
    }

    /// A thread stopped reading a cell's ring before it was empty. It most likely comes back for
    /// more, so the rest is looked at with the next tick, not at once.
    pub(crate) fn read_soon(&self, number: u32) {
        let mut unread = lock(&self.unread);
        if !unread.contains(&number) {
            unread.push(number);
        }
        drop(unread);
        self.watch_closely();
    }

    /// An operation began: its clock has to be looked at.
    pub(crate) fn watch_closely(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    pub(crate) fn add_cell(&self, cell: &Arc<CellShared>) -> Result<(), SpawnError> {
        lock(&self.cells).insert(cell.number, Arc::clone(cell));
        let data = epoll::EventData::new_u64(CELL | u64::from(cell.number));
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        let added = epoll::add(&self.epoll, cell.control.bell_fd(), data, flags);
        added.map_err(|errno| {
            lock(&self.cells).remove(&cell.number);
            failed("epoll_ctl")(errno)
        })
    }

    pub(crate) fn add_zygote(&self, zygote: &Arc<Zygote>) -> Result<(), SpawnError> {
        lock(&self.zygotes).insert(zygote.number, Arc::clone(zygote));
        let data = epoll::EventData::new_u64(ZYGOTE | u64::from(zygote.number));
        let flags = epoll::EventFlags::IN | epoll::EventFlags::RDHUP;
        let added = epoll::add(&self.epoll, zygote.control.as_fd(), data, flags);
        added.map_err(|errno| {
            lock(&self.zygotes).remove(&zygote.number);
            failed("epoll_ctl")(errno)
        })
    }

    fn run(&self) {
        let mut last_busy = Instant::now();
        let mut last_all = Instant::now();
        let mut events = Vec::with_capacity(256);
        while !self.stopped.load(Ordering::Relaxed) {
            let all = last_all.elapsed() >= ROUND;
            if all {
                last_all = Instant::now();
            }
            if self.look_at_clocks(all) || !lock(&self.unread).is_empty() {
                last_busy = Instant::now();
            }
            let round = Timespec { tv_sec: 1, tv_nsec: 0 };
            let tick = Timespec { tv_sec: 0, tv_nsec: TICK.subsec_nanos().into() };
            let idle = last_busy.elapsed() > LINGER && {
                self.asleep.store(true, Ordering::SeqCst);
                // An operation that began before the store would not have woken us.
                !self.look_at_clocks(false)
            };
            let timeout = match idle {
                false => Some(&tick),
                true if lock(&self.cells).is_empty() => None,
                true => Some(&round),
            };
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), timeout) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    // Only a closed or wrong descriptor can do this, which would be a fault here.
                    tracing::error!(%error, "the monitor's event queue failed");
                    std::thread::sleep(TICK);
                }
            }
            self.asleep.store(false, Ordering::SeqCst);
            let unread = std::mem::take(&mut *lock(&self.unread));
            for cell in unread.into_iter().filter_map(|number| self.cell(number)) {
                cell.read_now();
            }
            for event in &events {
                let data = event.data.u64();
                let number = u32::try_from(data & u64::from(u32::MAX)).unwrap_or(0);
                match data & !u64::from(u32::MAX) {
                    CELL => self.cell_event(number),
                    ZYGOTE => self.zygote_event(number),
                    _ => {
                        let _ = rustix::io::read(&self.poke, &mut [0; 8]);
                        last_busy = Instant::now();
                    }
                }
            }
        }
    }

    // --- cells

    fn cell_event(&self, number: u32) {
        let Some(cell) = lock(&self.cells).get(&number).cloned() else { return };
        match cell.control.drain_bell() {
            Ok(Bells::Closed) => self.cell_gone(&cell),
            Ok(_) => cell.read_now(),
            Err(error) => {
                cell.condemn(error.into());
                self.cell_gone(&cell);
            }
        }
    }

    /// The guest's end of the channel is closed: whatever holds the process is no use any more.
    pub(crate) fn cell_gone(&self, cell: &Arc<CellShared>) {
        let _ = epoll::delete(&self.epoll, cell.control.bell_fd());
        if !cell.body.is_handed_over() {
            cell.body.kill();
        }
        if let Err(error) = cell.control.mark_dead() {
            tracing::warn!(%error, "could not wake the threads that wait for a dead cell");
        }
        cell.read_rest();
        cell.body.channel_closed();
        self.bury_if_over(cell);
    }

    /// The zygote reaped the process.
    pub(crate) fn cell_exited(&self, number: u32, status: i32, cpu_ms: u64) {
        let Some(cell) = lock(&self.cells).get(&number).cloned() else { return };
        if let Some(process) = cell.body.as_process() {
            process.ended(status, cpu_ms);
        }
        self.bury_if_over(&cell);
    }

    /// A process that was never born, or whose zygote is gone and cannot say how it ended.
    pub(crate) fn cell_lost(&self, number: u32, death: Death) {
        let Some(cell) = lock(&self.cells).get(&number).cloned() else { return };
        let _ = epoll::delete(&self.epoll, cell.control.bell_fd());
        cell.body.kill();
        let _ = cell.control.mark_dead();
        cell.read_rest();
        cell.body.lost();
        lock(&self.cells).remove(&number);
        cell.bury(death);
        self.groups.remove(&cell);
    }

    pub(crate) fn bury_if_over(&self, cell: &Arc<CellShared>) {
        if let Some(end) = cell.body.over() {
            lock(&self.cells).remove(&cell.number);
            cell.bury(death_of(end, cell));
            self.groups.remove(cell);
        }
    }

    /// Ends what ran too long or grew too large; looks at cells without an operation under way only
    /// if `all` is set. Returns whether any has one.
    fn look_at_clocks(&self, all: bool) -> bool {
        let cells: Vec<_> = lock(&self.cells).values().cloned().collect();
        let mut busy = false;
        for cell in cells {
            let Some(settings) = cell.settings.get() else { continue };
            if cell.body.is_handed_over() {
                continue; // it serves for as long as it is wanted
            }
            let limits = &settings.limits;
            let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
            let overrun = |limit, allowed, reached| {
                if reached >= allowed {
                    cell.condemn(Death::Limit { limit, allowed, reached: Some(reached) });
                }
            };
            let running_since = lock(&cell.state).running_since;
            cell.expire_requests(settings);
            // Where no kernel limit stops new threads, a second is too long.
            let threads = cell.threads_to_count();
            busy |= threads.is_some();
            if let Some(since) = running_since {
                busy = true;
                overrun(LimitName::WallTime, limits.wall_time_ms, milliseconds(since.elapsed()));
            } else if limits.cpu_rate().is_some() {
                // What an operation left running may use a core.
                busy |= cell.is_at_work();
            } else if !all && threads.is_none() {
                continue;
            }
            cell.look_at_streams(settings, all);
            let cpu_ms = cell.body.cpu_ms();
            overrun(LimitName::Cpu, limits.cpu_ms, cpu_ms);
            cell.keep_to_cpu_rate(cpu_ms);
            if let Some(threads) = threads
                && threads > limits.threads
            {
                overrun(LimitName::Threads, limits.threads, threads);
            }
            let open = cell.body.open_files();
            if open > limits.open_files {
                overrun(LimitName::OpenFiles, limits.open_files, open);
            }
            // What the kernel's limit on private writable memory does not count: pages that were
            // made read-only again, and page tables.
            let bytes = cell.body.own_bytes() + settings.session.scratch_used_bytes();
            overrun(LimitName::Memory, limits.mem_bytes, bytes);
        }
        busy
    }

    // --- zygotes

    fn zygote_event(&self, number: u32) {
        let Some(zygote) = lock(&self.zygotes).get(&number).cloned() else { return };
        if let Err(why) = zygote.hear(self) {
            let _ = epoll::delete(&self.epoll, zygote.control.as_fd());
            lock(&self.zygotes).remove(&number);
            for (cell, death) in zygote.end(&why) {
                self.cell_lost(cell, death);
            }
        }
    }

    pub(crate) fn cell(&self, number: u32) -> Option<Arc<CellShared>> {
        lock(&self.cells).get(&number).cloned()
    }

    /// Every cell that is not buried yet.
    pub(crate) fn cells(&self) -> Vec<Arc<CellShared>> {
        lock(&self.cells).values().cloned().collect()
    }
}

/// What its end says, where nobody on this side had a reason of its own.
fn death_of(end: End, cell: &CellShared) -> Death {
    let out_of_memory = |reached| Death::Limit {
        limit: LimitName::Memory,
        allowed: cell.settings.get().map_or(0, |settings| settings.limits.mem_bytes),
        reached,
    };
    let status = match end {
        End::Process(status) => status,
        End::Interpreter(InterpreterEnd::OutOfMemory) => return out_of_memory(None),
        End::Interpreter(end) => return Death::Interpreter(end),
        End::Machine(why) => return Death::Machine(why),
    };
    const SIGKILL: i32 = 9;
    let placement = cell.body.placement();
    let limit = cell.settings.get().map_or(u64::MAX, |settings| settings.limits.cpu_ms);
    let used = cell.body.cpu_ms();
    // As wait(2) lays it out: the signal in the low seven bits, the exit status above.
    match (status & 0x7f, (status >> 8) & 0xff) {
        (0, EXIT_OUT_OF_MEMORY) => out_of_memory(None),
        (0, status) => Death::Exit(status),
        // Threads that went on after the operation: the kernel's own limit on CPU time, a second
        // above the cell's.
        (SIGKILL, _) if used >= limit => {
            Death::Limit { limit: LimitName::Cpu, allowed: limit, reached: Some(used) }
        }
        // Only the kernel kills a cell that nobody here condemned.
        (SIGKILL, _) => match placement.and_then(Placement::out_of_memory) {
            Some(peak_bytes) => out_of_memory(peak_bytes),
            None => Death::Signal(SIGKILL),
        },
        (signal, _) => Death::Signal(signal),
    }
}

//! The supervisor: makes cells, keeps some ready, knows which are alive.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pyisolate_broker::{Broker, Journal, Run};
use pyisolate_channel::control::{Control, Fork};
use pyisolate_channel::{DEFAULT_RING_BYTES, pair};
use pyisolate_microvm::Sharing;
use pyisolate_policy::{CellName, LimitName};

use crate::body::{Body, Interpreters, OnEnd};
use crate::cell::{CellShared, lock};
use crate::configure::Scope;
use crate::confinement::confirm;
use crate::environment::Environment;
use crate::error::{Death, SpawnError};
use crate::event::Denial;
use crate::handle::Cell;
use crate::machines::Machines;
use crate::monitor::Monitor;
use crate::options::{Backend, CellOptions, SupervisorOptions};
use crate::process::Owner;
use crate::programs::Programs;
use crate::require::Requirement;
use crate::template::Template;
use crate::zygote::Zygote;

/// How long a process may take to become a cell. Cold, that is two interpreter starts and the
/// building of a root: well under a second, unless the machine is starved.
pub(crate) const BIRTH_PATIENCE: Duration = Duration::from_secs(30);
/// How long shutting down waits for interpreters to be taken apart: some ten milliseconds each.
const UNMAKE_PATIENCE: Duration = Duration::from_secs(10);
/// How long a pool that is half full waits before it forks again: the caller who just took a cell
/// is about to use it, and a fork on the other core would slow that down.
const POOL_BREATH: Duration = Duration::from_millis(1);
/// How long the pool waits before it tries again to fill up after a failure.
const POOL_RETRY: Duration = Duration::from_millis(500);

/// How often something is made anew where what it was to be forked from was killed under it. Each
/// time there is a new launcher; whoever kills so many within one call means it.
const TRIES: usize = 4;

/// Owns cells. Dropping it ends them all.
#[derive(Debug)]
pub struct Supervisor {
    pub(crate) inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    owner: Owner,
    pub(crate) environment: Environment,
    pub(crate) monitor: Arc<Monitor>,
    pub(crate) broker: Arc<Broker>,
    programs: Arc<Programs>,
    /// Until the supervisor is shut down: who listens may be whoever holds it.
    pub(crate) denials: Mutex<Option<SyncSender<Denial>>>,
    pub(crate) require: Requirement,
    pub(crate) journal: Option<Arc<Journal>>,
    token: Mutex<Option<Vec<u8>>>,
    zygote: Mutex<Option<Arc<Zygote>>>,
    /// `None`: the cell of that name is being made.
    names: Mutex<HashMap<CellName, Option<Weak<CellShared>>>>,
    next_number: AtomicU32,
    interpreters: Option<Arc<dyn Interpreters>>,
    pub(crate) machines: Machines,
    pool: Mutex<Vec<Arc<CellShared>>>,
    pool_of: Backend,
    pool_size: usize,
    pool_changed: Condvar,
    shut_down: AtomicBool,
}

impl Supervisor {
    /// Starts a supervisor. Its zygote starts with the first cell, or at once to fill the pool.
    ///
    /// # Errors
    /// [`SpawnError::Monitor`] if the kernel has no thread or descriptor left.
    pub fn new(options: SupervisorOptions) -> Result<Self, SpawnError> {
        let (monitor, thread) = Monitor::start()?;
        let programs = Arc::new(Programs::default());
        let mut broker = options.broker;
        broker.runner.get_or_insert_with(|| Arc::clone(&programs) as Arc<dyn Run>);
        let inner = Arc::new(Inner {
            owner: Owner::this(),
            environment: options.environment,
            monitor,
            broker: Arc::new(Broker::new(broker)),
            programs,
            denials: Mutex::new(options.denials),
            require: options.require,
            journal: options.journal,
            token: Mutex::default(),
            zygote: Mutex::default(),
            names: Mutex::default(),
            next_number: AtomicU32::new(1),
            interpreters: options.interpreters,
            machines: Machines::new(options.machines),
            pool: Mutex::default(),
            pool_of: options.pool_of,
            pool_size: options.warm_pool,
            pool_changed: Condvar::new(),
            shut_down: AtomicBool::new(false),
        });
        let mut threads = vec![thread];
        if options.warm_pool > 0 {
            let keeper = Arc::clone(&inner);
            let thread = std::thread::Builder::new()
                .name("pyisolate-pool".to_owned())
                .spawn(move || keeper.keep_pool())
                .map_err(|source| SpawnError::Monitor { call: "clone", source })?;
            threads.push(thread);
        }
        Ok(Self { inner, threads: Mutex::new(threads) })
    }

    /// Makes a cell: from the pool if it has one ready, else by forking the zygote, or the template
    /// if one is given.
    ///
    /// # Errors
    /// [`SpawnError`]; no process is left behind.
    pub fn spawn(
        &self,
        options: CellOptions,
        template: Option<&Template>,
    ) -> Result<Cell, SpawnError> {
        options.limits.check()?;
        if options.backend == Backend::Subinterpreter && options.limits.cpu_rate().is_some() {
            return Err(SpawnError::LimitOfProcess(LimitName::CpuRate));
        }
        let inner = &self.inner;
        let name = options.name.clone();
        inner.reserve(&name)?;
        let made = match template {
            None => again_if_killed(|| {
                if options.backend == Backend::Microvm {
                    let base = inner.machine_base()?;
                    base.check(&base.snapshot, &options.limits)?;
                }
                let cell = match inner.take_ready(options.backend) {
                    Some(cell) => cell,
                    None => inner.make_of(options.backend)?,
                };
                inner.configure(&cell, options.clone(), Scope::Cell)?;
                Ok(cell)
            }),
            Some(template) => again_if_killed(|| template.spawn(inner, options.clone())),
        };
        match made {
            Ok(cell) => {
                lock(&inner.names).insert(name, Some(Arc::downgrade(&cell)));
                Ok(Cell::new(cell))
            }
            Err(error) => {
                lock(&inner.names).remove(&name);
                Err(error)
            }
        }
    }

    /// The names of the cells that are alive.
    #[must_use]
    pub fn list_active(&self) -> Vec<String> {
        let mut names = lock(&self.inner.names);
        names.retain(|_, cell| is_taken(cell.as_ref()));
        let alive = names.iter().filter(|(_, cell)| cell.is_some());
        let mut names: Vec<_> = alive.map(|(name, _)| name.to_string()).collect();
        names.sort_unstable();
        names
    }

    /// How many cells are ready in the pool.
    #[must_use]
    pub fn pool_ready(&self) -> usize {
        lock(&self.inner.pool).len()
    }

    pub(crate) fn token(&self) -> &Mutex<Option<Vec<u8>>> {
        &self.inner.token
    }

    /// The cells that are alive and somebody's.
    pub(crate) fn cells(&self) -> Vec<Arc<CellShared>> {
        let names = lock(&self.inner.names);
        let cells = names.values().filter_map(|cell| cell.as_ref()?.upgrade());
        cells.filter(|cell| !is_dead(cell)).collect()
    }

    /// Ends every cell, template and zygote, and waits until they are gone. Can be called twice.
    pub fn shutdown(&self) {
        let inner = &self.inner;
        if !inner.owner.is_this() {
            return; // a fork's copy: the cells are the original's, and so are the threads
        }
        inner.shut_down.store(true, Ordering::SeqCst);
        inner.pool_changed.notify_all();
        let cells = inner.monitor.cells();
        for cell in &cells {
            cell.condemn(Death::Closed);
        }
        for cell in &cells {
            cell.await_death();
        }
        // CPython must not end while an interpreter is being made or taken apart.
        if let Some(interpreters) = &inner.interpreters {
            interpreters.close(UNMAKE_PATIENCE);
        }
        lock(&inner.pool).clear();
        let zygote = lock(&inner.zygote).take();
        if let Some(zygote) = zygote {
            zygote.shut_down();
            // The monitor hears the end and reaps the launcher.
            let deadline = Instant::now() + Duration::from_secs(5);
            while zygote.ended().is_none() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        inner.monitor.groups.close();
        lock(&inner.denials).take();
        inner.monitor.workers.stop();
        inner.monitor.stop();
        for thread in lock(&self.threads).drain(..) {
            // A thread that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Makes something, and makes it again where somebody killed the process that it was to come from, or
/// its own before anybody had it: the caller notices nothing but time.
pub(crate) fn again_if_killed<T>(
    make: impl Fn() -> Result<T, SpawnError>,
) -> Result<T, SpawnError> {
    for _ in 1..TRIES {
        match make() {
            Err(error) if error.is_of_a_kill() => {
                tracing::warn!(%error, "killed while it was made: making it anew");
            }
            made => return made,
        }
    }
    make()
}

/// Whether an entry of the table of names stands for a cell that is alive or being made.
fn is_taken(cell: Option<&Weak<CellShared>>) -> bool {
    cell.is_none_or(|cell| cell.upgrade().is_some_and(|cell| !is_dead(&cell)))
}

fn is_dead(cell: &CellShared) -> bool {
    lock(&cell.state).death.is_some()
}

impl Inner {
    pub(crate) fn is_shut_down(&self) -> bool {
        self.shut_down.load(Ordering::SeqCst)
    }

    pub(crate) fn number(&self) -> u32 {
        self.next_number.fetch_add(1, Ordering::Relaxed)
    }

    /// Holds a name for a cell that is being made.
    fn reserve(&self, name: &CellName) -> Result<(), SpawnError> {
        if !self.owner.is_this() {
            return Err(SpawnError::Forked);
        }
        if self.shut_down.load(Ordering::SeqCst) {
            return Err(SpawnError::ShutDown);
        }
        let mut names = lock(&self.names);
        if names.get(name).is_some_and(|cell| is_taken(cell.as_ref())) {
            return Err(SpawnError::Duplicate(name.clone()));
        }
        // Names of dead cells are dropped here, so that the table grows with the live ones alone.
        names.retain(|_, cell| is_taken(cell.as_ref()));
        names.insert(name.clone(), None);
        Ok(())
    }

    /// The zygote that serves; a new one if it ended or none was started yet.
    pub(crate) fn zygote(&self) -> Result<Arc<Zygote>, SpawnError> {
        let mut current = lock(&self.zygote);
        if self.shut_down.load(Ordering::SeqCst) {
            return Err(SpawnError::ShutDown);
        }
        if let Some(zygote) = &*current
            && !zygote.is_gone()
        {
            return Ok(Arc::clone(zygote));
        }
        let zygote = Zygote::launch(self.number(), &self.environment, &self.monitor)?;
        self.programs.use_launcher(zygote.programs.clone());
        *current = Some(Arc::clone(&zygote));
        Ok(zygote)
    }

    /// Forks a process off a zygote and waits until it is confined.
    pub(crate) fn make(
        &self,
        zygote: &Zygote,
        template: Option<Control>,
    ) -> Result<Arc<CellShared>, SpawnError> {
        let (end, guest) = pair(DEFAULT_RING_BYTES)?;
        let number = self.number();
        let is_template = template.is_some();
        let cell = CellShared::new(number, end, Body::process(), Arc::clone(&self.monitor));
        self.monitor.add_cell(&cell)?;
        let fork = Fork {
            number,
            memory: guest.memory,
            socket: guest.socket,
            control: template.map(Into::into),
        };
        let forked = zygote.fork(&fork);
        // The guest's end is the zygote's alone from here on.
        drop(fork);
        if let Err(error) = forked {
            self.monitor.cell_lost(number, zygote.death_of_unforked(&error));
        }
        let cell = self.await_ready(cell)?;
        // A template's cells would be born into its group.
        if !is_template {
            self.monitor.groups.place(&cell).inspect_err(|_| cell.condemn(Death::Killed))?;
        }
        Ok(cell)
    }

    /// Waits until a new cell is confined.
    pub(crate) fn await_ready(&self, cell: Arc<CellShared>) -> Result<Arc<CellShared>, SpawnError> {
        let deadline = Instant::now() + BIRTH_PATIENCE;
        match cell.wait(Some(deadline), |state| state.ready.is_some().then_some(())) {
            Ok(Some(())) => {
                if let Some(process) = cell.body.as_process() {
                    if !process.wait_until_born(BIRTH_PATIENCE) {
                        cell.condemn(Death::Killed);
                        return Err(SpawnError::Unborn(cell.await_death()));
                    }
                    let seen = process.proc_status();
                    if let (Some(seen), Some(report)) = (seen, &mut lock(&cell.state).ready) {
                        confirm(report, &seen);
                    }
                }
                Ok(cell)
            }
            Ok(None) => {
                cell.condemn(Death::Killed);
                Err(SpawnError::Slow(BIRTH_PATIENCE))
            }
            Err(death) => Err(SpawnError::Unborn(death)),
        }
    }

    /// Makes a cell that nobody has claimed yet.
    fn make_of(&self, backend: Backend) -> Result<Arc<CellShared>, SpawnError> {
        match backend {
            Backend::Process => self.zygote().and_then(|zygote| self.make(&zygote, None)),
            Backend::Subinterpreter => self.make_interpreter(),
            Backend::Microvm => {
                let base = self.machine_base()?;
                self.make_machine(&base.vmm, &base.snapshot, Sharing::Private)
            }
        }
    }

    /// Starts a thread with an interpreter and waits until its runtime is ready.
    fn make_interpreter(&self) -> Result<Arc<CellShared>, SpawnError> {
        let interpreters = self.interpreters.as_ref().ok_or(SpawnError::NoInterpreters)?;
        let (end, guest) = pair(DEFAULT_RING_BYTES)?;
        let body = Body::interpreter();
        let cell = CellShared::new(self.number(), end, body, Arc::clone(&self.monitor));
        self.monitor.add_cell(&cell)?;
        let ended = Weak::clone(&cell.me);
        let on_end: OnEnd = Box::new(move || {
            if let Some(cell) = ended.upgrade() {
                cell.monitor.cell_gone(&cell);
            }
        });
        match (interpreters.start(guest, on_end), &cell.body) {
            (Ok(interpreter), Body::Interpreter(tenant)) => tenant.move_in(interpreter),
            (Ok(interpreter), _) => interpreter.stop(),
            (Err(error), _) => {
                self.monitor.cell_lost(cell.number, Death::Unborn(error.to_string()));
                return Err(SpawnError::Interpreter(error));
            }
        }
        // Shutting down condemned what it knew of. This cell it may not have known.
        if self.shut_down.load(Ordering::SeqCst) {
            cell.condemn(Death::Closed);
            return Err(SpawnError::ShutDown);
        }
        self.await_ready(cell)
    }

    // --- the pool

    fn take_ready(&self, backend: Backend) -> Option<Arc<CellShared>> {
        if backend != self.pool_of {
            return None;
        }
        let cell = loop {
            let cell = lock(&self.pool).pop()?;
            if !is_dead(&cell) && !cell.body.has_exited() {
                break cell;
            }
        };
        self.pool_changed.notify_all();
        Some(cell)
    }

    /// Keeps the pool full, in a thread of its own.
    fn keep_pool(&self) {
        loop {
            let mut pool = lock(&self.pool);
            while pool.len() >= self.pool_size && !self.shut_down.load(Ordering::SeqCst) {
                pool = match self.pool_changed.wait_timeout(pool, Duration::from_secs(1)) {
                    Ok((pool, _)) => pool,
                    Err(poisoned) => poisoned.into_inner().0,
                };
                pool.retain(|cell| !is_dead(cell));
            }
            let half_full = 2 * pool.len() >= self.pool_size;
            drop(pool);
            if self.shut_down.load(Ordering::SeqCst) {
                return;
            }
            if half_full {
                std::thread::sleep(POOL_BREATH);
            }
            match self.make_of(self.pool_of) {
                Ok(cell) => {
                    if let Some(placement) = cell.body.placement() {
                        placement.wait();
                    }
                    lock(&self.pool).push(cell);
                }
                Err(SpawnError::ShutDown) => return,
                Err(error) => {
                    tracing::warn!(%error, "the pool could not be filled");
                    std::thread::sleep(POOL_RETRY);
                }
            }
        }
    }
}

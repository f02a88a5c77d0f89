//! How much memory an interpreter has: counted where CPython asks for it, by the thread that asks.
//!
//! Counted are the arenas out of which small objects come and every block of the raw domain, which
//! is where larger objects come from. So small allocations cost nothing more than before, and the
//! host's pay for one look at a thread-local pointer, in the two places where it asks the C library.
//! What extension modules take from the C library by themselves is not counted.
#![expect(unsafe_code, reason = "stands between CPython and its allocators")]

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::c_void;
use std::hash::{BuildHasherDefault, Hasher};
use std::ptr::null_mut;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use crate::capi::{self, Allocator, ArenaAllocator};

/// What one interpreter has taken and may take, in bytes.
#[derive(Debug)]
pub(crate) struct Account {
    /// Below zero for a moment if it gives back what the host's thread had taken.
    used: AtomicI64,
    max: AtomicU64,
}

/// Spreads addresses. They are the C library's, not the guest's to choose.
#[derive(Default)]
struct BlockHasher(u64);

impl Hasher for BlockHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        // Fibonacci hashing: the golden ratio of 64 bits. The lowest four bits of a block are zero.
        self.0 =
            (self.0 ^ (address as u64 >> 4)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Account {
    pub(crate) fn new() -> Self {
        Self { used: AtomicI64::new(0), max: AtomicU64::new(u64::MAX) }
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        u64::try_from(self.used.load(Ordering::Relaxed)).unwrap_or(0)
    }

    pub(crate) fn set_max_bytes(&self, max: u64) {
        self.max.store(max, Ordering::Relaxed);
    }

    /// Only the interpreter's own thread adds, so there is nothing to race with.
    fn has_room(&self, bytes: usize) -> bool {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.used_bytes().saturating_add(bytes) <= self.max.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.used.fetch_add(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    fn subtract(&self, bytes: usize) {
        self.used.fetch_sub(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
    }
}

impl Account {
    /// Counts a new block of this thread's, or null.
    fn enter(&self, block: *mut c_void, bytes: usize) {
        if !block.is_null() && !is_elsewhere() {
            self.add(bytes);
            BLOCKS.with_borrow_mut(|blocks| blocks.insert(block as usize, bytes));
        }
    }

    /// Forgets a block, if it was counted.
    fn leave(&self, block: *mut c_void) {
        if let Some(bytes) = BLOCKS.with_borrow_mut(|blocks| blocks.remove(&(block as usize))) {
            self.subtract(bytes);
        }
    }
}

thread_local! {
    /// The account that this thread's allocations go to; null on the host's threads.
    static ACCOUNT: Cell<*const Account> = const { Cell::new(std::ptr::null()) };
    /// The arenas that this thread's interpreter has.
    static ARENAS: RefCell<Vec<(*mut c_void, usize)>> = const { RefCell::new(Vec::new()) };
    /// The blocks of the raw domain that it has, with what was asked for.
    static BLOCKS: RefCell<HashMap<usize, usize, BuildHasherDefault<BlockHasher>>> =
        RefCell::default();
}

/// Counts this thread's allocations until the value is dropped.
pub(crate) struct Counting<'a>(std::marker::PhantomData<&'a Account>);

impl<'a> Counting<'a> {
    pub(crate) fn on(account: &'a Account) -> Self {
        ACCOUNT.set(account);
        Self(std::marker::PhantomData)
    }
}

impl Counting<'_> {
    /// Gives back what the interpreter left behind. CPython keeps an interpreter's whole allocator, two
    /// megabytes and the arenas, as soon as one object was never freed, and interned strings never are.
    ///
    /// # Safety
    /// The interpreter for which this thread allocated is gone, and nothing refers to what was in it:
    /// no module was loaded that keeps objects for the whole process (`guard` sees to that).
    pub(crate) unsafe fn free_rest(&self) {
        let native = native();
        for (arena, size) in ARENAS.take() {
            // SAFETY: an arena that was allocated and not freed; the caller's promise for the rest.
            unsafe { (native.arenas.free)(native.arenas.context, arena, size) };
        }
        for block in BLOCKS.take().into_keys() {
            // SAFETY: a block that was allocated and not freed; the caller's promise for the rest.
            unsafe { (native.raw.free)(native.raw.context, block as *mut c_void) };
        }
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        ACCOUNT.set(std::ptr::null());
    }
}

/// Whether this thread is in another interpreter for a moment: CPython starts extension modules in the main
/// one first. What it takes there stays there.
fn is_elsewhere() -> bool {
    // SAFETY: may be called at any time; a state that is not null is this thread's own.
    let here = unsafe {
        let state = capi::PyThreadState_GetUnchecked();
        if state.is_null() { return false } else { capi::PyThreadState_GetInterpreter(state) }
    };
    // SAFETY: the main interpreter is there as long as CPython is.
    here == unsafe { capi::PyInterpreterState_Main() }
}

fn account<'a>() -> Option<&'a Account> {
    // SAFETY: null, or the account of a `Counting` on this thread, which outlives the pointer.
    unsafe { ACCOUNT.get().as_ref() }
}

/// CPython's own allocators, as they were before the first cell.
struct Native {
    raw: Allocator,
    arenas: ArenaAllocator,
}

// SAFETY: function pointers, and contexts that CPython itself uses from every thread.
unsafe impl Send for Native {}
// SAFETY: as above.
unsafe impl Sync for Native {}

static NATIVE: OnceLock<Native> = OnceLock::new();

/// Puts the counters between CPython and its allocators, once for the process.
///
/// The host's other threads may allocate meanwhile, and read the table while it changes. Each entry
/// of the old and the new one does the same with the same context, so any mixture of them works.
pub(crate) fn install() {
    if NATIVE.get().is_some() {
        return;
    }
    let get = |domain| {
        let mut allocator = std::mem::MaybeUninit::uninit();
        // SAFETY: a domain that CPython has, and room for its allocator.
        unsafe {
            capi::PyMem_GetAllocator(domain, allocator.as_mut_ptr());
            allocator.assume_init()
        }
    };
    let raw: Allocator = get(capi::DOMAINS[0]);
    let mut arenas = std::mem::MaybeUninit::uninit();
    // SAFETY: room for the allocator.
    let arenas = unsafe {
        capi::PyObject_GetArenaAllocator(arenas.as_mut_ptr());
        arenas.assume_init()
    };
    if NATIVE.set(Native { raw, arenas }).is_err() {
        return;
    }
    let counted = Allocator { malloc, calloc, realloc, free, ..raw };
    for domain in capi::DOMAINS {
        // The small-object allocator asks the raw domain in turn. Where it is switched off
        // (PYTHONMALLOC=malloc) the other domains are the raw one by another name.
        if std::ptr::fn_addr_eq(get(domain).malloc, raw.malloc) {
            // SAFETY: the functions below do what the native ones do, from any thread.
            unsafe { capi::PyMem_SetAllocator(domain, &raw const counted) };
        }
    }
    let counted = ArenaAllocator { alloc: arena_alloc, free: arena_free, ..arenas };
    // SAFETY: as above.
    unsafe { capi::PyObject_SetArenaAllocator(&raw const counted) };
}

fn native() -> &'static Native {
    // Set before any of the functions below can be called.
    NATIVE.get().expect("the native allocators are known")
}

unsafe extern "C" fn malloc(context: *mut c_void, size: usize) -> *mut c_void {
    let raw = &native().raw;
    let Some(account) = account() else {
        // SAFETY: CPython's own call, passed on.
        return unsafe { (raw.malloc)(context, size) };
    };
    if !account.has_room(size) {
        return null_mut();
    }
    // SAFETY: CPython's own call, passed on.
    let block = unsafe { (raw.malloc)(context, size) };
    account.enter(block, size);
    block
}

unsafe extern "C" fn calloc(context: *mut c_void, count: usize, size: usize) -> *mut c_void {
    let raw = &native().raw;
    let Some(account) = account() else {
        // SAFETY: CPython's own call, passed on.
        return unsafe { (raw.calloc)(context, count, size) };
    };
    if !account.has_room(count.saturating_mul(size)) {
        return null_mut();
    }
    // SAFETY: CPython's own call, passed on.
    let block = unsafe { (raw.calloc)(context, count, size) };
    account.enter(block, count.saturating_mul(size));
    block
}

unsafe extern "C" fn realloc(context: *mut c_void, block: *mut c_void, size: usize) -> *mut c_void {
    let raw = &native().raw;
    let Some(account) = account() else {
        // SAFETY: CPython's own call, passed on.
        return unsafe { (raw.realloc)(context, block, size) };
    };
    let before = BLOCKS.with_borrow(|blocks| blocks.get(&(block as usize)).copied().unwrap_or(0));
    if size > before && !account.has_room(size - before) {
        return null_mut();
    }
    // SAFETY: CPython's own call, passed on.
    let moved = unsafe { (raw.realloc)(context, block, size) };
    if !moved.is_null() {
        account.leave(block);
        account.enter(moved, size);
    }
    moved
}

unsafe extern "C" fn free(context: *mut c_void, block: *mut c_void) {
    if let Some(account) = account() {
        account.leave(block);
    }
    // SAFETY: CPython's own call, passed on.
    unsafe { (native().raw.free)(context, block) };
}

unsafe extern "C" fn arena_alloc(context: *mut c_void, size: usize) -> *mut c_void {
    let arenas = &native().arenas;
    let Some(account) = account() else {
        // SAFETY: CPython's own call, passed on.
        return unsafe { (arenas.alloc)(context, size) };
    };
    if !account.has_room(size) {
        return null_mut();
    }
    // SAFETY: CPython's own call, passed on.
    let arena = unsafe { (arenas.alloc)(context, size) };
    if !arena.is_null() && !is_elsewhere() {
        account.add(size);
        ARENAS.with_borrow_mut(|arenas| arenas.push((arena, size)));
    }
    arena
}

unsafe extern "C" fn arena_free(context: *mut c_void, arena: *mut c_void, size: usize) {
    if let Some(account) = account() {
        let known = ARENAS.with_borrow_mut(|arenas| {
            let found = arenas.iter().position(|(known, _)| *known == arena);
            found.map(|index| arenas.swap_remove(index))
        });
        if known.is_some() {
            account.subtract(size);
        }
    }
    // SAFETY: CPython's own call, passed on.
    unsafe { (native().arenas.free)(context, arena, size) };
}

//! The shared mapping of a channel's memory file: all accesses to memory that the peer can write.
#![expect(unsafe_code, reason = "maps a memory file and reads and writes it by address")]

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::layout::{
    Direction, GUEST_CPU_OFFSET, HOST_CPU_OFFSET, MAGIC, MAGIC_OFFSET, RING_BYTES_OFFSET, Word,
    data_offset, is_ring_size, memory_bytes,
};

/// A channel's memory file, mapped for reading and writing, and for as long as this value lives.
///
/// The peer may write to any byte of it at any time. Hence nothing here hands out a reference to
/// data, and every access is atomic; the crate's documentation says what that rests on.
#[derive(Debug)]
pub(crate) struct SharedMap {
    /// Start of `memory_bytes(ring_bytes)` mapped bytes, on a page boundary.
    base: NonNull<u8>,
    /// A ring size that `is_ring_size` accepts.
    ring_bytes: u32,
}

// SAFETY: the mapping belongs to the process, not to a thread, and all accesses are atomic.
unsafe impl Send for SharedMap {}
// SAFETY: as above.
unsafe impl Sync for SharedMap {}

impl SharedMap {
    /// Maps a memory file that is at least `memory_bytes(ring_bytes)` long and sealed against
    /// shrinking (else an access could end in `SIGBUS`: no undefined behaviour, but no life either).
    pub(crate) fn new(memory: BorrowedFd<'_>, ring_bytes: u32) -> io::Result<Self> {
        assert!(is_ring_size(ring_bytes), "the caller checks the size of the ring");
        // SAFETY: the address is chosen by the kernel (null hint, no MAP_FIXED), so that no existing
        // mapping is replaced. The length is not zero.
        let base = unsafe {
            mmap(
                null_mut(),
                memory_bytes(ring_bytes),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                memory,
                0,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, ring_bytes })
    }

    /// Capacity of each ring, in bytes.
    pub(crate) fn ring_bytes(&self) -> u32 {
        self.ring_bytes
    }

    /// Marks a new file as ours.
    pub(crate) fn write_identity(&self) {
        self.at_u64(MAGIC_OFFSET).store(MAGIC, Ordering::Relaxed);
        self.at_u32(RING_BYTES_OFFSET).store(self.ring_bytes, Ordering::Release);
    }

    /// The magic number and the capacity that the file claims.
    pub(crate) fn read_identity(&self) -> (u64, u32) {
        let ring_bytes = self.at_u32(RING_BYTES_OFFSET).load(Ordering::Acquire);
        (self.at_u64(MAGIC_OFFSET).load(Ordering::Relaxed), ring_bytes)
    }

    /// One of the words that govern a ring.
    pub(crate) fn word(&self, direction: Direction, word: Word) -> &AtomicU32 {
        self.at_u32(word.offset(direction))
    }

    /// The note on which CPU the host watches.
    pub(crate) fn host_cpu(&self) -> &AtomicU32 {
        self.at_u32(HOST_CPU_OFFSET)
    }

    /// The note on which CPU the guest watches.
    pub(crate) fn guest_cpu(&self) -> &AtomicU32 {
        self.at_u32(GUEST_CPU_OFFSET)
    }

    /// The word of ring data at a position. All positions are valid: they wrap around the ring.
    pub(crate) fn data(&self, direction: Direction, position: u32) -> &AtomicU64 {
        // The mask keeps the offset inside the ring, since its size is a power of two, and on a
        // multiple of 8.
        let within = position & (self.ring_bytes - 1) & !7;
        self.at_u64(data_offset(direction, self.ring_bytes) + within as usize)
    }

    /// Copies `length_bytes` of ring data, from a position onwards, over whatever `out` holds.
    pub(crate) fn copy_out(
        &self,
        direction: Direction,
        position: u32,
        length_bytes: u32,
        out: &mut Vec<u8>,
    ) {
        let length_bytes = length_bytes as usize;
        out.clear();
        out.reserve(length_bytes.next_multiple_of(8));
        let mut words = out.spare_capacity_mut().chunks_exact_mut(8);
        let mut position = position;
        for _ in 0..length_bytes.div_ceil(8) {
            let word = self.data(direction, position).load(Ordering::Relaxed).to_ne_bytes();
            if let Some(place) = words.next() {
                place.copy_from_slice(&word.map(std::mem::MaybeUninit::new));
            }
            position = position.wrapping_add(8);
        }
        // SAFETY: the capacity is at least `length_bytes`, rounded up to words, by the `reserve`
        // above, and the loop has initialised that many whole words from the start: the iterator has
        // as many places, because the spare capacity of an empty vector is its whole capacity.
        unsafe { out.set_len(length_bytes) };
    }

    fn at_u32(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4) && offset + 4 <= memory_bytes(self.ring_bytes));
        // SAFETY: by the assertion the four bytes lie in the mapping and the address is aligned (the
        // base is on a page boundary). The mapping lives as long as `self`, hence as long as the
        // reference. All accesses from this process are atomic and of this width at this offset; an
        // `AtomicU32` makes no claim about its value, so that writes from elsewhere are allowed.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }

    fn at_u64(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= memory_bytes(self.ring_bytes));
        // SAFETY: as in `at_u32`, with eight bytes.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(offset).cast()) }
    }
}

impl Drop for SharedMap {
    fn drop(&mut self) {
        // SAFETY: the range is the one that `new` mapped, it is unmapped once, and no reference into
        // it outlives `self`. An error would mean that the range is not a mapping, and leaves it.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), memory_bytes(self.ring_bytes)) };
    }
}

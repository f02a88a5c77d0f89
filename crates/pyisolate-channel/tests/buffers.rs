//! Large buffers: what the host has begun to read, nobody changes.
#![expect(unsafe_code, reason = "a hostile guest maps what it is given")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::c_void;
use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::ptr::null_mut;

use pyisolate_channel::{ChannelError, SharedBuffer, Violation, fill_buffer, map_buffer};
use rustix::fs::{FallocateFlags, SealFlags, fallocate, fcntl_add_seals, ftruncate};
use rustix::io::{Errno, pwrite};
use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap, mprotect, munmap};

const LEN: usize = 3 * 4096 + 100;

fn pattern() -> Vec<u8> {
    (0..LEN).map(|index| (index % 251) as u8).collect()
}

fn guests_copy(buffer: &impl AsFd) -> OwnedFd {
    buffer.as_fd().try_clone_to_owned().unwrap()
}

fn map(memory: &OwnedFd, protection: ProtFlags) -> Result<*mut c_void, Errno> {
    // SAFETY: the kernel chooses the address, so no mapping is replaced.
    unsafe { mmap(null_mut(), LEN, protection, MapFlags::SHARED, memory, 0) }
}

fn unmap(address: *mut c_void) {
    // SAFETY: the range is a mapping made by `map`, and nothing refers to it.
    unsafe { munmap(address, LEN).unwrap() };
}

#[test]
fn a_guest_fills_and_the_host_reads() {
    let buffer = SharedBuffer::create(LEN).unwrap();
    let pattern = pattern();
    fill_buffer(guests_copy(&buffer), &[&pattern[..10], &[], &pattern[10..5000], &pattern[5000..]])
        .unwrap();
    let mut mapping = buffer.seal_and_map().unwrap();
    assert!(mapping[..] == pattern);
    mapping[0] = 99;
    assert_eq!(mapping[0], 99, "the host's copy is writable");
    assert!(mapping[1..] == pattern[1..]);
}

#[test]
fn the_host_fills_and_guests_have_copies() {
    let buffer = SharedBuffer::create(LEN).unwrap();
    let pattern = pattern();
    buffer.write_at(0, &pattern[..7000]).unwrap();
    buffer.write_at(7000, &pattern[7000..]).unwrap();
    let sealed = buffer.seal_for_guest().unwrap();
    let mut first = map_buffer(guests_copy(&sealed), LEN).unwrap();
    let second = map_buffer(guests_copy(&sealed), LEN).unwrap();
    assert!(first[..] == pattern);
    first[5] = 99;
    assert!(first[5] == 99 && second[..] == pattern);
}

#[test]
fn a_buffer_of_no_bytes_is_a_buffer() {
    let buffer = SharedBuffer::create(0).unwrap();
    fill_buffer(guests_copy(&buffer), &[]).unwrap();
    assert!(buffer.seal_and_map().unwrap().is_empty());
}

#[test]
fn a_guest_cannot_change_the_size() {
    let buffer = SharedBuffer::create(LEN).unwrap();
    let copy = guests_copy(&buffer);
    assert_eq!(ftruncate(&copy, 0), Err(Errno::PERM));
    assert_eq!(ftruncate(&copy, LEN as u64 + 1), Err(Errno::PERM));
    assert!(matches!(
        fill_buffer(copy, &[&vec![1; LEN], b"one more"]),
        Err(ChannelError::WriteBuffer { offset_bytes, .. }) if offset_bytes == LEN as u64
    ));
}

#[test]
fn a_guest_maps_only_what_is_sealed_and_of_the_size_it_was_told() {
    let buffer = SharedBuffer::create(LEN).unwrap();
    let error = map_buffer(guests_copy(&buffer), LEN).unwrap_err();
    assert!(matches!(error, ChannelError::MemoryUnsealed { .. }), "{error}");
    let sealed = buffer.seal_for_guest().unwrap();
    let error = map_buffer(guests_copy(&sealed), LEN + 1).unwrap_err();
    assert!(matches!(error, ChannelError::MemorySize { .. }), "{error}");
}

/// All the ways by which a guest could change a byte: each returns what the kernel said.
fn attacks(memory: &OwnedFd) -> Vec<(&'static str, Result<(), Errno>)> {
    let written = |result: Result<usize, Errno>| result.map(drop);
    let path = format!("/proc/self/fd/{}", memory.as_raw_fd());
    let reopened = OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| file.write_at(b"!", 0))
        .map_err(|error| Errno::from_io_error(&error).unwrap());
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    vec![
        ("pwrite", written(pwrite(memory, b"!", 0))),
        ("pwrite on a copy", written(pwrite(memory.try_clone().unwrap(), b"!", 0))),
        ("reopened through /proc", written(reopened)),
        ("a writable shared mapping", map(memory, ProtFlags::READ | ProtFlags::WRITE).map(unmap)),
        ("a readable shared mapping made writable", {
            map(memory, ProtFlags::READ).and_then(|address| {
                // SAFETY: the range is the mapping just made, and nothing refers to it.
                let result =
                    unsafe { mprotect(address, LEN, MprotectFlags::READ | MprotectFlags::WRITE) };
                unmap(address);
                result
            })
        }),
        ("a punched hole", fallocate(memory, hole, 0, 4096)),
    ]
}

#[test]
fn after_sealing_there_is_no_way_to_change_a_byte() {
    let buffer = SharedBuffer::create(LEN).unwrap();
    let copy = guests_copy(&buffer);
    // The control: before, every way is open.
    for (way, result) in attacks(&copy) {
        assert_eq!(result, Ok(()), "{way}");
    }
    fill_buffer(copy.try_clone().unwrap(), &[&pattern()]).unwrap();
    let mapping = buffer.seal_and_map().unwrap();
    for (way, result) in attacks(&copy) {
        assert!(matches!(result, Err(Errno::PERM | Errno::ACCESS)), "{way}: {result:?}");
    }
    assert_eq!(fcntl_add_seals(&copy, SealFlags::GROW), Err(Errno::PERM), "nor the seals");
    assert!(mapping[..] == pattern());
}

#[test]
fn a_mapping_that_the_guest_kept_is_a_violation() {
    let buffer = SharedBuffer::create(LEN).unwrap();
    let copy = guests_copy(&buffer);
    let kept = map(&copy, ProtFlags::READ | ProtFlags::WRITE).unwrap();
    drop(copy);
    let error = buffer.seal_and_map().unwrap_err();
    unmap(kept);
    let expected = Violation::BufferStillWritable { len_bytes: LEN };
    assert!(matches!(error, ChannelError::Violation(found) if found == expected), "{error}");
    assert!(!error.channel_survives());
}

#[test]
fn a_guest_that_seals_the_seals_is_a_violation() {
    let buffer = SharedBuffer::create(LEN).unwrap();
    fcntl_add_seals(buffer.as_fd(), SealFlags::SEAL).unwrap();
    let error = buffer.seal_and_map().unwrap_err();
    assert!(
        matches!(error, ChannelError::Violation(Violation::BufferSealedByPeer { len_bytes: LEN })),
        "{error}"
    );
}

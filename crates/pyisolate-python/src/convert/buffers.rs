//! Memory that came beside a message, lent to Python without a copy.
#![expect(unsafe_code, reason = "exports mapped memory through the buffer protocol")]

use std::any::Any;
use std::ffi::c_int;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use pyisolate_supervisor::Buffer;
use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;

/// The bytes of one out-of-band buffer.
pub(super) enum Region {
    /// Few, and on the heap.
    Owned(Arc<[u8]>),
    /// In a mapping.
    Mapped(MappedRegion),
}

/// Part of a mapping. The parts of one message are disjoint.
pub(super) struct MappedRegion {
    start: NonNull<u8>,
    len: usize,
    /// Whether the mapping belongs to this message alone, so that it may be written to.
    writable: bool,
    /// Owns the memory; never looked into again.
    #[expect(dead_code, reason = "held for its drop")]
    mapping: Arc<dyn Any + Send + Sync>,
}

impl Region {
    /// Calls `read` with the bytes.
    ///
    /// It takes the region over: bytes that something else could write to are never borrowed.
    pub(super) fn with_bytes<R>(self, read: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Self::Owned(bytes) => read(&bytes),
            Self::Mapped(region) => {
                // SAFETY: `start` is valid for reads of `len` initialised bytes while `mapping`
                // lives (see `claim`), which `region` keeps alive over the call. Nobody writes
                // meanwhile: the region is owned, so that it was not exported, and no other region
                // overlaps it.
                read(unsafe { slice::from_raw_parts(region.start.as_ptr(), region.len) })
            }
        }
    }
}

impl MappedRegion {
    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    /// An object that exports the bytes.
    pub(super) fn export(self, py: Python<'_>, read_only: bool) -> PyResult<Bound<'_, PyAny>> {
        let read_only = read_only || !self.writable;
        Ok(Bound::new(py, SharedBytes { region: self, read_only })?.into_any())
    }
}

/// Takes over the buffers of a message.
///
/// # Errors
/// `ValueError` if any overlap or leave their mapping. No guest's runtime sends such, and the bytes
/// of one could change while another is read.
pub(super) fn claim(buffers: Vec<Buffer>) -> PyResult<Vec<Option<Region>>> {
    if buffers.is_empty() {
        return Ok(Vec::new());
    }
    let wrong = || PyValueError::new_err("the cell sent buffers that overlap; end the cell");
    // Of each mapping, in practice one: an owner, and where its parts lie.
    let mut owners = Vec::new();
    let mut parts = Vec::new();
    let mut regions = Vec::with_capacity(buffers.len());
    for (index, buffer) in buffers.into_iter().enumerate() {
        match buffer {
            Buffer::Owned(bytes) => regions.push(Some(Region::Owned(bytes))),
            Buffer::Shared { mapping, offset, len } => {
                let end = offset.checked_add(len).filter(|end| *end <= mapping.len());
                let end = end.ok_or_else(wrong)?;
                let known = owners.iter().position(|owner| Arc::ptr_eq(owner, &mapping));
                let owner = known.unwrap_or(owners.len());
                if known.is_none() {
                    owners.push(mapping);
                }
                parts.push((owner, offset, end, index));
                regions.push(None);
            }
        }
    }
    parts.sort_unstable();
    let mut last = (0, 0);
    for &(owner, offset, end, _) in parts.iter().filter(|(_, offset, end, _)| offset < end) {
        if last.0 == owner && offset < last.1 {
            return Err(wrong());
        }
        last = (owner, end);
    }
    for (owner, mut mapping) in owners.into_iter().enumerate() {
        // Only a sole owner gets a pointer that may be written through; a slice's may not.
        let (base, writable) = match Arc::get_mut(&mut mapping) {
            Some(mapping) => (mapping.as_mut_ptr(), true),
            None => (mapping.as_ptr().cast_mut(), false),
        };
        let base = NonNull::new(base).ok_or_else(wrong)?;
        let mapping: Arc<dyn Any + Send + Sync> = mapping;
        for &(_, offset, end, index) in parts.iter().filter(|part| part.0 == owner) {
            // SAFETY: `offset` is within the mapping's length, as was checked above, and a mapping
            // is one allocation of at most `isize::MAX` bytes.
            let start = unsafe { base.add(offset) };
            let mapping = Arc::clone(&mapping);
            let region = MappedRegion { start, len: end - offset, writable, mapping };
            regions[index] = Some(Region::Mapped(region));
        }
    }
    Ok(regions)
}

/// Bytes that a cell sent, in memory that is the host's alone.
#[pyclass(frozen, module = "pyisolate")]
struct SharedBytes {
    region: MappedRegion,
    read_only: bool,
}

// SAFETY: `start` points into memory that `mapping`, which can be sent and shared itself, keeps
// mapped for the whole process. Rust code reads it only in `Region::with_bytes`, whose region was
// never exported; foreign code that shares an exported one synchronises as for any Python buffer.
unsafe impl Send for MappedRegion {}
// SAFETY: as above; a shared reference gives no access to the bytes but by `__getbuffer__`.
unsafe impl Sync for MappedRegion {}

#[pymethods]
impl SharedBytes {
    /// Number of bytes.
    fn __len__(&self) -> usize {
        self.region.len
    }

    /// Lends the bytes. There is nothing to release: the view refers to `slf`, which never moves or
    /// frees them while it lives.
    ///
    /// # Safety
    /// `view` is valid for writes, as the buffer protocol has it.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let this = slf.get();
        let len = this.region.len as ffi::Py_ssize_t;
        // SAFETY: `view` is valid for writes (the caller). `slf` is a live object, and the view gets
        // a reference to it of its own. `start` is valid for `len` bytes, which fit `Py_ssize_t`
        // because a mapping has at most `isize::MAX`, for as long as `slf` keeps `mapping` alive;
        // and valid for writes unless `read_only`, since `export` looked at `writable`.
        let status = unsafe {
            ffi::PyBuffer_FillInfo(
                view,
                slf.as_ptr(),
                this.region.start.as_ptr().cast(),
                len,
                c_int::from(this.read_only),
                flags,
            )
        };
        if status == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

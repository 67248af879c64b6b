//! One eventfd that tells the loop "there is news".
//!
//! The loop watches one descriptor for the wire and for the log thread together. Ringing is idempotent: once rung, further
//! rings cost one atomic load until Python has called `clear`, so a busy wire makes one `write` per batch, not per event.
//!
//! The order in `clear` matters: first the descriptor is read, then the flag is reset, and only then does Python look at
//! the queues. A ring that falls in between skips its write, and the news it stands for is in a queue Python has not yet
//! looked at.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

pub struct Bell {
    descriptor: OwnedFd,
    rung: AtomicBool,
}

impl Bell {
    fn new() -> std::io::Result<Self> {
        // SAFETY: a plain system call; the result is checked before it is owned.
        let raw = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if raw < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: `raw` was just returned by the kernel and belongs to nobody else.
        let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
        Ok(Self { descriptor, rung: AtomicBool::new(false) })
    }

    /// Make the descriptor readable. Cheap when it already is.
    pub fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            let one = 1u64.to_ne_bytes();
            // SAFETY: eight valid bytes and an open descriptor. It cannot block: the counter is far from full.
            unsafe { libc::write(self.descriptor.as_raw_fd(), one.as_ptr().cast(), one.len()) };
        }
    }

    fn clear(&self) {
        let mut count = [0u8; 8];
        // SAFETY: eight writable bytes and an open non-blocking descriptor.
        unsafe { libc::read(self.descriptor.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
        self.rung.store(false, Ordering::SeqCst);
    }
}

#[pyclass(frozen, module = "pyetcd._native")]
pub struct Wake {
    pub bell: Arc<Bell>,
}

#[pymethods]
impl Wake {
    #[new]
    fn new() -> PyResult<Self> {
        let bell = Bell::new().map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(Self { bell: Arc::new(bell) })
    }

    fn fileno(&self) -> i32 {
        self.bell.descriptor.as_raw_fd()
    }

    /// Make it unreadable again; call before draining.
    fn clear(&self) {
        self.bell.clear();
    }
}

//! The log thread: writes and fsyncs, so that the loop never waits for a disk and an fsync never waits for the GIL.
//!
//! Rules that hold here:
//! * Appends are carried out in the order they were queued; `completed` never runs ahead of the disk.
//! * One batch is whatever was queued while the last one was being written: adjacent appends become one `pwrite`, and the
//!   batch costs one `fdatasync` for each file that asked for one.
//! * The first error is final. After a failed fsync the page cache can no longer be trusted, so nothing is tried again.
//! * The queue is bounded by bytes. At the bound `append` waits, without the GIL, for the disk.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::wake::{Bell, Wake};

/// Queued bytes beyond which `append` waits for the disk.
const QUEUE_BYTES_MAX: usize = 256 << 20;
/// Adjacent appends are joined into one write up to this size.
const WRITE_BYTES_MAX: usize = 4 << 20;
/// Durations remembered for `sync_seconds`, and for `write_seconds`.
const DURATIONS_MAX: usize = 4096;

struct Write {
    descriptor: RawFd,
    offset: u64,
    data: Vec<u8>,
    sync: bool,
}

#[derive(Default)]
struct Queue {
    writes: Vec<Write>,
    bytes: usize,
    sequence: u64,
    closing: bool,
    failure: Option<Failure>,
    sync_seconds: VecDeque<f64>,
    write_seconds: VecDeque<f64>,
}

#[derive(Clone)]
struct Failure {
    number: i32,
    what: String,
}

impl Failure {
    fn of(what: &str, error: &std::io::Error) -> Self {
        Self { number: error.raw_os_error().unwrap_or(libc::EIO), what: format!("{what}: {error}") }
    }

    fn raise(&self) -> PyErr {
        PyOSError::new_err((self.number, self.what.clone()))
    }
}

struct Shared {
    queue: Mutex<Queue>,
    work: Condvar,
    room: Condvar,
    completed: AtomicU64,
    bell: Arc<Bell>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().expect("the log thread does not panic while it holds the queue")
    }

    fn wait_for_room(&self) {
        let mut queue = self.lock();
        while queue.bytes > QUEUE_BYTES_MAX {
            queue = self.room.wait(queue).expect("the log thread does not panic while it holds the queue");
        }
    }
}

#[pyclass(frozen, module = "pyetcd._native")]
pub struct Appender {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[pymethods]
impl Appender {
    #[new]
    fn new(wake: &Wake) -> PyResult<Self> {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            work: Condvar::new(),
            room: Condvar::new(),
            completed: AtomicU64::new(0),
            bell: wake.bell.clone(),
        });
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("pyetcd-log".into())
            .spawn(move || run(&theirs))
            .map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Queue pwrite(fd, data, offset), then fdatasync when `sync`; returns its sequence number.
    #[pyo3(signature = (fd, offset, data, sync = true))]
    fn append(&self, py: Python<'_>, fd: RawFd, offset: u64, data: &Bound<'_, PyAny>, sync: bool) -> PyResult<u64> {
        let data = joined(data)?;
        let mut queue = self.shared.lock();
        while queue.bytes > QUEUE_BYTES_MAX {
            drop(queue);
            py.detach(|| self.shared.wait_for_room());
            queue = self.shared.lock();
        }
        if queue.closing {
            return Err(PyValueError::new_err("append on a closed appender"));
        }
        queue.sequence += 1;
        queue.bytes += data.len();
        let sequence = queue.sequence;
        queue.writes.push(Write { descriptor: fd, offset, data, sync });
        let first = queue.writes.len() == 1;
        drop(queue);
        if first {
            self.shared.work.notify_one();
        }
        Ok(sequence)
    }

    /// The highest sequence number up to which everything is done. OSError, for good, after a failure.
    fn completed(&self) -> PyResult<u64> {
        if let Some(failure) = &self.shared.lock().failure {
            return Err(failure.raise());
        }
        Ok(self.shared.completed.load(Ordering::Acquire))
    }

    /// Durations in seconds of the fdatasync calls since the last time asked (the latest 4096).
    fn sync_seconds(&self) -> Vec<f64> {
        self.shared.lock().sync_seconds.drain(..).collect()
    }

    /// Durations in seconds of the writes since the last time asked (the latest 4096).
    fn write_seconds(&self) -> Vec<f64> {
        self.shared.lock().write_seconds.drain(..).collect()
    }

    /// Finish what is queued and stop the thread.
    fn close(&self, py: Python<'_>) {
        self.shared.lock().closing = true;
        self.shared.work.notify_one();
        let thread = self.thread.lock().expect("nobody panics while holding the handle").take();
        if let Some(thread) = thread {
            py.detach(|| thread.join().expect("the log thread does not panic"));
        }
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        self.shared.lock().closing = true;
        self.shared.work.notify_one();
    }
}

/// The bytes of `bytes` or of a sequence of `bytes`, copied: log records are small, and a copy needs no GIL to be freed.
fn joined(data: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    if let Ok(bytes) = data.downcast::<PyBytes>() {
        return Ok(bytes.as_bytes().to_vec());
    }
    let parts = parts_of(data)?;
    let total = parts.iter().map(|part| part.as_bytes().len()).sum();
    let mut whole = Vec::with_capacity(total);
    for part in &parts {
        whole.extend_from_slice(part.as_bytes());
    }
    Ok(whole)
}

fn parts_of<'py>(data: &Bound<'py, PyAny>) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    fn part(item: Bound<'_, PyAny>) -> PyResult<Bound<'_, PyBytes>> {
        item.downcast_into::<PyBytes>().map_err(|_| PyTypeError::new_err("data must be bytes or a sequence of bytes"))
    }
    if let Ok(list) = data.downcast::<PyList>() {
        return list.iter().map(part).collect();
    }
    if let Ok(tuple) = data.downcast::<PyTuple>() {
        return tuple.iter().map(part).collect();
    }
    data.try_iter()?.map(|item| part(item?)).collect()
}

/// The thread: take all that is queued, write it, sync it, say so.
fn run(shared: &Shared) {
    loop {
        let (writes, last, failed) = {
            let mut queue = shared.lock();
            while queue.writes.is_empty() && !queue.closing {
                queue = shared.work.wait(queue).expect("nobody panics while holding the queue");
            }
            if queue.writes.is_empty() {
                return;
            }
            (std::mem::take(&mut queue.writes), queue.sequence, queue.failure.is_some())
        };
        let mut times = Times::default();
        let outcome = if failed { Ok(()) } else { carry_out(&writes, &mut times) };
        let bytes: usize = writes.iter().map(|write| write.data.len()).sum();
        drop(writes);
        let mut queue = shared.lock();
        queue.bytes -= bytes;
        remember(&mut queue.sync_seconds, times.syncs);
        remember(&mut queue.write_seconds, times.writes);
        match outcome {
            Err(failure) => queue.failure = Some(failure),
            Ok(()) if !failed => shared.completed.store(last, Ordering::Release),
            Ok(()) => {}
        }
        drop(queue);
        shared.room.notify_all();
        shared.bell.ring();
    }
}

/// What the calls of one batch took, in seconds.
#[derive(Default)]
struct Times {
    writes: Vec<f64>,
    syncs: Vec<f64>,
}

fn remember(kept: &mut VecDeque<f64>, seconds: Vec<f64>) {
    kept.extend(seconds);
    kept.drain(..kept.len().saturating_sub(DURATIONS_MAX));
}

/// Write one batch in order, then sync each file that asked for it once.
fn carry_out(writes: &[Write], times: &mut Times) -> Result<(), Failure> {
    let mut rest = writes;
    while let Some(first) = rest.first() {
        let run = adjacent(rest);
        let began = Instant::now();
        if run == 1 {
            write_all(first.descriptor, first.offset, &first.data)?;
        } else {
            let parts: Vec<&[u8]> = rest[..run].iter().map(|write| write.data.as_slice()).collect();
            write_all(first.descriptor, first.offset, &parts.concat())?;
        }
        times.writes.push(began.elapsed().as_secs_f64());
        rest = &rest[run..];
    }
    let mut synced: Vec<RawFd> = Vec::new();
    for write in writes.iter().filter(|write| write.sync) {
        if !synced.contains(&write.descriptor) {
            synced.push(write.descriptor);
            let began = Instant::now();
            sync(write.descriptor)?;
            times.syncs.push(began.elapsed().as_secs_f64());
        }
    }
    Ok(())
}

/// How many of the first writes continue each other in the same file.
fn adjacent(writes: &[Write]) -> usize {
    let mut end = writes[0].offset + writes[0].data.len() as u64;
    let mut bytes = writes[0].data.len();
    let mut count = 1;
    for write in &writes[1..] {
        bytes += write.data.len();
        if write.descriptor != writes[0].descriptor || write.offset != end || bytes > WRITE_BYTES_MAX {
            break;
        }
        end += write.data.len() as u64;
        count += 1;
    }
    count
}

fn write_all(descriptor: RawFd, mut offset: u64, mut data: &[u8]) -> Result<(), Failure> {
    while !data.is_empty() {
        let position = libc::off_t::try_from(offset)
            .map_err(|_| Failure { number: libc::EFBIG, what: "pwrite: the offset is too large".into() })?;
        // SAFETY: the bytes are valid for the length given; a closed descriptor is an error of the call, not of memory.
        let written = unsafe { libc::pwrite(descriptor, data.as_ptr().cast(), data.len(), position) };
        if written > 0 {
            let written = written.unsigned_abs();
            offset += written as u64;
            data = &data[written..];
            continue;
        }
        let error = if written == 0 { std::io::ErrorKind::WriteZero.into() } else { std::io::Error::last_os_error() };
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(Failure::of("pwrite", &error));
        }
    }
    Ok(())
}

fn sync(descriptor: RawFd) -> Result<(), Failure> {
    loop {
        // SAFETY: a plain system call on a number.
        if unsafe { libc::fdatasync(descriptor) } == 0 {
            return Ok(());
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(Failure::of("fdatasync", &error));
        }
    }
}

//! A blocking gRPC client for command-line programs: one HTTP/2 connection, dialled at first use and again after a loss.
//!
//! All channels of the process share one thread, which owns the sockets and never touches Python. A blocked call waits in
//! slices, without the GIL, and asks Python for signals in between, so that Ctrl-C works.

mod call;
mod calls;
mod link;

use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyOSError, PyTimeoutError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinError};

use crate::crypto::Choice;
use crate::dial::{Target, TlsOptions};
use crate::server::tls::Allowed;
use crate::server::Status;
use call::{Outgoing, Request};
pub use calls::Calls;
use link::{KeepAlive, Link};

create_exception!(pyetcd._native, RpcError, PyException, "A gRPC status other than OK.");

/// How long a signal may go unnoticed.
const SLICE: Duration = Duration::from_millis(50);
/// Messages sent or received that the other side has not yet taken.
const QUEUE_MESSAGES: usize = 16;

/// The names Go prints for codes.
const CODE_NAMES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The thread that drives every channel, started by the first.
fn runtime() -> PyResult<&'static Handle> {
    static RUNTIME: OnceLock<Handle> = OnceLock::new();
    if let Some(handle) = RUNTIME.get() {
        return Ok(handle);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    if RUNTIME.set(handle).is_ok() {
        let forever = move || runtime.block_on(std::future::pending::<()>());
        std::thread::Builder::new().name("pyetcd-client".into()).spawn(forever)?;
    }
    RUNTIME.get().ok_or_else(|| PyOSError::new_err("the client's thread could not be started"))
}

/// Wait for a future of the client's thread. None when `limit` passes first; the error of a signal handler.
fn wait<F>(py: Python<'_>, limit: Option<Duration>, future: F) -> PyResult<Option<F::Output>>
where
    F: Future + Send,
    F::Output: Send,
{
    let handle = runtime()?;
    let mut future = std::pin::pin!(future);
    let end = limit.map(|limit| Instant::now() + limit);
    loop {
        let left = end.map_or(SLICE, |end| end.saturating_duration_since(Instant::now()).min(SLICE));
        let pinned = future.as_mut();
        let done = py.detach(|| handle.block_on(async { tokio::time::timeout(left, pinned).await.ok() }));
        if done.is_some() {
            return Ok(done);
        }
        py.check_signals()?;
        if end.is_some_and(|end| Instant::now() >= end) {
            return Ok(None);
        }
    }
}

fn rpc_error(py: Python<'_>, status: Status) -> PyErr {
    let Status { code, message } = status;
    let name = CODE_NAMES.get(code as usize).map_or_else(|| format!("Code({code})"), ToString::to_string);
    let error = RpcError::new_err(format!("rpc error: code = {name} desc = {message}"));
    let value = error.value(py);
    match value.setattr("code", code).and_then(|()| value.setattr("message", message)) {
        Ok(()) => error,
        Err(other) => other,
    }
}

/// A task of ours was lost: the client's thread panicked in it.
fn lost(error: &JoinError) -> Status {
    Status::new(13, format!("client task failed: {error}"))
}

fn duration(name: &str, seconds: Option<f64>) -> PyResult<Option<Duration>> {
    seconds
        .map(|seconds| {
            // A deadline in the past is a deadline of now.
            Duration::try_from_secs_f64(seconds.max(0.0))
                .map_err(|_| PyValueError::new_err(format!("{name} is not a number of seconds")))
        })
        .transpose()
}

#[pyclass(frozen, module = "pyetcd._native")]
pub struct Channel {
    link: Arc<Link>,
}

#[pymethods]
impl Channel {
    #[new]
    #[pyo3(signature = (
        target, *, authority = None, tls = false, ca = None, cert = None, key = None, server_name = None,
        insecure_skip_verify = false, connect_timeout = 20.0, keepalive_time = 0.0, keepalive_timeout = 20.0,
        keepalive_idle = false,
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        target: &str,
        authority: Option<String>,
        tls: bool,
        ca: Option<&[u8]>,
        cert: Option<&[u8]>,
        key: Option<&[u8]>,
        server_name: Option<&str>,
        insecure_skip_verify: bool,
        connect_timeout: f64,
        keepalive_time: f64,
        keepalive_timeout: f64,
        keepalive_idle: bool,
    ) -> PyResult<Self> {
        let target = Target::parse(target).map_err(PyValueError::new_err)?;
        let options = TlsOptions {
            ca,
            cert,
            key,
            server_name,
            insecure_skip_verify,
            protocols: &[b"h2"],
            choice: Choice::default(),
            allowed: Allowed::default(),
        };
        let tls = if tls { Some(options.build().map_err(PyValueError::new_err)?) } else { None };
        if let Some(tls) = &tls {
            tls.name(&target).map_err(PyValueError::new_err)?;
        }
        let connect_timeout = duration("connect_timeout", Some(connect_timeout))?.unwrap_or(Duration::MAX);
        let every = duration("keepalive_time", Some(keepalive_time))?.filter(|every| !every.is_zero());
        let patience = duration("keepalive_timeout", Some(keepalive_timeout))?.unwrap_or(Duration::MAX);
        let keep_alive = every.map(|every| KeepAlive { every, patience, idle: keepalive_idle });
        let link = Link::new(target, authority, tls, connect_timeout, keep_alive).map_err(PyValueError::new_err)?;
        Ok(Self { link: Arc::new(link) })
    }

    /// One call. RpcError on any failure; a timeout is code 4 with `context deadline exceeded`.
    #[pyo3(signature = (path, payload, metadata = Vec::new(), timeout = None))]
    fn unary<'py>(
        &self,
        py: Python<'py>,
        path: &str,
        payload: &[u8],
        metadata: Vec<(String, String)>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let request = self.request(path, &metadata, timeout)?;
        let message = call::frame(payload).map_err(|status| rpc_error(py, status))?;
        let task = runtime()?.spawn(call::unary(self.link.clone(), request, message));
        let guard = Abort(task.abort_handle());
        let answer = wait(py, None, task)?;
        drop(guard);
        match answer {
            Some(Ok(Ok(message))) => Ok(PyBytes::new(py, &message)),
            Some(Ok(Err(status))) => Err(rpc_error(py, status)),
            Some(Err(error)) => Err(rpc_error(py, lost(&error))),
            None => unreachable!("a wait without a limit has an end"),
        }
    }

    /// Open a stream. Failures come out of its `recv`.
    #[pyo3(signature = (path, metadata = Vec::new(), timeout = None))]
    fn stream(&self, path: &str, metadata: Vec<(String, String)>, timeout: Option<f64>) -> PyResult<ClientStream> {
        let request = self.request(path, &metadata, timeout)?;
        let (outgoing, to_send) = mpsc::channel(QUEUE_MESSAGES);
        let (received, incoming) = mpsc::channel(QUEUE_MESSAGES);
        let task = runtime()?.spawn(call::stream(self.link.clone(), request, to_send, received));
        let task = Abort(task.abort_handle());
        let incoming = tokio::sync::Mutex::new(incoming);
        Ok(ClientStream { outgoing: Mutex::new(Some(outgoing)), incoming, end: Mutex::new(None), task })
    }

    /// Dial with another channel's certificates from now on; what is connected goes on.
    fn adopt(&self, other: &Channel) {
        self.link.adopt(&other.link);
    }

    fn close(&self) {
        self.link.close();
    }
}

impl Channel {
    fn request(&self, path: &str, metadata: &[(String, String)], timeout: Option<f64>) -> PyResult<Request> {
        let timeout = duration("timeout", timeout)?;
        Request::new(&self.link, path, metadata, timeout).map_err(PyValueError::new_err)
    }
}

/// Ends a task when dropped; the h2 library then resets its stream.
struct Abort(AbortHandle);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[pyclass(frozen, module = "pyetcd._native")]
pub struct ClientStream {
    outgoing: Mutex<Option<mpsc::Sender<Outgoing>>>,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Result<Bytes, Status>>>,
    /// How the stream ended, once it is known: every later `recv` says the same.
    end: Mutex<Option<Result<(), (u32, String)>>>,
    task: Abort,
}

#[pymethods]
impl ClientStream {
    /// Queue one message. Waits, when many are unsent. On a stream that has ended it does nothing; `recv` tells why.
    fn send(&self, py: Python<'_>, payload: &[u8]) -> PyResult<()> {
        let message = call::frame(payload).map_err(|status| rpc_error(py, status))?;
        let sender = self.outgoing.lock().expect("nobody panics while holding it").clone();
        let Some(sender) = sender else { return Err(PyValueError::new_err("send after half_close")) };
        wait(py, None, async move { sender.send(Outgoing(message)).await.is_ok() })?;
        Ok(())
    }

    /// Send no more.
    fn half_close(&self) {
        self.outgoing.lock().expect("nobody panics while holding it").take();
    }

    /// The next message, or None at a good end. RpcError at a bad one; TimeoutError when `timeout` passes.
    #[pyo3(signature = (timeout = None))]
    fn recv<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let limit = duration("timeout", timeout)?;
        if let Some(end) = self.end.lock().expect("nobody panics while holding it").clone() {
            return end.map(|()| None).map_err(|(code, message)| rpc_error(py, Status { code, message }));
        }
        let next = async { self.incoming.lock().await.recv().await };
        match wait(py, limit, next)? {
            None => Err(PyTimeoutError::new_err("timed out")),
            Some(Some(Ok(message))) => Ok(Some(PyBytes::new(py, &message))),
            Some(Some(Err(status))) => {
                *self.end.lock().expect("nobody panics while holding it") =
                    Some(Err((status.code, status.message.clone())));
                Err(rpc_error(py, status))
            }
            Some(None) => Ok(None),
        }
    }

    /// Give the stream up; a `recv` under way or later says so.
    fn cancel(&self) {
        let mut end = self.end.lock().expect("nobody panics while holding it");
        end.get_or_insert_with(|| Err((1, "context canceled".into())));
        drop(end);
        self.task.0.abort();
    }
}

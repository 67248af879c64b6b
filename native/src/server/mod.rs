//! The wire as Python sees it: it serves, and it dials. It runs on one thread of its own, a tokio runtime with nothing
//! else in it; the methods here only move things through the `Queues` (see there) and keep what must be answered at
//! once.

mod accept;
mod body;
mod calls;
mod counts;
mod dials;
mod frames;
mod grpc;
mod hello;
mod http1;
mod http2;
mod inflow;
mod io;
mod known;
mod limits;
mod links;
mod meta;
mod outflow;
mod queues;
mod raw;
mod requests;
mod thread;
pub mod tls;
mod turn;
pub mod x509;

pub use grpc::{percent_decode, Messages, Status};
pub use limits::Limits;
pub use meta::{HttpRequest, HttpResponse, Meta};
pub use queues::{CANCEL, FAILED, HALF_CLOSE, HTTP, MESSAGE, OPEN, REJECTED, RESPONSE, UNARY, WRITABLE};
pub use tls::Tls;

use std::net::IpAddr;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, StatusCode, Uri};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

use crate::dial::ClientTls;
use crate::wake::Wake;
use accept::Door;
use body::{Body, MESSAGE_HEADER_BYTES, SEND_MESSAGE_BYTES_MAX};
use calls::Methods;
use counts::Counts;
use dials::{is_dialled, Dial};
use known::{Known, KnownCalls, Slow, SlowClock};
use links::Route;
use queues::{Backlog, Command, Event, Payload, Queues};
use requests::{header_map, Serves};

#[pyclass(frozen, module = "pyetcd._native")]
pub struct Server {
    queues: Arc<Queues>,
    known: Mutex<KnownCalls>,
    limits: Limits,
    counts: Arc<Counts>,
    /// Unary calls that take longer are named to Python.
    slow: Option<Duration>,
    /// Where connections to others come from, unless the system chooses.
    local: Option<IpAddr>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    fn known(&self) -> MutexGuard<'_, KnownCalls> {
        self.known.lock().expect("nobody panics while holding the calls")
    }

    fn stop(&self, grace: Duration) {
        let thread = self.thread.lock().expect("nobody panics while holding the handle").take();
        if let Some(thread) = thread {
            self.queues.command(Command::Shutdown { grace });
            // A panic of the wire's thread has been printed; there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        Python::attach(|py| py.detach(|| self.stop(Duration::ZERO)));
    }
}

#[pymethods]
impl Server {
    #[new]
    #[pyo3(signature = (
        wake,
        methods,
        limits,
        *,
        slow_seconds = 0.0,
        duration_bounds = vec![],
        caller_header = String::new(),
        streamed_paths = vec![],
        local_address = None,
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        wake: &Wake,
        methods: Vec<(String, bool)>,
        limits: &Limits,
        slow_seconds: f64,
        duration_bounds: Vec<f64>,
        caller_header: String,
        streamed_paths: Vec<String>,
        local_address: Option<&str>,
    ) -> PyResult<Self> {
        let local = local_address.map(str::parse).transpose();
        let local = local.map_err(|_| bad("local_address", local_address.unwrap_or_default()))?;
        let queues = Arc::new(Queues::new(wake.bell.clone(), limits.max_pending_events));
        let counts = Arc::new(Counts::new(methods.len(), counts::bounds(duration_bounds)?, caller_header));
        let slow = limits::optional("slow_seconds", slow_seconds)?;
        let methods = Methods::new(methods);
        let thread = thread::spawn(queues.clone(), limits.clone(), methods, counts.clone(), streamed_paths)?;
        let (known, thread) = (Mutex::default(), Mutex::new(Some(thread)));
        Ok(Self { queues, known, limits: limits.clone(), counts, slow, local, thread })
    }

    /// Bytes of gRPC messages received and sent, without their framing.
    fn message_bytes(&self) -> (u64, u64) {
        self.counts.bytes()
    }

    /// The calls of each method; the stub names the fields.
    #[allow(clippy::type_complexity)]
    fn call_counts(&self) -> Vec<(u64, u64, u64, u64, Vec<u64>, Vec<u64>, f64)> {
        self.counts.rows()
    }

    /// Unary calls and streams begun, by the value of the header counted by.
    fn caller_counts(&self) -> Vec<(String, u64, u64)> {
        self.counts.callers()
    }

    /// Take over a socket that listens.
    #[pyo3(signature = (descriptor, tls = None, also_plain = false, grpc = true, http = true))]
    fn listen(
        &self,
        descriptor: i32,
        tls: Option<&Bound<'_, Tls>>,
        also_plain: bool,
        grpc: bool,
        http: bool,
    ) -> PyResult<()> {
        if descriptor < 0 {
            return Err(PyValueError::new_err("a descriptor is not negative"));
        }
        // SAFETY: the caller gives the descriptor away.
        let socket = socket2::Socket::from(unsafe { OwnedFd::from_raw_fd(descriptor) });
        socket.set_nonblocking(true)?;
        let unix = socket.local_addr()?.is_unix();
        let tls = tls.map(|tls| tls.get().current.clone());
        self.queues.command(Command::Open(Door { socket, unix, tls, also_plain, serves: Serves { grpc, http } }));
        Ok(())
    }

    /// Up to `max_events` of `(kind, call, method, payload, meta)`. Empty: none left.
    fn drain<'py>(&self, py: Python<'py>, max_events: usize) -> PyResult<Bound<'py, PyList>> {
        let events = self.queues.drain(max_events);
        let mut known = self.known();
        let mut tuples = Vec::with_capacity(events.len());
        for event in events {
            let (kind, id, arrived, backlog) = (event.kind, event.call, event.arrived, event.backlog.clone());
            // What Python has finished in the meantime is no news to it.
            let begins = matches!(kind, UNARY | OPEN | HTTP);
            let is_news = begins
                || event.kind == REJECTED
                || if event.ends { known.leave(id).is_some() } else { known.find(id).is_some() };
            if is_news {
                tuples.push(event_tuple(py, event)?);
            }
            if begins {
                let kept = tuples.last().filter(|_| kind == UNARY && self.slow.is_some());
                let event = kept.map(|tuple| tuple.clone().into_any().unbind());
                known.enter(Known { id, backlog, plain: kind == HTTP, arrived, event });
            }
        }
        PyList::new(py, tuples)
    }

    /// Finish unary calls with OK and this message. Dead calls are skipped. Returns which of them were slow.
    fn reply_many(&self, replies: &Bound<'_, PyAny>) -> PyResult<Vec<Slow>> {
        let mut commands = Vec::new();
        let mut clock = SlowClock::new(self.slow);
        let mut known = self.known();
        each(replies, |pair| {
            let (call, body) = pair_of(pair)?;
            if let Some(known) = known.leave(call) {
                clock.look(known);
                commands.push(Command::Reply { call, body: Body::message(&body)? });
            }
            clock.at += 1;
            Ok(())
        })?;
        drop(known);
        self.queues.command_many(commands);
        Ok(clock.slow)
    }

    /// Finish calls or streams with `(call, gRPC code, message)`; code 0 ends a stream well. Returns which were slow unary
    /// calls. A dialled call whose request has ended well lives on: its answer is to come.
    fn finish_many(&self, ends: &Bound<'_, PyAny>) -> PyResult<Vec<Slow>> {
        let mut commands = Vec::new();
        let mut clock = SlowClock::new(self.slow);
        let mut known = self.known();
        each(ends, |end| {
            let (call, code, message): (u64, u32, String) = end.extract()?;
            if is_dialled(call) && code == 0 {
                commands.push(Command::Finish { call, code, message });
            } else if let Some(known) = known.leave(call) {
                clock.look(known);
                commands.push(Command::Finish { call, code, message });
            }
            clock.at += 1;
            Ok(())
        })?;
        drop(known);
        self.queues.command_many(commands);
        Ok(clock.slow)
    }

    /// Queue one message on each stream; returns each stream's unsent bytes (-1: the call is dead).
    fn send_many(&self, messages: &Bound<'_, PyAny>) -> PyResult<Vec<i64>> {
        let mut commands = Vec::new();
        let mut unsent = Vec::new();
        let known = self.known();
        each(messages, |pair| {
            let (call, data) = pair_of(pair)?;
            let Some(Known { backlog: Some(backlog), plain, .. }) = known.find(call) else {
                unsent.push(-1);
                return Ok(());
            };
            let body = if *plain { Body::raw(&data)? } else { message(&data)? };
            let now = self.grow(backlog, body.len());
            unsent.push(now);
            if now >= 0 {
                commands.push(Command::Send { call, body });
            }
            Ok(())
        })?;
        drop(known);
        self.queues.command_many(commands);
        Ok(unsent)
    }

    /// Queue the same message on many streams, sharing its memory; returns their unsent bytes (-1: dead).
    fn send_fanout(&self, calls: Vec<u64>, body: &Bound<'_, PyAny>) -> PyResult<Vec<i64>> {
        let body = message(body)?;
        let known = self.known();
        let mut living = Vec::with_capacity(calls.len());
        let mut unsent = Vec::with_capacity(calls.len());
        for call in calls {
            let backlog = known.find(call).and_then(|known| known.backlog.as_ref());
            let now = backlog.map_or(-1, |backlog| self.grow(backlog, body.len()));
            unsent.push(now);
            if now >= 0 {
                living.push(call);
            }
        }
        drop(known);
        if !living.is_empty() {
            self.queues.command(Command::Fanout { calls: living, body });
        }
        Ok(unsent)
    }

    /// Answer a plain HTTP request. With end=False the body goes on: send_many writes raw parts, finish_many ends it.
    #[pyo3(signature = (call, status, headers, body, end = true))]
    fn http_reply(
        &self,
        call: u64,
        status: u16,
        headers: Vec<(String, String)>,
        body: &Bound<'_, PyAny>,
        end: bool,
    ) -> PyResult<()> {
        let status = StatusCode::from_u16(status).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let headers = header_map(headers).map_err(PyValueError::new_err)?;
        let body = Body::raw(body)?;
        let mut known = self.known();
        let alive = if end {
            known.leave(call).is_some()
        } else {
            let backlog = known.find(call).and_then(|known| known.backlog.as_ref());
            backlog.is_some_and(|backlog| self.grow(backlog, body.len()) >= 0)
        };
        drop(known);
        if alive {
            self.queues.command(Command::HttpReply { call, status, headers, body, end });
        }
        Ok(())
    }

    /// Of a request whose body comes in parts: so many bytes of it have been dealt with.
    fn consumed(&self, call: u64, count: usize) {
        if self.known().find(call).is_some() {
            self.queues.command(Command::Consumed { call, bytes: count });
        }
    }

    /// Begin an HTTP/1.1 request; returns its call.
    #[pyo3(signature = (
        target,
        method,
        path,
        headers,
        body = None,
        *,
        tls = None,
        stream = false,
        upload = false,
        connect_timeout = 0.0,
        idle_timeout = 0.0,
        timeout = 0.0,
    ))]
    #[allow(clippy::too_many_arguments)]
    fn dial(
        &self,
        target: String,
        method: &str,
        path: &str,
        headers: Vec<(String, String)>,
        body: Option<&Bound<'_, PyAny>>,
        tls: Option<&Bound<'_, ClientTls>>,
        stream: bool,
        upload: bool,
        connect_timeout: f64,
        idle_timeout: f64,
        timeout: f64,
    ) -> PyResult<u64> {
        let tls = tls.map(|tls| tls.get().tls.clone());
        let body = body.map_or_else(|| Ok(Body::Joined(Bytes::new())), Body::raw)?;
        let backlog = upload.then(Arc::<Backlog>::default);
        if let Some(backlog) = &backlog {
            self.grow(backlog, body.len());
        }
        let mut dial = Dial {
            call: 0,
            route: Route { target, tls, local: self.local },
            method: Method::from_bytes(method.as_bytes()).map_err(|_| bad("method", method))?,
            path: path.parse::<Uri>().map_err(|_| bad("path", path))?,
            headers: header_map(headers).map_err(PyValueError::new_err)?,
            body,
            streams: stream,
            upload: backlog.clone(),
            connect_timeout: limits::optional("connect_timeout", connect_timeout)?,
            idle_timeout: limits::optional("idle_timeout", idle_timeout)?,
            timeout: limits::optional("timeout", timeout)?,
        };
        let mut known = self.known();
        let id = known.next_dial();
        dial.call = id;
        known.enter(Known { id, backlog, plain: true, arrived: None, event: None });
        drop(known);
        self.queues.command(Command::Dial(Box::new(dial)));
        Ok(id)
    }

    /// Give a call up: its connection is closed, and nothing more is said of it.
    fn hang_up(&self, call: u64) {
        if self.known().leave(call).is_some() {
            self.queues.command(Command::HangUp { call });
        }
    }

    fn connections(&self) -> usize {
        self.queues.connections.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn stop_accepting(&self) {
        self.queues.command(Command::StopAccepting);
    }

    /// GOAWAY to all, let calls in flight finish for so long, then close.
    fn shutdown(&self, py: Python<'_>, grace_seconds: f64) -> PyResult<()> {
        let grace = Duration::try_from_secs_f64(grace_seconds)
            .map_err(|_| PyValueError::new_err("grace_seconds must be 0 or more"))?;
        py.detach(|| self.stop(grace));
        Ok(())
    }
}

impl Server {
    /// Account for bytes queued on a stream; -1 when it is dead.
    fn grow(&self, backlog: &Backlog, bytes: usize) -> i64 {
        if backlog.is_dead() {
            return -1;
        }
        i64::try_from(backlog.add(bytes, self.limits.stream_backlog_bytes)).unwrap_or(i64::MAX)
    }
}

/// A message for a stream; one that gRPC cannot carry is the caller's mistake.
fn message(data: &Bound<'_, PyAny>) -> PyResult<Body> {
    let body = Body::message(data)?;
    let size = body.len() - MESSAGE_HEADER_BYTES;
    if size > SEND_MESSAGE_BYTES_MAX {
        let text = format!("grpc: trying to send message larger than max ({size} vs. {SEND_MESSAGE_BYTES_MAX})");
        return Err(PyValueError::new_err(text));
    }
    Ok(body)
}

/// Lists are walked without an iterator object; anything else that can be iterated will do.
fn each<'py>(items: &Bound<'py, PyAny>, mut visit: impl FnMut(&Bound<'py, PyAny>) -> PyResult<()>) -> PyResult<()> {
    if let Ok(list) = items.downcast::<PyList>() {
        return list.iter().try_for_each(|item| visit(&item));
    }
    items.try_iter()?.try_for_each(|item| visit(&item?))
}

fn pair_of<'py>(pair: &Bound<'py, PyAny>) -> PyResult<(u64, Bound<'py, PyAny>)> {
    let pair = pair.downcast::<PyTuple>()?;
    Ok((pair.get_item(0)?.extract()?, pair.get_item(1)?))
}

fn event_tuple<'py>(py: Python<'py>, event: Event) -> PyResult<Bound<'py, PyTuple>> {
    let payload = match event.payload {
        Payload::None => py.None().into_bound(py),
        Payload::Bytes(bytes) => PyBytes::new(py, &bytes).into_any(),
        Payload::Http(request) => Bound::new(py, HttpRequest::from(*request))?.into_any(),
        Payload::Response(response) => Bound::new(py, HttpResponse::from(*response))?.into_any(),
    };
    let meta = match event.meta {
        None => py.None().into_bound(py),
        Some(slot) => slot.object(py, event.timeout_seconds)?.into_any(),
    };
    (event.kind, event.call, event.method, payload, meta).into_pyobject(py)
}

fn bad(what: &str, value: &str) -> PyErr {
    PyValueError::new_err(format!("bad {what} {value:?}"))
}

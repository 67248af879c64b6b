//! The wire's thread: every call under way, and what Python's commands do to it. Those we dialled are in `dials`.
//!
//! Rules that hold here:
//! * A call has one id for its whole life, `generation << 24 | slot`; a stale id finds nothing, so late commands are
//!   dropped without harm.
//! * A call Python knows of ends exactly once: by Python's own reply or finish, or by one CANCEL event.
//! * Nothing here blocks, and nothing is shared with another thread but the `Queues`.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::Reason;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use rustc_hash::FxHashMap;
use slab::Slab;
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::body::{Body, MESSAGE_HEADER_BYTES};
use super::counts::Counts;
use super::dials::{is_dialled, Dials};
use super::grpc::{self, Status};
use super::http1::{self, Answer};
use super::inflow::{self, Ahead, Source};
use super::limits::Limits;
use super::meta::{Peer, Slot};
use super::outflow::{self, End, Outflow, SharedOutflow};
use super::queues::{Backlog, Command, Event, Payload, Queues, CANCEL, HALF_CLOSE, WRITABLE};
use super::turn;

const SLOT_BITS: u32 = 24;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// The gRPC methods served.
pub struct Methods {
    by_path: FxHashMap<String, (u32, bool)>,
}

impl Methods {
    pub fn new(methods: Vec<(String, bool)>) -> Self {
        let indexed = methods.into_iter().zip(0u32..);
        Self { by_path: indexed.map(|((path, streams), index)| (path, (index, streams))).collect() }
    }

    /// Index of a method and whether it streams.
    pub fn find(&self, path: &str) -> Result<(u32, bool), Status> {
        self.by_path.get(path).copied().ok_or_else(|| self.unknown(path))
    }

    fn unknown(&self, path: &str) -> Status {
        let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) else {
            return Status::new(grpc::UNIMPLEMENTED, format!("malformed method name: {path:?}"));
        };
        let prefix = format!("/{service}/");
        let known =
            self.by_path.keys().any(|path| path.strip_prefix(&prefix).is_some_and(|method| !method.contains('/')));
        let text = if known {
            format!("unknown method {method} for service {service}")
        } else {
            format!("unknown service {service}")
        };
        Status::new(grpc::UNIMPLEMENTED, text)
    }
}

/// One connection, as its calls and the shutdown see it.
pub struct Connection {
    pub peer: Arc<Peer>,
    /// What the last call looked like; the next ones mostly look the same.
    pub slot: RefCell<Option<Arc<Slot>>>,
    /// Calls Python knows of, by HTTP/2 stream.
    open: RefCell<FxHashMap<u32, u64>>,
    pub stopping: Cell<bool>,
    /// Python wants to hear no more of its client.
    pub hung_up: Cell<bool>,
    /// The client was answered before it had sent the whole of a request.
    pub unread: Cell<bool>,
    pub waker: RefCell<Option<Waker>>,
    /// HTTP/1.1: the call that has taken the connection over, and what it says.
    pub upgrade: RefCell<Option<(u64, http1::OutBody)>>,
}

impl Connection {
    pub fn new(peer: Peer) -> Rc<Self> {
        Rc::new(Self {
            peer: Arc::new(peer),
            slot: RefCell::default(),
            open: RefCell::default(),
            stopping: Cell::new(false),
            hung_up: Cell::new(false),
            unread: Cell::new(false),
            waker: RefCell::default(),
            upgrade: RefCell::default(),
        })
    }

    pub fn open_calls(&self) -> usize {
        self.open.borrow().len()
    }

    pub fn call_of(&self, stream: u32) -> Option<u64> {
        self.open.borrow().get(&stream).copied()
    }

    pub fn calls(&self) -> Vec<u64> {
        self.open.borrow().values().copied().collect()
    }

    fn stop(&self) {
        self.stopping.set(true);
        self.wake();
    }

    fn hang_up(&self) {
        self.hung_up.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// Where the answer of a call goes.
pub enum Sink {
    /// HTTP/2, nothing sent yet.
    H2(SendResponse<Bytes>),
    H2Open(SharedOutflow),
    /// HTTP/1.1, nothing sent yet.
    H1(tokio::sync::oneshot::Sender<Answer>),
    H1Open(http1::SharedOut),
}

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    Grpc,
    Http,
}

struct Call {
    id: u64,
    kind: Kind,
    method: u32,
    began: Instant,
    timeout: Option<Duration>,
    connection: Rc<Connection>,
    stream: u32,
    backlog: Option<Arc<Backlog>>,
    sink: Option<Sink>,
    reader: Option<AbortHandle>,
    /// Of a request whose body comes in parts.
    ahead: Option<Rc<Ahead>>,
    /// The client sends no more on this stream; true for what is no stream.
    read_to_end: bool,
}

impl Call {
    fn took(&self) -> Duration {
        turn::now().saturating_duration_since(self.began)
    }
}

/// What a new call is made of.
pub struct NewCall {
    pub kind: Kind,
    pub method: u32,
    pub streams: bool,
    pub began: Instant,
    pub timeout: Option<Duration>,
    pub connection: Rc<Connection>,
    pub stream: u32,
    pub backlog: Option<Arc<Backlog>>,
    pub sink: Sink,
}

impl NewCall {
    pub fn plain(connection: Rc<Connection>, stream: u32, backlog: Arc<Backlog>, sink: Sink) -> Self {
        let (kind, backlog, began) = (Kind::Http, Some(backlog), turn::now());
        Self { kind, method: 0, streams: false, began, timeout: None, connection, stream, backlog, sink }
    }
}

pub struct Wire {
    pub queues: Arc<Queues>,
    pub limits: Limits,
    pub methods: Methods,
    pub counts: Arc<Counts>,
    /// Paths of plain requests whose bodies are told of as they come.
    pub streamed_paths: Vec<String>,
    pub dials: Dials,
    /// One permit for every connection that may be there at once.
    pub seats: Arc<Semaphore>,
    calls: RefCell<Slab<Call>>,
    generation: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
    connections: RefCell<Slab<Rc<Connection>>>,
    stopping: Cell<bool>,
}

impl Wire {
    pub fn new(
        queues: Arc<Queues>,
        limits: Limits,
        methods: Methods,
        counts: Arc<Counts>,
        streamed_paths: Vec<String>,
    ) -> Rc<Self> {
        let seats = match limits.connections {
            0 => Semaphore::MAX_PERMITS,
            most => most.min(Semaphore::MAX_PERMITS),
        };
        Rc::new(Self {
            queues,
            limits,
            methods,
            counts,
            streamed_paths,
            dials: Dials::default(),
            seats: Arc::new(Semaphore::new(seats)),
            calls: RefCell::default(),
            generation: Cell::new(0),
            waiting: RefCell::default(),
            connections: RefCell::default(),
            stopping: Cell::new(false),
        })
    }

    // Connections.

    pub fn enter(self: &Rc<Self>, connection: &Rc<Connection>) -> Presence {
        self.queues.connections.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        if self.stopping.get() {
            connection.stop();
        }
        let key = self.connections.borrow_mut().insert(connection.clone());
        Presence { wire: self.clone(), key }
    }

    pub fn stop_all(&self) {
        self.stopping.set(true);
        for (_, connection) in self.connections.borrow().iter() {
            connection.stop();
        }
        self.dials.stop_all(self);
    }

    pub fn is_empty(&self) -> bool {
        self.connections.borrow().is_empty()
    }

    // Back-pressure.

    /// Whether events may be added; if not, the waker is called once there is room.
    pub fn has_room(&self, waker: &Waker) -> bool {
        if self.queues.has_room() {
            return true;
        }
        self.waiting.borrow_mut().push(waker.clone());
        false
    }

    /// Wait until events may be added.
    pub async fn room(&self) {
        poll_fn(|cx| if self.has_room(cx.waker()) { Poll::Ready(()) } else { Poll::Pending }).await;
    }

    pub fn wake_waiting(&self) {
        if !self.waiting.borrow().is_empty() && self.queues.has_room() {
            for waker in self.waiting.take() {
                waker.wake();
            }
        }
    }

    // Calls.

    pub fn open(&self, call: NewCall) -> u64 {
        let generation = self.generation.get() + 1;
        self.generation.set(generation);
        let mut calls = self.calls.borrow_mut();
        let entry = calls.vacant_entry();
        assert!(entry.key() as u64 <= SLOT_MASK, "more than 16 million calls at once");
        let id = generation << SLOT_BITS | entry.key() as u64;
        let NewCall { kind, method, streams, began, timeout, connection, stream, backlog, sink } = call;
        connection.open.borrow_mut().insert(stream, id);
        entry.insert(Call {
            id,
            kind,
            method,
            began,
            timeout,
            connection,
            stream,
            backlog,
            sink: Some(sink),
            reader: None,
            ahead: None,
            read_to_end: !streams,
        });
        id
    }

    /// Remember the task that reads a stream, to end it with the call.
    pub fn set_reader(&self, id: u64, reader: AbortHandle) {
        match self.calls.borrow_mut().get_mut(slot_of(id)).filter(|call| call.id == id) {
            Some(call) => call.reader = Some(reader),
            None => reader.abort(),
        }
    }

    /// Whether the body of this request is told of as it comes.
    pub fn streams(&self, head: &Parts) -> bool {
        self.streamed_paths.iter().any(|path| path == head.uri.path())
    }

    /// Read a request's body in parts.
    pub fn receive<S: Source + 'static>(self: &Rc<Self>, id: u64, body: S) {
        let ahead = Rc::new(Ahead::default());
        if let Some(call) = self.calls.borrow_mut().get_mut(slot_of(id)).filter(|call| call.id == id) {
            let reader = tokio::task::spawn_local(inflow::receive(self.clone(), id, body, ahead.clone()));
            call.reader = Some(reader.abort_handle());
            call.ahead = Some(ahead);
        }
    }

    fn take(&self, id: u64) -> Option<Call> {
        let mut calls = self.calls.borrow_mut();
        calls.get(slot_of(id)).filter(|call| call.id == id)?;
        let call = calls.remove(slot_of(id));
        drop(calls);
        call.connection.open.borrow_mut().remove(&call.stream);
        if call.ahead.as_ref().is_some_and(|ahead| !ahead.is_over()) {
            call.connection.unread.set(true);
        }
        if let Some(reader) = &call.reader {
            reader.abort();
        }
        Some(call)
    }

    /// Count a gRPC call that is over.
    fn count_end(&self, call: &Call, code: u32) {
        if call.kind == Kind::Grpc {
            if !call.read_to_end {
                self.counts.read_to_end(call.method);
            }
            self.counts.ended(call.method, code, call.took());
        }
    }

    pub fn is_open(&self, id: u64) -> bool {
        if is_dialled(id) {
            return self.dials.is_open(id);
        }
        self.calls.borrow().get(slot_of(id)).is_some_and(|call| call.id == id)
    }

    /// The client or its connection is gone.
    pub fn cancel(&self, id: u64) {
        if let Some(call) = self.take(id) {
            if let Some(backlog) = &call.backlog {
                backlog.kill();
            }
            let late = call.timeout.is_some_and(|timeout| call.took() >= timeout);
            self.count_end(&call, if late { grpc::DEADLINE_EXCEEDED } else { grpc::CANCELLED });
            self.tell_end(CANCEL, id, Payload::None);
        }
    }

    /// The client sends no more on a stream.
    pub fn half_close(&self, id: u64) {
        if let Some(call) = self.calls.borrow_mut().get_mut(slot_of(id)).filter(|call| call.id == id) {
            call.read_to_end = true;
            if call.kind == Kind::Grpc {
                self.counts.read_to_end(call.method);
            }
        }
        self.tell(HALF_CLOSE, id, Payload::None);
    }

    pub fn writable(&self, id: u64) {
        if self.is_open(id) {
            self.tell(WRITABLE, id, Payload::None);
        }
    }

    pub fn tell(&self, kind: u8, call: u64, payload: Payload) {
        self.queues.push(Event::more(kind, call, payload));
    }

    /// The last event of a call.
    pub fn tell_end(&self, kind: u8, call: u64, payload: Payload) {
        self.queues.push(Event { ends: true, ..Event::more(kind, call, payload) });
    }

    /// End a call because of something the wire itself found; Python learns of it as a cancel.
    pub fn refuse(self: &Rc<Self>, id: u64, status: Status) {
        if let Some(mut call) = self.take(id) {
            if let Some(backlog) = &call.backlog {
                backlog.kill();
            }
            self.tell_end(CANCEL, id, Payload::None);
            self.count_end(&call, status.code);
            if let Some(sink) = call.sink.take() {
                self.finish_sink(sink, call.kind, status.code, status.message);
            }
        }
    }

    // Commands.

    pub fn reply(self: &Rc<Self>, id: u64, body: Body) {
        let Some(call) = self.take(id) else { return };
        if call.kind == Kind::Grpc {
            self.counts.sent(call.method, body.len() - MESSAGE_HEADER_BYTES);
        }
        self.count_end(&call, grpc::OK);
        match call.sink {
            Some(Sink::H2(respond)) if call.kind == Kind::Grpc => outflow::reply(respond, self, body),
            Some(sink) => {
                let text = "internal error: this call is not unary".to_owned();
                self.finish_sink(sink, call.kind, grpc::INTERNAL, text);
            }
            None => {}
        }
    }

    pub fn finish(self: &Rc<Self>, id: u64, code: u32, message: String) {
        if is_dialled(id) {
            return self.dials.finish(id, code);
        }
        let Some(mut call) = self.take(id) else { return };
        self.count_end(&call, code);
        if let Some(sink) = call.sink.take() {
            self.finish_sink(sink, call.kind, code, message);
        }
    }

    fn finish_sink(self: &Rc<Self>, sink: Sink, kind: Kind, code: u32, message: String) {
        match (sink, kind) {
            (Sink::H2(respond), Kind::Grpc) => outflow::fail(respond, code, &message),
            (Sink::H2Open(flow), Kind::Grpc) => outflow::end(&flow, self, End::Status(code, message)),
            (Sink::H2(respond), Kind::Http) => {
                let (status, headers, body) = http1::failure(&message);
                self.h2_answer(respond, status, headers, body);
            }
            (Sink::H2Open(flow), Kind::Http) => {
                outflow::end(&flow, self, if code == 0 { End::Data } else { End::Reset });
            }
            (Sink::H1(respond), _) => {
                let (status, headers, body) = http1::failure(&message);
                // Nobody is there to receive it: the client has gone.
                let _ = respond.send(Answer::new(status, headers, http1::whole(body)));
            }
            (Sink::H1Open(out), _) => http1::end(&out, code == 0),
        }
    }

    /// Python wants to hear no more of a call: its connection is closed, or its HTTP/2 stream reset.
    fn hang_up(&self, id: u64) {
        if is_dialled(id) {
            return self.dials.hang_up(id);
        }
        let Some(mut call) = self.take(id) else { return };
        if let Some(backlog) = &call.backlog {
            backlog.kill();
        }
        self.count_end(&call, grpc::CANCELLED);
        match call.sink.take() {
            Some(Sink::H2(mut respond)) => respond.send_reset(Reason::CANCEL),
            Some(Sink::H2Open(flow)) => outflow::reset(&flow),
            Some(Sink::H1(_) | Sink::H1Open(_)) | None => call.connection.hang_up(),
        }
    }

    fn consumed(&self, id: u64, bytes: usize) {
        if let Some(call) = self.calls.borrow().get(slot_of(id)).filter(|call| call.id == id) {
            if let Some(ahead) = &call.ahead {
                ahead.consumed(bytes);
            }
        }
    }

    /// More of a stream. A gRPC stream sends its headers with its first message.
    pub fn send(self: &Rc<Self>, id: u64, body: Body) {
        if is_dialled(id) {
            return self.dials.send(id, body);
        }
        let mut calls = self.calls.borrow_mut();
        let Some(call) = calls.get_mut(slot_of(id)).filter(|call| call.id == id) else { return };
        if call.kind == Kind::Grpc {
            self.counts.sent(call.method, body.len() - MESSAGE_HEADER_BYTES);
        }
        if let Some(Sink::H2(_)) = &call.sink {
            let (Some(Sink::H2(mut respond)), Some(backlog)) = (call.sink.take(), call.backlog.clone()) else {
                drop(calls);
                return self.finish(id, grpc::INTERNAL, "internal error: this call is not a stream".into());
            };
            match respond.send_response(grpc::response_head(), false) {
                Ok(send) => call.sink = Some(Sink::H2Open(Outflow::new(send, id, backlog))),
                Err(_) => {
                    drop(calls);
                    return self.cancel(id);
                }
            }
        }
        match &call.sink {
            Some(Sink::H2Open(flow)) => {
                let flow = flow.clone();
                drop(calls);
                outflow::push(&flow, self, body);
            }
            Some(Sink::H1Open(out)) => http1::push(out, body),
            // An HTTP call is answered by http_reply first.
            Some(Sink::H1(_) | Sink::H2(_)) | None => {}
        }
    }

    pub fn http_reply(self: &Rc<Self>, id: u64, status: StatusCode, headers: HeaderMap, body: Body, end: bool) {
        if end {
            match self.take(id).and_then(|call| call.sink) {
                Some(Sink::H2(respond)) => self.h2_answer(respond, status, headers, body),
                Some(Sink::H1(respond)) => drop(respond.send(Answer::new(status, headers, http1::whole(body)))),
                Some(Sink::H2Open(_) | Sink::H1Open(_)) | None => {}
            }
            return;
        }
        let mut calls = self.calls.borrow_mut();
        let Some(call) = calls.get_mut(slot_of(id)).filter(|call| call.id == id) else { return };
        let (Some(sink), Some(backlog)) = (call.sink.take(), call.backlog.clone()) else { return };
        match sink {
            Sink::H1(respond) => {
                let (out, stream) = http1::stream(self, id, backlog);
                call.sink = Some(Sink::H1Open(out.clone()));
                drop(calls);
                http1::push(&out, body);
                // Should the client be gone, the body's drop cancels the call.
                let answer = if status == StatusCode::SWITCHING_PROTOCOLS {
                    let body = http1::whole(Body::Joined(Bytes::new()));
                    Answer { upgrade: Some(stream), ..Answer::new(status, headers, body) }
                } else {
                    Answer::new(status, headers, stream)
                };
                let _ = respond.send(answer);
            }
            Sink::H2(respond) => match outflow::http_head(respond, status, headers, None) {
                Some(send) => {
                    let flow = Outflow::new(send, id, backlog);
                    call.sink = Some(Sink::H2Open(flow.clone()));
                    drop(calls);
                    outflow::push(&flow, self, body);
                }
                None => {
                    drop(calls);
                    self.cancel(id);
                }
            },
            open @ (Sink::H1Open(_) | Sink::H2Open(_)) => call.sink = Some(open),
        }
    }

    /// A whole plain answer over HTTP/2.
    pub fn h2_answer(
        self: &Rc<Self>,
        respond: SendResponse<Bytes>,
        status: StatusCode,
        headers: HeaderMap,
        body: Body,
    ) {
        let Some(send) = outflow::http_head(respond, status, headers, Some(body.len())) else { return };
        let backlog = Arc::new(Backlog::default());
        backlog.add(body.len(), usize::MAX);
        let flow = Outflow::new(send, 0, backlog);
        outflow::push(&flow, self, body);
        outflow::end(&flow, self, End::Data);
    }

    /// Everything but what concerns listeners and shutdown.
    pub fn run(self: &Rc<Self>, command: Command) -> Option<Command> {
        match command {
            Command::Reply { call, body } => self.reply(call, body),
            Command::Finish { call, code, message } => self.finish(call, code, message),
            Command::Send { call, body } => self.send(call, body),
            Command::Fanout { calls, body } => {
                for call in calls {
                    self.send(call, body.clone());
                }
            }
            Command::HttpReply { call, status, headers, body, end } => {
                self.http_reply(call, status, headers, body, end);
            }
            Command::Consumed { call, bytes } => self.consumed(call, bytes),
            Command::Dial(dial) => self.dials.begin(self, *dial),
            Command::HangUp { call } => self.hang_up(call),
            other @ (Command::Open(_) | Command::StopAccepting | Command::Shutdown { .. }) => return Some(other),
        }
        None
    }
}

fn slot_of(id: u64) -> usize {
    usize::try_from(id & SLOT_MASK).expect("24 bits")
}

pub fn slot_index(id: u64) -> usize {
    slot_of(id)
}

/// A connection's place in the count, for as long as it lives. Leaving cancels its calls.
pub struct Presence {
    wire: Rc<Wire>,
    key: usize,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let connection = self.wire.connections.borrow_mut().remove(self.key);
        for call in connection.calls() {
            self.wire.cancel(call);
        }
        self.wire.queues.connections.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        // The shutdown may be waiting for the last one.
        self.wire.queues.pump.wake();
    }
}

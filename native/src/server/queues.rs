//! The two queues between the wire's thread and the loop's: events up, commands down.
//!
//! Rules that hold here:
//! * Python is woken once per poll batch: events raise a flag, and the bell is rung when the wire's thread is about to
//!   sleep (or after `RING_AFTER` events, should it never get to sleep). A wake-up per request costs a third more.
//! * The number and the bytes of events nobody has drained are bounded: past the bound, connections stop reading. The end
//!   of a call always fits; there is at most one for each.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::accept::Door;
use super::body::Body;
use super::dials::Dial;
use super::meta::{Request, Response, Slot};
use crate::wake::Bell;

pub const UNARY: u8 = 0;
pub const OPEN: u8 = 1;
pub const MESSAGE: u8 = 2;
pub const HALF_CLOSE: u8 = 3;
pub const CANCEL: u8 = 4;
pub const WRITABLE: u8 = 5;
pub const HTTP: u8 = 6;
pub const RESPONSE: u8 = 7;
pub const FAILED: u8 = 8;
/// A connection that was turned away, not a call: there is no number.
pub const REJECTED: u8 = 9;

const RING_AFTER: usize = 128;
/// Payload bytes of undrained events beyond which reading stops.
const PENDING_BYTES_MAX: usize = 64 << 20;

pub enum Payload {
    None,
    Bytes(Bytes),
    Http(Box<Request>),
    Response(Box<Response>),
}

impl Payload {
    pub fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Bytes(bytes) => bytes.len(),
            Self::Http(request) => request.body.len(),
            Self::Response(response) => response.body.len(),
        }
    }
}

pub struct Event {
    pub kind: u8,
    pub call: u64,
    pub method: u32,
    pub payload: Payload,
    pub meta: Option<Arc<Slot>>,
    pub timeout_seconds: Option<f64>,
    /// With UNARY: when it came.
    pub arrived: Option<Instant>,
    /// With OPEN and HTTP: what the loop's side must know to answer `send_many` at once.
    pub backlog: Option<Arc<Backlog>>,
    /// The call is over with it.
    pub ends: bool,
}

impl Event {
    /// News of a call Python knows.
    pub fn more(kind: u8, call: u64, payload: Payload) -> Self {
        let (meta, timeout_seconds, arrived, backlog) = (None, None, None, None);
        Self { kind, call, method: 0, payload, meta, timeout_seconds, arrived, backlog, ends: false }
    }
}

/// Unsent bytes of one stream, seen from both threads.
#[derive(Default)]
pub struct Backlog {
    unsent: AtomicUsize,
    full: AtomicBool,
    dead: AtomicBool,
}

impl Backlog {
    /// Python queued `bytes`. `full` is raised before the command is published, so that the wire, which lowers it, has
    /// these bytes still to send.
    pub fn add(&self, bytes: usize, limit: usize) -> usize {
        let unsent = self.unsent.fetch_add(bytes, Ordering::SeqCst) + bytes;
        if unsent > limit {
            self.full.store(true, Ordering::SeqCst);
        }
        unsent
    }

    /// `bytes` have left. True when the stream was full and is writable again.
    pub fn sent(&self, bytes: usize, limit: usize) -> bool {
        let unsent = self.unsent.fetch_sub(bytes, Ordering::SeqCst) - bytes;
        unsent < limit && self.full.load(Ordering::SeqCst) && self.full.swap(false, Ordering::SeqCst)
    }

    pub fn kill(&self) {
        self.dead.store(true, Ordering::Release);
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }
}

pub enum Command {
    Reply { call: u64, body: Body },
    Finish { call: u64, code: u32, message: String },
    Send { call: u64, body: Body },
    Fanout { calls: Vec<u64>, body: Body },
    HttpReply { call: u64, status: StatusCode, headers: HeaderMap, body: Body, end: bool },
    Consumed { call: u64, bytes: usize },
    Dial(Box<Dial>),
    HangUp { call: u64 },
    Open(Door),
    StopAccepting,
    Shutdown { grace: std::time::Duration },
}

#[derive(Default)]
struct Events {
    queue: VecDeque<Event>,
    unrung: usize,
}

pub struct Queues {
    bell: Arc<Bell>,
    events: Mutex<Events>,
    pending: AtomicUsize,
    pending_bytes: AtomicUsize,
    pending_max: usize,
    /// Some connection has stopped reading and wants to hear of a drain.
    starved: AtomicBool,
    commands: Mutex<Vec<Command>>,
    pub pump: AtomicWaker,
    pub connections: AtomicUsize,
}

impl Queues {
    pub fn new(bell: Arc<Bell>, pending_max: usize) -> Self {
        Self {
            bell,
            events: Mutex::default(),
            pending: AtomicUsize::new(0),
            pending_bytes: AtomicUsize::new(0),
            pending_max,
            starved: AtomicBool::new(false),
            commands: Mutex::default(),
            pump: AtomicWaker::new(),
            connections: AtomicUsize::new(0),
        }
    }

    fn events(&self) -> MutexGuard<'_, Events> {
        self.events.lock().expect("nobody panics while holding the events")
    }

    // The wire's side.

    pub fn push(&self, event: Event) {
        self.pending.fetch_add(1, Ordering::Relaxed);
        self.pending_bytes.fetch_add(event.payload.len(), Ordering::Relaxed);
        let mut events = self.events();
        events.queue.push_back(event);
        events.unrung += 1;
        if events.unrung >= RING_AFTER {
            events.unrung = 0;
            drop(events);
            self.bell.ring();
        }
    }

    /// News that may be lost: what nobody has room for is dropped.
    pub fn push_if_room(&self, event: Event) {
        if self.below(self.pending_max, PENDING_BYTES_MAX) {
            self.push(event);
        }
    }

    /// Called before the wire's thread sleeps.
    pub fn ring_if_news(&self) {
        let news = std::mem::take(&mut self.events().unrung);
        if news > 0 {
            self.bell.ring();
        }
    }

    /// Whether more may be read from sockets. After false, the pump is woken by the next drain that makes room.
    pub fn has_room(&self) -> bool {
        if self.below(self.pending_max, PENDING_BYTES_MAX) {
            return true;
        }
        self.starved.store(true, Ordering::SeqCst);
        self.below(self.pending_max, PENDING_BYTES_MAX)
    }

    fn below(&self, events: usize, bytes: usize) -> bool {
        self.pending.load(Ordering::SeqCst) < events && self.pending_bytes.load(Ordering::SeqCst) < bytes
    }

    pub fn take_commands(&self) -> Vec<Command> {
        std::mem::take(&mut *self.commands.lock().expect("nobody panics while holding the commands"))
    }

    // The loop's side.

    pub fn drain(&self, max: usize) -> VecDeque<Event> {
        let taken = {
            let mut events = self.events();
            if events.queue.len() <= max {
                std::mem::take(&mut events.queue)
            } else {
                events.queue.drain(..max).collect()
            }
        };
        if taken.is_empty() {
            return taken;
        }
        let bytes: usize = taken.iter().map(|event| event.payload.len()).sum();
        self.pending.fetch_sub(taken.len(), Ordering::SeqCst);
        self.pending_bytes.fetch_sub(bytes, Ordering::SeqCst);
        let half_empty = self.below(self.pending_max.div_ceil(2), PENDING_BYTES_MAX / 2);
        if half_empty && self.starved.swap(false, Ordering::SeqCst) {
            self.pump.wake();
        }
        taken
    }

    pub fn command(&self, command: Command) {
        self.command_many(vec![command]);
    }

    pub fn command_many(&self, more: Vec<Command>) {
        if more.is_empty() {
            return;
        }
        let mut commands = self.commands.lock().expect("nobody panics while holding the commands");
        let asleep = commands.is_empty();
        if asleep {
            *commands = more;
        } else {
            commands.extend(more);
        }
        drop(commands);
        if asleep {
            self.pump.wake();
        }
    }
}

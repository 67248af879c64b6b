//! One HTTP/2 connection: the task that drives it, its timers, and what it enforces.
//!
//! One poll does it all: read what the socket has, take every request that is there, read each one's body in place (it
//! has usually come with it), and write everything that was produced at once. Only a request whose body is not yet whole
//! gets a task of its own (see `requests`).

use std::cell::RefCell;
use std::future::{poll_fn, Future};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection as H2Connection};
use h2::{Ping, PingPong, Reason};
use tokio::time::{sleep_until, timeout, Instant, Sleep};

use super::calls::{Connection, Wire};
use super::frames::go_away;
use super::io::{linger, Core, Io};
use super::outflow::H2_BUFFER_BYTES;
use super::requests::{self, Serves};

/// What one stream, and one connection, may have under way towards us.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 4 << 20;
/// Requests taken before other connections get their turn.
const REQUESTS_PER_TURN: usize = 256;
/// A client may cancel this many requests before we have looked at them, as a burst of timeouts does.
const UNSEEN_RESETS_MAX: usize = 1024;
/// Pings too many before the connection is closed, and how often a client without calls may ping: grpc-go's numbers.
const PING_STRIKES_MAX: u32 = 2;
const IDLE_PING_INTERVAL: Duration = Duration::from_secs(2 * 3600);
/// A graceful end begins with a PING; a client without calls that does not answer it within this time is closed.
const FAREWELL: Duration = Duration::from_millis(500);

struct Driver {
    wire: Rc<Wire>,
    core: Rc<RefCell<Core>>,
    connection: Rc<Connection>,
    http: H2Connection<Io, Bytes>,
    serves: Serves,
    pings: Option<PingPong>,
    ping_sent: Option<Instant>,
    started: Instant,
    timer: Pin<Box<Sleep>>,
    /// Set by the shutdown: when to look whether the client still has calls.
    farewell: Option<Instant>,
    ping_strikes: u32,
    last_ping: Option<Instant>,
}

/// Serve one connection whose first bytes were the HTTP/2 preface, to its end.
pub async fn serve(wire: Rc<Wire>, core: Rc<RefCell<Core>>, connection: Rc<Connection>, serves: Serves) {
    let mut builder = Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_header_list_size(wire.limits.header_bytes)
        .max_send_buffer_size(H2_BUFFER_BYTES)
        .max_pending_accept_reset_streams(UNSEEN_RESETS_MAX);
    if wire.limits.concurrent_streams > 0 {
        builder.max_concurrent_streams(wire.limits.concurrent_streams);
    }
    let mut handshake = builder.handshake::<Io, Bytes>(Io(core.clone()));
    let shaken = poll_fn(|cx| {
        core.borrow_mut().begin_turn();
        let polled = Pin::new(&mut handshake).poll(cx);
        let _ = core.borrow_mut().flush(cx);
        polled
    });
    let Ok(Ok(mut http)) = timeout(wire.limits.header_timeout.unwrap_or(Duration::MAX), shaken).await else { return };
    let now = Instant::now();
    let pings = http.ping_pong();
    let mut driver = Driver {
        wire,
        core: core.clone(),
        connection,
        http,
        serves,
        pings,
        ping_sent: None,
        started: now,
        timer: Box::pin(sleep_until(now)),
        farewell: None,
        ping_strikes: 0,
        last_ping: None,
    };
    poll_fn(|cx| driver.poll(cx)).await;
    drop(driver);
    linger(&core).await;
}

impl Driver {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.connection.waker.borrow_mut().get_or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
        if self.connection.stopping.get() && self.farewell.is_none() {
            self.farewell = Some(Instant::now() + FAREWELL);
            self.http.graceful_shutdown();
        }
        self.core.borrow_mut().begin_turn();
        let mut over = self.advance(cx);
        over |= self.note_frames();
        over |= self.core.borrow_mut().flush(cx).is_err();
        if over || self.poll_timer(cx) {
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Drive the library and take requests. True when the connection is over.
    fn advance(&mut self, cx: &mut Context<'_>) -> bool {
        for _ in 0..REQUESTS_PER_TURN {
            if !self.wire.has_room(cx.waker()) {
                self.core.borrow_mut().paused = true;
                return self.http.poll_closed(cx).is_ready();
            }
            self.core.borrow_mut().paused = false;
            match self.http.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    requests::begin(&self.wire, &self.connection, self.serves, request, respond, cx);
                }
                Poll::Ready(Some(Err(_)) | None) => return true,
                Poll::Pending => return false,
            }
        }
        cx.waker().wake_by_ref();
        false
    }

    /// Act on what the scanner saw. True when the client has pinged itself out.
    fn note_frames(&mut self) -> bool {
        let (resets, pings) = {
            let mut core = self.core.borrow_mut();
            let Some(scanner) = core.scanner.as_mut() else { return false };
            (std::mem::take(&mut scanner.resets), std::mem::take(&mut scanner.pings))
        };
        for stream in resets {
            if let Some(call) = self.connection.call_of(stream) {
                self.wire.cancel(call);
            }
        }
        (0..pings).any(|_| self.one_ping_too_many())
    }

    /// grpc-go's keepalive enforcement.
    fn one_ping_too_many(&mut self) -> bool {
        let Some(min_time) = self.wire.limits.keepalive_min_time else { return false };
        let now = self.core.borrow().last_read;
        let last = self.last_ping.replace(now);
        if self.core.borrow_mut().sent.as_mut().is_some_and(|sent| std::mem::take(&mut sent.spoke)) {
            self.ping_strikes = 0;
            return false;
        }
        let allowed = if self.connection.open_calls() == 0 { IDLE_PING_INTERVAL } else { min_time };
        if last.is_some_and(|last| last + allowed > now) {
            self.ping_strikes += 1;
        }
        if self.ping_strikes <= PING_STRIKES_MAX {
            return false;
        }
        let mut core = self.core.borrow_mut();
        if !core.refused {
            let last_stream = core.scanner.as_ref().map_or(0, |scanner| scanner.last_stream);
            core.append(&go_away(last_stream, Reason::ENHANCE_YOUR_CALM.into(), b"too_many_pings"));
        }
        true
    }

    /// Run what is due and wait for what is next. True when the client has let a deadline pass.
    ///
    /// Deadlines mostly move away (every read moves the next ping), so the timer is only moved for an earlier one, and
    /// looks again when it fires.
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        while let Some(deadline) = self.deadline() {
            if deadline < self.timer.deadline() || self.timer.is_elapsed() {
                self.timer.as_mut().reset(deadline);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return false;
            }
            let now = Instant::now();
            if now < deadline {
                continue;
            }
            match self.farewell {
                Some(farewell) if now >= farewell && self.http.has_streams() => self.farewell = Some(now + FAREWELL),
                Some(farewell) if now >= farewell => return true,
                _ if self.ping_sent.is_none() && self.is_quiet_too_long(now) => self.send_ping(cx, now),
                _ => return true,
            }
        }
        false
    }

    /// The next moment at which the client has been too slow, or quiet for so long that we ping it.
    fn deadline(&mut self) -> Option<Instant> {
        let core = self.core.borrow();
        if self.ping_sent.is_some_and(|sent| core.last_read > sent) {
            // Any bytes at all prove life.
            self.ping_sent = None;
        }
        let headers = core.scanner.as_ref().and_then(|scanner| {
            let since = if scanner.began { scanner.headers_since } else { Some(self.started) };
            Some(since? + self.wire.limits.header_timeout?)
        });
        let ping = match self.ping_sent {
            Some(sent) => Some(sent + self.wire.limits.keepalive_timeout),
            None => self.wire.limits.keepalive_interval.map(|interval| core.last_read + interval),
        };
        headers.into_iter().chain(ping).chain(self.farewell).min()
    }

    fn is_quiet_too_long(&self, now: Instant) -> bool {
        self.wire.limits.keepalive_interval.is_some_and(|interval| now >= self.core.borrow().last_read + interval)
    }

    fn send_ping(&mut self, cx: &mut Context<'_>, now: Instant) {
        if let Some(pings) = &mut self.pings {
            // Take an old acknowledgement off the library's hands, or it refuses the next ping.
            let _ = pings.poll_pong(cx);
            let _ = pings.send_ping(Ping::opaque());
            // The ping is written by the next poll of the connection.
            cx.waker().wake_by_ref();
        }
        self.ping_sent = Some(now);
    }
}

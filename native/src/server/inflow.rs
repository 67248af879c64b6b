//! Long bodies on their way in: to Python they are MESSAGE events.
//!
//! Rules that hold here:
//! * What has come since the last look is one event, however many chunks it came in: events cost Python more than
//!   bytes.
//! * Nothing is read while too many events wait for Python. A request's body waits too while Python has not yet dealt
//!   with `AHEAD_BYTES_MAX` of it, so that a slow disk is felt by the sender.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{ready, Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use h2::RecvStream;
use http_body::Body as _;
use hyper::body::Incoming;

use super::calls::Wire;
use super::queues::{Payload, MESSAGE};

/// What is read of a request's body ahead of Python.
const AHEAD_BYTES_MAX: usize = 1 << 20;
/// What one event carries, about.
const EVENT_BYTES: usize = 256 << 10;

/// A body as one of the HTTP libraries gives it.
pub trait Source {
    type Error;
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>>;
}

impl Source for Incoming {
    type Error = hyper::Error;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        loop {
            match ready!(Pin::new(&mut *self).poll_frame(cx)) {
                // Trailers: nobody asked for them.
                Some(Ok(frame)) if !frame.is_data() => {}
                Some(frame) => return Poll::Ready(Some(frame.map(|frame| frame.into_data().unwrap_or_default()))),
                None => return Poll::Ready(None),
            }
        }
    }
}

impl Source for RecvStream {
    type Error = h2::Error;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, h2::Error>>> {
        let data = ready!(RecvStream::poll_data(self, cx));
        if let Some(Ok(data)) = &data {
            // Fails only when the stream is gone, which the next read reports.
            let _ = self.flow_control().release_capacity(data.len());
        }
        Poll::Ready(data)
    }
}

/// Joins what comes in quick succession.
pub struct Inflow<S: Source> {
    source: S,
    gathered: BytesMut,
    /// How the body has ended, once it has.
    end: Option<Result<(), S::Error>>,
    /// The connection has had its turn since the last bytes, and brought no more.
    looked_again: bool,
}

impl<S: Source> Inflow<S> {
    pub fn new(source: S) -> Self {
        Self { source, gathered: BytesMut::new(), end: None, looked_again: false }
    }

    /// What has come next; None at a good end.
    pub async fn next(&mut self) -> Result<Option<Bytes>, S::Error> {
        poll_fn(|cx| self.poll_gather(cx)).await;
        if !self.gathered.is_empty() {
            self.looked_again = false;
            return Ok(Some(self.gathered.split().freeze()));
        }
        self.end.take().expect("a body is asked no more after its end").map(|()| None)
    }

    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.end.is_none() && self.gathered.len() < EVENT_BYTES {
            match self.source.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    self.gathered.extend_from_slice(&data);
                    self.looked_again = false;
                }
                Poll::Ready(Some(Err(error))) => self.end = Some(Err(error)),
                Poll::Ready(None) => self.end = Some(Ok(())),
                Poll::Pending if self.gathered.is_empty() => return Poll::Pending,
                Poll::Pending if self.looked_again => break,
                Poll::Pending => {
                    self.looked_again = true;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(())
    }
}

/// The bytes of a request's body that Python has been told of and has not yet dealt with.
#[derive(Default)]
pub struct Ahead {
    bytes: Cell<usize>,
    waker: RefCell<Option<Waker>>,
    /// The body has ended, well or not.
    over: Cell<bool>,
}

impl Ahead {
    pub fn is_over(&self) -> bool {
        self.over.get()
    }

    pub fn consumed(&self, bytes: usize) {
        self.bytes.set(self.bytes.get().saturating_sub(bytes));
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.bytes.get() < AHEAD_BYTES_MAX {
            return Poll::Ready(());
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Bring a request's body to Python, to its end.
pub async fn receive<S: Source>(wire: Rc<Wire>, call: u64, body: S, ahead: Rc<Ahead>) {
    let mut inflow = Inflow::new(body);
    loop {
        poll_fn(|cx| ahead.poll_room(cx)).await;
        wire.room().await;
        let end = match inflow.next().await {
            Ok(Some(data)) => {
                ahead.bytes.set(ahead.bytes.get() + data.len());
                wire.tell(MESSAGE, call, Payload::Bytes(data));
                continue;
            }
            Ok(None) => Wire::half_close,
            Err(_) => Wire::cancel,
        };
        ahead.over.set(true);
        return end(&wire, call);
    }
}

//! Answers on their way out over HTTP/2.
//!
//! The h2 library buffers whatever it is given, so it is given only what flow control lets it send (plus at most
//! `H2_BUFFER_BYTES`). The rest waits here, counted, which is what lets Python see a slow reader and stop.
//!
//! On the common path everything is sent in place, with no task. Only an answer that is blocked gets one, which lives
//! until it is unblocked.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{ready, Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::header::{HeaderMap, HeaderValue, CONTENT_LENGTH};
use http::{Response, StatusCode};

use super::body::{Body, MESSAGE_HEADER_BYTES, SEND_MESSAGE_BYTES_MAX};
use super::calls::Wire;
use super::grpc;
use super::queues::Backlog;

/// What the h2 library may hold of one stream beyond what it can send.
pub const H2_BUFFER_BYTES: usize = 256 << 10;

/// How a flow ends once its queue is empty.
pub enum End {
    Status(u32, String),
    Data,
    Reset,
}

/// The stream is gone; nothing more can be sent.
struct Gone;

pub struct Outflow {
    send: SendStream<Bytes>,
    chunk: Bytes,
    queue: VecDeque<Body>,
    end: Option<End>,
    blocked: bool,
    gone: bool,
    call: u64,
    backlog: Arc<Backlog>,
}

pub type SharedOutflow = Rc<RefCell<Outflow>>;

impl Outflow {
    pub fn new(send: SendStream<Bytes>, call: u64, backlog: Arc<Backlog>) -> SharedOutflow {
        Rc::new(RefCell::new(Self {
            send,
            chunk: Bytes::new(),
            queue: VecDeque::new(),
            end: None,
            blocked: false,
            gone: false,
            call,
            backlog,
        }))
    }

    fn next_chunk(&mut self) -> bool {
        while self.chunk.is_empty() {
            let Some(body) = self.queue.front_mut() else { return false };
            match body.next_chunk() {
                Some(chunk) => self.chunk = chunk,
                None => drop(self.queue.pop_front()),
            }
        }
        true
    }

    /// Send while there is capacity. True when all is sent, false when flow control says wait.
    fn advance(&mut self, wire: &Wire) -> Result<bool, Gone> {
        while self.next_chunk() {
            self.send.reserve_capacity(self.chunk.len());
            let length = self.send.capacity().min(self.chunk.len());
            if length == 0 {
                return Ok(false);
            }
            self.send.send_data(self.chunk.split_to(length), false).map_err(|_| Gone)?;
            if self.backlog.sent(length, wire.limits.stream_backlog_bytes) {
                wire.writable(self.call);
            }
        }
        match self.end.take() {
            None => Ok(()),
            Some(End::Status(code, message)) => self.send.send_trailers(grpc::trailers(code, &message)),
            Some(End::Data) => self.send.send_data(Bytes::new(), true),
            Some(End::Reset) => {
                self.send.send_reset(Reason::INTERNAL_ERROR);
                Ok(())
            }
        }
        .map_err(|_| Gone)?;
        Ok(true)
    }

    fn poll_rest(&mut self, wire: &Wire, cx: &mut Context<'_>) -> Poll<Result<(), Gone>> {
        loop {
            if self.advance(wire)? {
                self.blocked = false;
                return Poll::Ready(Ok(()));
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Err(Gone)),
            }
        }
    }
}

/// Queue more of a stream, and send what can be sent now.
pub fn push(flow: &SharedOutflow, wire: &Rc<Wire>, body: Body) {
    flow.borrow_mut().queue.push_back(body);
    run(flow, wire);
}

pub fn end(flow: &SharedOutflow, wire: &Rc<Wire>, end: End) {
    flow.borrow_mut().end = Some(end);
    run(flow, wire);
}

/// End a flow at once, whatever is still queued.
pub fn reset(flow: &SharedOutflow) {
    let mut state = flow.borrow_mut();
    state.gone = true;
    state.queue.clear();
    state.chunk = Bytes::new();
    state.send.send_reset(Reason::CANCEL);
}

fn run(flow: &SharedOutflow, wire: &Rc<Wire>) {
    let mut state = flow.borrow_mut();
    if state.blocked || state.gone {
        return;
    }
    match state.advance(wire) {
        Ok(true) => {}
        Ok(false) => {
            state.blocked = true;
            tokio::task::spawn_local(finish_blocked(flow.clone(), wire.clone()));
        }
        Err(Gone) => lose(state, wire),
    }
}

async fn finish_blocked(flow: SharedOutflow, wire: Rc<Wire>) {
    if poll_fn(|cx| flow.borrow_mut().poll_rest(&wire, cx)).await.is_err() {
        lose(flow.borrow_mut(), &wire);
    }
}

/// The client is gone: free what is queued and tell Python, if it still cares for this call.
fn lose(mut state: std::cell::RefMut<'_, Outflow>, wire: &Wire) {
    state.gone = true;
    state.queue.clear();
    state.chunk = Bytes::new();
    let call = state.call;
    drop(state);
    wire.cancel(call);
}

/// Answer a unary call with its message.
pub fn reply(mut respond: SendResponse<Bytes>, wire: &Rc<Wire>, body: Body) {
    let size = body.len() - MESSAGE_HEADER_BYTES;
    if size > SEND_MESSAGE_BYTES_MAX {
        let text = format!("grpc: trying to send message larger than max ({size} vs. {SEND_MESSAGE_BYTES_MAX})");
        return fail(respond, grpc::RESOURCE_EXHAUSTED, &text);
    }
    let Ok(mut send) = respond.send_response(grpc::response_head(), false) else { return };
    match body {
        // Errors below mean that the client has gone; Python has finished with the call already.
        Body::Joined(bytes) => {
            let _ = send.send_data(bytes, false);
            let _ = send.send_trailers(grpc::trailers(0, ""));
        }
        parts @ Body::Parts(_) => {
            let backlog = Arc::new(Backlog::default());
            backlog.add(parts.len(), usize::MAX);
            let flow = Outflow::new(send, 0, backlog);
            flow.borrow_mut().end = Some(End::Status(0, String::new()));
            push(&flow, wire, parts);
        }
    }
}

/// End a call that has answered nothing yet with a status alone.
pub fn fail(mut respond: SendResponse<Bytes>, code: u32, message: &str) {
    let _ = respond.send_response(grpc::trailers_only(code, message), true);
}

/// The head of a plain HTTP answer; None when the client has gone.
pub fn http_head(
    mut respond: SendResponse<Bytes>,
    status: StatusCode,
    headers: HeaderMap,
    length: Option<usize>,
) -> Option<SendStream<Bytes>> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if let Some(length) = length {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    respond.send_response(response, false).ok()
}

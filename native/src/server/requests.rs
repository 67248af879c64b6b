//! From HTTP/2 requests to events.
//!
//! Each kind of request has a small state machine (`Unary`, `Stream`, `Plain`) that reads its body. It is polled once in
//! place, when the request is taken: the body of most is there by then, and that is the end of it. The others go on as
//! tasks of their own.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use h2::RecvStream;
use http::request::Parts;
use http::{HeaderMap, Method, Request, StatusCode};

use super::calls::{Connection, Kind, NewCall, Sink, Wire};
use super::grpc::{self, Messages, Status};
use super::http1;
use super::meta::{Description, Slot};
use super::outflow;
use super::queues::{Backlog, Event, Payload, MESSAGE, OPEN, UNARY};
use super::turn;

/// What a listener offers.
#[derive(Clone, Copy)]
pub struct Serves {
    pub grpc: bool,
    pub http: bool,
}

/// Take one request: read what is there of it, and leave the rest to a task.
pub fn begin(
    wire: &Rc<Wire>,
    connection: &Rc<Connection>,
    serves: Serves,
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    cx: &mut Context<'_>,
) {
    let (head, body) = request.into_parts();
    if serves.grpc && grpc::is_grpc(&head.headers) {
        begin_grpc(wire, connection, &head, body, respond, cx);
    } else if serves.http && wire.streams(&head) {
        let (stream, sink) = (respond.stream_id().into(), Sink::H2(respond));
        let call = http1::announce(wire, connection, stream, head, Bytes::new(), sink);
        wire.receive(call, body);
    } else if serves.http {
        let plain = Plain {
            wire: wire.clone(),
            connection: connection.clone(),
            body,
            whole: BytesMut::new(),
            request: Some((head, respond)),
        };
        drop(poll_or_spawn(plain, cx));
    } else {
        let kind = head.headers.get(http::header::CONTENT_TYPE).map(http::HeaderValue::as_bytes).unwrap_or_default();
        let text = format!("invalid gRPC request content-type {:?}", String::from_utf8_lossy(kind));
        abort(respond, StatusCode::UNSUPPORTED_MEDIA_TYPE, &Status::new(grpc::INVALID_ARGUMENT, text));
    }
}

/// Poll once in place; what is not done then becomes a task.
fn poll_or_spawn<F>(mut work: F, cx: &mut Context<'_>) -> Option<tokio::task::AbortHandle>
where
    F: Future<Output = ()> + Unpin + 'static,
{
    match Pin::new(&mut work).poll(cx) {
        Poll::Ready(()) => None,
        Poll::Pending => Some(tokio::task::spawn_local(work).abort_handle()),
    }
}

/// Answer with a status before the call has begun, as grpc-go does: with an HTTP status that fits.
fn abort(mut respond: SendResponse<Bytes>, http_status: StatusCode, status: &Status) {
    let mut response = grpc::trailers_only(status.code, &status.message);
    *response.status_mut() = http_status;
    // An error means that the client is gone.
    let _ = respond.send_response(response, true);
}

fn begin_grpc(
    wire: &Rc<Wire>,
    connection: &Rc<Connection>,
    head: &Parts,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    cx: &mut Context<'_>,
) {
    if head.method != Method::POST {
        let text = format!("Received a HEADERS frame with :method {:?} which should be POST", head.method.as_str());
        return abort(respond, StatusCode::METHOD_NOT_ALLOWED, &Status::new(grpc::INTERNAL, text));
    }
    let timeout = match head.headers.get("grpc-timeout").map(|value| grpc::parse_timeout(value.as_bytes())) {
        None => None,
        Some(Ok(timeout)) => Some(timeout),
        Some(Err(text)) => {
            let text = format!("malformed grpc-timeout: {text}");
            return abort(respond, StatusCode::BAD_REQUEST, &Status::new(grpc::INTERNAL, text));
        }
    };
    if timeout == Some(Duration::ZERO) {
        return outflow::fail(respond, grpc::DEADLINE_EXCEEDED, "context deadline exceeded");
    }
    let (method, streams) = match wire.methods.find(head.uri.path()) {
        Ok(found) => found,
        Err(status) => return outflow::fail(respond, status.code, &status.message),
    };
    let encoding = head.headers.get("grpc-encoding");
    let gzip = encoding.is_some_and(|value| value.as_bytes() == b"gzip");
    if let Some(encoding) = encoding.filter(|value| !matches!(value.as_bytes(), b"" | b"identity" | b"gzip")) {
        let encoding = String::from_utf8_lossy(encoding.as_bytes());
        let text = format!("grpc: Decompressor is not installed for grpc-encoding {encoding:?}");
        return outflow::fail(respond, grpc::UNIMPLEMENTED, &text);
    }
    let opening = Opening {
        wire: wire.clone(),
        connection: connection.clone(),
        method,
        slot: describe(wire, connection, head),
        timeout,
    };
    let messages = Messages::new(wire.limits.recv_message_bytes, gzip);
    if streams {
        let (call, stream) = Stream::open(opening, body, respond, messages);
        if let Some(reader) = poll_or_spawn(stream, cx) {
            wire.set_reader(call, reader);
        }
    } else {
        drop(poll_or_spawn(Unary { opening, body, messages, respond: Some(respond) }, cx));
    }
}

/// The description of this call: the connection's last one if nothing differs.
fn describe(wire: &Wire, connection: &Connection, head: &Parts) -> Arc<Slot> {
    let host = || head.headers.get(http::header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let authority = head.uri.authority().map_or_else(host, http::uri::Authority::as_str);
    let mut last = connection.slot.borrow_mut();
    match &*last {
        Some(slot) if slot.describes(authority, &head.headers) => slot.clone(),
        _ => {
            let description = Description::new(connection.peer.clone(), authority, &head.headers);
            let slot = Slot::new(description, wire.counts.caller(&head.headers));
            *last = Some(slot.clone());
            slot
        }
    }
}

/// What is known of a gRPC call when it begins.
struct Opening {
    wire: Rc<Wire>,
    connection: Rc<Connection>,
    method: u32,
    slot: Arc<Slot>,
    timeout: Option<Duration>,
}

impl Opening {
    /// Enter the call and tell Python of it.
    fn announce(&self, kind: u8, respond: SendResponse<Bytes>, payload: Payload, backlog: Option<Arc<Backlog>>) -> u64 {
        let (began, caller) = (turn::now(), self.slot.caller.as_deref());
        if kind == UNARY {
            self.wire.counts.unary(self.method, payload.len(), caller);
        } else {
            self.wire.counts.opened(self.method, caller);
        }
        let call = self.wire.open(NewCall {
            kind: Kind::Grpc,
            method: self.method,
            streams: kind == OPEN,
            began,
            timeout: self.timeout,
            connection: self.connection.clone(),
            stream: respond.stream_id().into(),
            backlog: backlog.clone(),
            sink: Sink::H2(respond),
        });
        self.wire.queues.push(Event {
            kind,
            call,
            method: self.method,
            payload,
            meta: Some(self.slot.clone()),
            timeout_seconds: self.timeout.map(|timeout| timeout.as_secs_f64()),
            arrived: (kind == UNARY).then_some(began),
            backlog,
            ends: false,
        });
        call
    }
}

/// Give bytes back to the client's flow-control windows.
fn release(body: &mut RecvStream, bytes: usize) {
    // Fails only when the stream is gone, which the next read reports.
    let _ = body.flow_control().release_capacity(bytes);
}

/// A unary request whose message has not yet come. Python does not know of it.
struct Unary {
    opening: Opening,
    body: RecvStream,
    messages: Messages,
    respond: Option<SendResponse<Bytes>>,
}

impl Unary {
    fn fail(&mut self, code: u32, message: &str) {
        if let Some(respond) = self.respond.take() {
            outflow::fail(respond, code, message);
        }
    }
}

impl Future for Unary {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            let data = match ready!(this.body.poll_data(cx)) {
                Some(Ok(data)) => data,
                Some(Err(_)) => return Poll::Ready(()),
                None => {
                    // grpc-go's texts: the handler's read ends where no, or half a, message is.
                    this.fail(grpc::UNKNOWN, if this.messages.is_torn() { "unexpected EOF" } else { "EOF" });
                    return Poll::Ready(());
                }
            };
            let length = data.len();
            this.messages.feed(data);
            match this.messages.next_message() {
                Ok(Some(message)) => {
                    let respond = this.respond.take().expect("a request is announced once");
                    this.opening.announce(UNARY, respond, Payload::Bytes(message), None);
                    return Poll::Ready(());
                }
                Ok(None) => release(&mut this.body, length),
                Err(status) => {
                    this.fail(status.code, &status.message);
                    return Poll::Ready(());
                }
            }
        }
    }
}

/// The client's half of an open stream.
struct Stream {
    wire: Rc<Wire>,
    call: u64,
    method: u32,
    body: RecvStream,
    messages: Messages,
    /// Bytes fed whose window is given back once their messages are with Python.
    unreleased: usize,
}

impl Stream {
    fn open(opening: Opening, body: RecvStream, respond: SendResponse<Bytes>, messages: Messages) -> (u64, Self) {
        let backlog = Some(Arc::new(Backlog::default()));
        let call = opening.announce(OPEN, respond, Payload::None, backlog);
        (call, Self { wire: opening.wire, call, method: opening.method, body, messages, unreleased: 0 })
    }
}

impl Future for Stream {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            if !this.wire.has_room(cx.waker()) {
                return Poll::Pending;
            }
            match this.messages.next_message() {
                Ok(Some(message)) => {
                    this.wire.counts.message(this.method, message.len());
                    this.wire.tell(MESSAGE, this.call, Payload::Bytes(message));
                    continue;
                }
                Ok(None) => {}
                Err(status) => {
                    this.wire.refuse(this.call, status);
                    return Poll::Ready(());
                }
            }
            release(&mut this.body, std::mem::take(&mut this.unreleased));
            match ready!(this.body.poll_data(cx)) {
                Some(Ok(data)) => {
                    this.unreleased = data.len();
                    this.messages.feed(data);
                }
                Some(Err(_)) => {
                    this.wire.cancel(this.call);
                    return Poll::Ready(());
                }
                None if this.messages.is_torn() => {
                    this.wire.refuse(this.call, Status::new(grpc::INTERNAL, "unexpected EOF"));
                    return Poll::Ready(());
                }
                None => {
                    this.wire.half_close(this.call);
                    return Poll::Ready(());
                }
            }
        }
    }
}

/// A plain request whose body has not yet come.
struct Plain {
    wire: Rc<Wire>,
    connection: Rc<Connection>,
    body: RecvStream,
    whole: BytesMut,
    request: Option<(Parts, SendResponse<Bytes>)>,
}

impl Future for Plain {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            match ready!(this.body.poll_data(cx)) {
                Some(Err(_)) => return Poll::Ready(()),
                Some(Ok(data)) if this.whole.len() + data.len() > this.wire.limits.http_body_bytes => {
                    if let Some((_, respond)) = this.request.take() {
                        let (status, headers, body) =
                            http1::plain(StatusCode::PAYLOAD_TOO_LARGE, "http: request body too large");
                        this.wire.h2_answer(respond, status, headers, body);
                    }
                    return Poll::Ready(());
                }
                Some(Ok(data)) => {
                    this.whole.extend_from_slice(&data);
                    release(&mut this.body, data.len());
                }
                None => {
                    if let Some((head, respond)) = this.request.take() {
                        let stream = respond.stream_id().into();
                        let body = std::mem::take(&mut this.whole).freeze();
                        http1::announce(&this.wire, &this.connection, stream, head, body, Sink::H2(respond));
                    }
                    return Poll::Ready(());
                }
            }
        }
    }
}

/// Headers Python gave for a plain answer.
pub fn header_map(headers: Vec<(String, String)>) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        let parsed_name =
            http::HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("bad header name {name:?}"))?;
        let parsed =
            http::HeaderValue::from_str(&value).map_err(|_| format!("bad value of header {name}: {value:?}"))?;
        map.append(parsed_name, parsed);
    }
    Ok(map)
}

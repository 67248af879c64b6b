//! HTTP/1.1: hyper parses and frames, this module turns requests into events and answers into bodies.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{poll_fn, Future};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderValue, CONNECTION, CONTENT_TYPE, EXPECT, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::{Response, StatusCode, Version};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use tokio::sync::oneshot;
use tokio::time::{sleep_until, Sleep};

use super::body::Body;
use super::calls::{Connection, NewCall, Sink, Wire};
use super::io::{linger, Core, Io};
use super::meta::{listed, Description, Request, Slot};
use super::queues::{Backlog, Event, Payload, HTTP};
use super::raw;

/// A whole answer, or the beginning of a long one.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: OutBody,
    /// With status 101: what we say once the connection is nobody's HTTP any more.
    pub upgrade: Option<OutBody>,
}

impl Answer {
    pub fn new(status: StatusCode, headers: HeaderMap, body: OutBody) -> Self {
        Self { status, headers, body, upgrade: None }
    }
}

/// A body on its way to hyper.
pub struct Out {
    queue: VecDeque<Body>,
    /// Some(well) once nothing more will be queued.
    ended: Option<bool>,
    /// The length of a whole body.
    exact: Option<u64>,
    waker: Option<Waker>,
    backlog: Option<Arc<Backlog>>,
    call: u64,
}

pub type SharedOut = Rc<RefCell<Out>>;

pub struct OutBody {
    out: SharedOut,
    wire: Option<Rc<Wire>>,
    /// Told when the answer is over, however it ends.
    core: Option<Rc<RefCell<Core>>>,
}

/// The service gave up on a long answer; hyper closes the connection, so that the client does not take it for whole.
#[derive(Debug)]
pub struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("the answer was given up")
    }
}

impl std::error::Error for Broken {}

/// A whole body.
pub fn whole(body: Body) -> OutBody {
    let exact = Some(body.len() as u64);
    let out = Out { queue: [body].into(), ended: Some(true), exact, waker: None, backlog: None, call: 0 };
    OutBody { out: Rc::new(RefCell::new(out)), wire: None, core: None }
}

/// A body that goes on: the handle to feed it, and hyper's end.
pub fn stream(wire: &Rc<Wire>, call: u64, backlog: Arc<Backlog>) -> (SharedOut, OutBody) {
    let backlog = Some(backlog);
    let out = Out { queue: VecDeque::new(), ended: None, exact: None, waker: None, backlog, call };
    let out = Rc::new(RefCell::new(out));
    (out.clone(), OutBody { out, wire: Some(wire.clone()), core: None })
}

pub fn push(out: &SharedOut, body: Body) {
    let mut out = out.borrow_mut();
    out.queue.push_back(body);
    out.wake();
}

/// Whether all is sent that was queued, and more is to come.
pub fn is_starved(out: &SharedOut) -> bool {
    let out = out.borrow();
    out.ended.is_none() && out.queue.is_empty()
}

pub fn end(out: &SharedOut, well: bool) {
    let mut out = out.borrow_mut();
    out.ended = Some(well);
    out.wake();
}

impl Out {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl http_body::Body for OutBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut out = self.out.borrow_mut();
        while let Some(body) = out.queue.front_mut() {
            let Some(chunk) = body.next_chunk() else {
                out.queue.pop_front();
                continue;
            };
            if let (Some(backlog), Some(wire)) = (&out.backlog, &self.wire) {
                if backlog.sent(chunk.len(), wire.limits.stream_backlog_bytes) {
                    wire.writable(out.call);
                }
            }
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match out.ended {
            Some(true) => Poll::Ready(None),
            Some(false) => Poll::Ready(Some(Err(Broken))),
            None => {
                out.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.out.borrow().exact == Some(0)
    }

    fn size_hint(&self) -> SizeHint {
        self.out.borrow().exact.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for OutBody {
    fn drop(&mut self) {
        if let Some(core) = &self.core {
            let mut core = core.borrow_mut();
            core.between_requests = true;
            core.request_began = None;
        }
        if let Some(wire) = &self.wire {
            // Finds nothing when Python ended the answer itself.
            let call = self.out.borrow().call;
            wire.cancel(call);
        }
    }
}

/// The answer to a request whose handler failed.
pub fn failure(message: &str) -> (StatusCode, HeaderMap, Body) {
    plain(StatusCode::INTERNAL_SERVER_ERROR, message)
}

pub fn plain(status: StatusCode, text: &str) -> (StatusCode, HeaderMap, Body) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    (status, headers, Body::Joined(Bytes::from(format!("{text}\n"))))
}

/// Tell Python of a whole plain request; returns the call's id.
pub fn announce(wire: &Wire, connection: &Rc<Connection>, stream: u32, head: Parts, body: Bytes, sink: Sink) -> u64 {
    let host = head.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let authority = head.uri.authority().map_or(host, http::uri::Authority::as_str);
    let meta = Slot::new(Description::new(connection.peer.clone(), authority, &head.headers), None);
    let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let headers = listed(&head.headers);
    let backlog = Arc::new(Backlog::default());
    let connection = connection.clone();
    let new = NewCall::plain(connection, stream, backlog.clone(), sink);
    let call = wire.open(new);
    let request = Request { method: head.method.as_str().to_owned(), target, headers, body };
    let payload = Payload::Http(Box::new(request));
    let (meta, backlog) = (Some(meta), Some(backlog));
    wire.queues.push(Event { meta, backlog, ..Event::more(HTTP, call, payload) });
    call
}

/// A call whose request is being answered; dropped early when the client goes away.
struct Pending<'a> {
    wire: &'a Wire,
    call: u64,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.wire.cancel(self.call);
    }
}

enum Collected {
    Whole(Bytes),
    TooLarge,
    Torn,
}

async fn collect(mut body: Incoming, limit: usize) -> Collected {
    let mut whole = BytesMut::new();
    loop {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            None => return Collected::Whole(whole.freeze()),
            Some(Err(_)) => return Collected::Torn,
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    if whole.len() + data.len() > limit {
                        return Collected::TooLarge;
                    }
                    whole.extend_from_slice(&data);
                }
            }
        }
    }
}

async fn handle(
    wire: Rc<Wire>,
    core: Rc<RefCell<Core>>,
    connection: Rc<Connection>,
    request: http::Request<Incoming>,
) -> Result<Response<OutBody>, Broken> {
    core.borrow_mut().between_requests = false;
    core.borrow_mut().request_began = None;
    let (head, body) = request.into_parts();
    if let Some((status, text)) = trouble(&head) {
        return Ok(response(refusal(&connection, status, text), core));
    }
    if wire.streams(&head) {
        let answer = ask(&wire, &connection, head, Bytes::new(), Some(body)).await?;
        return Ok(response(answer, core));
    }
    let answer = match collect(body, wire.limits.http_body_bytes).await {
        Collected::Torn => return Err(Broken),
        Collected::TooLarge => refusal(&connection, StatusCode::PAYLOAD_TOO_LARGE, "http: request body too large\n"),
        Collected::Whole(body) => ask(&wire, &connection, head, body, None).await?,
    };
    Ok(response(answer, core))
}

/// What Go has against a request that the HTTP library lets pass: whatever stands before us may read its length or its
/// host in another way.
fn trouble(head: &Parts) -> Option<(StatusCode, &'static str)> {
    let (mut hosts, mut codings) = (head.headers.get_all(HOST).iter(), head.headers.get_all(TRANSFER_ENCODING).iter());
    match (hosts.next(), hosts.next()) {
        (None, _) if head.version == Version::HTTP_11 => {
            return Some((StatusCode::BAD_REQUEST, "400 Bad Request: missing required Host header"));
        }
        (_, Some(_)) => return Some((StatusCode::BAD_REQUEST, "400 Bad Request")),
        _ => {}
    }
    if let Some(coding) = codings.next() {
        if !coding.as_bytes().eq_ignore_ascii_case(b"chunked") || codings.next().is_some() {
            return Some((StatusCode::NOT_IMPLEMENTED, "Unsupported transfer encoding"));
        }
    }
    let expected = head.headers.get(EXPECT)?;
    let known = expected.is_empty() || expected.as_bytes().eq_ignore_ascii_case(b"100-continue");
    (!known).then_some((StatusCode::EXPECTATION_FAILED, ""))
}

/// An answer after which the connection ends, whatever else has come on it.
fn refusal(connection: &Connection, status: StatusCode, text: &'static str) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    connection.unread.set(true);
    Answer::new(status, headers, whole(Body::Joined(Bytes::from_static(text.as_bytes()))))
}

/// Python's answer to a request whose body is whole, or comes in parts from `rest`.
async fn ask(
    wire: &Rc<Wire>,
    connection: &Rc<Connection>,
    head: Parts,
    body: Bytes,
    rest: Option<Incoming>,
) -> Result<Answer, Broken> {
    wire.room().await;
    let (respond, answer) = oneshot::channel();
    let call = announce(wire, connection, 0, head, body, Sink::H1(respond));
    if let Some(rest) = rest {
        wire.receive(call, rest);
    }
    let pending = Pending { wire, call };
    let mut answer = answer.await.map_err(|_| Broken)?;
    // From here on the body cancels the call, if it is still open.
    std::mem::forget(pending);
    *connection.upgrade.borrow_mut() = answer.upgrade.take().map(|out| (call, out));
    Ok(answer)
}

fn response(mut answer: Answer, core: Rc<RefCell<Core>>) -> Response<OutBody> {
    answer.body.core = Some(core);
    let mut response = Response::new(answer.body);
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

/// Serve one HTTP/1.1 connection to its end.
pub async fn serve(wire: Rc<Wire>, core: Rc<RefCell<Core>>, connection: Rc<Connection>) {
    let service = {
        let (wire, core, connection) = (wire.clone(), core.clone(), connection.clone());
        service_fn(move |request| handle(wire.clone(), core.clone(), connection.clone(), request))
    };
    let mut http = Builder::new();
    http.max_header_size(wire.limits.header_bytes as usize);
    // Else hyper's buffer, 400 KiB, would be the limit.
    http.max_buf_size((wire.limits.header_bytes as usize).max(512 << 10));
    // Scripts look for `Content-Type:`, as Go writes it.
    http.title_case_headers(true);
    let mut served = http.serve_connection(Io(core.clone()), service);
    let mut timer: Pin<Box<Sleep>> = Box::pin(sleep_until(tokio::time::Instant::now()));
    let mut stopping = false;
    poll_fn(|cx| {
        connection.waker.borrow_mut().get_or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
        if connection.stopping.get() && !stopping {
            stopping = true;
            Pin::new(&mut served).graceful_shutdown();
        }
        if connection.hung_up.get() {
            return Poll::Ready(());
        }
        core.borrow_mut().begin_turn();
        let over = Pin::new(&mut served).poll(cx).is_ready();
        if core.borrow_mut().flush(cx).is_err() || over {
            return Poll::Ready(());
        }
        let began = core.borrow().request_began.filter(|_| core.borrow().between_requests);
        if let (Some(began), Some(timeout)) = (began, wire.limits.header_timeout) {
            timer.as_mut().reset(began + timeout);
            return timer.as_mut().poll(cx);
        }
        Poll::Pending
    })
    .await;
    let upgrade = connection.upgrade.borrow_mut().take();
    if let Some((call, out)) = upgrade {
        let head = served.into_parts().read_buf;
        raw::serve(&wire, &core, &connection, call, out, head).await;
    }
    if connection.unread.get() && !connection.hung_up.get() {
        linger(&core).await;
    }
}

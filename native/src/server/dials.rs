//! Requests of ours: what Python asks for, and how it is carried out.
//!
//! Rules that hold here:
//! * Python names the call when it dials: the ids have `DIALLED` set, which no served call's has.
//! * A call ends exactly once: by RESPONSE (by HALF_CLOSE, if its answer streams), by FAILED, or in silence when Python
//!   hangs up.
//! * A request that is whole, with an answer that is whole, may travel on a kept link. If that turns out to be closed,
//!   with nothing of an answer, the request goes out once more, on a fresh one.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{HeaderMap, HeaderValue, HOST};
use http::{Method, Request, Uri};
use hyper::body::Incoming;
use rustc_hash::FxHashMap;
use tokio::task::AbortHandle;
use tokio::time::{timeout, timeout_at, Instant};

use super::body::Body;
use super::calls::Wire;
use super::http1::{self, OutBody, SharedOut};
use super::inflow::Inflow;
use super::links::{Kept, Link, Route};
use super::meta::{listed, Response};
use super::queues::{Backlog, Payload, FAILED, HALF_CLOSE, MESSAGE, RESPONSE};
use crate::dial::Target;

/// Set in the ids of dialled calls; the rest counts them.
const DIALLED: u64 = 1 << 62;

pub fn dialled_id(count: u64) -> u64 {
    DIALLED | count
}

pub fn is_dialled(id: u64) -> bool {
    id & DIALLED != 0
}

/// A request to be made.
pub struct Dial {
    pub call: u64,
    pub route: Route,
    pub method: Method,
    pub path: Uri,
    pub headers: HeaderMap,
    pub body: Body,
    /// The answer's body is told of as it comes.
    pub streams: bool,
    /// The request's body goes on, counted by this.
    pub upload: Option<Arc<Backlog>>,
    pub connect_timeout: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    pub timeout: Option<Duration>,
}

/// A dialled call under way.
struct Dialled {
    task: AbortHandle,
    upload: Option<(SharedOut, Arc<Backlog>)>,
}

impl Drop for Dialled {
    fn drop(&mut self) {
        if let Some((_, backlog)) = &self.upload {
            backlog.kill();
        }
    }
}

#[derive(Default)]
pub struct Dials {
    calls: RefCell<FxHashMap<u64, Dialled>>,
    pub kept: Kept,
}

impl Dials {
    pub fn begin(&self, wire: &Rc<Wire>, mut dial: Dial) {
        let call = dial.call;
        let (upload, long_body) = match dial.upload.take() {
            None => (None, None),
            Some(backlog) => {
                let (out, body) = http1::stream(wire, call, backlog.clone());
                http1::push(&out, std::mem::replace(&mut dial.body, Body::Joined(Bytes::new())));
                (Some((out, backlog)), Some(body))
            }
        };
        let out = upload.as_ref().map(|(out, _)| out.clone());
        let exchange = Exchange { wire: wire.clone(), dial, out, long_body: Cell::new(long_body) };
        let task = tokio::task::spawn_local(exchange.run()).abort_handle();
        self.calls.borrow_mut().insert(call, Dialled { task, upload });
    }

    pub fn is_open(&self, call: u64) -> bool {
        self.calls.borrow().contains_key(&call)
    }

    fn out(&self, call: u64) -> Option<SharedOut> {
        self.calls.borrow().get(&call)?.upload.as_ref().map(|(out, _)| out.clone())
    }

    /// More of an upload.
    pub fn send(&self, call: u64, body: Body) {
        if let Some(out) = self.out(call) {
            http1::push(&out, body);
        }
    }

    /// An upload is whole, or will never be.
    pub fn finish(&self, call: u64, code: u32) {
        if code != 0 {
            return self.hang_up(call);
        }
        if let Some(out) = self.out(call) {
            http1::end(&out, true);
        }
    }

    pub fn hang_up(&self, call: u64) {
        let found = self.calls.borrow_mut().remove(&call);
        if let Some(dialled) = found {
            dialled.task.abort();
        }
    }

    /// The call's last event.
    fn end(&self, wire: &Wire, call: u64, kind: u8, payload: Payload) {
        let found = self.calls.borrow_mut().remove(&call);
        if found.is_some() {
            wire.tell_end(kind, call, payload);
        }
    }

    /// No call outlives the wire.
    pub fn stop_all(&self, wire: &Wire) {
        self.kept.clear();
        let calls = self.calls.take();
        for (call, dialled) in calls {
            dialled.task.abort();
            wire.tell_end(FAILED, call, Payload::Bytes(Bytes::from_static(b"context canceled")));
        }
    }
}

/// A request that found its connection closed, and why.
struct Lost {
    reason: String,
    /// Nothing of an answer had come.
    silent: bool,
}

/// One call, from the request to the end of the answer.
struct Exchange {
    wire: Rc<Wire>,
    dial: Dial,
    out: Option<SharedOut>,
    /// An upload's body, until it is sent.
    long_body: Cell<Option<OutBody>>,
}

impl Exchange {
    async fn run(self) {
        let exchange = self.exchange();
        let outcome = match self.dial.timeout {
            Some(limit) => timeout(limit, exchange).await.unwrap_or_else(|_| Err("context deadline exceeded".into())),
            None => exchange.await,
        };
        match outcome {
            Ok(Some(link)) => self.wire.dials.kept.keep(link).await,
            Ok(None) => {}
            Err(reason) => self.end(FAILED, Payload::Bytes(reason.into())),
        }
    }

    fn end(&self, kind: u8, payload: Payload) {
        self.wire.dials.end(&self.wire, self.dial.call, kind, payload);
    }

    /// The link is given back when it may be used again.
    async fn exchange(&self) -> Result<Option<Link>, String> {
        let (link, response) = self.ask().await?;
        let (head, body) = response.into_parts();
        let mut inflow = Inflow::new(body);
        let (status, headers) = (head.status.as_u16(), listed(&head.headers));
        if !self.dial.streams {
            let body = self.whole(&link, &mut inflow).await?;
            self.wire.room().await;
            self.end(RESPONSE, Payload::Response(Box::new(Response { status, headers, body })));
            return Ok(Some(link).filter(|_| self.may_share()));
        }
        let body = Bytes::new();
        self.wire.room().await;
        self.wire.tell(RESPONSE, self.dial.call, Payload::Response(Box::new(Response { status, headers, body })));
        while let Some(data) = self.read(&link, &mut inflow).await? {
            self.wire.tell(MESSAGE, self.dial.call, Payload::Bytes(data));
            self.wire.room().await;
        }
        self.end(HALF_CLOSE, Payload::None);
        Ok(None)
    }

    /// Streams and uploads have a connection to themselves.
    fn may_share(&self) -> bool {
        !self.dial.streams && self.out.is_none()
    }

    /// Send the request and wait for the answer's head.
    async fn ask(&self) -> Result<(Link, http::Response<Incoming>), String> {
        let kept = if self.may_share() { self.wire.dials.kept.take(&self.dial.route) } else { None };
        if let Some(mut link) = kept {
            match self.ask_on(&mut link).await {
                Ok(response) => return Ok((link, response)),
                Err(Lost { silent: true, .. }) => {}
                Err(Lost { reason, .. }) => return Err(reason),
            }
        }
        let mut link = Link::connect(&self.wire, &self.dial.route, self.dial.connect_timeout).await?;
        let response = self.ask_on(&mut link).await.map_err(|lost| lost.reason)?;
        Ok((link, response))
    }

    async fn ask_on(&self, link: &mut Link) -> Result<http::Response<Incoming>, Lost> {
        let request = self.request().map_err(|reason| Lost { reason, silent: false })?;
        let before = link.read_bytes();
        let answer = link.sender.send_request(request);
        match self.moving(link, answer).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => {
                let begun = link.read_bytes() > before;
                Err(Lost { reason: link.reason(&error, begun), silent: !begun })
            }
            Err(reason) => Err(Lost { reason, silent: false }),
        }
    }

    fn request(&self) -> Result<Request<OutBody>, String> {
        let body = self.long_body.take().unwrap_or_else(|| http1::whole(self.dial.body.clone()));
        let mut request = Request::new(body);
        *request.method_mut() = self.dial.method.clone();
        *request.uri_mut() = self.dial.path.clone();
        *request.headers_mut() = self.dial.headers.clone();
        if !request.headers().contains_key(HOST) {
            let authority = Target::parse(&self.dial.route.target)?.authority();
            let host = HeaderValue::from_str(&authority).map_err(|_| format!("bad authority {authority:?}"))?;
            request.headers_mut().insert(HOST, host);
        }
        Ok(request)
    }

    async fn whole(&self, link: &Link, inflow: &mut Inflow<Incoming>) -> Result<Bytes, String> {
        let mut whole = BytesMut::new();
        let most = self.wire.limits.answer_bytes;
        while let Some(data) = self.read(link, inflow).await? {
            if whole.len() + data.len() > most {
                return Err("http: response body too large".into());
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }

    async fn read(&self, link: &Link, inflow: &mut Inflow<Incoming>) -> Result<Option<Bytes>, String> {
        self.moving(link, inflow.next()).await?.map_err(|error| link.reason(&error, true))
    }

    /// Wait, for as long as bytes move or Python has yet to bring some.
    async fn moving<T>(&self, link: &Link, work: impl Future<Output = T>) -> Result<T, String> {
        let Some(limit) = self.dial.idle_timeout else { return Ok(work.await) };
        let mut work = std::pin::pin!(work);
        let mut quiet_since = Instant::now();
        let mut written = link.written_bytes();
        loop {
            if let Ok(done) = timeout_at(quiet_since + limit, &mut work).await {
                return Ok(done);
            }
            let waits_for_python = self.out.as_ref().is_some_and(http1::is_starved);
            if waits_for_python || link.written_bytes() != written {
                written = link.written_bytes();
                quiet_since = Instant::now();
            } else if link.last_read() > quiet_since {
                quiet_since = link.last_read();
            } else {
                return Err(link.quiet());
            }
        }
    }
}

//! Connections we dialled, and those kept for the next request.
//!
//! Rules that hold here:
//! * A link carries one request at a time, and is closed when it is dropped.
//! * Links are kept by target and certificates: at most `KEPT_MAX` of each, none idle for longer than `KEPT_TIME`.
//! * A link that ends while it is kept is taken out by its own task.

use std::cell::{Cell, RefCell};
use std::error::Error;
use std::future::{poll_fn, Future};
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use rustc_hash::FxHashMap;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout, Instant};

use super::calls::Wire;
use super::http1::OutBody;
use super::io::{Core, Io, Sniffed, Transport};
use crate::dial::{tls_words, words, Target, Tls};

const KEPT_MAX: usize = 4;
const KEPT_TIME: Duration = Duration::from_secs(30);

/// Where a link leads, and by which certificates.
#[derive(Clone)]
pub struct Route {
    pub target: String,
    pub tls: Option<Arc<Tls>>,
    /// The address it leaves from; none: the system's choice.
    pub local: Option<IpAddr>,
}

type Key = (String, usize);

impl Route {
    /// Certificates are told apart by their place in memory, which the kept link holds on to.
    fn key(&self) -> Key {
        (self.target.clone(), self.tls.as_ref().map_or(0, |tls| Arc::as_ptr(tls) as usize))
    }
}

pub struct Link {
    pub sender: SendRequest<OutBody>,
    core: Rc<RefCell<Core>>,
    route: Route,
    /// Its two ends, as Go names them.
    name: String,
    idle_since: Rc<Cell<Option<Instant>>>,
    driver: AbortHandle,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Link {
    pub async fn connect(wire: &Rc<Wire>, route: &Route, limit: Option<Duration>) -> Result<Self, String> {
        let target = Target::parse(&route.target).map_err(|what| format!("dial tcp: {what}"))?;
        let connecting = Self::connect_to(wire, route, &target);
        match limit {
            None => connecting.await,
            Some(limit) => {
                let connected = timeout(limit, connecting).await;
                connected.unwrap_or_else(|_| Err(target.failure("i/o timeout")))
            }
        }
    }

    async fn connect_to(wire: &Rc<Wire>, route: &Route, target: &Target) -> Result<Self, String> {
        let socket = target.connect(route.local).await?;
        let name = socket.name();
        let plain = Sniffed { head: BytesMut::new(), socket };
        let transport = match &route.tls {
            None => Transport::Plain(plain),
            Some(tls) => Transport::Tls(Box::new(tls.shake_hands(target, plain).await?.into())),
        };
        let core = Core::new(transport, BytesMut::new(), None);
        core.borrow_mut().hears_out = true;
        let header_bytes = wire.limits.header_bytes as usize;
        let mut http = Builder::new();
        // Else hyper's buffer, 400 KiB, would be the limit.
        http.max_header_size(header_bytes).max_buf_size(header_bytes.max(512 << 10)).title_case_headers(true);
        let (sender, connection) = http.handshake(Io(core.clone())).await.map_err(|error| error.to_string())?;
        let idle_since = Rc::new(Cell::new(None));
        let driving = drive(core.clone(), connection, idle_since.clone());
        let (wire, key) = (Rc::downgrade(wire), route.key());
        let ended = core.clone();
        let driver = tokio::task::spawn_local(async move {
            driving.await;
            if let Some(wire) = wire.upgrade() {
                wire.dials.kept.forget(&key, &ended);
            }
        });
        Ok(Self { sender, core, route: route.clone(), name, idle_since, driver: driver.abort_handle() })
    }

    pub fn read_bytes(&self) -> u64 {
        self.core.borrow().read_bytes
    }

    pub fn written_bytes(&self) -> u64 {
        self.core.borrow().written_bytes
    }

    pub fn last_read(&self) -> Instant {
        self.core.borrow().last_read
    }

    /// Nothing moved for too long.
    pub fn quiet(&self) -> String {
        format!("read {}: i/o timeout", self.name)
    }

    /// Go's words for an exchange that broke off; `begun`: some of the answer had come.
    pub fn reason(&self, error: &hyper::Error, begun: bool) -> String {
        if error.is_parse_too_large() {
            return "net/http: server response headers exceeded the limit; aborted".to_owned();
        }
        if error.is_parse() {
            return "net/http: HTTP/1.x transport connection broken: malformed HTTP response".to_owned();
        }
        let found = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        if let Some(error) = found {
            if let Some(text) = tls_words(error) {
                return text;
            }
            match error.kind() {
                io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
                    return "malformed chunked encoding".to_owned()
                }
                _ if error.raw_os_error().is_some() => return format!("read {}: read: {}", self.name, words(error)),
                _ => {}
            }
        }
        if begun { "unexpected EOF" } else { "EOF" }.to_owned()
    }
}

/// Drive a connection to its end, or until it has been idle for too long.
async fn drive(core: Rc<RefCell<Core>>, connection: Connection<Io, OutBody>, idle_since: Rc<Cell<Option<Instant>>>) {
    let mut connection = std::pin::pin!(connection);
    let mut timer = std::pin::pin!(sleep(KEPT_TIME));
    poll_fn(|cx| {
        core.borrow_mut().begin_turn();
        let over = connection.as_mut().poll(cx).is_ready();
        if core.borrow_mut().flush(cx).is_err() || over {
            return Poll::Ready(());
        }
        while timer.as_mut().poll(cx).is_ready() {
            match idle_since.get() {
                Some(since) if since.elapsed() >= KEPT_TIME => return Poll::Ready(()),
                since => timer.as_mut().reset(since.unwrap_or_else(Instant::now) + KEPT_TIME),
            }
        }
        Poll::Pending
    })
    .await;
}

/// Links that wait for a request.
#[derive(Default)]
pub struct Kept {
    links: RefCell<FxHashMap<Key, Vec<Link>>>,
}

impl Kept {
    /// The one used last: it is the least likely to have been closed.
    pub fn take(&self, route: &Route) -> Option<Link> {
        let link = self.links.borrow_mut().get_mut(&route.key())?.pop()?;
        link.idle_since.set(None);
        Some(link)
    }

    /// Keep a link once it can take another request, if it ever can.
    pub async fn keep(&self, mut link: Link) {
        let ready = timeout(KEPT_TIME, link.sender.ready()).await;
        if matches!(ready, Ok(Ok(()))) {
            let mut links = self.links.borrow_mut();
            let kept = links.entry(link.route.key()).or_default();
            if kept.len() < KEPT_MAX {
                link.idle_since.set(Some(Instant::now()));
                kept.push(link);
            }
        }
    }

    pub fn clear(&self) {
        drop(self.links.take());
    }

    fn forget(&self, key: &Key, core: &Rc<RefCell<Core>>) {
        let mut links = self.links.borrow_mut();
        if let Some(kept) = links.get_mut(key) {
            kept.retain(|link| !Rc::ptr_eq(&link.core, core));
            if kept.is_empty() {
                links.remove(key);
            }
        }
    }
}

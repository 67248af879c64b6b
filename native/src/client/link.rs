//! A channel's connection, with grpc-go's words for what goes wrong.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Ping, PingPong};
use http::uri::{Authority, Scheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep, timeout};

use crate::dial::{words, Target, Tls};
use crate::server::Status;

pub const UNAVAILABLE: u32 = 14;

/// What a server may send before we have taken it: large, since answers of many megabytes are usual here.
const WINDOW_BYTES: u32 = 8 << 20;
/// All streams together: more than some have, so that those nobody reads leave room for the others.
const CONNECTION_WINDOW_BYTES: u32 = 512 << 20;

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// How a connection is asked for signs of life.
#[derive(Clone, Copy)]
pub struct KeepAlive {
    pub every: Duration,
    /// How long an answer may take.
    pub patience: Duration,
    /// Also while no call uses the connection.
    pub idle: bool,
}

/// What there is of a connection, or why there is none.
#[derive(Default)]
struct Present {
    sender: Option<SendRequest<Bytes>>,
    failure: Option<(u32, String)>,
}

/// A channel's connection, present or to be made.
pub struct Link {
    target: Target,
    tls: Option<Mutex<Arc<Tls>>>,
    connect_timeout: Duration,
    keep_alive: Option<KeepAlive>,
    pub authority: Authority,
    /// Held by each call, and by the link.
    pub users: Arc<()>,
    /// Held while dialling, so that calls at the same time share one connection, or its failure.
    present: tokio::sync::Mutex<Present>,
    /// How often dialling has come to an end.
    dialled: AtomicU64,
    driver: Mutex<Option<tokio::task::AbortHandle>>,
}

impl Link {
    pub fn new(
        target: Target,
        authority: Option<String>,
        tls: Option<Tls>,
        connect_timeout: Duration,
        keep_alive: Option<KeepAlive>,
    ) -> Result<Self, String> {
        let authority = authority.unwrap_or_else(|| target.authority());
        let authority = Authority::try_from(authority.clone()).map_err(|_| format!("bad authority {authority:?}"))?;
        let tls = tls.map(|tls| Mutex::new(Arc::new(tls)));
        let (users, present, dialled, driver) = Default::default();
        Ok(Self { target, tls, connect_timeout, keep_alive, authority, users, present, dialled, driver })
    }

    pub fn scheme(&self) -> Scheme {
        if self.tls.is_some() {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        }
    }

    fn certificates(&self) -> Option<Arc<Tls>> {
        self.tls.as_ref().map(|tls| tls.lock().expect("nobody panics while holding it").clone())
    }

    /// Dial with another link's certificates from now on. A link without any goes on without.
    pub fn adopt(&self, other: &Link) {
        if let (Some(own), Some(fresh)) = (&self.tls, other.certificates()) {
            *own.lock().expect("nobody panics while holding it") = fresh;
        }
    }

    /// A connection that can take a request now. Who waits while another call dials shares what comes of it.
    pub async fn ready(&self) -> Result<SendRequest<Bytes>, Status> {
        let seen = self.dialled.load(Ordering::SeqCst);
        let mut present = self.present.lock().await;
        if let Some(living) = present.sender.take() {
            if let Ok(ready) = living.ready().await {
                present.sender = Some(ready.clone());
                return Ok(ready);
            }
        } else if seen != self.dialled.load(Ordering::SeqCst) {
            if let Some((code, message)) = present.failure.clone() {
                return Err(Status { code, message });
            }
        }
        let attempt = timeout(self.connect_timeout, self.connect()).await;
        let attempt = attempt.unwrap_or_else(|_| Err(dialling(&self.target.failure("i/o timeout"))));
        self.dialled.fetch_add(1, Ordering::SeqCst);
        present.failure = attempt.as_ref().err().map(|status| (status.code, status.message.clone()));
        let fresh = attempt?;
        present.sender = Some(fresh.clone());
        Ok(fresh)
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>, Status> {
        let socket = self.target.connect(None).await.map_err(|what| dialling(&what))?;
        let wire: Box<dyn Wire> = match self.certificates() {
            None => Box::new(socket),
            Some(tls) => Box::new(tls.shake_hands(&self.target, socket).await.map_err(|what| {
                let text = format!("connection error: desc = \"transport: authentication handshake failed: {what}\"");
                Status::new(UNAVAILABLE, text)
            })?),
        };
        let mut builder = h2::client::Builder::new();
        builder
            .initial_window_size(WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .enable_push(false);
        let (sender, mut connection) = builder.handshake(wire).await.map_err(|error| unavailable(&error))?;
        let pings = self.keep_alive.and_then(|keep| connection.ping_pong().map(|pings| (keep, pings)));
        let users = self.users.clone();
        // Its end is seen by the calls on it.
        let driver = tokio::spawn(async move {
            match pings {
                None => drop(connection.await),
                Some((keep, pings)) => tokio::select! {
                    ended = connection => drop(ended),
                    () = silence(keep, pings, users) => {}
                },
            }
        });
        *self.driver.lock().expect("nobody panics while holding it") = Some(driver.abort_handle());
        Ok(sender)
    }

    pub fn close(&self) {
        if let Some(driver) = self.driver.lock().expect("nobody panics while holding it").take() {
            driver.abort();
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.close();
    }
}

/// Comes to an end when the other side gives no sign of life.
async fn silence(keep: KeepAlive, mut pings: PingPong, users: Arc<()>) {
    loop {
        sleep(keep.every).await;
        // The link has one, and so have we.
        if !keep.idle && Arc::strong_count(&users) <= 2 {
            continue;
        }
        if !matches!(timeout(keep.patience, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}

fn dialling(what: &str) -> Status {
    Status::new(UNAVAILABLE, format!("connection error: desc = \"transport: Error while dialing: {what}\""))
}

pub fn unavailable(error: &h2::Error) -> Status {
    let what = match error.get_io() {
        None => error.to_string(),
        // Go reads an end between two records, without a farewell, as any other.
        Some(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => "EOF".to_owned(),
        Some(error) => words(error),
    };
    Status::new(UNAVAILABLE, format!("error reading from server: {what}"))
}

//! A channel's connection, with grpc-go's words for what goes wrong.

use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::uri::{Authority, Scheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::dial::{Target, Tls};
use crate::server::Status;

pub const UNAVAILABLE: u32 = 14;

/// What a server may send before we have taken it: large, since answers of many megabytes are usual here.
const WINDOW_BYTES: u32 = 8 << 20;

trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// A channel's connection, present or to be made.
pub struct Link {
    target: Target,
    tls: Option<Tls>,
    connect_timeout: Duration,
    pub authority: Authority,
    /// Held while dialling, so that calls at the same time share one connection.
    sender: tokio::sync::Mutex<Option<SendRequest<Bytes>>>,
    driver: Mutex<Option<tokio::task::AbortHandle>>,
}

impl Link {
    pub fn new(
        target: Target,
        authority: Option<String>,
        tls: Option<Tls>,
        connect_timeout: Duration,
    ) -> Result<Self, String> {
        let authority = authority.unwrap_or_else(|| target.authority());
        let authority = Authority::try_from(authority.clone()).map_err(|_| format!("bad authority {authority:?}"))?;
        let (sender, driver) = (tokio::sync::Mutex::default(), Mutex::default());
        Ok(Self { target, tls, connect_timeout, authority, sender, driver })
    }

    pub fn scheme(&self) -> Scheme {
        if self.tls.is_some() {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        }
    }

    /// A connection that can take a request now.
    pub async fn ready(&self) -> Result<SendRequest<Bytes>, Status> {
        let mut sender = self.sender.lock().await;
        if let Some(living) = sender.take() {
            if let Ok(ready) = living.ready().await {
                *sender = Some(ready.clone());
                return Ok(ready);
            }
        }
        let dialled = timeout(self.connect_timeout, self.connect()).await;
        let fresh = dialled.unwrap_or_else(|_| Err(dialling(&self.target.failure("i/o timeout"))))?;
        *sender = Some(fresh.clone());
        Ok(fresh)
    }

    async fn connect(&self) -> Result<SendRequest<Bytes>, Status> {
        let socket = self.target.connect(None).await.map_err(|what| dialling(&what))?;
        let wire: Box<dyn Wire> = match &self.tls {
            None => Box::new(socket),
            Some(tls) => Box::new(tls.shake_hands(&self.target, socket).await.map_err(|what| {
                let text = format!("connection error: desc = \"transport: authentication handshake failed: {what}\"");
                Status::new(UNAVAILABLE, text)
            })?),
        };
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(WINDOW_BYTES).initial_connection_window_size(WINDOW_BYTES).enable_push(false);
        let (sender, connection) = builder.handshake(wire).await.map_err(|error| unavailable(&error))?;
        // Its end is seen by the calls on it.
        let driver = tokio::spawn(async move { drop(connection.await) });
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

fn dialling(what: &str) -> Status {
    Status::new(UNAVAILABLE, format!("connection error: desc = \"transport: Error while dialing: {what}\""))
}

pub fn unavailable(error: &h2::Error) -> Status {
    Status::new(UNAVAILABLE, format!("error reading from server: {error}"))
}

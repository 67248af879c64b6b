//! Listeners, and a new connection's first bytes: TLS or not, HTTP/2 or HTTP/1.1.

use std::cell::RefCell;
use std::future::{pending, poll_fn, Future};
use std::io;
use std::pin::{pin, Pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustls::server::{Acceptor, ClientHello};
use rustls::{Error, InvalidMessage, PeerIncompatible};
use socket2::Socket as RawSocket;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;

use super::calls::{Connection, Wire};
use super::frames::{Scanner, PREFACE};
use super::io::{Core, Sniffed, Transport};
use super::meta::Peer;
use super::queues::{Event, Payload, REJECTED};
use super::requests::Serves;
use super::tls::{ip_of, serials, Current, Secured};
use super::x509::Certificate;
use super::{hello, http1, http2};
use crate::dial::words;
use crate::socket::Socket;

/// The first byte of every TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long to wait when the process is out of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A bound socket, on its way to the wire's thread.
pub struct Door {
    pub socket: RawSocket,
    pub unix: bool,
    pub tls: Option<Arc<Current>>,
    pub also_plain: bool,
    pub serves: Serves,
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<(Socket, String)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, address) = listener.accept().await?;
                socket.set_nodelay(true)?;
                Ok((Socket::Tcp(socket), address.to_string()))
            }
            Self::Unix(listener) => Ok((Socket::Unix(listener.accept().await?.0), "@".to_owned())),
        }
    }
}

/// Accept connections for as long as the task lives.
pub async fn serve(wire: Rc<Wire>, door: Door) -> io::Result<()> {
    let Door { socket, unix, tls, also_plain, serves } = door;
    let listener = if unix {
        Listener::Unix(UnixListener::from_std(socket.into())?)
    } else {
        Listener::Tcp(TcpListener::from_std(socket.into())?)
    };
    loop {
        // Beyond the limit connections wait in the kernel.
        let seat = wire.seats.clone().acquire_owned().await.expect("seats are never closed");
        match listener.accept().await {
            Ok((socket, address)) => {
                let work = welcome(wire.clone(), socket, address, tls.clone(), also_plain, serves);
                tokio::task::spawn_local(async move {
                    work.await;
                    drop(seat);
                });
            }
            // A client that has gone again, or no descriptors left: neither is the listener's end.
            Err(_) => sleep(ACCEPT_RETRY).await,
        }
    }
}

async fn within<T>(limit: Option<Duration>, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match limit {
        Some(limit) => timeout(limit, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        None => work.await,
    }
}

async fn welcome(
    wire: Rc<Wire>,
    socket: Socket,
    address: String,
    tls: Option<Arc<Current>>,
    also_plain: bool,
    serves: Serves,
) {
    let name = tls.as_ref().map(|_| socket.name_from(&address));
    let sniffed = Sniffed { head: BytesMut::new(), socket };
    let mut guest = Guest { address: address.clone(), ..Guest::default() };
    let shaken = within(wire.limits.handshake_timeout, shake_hands(sniffed, &mut guest, tls, also_plain)).await;
    let (transport, peer, standing) = match shaken {
        Ok(shaken) => shaken,
        Err(error) => {
            if let Some(name) = name.filter(|_| guest.speaks_tls) {
                wire.queues.push_if_room(guest.rejected(&name, &error));
            }
            return;
        }
    };
    let connection = Connection::new(peer);
    let _presence = wire.enter(&connection);
    let mut talk = pin!(talk(&wire, transport, connection, serves));
    match standing {
        None => {
            drop(guest); // a connection lives long
            talk.await;
        }
        Some(standing) => {
            guest.hello = BytesMut::new();
            tokio::select! {
                biased;
                () = talk.as_mut() => {}
                why = standing.revoked() => {
                    wire.queues.push_if_room(guest.rejected("", &io::Error::other(why)));
                }
            }
        }
    }
}

/// Serve whatever a connection speaks, to its end.
async fn talk(wire: &Rc<Wire>, mut transport: Transport, connection: Rc<Connection>, serves: Serves) {
    let Ok(head) = within(wire.limits.header_timeout, first_bytes(&mut transport)).await else { return };
    if head.starts_with(PREFACE) {
        let core = Core::new(transport, head, Some(Scanner::incoming()));
        http2::serve(wire.clone(), core, connection, serves).await;
    } else if serves.http && !head.is_empty() {
        let core: Rc<RefCell<Core>> = Core::new(transport, head, None);
        core.borrow_mut().request_began = Some(tokio::time::Instant::now());
        http1::serve(wire.clone(), core, connection).await;
    }
}

/// What a client was admitted by, as long as a revocation list may still come to name it.
struct Standing {
    serials: Vec<Vec<u8>>,
    changes: watch::Receiver<Arc<Secured>>,
}

impl Standing {
    /// Go's words, once its certificate is revoked.
    async fn revoked(mut self) -> String {
        while self.changes.changed().await.is_ok() {
            if let Some(why) = self.changes.borrow_and_update().revokes(&self.serials) {
                return why;
            }
        }
        pending().await
    }
}

/// What is known of a client by the time it is turned away.
#[derive(Default)]
struct Guest {
    address: String,
    speaks_tls: bool,
    /// The beginning of what it said.
    hello: BytesMut,
    has_said_hello: bool,
    /// The cipher suites it offered.
    suites: String,
    names_groups: bool,
    /// The protocols it offered by ALPN, quoted.
    protocols: String,
    server_name: String,
    certificate: Certificate,
}

impl Guest {
    /// Address, server name, the certificate's addresses and names, each list joined by commas, and the error.
    fn rejected(&self, connection: &str, error: &io::Error) -> Event {
        let error = match error.kind() {
            // Go tells the end of a client that has begun a hello from that of one which has said all, or nothing.
            io::ErrorKind::UnexpectedEof if self.has_said_hello || self.hello.is_empty() => "EOF".to_owned(),
            io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
            io::ErrorKind::TimedOut => format!("read {connection}: i/o timeout"),
            _ if error.raw_os_error().is_some() => format!("read {connection}: read: {}", words(error)),
            _ => self.reason(error),
        };
        let addresses: Vec<_> = self.certificate.addresses.iter().map(ToString::to_string).collect();
        let (addresses, names) = (addresses.join(","), self.certificate.dns_names.join(","));
        let told = [&self.address, &self.server_name, &addresses, &names, &error].map(String::as_str).join("\0");
        Event::more(REJECTED, 0, Payload::Bytes(Bytes::from(told)))
    }
}

impl Guest {
    fn heard(&mut self, hello: &ClientHello<'_>) {
        hello.server_name().unwrap_or_default().clone_into(&mut self.server_name);
        self.has_said_hello = true;
        self.names_groups = hello.named_groups().is_some();
        let protocols = hello.alpn().into_iter().flatten().map(|name| format!("{:?}", String::from_utf8_lossy(name)));
        self.protocols = protocols.collect::<Vec<_>>().join(" ");
        self.suites = hello::hex(hello.cipher_suites().iter().map(|suite| u16::from(*suite)));
    }

    /// Go's words, which for some failures name what the client offered.
    fn reason(&self, error: &io::Error) -> String {
        let Some(found) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else { return words(error) };
        let trouble = match found {
            Error::InvalidMessage(InvalidMessage::MissingData(_)) => {
                Some("local error: tls: error decoding message".to_owned())
            }
            Error::InappropriateMessage { .. } | Error::InvalidMessage(_) if !self.has_said_hello => {
                hello::trouble(&self.hello)
            }
            Error::NoApplicationProtocol => {
                Some(format!("tls: client requested unsupported application protocols ([{}])", self.protocols))
            }
            Error::PeerIncompatible(found) => self.incompatible(found),
            _ => None,
        };
        trouble.unwrap_or_else(|| words(error))
    }

    fn incompatible(&self, found: &PeerIncompatible) -> Option<String> {
        let versions = || hello::versions(&self.hello).unwrap_or_default();
        match found {
            PeerIncompatible::NoKxGroupsInCommon | PeerIncompatible::NamedGroupsExtensionRequired
                if self.names_groups =>
            {
                Some("tls: no ECDHE curve supported by both client and server".to_owned())
            }
            PeerIncompatible::NoCipherSuitesInCommon
            | PeerIncompatible::NoKxGroupsInCommon
            | PeerIncompatible::NamedGroupsExtensionRequired => {
                let none = "tls: no cipher suite supported by both client and server";
                Some(format!("{none}; client offered: [{}]", self.suites))
            }
            // Clients before TLS 1.2 do not say how they would sign.
            PeerIncompatible::SignatureAlgorithmsExtensionRequired if versions().contains("303") => None,
            PeerIncompatible::SignatureAlgorithmsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::ServerDoesNotSupportTls12Or13 => {
                Some(format!("tls: client offered only unsupported versions: [{}]", versions()))
            }
            _ => None,
        }
    }
}

async fn shake_hands(
    mut sniffed: Sniffed,
    guest: &mut Guest,
    tls: Option<Arc<Current>>,
    also_plain: bool,
) -> io::Result<(Transport, Peer, Option<Standing>)> {
    let mut peer = Peer { address: guest.address.clone(), certificate_names: Vec::new() };
    let Some(tls) = tls else { return Ok((Transport::Plain(sniffed), peer, None)) };
    guest.speaks_tls = !also_plain;
    let mut head = BytesMut::new();
    read_more(&mut sniffed, &mut head).await?;
    let is_tls = head.first() == Some(&TLS_HANDSHAKE);
    guest.hello.clone_from(&head);
    sniffed.head = head;
    if also_plain && !is_tls {
        return Ok((Transport::Plain(sniffed), peer, None));
    }
    guest.speaks_tls = true;
    let hello = LazyConfigAcceptor::new(Acceptor::default(), sniffed).await?;
    guest.heard(&hello.client_hello());
    let changes = tls.changes();
    let secured = tls.get();
    let stream = hello.into_stream(secured.config.clone()).await?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    if let [leaf, ..] = chain {
        let certificate = Certificate::read(leaf);
        peer.certificate_names.clone_from(&certificate.common_names);
        guest.certificate = certificate;
    }
    secured.check(chain, ip_of(&guest.address)).await.map_err(io::Error::other)?;
    let standing = (secured.has_list() && !chain.is_empty()).then(|| Standing { serials: serials(chain), changes });
    Ok((Transport::Tls(Box::new(stream.into())), peer, standing))
}

/// Read until it is clear whether this is the HTTP/2 preface. Empty: the client has closed.
async fn first_bytes(transport: &mut Transport) -> io::Result<BytesMut> {
    let mut head = BytesMut::new();
    loop {
        let read = match transport {
            Transport::Plain(stream) => read_more(stream, &mut head).await?,
            Transport::Tls(stream) => read_more(stream.as_mut(), &mut head).await?,
        };
        let compared = head.len().min(PREFACE.len());
        if read == 0 || head.len() >= PREFACE.len() || head[..compared] != PREFACE[..compared] {
            return Ok(head);
        }
    }
}

async fn read_more<S: AsyncRead + Unpin>(stream: &mut S, into: &mut BytesMut) -> io::Result<usize> {
    let mut space = [0; 2048];
    let mut buf = ReadBuf::new(&mut space);
    poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut buf)).await?;
    into.extend_from_slice(buf.filled());
    Ok(buf.filled().len())
}

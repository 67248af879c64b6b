//! Listeners, and a new connection's first bytes: TLS or not, HTTP/2 or HTTP/1.1.

use std::cell::RefCell;
use std::future::{poll_fn, Future};
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::ServerConfig;
use socket2::{Domain, SockAddr, Socket as RawSocket, Type};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::calls::{Connection, Wire};
use super::frames::{Scanner, PREFACE};
use super::io::{Core, Sniffed, Transport};
use super::meta::Peer;
use super::requests::Serves;
use super::tls::common_names;
use super::{http1, http2};
use crate::socket::Socket;

const BACKLOG: i32 = 4096;
/// The first byte of every TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// How long to wait when the process is out of descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// A bound socket, on its way to the wire's thread.
pub struct Door {
    pub socket: RawSocket,
    pub unix: bool,
    pub tls: Option<Arc<ServerConfig>>,
    pub also_plain: bool,
    pub serves: Serves,
}

pub fn bind_tcp(address: std::net::SocketAddr, only_v6: bool) -> io::Result<RawSocket> {
    let socket = RawSocket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    listen(socket, &address.into())
}

/// A socket file somebody left behind is replaced; any other file is not.
pub fn bind_unix(path: &str) -> io::Result<RawSocket> {
    let address = SockAddr::unix(path)?;
    let socket = RawSocket::new(Domain::UNIX, Type::STREAM, None)?;
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    listen(socket, &address)
}

fn listen(socket: RawSocket, address: &SockAddr) -> io::Result<RawSocket> {
    socket.bind(address)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
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
    let tls = tls.map(TlsAcceptor::from);
    loop {
        match listener.accept().await {
            Ok((socket, address)) => {
                let work = welcome(wire.clone(), socket, address, tls.clone(), also_plain, serves);
                tokio::task::spawn_local(work);
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
    tls: Option<TlsAcceptor>,
    also_plain: bool,
    serves: Serves,
) {
    let sniffed = Sniffed { head: BytesMut::new(), socket };
    let shaken = within(wire.limits.handshake_timeout, shake_hands(sniffed, address, tls, also_plain)).await;
    let Ok((mut transport, peer)) = shaken else { return };
    let connection = Connection::new(peer);
    let _presence = wire.enter(&connection);
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

async fn shake_hands(
    mut sniffed: Sniffed,
    address: String,
    tls: Option<TlsAcceptor>,
    also_plain: bool,
) -> io::Result<(Transport, Peer)> {
    let mut peer = Peer { address, certificate_names: Vec::new() };
    let Some(tls) = tls else { return Ok((Transport::Plain(sniffed), peer)) };
    if also_plain {
        let mut head = BytesMut::new();
        read_more(&mut sniffed, &mut head).await?;
        let is_tls = head.first() == Some(&TLS_HANDSHAKE);
        sniffed.head = head;
        if !is_tls {
            return Ok((Transport::Plain(sniffed), peer));
        }
    }
    let stream = tls.accept(sniffed).await?;
    if let Some([leaf, ..]) = stream.get_ref().1.peer_certificates() {
        peer.certificate_names = common_names(leaf);
    }
    Ok((Transport::Tls(Box::new(stream.into())), peer))
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
    let mut space = [0; 1024];
    let mut buf = ReadBuf::new(&mut space);
    poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut buf)).await?;
    into.extend_from_slice(buf.filled());
    Ok(buf.filled().len())
}

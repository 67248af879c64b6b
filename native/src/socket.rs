//! A connected socket, TCP or Unix, as one type.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::SockAddr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

macro_rules! each {
    ($self:expr, $socket:ident => $call:expr) => {
        match $self.get_mut() {
            Socket::Tcp($socket) => $call,
            Socket::Unix($socket) => $call,
        }
    };
}

/// What an address is called, asked of the system's resolver.
pub fn host_of(address: IpAddr) -> Option<String> {
    let address = SockAddr::from(SocketAddr::new(address, 0));
    let mut name = [0; libc::NI_MAXHOST as usize];
    // SAFETY: both buffers outlive the call and their lengths are theirs.
    let failed = unsafe {
        let (from, to) = (address.as_ptr().cast(), name.as_mut_ptr());
        libc::getnameinfo(from, address.len(), to, libc::NI_MAXHOST, std::ptr::null_mut(), 0, libc::NI_NAMEREQD)
    };
    let end = name.iter().position(|byte| *byte == 0).filter(|_| failed == 0)?;
    let bytes: Vec<u8> = name[..end].iter().map(|byte| byte.to_ne_bytes()[0]).collect();
    String::from_utf8(bytes).ok()
}

impl Socket {
    /// `tcp 127.0.0.1:40000->127.0.0.1:2380`: a connection by its two ends, as Go's net package names it.
    pub fn name(&self) -> String {
        match self {
            Self::Tcp(socket) => match (socket.local_addr(), socket.peer_addr()) {
                (Ok(here), Ok(there)) => format!("tcp {here}->{there}"),
                _ => "tcp".to_owned(),
            },
            Self::Unix(_) => "unix @->@".to_owned(),
        }
    }

    /// The same of one that we accepted from `there`, who may have gone again.
    pub fn name_from(&self, there: &str) -> String {
        match self {
            Self::Tcp(socket) => match socket.local_addr() {
                Ok(here) => format!("tcp {here}->{there}"),
                Err(_) => format!("tcp {there}"),
            },
            Self::Unix(_) => self.name(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, socket => Pin::new(socket).poll_read(cx, buf))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, socket => Pin::new(socket).poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, socket => Pin::new(socket).poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, socket => Pin::new(socket).poll_shutdown(cx))
    }
}

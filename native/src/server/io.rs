//! One connection's bytes, between the socket (or TLS) and the HTTP library.
//!
//! Why not hand the socket to the library: it flushes after every frame larger than 256 bytes, and reads into whatever
//! space its buffer has left. Here all that one poll produces gathers and leaves in one `write`, and what the socket has
//! is taken 64 KiB at a time. Kernel socket time is most of what a small request costs, so this is where it is saved.
//!
//! The task that drives a connection must call `flush` after every poll of it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{ready, Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{timeout, Instant};
use tokio_rustls::TlsStream;

use super::frames::Scanner;
use crate::socket::Socket;

/// One read from the socket, at most.
const READ_BYTES: usize = 64 << 10;
/// What one connection may read before others get their turn.
const READ_BYTES_PER_TURN: usize = 256 << 10;
/// Unwritten bytes beyond which the HTTP library has to wait.
const WRITE_BYTES_MAX: usize = 256 << 10;
/// A write buffer larger than this is not kept while idle.
const WRITE_BYTES_KEPT: usize = 32 << 10;
/// How long a client whom we have told goodbye may take to read it.
const LINGER: Duration = Duration::from_secs(1);

/// A socket some of whose bytes were already looked at.
pub struct Sniffed {
    pub head: BytesMut,
    pub socket: Socket,
}

pub enum Transport {
    Plain(Sniffed),
    Tls(Box<TlsStream<Sniffed>>),
}

impl AsyncRead for Sniffed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.head.is_empty() {
            let length = this.head.len().min(buf.remaining());
            buf.put_slice(&this.head.split_to(length));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Sniffed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}

macro_rules! each_transport {
    ($self:expr, $stream:ident => $call:expr) => {
        match $self {
            Transport::Plain($stream) => $call,
            Transport::Tls($stream) => $call,
        }
    };
}

/// The state of one connection's bytes, shared by the HTTP library (as `Io`) and the task that drives it.
pub struct Core {
    transport: Transport,
    unread: BytesMut,
    unwritten: BytesMut,
    turn_bytes: usize,
    /// The socket had nothing more to read this turn; its waker is registered.
    dry: bool,
    pub ended: bool,
    /// Set while too many events wait for Python: reads answer "not now".
    pub paused: bool,
    pub last_read: Instant,
    /// All that was ever read and written.
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub scanner: Option<Scanner>,
    /// What we send on an HTTP/2 connection.
    pub sent: Option<Scanner>,
    /// HTTP/1.1: no request is under way, so bytes that arrive begin one, and their first moment is noted.
    pub between_requests: bool,
    pub request_began: Option<Instant>,
    /// The HTTP library wanted to write this turn and was refused: it may hold half a frame.
    pub refused: bool,
    /// We dialled: what the server says before it closes counts for more than our failure to write.
    pub hears_out: bool,
}

impl Core {
    pub fn new(transport: Transport, unread: BytesMut, scanner: Option<Scanner>) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            transport,
            unread,
            unwritten: BytesMut::new(),
            turn_bytes: 0,
            dry: false,
            ended: false,
            paused: false,
            last_read: Instant::now(),
            read_bytes: 0,
            written_bytes: 0,
            sent: scanner.as_ref().map(|_| Scanner::outgoing()),
            scanner,
            between_requests: true,
            request_began: None,
            refused: false,
            hears_out: false,
        }))
    }

    /// The driving task begins a turn: the socket may be asked again.
    pub fn begin_turn(&mut self) {
        self.turn_bytes = 0;
        self.dry = false;
        self.refused = false;
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if !self.unread.is_empty() {
            let length = self.unread.len().min(buf.remaining());
            buf.put_slice(&self.unread[..length]);
            self.unread.advance(length);
            if self.unread.is_empty() {
                self.unread = BytesMut::new();
            }
        } else if self.dry || self.paused {
            // The waker is registered with the socket, or with the queue that is full.
            return Poll::Pending;
        } else if self.turn_bytes >= READ_BYTES_PER_TURN {
            self.dry = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        } else {
            ready!(self.fill(cx, buf))?;
        }
        if let Some(scanner) = &mut self.scanner {
            scanner.scan(&buf.filled()[before..], self.last_read);
        }
        Poll::Ready(Ok(()))
    }

    /// One read from the transport; what does not fit into `buf` is kept. A scratch buffer serves all connections: an
    /// idle one owns no memory for reading.
    fn fill(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        thread_local! {
            static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_BYTES]);
        }
        if self.ended {
            return Poll::Ready(Ok(()));
        }
        SCRATCH.with_borrow_mut(|scratch| {
            let mut space = ReadBuf::new(scratch);
            if each_transport!(&mut self.transport, stream => Pin::new(stream).poll_read(cx, &mut space))?.is_pending()
            {
                self.dry = true;
                return Poll::Pending;
            }
            let bytes = space.filled();
            let (now, later) = bytes.split_at(bytes.len().min(buf.remaining()));
            buf.put_slice(now);
            self.unread.extend_from_slice(later);
            self.ended = bytes.is_empty();
            self.turn_bytes += bytes.len();
            self.read_bytes += bytes.len() as u64;
            self.last_read = Instant::now();
            if self.between_requests && self.request_began.is_none() && !self.ended {
                self.request_began = Some(self.last_read);
            }
            Poll::Ready(Ok(()))
        })
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.unwritten.len() >= WRITE_BYTES_MAX {
            self.flush(cx)?;
            if self.unwritten.len() >= WRITE_BYTES_MAX {
                self.refused = true;
                return Poll::Pending;
            }
        }
        for buf in bufs {
            self.unwritten.extend_from_slice(buf);
            if let Some(sent) = &mut self.sent {
                sent.scan(buf, self.last_read);
            }
        }
        Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()))
    }

    /// Write what has gathered, as far as the socket takes it; for the rest the waker is registered.
    pub fn flush(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let stream = &mut self.transport;
        while !self.unwritten.is_empty() {
            match each_transport!(stream, stream => Pin::new(stream).poll_write(cx, &self.unwritten)) {
                Poll::Pending => return Ok(()),
                // The read that follows finds what was said, or how the connection ended.
                Poll::Ready(Err(_)) if self.hears_out => self.unwritten.clear(),
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(written)) => {
                    self.unwritten.advance(written);
                    self.written_bytes += written as u64;
                }
            }
        }
        if let Transport::Tls(stream) = stream {
            match Pin::new(stream).poll_flush(cx) {
                Poll::Ready(Err(error)) if !self.hears_out => return Err(error),
                _ => {}
            }
        }
        if self.unwritten.capacity() > WRITE_BYTES_KEPT {
            self.unwritten = BytesMut::new();
        } else {
            self.unwritten.clear();
        }
        Ok(())
    }

    pub fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    pub fn unwritten_bytes(&self) -> usize {
        self.unwritten.len()
    }

    /// Put bytes behind everything the HTTP library has written so far.
    pub fn append(&mut self, bytes: &[u8]) {
        self.unwritten.extend_from_slice(bytes);
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.flush(cx)?;
        if self.has_unwritten() {
            return Poll::Pending;
        }
        each_transport!(&mut self.transport, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

impl Core {
    /// Close our half, then read and forget what still comes, until the other half is closed too.
    pub fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_shutdown(cx))?;
        self.unread = BytesMut::new();
        self.scanner = None;
        self.paused = false;
        let mut forgotten = [0; 4096];
        while !self.ended && !self.dry {
            self.turn_bytes = 0;
            ready!(self.fill(cx, &mut ReadBuf::new(&mut forgotten)))?;
            self.unread = BytesMut::new();
        }
        if self.ended {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}

/// A socket closed with unread bytes in it resets the connection, and the client may lose our last words.
pub async fn linger(core: &Rc<RefCell<Core>>) {
    let said = poll_fn(|cx| {
        let mut core = core.borrow_mut();
        core.begin_turn();
        core.poll_goodbye(cx)
    });
    let _ = timeout(LINGER, said).await;
}

/// The HTTP library's end of a connection.
pub struct Io(pub Rc<RefCell<Core>>);

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Deferred: the driving task writes once, after its poll.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_shutdown(cx)
    }
}

impl hyper::rt::Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        // SAFETY: `ReadBuf` only ever initialises bytes, and the cursor is advanced by what it reports as filled.
        unsafe {
            let mut buf = ReadBuf::uninit(cursor.as_mut());
            ready!(self.0.borrow_mut().poll_read(cx, &mut buf))?;
            let filled = buf.filled().len();
            cursor.advance(filled);
        }
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(self, cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write_vectored(self, cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(self, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_shutdown(self, cx)
    }
}

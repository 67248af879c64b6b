//! A connection that has left HTTP behind (status 101): bytes both ways. What they mean is Python's business.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{ready, Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use tokio::io::{AsyncRead, ReadBuf};

use super::calls::{Connection, Wire};
use super::http1::OutBody;
use super::inflow::Source;
use super::io::{Core, Io};

/// One read, at most.
const READ_BYTES: usize = 16 << 10;
/// Unwritten bytes beyond which nothing more is taken from the call.
const WRITE_BYTES_MAX: usize = 256 << 10;

/// What the client sends, from behind its request on.
struct Incoming {
    head: Bytes,
    core: Rc<RefCell<Core>>,
}

impl Source for Incoming {
    type Error = io::Error;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if !self.head.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.head))));
        }
        let mut space = BytesMut::zeroed(READ_BYTES);
        let mut buf = ReadBuf::new(&mut space);
        self.core.borrow_mut().begin_turn();
        ready!(Pin::new(&mut Io(self.core.clone())).poll_read(cx, &mut buf))?;
        let length = buf.filled().len();
        space.truncate(length);
        Poll::Ready((length > 0).then(|| Ok(space.freeze())))
    }
}

/// Carry bytes until the call is finished or the connection fails. `head`: what was read behind the request.
pub async fn serve(
    wire: &Rc<Wire>,
    core: &Rc<RefCell<Core>>,
    connection: &Rc<Connection>,
    call: u64,
    mut out: OutBody,
    head: Bytes,
) {
    wire.receive(call, Incoming { head, core: core.clone() });
    poll_fn(|cx| {
        connection.waker.borrow_mut().get_or_insert_with(|| cx.waker().clone()).clone_from(cx.waker());
        if connection.hung_up.get() {
            return Poll::Ready(());
        }
        loop {
            let mut core = core.borrow_mut();
            if core.flush(cx).is_err() {
                return Poll::Ready(());
            }
            if core.unwritten_bytes() >= WRITE_BYTES_MAX {
                return Poll::Pending;
            }
            match Pin::new(&mut out).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => core.append(&frame.into_data().unwrap_or_default()),
                Poll::Ready(_) if core.has_unwritten() => return Poll::Pending,
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}

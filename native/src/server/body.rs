//! What Python hands us to send, turned into bytes the wire can own.
//!
//! A small body is copied into one buffer, its gRPC header in front: that costs less than keeping a Python object alive.
//! A large one (a list of a million key-values, say) is never joined: we keep its parts and their owner, and cut chunks
//! from them as flow control lets them go, so that the extra memory is one chunk.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyTuple};

/// Up to this size a body is copied and joined.
const JOIN_BYTES_MAX: usize = 64 << 10;
/// What is cut from a large body at once.
pub const CHUNK_BYTES: usize = 64 << 10;
/// A part at least this long leaves without being copied.
const SHARE_BYTES_MIN: usize = 16 << 10;
/// What grpc-go can send at most (etcd sets its limit to the largest 32-bit integer).
pub const SEND_MESSAGE_BYTES_MAX: usize = i32::MAX as usize;
/// One byte of flags and four of length in front of every gRPC message.
pub const MESSAGE_HEADER_BYTES: usize = 5;

/// Python bytes objects, kept alive and read without the GIL: they are immutable.
struct Owner {
    _keep: Py<PyAny>,
    parts: Vec<(*const u8, usize)>,
}

// SAFETY: the pointers lead into immutable bytes objects that `_keep` keeps alive. Dropping a `Py` without the GIL is
// allowed: PyO3 defers the decrement until some thread next holds it.
unsafe impl Send for Owner {}
unsafe impl Sync for Owner {}

impl Owner {
    fn part(&self, index: usize) -> &[u8] {
        let (start, length) = self.parts[index];
        // SAFETY: see above; `start` and `length` were taken from a living bytes object.
        unsafe { std::slice::from_raw_parts(start, length) }
    }
}

/// A run of one part, as the owner of a `Bytes`.
struct Shared {
    owner: Arc<Owner>,
    part: usize,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        self.owner.part(self.part)
    }
}

/// The unsent rest of a large body.
#[derive(Clone)]
pub struct Parts {
    owner: Arc<Owner>,
    header: Option<[u8; MESSAGE_HEADER_BYTES]>,
    part: usize,
    offset: usize,
    left: usize,
}

impl Parts {
    /// The next chunk: at most `CHUNK_BYTES` where parts are small, a slice of a part where they are large.
    fn next_chunk(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        if self.header.is_none() {
            let part = self.owner.part(self.part);
            if part.len() - self.offset >= SHARE_BYTES_MIN {
                let shared = Bytes::from_owner(Shared { owner: self.owner.clone(), part: self.part });
                let end = part.len().min(self.offset + (CHUNK_BYTES << 4));
                let chunk = shared.slice(self.offset..end);
                self.offset = end;
                self.skip_finished();
                self.left -= chunk.len();
                return Some(chunk);
            }
        }
        let mut chunk = BytesMut::with_capacity(self.left.min(CHUNK_BYTES));
        if let Some(header) = self.header.take() {
            chunk.put_slice(&header);
        }
        while self.part < self.owner.parts.len() && chunk.len() < CHUNK_BYTES {
            let rest = &self.owner.part(self.part)[self.offset..];
            if rest.len() >= SHARE_BYTES_MIN && !chunk.is_empty() {
                break;
            }
            let taken = rest.len().min(CHUNK_BYTES - chunk.len());
            chunk.put_slice(&rest[..taken]);
            self.offset += taken;
            self.skip_finished();
        }
        self.left -= chunk.len();
        Some(chunk.freeze())
    }

    fn skip_finished(&mut self) {
        while self.part < self.owner.parts.len() && self.offset >= self.owner.parts[self.part].1 {
            self.part += 1;
            self.offset = 0;
        }
    }
}

#[derive(Clone)]
pub enum Body {
    Joined(Bytes),
    Parts(Parts),
}

impl Body {
    pub fn len(&self) -> usize {
        match self {
            Self::Joined(bytes) => bytes.len(),
            Self::Parts(parts) => parts.left,
        }
    }

    /// The next piece to send, or None when all is sent.
    pub fn next_chunk(&mut self) -> Option<Bytes> {
        match self {
            Self::Joined(bytes) if bytes.is_empty() => None,
            Self::Joined(bytes) => Some(std::mem::take(bytes)),
            Self::Parts(parts) => parts.next_chunk(),
        }
    }

    /// A body as it is (plain HTTP).
    pub fn raw(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::convert(data, false)
    }

    /// A body as one gRPC message. Past 4 GiB the length field would wrap, so the error is raised here; what is past
    /// grpc-go's own limit is refused by the caller with a status.
    pub fn message(data: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::convert(data, true)
    }

    fn convert(data: &Bound<'_, PyAny>, framed: bool) -> PyResult<Self> {
        if let Ok(bytes) = data.downcast::<PyBytes>() {
            let content = bytes.as_bytes();
            if content.len() <= JOIN_BYTES_MAX {
                let mut joined = start(content.len(), framed);
                joined.extend_from_slice(content);
                return Ok(Self::Joined(joined.into()));
            }
            let parts = vec![(content.as_ptr(), content.len())];
            return Ok(large(data.clone(), parts, content.len(), framed));
        }
        let items = match data.downcast::<PyTuple>() {
            Ok(tuple) => tuple.clone(),
            // The tuple is ours: nobody can change it while we read from its parts.
            Err(_) => match data.downcast::<PyList>() {
                Ok(list) => list.to_tuple(),
                Err(_) => PyTuple::new(data.py(), data.try_iter()?.collect::<PyResult<Vec<_>>>()?)?,
            },
        };
        let mut parts = Vec::with_capacity(items.len());
        let mut total = 0;
        for item in items.iter_borrowed() {
            let bytes = item
                .downcast::<PyBytes>()
                .map_err(|_| PyTypeError::new_err("a body is bytes or a sequence of bytes"))?;
            let content = bytes.as_bytes();
            total += content.len();
            parts.push((content.as_ptr(), content.len()));
        }
        if total <= JOIN_BYTES_MAX {
            let mut joined = start(total, framed);
            for (begin, length) in parts {
                // SAFETY: `items` keeps the bytes object alive.
                joined.extend_from_slice(unsafe { std::slice::from_raw_parts(begin, length) });
            }
            return Ok(Self::Joined(joined.into()));
        }
        Ok(large(items.into_any(), parts, total, framed))
    }
}

/// An empty buffer with room for `length` bytes, the message header already in it when `framed`.
fn start(length: usize, framed: bool) -> Vec<u8> {
    if !framed {
        return Vec::with_capacity(length);
    }
    let mut buffer = Vec::with_capacity(length + MESSAGE_HEADER_BYTES);
    buffer.extend_from_slice(&message_header(length));
    buffer
}

/// The header of an uncompressed message. A length past 32 bits is refused before it gets here.
fn message_header(length: usize) -> [u8; MESSAGE_HEADER_BYTES] {
    let [a, b, c, d] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [0, a, b, c, d]
}

fn large(keep: Bound<'_, PyAny>, parts: Vec<(*const u8, usize)>, total: usize, framed: bool) -> Body {
    let owner = Arc::new(Owner { _keep: keep.unbind(), parts });
    let header = framed.then(|| message_header(total));
    let left = total + if framed { MESSAGE_HEADER_BYTES } else { 0 };
    let mut parts = Parts { owner, header, part: 0, offset: 0, left };
    parts.skip_finished();
    Body::Parts(parts)
}

//! gRPC on top of HTTP/2, as far as a server needs it: messages in a byte stream, timeouts, statuses.
//!
//! Source of the rules: the gRPC project's PROTOCOL-HTTP2 document; texts are those grpc-go answers with.

use std::io::Read;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http::header::{HeaderMap, HeaderName, HeaderValue, CONTENT_TYPE};
use http::Response;

use super::body::MESSAGE_HEADER_BYTES;

pub const OK: u32 = 0;
pub const CANCELLED: u32 = 1;
pub const UNKNOWN: u32 = 2;
pub const INVALID_ARGUMENT: u32 = 3;
pub const DEADLINE_EXCEEDED: u32 = 4;
pub const RESOURCE_EXHAUSTED: u32 = 8;
pub const UNIMPLEMENTED: u32 = 12;
pub const INTERNAL: u32 = 13;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_CONTENT: HeaderValue = HeaderValue::from_static("application/grpc");
const STATUS_OK: HeaderValue = HeaderValue::from_static("0");

/// A call's bad end, decided by the wire itself.
#[derive(Debug, PartialEq)]
pub struct Status {
    pub code: u32,
    pub message: String,
}

impl Status {
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// `application/grpc`, alone or followed by `+subtype` or `;parameters`.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE) else { return false };
    match value.as_bytes().strip_prefix(b"application/grpc") {
        Some(rest) => matches!(rest.first(), None | Some(b'+' | b';')),
        None => false,
    }
}

/// `grpc-timeout`: up to eight digits and a unit.
pub fn parse_timeout(value: &[u8]) -> Result<Duration, String> {
    let shown = String::from_utf8_lossy(value);
    if value.len() < 2 {
        return Err(format!("transport: timeout string is too short: {shown:?}"));
    }
    if value.len() > 9 {
        return Err(format!("transport: timeout string is too long: {shown:?}"));
    }
    let (digits, unit) = value.split_at(value.len() - 1);
    let nanoseconds: u64 = match unit[0] {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return Err(format!("transport: timeout unit is not recognized: {shown:?}")),
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        let digits = String::from_utf8_lossy(digits);
        return Err(format!("strconv.ParseUint: parsing {digits:?}: invalid syntax"));
    }
    let count = digits.iter().fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Ok(Duration::from_nanos(nanoseconds.saturating_mul(count)))
}

/// Response headers that begin a good answer.
pub fn response_head() -> Response<()> {
    let mut response = Response::new(());
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT);
    response
}

/// Trailers that end a call.
pub fn trailers(code: u32, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    put_status(&mut trailers, code, message);
    trailers
}

/// Headers and status in one frame, for calls that fail before they have answered anything.
pub fn trailers_only(code: u32, message: &str) -> Response<()> {
    let mut response = response_head();
    put_status(response.headers_mut(), code, message);
    response
}

fn put_status(headers: &mut HeaderMap, code: u32, message: &str) {
    headers.insert(GRPC_STATUS, if code == 0 { STATUS_OK } else { HeaderValue::from(code) });
    if !message.is_empty() {
        let encoded = percent_encode(message);
        headers.insert(GRPC_MESSAGE, HeaderValue::from_str(&encoded).expect("percent-encoded text is ASCII"));
    }
}

/// Everything but printable ASCII, and the percent sign itself, as `%XX`.
pub fn percent_encode(text: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a String cannot fail");
        }
    }
    encoded
}

/// The reverse; what is not well formed stays as it is.
pub fn percent_decode(text: &[u8]) -> String {
    fn nibble(byte: Option<&u8>) -> Option<u8> {
        byte.and_then(|byte| char::from(*byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok())
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut index = 0;
    while index < text.len() {
        if text[index] == b'%' {
            if let (Some(high), Some(low)) = (nibble(text.get(index + 1)), nibble(text.get(index + 2))) {
                decoded.push(high << 4 | low);
                index += 3;
                continue;
            }
        }
        decoded.push(text[index]);
        index += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// Cuts messages from the DATA of one stream. Holds at most one incomplete message.
pub struct Messages {
    limit: usize,
    /// Messages may be compressed: the call was begun with `grpc-encoding: gzip`.
    gzip: bool,
    partial: BytesMut,
    ready: Bytes,
}

impl Messages {
    pub fn new(limit: usize, gzip: bool) -> Self {
        Self { limit, gzip, partial: BytesMut::new(), ready: Bytes::new() }
    }

    /// More bytes of the stream. All messages of the last ones must have been taken.
    pub fn feed(&mut self, data: Bytes) {
        debug_assert!(self.ready.is_empty(), "feed after next_message() has returned None");
        if self.partial.is_empty() {
            self.ready = data;
        } else {
            self.partial.extend_from_slice(&data);
            if self.partial_is_whole() {
                self.ready = std::mem::take(&mut self.partial).freeze();
            }
        }
    }

    fn partial_is_whole(&self) -> bool {
        match declared(&self.partial) {
            Some((_, length)) => length > self.limit || self.partial.len() - MESSAGE_HEADER_BYTES >= length,
            None => false,
        }
    }

    /// The next whole message, None when more bytes are needed.
    pub fn next_message(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((format, length)) = declared(&self.ready) else {
            self.keep_rest(0);
            return Ok(None);
        };
        if length > self.limit {
            let text = format!("grpc: received message larger than max ({length} vs. {})", self.limit);
            return Err(Status::new(RESOURCE_EXHAUSTED, text));
        }
        match format {
            0 => {}
            1 if self.gzip => {}
            1 => {
                // A call with an encoding we do not know was refused when it began.
                return Err(Status::new(INTERNAL, "grpc: compressed flag set with identity or empty encoding"));
            }
            other => return Err(Status::new(INTERNAL, format!("grpc: received unexpected payload format {other}"))),
        }
        if self.ready.len() - MESSAGE_HEADER_BYTES < length {
            self.keep_rest(length + MESSAGE_HEADER_BYTES);
            return Ok(None);
        }
        self.ready.advance(MESSAGE_HEADER_BYTES);
        let message = self.ready.split_to(length);
        if format == 0 {
            return Ok(Some(message));
        }
        decompressed(&message, self.limit).map(Some)
    }

    /// Move what is left to `partial`, which will grow to `whole` bytes.
    fn keep_rest(&mut self, whole: usize) {
        if !self.ready.is_empty() {
            // Not reserved all at once: a peer that announces much and sends little costs little.
            self.partial.reserve(whole.min(64 << 10).max(self.ready.len()));
            self.partial.extend_from_slice(&self.ready);
            self.ready = Bytes::new();
        }
    }

    /// True when the stream stopped inside a message.
    pub fn is_torn(&self) -> bool {
        !self.partial.is_empty()
    }
}

/// What a gzip-compressed message holds, `limit` bytes at the most, however much it claims to. The texts are grpc-go's.
fn decompressed(message: &[u8], limit: usize) -> Result<Bytes, Status> {
    if !message.starts_with(&[0x1f, 0x8b, 8]) {
        let why = if message.is_empty() { "EOF" } else { "gzip: invalid header" };
        return Err(Status::new(INTERNAL, format!("grpc: failed to decompress the message: {why}")));
    }
    let mut whole = Vec::new();
    let most = u64::try_from(limit).map_or(u64::MAX, |limit| limit.saturating_add(1));
    if let Err(error) = MultiGzDecoder::new(message).take(most).read_to_end(&mut whole) {
        let why = match error.kind() {
            std::io::ErrorKind::UnexpectedEof => "unexpected EOF".to_owned(),
            _ => format!("gzip: {error}"),
        };
        return Err(Status::new(INTERNAL, format!("grpc: failed to read decompressed data: {why}")));
    }
    if whole.len() > limit {
        let text = format!("grpc: received message after decompression larger than max {limit}");
        return Err(Status::new(RESOURCE_EXHAUSTED, text));
    }
    Ok(whole.into())
}

/// Format byte and length of the message that begins here, None while the header is incomplete.
fn declared(bytes: &[u8]) -> Option<(u8, usize)> {
    match bytes {
        [format, a, b, c, d, ..] => Some((*format, u32::from_be_bytes([*a, *b, *c, *d]) as usize)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_cut_anywhere_comes_out_whole() {
        let wire = [&[0u8, 0, 0, 0, 3][..], b"abc", &[0, 0, 0, 0, 0], &[0, 0, 0, 0, 1], b"x"].concat();
        for cut in 0..wire.len() {
            let mut messages = Messages::new(10, false);
            let mut found = Vec::new();
            for piece in [&wire[..cut], &wire[cut..]] {
                messages.feed(Bytes::copy_from_slice(piece));
                while let Some(message) = messages.next_message().unwrap() {
                    found.push(message.to_vec());
                }
            }
            assert_eq!(found, vec![b"abc".to_vec(), vec![], b"x".to_vec()]);
            assert!(!messages.is_torn());
        }
    }

    #[test]
    fn status_messages_survive_their_encoding() {
        let text = "bad: 100% ünïcode\nline";
        assert_eq!(percent_decode(percent_encode(text).as_bytes()), text);
        assert_eq!(percent_decode(b"%zz%4"), "%zz%4");
    }

    #[test]
    fn timeouts_have_eight_digits_and_a_unit() {
        assert_eq!(parse_timeout(b"250m"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_timeout(b"1H"), Ok(Duration::from_secs(3600)));
        assert!(parse_timeout(b"1x").is_err());
        assert!(parse_timeout(b"S").is_err());
        assert!(parse_timeout(b"1234567890S").is_err());
    }
}

//! A look at the HTTP/2 frames of a connection as they pass by, for what the h2 library keeps to itself.
//!
//! * RST_STREAM: which calls the client gave up, without a registered waker per call.
//! * PING: how often the client pings (gRPC servers close connections that ping too often).
//! * HEADERS without their end: since when, so that a client that drips headers can be dropped.
//! * On the way out, HEADERS and DATA: a client that is being answered may ping as often as it likes.
//!
//! It costs a few nanoseconds a frame and never changes a byte; the h2 library alone judges what is valid.

use tokio::time::Instant;

/// The client's half of the connection preface.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEADER_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const FLAG_ACK: u8 = 1;
const FLAG_END_HEADERS: u8 = 4;

pub struct Scanner {
    header: [u8; FRAME_HEADER_BYTES],
    have: usize,
    /// Bytes left of the preface or of the frame under way.
    skip: usize,
    ends_headers: bool,
    /// Streams the client reset since last asked.
    pub resets: Vec<u32>,
    /// PINGs (not acknowledgements) since last asked.
    pub pings: u32,
    /// The highest stream the client has opened.
    pub last_stream: u32,
    /// Any frame at all has come after the preface.
    pub began: bool,
    /// Since when a header block is incomplete.
    pub headers_since: Option<Instant>,
    /// Headers or data went by since last asked.
    pub spoke: bool,
}

impl Scanner {
    /// For what a client sends, from its preface on.
    pub fn incoming() -> Self {
        Self { skip: PREFACE.len(), ..Self::outgoing() }
    }

    /// For what we send: nothing but frames.
    pub fn outgoing() -> Self {
        Self {
            header: [0; FRAME_HEADER_BYTES],
            have: 0,
            skip: 0,
            ends_headers: false,
            resets: Vec::new(),
            pings: 0,
            last_stream: 0,
            began: false,
            headers_since: None,
            spoke: false,
        }
    }

    pub fn scan(&mut self, mut bytes: &[u8], now: Instant) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                if self.skip == 0 && self.ends_headers {
                    self.end_headers();
                }
                continue;
            }
            let taken = (FRAME_HEADER_BYTES - self.have).min(bytes.len());
            self.header[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have == FRAME_HEADER_BYTES {
                self.have = 0;
                self.frame(now);
            }
        }
    }

    fn end_headers(&mut self) {
        self.ends_headers = false;
        self.headers_since = None;
    }

    fn frame(&mut self, now: Instant) {
        let [a, b, c, kind, flags, stream @ ..] = self.header;
        self.began = true;
        self.skip = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes(stream) & 0x7fff_ffff;
        match kind {
            DATA => self.spoke = true,
            HEADERS | CONTINUATION => {
                self.spoke = true;
                self.last_stream = self.last_stream.max(stream);
                self.headers_since.get_or_insert(now);
                self.ends_headers = flags & FLAG_END_HEADERS != 0;
                if self.skip == 0 && self.ends_headers {
                    self.end_headers();
                }
            }
            RST_STREAM => self.resets.push(stream),
            PING if flags & FLAG_ACK == 0 => self.pings += 1,
            _ => {}
        }
    }
}

/// A GOAWAY frame, for the one case in which the h2 library lets nobody choose its text.
pub fn go_away(last_stream: u32, code: u32, text: &[u8]) -> Vec<u8> {
    let length = u32::try_from(8 + text.len()).expect("a short text").to_be_bytes();
    let head = [length[1], length[2], length[3], GOAWAY, 0, 0, 0, 0, 0];
    [&head[..], &last_stream.to_be_bytes(), &code.to_be_bytes(), text].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    #[test]
    fn frames_are_seen_however_the_bytes_are_cut() {
        let wire = [
            PREFACE.to_vec(),
            frame(4, 0, 0, &[]),
            frame(HEADERS, FLAG_END_HEADERS, 1, b"abc"),
            frame(RST_STREAM, 0, 1, &[0; 4]),
            frame(PING, 0, 0, &[0; 8]),
            frame(PING, FLAG_ACK, 0, &[0; 8]),
            frame(HEADERS, 0, 3, b"abc"),
        ]
        .concat();
        for size in 1..wire.len() {
            let mut scanner = Scanner::incoming();
            for piece in wire.chunks(size) {
                scanner.scan(piece, Instant::now());
            }
            assert_eq!((scanner.resets, scanner.pings), (vec![1], 1));
            assert!(scanner.headers_since.is_some());
        }
    }
}

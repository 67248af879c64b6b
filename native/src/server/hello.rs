//! What a client said in its first record, for the line that says why it was turned away.
//!
//! rustls does not tell which versions were offered; this reads them where the record came whole, as nearly always. Nor
//! does it tell apart what else may come in the place of a hello, as Go does.

use rustls::AlertDescription;

use crate::dial::remote_alert;

const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 5;
const MESSAGE_HEADER: usize = 4;
const RANDOM: usize = 32;
const SUPPORTED_VERSIONS: u16 = 43;

const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const APPLICATION_DATA: u8 = 23;
/// How SSL 2 began.
const SSL2: u8 = 0x80;
const RECORD_BYTES_MAX: usize = (16 << 10) + 2048;

/// Why this is no hello, in Go's words; None: it may be one.
pub fn trouble(record: &[u8]) -> Option<String> {
    let (kind, rest) = record.split_first()?;
    match *kind {
        SSL2 => Some("tls: unsupported SSLv2 handshake received".to_owned()),
        CHANGE_CIPHER_SPEC | APPLICATION_DATA => {
            Some("tls: first record does not look like a TLS handshake".to_owned())
        }
        ALERT => match record.get(RECORD_HEADER..RECORD_HEADER + 2)? {
            [_, 0] => Some("EOF".to_owned()),
            [_, code] => Some(remote_alert(AlertDescription::from(*code))),
            _ => None,
        },
        _ => {
            let length = usize::from(number(rest.get(2..)?)?.0);
            (length > RECORD_BYTES_MAX).then(|| format!("tls: oversized record received with length {length}"))
        }
    }
}

/// The versions a client offered, in Go's words: `304 303`.
pub fn versions(record: &[u8]) -> Option<String> {
    let hello = record.get(RECORD_HEADER..).filter(|message| message.first() == Some(&CLIENT_HELLO))?;
    let hello = hello.get(MESSAGE_HEADER..)?;
    let (legacy, rest) = number(hello)?;
    let rest = rest.get(RANDOM..)?;
    let (_, rest) = counted(rest, 1)?;
    let (_, rest) = counted(rest, 2)?;
    let (_, rest) = counted(rest, 1)?;
    if rest.is_empty() {
        return Some(up_to(legacy));
    }
    let (mut extensions, _) = counted(rest, 2)?;
    while !extensions.is_empty() {
        let (kind, rest) = number(extensions)?;
        let (content, rest) = counted(rest, 2)?;
        if kind == SUPPORTED_VERSIONS {
            let (list, _) = counted(content, 1)?;
            return Some(hex(list.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]))));
        }
        extensions = rest;
    }
    Some(up_to(legacy))
}

/// Numbers as Go prints a list of them in hexadecimal.
pub fn hex(numbers: impl Iterator<Item = u16>) -> String {
    numbers.map(|number| format!("{number:x}")).collect::<Vec<_>>().join(" ")
}

fn up_to(version: u16) -> String {
    hex([0x303, 0x302, 0x301].into_iter().filter(|each| *each <= version))
}

fn number(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (two, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*two), rest))
}

/// What a length of `digits` bytes counts, and what follows it.
fn counted(bytes: &[u8], digits: usize) -> Option<(&[u8], &[u8])> {
    let length = bytes.get(..digits)?.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
    let rest = &bytes[digits..];
    (length <= rest.len()).then(|| rest.split_at(length))
}

//! What TLS leaves unread in certificates and revocation lists: subjects, names, serial numbers.
//!
//! rustls has verified a chain when these are asked; an X.509 library would be a dozen crates for these few fields.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustls::pki_types::UnixTime;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERAL_TIME: u8 = 0x18;
const BMP_STRING: u8 = 0x1e;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

#[derive(Default)]
pub struct Certificate {
    /// Without leading zeros.
    pub serial: Vec<u8>,
    pub common_names: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// Its first and last second, as YYYYMMDDHHMMSS.
    validity: Option<(String, String)>,
}

impl Certificate {
    pub fn read(der: &[u8]) -> Self {
        let mut found = Self::default();
        // What is damaged ends the reading; what was verified is not.
        let _ = found.fill(der);
        found
    }

    /// Certificate ::= SEQUENCE { tbs SEQUENCE { [0] version?, serial, algorithm, issuer, validity, subject, key,
    /// [1]?, [2]?, [3] extensions? } … }
    fn fill(&mut self, der: &[u8]) -> Option<()> {
        let (_, certificate, _) = element(der)?;
        let (_, mut tbs, _) = element(certificate)?;
        let (tag, _, rest) = element(tbs)?;
        if tag == VERSION {
            tbs = rest;
        }
        let (_, serial, rest) = element(tbs)?;
        self.serial = bare(serial).to_vec();
        tbs = rest;
        for _ in 0..2 {
            (_, _, tbs) = element(tbs)?;
        }
        let (_, validity, tbs) = element(tbs)?;
        let (begin, validity) = time(validity)?;
        let (end, _) = time(validity)?;
        self.validity = Some((begin, end));
        let (_, subject, mut tbs) = element(tbs)?;
        self.common_names = common_names(subject)?;
        while !tbs.is_empty() {
            let (tag, content, rest) = element(tbs)?;
            tbs = rest;
            if tag == EXTENSIONS {
                let (_, extensions, _) = element(content)?;
                self.alternative_names(extensions)?;
            }
        }
        Some(())
    }

    fn alternative_names(&mut self, mut extensions: &[u8]) -> Option<()> {
        while !extensions.is_empty() {
            let (_, extension, rest) = element(extensions)?;
            extensions = rest;
            let (_, kind, mut rest) = element(extension)?;
            if kind != ALTERNATIVE_NAMES {
                continue;
            }
            let (mut tag, mut value, more) = element(rest)?;
            if tag != OCTETS {
                rest = more; // whether it is critical
                (tag, value, _) = element(rest)?;
            }
            let (_, mut names, _) = element(value).filter(|_| tag == OCTETS)?;
            while !names.is_empty() {
                let (tag, name, rest) = element(names)?;
                names = rest;
                match tag {
                    DNS_NAME => self.dns_names.push(String::from_utf8_lossy(name).into_owned()),
                    IP_ADDRESS => self.addresses.extend(address(name)),
                    _ => {}
                }
            }
        }
        Some(())
    }

    /// Whether it is valid now. Times are compared as the digits they are written with.
    pub fn is_valid(&self, now: UnixTime) -> bool {
        let now = digits(now.as_secs());
        self.validity.as_ref().is_some_and(|(begin, end)| *begin <= now && now <= *end)
    }

    /// The name Go calls the subject's: the last of them.
    pub fn common_name(&self) -> &str {
        self.common_names.last().map_or("", String::as_str)
    }

    /// Whether it was made out to this host or address, wildcards of one label included.
    pub fn names(&self, host: &str) -> bool {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        if let Ok(address) = bare.parse::<IpAddr>() {
            return self.addresses.contains(&address);
        }
        let host = host.to_ascii_lowercase();
        self.dns_names.iter().any(|name| matches(&name.to_ascii_lowercase(), &host))
    }

    /// Go's words for an address the certificate does not name.
    pub fn not_named(&self, host: &str) -> String {
        if self.addresses.is_empty() {
            return format!("x509: cannot validate certificate for {host} because it doesn't contain any IP SANs");
        }
        let named: Vec<_> = self.addresses.iter().map(IpAddr::to_string).collect();
        format!("x509: certificate is valid for {}, not {host}", named.join(", "))
    }
}

fn matches(pattern: &str, host: &str) -> bool {
    let (pattern, host) = (pattern.trim_end_matches('.'), host.strip_suffix('.').unwrap_or(host));
    if pattern.is_empty() || host.is_empty() {
        return false;
    }
    match (pattern.strip_prefix("*."), host.split_once('.')) {
        (Some(domain), Some((label, rest))) => !label.is_empty() && domain == rest,
        _ => pattern == host,
    }
}

/// A time in UTC, and what follows it; years of two digits are of 1950 to 2049.
fn time(der: &[u8]) -> Option<(String, &[u8])> {
    let (tag, value, rest) = element(der)?;
    let told = std::str::from_utf8(value).ok()?.strip_suffix('Z')?;
    let century = match tag {
        UTC_TIME if told < "50" => "20",
        UTC_TIME => "19",
        _ => "",
    };
    let told = format!("{century}{told}");
    (told.len() == 14 && told.bytes().all(|digit| digit.is_ascii_digit())).then_some((told, rest))
}

/// A time as Go writes it: `2026-11-27T08:57:14Z`.
pub fn rfc3339(time: UnixTime) -> String {
    let digits = digits(time.as_secs());
    let part = |from: usize, to: usize| &digits[from..to];
    let (date, clock) = ([part(0, 4), part(4, 6), part(6, 8)], [part(8, 10), part(10, 12), part(12, 14)]);
    format!("{}T{}Z", date.join("-"), clock.join(":"))
}

/// Seconds since 1970 as YYYYMMDDHHMMSS, by counting days from March on, so that leap days come last.
fn digits(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year + next;
    format!("{year:04}{month:02}{day:02}{:02}{:02}{:02}", rest / 3600, rest / 60 % 60, rest % 60)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).into());
    }
    let sixteen = <[u8; 16]>::try_from(bytes).ok()?;
    Some(IpAddr::from(Ipv6Addr::from(sixteen)).to_canonical())
}

fn common_names(mut subject: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    while !subject.is_empty() {
        let (tag, mut attributes, rest) = element(subject)?;
        subject = rest;
        while tag == SET && !attributes.is_empty() {
            let (tag, attribute, rest) = element(attributes)?;
            attributes = rest;
            if tag != SEQUENCE {
                continue;
            }
            let (tag, kind, rest) = element(attribute)?;
            let (encoding, value, _) = element(rest)?;
            if tag == OBJECT_ID && kind == COMMON_NAME {
                names.push(text(encoding, value));
            }
        }
    }
    Some(names)
}

/// The serial numbers a revocation list names. DER alone, version 2, as Go reads it: the error is Go's.
///
/// CertificateList ::= SEQUENCE { tbs SEQUENCE { version, algorithm, issuer, this update, next update?,
/// SEQUENCE OF SEQUENCE { serial, … }?, [0] extensions? } … }
pub fn revoked(der: &[u8]) -> Result<HashSet<Vec<u8>>, String> {
    let (tag, list, rest) = element(der).ok_or("x509: malformed crl")?;
    if tag != SEQUENCE || !rest.is_empty() {
        return Err("x509: malformed crl".into());
    }
    let (tag, tbs, _) = element(list).ok_or("x509: malformed tbs crl")?;
    if tag != SEQUENCE {
        return Err("x509: malformed tbs crl".into());
    }
    let (tag, version, tbs) = element(tbs).ok_or("x509: unsupported crl version")?;
    if tag != INTEGER {
        return Err("x509: unsupported crl version".into());
    }
    if version != [1] {
        return Err(format!("x509: unsupported crl version: {}", version.last().copied().unwrap_or(0)));
    }
    entries(tbs).ok_or_else(|| "x509: malformed crl".to_owned())
}

fn entries(tbs: &[u8]) -> Option<HashSet<Vec<u8>>> {
    let (_, _, rest) = element(tbs)?;
    let (_, _, rest) = element(rest)?;
    let (_, _, mut rest) = element(rest).filter(|(tag, ..)| matches!(*tag, UTC_TIME | GENERAL_TIME))?;
    let mut serials = HashSet::new();
    while !rest.is_empty() {
        let (tag, mut content, more) = element(rest)?;
        rest = more;
        while tag == SEQUENCE && !content.is_empty() {
            let (_, entry, more) = element(content)?;
            content = more;
            let (_, serial, _) = element(entry).filter(|(tag, ..)| *tag == INTEGER)?;
            serials.insert(bare(serial).to_vec());
        }
    }
    Some(serials)
}

fn bare(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|digit| **digit == 0).count();
    &number[zeros..]
}

fn text(encoding: u8, value: &[u8]) -> String {
    if encoding == BMP_STRING {
        let units: Vec<u16> = value.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
        return String::from_utf16_lossy(&units);
    }
    String::from_utf8_lossy(value).into_owned()
}

/// One DER element: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, mut rest) = rest.split_first()?;
    let mut length = usize::from(first);
    if first & 0x80 != 0 {
        let digits = usize::from(first & 0x7f);
        if digits == 0 || digits > 4 || rest.len() < digits {
            return None;
        }
        length = rest[..digits].iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
        rest = &rest[digits..];
    }
    (length <= rest.len()).then(|| (tag, &rest[..length], &rest[length..]))
}

#[cfg(test)]
mod tests {
    use super::digits;

    #[test]
    fn seconds_are_the_digits_of_their_day() {
        assert_eq!(digits(0), "19700101000000");
        assert_eq!(digits(951_782_399), "20000228235959");
        assert_eq!(digits(951_782_400), "20000229000000");
        assert_eq!(digits(1_735_689_599), "20241231235959");
        assert_eq!(digits(4_107_542_400), "21000301000000");
    }
}

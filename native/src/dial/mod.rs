//! Making a connection: TCP or Unix socket, TLS or not, with Go's words for what goes wrong.

mod tls;

pub use tls::{remote_alert, system_roots, ClientTls, Tls, TlsOptions};

use std::io;
use std::net::{IpAddr, SocketAddr};

use tokio::net::{lookup_host, TcpSocket, TcpStream, UnixStream};

use crate::socket::Socket;

pub enum Target {
    Tcp { host: String, port: u16 },
    Unix(String),
}

impl Target {
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return Ok(Self::Unix(path.to_owned()));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(|| format!("address {text}: missing port in address"))?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().map_err(|_| format!("address {text}: invalid port"))?;
        Ok(Self::Tcp { host: host.to_owned(), port })
    }

    pub fn authority(&self) -> String {
        match self {
            Self::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Tcp { host, port } => format!("{host}:{port}"),
            Self::Unix(_) => "localhost".to_owned(),
        }
    }

    fn host(&self) -> &str {
        match self {
            Self::Tcp { host, .. } => host,
            Self::Unix(_) => "localhost",
        }
    }

    /// `dial tcp host:port: what`, as Go's net package says it.
    pub fn failure(&self, what: &str) -> String {
        match self {
            Self::Tcp { .. } => format!("dial tcp {}: {what}", self.authority()),
            Self::Unix(path) => format!("dial unix {path}: {what}"),
        }
    }

    /// `local`: the address to leave from, which only other hosts' addresses of its family can be reached by.
    pub async fn connect(&self, local: Option<IpAddr>) -> Result<Socket, String> {
        let (host, port) = match self {
            Self::Unix(path) => {
                let socket = UnixStream::connect(path).await;
                return socket.map(Socket::Unix).map_err(|error| self.failure(&format!("connect: {}", words(&error))));
            }
            Self::Tcp { host, port } => (host.as_str(), *port),
        };
        let unknown = || format!("dial tcp: lookup {host}: no such host");
        let addresses: Vec<SocketAddr> = match host.parse() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => lookup_host((host, port)).await.map_err(|_| unknown())?.collect(),
        };
        let mut failure = unknown();
        for address in addresses {
            match connect_tcp(address, local).await {
                Ok(socket) => {
                    socket.set_nodelay(true).map_err(|error| words(&error))?;
                    return Ok(Socket::Tcp(socket));
                }
                Err(error) => failure = format!("dial tcp {address}: connect: {}", words(&error)),
            }
        }
        Err(failure)
    }
}

async fn connect_tcp(address: SocketAddr, local: Option<IpAddr>) -> io::Result<TcpStream> {
    let Some(local) = local else {
        return TcpStream::connect(address).await;
    };
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.bind(SocketAddr::new(local, 0))?;
    socket.connect(address).await
}

/// What TLS has against a connection, if that is what the error is about.
pub fn tls_words(error: &io::Error) -> Option<String> {
    error.get_ref()?.downcast_ref().map(tls::words)
}

/// The system's words for an error, in Go's lower case and without Rust's number; those of TLS for what it found.
pub fn words(error: &io::Error) -> String {
    if let Some(text) = tls_words(error) {
        return text;
    }
    if error.kind() == io::ErrorKind::UnexpectedEof {
        return "unexpected EOF".to_owned();
    }
    let text = error.to_string();
    match error.raw_os_error() {
        Some(_) => text.split(" (os error").next().unwrap_or(&text).to_lowercase(),
        None => text,
    }
}

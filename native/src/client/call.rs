//! One gRPC call, from the client's side: request out, messages and status in.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};
use http::header::{HeaderMap, HeaderName, HeaderValue, CONTENT_TYPE, TE, USER_AGENT};
use http::{Method, StatusCode, Uri, Version};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::link::{unavailable, Link, UNAVAILABLE};
use crate::server::{percent_decode, Messages, Status};

const CANCELLED: u32 = 1;
const UNKNOWN: u32 = 2;
const DEADLINE_EXCEEDED: u32 = 4;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const UNIMPLEMENTED: u32 = 12;
const INTERNAL: u32 = 13;
const UNAUTHENTICATED: u32 = 16;

/// A message ready to be sent, its header in front.
pub struct Outgoing(pub Bytes);

/// What a call consists of beside its messages.
pub struct Request {
    head: http::Request<()>,
    deadline: Option<Instant>,
    /// As long as this lives the connection is in use.
    _use: Arc<()>,
}

impl Request {
    pub fn new(
        link: &Link,
        path: &str,
        metadata: &[(String, String)],
        timeout: Option<Duration>,
    ) -> Result<Self, String> {
        let uri = Uri::builder().scheme(link.scheme()).authority(link.authority.clone()).path_and_query(path);
        let mut head = http::Request::new(());
        *head.method_mut() = Method::POST;
        *head.version_mut() = Version::HTTP_2;
        *head.uri_mut() = uri.build().map_err(|_| format!("bad path {path:?}"))?;
        let headers = head.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("grpc-pyetcd/", env!("CARGO_PKG_VERSION"))));
        if let Some(timeout) = timeout {
            let value = HeaderValue::from_str(&timeout_text(timeout)).expect("digits and a letter");
            headers.insert("grpc-timeout", value);
        }
        for (name, value) in metadata {
            let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("bad metadata key {name:?}"))?;
            let value = HeaderValue::from_str(value).map_err(|_| format!("bad value of metadata key {name:?}"))?;
            headers.append(parsed, value);
        }
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        Ok(Self { head, deadline, _use: link.users.clone() })
    }
}

/// At most eight digits, so the unit grows with the number.
fn timeout_text(timeout: Duration) -> String {
    const DIGITS: u128 = 100_000_000;
    let units = [(1, 'n'), (1_000, 'u'), (1_000_000, 'm'), (1_000_000_000, 'S'), (60_000_000_000, 'M')];
    let nanoseconds = timeout.as_nanos();
    for (size, unit) in units {
        let count = nanoseconds.div_ceil(size);
        if count < DIGITS {
            return format!("{count}{unit}");
        }
    }
    format!("{}H", nanoseconds.div_ceil(3_600_000_000_000).min(DIGITS - 1))
}

/// A message with its header. The length has 32 bits.
pub fn frame(payload: &[u8]) -> Result<Bytes, Status> {
    let length = u32::try_from(payload.len())
        .map_err(|_| Status::new(RESOURCE_EXHAUSTED, format!("grpc: message too large ({} bytes)", payload.len())))?;
    let mut message = BytesMut::with_capacity(payload.len() + 5);
    message.put_u8(0);
    message.put_u32(length);
    message.put_slice(payload);
    Ok(message.freeze())
}

fn too_late() -> Status {
    Status::new(DEADLINE_EXCEEDED, "context deadline exceeded")
}

async fn until<T>(
    deadline: Option<Instant>,
    work: impl std::future::Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, work).await.unwrap_or_else(|_| Err(too_late())),
        None => work.await,
    }
}

/// A whole call: one message each way.
pub async fn unary(link: Arc<Link>, request: Request, message: Bytes) -> Result<Bytes, Status> {
    until(request.deadline, async {
        let mut connection = link.ready().await?;
        let (response, mut sending) =
            connection.send_request(request.head, false).map_err(|error| status_of(&error))?;
        // A server may answer, with an error, before it has read all; then its status counts, not our failure to send.
        let sent = send(&mut sending, message, true).await;
        let mut incoming = Incoming::begin(response).await.map_err(|status| better(status, sent.err()))?;
        let first = incoming.next().await?;
        match first {
            None => Err(Status::new(
                INTERNAL,
                "cardinality violation: received no response message from non-server-streaming RPC",
            )),
            Some(message) => match incoming.next().await? {
                None => Ok(message),
                Some(_) => Err(Status::new(
                    INTERNAL,
                    "cardinality violation: expected <EOF> for non server-streaming RPCs, but received another message",
                )),
            },
        }
    })
    .await
}

/// The status of the answer, unless that only says that sending failed.
fn better(answer: Status, sending: Option<Status>) -> Status {
    match sending {
        Some(sending) if answer.code == UNAVAILABLE => sending,
        _ => answer,
    }
}

/// A stream: messages from `to_send` out, messages and at last the bad status, if any, into `received`.
pub async fn stream(
    link: Arc<Link>,
    request: Request,
    to_send: mpsc::Receiver<Outgoing>,
    received: mpsc::Sender<Result<Bytes, Status>>,
) {
    let outcome = until(request.deadline, async {
        let mut connection = link.ready().await?;
        let (response, sending) = connection.send_request(request.head, false).map_err(|error| status_of(&error))?;
        let receiving = receive(response, &received);
        let mut receiving = std::pin::pin!(receiving);
        tokio::select! {
            biased;
            ended = &mut receiving => return ended,
            () = send_all(sending, to_send) => {}
        }
        receiving.await
    })
    .await;
    if let Err(status) = outcome {
        // Nobody is there to hear it when the stream object is gone.
        let _ = received.send(Err(status)).await;
    }
}

/// Send until half-closed. A failure to send is not reported here: the receiving side learns the reason.
async fn send_all(mut sending: SendStream<Bytes>, mut to_send: mpsc::Receiver<Outgoing>) {
    while let Some(Outgoing(message)) = to_send.recv().await {
        if send(&mut sending, message, false).await.is_err() {
            return;
        }
    }
    let _ = sending.send_data(Bytes::new(), true);
}

async fn receive(response: ResponseFuture, received: &mpsc::Sender<Result<Bytes, Status>>) -> Result<(), Status> {
    let mut incoming = Incoming::begin(response).await?;
    while let Some(message) = incoming.next().await? {
        if received.send(Ok(message)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Send as flow control allows.
async fn send(sending: &mut SendStream<Bytes>, mut message: Bytes, end: bool) -> Result<(), Status> {
    while !message.is_empty() {
        sending.reserve_capacity(message.len());
        let capacity = sending.capacity();
        if capacity == 0 {
            match std::future::poll_fn(|cx| sending.poll_capacity(cx)).await {
                Some(Ok(_)) => continue,
                Some(Err(error)) => return Err(status_of(&error)),
                None => return Err(Status::new(UNAVAILABLE, "the stream is closed")),
            }
        }
        let piece = message.split_to(capacity.min(message.len()));
        let last = end && message.is_empty();
        sending.send_data(piece, last).map_err(|error| status_of(&error))?;
    }
    Ok(())
}

/// An answer as it comes in.
struct Incoming {
    body: RecvStream,
    messages: Messages,
    unreleased: usize,
    /// The status came with the headers; there will be no trailers.
    has_status: bool,
}

impl Incoming {
    async fn begin(response: ResponseFuture) -> Result<Self, Status> {
        let (head, body) = response.await.map_err(|error| status_of(&error))?.into_parts();
        if head.status != StatusCode::OK {
            let text = format!("unexpected HTTP status code received from server: {}", head.status);
            return Err(Status::new(code_of_http(head.status), text));
        }
        let has_status = head.headers.contains_key("grpc-status");
        if has_status {
            status_in(&head.headers)?;
        }
        Ok(Self { body, messages: Messages::new(i32::MAX as usize, false), unreleased: 0, has_status })
    }

    /// The next message, None at a good end.
    async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.messages.next_message()? {
                return Ok(Some(message));
            }
            // Fails only when the stream is gone, which the next read reports.
            let _ = self.body.flow_control().release_capacity(std::mem::take(&mut self.unreleased));
            match self.body.data().await {
                Some(Ok(data)) => {
                    self.unreleased = data.len();
                    self.messages.feed(data);
                }
                Some(Err(error)) => return Err(status_of(&error)),
                None => {
                    let trailers = self.body.trailers().await.map_err(|error| status_of(&error))?;
                    match trailers {
                        Some(trailers) => status_in(&trailers)?,
                        None if self.messages.is_torn() => return Err(Status::new(INTERNAL, "unexpected EOF")),
                        None if self.has_status => {}
                        None => return Err(Status::new(INTERNAL, "server closed the stream without sending trailers")),
                    }
                    return Ok(None);
                }
            }
        }
    }
}

fn status_in(headers: &HeaderMap) -> Result<(), Status> {
    let code = headers.get("grpc-status").and_then(|code| code.to_str().ok()).and_then(|code| code.parse().ok());
    let message = headers.get("grpc-message").map(|text| percent_decode(text.as_bytes())).unwrap_or_default();
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(Status::new(code, message)),
        None => Err(Status::new(UNKNOWN, "server closed the stream without a grpc-status")),
    }
}

/// The gRPC project's table from HTTP statuses to codes.
fn code_of_http(status: StatusCode) -> u32 {
    match status.as_u16() {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502 | 503 | 504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// The gRPC project's table from HTTP/2 errors to codes.
fn status_of(error: &h2::Error) -> Status {
    let Some(reason) = error.reason().filter(|_| error.is_reset()) else { return unavailable(error) };
    let code = match reason {
        Reason::REFUSED_STREAM => UNAVAILABLE,
        Reason::CANCEL => CANCELLED,
        Reason::ENHANCE_YOUR_CALM => RESOURCE_EXHAUSTED,
        Reason::INADEQUATE_SECURITY => PERMISSION_DENIED,
        _ => INTERNAL,
    };
    Status::new(code, format!("stream terminated by RST_STREAM with error code: {}", name_of(reason)))
}

fn name_of(reason: Reason) -> String {
    let names = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    let code = u32::from(reason);
    names.get(code as usize).map_or_else(|| format!("unknown error code {code}"), ToString::to_string)
}

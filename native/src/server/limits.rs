//! Every bound of the wire in one place. Sizes in bytes, times in seconds; 0 switches an optional bound off.

use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

#[pyclass(frozen, module = "pyetcd._native")]
#[derive(Clone)]
pub struct Limits {
    pub recv_message_bytes: usize,
    pub http_body_bytes: usize,
    pub answer_bytes: usize,
    pub concurrent_streams: u32,
    pub header_timeout: Option<Duration>,
    pub handshake_timeout: Option<Duration>,
    pub keepalive_interval: Option<Duration>,
    pub keepalive_timeout: Duration,
    pub keepalive_min_time: Option<Duration>,
    pub stream_backlog_bytes: usize,
    pub max_pending_events: usize,
    pub header_bytes: u32,
    pub connections: usize,
}

/// A duration from seconds; 0 is None.
pub fn optional(name: &str, seconds: f64) -> PyResult<Option<Duration>> {
    let duration = Duration::try_from_secs_f64(seconds)
        .map_err(|_| PyValueError::new_err(format!("{name} must be a number of seconds, 0 or more")))?;
    Ok(if duration.is_zero() { None } else { Some(duration) })
}

#[pymethods]
impl Limits {
    #[new]
    #[pyo3(signature = (
        *,
        recv_message_bytes = 4 << 20,
        http_body_bytes = 4 << 20,
        answer_bytes = 8 << 20,
        concurrent_streams = 0,
        header_timeout = 30.0,
        handshake_timeout = 10.0,
        keepalive_interval = 7200.0,
        keepalive_timeout = 20.0,
        keepalive_min_time = 5.0,
        stream_backlog_bytes = 1 << 20,
        max_pending_events = 16384,
        header_bytes = 1 << 20,
        connections = 0,
    ))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        recv_message_bytes: usize,
        http_body_bytes: usize,
        answer_bytes: usize,
        concurrent_streams: u32,
        header_timeout: f64,
        handshake_timeout: f64,
        keepalive_interval: f64,
        keepalive_timeout: f64,
        keepalive_min_time: f64,
        stream_backlog_bytes: usize,
        max_pending_events: usize,
        header_bytes: u32,
        connections: usize,
    ) -> PyResult<Self> {
        if stream_backlog_bytes == 0 || max_pending_events == 0 {
            return Err(PyValueError::new_err("stream_backlog_bytes and max_pending_events must be positive"));
        }
        Ok(Self {
            recv_message_bytes,
            http_body_bytes,
            answer_bytes,
            concurrent_streams,
            header_timeout: optional("header_timeout", header_timeout)?,
            handshake_timeout: optional("handshake_timeout", handshake_timeout)?,
            keepalive_interval: optional("keepalive_interval", keepalive_interval)?,
            keepalive_timeout: optional("keepalive_timeout", keepalive_timeout)?.unwrap_or(Duration::from_secs(20)),
            keepalive_min_time: optional("keepalive_min_time", keepalive_min_time)?,
            stream_backlog_bytes,
            max_pending_events,
            header_bytes,
            connections,
        })
    }
}

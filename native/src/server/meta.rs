//! What Python may ask about a call beside its payload, and how it is shared.
//!
//! The calls of one connection mostly carry the same headers. The first one's description is kept with the connection;
//! a later call whose headers are equal shares it, and Python gets the same `Meta` object again.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::counts::Caller;

/// Headers that belong to the transport of one call and say nothing to a handler.
fn is_per_call(name: &HeaderName) -> bool {
    name.as_str() == "grpc-timeout" || name == http::header::CONTENT_LENGTH
}

/// Who is at the other end of a connection.
pub struct Peer {
    pub address: String,
    pub certificate_names: Vec<String>,
}

/// What calls with equal headers have in common.
pub struct Description {
    peer: Arc<Peer>,
    authority: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Description {
    pub fn new(peer: Arc<Peer>, authority: &str, headers: &HeaderMap) -> Self {
        let kept = headers.iter().filter(|(name, _)| !is_per_call(name));
        let headers = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        Self { peer, authority: authority.to_owned(), headers }
    }

    fn describes(&self, authority: &str, headers: &HeaderMap) -> bool {
        let others = headers.iter().filter(|(name, _)| !is_per_call(name));
        self.authority == authority && self.headers.iter().map(|(name, value)| (name, value)).eq(others)
    }

    fn find(&self, wanted: &str) -> Option<String> {
        self.headers.iter().find(|(name, _)| name.as_str() == wanted).map(|(_, value)| latin1(value))
    }
}

fn latin1(value: &HeaderValue) -> String {
    value.as_bytes().iter().copied().map(char::from).collect()
}

/// Headers as a list to keep.
pub fn listed(headers: &HeaderMap) -> Vec<(HeaderName, HeaderValue)> {
    headers.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn texts(headers: &[(HeaderName, HeaderValue)]) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), latin1(value))).collect()
}

/// A description with the Python object made from it the first time it is needed.
pub struct Slot {
    pub description: Arc<Description>,
    pub caller: Option<Arc<Caller>>,
    object: OnceLock<Py<Meta>>,
}

impl Slot {
    pub fn new(description: Description, caller: Option<Arc<Caller>>) -> Arc<Self> {
        Arc::new(Self { description: Arc::new(description), caller, object: OnceLock::new() })
    }

    pub fn describes(&self, authority: &str, headers: &HeaderMap) -> bool {
        self.description.describes(authority, headers)
    }

    /// The Python object for a call: the shared one unless the call has a timeout of its own.
    pub fn object<'py>(&self, py: Python<'py>, timeout_seconds: Option<f64>) -> PyResult<Bound<'py, Meta>> {
        if timeout_seconds.is_some() {
            return Bound::new(py, Meta { description: self.description.clone(), timeout_seconds });
        }
        if let Some(object) = self.object.get() {
            return Ok(object.bind(py).clone());
        }
        let object = Bound::new(py, Meta { description: self.description.clone(), timeout_seconds: None })?;
        // Another thread may have been first; then this object simply lives on its own.
        let _ = self.object.set(object.clone().unbind());
        Ok(object)
    }
}

#[pyclass(frozen, module = "pyetcd._native")]
pub struct Meta {
    description: Arc<Description>,
    #[pyo3(get)]
    timeout_seconds: Option<f64>,
}

#[pymethods]
impl Meta {
    /// A description made by hand, of a call that came another way than over gRPC.
    #[new]
    #[pyo3(signature = (*, peer, authority, headers, timeout_seconds = None, certificate_names = vec![]))]
    fn new(
        peer: String,
        authority: &str,
        headers: Vec<(String, String)>,
        timeout_seconds: Option<f64>,
        certificate_names: Vec<String>,
    ) -> PyResult<Self> {
        let peer = Arc::new(Peer { address: peer, certificate_names });
        let mut kept = HeaderMap::with_capacity(headers.len());
        for (name, value) in headers {
            let bad = |what: &str| PyValueError::new_err(format!("bad {what} of header {name:?}"));
            let bytes: Result<Vec<u8>, _> = value.chars().map(|char| u8::try_from(u32::from(char))).collect();
            let bytes = bytes.map_err(|_| bad("value"))?;
            let value = HeaderValue::from_bytes(&bytes).map_err(|_| bad("value"))?;
            kept.append(HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("name"))?, value);
        }
        Ok(Self { description: Arc::new(Description::new(peer, authority, &kept)), timeout_seconds })
    }

    /// The `token` metadata value, else `authorization`, or None.
    #[getter]
    fn token(&self) -> Option<String> {
        self.description.find("token").or_else(|| self.description.find("authorization"))
    }

    #[getter]
    fn peer(&self) -> &str {
        &self.description.peer.address
    }

    #[getter]
    fn authority(&self) -> &str {
        &self.description.authority
    }

    #[getter]
    fn certificate_names(&self) -> Vec<String> {
        self.description.peer.certificate_names.clone()
    }

    #[getter]
    fn headers(&self) -> Vec<(String, String)> {
        texts(&self.description.headers)
    }
}

/// A plain HTTP request, whole.
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

#[pyclass(frozen, module = "pyetcd._native")]
pub struct HttpRequest {
    request: Request,
}

impl From<Request> for HttpRequest {
    fn from(request: Request) -> Self {
        Self { request }
    }
}

#[pymethods]
impl HttpRequest {
    #[getter]
    fn method(&self) -> &str {
        &self.request.method
    }

    /// Path with query, as sent.
    #[getter]
    fn target(&self) -> &str {
        &self.request.target
    }

    #[getter]
    fn headers(&self) -> Vec<(String, String)> {
        texts(&self.request.headers)
    }

    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.request.body)
    }
}

/// The answer to a request of ours: whole, or the head of a long one.
pub struct Response {
    pub status: u16,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

#[pyclass(frozen, module = "pyetcd._native")]
pub struct HttpResponse {
    response: Response,
}

impl From<Response> for HttpResponse {
    fn from(response: Response) -> Self {
        Self { response }
    }
}

#[pymethods]
impl HttpResponse {
    #[getter]
    fn status(&self) -> u16 {
        self.response.status
    }

    #[getter]
    fn headers(&self) -> Vec<(String, String)> {
        texts(&self.response.headers)
    }

    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.response.body)
    }
}

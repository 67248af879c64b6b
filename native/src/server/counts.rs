//! What the wire counts of gRPC calls, for whoever shows metrics: by method, and by the value of one request header.
//!
//! Counted where go-grpc's interceptors count: a unary call begins with its message, a stream when it opens; what is refused
//! before that (an unknown method, a message too large or torn of a unary call) counts as nothing. Only the wire's thread
//! counts; the loop's thread reads. A count costs about a nanosecond.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::HeaderMap;
use pyo3::prelude::*;

use super::grpc;

/// Codes from OK to Unauthenticated.
const CODES: usize = 17;
/// Different header values counted apart; what comes beyond is not shown.
const CALLERS_MAX: usize = 1000;

/// One number with a single writer.
#[derive(Default)]
pub struct Count(AtomicU64);

impl Count {
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The calls of one method.
#[derive(Default)]
pub struct MethodCounts {
    started: Count,
    received: Count,
    sent: Count,
    /// Streams whose client will send no more, or can no longer.
    read_to_end: Count,
    ended: [Count; CODES],
    /// Durations by bucket; the last is for those beyond every bound.
    durations: Vec<Count>,
    nanoseconds: Count,
}

/// Calls of clients that sent the same value of the header counted by.
pub struct Caller {
    value: String,
    unary: Count,
    streams: Count,
}

/// One method's row for Python; the stub names the fields.
type Row = (u64, u64, u64, u64, Vec<u64>, Vec<u64>, f64);

pub struct Counts {
    methods: Vec<MethodCounts>,
    bounds: Vec<Duration>,
    header: String,
    callers: Mutex<HashMap<String, Arc<Caller>>>,
    received_bytes: Count,
    sent_bytes: Count,
}

impl Counts {
    /// `bounds`: upper ends of the buckets of durations, ascending; none: durations are not counted. `header`: count
    /// callers by this one; empty: by none.
    pub fn new(methods: usize, bounds: Vec<Duration>, header: String) -> Self {
        let buckets = if bounds.is_empty() { 0 } else { bounds.len() + 1 };
        let method = || MethodCounts {
            durations: std::iter::repeat_with(Count::default).take(buckets).collect(),
            ..MethodCounts::default()
        };
        Self {
            methods: std::iter::repeat_with(method).take(methods).collect(),
            bounds,
            header,
            callers: Mutex::default(),
            received_bytes: Count::default(),
            sent_bytes: Count::default(),
        }
    }

    // The wire's side.

    /// Who calls with these headers. Asked once for each connection and each change of its headers.
    pub fn caller(&self, headers: &HeaderMap) -> Option<Arc<Caller>> {
        if self.header.is_empty() {
            return None;
        }
        let value = headers
            .get(&self.header)
            .map_or_else(|| "unknown".to_owned(), |value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let mut callers = self.callers.lock().expect("nobody panics while holding the callers");
        let known = callers.len();
        if let Some(caller) = callers.get(&value) {
            return Some(caller.clone());
        }
        let caller = Arc::new(Caller { value: value.clone(), unary: Count::default(), streams: Count::default() });
        if known < CALLERS_MAX {
            callers.insert(value, caller.clone());
        }
        Some(caller)
    }

    pub fn unary(&self, method: u32, bytes: usize, caller: Option<&Caller>) {
        let counts = &self.methods[method as usize];
        counts.started.add(1);
        counts.received.add(1);
        self.received_bytes.add(bytes as u64);
        if let Some(caller) = caller {
            caller.unary.add(1);
        }
    }

    pub fn opened(&self, method: u32, caller: Option<&Caller>) {
        self.methods[method as usize].started.add(1);
        if let Some(caller) = caller {
            caller.streams.add(1);
        }
    }

    pub fn message(&self, method: u32, bytes: usize) {
        self.methods[method as usize].received.add(1);
        self.received_bytes.add(bytes as u64);
    }

    pub fn read_to_end(&self, method: u32) {
        self.methods[method as usize].read_to_end.add(1);
    }

    pub fn sent(&self, method: u32, bytes: usize) {
        self.methods[method as usize].sent.add(1);
        self.sent_bytes.add(bytes as u64);
    }

    pub fn ended(&self, method: u32, code: u32, took: Duration) {
        let counts = &self.methods[method as usize];
        let code = if (code as usize) < CODES { code } else { grpc::UNKNOWN };
        counts.ended[code as usize].add(1);
        if !self.bounds.is_empty() {
            counts.durations[self.bounds.partition_point(|bound| *bound < took)].add(1);
            counts.nanoseconds.add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
    }

    // The loop's side.

    pub fn bytes(&self) -> (u64, u64) {
        (self.received_bytes.get(), self.sent_bytes.get())
    }

    pub fn rows(&self) -> Vec<Row> {
        let all = |counts: &[Count]| counts.iter().map(Count::get).collect();
        let row = |counts: &MethodCounts| {
            (
                counts.started.get(),
                counts.received.get(),
                counts.sent.get(),
                counts.read_to_end.get(),
                all(&counts.ended),
                all(&counts.durations),
                Duration::from_nanos(counts.nanoseconds.get()).as_secs_f64(),
            )
        };
        self.methods.iter().map(row).collect()
    }

    pub fn callers(&self) -> Vec<(String, u64, u64)> {
        let callers = self.callers.lock().expect("nobody panics while holding the callers");
        callers.values().map(|caller| (caller.value.clone(), caller.unary.get(), caller.streams.get())).collect()
    }
}

/// Bounds from seconds.
pub fn bounds(seconds: Vec<f64>) -> PyResult<Vec<Duration>> {
    let bound = |seconds| {
        Duration::try_from_secs_f64(seconds)
            .map_err(|error| pyo3::exceptions::PyValueError::new_err(format!("duration_bounds: {error}")))
    };
    seconds.into_iter().map(bound).collect()
}

//! Calls that a loop makes: begun at once, their answers drained when the wake descriptor says so.
//!
//! The same calls over the same channels as the blocking ones; only who waits differs. Every stream has at most
//! `AHEAD` messages in the queue that Python has not asked for with `read`, so a stream that nobody reads stops its
//! server and not the others.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::Semaphore;

use super::call::{self, Outgoing, Request};
use super::{duration, rpc_error, runtime, Abort, Channel};
use crate::server::Status;
use crate::wake::{Bell, Wake};

/// Messages of one stream that may lie in the queue before Python asks for more.
const AHEAD: usize = 16;
/// Messages of one stream that have not been sent.
const UNSENT: usize = 1024;

enum News {
    /// A message; with `last` the answer of a unary call, and its end.
    Message {
        message: Bytes,
        last: bool,
    },
    End(Status),
}

struct Queue {
    bell: Arc<Bell>,
    news: Mutex<VecDeque<(u64, News)>>,
}

impl Queue {
    fn push(&self, call: u64, news: News) {
        self.news.lock().expect("nobody panics while holding it").push_back((call, news));
        self.bell.ring();
    }
}

/// What is kept of a call until its end is drained.
struct Live {
    _task: Abort,
    outgoing: Option<Sender<Outgoing>>,
    credits: Arc<Semaphore>,
}

#[derive(Default)]
struct Table {
    next: u64,
    live: HashMap<u64, Live>,
}

#[pyclass(frozen, module = "pyetcd._native")]
pub struct Calls {
    queue: Arc<Queue>,
    table: Mutex<Table>,
}

/// `(call, message, code, text)`; no message: the call is over.
type Told<'py> = (u64, Option<Bound<'py, PyBytes>>, u32, String);

#[pymethods]
impl Calls {
    #[new]
    fn new(wake: &Wake) -> Self {
        let queue = Queue { bell: wake.bell.clone(), news: Mutex::default() };
        Self { queue: Arc::new(queue), table: Mutex::default() }
    }

    /// Begin a unary call.
    #[pyo3(signature = (channel, path, payload, metadata = Vec::new(), timeout = None))]
    fn unary(
        &self,
        py: Python<'_>,
        channel: &Channel,
        path: &str,
        payload: &[u8],
        metadata: Vec<(String, String)>,
        timeout: Option<f64>,
    ) -> PyResult<u64> {
        let request = channel.request(path, &metadata, timeout)?;
        let message = call::frame(payload).map_err(|status| rpc_error(py, status))?;
        let (link, queue) = (channel.link.clone(), self.queue.clone());
        self.begin(None, |number, _| async move {
            queue.push(
                number,
                match call::unary(link, request, message).await {
                    Ok(message) => News::Message { message, last: true },
                    Err(status) => News::End(status),
                },
            );
        })
    }

    /// Open a stream.
    #[pyo3(signature = (channel, path, metadata = Vec::new(), timeout = None))]
    fn open(
        &self,
        channel: &Channel,
        path: &str,
        metadata: Vec<(String, String)>,
        timeout: Option<f64>,
    ) -> PyResult<u64> {
        duration("timeout", timeout)?;
        let request: Request = channel.request(path, &metadata, timeout)?;
        let (link, queue) = (channel.link.clone(), self.queue.clone());
        let (outgoing, to_send) = mpsc::channel(UNSENT);
        self.begin(Some(outgoing), |number, credits| async move {
            let (received, incoming) = mpsc::channel(1);
            tokio::join!(call::stream(link, request, to_send, received), hand_over(&queue, number, incoming, &credits));
        })
    }

    /// Queue a message on a stream. False: too many are unsent, or the stream is over.
    fn send(&self, py: Python<'_>, call: u64, payload: &[u8]) -> PyResult<bool> {
        let message = call::frame(payload).map_err(|status| rpc_error(py, status))?;
        let table = self.table();
        let Some(Live { outgoing, .. }) = table.live.get(&call) else { return Ok(false) };
        let Some(outgoing) = outgoing else { return Err(PyValueError::new_err("send after half_close")) };
        Ok(outgoing.try_send(Outgoing(message)).is_ok())
    }

    /// Send no more on a stream.
    fn half_close(&self, call: u64) {
        if let Some(live) = self.table().live.get_mut(&call) {
            live.outgoing = None;
        }
    }

    /// `count` messages of a stream have been dealt with: as many more may come.
    fn read(&self, call: u64, count: usize) {
        if let Some(live) = self.table().live.get(&call) {
            live.credits.add_permits(count);
        }
    }

    /// Give a call up. Nothing more is said of it.
    fn cancel(&self, call: u64) {
        let live = self.table().live.remove(&call);
        drop(live);
    }

    /// How many calls are under way.
    fn under_way(&self) -> usize {
        self.table().live.len()
    }

    /// Up to `max_news` of `(call, message, code, text)`. Without a message: the call has ended with this status.
    /// A unary call has ended with its message.
    fn drain<'py>(&self, py: Python<'py>, max_news: usize) -> Vec<Told<'py>> {
        let mut news = self.queue.news.lock().expect("nobody panics while holding it");
        let count = news.len().min(max_news);
        let taken: Vec<(u64, News)> = news.drain(..count).collect();
        drop(news);
        let mut table = self.table();
        let mut told = Vec::with_capacity(taken.len());
        for (call, news) in taken {
            if !table.live.contains_key(&call) {
                continue;
            }
            match news {
                News::Message { message, last } => {
                    if last {
                        table.live.remove(&call);
                    }
                    told.push((call, Some(PyBytes::new(py, &message)), 0, String::new()));
                }
                News::End(Status { code, message }) => {
                    table.live.remove(&call);
                    told.push((call, None, code, message));
                }
            }
        }
        told
    }
}

impl Calls {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nobody panics while holding it")
    }

    /// Run what `task` makes of a new number, and keep it under that number.
    fn begin<F>(&self, outgoing: Option<Sender<Outgoing>>, task: impl FnOnce(u64, Arc<Semaphore>) -> F) -> PyResult<u64>
    where
        F: std::future::Future<Output = ()> + Send + 'static,
    {
        let credits = Arc::new(Semaphore::new(AHEAD));
        let runtime = runtime()?;
        let mut table = self.table();
        table.next += 1;
        let number = table.next;
        let task = runtime.spawn(task(number, credits.clone()));
        table.live.insert(number, Live { _task: Abort(task.abort_handle()), outgoing, credits });
        Ok(number)
    }
}

/// Messages into the queue, each when Python has room for it, then the end.
async fn hand_over(queue: &Queue, call: u64, mut incoming: Receiver<Result<Bytes, Status>>, credits: &Semaphore) {
    loop {
        match incoming.recv().await {
            Some(Ok(message)) => {
                // The semaphore is never closed.
                if let Ok(credit) = credits.acquire().await {
                    credit.forget();
                }
                queue.push(call, News::Message { message, last: false });
            }
            Some(Err(status)) => return queue.push(call, News::End(status)),
            None => return queue.push(call, News::End(Status::new(0, ""))),
        }
    }
}

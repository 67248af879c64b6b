//! The calls as the loop's side knows them, so that it can answer at once: which are alive, how much of them is unsent,
//! and which were slow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use rustc_hash::FxHashMap;

use super::calls::slot_index;
use super::dials::{dialled_id, is_dialled};
use super::queues::Backlog;

/// What the loop's side knows of the call that last had a slot.
#[derive(Default)]
pub struct Known {
    /// 0 once the call is over.
    pub id: u64,
    pub backlog: Option<Arc<Backlog>>,
    /// Its messages are raw bytes, not gRPC's.
    pub plain: bool,
    /// Of a unary call: when it came, and the event that told Python of it.
    pub arrived: Option<Instant>,
    pub event: Option<Py<PyAny>>,
}

/// The calls Python has heard of and not yet finished.
#[derive(Default)]
pub struct KnownCalls {
    slots: Vec<Known>,
    dialled: FxHashMap<u64, Known>,
    dials: u64,
}

impl KnownCalls {
    /// The id of the next call we dial.
    pub fn next_dial(&mut self) -> u64 {
        self.dials += 1;
        dialled_id(self.dials)
    }

    pub fn enter(&mut self, known: Known) {
        if is_dialled(known.id) {
            self.dialled.insert(known.id, known);
            return;
        }
        let slot = slot_index(known.id);
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, Known::default);
        }
        self.slots[slot] = known;
    }

    pub fn find(&self, id: u64) -> Option<&Known> {
        if is_dialled(id) {
            return self.dialled.get(&id);
        }
        self.slots.get(slot_index(id)).filter(|known| known.id == id)
    }

    /// The call is over. None when it was over before.
    pub fn leave(&mut self, id: u64) -> Option<Known> {
        if is_dialled(id) {
            return self.dialled.remove(&id);
        }
        self.slots.get_mut(slot_index(id)).filter(|known| known.id == id).map(std::mem::take)
    }
}

/// A slow unary call: its event, its place among those that end with it, and the seconds since it came.
pub type Slow = (Py<PyAny>, usize, f64);

/// Finds the slow ones among calls that end together.
pub struct SlowClock {
    limit: Option<Duration>,
    now: Instant,
    pub at: usize,
    pub slow: Vec<Slow>,
}

impl SlowClock {
    pub fn new(limit: Option<Duration>) -> Self {
        Self { limit, now: Instant::now(), at: 0, slow: Vec::new() }
    }

    pub fn look(&mut self, call: Known) {
        if let (Some(limit), Some(arrived), Some(event)) = (self.limit, call.arrived, call.event) {
            let took = self.now.saturating_duration_since(arrived);
            if took > limit {
                self.slow.push((event, self.at, took.as_secs_f64()));
            }
        }
    }
}

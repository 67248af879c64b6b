//! The wire's thread: one tokio runtime that does nothing but sockets, TLS and HTTP.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::accept;
use super::calls::{Methods, Wire};
use super::counts::Counts;
use super::limits::Limits;
use super::queues::{Command, Queues};
use super::turn;

/// Start the thread. It ends with a Shutdown command.
pub fn spawn(
    queues: Arc<Queues>,
    limits: Limits,
    methods: Methods,
    counts: Arc<Counts>,
    streamed_paths: Vec<String>,
) -> std::io::Result<JoinHandle<()>> {
    let parked = queues.clone();
    let mut builder = Builder::new_current_thread();
    builder.enable_all().on_thread_park(move || {
        turn::over();
        parked.ring_if_news();
    });
    std::thread::Builder::new().name("pyetcd-wire".into()).spawn(move || {
        let runtime = builder.build_local(LocalOptions::default()).expect("the kernel grants an epoll descriptor");
        let wire = Wire::new(queues, limits, methods, counts, streamed_paths);
        runtime.block_on(run(&wire));
        // This drops every connection, and with it every call. A name that is still being looked up is not waited for.
        runtime.shutdown_background();
        wire.queues.ring_if_news();
    })
}

/// Carry out commands until the shutdown is over.
async fn run(wire: &Rc<Wire>) {
    let doors: RefCell<Vec<AbortHandle>> = RefCell::default();
    let close_doors = || doors.borrow_mut().drain(..).for_each(|door| door.abort());
    let mut grace: Option<Duration> = None;
    let work = poll_fn(|cx| {
        wire.queues.pump.register(cx.waker());
        wire.wake_waiting();
        for command in wire.queues.take_commands() {
            match wire.run(command) {
                None => {}
                Some(Command::Open(door)) => {
                    let task = tokio::task::spawn_local(accept::serve(wire.clone(), door));
                    doors.borrow_mut().push(task.abort_handle());
                }
                Some(Command::StopAccepting) => close_doors(),
                Some(Command::Shutdown { grace: seconds }) => grace = Some(seconds),
                Some(_) => unreachable!("run() carries out every other command"),
            }
        }
        grace.map_or(Poll::Pending, Poll::Ready)
    });
    let grace = work.await;
    close_doors();
    wire.stop_all();
    let emptied = poll_fn(|cx| {
        wire.queues.pump.register(cx.waker());
        for command in wire.queues.take_commands() {
            wire.run(command);
        }
        if wire.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    });
    // Past the grace, whoever is left is cut off.
    let _ = timeout(grace, emptied).await;
}

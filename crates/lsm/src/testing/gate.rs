//! Crash points that stop a call for a while, or for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use parking_lot::Mutex;
use vexlake_manifest::CrashPoint;

/// A named point at which one call stops until the test lets it go on.
pub struct Gate {
    reached: Receiver<()>,
    go: Sender<()>,
}

impl Gate {
    /// Stops the first call that passes `point`.
    pub fn at(point: &'static str) -> (CrashPoint, Gate) {
        Self::at_nth(point, 1)
    }

    /// Stops the `nth` call (from 1) that passes `point`.
    pub fn at_nth(point: &'static str, nth: u64) -> (CrashPoint, Gate) {
        let passages = AtomicU64::new(0);
        let (reached_in, reached) = channel();
        let (go, go_out) = channel();
        let ends = Mutex::new(Some((reached_in, go_out)));
        let hook = move |passed: &str| {
            let here = passed == point && passages.fetch_add(1, Ordering::SeqCst) + 1 == nth;
            let ends = if here { ends.lock().take() } else { None };
            let Some((reached, go)) = ends else { return };
            let _ = reached.send(());
            let _ = tokio::task::block_in_place(|| go.recv_timeout(GATE_PATIENCE));
        };
        (Arc::new(hook), Gate { reached, go })
    }

    /// Waits until the call stands at the point.
    pub fn wait(&self) {
        tokio::task::block_in_place(|| self.reached.recv_timeout(GATE_PATIENCE))
            .expect("the point is reached");
    }

    /// Lets the call go on.
    pub fn open(self) {
        self.go.send(()).expect("a call stands at the point");
    }
}

/// Longer than any machine needs; a test that waits this long has failed.
const GATE_PATIENCE: Duration = Duration::from_secs(60);

/// Panics at the `nth` passage (from 1) of a point, like a process that dies there.
pub fn crash_at(point: &'static str, nth: u64) -> CrashPoint {
    let passed = AtomicU64::new(0);
    Arc::new(move |name| {
        if name == point && passed.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            panic!("crash at {point}");
        }
    })
}

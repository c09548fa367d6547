//! The CPU pools: one for searches, one at lower priority for flush builds and merges.
//!
//! A merge so never queues before a search, and where both want a core, the search gets
//! most of it. Who waits for background work gives its own tokio thread's place to another
//! meanwhile; reads that a merge waits for run on the tokio runtime, their decoding in the
//! pool.
//!
//! Limits: [`BACKGROUND_THREADS_MAX`] threads work in the background, whatever is asked of
//! them at once; the rest queues. Merges come in batches, so a flush waits for one batch
//! at most.

use std::sync::Arc;

use crate::error::{Error, Result};

/// Threads in the background: half of the cores, but two, so that a flush and a merge go on
/// side by side, and at most four: an ingest at 100 MiB/s keeps one busy, and merges that
/// rewrite everything four times ([`crate::Policy`]) the others.
const BACKGROUND_THREADS_MAX: usize = 4;
const BACKGROUND_THREADS_MIN: usize = 2;
/// Steps of niceness above the process's own: each is worth a factor of 1.25 of the CPU, so
/// that a searching thread weighs 1.25^10 = 9 background ones, and those still get on.
#[cfg(target_os = "linux")]
const BACKGROUND_NICENESS: i32 = 10;

/// The CPU pools; see the file header.
#[derive(Clone)]
pub struct Pools {
    /// Threads that scan.
    pub search: Arc<rayon::ThreadPool>,
    background: Arc<rayon::ThreadPool>,
}

impl Pools {
    /// Pools; `search_threads` 0 = one a core.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn new(search_threads: usize) -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = (cores / 2).clamp(BACKGROUND_THREADS_MIN, BACKGROUND_THREADS_MAX);
        let search = rayon::ThreadPoolBuilder::new()
            .num_threads(search_threads)
            .thread_name(|index| format!("vexlake-search-{index}"));
        let background = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("vexlake-back-{index}"))
            .start_handler(|_| lower_priority());
        let failed = |error| Error::Internal(format!("CPU pools: {error}"));
        Ok(Self {
            search: Arc::new(search.build().map_err(failed)?),
            background: Arc::new(background.build().map_err(failed)?),
        })
    }

    /// Threads that work that splits itself may use in the background.
    pub fn background_threads(&self) -> usize {
        self.background.current_num_threads()
    }

    /// Runs `work` in the background pool and waits for it; a panic comes back to here.
    pub fn in_background<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        tokio::task::block_in_place(|| self.background.install(work))
    }
}

/// On Linux niceness is a thread's own. Refused, the work runs at the usual priority.
#[cfg(target_os = "linux")]
fn lower_priority() {
    let _ = rustix::process::nice(BACKGROUND_NICENESS);
}

/// Elsewhere it is the whole process's, searches included.
#[cfg(not(target_os = "linux"))]
fn lower_priority() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::testing::run;

    fn niceness() -> i32 {
        rustix::process::getpriority_process(None).expect("our own thread")
    }

    #[test]
    fn should_run_background_work_below_searches() {
        run(async {
            let pools = Pools::new(1).expect("threads");
            let own = niceness();
            assert_eq!(pools.search.install(niceness), own);
            let expected = (own + BACKGROUND_NICENESS).min(19);
            assert_eq!(pools.in_background(niceness), expected);
            assert_eq!(niceness(), own);
        });
    }

    #[test]
    fn should_wait_for_reads_and_go_on_after_a_panic_in_the_background() {
        run(async {
            let pools = Pools::new(1).expect("threads");
            let runtime = tokio::runtime::Handle::current();
            for _ in 0..2 * BACKGROUND_THREADS_MAX {
                let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    pools.in_background(|| panic!("on purpose"));
                }));
                assert!(panicked.is_err());
                let task = || runtime.block_on(async { tokio::spawn(async { 7 }).await });
                assert_eq!(pools.in_background(task).expect("joined"), 7);
            }
        });
    }
}

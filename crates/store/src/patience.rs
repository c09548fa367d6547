//! How long to keep trying, and how to wait in between: full jitter over an
//! exponentially growing window ("Exponential Backoff And Jitter", AWS
//! Architecture Blog, 2015), so that losers of one race do not meet again.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::StoreError;
use crate::usage::Counters;

/// 8 tries wait at most 50·(1+2+4+8+16+32+64) ms = 6.4 s, half of that on average:
/// longer than a leader election of a compatible server, shorter than a person waits.
const ATTEMPTS_MAX: u32 = 8;
const WAIT_FIRST: Duration = Duration::from_millis(50);
const WAIT_MAX: Duration = Duration::from_secs(5);
/// No retry starts later than this. One attempt may take `s3::REQUEST_TIMEOUT` (60 s)
/// by itself, so the worst whole request takes 120 s.
const DEADLINE: Duration = Duration::from_secs(60);

/// Limits of the retries of one request.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Attempts in all, the first included.
    pub attempts_max: u32,
    /// The first wait is drawn from zero to this; each later window is twice as wide.
    pub wait_first: Duration,
    /// No window is wider than this.
    pub wait_max: Duration,
    /// No attempt starts later than this after the first.
    pub deadline: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            attempts_max: ATTEMPTS_MAX,
            wait_first: WAIT_FIRST,
            wait_max: WAIT_MAX,
            deadline: DEADLINE,
        }
    }
}

impl Patience {
    /// Waits of microseconds, for stores whose faults are scripted.
    pub fn quick() -> Self {
        let wait = Duration::from_micros(100);
        Self {
            wait_first: wait,
            wait_max: wait,
            ..Self::default()
        }
    }

    /// The wait before attempt `attempt` + 1, drawn anew at each call.
    pub fn wait(&self, attempt: u32) -> Duration {
        let window = self
            .wait_first
            .saturating_mul(1 << attempt.min(16))
            .min(self.wait_max);
        window.mul_f64(random_fraction())
    }
}

/// Runs `attempt` until it succeeds, fails for good, or patience ends. Only for
/// requests whose repetition changes nothing.
pub(crate) async fn retry<T, F, Fut>(
    patience: &Patience,
    counters: &Counters,
    mut attempt: F,
) -> Result<T, StoreError>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, StoreError>>,
{
    let started = Instant::now();
    let mut tries = 0;
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if !error.is_not_found() {
            counters.error();
        }
        let wait = patience.wait(tries);
        tries += 1;
        if !error.retriable
            || tries >= patience.attempts_max
            || started.elapsed() + wait > patience.deadline
        {
            return Err(error);
        }
        sleep(wait).await;
        counters.retry();
    }
}

/// Uniform in [0, 1). Jitter needs no seed: nothing but waiting depends on it. A
/// machine without randomness waits half the window.
fn random_fraction() -> f64 {
    let bits = getrandom::u32().unwrap_or(u32::MAX / 2);
    f64::from(bits) / (f64::from(u32::MAX) + 1.0)
}

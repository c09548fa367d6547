//! How fast this machine reads memory: the ceiling that a scan is judged by.
//!
//! Every thread sums its own part of one buffer with the widest loads, in
//! several passes; the best pass counts, because whatever disturbs a pass only
//! makes it slower.

use crate::kernels::kernels;
use std::sync::Barrier;
use std::time::Instant;

/// Passes measured; the first one also faults the pages in.
const PASSES: usize = 5;

/// Streams `bytes` of memory with `threads` threads and answers the rate in GB/s
/// (10⁹ bytes per second) of the best pass. Allocates `bytes`; choose several
/// times the last-level cache to measure memory rather than the cache.
pub fn read_bandwidth(bytes: usize, threads: usize) -> f64 {
    let threads = threads.max(1);
    let floats_each = (bytes / size_of::<f32>() / threads).max(1);
    // Ones, not zeros: zero pages may all be one physical page.
    let buffer = vec![1.0f32; floats_each * threads];
    let start = Barrier::new(threads + 1);
    let end = Barrier::new(threads + 1);
    let sum = kernels().sum;
    let mut seconds_best = f64::INFINITY;
    std::thread::scope(|scope| {
        for part in buffer.chunks_exact(floats_each) {
            let (start, end) = (&start, &end);
            scope.spawn(move || {
                for _ in 0..PASSES {
                    start.wait();
                    std::hint::black_box(sum(std::hint::black_box(part)));
                    end.wait();
                }
            });
        }
        for _ in 0..PASSES {
            start.wait();
            let began = Instant::now();
            end.wait();
            seconds_best = seconds_best.min(began.elapsed().as_secs_f64());
        }
    });
    std::mem::size_of_val(&buffer[..]) as f64 / seconds_best.max(1e-9) / 1e9
}

#[cfg(test)]
mod tests {
    use super::read_bandwidth;

    #[test]
    fn should_measure_a_positive_rate_for_any_size_and_thread_count() {
        for (bytes, threads) in [(0, 0), (4, 3), (1 << 20, 1), (1 << 20, 2)] {
            let rate = read_bandwidth(bytes, threads);
            assert!(
                rate.is_finite() && rate > 0.0,
                "{bytes} bytes, {threads} threads: {rate}"
            );
        }
    }
}

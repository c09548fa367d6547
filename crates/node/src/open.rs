//! Opening a lake: options, crash points, what the machine offers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use vexlake_lsm::{Lake, LakeOptions};
use vexlake_manifest::{Author, Context, system_clock};
use vexlake_store::StoreConfig;

use crate::error::{Result, invalid, parse};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OpenOptions {
    store: StoreConfig,
    role: String,
    instance: String,
    spool_dir: PathBuf,
    /// Bytes of exact vectors and index pages kept in RAM.
    #[serde(default = "default_cache_bytes")]
    cache_bytes: usize,
    /// `<point>:<n>`: SIGKILL ourselves the n-th time the point is passed.
    #[serde(default)]
    crash_at: Option<String>,
    #[serde(default)]
    search_threads: usize,
    /// Share of searches through lists that are compared with exact ones, 0 to 1.
    #[serde(default)]
    recall_sample_ratio: f64,
    /// Bytes of new segments that are read before searches see them.
    #[serde(default)]
    warm_bytes: u64,
}

/// 1 GiB: two million 128-d vectors.
fn default_cache_bytes() -> usize {
    1 << 30
}

pub async fn open(options: &str) -> Result<Arc<Lake>> {
    let options: OpenOptions = parse("open", options)?;
    let mut components = Context::new(system_clock());
    if let Some(at) = &options.crash_at {
        components.crash = crash_at(at)?;
    }
    let options = LakeOptions {
        store: options.store,
        author: Author {
            role: options.role,
            instance: options.instance,
        },
        spool: options.spool_dir,
        cache_bytes: options.cache_bytes,
        components,
        search_threads: options.search_threads,
        recall_sample_ratio: options.recall_sample_ratio,
        warm_bytes: options.warm_bytes,
    };
    Ok(Lake::open(options).await?)
}

fn crash_at(at: &str) -> Result<vexlake_manifest::CrashPoint> {
    let parsed = at
        .rsplit_once(':')
        .and_then(|(point, n)| Some((point.to_owned(), n.parse::<u64>().ok()?)));
    let (point, nth) =
        parsed.ok_or_else(|| invalid(format!("crashAt is {at:?}, expected <point>:<n>")))?;
    let passed: Mutex<HashMap<String, u64>> = Mutex::default();
    Ok(Arc::new(move |here| {
        let mut passed = passed.lock();
        let count = passed.entry(here.to_owned()).or_default();
        *count += 1;
        if here == point && *count == nth {
            // A crash test asked for exactly this: no destructor, no flush, no goodbye.
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
    }))
}

#[derive(Serialize)]
pub struct Doctor {
    kernels: &'static str,
    version: &'static str,
    format: u32,
    debug: bool,
}

pub fn doctor() -> Doctor {
    Doctor {
        kernels: vexlake_distance::kernels().name,
        version: env!("CARGO_PKG_VERSION"),
        format: vexlake_lsm::FORMAT,
        debug: cfg!(debug_assertions),
    }
}

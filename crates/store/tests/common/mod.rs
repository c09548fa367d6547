//! The implementations that every contract test runs against: always a directory, and
//! S3 where `VEXLAKE_TEST_S3_ENDPOINT` names a server (with `_BUCKET`, `_ACCESS_KEY`,
//! `_SECRET_KEY`); its absence is said aloud.

#![allow(clippy::unwrap_used)] // a test's panic is its verdict
#![allow(dead_code)] // each test binary uses its part

use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use vexlake_store::{Store, StoreConfig};

/// A store to test, and what must live as long as it.
pub struct Subject {
    pub name: &'static str,
    pub store: Store,
    _directory: Option<TempDir>,
}

pub fn directory() -> Subject {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::directory(directory.path()).unwrap();
    Subject {
        name: "directory",
        store,
        _directory: Some(directory),
    }
}

/// The configuration of the S3 server under test, below a fresh prefix.
pub fn s3_config() -> Option<StoreConfig> {
    let read = |name: &str| std::env::var(format!("VEXLAKE_TEST_S3_{name}")).ok();
    let endpoint = read("ENDPOINT")?;
    let bucket = read("BUCKET").unwrap_or_else(|| "vexlake-test".into());
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    let url = format!("s3://{bucket}/contract/{nanos:x}-{:x}", std::process::id());
    let config = StoreConfig::at(url);
    Some(StoreConfig {
        endpoint: Some(endpoint),
        access_key: read("ACCESS_KEY"),
        secret_key: read("SECRET_KEY"),
        ..config
    })
}

pub async fn subjects() -> Vec<Subject> {
    let mut subjects = vec![directory()];
    match s3_config() {
        Some(config) => {
            let store = Store::open(&config).await.unwrap();
            subjects.push(Subject {
                name: "s3",
                store,
                _directory: None,
            });
        }
        None => eprintln!("SKIPPED on s3: VEXLAKE_TEST_S3_ENDPOINT is not set"),
    }
    subjects
}

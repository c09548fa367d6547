//! A local directory as an object store, durable and safe between processes.
//!
//! - **create**: write a temporary file, sync it, hard-link it to its name (the link
//!   fails if the name exists: that is the create-only step), unlink the temporary
//!   file, sync the directory. A loser syncs the directory too before it answers
//!   `Exists`, so that nothing is ever built on a name that a power cut could undo.
//! - **swap**: under an exclusive `flock`, read and compare, write a temporary file,
//!   sync, rename over the name, sync the directory. The locks are 256 files in
//!   `.locks` at the root, chosen by a hash of the key, and never removed: removing
//!   one would let two holders exist.
//! - **put**: temporary file, sync, rename, sync the directory.
//! - **delete**: unlink, sync, and remove the directories that this empties. A writer
//!   that finds its directory gone in between makes it anew and tries again.
//!
//! Temporary files live in `.tmp` at the root, so one file system holds both ends of
//! a link. What a crash leaves there is removed a day later by whoever opens the
//! store; a writer slower than that fails loudly at its link, it loses nothing.
//!
//! `object_store`'s own local backend does not sync (0.13.2) and has no swap, which
//! is why this exists. Network file systems without `flock` fail the start-up probe.

mod place;

use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use self::place::{Place, ensure_directory, tag};
use crate::StoreError;
use crate::store::{Backend, Created, Listed, Swapped, Tag};

const TEMPORARY: &str = ".tmp";
const LOCKS: &str = ".locks";
/// A day: far longer than any write takes, short enough that a crash loop of 64 MiB
/// flushes every 10 s cannot hide more than 600 GB.
const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
pub(crate) struct Directory {
    root: PathBuf,
}

impl Directory {
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let shown = path.display().to_string();
        let temporary = path.join(TEMPORARY);
        for directory in [&temporary, &path.join(LOCKS)] {
            ensure_directory(directory)
                .map_err(|e| StoreError::io(&shown, "create the store's directory", e))?;
        }
        let root = fs::canonicalize(path)
            .map_err(|e| StoreError::io(&shown, "resolve the store's directory", e))?;
        sweep_temporary(&temporary);
        Ok(Self { root })
    }

    fn path(&self, key: &str) -> PathBuf {
        self.root.join(key)
    }

    /// Runs file work where it may block.
    async fn blocking<T, F>(&self, key: &str, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Place) -> Result<T, StoreError> + Send + 'static,
    {
        let place = Place {
            root: self.root.clone(),
            key: key.to_owned(),
            path: self.path(key),
        };
        let joined = tokio::task::spawn_blocking(move || work(&place)).await;
        // The task neither panics by design nor is it cancelled while the runtime lives.
        joined.unwrap_or_else(|e| {
            Err(StoreError::unavailable(key, format!("file task ended: {e}")).with_doubt(true))
        })
    }
}

#[async_trait]
impl Backend for Directory {
    fn describe(&self) -> String {
        self.root.display().to_string()
    }

    fn ranges_per_call(&self) -> usize {
        usize::MAX
    }

    fn local_path(&self, key: &str) -> Option<PathBuf> {
        Some(self.path(key))
    }

    async fn get(&self, key: &str) -> Result<(Bytes, Tag), StoreError> {
        self.blocking(key, |place| {
            let body = fs::read(&place.path).map_err(|e| place.read_error("read", e))?;
            let tag = tag(&body);
            Ok((body.into(), tag))
        })
        .await
    }

    async fn ranges(&self, key: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>, StoreError> {
        let ranges = ranges.to_vec();
        self.blocking(key, move |place| {
            let file = File::open(&place.path).map_err(|e| place.read_error("open", e))?;
            ranges
                .iter()
                .map(|range| place.read_range(&file, range))
                .collect()
        })
        .await
    }

    async fn size(&self, key: &str) -> Result<u64, StoreError> {
        self.blocking(key, |place| {
            let found = fs::metadata(&place.path).map_err(|e| place.read_error("stat", e))?;
            if found.is_file() {
                Ok(found.len())
            } else {
                Err(StoreError::not_found(&place.key))
            }
        })
        .await
    }

    async fn create(&self, key: &str, body: Bytes) -> Result<Created, StoreError> {
        self.blocking(key, move |place| place.create(&body)).await
    }

    async fn swap(
        &self,
        key: &str,
        expected: Option<&Tag>,
        body: Bytes,
    ) -> Result<Swapped, StoreError> {
        let expected = expected.cloned();
        self.blocking(key, move |place| place.swap(expected.as_ref(), &body))
            .await
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.blocking(key, move |place| {
            let temporary = place.write_temporary(&body)?;
            place.publish(temporary)
        })
        .await
    }

    async fn put_file(&self, key: &str, path: &Path) -> Result<(), StoreError> {
        let source = path.to_owned();
        self.blocking(key, move |place| {
            let temporary = place.adopt_file(&source)?;
            place.publish(temporary)
        })
        .await
    }

    async fn delete(&self, key: &str) -> Result<(), StoreError> {
        self.blocking(key, |place| {
            fs::remove_file(&place.path).map_err(|e| place.read_error("delete", e))?;
            place.sync_parent()?;
            place.remove_empty_directories();
            Ok(())
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, StoreError> {
        let prefix = prefix.to_owned();
        self.blocking(&prefix.clone(), move |place| {
            let mut listed = Vec::new();
            let mut left = vec![prefix];
            while let Some(directory) = left.pop() {
                place.list_one(&directory, &mut listed, &mut left)?;
            }
            Ok(listed)
        })
        .await
    }
}

/// Best effort: nothing depends on it but disk space.
fn sweep_temporary(directory: &Path) {
    let Ok(entries) = fs::read_dir(directory) else {
        return;
    };
    for entry in entries.flatten() {
        let age = entry
            .metadata()
            .and_then(|found| found.modified())
            .ok()
            .and_then(|at| at.elapsed().ok());
        if age.is_some_and(|age| age > TEMPORARY_AGE_MAX) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

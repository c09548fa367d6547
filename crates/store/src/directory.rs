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

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use ulid::Ulid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use crate::key;
use crate::store::{Backend, Created, Listed, Swapped, Tag};
use crate::{Patience, StoreError, StoreErrorKind};

const TEMPORARY: &str = ".tmp";
const LOCKS: &str = ".locks";
/// Times a writer makes a directory anew that a concurrent delete removed.
const PLACEMENTS_MAX: usize = 16;
/// A day: far longer than any write takes, short enough that a crash loop of 64 MiB
/// flushes every 10 s cannot hide more than 600 GB.
const TEMPORARY_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// A swap holds its lock for one write and two syncs, ~5 ms, up to seconds on a
/// drowning disk. Waiting longer means a stopped holder: say so rather than hang.
const LOCK_WAIT: Patience = Patience {
    attempts_max: 4_000,
    wait_first: Duration::from_millis(1),
    wait_max: Duration::from_millis(10),
    deadline: Duration::from_secs(10),
};
/// A directory read in one listing: 2 M entries of ~100 bytes take 200 MB.
const LISTED_MAX: usize = 2_000_000;

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

/// One key and where it lies; the blocking half.
struct Place {
    root: PathBuf,
    key: String,
    path: PathBuf,
}

/// A finished temporary file; removed when dropped, unless it was renamed away.
struct Temporary {
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Best effort: what stays is swept a day later.
        let _ = fs::remove_file(&self.path);
    }
}

impl Place {
    fn create(&self, body: &[u8]) -> Result<Created, StoreError> {
        // Looking first costs microseconds and spares the usual loser two syncs.
        if self.path.exists() {
            self.sync_parent()?;
            return Ok(Created::Exists);
        }
        let temporary = self.write_temporary(body)?;
        self.link(&temporary)
    }

    fn link(&self, temporary: &Temporary) -> Result<Created, StoreError> {
        let created = match self.placed(|| fs::hard_link(&temporary.path, &self.path)) {
            Ok(()) => Created::Created,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Created::Exists,
            Err(e) => return Err(self.error("link", e)),
        };
        self.sync_parent().map_err(|e| e.with_doubt(true))?;
        Ok(created)
    }

    fn swap(&self, expected: Option<&Tag>, body: &[u8]) -> Result<Swapped, StoreError> {
        // Released when dropped, on every path out of here.
        let _lock = self.lock()?;
        let current = match fs::read(&self.path) {
            Ok(current) => Some(tag(&current)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(self.error("read", e)),
        };
        if current.as_ref() != expected {
            self.sync_parent()?;
            return Ok(Swapped::Lost);
        }
        let temporary = self.write_temporary(body)?;
        if expected.is_none() {
            // A link, not a rename: `create` takes no lock and may have come first.
            let created = self.link(&temporary)?;
            return Ok(if created == Created::Created {
                Swapped::Swapped(tag(body))
            } else {
                Swapped::Lost
            });
        }
        self.publish(temporary)?;
        Ok(Swapped::Swapped(tag(body)))
    }

    fn lock(&self) -> Result<File, StoreError> {
        let stripe = xxh3_64(self.key.as_bytes()) as u8;
        let path = self.root.join(LOCKS).join(format!("{stripe:02x}"));
        let open = || {
            File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
        };
        let file = open().map_err(|e| self.error("open the lock file", e))?;
        let mut waited = Duration::ZERO;
        for attempt in 0..LOCK_WAIT.attempts_max {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::Error(e)) => return Err(self.error("lock", e)),
                Err(TryLockError::WouldBlock) => {}
            }
            if waited > LOCK_WAIT.deadline {
                break;
            }
            let wait = LOCK_WAIT.wait(attempt).max(Duration::from_micros(100));
            std::thread::sleep(wait);
            waited += wait;
        }
        let message = format!(
            "lock {} held by another process for {waited:?}",
            path.display()
        );
        Err(StoreError::unavailable(&self.key, message))
    }

    /// Writes and syncs a temporary file.
    fn write_temporary(&self, body: &[u8]) -> Result<Temporary, StoreError> {
        let temporary = self.temporary();
        let mut file = File::create_new(&temporary.path)
            .map_err(|e| self.error("create a temporary file", e))?;
        file.write_all(body).map_err(|e| self.error("write", e))?;
        file.sync_all().map_err(|e| self.error("sync", e))?;
        Ok(temporary)
    }

    /// A synced temporary name for a finished file: a second link to it, or a copy
    /// where it lies on another file system.
    fn adopt_file(&self, source: &Path) -> Result<Temporary, StoreError> {
        let temporary = self.temporary();
        let mut from = File::open(source).map_err(|e| self.error("open the finished file", e))?;
        from.sync_all()
            .map_err(|e| self.error("sync the finished file", e))?;
        match fs::hard_link(source, &temporary.path) {
            Ok(()) => return Ok(temporary),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::CrossesDevices | io::ErrorKind::Unsupported
                ) => {}
            // Link limits and rules against linking others' files: a copy serves as well.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::TooManyLinks | io::ErrorKind::PermissionDenied
                ) => {}
            Err(e) => return Err(self.error("link the finished file", e)),
        }
        let mut to = File::create_new(&temporary.path)
            .map_err(|e| self.error("create a temporary file", e))?;
        io::copy(&mut from, &mut to).map_err(|e| self.error("copy the finished file", e))?;
        to.sync_all().map_err(|e| self.error("sync", e))?;
        Ok(temporary)
    }

    fn temporary(&self) -> Temporary {
        Temporary {
            path: self.root.join(TEMPORARY).join(unique_name()),
        }
    }

    /// Renames a finished temporary file over the name. After the rename the outcome
    /// is open until the directory is synced.
    fn publish(&self, temporary: Temporary) -> Result<(), StoreError> {
        // Renaming a second link of the same file over its first does nothing and
        // leaves the temporary name, which the drop then removes.
        let renamed = self.placed(|| fs::rename(&temporary.path, &self.path));
        renamed.map_err(|e| self.error("rename", e))?;
        self.sync_parent().map_err(|e| e.with_doubt(true))
    }

    fn read_range(&self, file: &File, range: &Range<u64>) -> Result<Bytes, StoreError> {
        // The allocation is bounded by the file, not by what the caller asked for.
        let length = file.metadata().map_err(|e| self.error("stat", e))?.len();
        if range.end > length {
            let message = format!("asked for bytes {}..{} of {length}", range.start, range.end);
            return Err(StoreError::corrupt(&self.key, message));
        }
        let mut body = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut body, range.start)
            .map_err(|e| self.error("read", e))?;
        Ok(body.into())
    }

    fn list_one(
        &self,
        directory: &str,
        listed: &mut Vec<Listed>,
        left: &mut Vec<String>,
    ) -> Result<(), StoreError> {
        let entries = match fs::read_dir(self.root.join(directory)) {
            Ok(entries) => entries,
            // Gone meanwhile, never there, or a file whose name was taken for a prefix.
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(());
            }
            Err(e) => return Err(self.error("list", e)),
        };
        for entry in entries {
            let entry = entry.map_err(|e| self.error("list", e))?;
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
                continue;
            };
            let below = key::join(directory, name);
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if found.is_dir() {
                left.push(below);
            } else if listed.len() >= LISTED_MAX {
                return Err(StoreError::refused(
                    &self.key,
                    format!("more than {LISTED_MAX} objects below this prefix"),
                ));
            } else {
                listed.push(Listed {
                    key: below,
                    size: found.len(),
                });
            }
        }
        Ok(())
    }

    /// Links or renames into the key's directory, making the directory where it is missing.
    fn placed(&self, place: impl Fn() -> io::Result<()>) -> io::Result<()> {
        for _ in 0..PLACEMENTS_MAX {
            match place() {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                outcome => return outcome,
            }
            if let Some(parent) = self.path.parent() {
                ensure_directory(parent)?;
            }
        }
        place()
    }

    /// Best effort: `remove_dir` refuses a directory that holds anything.
    fn remove_empty_directories(&self) {
        let above = self
            .path
            .ancestors()
            .skip(1)
            .take_while(|path| *path != self.root);
        for directory in above {
            if fs::remove_dir(directory).is_err() {
                break;
            }
        }
    }

    fn sync_parent(&self) -> Result<(), StoreError> {
        let Some(parent) = self.path.parent() else {
            return Ok(());
        };
        match sync_directory(parent) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(self.error("sync the directory", e))
            }
            _ => Ok(()),
        }
    }

    /// Of a step on the object itself: a missing file is a missing object.
    fn read_error(&self, what: &str, error: io::Error) -> StoreError {
        StoreError::io(&self.key, what, error)
    }

    /// Of any other step: a missing file is a broken store, never a missing object.
    fn error(&self, what: &str, error: io::Error) -> StoreError {
        let made = StoreError::io(&self.key, what, error);
        if made.is_not_found() {
            StoreError {
                kind: StoreErrorKind::Unavailable,
                ..made
            }
        } else {
            made
        }
    }
}

/// Creates a directory and those above it, each synced into its parent, so that a
/// durable object never lies below a directory that is not. Another process may be
/// between making a directory and syncing it while we write below: journaling file
/// systems commit in order, so our own sync then covers its directory as well.
fn ensure_directory(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let mut made = Ok(());
    for _ in 0..PLACEMENTS_MAX {
        if let Some(parent) = parent {
            ensure_directory(parent)?;
        }
        made = fs::create_dir(path);
        match &made {
            // A delete took the parent away again.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            _ => break,
        }
    }
    match made {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        _ => match sync_directory(parent.unwrap_or(Path::new("."))) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        },
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
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

fn tag(body: &[u8]) -> Tag {
    Tag(format!("{:032x}", xxh3_128(body)))
}

/// Unique among all processes: 128 random bits, or a counter of this process where
/// the machine has no randomness; `create_new` fails on a collision in any case.
fn unique_name() -> String {
    let mut bits = [0u8; 16];
    match getrandom::fill(&mut bits) {
        Ok(()) => Ulid::from(u128::from_ne_bytes(bits)).to_string(),
        Err(_) => {
            use std::sync::atomic::{AtomicU64, Ordering};
            static NEXT: AtomicU64 = AtomicU64::new(0);
            format!(
                "{}-{}",
                std::process::id(),
                NEXT.fetch_add(1, Ordering::Relaxed)
            )
        }
    }
}

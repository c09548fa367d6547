//! The blocking half of the directory backend: one key, and the file steps on it. See
//! the parent for the order of the steps and why.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use ulid::Ulid;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::{LOCKS, TEMPORARY};
use crate::key;
use crate::store::{Created, Listed, Swapped, Tag};
use crate::{Patience, StoreError, StoreErrorKind};

/// Times a writer makes a directory anew that a concurrent delete removed.
const PLACEMENTS_MAX: usize = 16;
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

/// One key and where it lies; the blocking half.
pub(super) struct Place {
    pub root: PathBuf,
    pub key: String,
    pub path: PathBuf,
}

/// A finished temporary file; removed when dropped, unless it was renamed away.
pub(super) struct Temporary {
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Best effort: what stays is swept a day later.
        let _ = fs::remove_file(&self.path);
    }
}

impl Place {
    pub(super) fn create(&self, body: &[u8]) -> Result<Created, StoreError> {
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
        self.sync_parent().map_err(unsynced)?;
        Ok(created)
    }

    pub(super) fn swap(&self, expected: Option<&Tag>, body: &[u8]) -> Result<Swapped, StoreError> {
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
    pub(super) fn write_temporary(&self, body: &[u8]) -> Result<Temporary, StoreError> {
        let temporary = self.temporary();
        let mut file = File::create_new(&temporary.path)
            .map_err(|e| self.error("create a temporary file", e))?;
        file.write_all(body).map_err(|e| self.error("write", e))?;
        file.sync_all().map_err(|e| self.error("sync", e))?;
        Ok(temporary)
    }

    /// A synced temporary name for a finished file: a second link to it, or a copy
    /// where it lies on another file system.
    pub(super) fn adopt_file(&self, source: &Path) -> Result<Temporary, StoreError> {
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
    pub(super) fn publish(&self, temporary: Temporary) -> Result<(), StoreError> {
        // Renaming a second link of the same file over its first does nothing and
        // leaves the temporary name, which the drop then removes.
        let renamed = self.placed(|| fs::rename(&temporary.path, &self.path));
        renamed.map_err(|e| self.error("rename", e))?;
        self.sync_parent().map_err(unsynced)
    }

    pub(super) fn read_range(&self, file: &File, range: &Range<u64>) -> Result<Bytes, StoreError> {
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

    pub(super) fn list_one(
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
    pub(super) fn remove_empty_directories(&self) {
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

    pub(super) fn sync_parent(&self) -> Result<(), StoreError> {
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
    pub(super) fn read_error(&self, what: &str, error: io::Error) -> StoreError {
        StoreError::io(&self.key, what, error)
    }

    /// Of any other step: a missing file is a broken store, never a missing object.
    pub(super) fn error(&self, what: &str, error: io::Error) -> StoreError {
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

/// The name is there and may not survive a power cut. Refused, not unavailable: a sync
/// that failed once may succeed next time without having written anything.
fn unsynced(error: StoreError) -> StoreError {
    StoreError {
        kind: StoreErrorKind::Refused,
        retriable: false,
        doubt: true,
        ..error
    }
}

/// Creates a directory and those above it, each synced into its parent, so that a
/// durable object never lies below a directory that is not. Another process may be
/// between making a directory and syncing it while we write below: journaling file
/// systems commit in order, so our own sync then covers its directory as well.
pub(super) fn ensure_directory(path: &Path) -> io::Result<()> {
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

pub(super) fn tag(body: &[u8]) -> Tag {
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

//! The JSON inside the frames. Deltas stay raw text on the way through: a committer
//! carries on what others wrote byte for byte, and parses only what it must apply.
//!
//! Fields may be added within a format; readers ignore those they do not know. What an
//! older reader would misread gets a new format number, which it refuses.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use ulid::Ulid;

use crate::state::{Author, CommitSummary, State};
use crate::{ManifestError, u64_str};

/// The format of commits, bases and HEAD that this build reads and writes.
pub(crate) const FORMAT: u32 = 1;
/// Deltas in one commit. At the usual 1–4 KiB each they fit `COMMIT_BYTES_SOFT_MAX`, and
/// a reader that finds a new base replays at most 64.
pub(crate) const DELTAS_MAX: usize = 64;

/// The object a reader starts from.
#[derive(Serialize, Deserialize)]
pub(crate) struct HeadBody {
    pub format: u32,
    /// A version whose slot exists.
    #[serde(with = "u64_str")]
    pub version: u64,
    /// That version's commit id.
    pub id: Ulid,
    /// Slots below are swept or about to be; pinned ones apart, none may be believed.
    #[serde(with = "u64_str")]
    pub retain_from: u64,
    #[serde(with = "u64_str")]
    pub cutoff_ms: u64,
}

/// Where a commit's deltas start from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct BasePointer {
    /// The version that the base's state is of.
    #[serde(with = "u64_str")]
    pub version: u64,
    /// Relative to the manifest.
    pub key: String,
    /// Of the base's JSON line.
    pub crc32c: u32,
    /// Of the base's JSON line.
    #[serde(with = "u64_str")]
    pub bytes: u64,
}

/// A whole state.
#[derive(Serialize, Deserialize)]
pub(crate) struct BaseBody<S> {
    pub format: u32,
    #[serde(with = "u64_str")]
    pub version: u64,
    /// The commit id of that version.
    pub id: Ulid,
    pub state: S,
}

/// A slot as it is read.
#[derive(Deserialize)]
pub(crate) struct CommitBody {
    pub format: u32,
    #[serde(with = "u64_str")]
    pub version: u64,
    pub id: Ulid,
    pub parent: Option<Ulid>,
    pub role: String,
    pub instance: String,
    #[serde(with = "u64_str")]
    pub when_ms: u64,
    pub base: BasePointer,
    /// Versions base.version + 1 ..= version.
    pub deltas: Vec<Box<RawValue>>,
}

/// A slot as it is written; the same fields, borrowed.
#[derive(Serialize)]
pub(crate) struct CommitOut<'a> {
    pub format: u32,
    #[serde(with = "u64_str")]
    pub version: u64,
    pub id: Ulid,
    pub parent: Option<Ulid>,
    pub role: &'a str,
    pub instance: &'a str,
    #[serde(with = "u64_str")]
    pub when_ms: u64,
    pub base: &'a BasePointer,
    pub deltas: Vec<&'a RawValue>,
}

/// One delta with what its own commit said of it.
#[derive(Serialize, Deserialize)]
pub(crate) struct Entry<D> {
    #[serde(with = "u64_str")]
    pub version: u64,
    pub id: Ulid,
    #[serde(with = "u64_str")]
    pub when_ms: u64,
    pub role: String,
    pub instance: String,
    pub delta: D,
}

impl<D> Entry<D> {
    pub(crate) fn summary<S: State<Delta = D>>(self) -> CommitSummary<S> {
        CommitSummary {
            version: self.version,
            id: self.id,
            when_ms: self.when_ms,
            author: Author {
                role: self.role,
                instance: self.instance,
            },
            delta: Some(self.delta),
        }
    }
}

/// A base and the raw deltas since: what makes a commit self-contained.
#[derive(Clone)]
pub(crate) struct Chain {
    pub base: BasePointer,
    pub deltas: Vec<Arc<RawValue>>,
}

impl Chain {
    /// The entry of `version`, which the chain must cover.
    pub(crate) fn entry<D: DeserializeOwned>(
        &self,
        key: &str,
        version: u64,
    ) -> Result<Entry<D>, ManifestError> {
        let index = version
            .checked_sub(self.base.version + 1)
            .and_then(|i| usize::try_from(i).ok());
        let raw = index.and_then(|i| self.deltas.get(i));
        let raw = raw
            .ok_or_else(|| ManifestError::corrupt(key, format!("no delta of version {version}")))?;
        let entry: Entry<D> = serde_json::from_str(raw.get())
            .map_err(|e| ManifestError::corrupt(key, format!("delta of version {version}: {e}")))?;
        if entry.version != version {
            let message = format!(
                "delta of version {} in the place of version {version}",
                entry.version
            );
            return Err(ManifestError::corrupt(key, message));
        }
        Ok(entry)
    }
}

impl From<CommitBody> for Chain {
    fn from(slot: CommitBody) -> Self {
        Self {
            base: slot.base,
            deltas: slot.deltas.into_iter().map(Into::into).collect(),
        }
    }
}

/// A format that this build does not know is not damage, but nothing can be read from it.
pub(crate) fn check_format(key: &str, format: u32) -> Result<(), ManifestError> {
    if format == FORMAT {
        return Ok(());
    }
    let message = format!("format {format}, this build reads format {FORMAT}");
    Err(ManifestError::corrupt(key, message))
}

impl CommitBody {
    /// Checks what one slot can say of itself.
    pub(crate) fn check(&self, key: &str, version: u64) -> Result<(), ManifestError> {
        check_format(key, self.format)?;
        let corrupt = |message: String| Err(ManifestError::corrupt(key, message));
        if self.version != version {
            return corrupt(format!("holds version {}", self.version));
        }
        if self.parent.is_none() != (version == 0) {
            return corrupt(format!("parent is {:?}", self.parent));
        }
        let since = version.checked_sub(self.base.version);
        if since != Some(self.deltas.len() as u64) || self.deltas.len() > DELTAS_MAX {
            return corrupt(format!(
                "{} deltas since base version {}",
                self.deltas.len(),
                self.base.version
            ));
        }
        if self.deltas.is_empty() && version != 0 {
            return corrupt("carries no delta of its own".to_owned());
        }
        Ok(())
    }

    pub(crate) fn author(&self) -> Author {
        Author {
            role: self.role.clone(),
            instance: self.instance.clone(),
        }
    }
}

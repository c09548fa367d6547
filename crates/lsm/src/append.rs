//! Appending a fetched stretch of one partition to a feed.
//!
//! 1. Decode every record of the batch from the fetched buffers, vectors into one
//!    reused arena. What fails gets a reason and a message, and the stream goes on.
//! 2. Look up in the snapshot the keys that the feed does not show, and read the bases of
//!    patches (set-vector, set-attrs). First ahead, then with the feed's turn, when only
//!    what the view has lost or gained since is left to look up.
//! 3. Under the view's lock, in offset order: complete patches, insert, count. Nothing
//!    there can fail or wait.
//! 4. Give codes to the chunks that are full now, without lock or turn.
//!
//! Offsets below the feed's next are skipped, so delivering a stretch twice changes
//! nothing; a gap above it is refused, because something was lost on the way here.
//!
//! A patch becomes a whole record at its own position. Its base must be the newest
//! version of its key *and* lie in the same partition of the same source: only there
//! does the log order the two for every reader alike. The flush looks again whether that
//! still holds at the head.

use std::borrow::Cow;
use std::collections::HashMap;

use vexlake_segment::{Position, key_hash};

use crate::error::{Error, Result};
use crate::feed::{Appender, Applied, View};
use crate::get::Want;
use crate::incarnation::Incarnation;
use crate::memtable::Accepted;
use crate::record::{self, BadRecord, Format, Op, RawRecord, Reason};
use crate::snapshot::{Key, Location};
use crate::state::Fingerprint;

/// What to do about a record that cannot be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnBad {
    /// Report it and go on; the caller dead-letters it, or skips it by configuration.
    Pass,
    /// Stop before it.
    Fail,
}

/// A stretch `[from, to)` of one partition as fetched.
pub struct Batch<'a> {
    /// Source id.
    pub source: u32,
    /// Partition.
    pub partition: u32,
    /// The offset expected first.
    pub from: u64,
    /// One past the last delivered offset.
    pub to: u64,
    /// The fetched buffers.
    pub buffers: &'a [&'a [u8]],
    /// Record entries pointing into the buffers; layout in schemas/records.md.
    pub table: &'a [u8],
    /// Format of records without a `vexlake-format` header; `None` = the collection's.
    pub format: Option<Format>,
    /// What to do about bad records.
    pub on_bad: OnBad,
}

/// A refused record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its offset.
    pub offset: u64,
    /// Why, for machines.
    pub reason: Reason,
    /// Why, for people: names the field and both values.
    pub message: String,
}

/// The answer to a record that carried a `vexlake-write` id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The id.
    pub write: String,
    /// Its offset.
    pub offset: u64,
    /// Whether the key had a live record before.
    pub existed: bool,
    /// Why it was refused.
    pub refused: Option<String>,
}

/// What an append did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// The next offset of the partition.
    pub next: u64,
    /// Records taken.
    pub accepted: u64,
    /// Offsets that held no record.
    pub not_records: u64,
    /// Records refused.
    pub bad: Vec<Refused>,
    /// Answers to waiting writers.
    pub acks: Vec<Ack>,
    /// With [`OnBad::Fail`]: the offset it stopped before.
    pub failed_at: Option<u64>,
    /// Bytes that the feed holds now.
    pub bytes: usize,
}

struct Decoded<'a> {
    offset: u64,
    timestamp: i64,
    raw: RawRecord<'a>,
    record: Result<record::Record<'a>, BadRecord>,
}

/// Times that a batch follows the chain because the snapshot's files were swept: once, and
/// once more for a store that sweeps while we look.
const FOLLOWS_MAX: u32 = 2;

/// What one version of the snapshot holds of a batch's keys.
#[derive(Default)]
struct Held<'a> {
    version: Option<u64>,
    places: HashMap<&'a str, Option<Location>>,
    /// Bases of patches, where there is a live record.
    bases: HashMap<&'a str, Base>,
}

/// The parts of a patch's base that the patch keeps.
struct Base {
    position: Position,
    vector: Vec<f32>,
    attrs: Option<String>,
}

impl Incarnation {
    /// Appends one batch to the feed; see the file header.
    ///
    /// # Errors
    /// `CONFLICT` when the batch begins beyond the feed's next offset, `INVALID` when
    /// the partition is unknown or the table does not fit the buffers; read errors of
    /// the look-ups. Nothing of the batch is taken then.
    pub async fn append(&self, batch: &Batch<'_>) -> Result<Appended> {
        let (partition, from, to) = (batch.partition, batch.from, batch.to);
        if from > to || to > i64::MAX as u64 {
            return Err(Error::Invalid(format!(
                "partition {partition}: batch [{from}, {to}) is no stretch"
            )));
        }
        self.feed.read(|view| check_next(view, batch))?;
        let mut arena = Vec::new();
        let decoded = tokio::task::block_in_place(|| self.decode(batch, &mut arena))?;
        let mut follows = 0;
        loop {
            let version = self.snapshot().version();
            match self.append_decoded(batch, &decoded, &arena).await {
                Err(error) if follows < FOLLOWS_MAX => {
                    // The snapshot outlived the grace period and its files were swept.
                    self.leave_swept(error, version).await?;
                    follows += 1;
                }
                appended => return appended,
            }
        }
    }

    async fn append_decoded(
        &self,
        batch: &Batch<'_>,
        decoded: &[Decoded<'_>],
        arena: &[f32],
    ) -> Result<Appended> {
        let mut held = Held::default();
        self.look_up(decoded, &mut held).await?;
        let writing = self.feed.writing().await;
        self.look_up(decoded, &mut held).await?;
        let mut appended = tokio::task::block_in_place(|| {
            writing.append(|appender| {
                let before = check_next(appender.view(), batch)?;
                Ok::<_, Error>(apply(appender, batch, decoded, arena, &held, before))
            })
        })?;
        drop(writing);
        if let Some(uncoded) = self.feed.read(View::uncoded) {
            tokio::task::block_in_place(|| uncoded.encode());
        }
        appended.bytes = self.feed.read(View::bytes);
        Ok(appended)
    }

    fn decode<'a>(&self, batch: &Batch<'a>, arena: &mut Vec<f32>) -> Result<Vec<Decoded<'a>>> {
        let state = self.manifest.head().state.clone();
        let format = match batch.format {
            Some(format) => format,
            None => Format::parse(&state.schema.format).ok_or_else(|| {
                Error::Invalid(format!("format {:?} is not known", state.schema.format))
            })?,
        };
        let compacted = state.is_compacted(batch.source);
        let entries = record::entries(batch.table, batch.buffers)
            .map_err(|e| Error::Invalid(e.to_string()))?;
        let mut decoded = Vec::with_capacity(entries.size_hint().0);
        for (offset, timestamp, raw) in entries {
            // A negative offset is far beyond `to`.
            let offset = offset as u64;
            if offset < batch.from || offset >= batch.to {
                let Batch {
                    partition,
                    from,
                    to,
                    ..
                } = batch;
                let message =
                    format!("partition {partition}: offset {offset} in the batch [{from}, {to})");
                return Err(Error::Invalid(message));
            }
            let record = record::decode(&raw, format, state.schema.dim, arena)
                .and_then(|record| record.allowed_on(compacted));
            decoded.push(Decoded {
                offset,
                timestamp,
                raw,
                record,
            });
        }
        Ok(decoded)
    }

    /// Looks up what the view's snapshot holds of the keys that the view does not show,
    /// as far as `held` does not say it of this very version.
    async fn look_up<'a>(&self, decoded: &'a [Decoded<'_>], held: &mut Held<'a>) -> Result<()> {
        let records = || decoded.iter().filter_map(|d| d.record.as_ref().ok());
        let (snapshot, keys) = self.feed.read(|view| {
            let version = Some(view.snapshot.version());
            if held.version != version {
                *held = Held {
                    version,
                    ..Held::default()
                };
            }
            let mut keys: Vec<Key<'a>> = records()
                .filter(|record| !held.places.contains_key(record.id))
                .map(|record| (key_hash(record.id), record.id))
                .filter(|(hash, id)| view.find(*hash, id).is_none())
                .collect();
            keys.sort_unstable();
            keys.dedup();
            (view.snapshot.clone(), keys)
        });
        if keys.is_empty() {
            return Ok(());
        }
        let located = snapshot.locate_many(&keys).await?;
        let new = keys.iter().map(|(_, id)| *id).zip(located);
        let new: HashMap<&'a str, Option<Location>> = new.collect();
        let patched: HashMap<&'a str, Location> = records()
            .filter(|record| record.op.is_patch())
            .filter_map(|record| Some((record.id, (*new.get(record.id)?)?)))
            .filter(|(_, location)| !location.deleted)
            .collect();
        let (ids, locations): (Vec<&str>, Vec<Location>) = patched.into_iter().unzip();
        let whole = Want {
            vector: true,
            attrs: true,
        };
        let read = snapshot.read(&locations, whole).await?;
        for ((id, location), parts) in ids.into_iter().zip(locations).zip(read) {
            let base = Base {
                position: location.position,
                vector: parts.vector.unwrap_or_default(),
                attrs: parts.attrs,
            };
            held.bases.insert(id, base);
        }
        held.places.extend(new);
        Ok(())
    }
}

/// Refuses a batch of an unknown partition, or one that leaves a gap.
fn check_next(view: &View, batch: &Batch<'_>) -> Result<Applied> {
    let (source, partition, from) = (batch.source, batch.partition, batch.from);
    let applied = view
        .applied(source, partition)
        .ok_or_else(|| Error::Invalid(format!("source {source} has no partition {partition}")))?;
    if from > applied.next {
        let next = applied.next;
        return Err(Error::Conflict(format!(
            "partition {partition}: batch begins at {from}, next is {next}"
        )));
    }
    Ok(applied)
}

fn apply(
    appender: &mut Appender<'_>,
    batch: &Batch<'_>,
    decoded: &[Decoded<'_>],
    arena: &[f32],
    held: &Held<'_>,
    before: Applied,
) -> Appended {
    let (source, partition) = (batch.source, batch.partition);
    let mut appended = Appended::default();
    let mut now = before;
    let mut end = batch.to.max(before.next);
    for one in decoded.iter().filter(|one| one.offset >= before.next) {
        let log_time = now.log_time.max(one.timestamp);
        let position = Position {
            source,
            log_time,
            partition,
            offset: one.offset,
        };
        let verdict = match &one.record {
            Ok(record) => {
                let located = held.places.get(record.id).copied().flatten();
                complete(appender.view(), record, arena, held, position)
                    .map(|whole| appender.accept(&whole.accepted(record), located).existed)
            }
            Err(bad) => Err(bad.clone()),
        };
        if verdict.is_err() && batch.on_bad == OnBad::Fail {
            appended.failed_at = Some(one.offset);
            end = one.offset;
        }
        if let Err(bad) = &verdict {
            appended.bad.push(Refused {
                offset: one.offset,
                reason: bad.reason,
                message: bad.message.clone(),
            });
        }
        if appended.failed_at.is_some() {
            break;
        }
        now.log_time = log_time;
        appended.accepted += u64::from(verdict.is_ok());
        if let Some(write) = one.raw.write_header {
            appended.acks.push(Ack {
                write: String::from_utf8_lossy(write).into_owned(),
                offset: one.offset,
                existed: verdict.as_ref().is_ok_and(|existed| *existed),
                refused: verdict.err().map(|bad| bad.message),
            });
        }
        let crc32c = record::fingerprint(one.raw.key, one.raw.value);
        now.last = Some(Fingerprint {
            offset: one.offset,
            timestamp: one.timestamp,
            crc32c,
        });
    }
    let refused = appended.bad.len() as u64 - u64::from(appended.failed_at.is_some());
    appended.not_records = end - before.next - appended.accepted - refused;
    let to = Applied { next: end, ..now };
    appender.advance(source, partition, to, refused, appended.not_records);
    appended.next = end;
    appended
}

/// A record whose missing parts came from its base.
struct Whole<'a> {
    vector: Option<Cow<'a, [f32]>>,
    attrs: Option<Cow<'a, str>>,
    position: Position,
    base: Option<Position>,
}

impl Whole<'_> {
    fn accepted<'b>(&'b self, record: &'b record::Record<'_>) -> Accepted<'b> {
        Accepted {
            id: record.id,
            vector: self.vector.as_deref(),
            attrs: self.attrs.as_deref(),
            event_time: record.event_time,
            position: self.position,
            base: self.base,
        }
    }
}

fn complete<'a>(
    view: &View,
    record: &record::Record<'a>,
    arena: &'a [f32],
    held: &Held<'_>,
    position: Position,
) -> Result<Whole<'a>, BadRecord> {
    let vector = record
        .vector
        .clone()
        .map(|range| Cow::Borrowed(&arena[range]));
    let attrs = record.attrs.map(Cow::Borrowed);
    if !record.op.is_patch() {
        return Ok(Whole {
            vector,
            attrs,
            position,
            base: None,
        });
    }
    let (at, base_vector, base_attrs) = base_of(view, record, held).ok_or_else(|| {
        let message = format!(
            "{} on key {:?}, which has no record",
            record.op.name(),
            record.id
        );
        BadRecord::new(Reason::PatchWithoutRecord, message)
    })?;
    if (at.source, at.partition) != (position.source, position.partition) {
        let (op, id) = (record.op.name(), record.id);
        let message = format!(
            "{op} on key {id:?} in source {} partition {}, whose newest record is in source {} partition {}",
            position.source, position.partition, at.source, at.partition
        );
        return Err(BadRecord::new(Reason::PatchCrossesPartitions, message));
    }
    Ok(match record.op {
        Op::SetVector => Whole {
            vector,
            attrs: base_attrs.map(Cow::Owned),
            position,
            base: Some(at),
        },
        _ => Whole {
            vector: Some(Cow::Owned(base_vector)),
            attrs,
            position,
            base: Some(at),
        },
    })
}

/// The newest live record of a patch's key, in the feed or fetched from the snapshot.
fn base_of(
    view: &View,
    record: &record::Record<'_>,
    held: &Held<'_>,
) -> Option<(Position, Vec<f32>, Option<String>)> {
    let Some((table, index)) = view.find(key_hash(record.id), record.id) else {
        let base = held.bases.get(record.id)?;
        return Some((base.position, base.vector.clone(), base.attrs.clone()));
    };
    let memtable = view.memtables().nth(table)?;
    let entry = memtable.entry(index);
    let vector = memtable.vector(entry)?.to_vec();
    Some((
        entry.position,
        vector,
        memtable.attrs(entry).map(str::to_owned),
    ))
}

//! Appending a fetched stretch of one partition to a feed.
//!
//! 1. Decode every record of the batch from the fetched buffers, vectors into one
//!    reused arena. What fails gets a reason and a message, and the stream goes on.
//! 2. Fetch from the snapshot the bases of patches (set-vector, set-attrs), if any.
//! 3. Under the feed's lock, in offset order: complete patches, insert, count. Where the
//!    feed was reset, or the snapshot that gave a base was replaced, since 1: again.
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

use crate::error::{Error, ErrorKind, Result};
use crate::feed::{Appender, Applied, View};
use crate::incarnation::Incarnation;
use crate::memtable::Accepted;
use crate::record::{self, BadRecord, Format, Op, RawRecord, Reason};
use crate::snapshot::Location;
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

/// Times that a batch is judged anew because the view moved underneath: each takes a
/// commit of a whole memtable, or a reset, while one batch is decoded.
const ATTEMPTS_MAX: u32 = 16;

/// What patches build on, and the version that said so; `None` when there are no patches.
struct Bases {
    version: Option<u64>,
    by_key: HashMap<String, Base>,
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
    /// patch bases.
    pub async fn append(&self, batch: &Batch<'_>) -> Result<Appended> {
        let (source, partition, from, to) = (batch.source, batch.partition, batch.from, batch.to);
        if from > to || to > i64::MAX as u64 {
            return Err(Error::Invalid(format!(
                "partition {partition}: batch [{from}, {to}) is no stretch"
            )));
        }
        let mut arena = Vec::new();
        for _ in 0..ATTEMPTS_MAX {
            let unknown =
                || Error::Invalid(format!("source {source} has no partition {partition}"));
            let next = self
                .feed
                .read(|view| view.applied(source, partition))
                .ok_or_else(unknown)?
                .next;
            if from > next {
                return Err(Error::Conflict(format!(
                    "partition {partition}: batch begins at {from}, next is {next}"
                )));
            }
            arena.clear();
            let decoded = tokio::task::block_in_place(|| self.decode(batch, next, &mut arena))?;
            let bases = match self.fetch_bases(&decoded).await {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    // The snapshot outlived the grace period and its files were swept.
                    self.follow().await?;
                    continue;
                }
                bases => bases?,
            };
            let appended = tokio::task::block_in_place(|| {
                self.feed.append(|appender| {
                    let stands = appender
                        .applied(source, partition)
                        .is_some_and(|now| now.next >= next)
                        && bases
                            .version
                            .is_none_or(|version| version == appender.view().snapshot.version());
                    stands
                        .then(|| apply(appender, batch, &decoded, &arena, &bases.by_key))
                        .transpose()
                })
            })?;
            if let Some(mut appended) = appended {
                appended.bytes = self.feed.read(View::bytes);
                return Ok(appended);
            }
        }
        Err(Error::Conflict(format!(
            "partition {partition}: the view moved {ATTEMPTS_MAX} times under [{from}, {to})"
        )))
    }

    fn decode<'a>(
        &self,
        batch: &Batch<'a>,
        next: u64,
        arena: &mut Vec<f32>,
    ) -> Result<Vec<Decoded<'a>>> {
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
            if offset < next {
                continue;
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

    /// Reads from one snapshot the newest versions that it holds of all patched keys. The
    /// feed may hold newer ones; that is looked at under its lock.
    async fn fetch_bases(&self, decoded: &[Decoded<'_>]) -> Result<Bases> {
        let patched = decoded
            .iter()
            .filter_map(|d| d.record.as_ref().ok())
            .filter(|r| r.op.is_patch());
        let snapshot = self.snapshot();
        let mut bases = Bases {
            version: None,
            by_key: HashMap::new(),
        };
        for record in patched {
            bases.version = Some(snapshot.version());
            let hash = key_hash(record.id);
            let (known, found) = self.feed.read(|view| {
                let known =
                    bases.by_key.contains_key(record.id) || view.find(hash, record.id).is_some();
                (
                    known,
                    (!known).then(|| snapshot.locate(hash, record.id)).flatten(),
                )
            });
            if known {
                continue;
            }
            let Some(Location {
                segment,
                entry,
                deleted: false,
                position,
            }) = found
            else {
                continue;
            };
            let reader = &snapshot.segments[&segment].reader;
            let vector = reader.vector(entry).await?;
            let attrs = reader.attrs(&[entry]).await?.pop().flatten();
            bases.by_key.insert(
                record.id.to_owned(),
                Base {
                    position,
                    vector,
                    attrs,
                },
            );
        }
        Ok(bases)
    }
}

fn apply(
    appender: &mut Appender<'_>,
    batch: &Batch<'_>,
    decoded: &[Decoded<'_>],
    arena: &[f32],
    bases: &HashMap<String, Base>,
) -> Result<Appended> {
    let (source, partition) = (batch.source, batch.partition);
    let unknown = || Error::Invalid(format!("source {source} has no partition {partition}"));
    let before = appender.applied(source, partition).ok_or_else(unknown)?;
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
            Ok(record) => complete(appender.view(), record, arena, bases, position)
                .map(|whole| appender.accept(&whole.accepted(record)).existed),
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
    Ok(appended)
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
    bases: &HashMap<String, Base>,
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
    let (at, base_vector, base_attrs) = base_of(view, record, bases).ok_or_else(|| {
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
    bases: &HashMap<String, Base>,
) -> Option<(Position, Vec<f32>, Option<String>)> {
    let Some((table, index)) = view.find(key_hash(record.id), record.id) else {
        let base = bases.get(record.id)?;
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

//! What the lake looks like, for people and dashboards: collections, segments,
//! commits, files.
//!
//! Small answers are JSON; tables (segments, commits) are one Arrow IPC stream, so
//! that a dashboard of ten thousand segments costs one copy and no text.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow_ipc::writer::StreamWriter;
use futures::StreamExt;
use serde::Serialize;
use serde_json::json;
use ulid::Ulid;

use crate::catalog::{CatalogState, Mapping};
use crate::error::{Error, Result};
use crate::incarnation::Incarnation;
use crate::lake::Lake;
use crate::snapshot::Snapshot;
use crate::state::{Checkpoint, Delta, Ledger, Schema, Source};

/// Incarnations opened at once for a list: each opens up to 8 segments at a time.
const OPENS_MAX: usize = 8;

/// A partition of an incarnation, as `describe` shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PartitionInfo {
    /// Source id.
    pub source: u32,
    /// Partition.
    pub partition: u32,
    /// The committed checkpoint.
    pub checkpoint: Checkpoint,
    /// Next offset that this process will consume.
    pub applied: String,
}

/// An incarnation, as `describe` shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IncarnationInfo {
    /// ULID.
    pub incarnation: String,
    /// Schema.
    pub schema: Schema,
    /// Sources by id.
    pub sources: std::collections::BTreeMap<u32, Source>,
    /// Newest version.
    pub version: u64,
    /// When it was committed, ms.
    pub version_when_ms: u64,
    /// Live records in the snapshot and the feed.
    pub records: u64,
    /// Live records in the snapshot.
    pub committed_records: u64,
    /// Live segments.
    pub segments: usize,
    /// Entries in them, shadowed ones included.
    pub entries: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Bytes buffered in memory.
    pub feed_bytes: usize,
    /// Sum of all ledgers.
    pub ledger: Ledger,
    /// Entries dropped by merges.
    pub dropped: u64,
    /// Pinned versions by name.
    pub pins: std::collections::BTreeMap<String, u64>,
    /// Oldest readable version.
    pub retain_from: u64,
    /// Whether it is retired.
    pub retired: bool,
    /// Partitions.
    pub partitions: Vec<PartitionInfo>,
}

/// An incarnation in a list. One that cannot be opened must not hide the others.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Listed {
    /// As it is now.
    Open(Box<IncarnationInfo>),
    /// What keeps it from being opened.
    #[serde(rename_all = "camelCase")]
    Unreadable {
        /// ULID.
        incarnation: String,
        /// Code of the error.
        code: &'static str,
        /// The error, for people.
        message: String,
    },
}

/// A name and what it means.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CollectionInfo {
    /// Namespace.
    pub db: u32,
    /// Name.
    pub name: String,
    /// The live incarnation.
    pub live: Listed,
    /// Incarnations fed beside it.
    pub fed: Vec<Listed>,
}

impl Incarnation {
    /// This incarnation as it is now.
    pub fn info(&self) -> IncarnationInfo {
        let (snapshot, records, feed_bytes, partitions) = self.feed.read(|view| {
            let snapshot = view.snapshot.clone();
            let mut partitions = Vec::new();
            for (source, checkpoints) in &snapshot.state().checkpoints {
                for (partition, checkpoint) in checkpoints {
                    let applied = view
                        .applied(*source, *partition)
                        .map_or(checkpoint.next, |a| a.next);
                    partitions.push(PartitionInfo {
                        source: *source,
                        partition: *partition,
                        checkpoint: *checkpoint,
                        applied: applied.to_string(),
                    });
                }
            }
            (snapshot, view.card(), view.bytes(), partitions)
        });
        let state = snapshot.state();
        IncarnationInfo {
            incarnation: self.id.to_string(),
            schema: state.schema.clone(),
            sources: state.sources.clone(),
            version: snapshot.version(),
            version_when_ms: snapshot.head.when_ms,
            records,
            committed_records: snapshot.live_rows,
            segments: state.segments.len(),
            entries: state.entries(),
            bytes: state
                .segments
                .values()
                .flat_map(|s| &s.meta.files)
                .map(|f| f.bytes)
                .sum(),
            feed_bytes,
            ledger: state.ledger(),
            dropped: state.dropped_entries,
            pins: state.pins.clone(),
            retain_from: vexlake_manifest::State::retain_from(state),
            retired: state.retired,
            partitions,
        }
    }

    /// The live segments as an Arrow IPC stream: id, rows, deletes, shadowed, bytes,
    /// shadow_ratio, log_time_min, log_time_max, created_ms.
    ///
    /// # Errors
    /// `INTERNAL` when Arrow refuses the batch.
    pub fn segments_arrow(&self) -> Result<Vec<u8>> {
        let snapshot = self.snapshot();
        let views: Vec<_> = snapshot.segments.values().collect();
        let ratio = |v: &&crate::snapshot::SegmentView| {
            v.shadow.len() as f64 / f64::from(v.reader.entries().max(1))
        };
        let bytes = |v: &&crate::snapshot::SegmentView| {
            v.reader.meta().files.iter().map(|f| f.bytes).sum::<u64>()
        };
        let meta = |f: fn(&vexlake_segment::SegmentMeta) -> i64| {
            Arc::new(Int64Array::from_iter_values(
                views.iter().map(|v| f(v.reader.meta())),
            )) as ArrayRef
        };
        let count = |f: &dyn Fn(&&crate::snapshot::SegmentView) -> u64| {
            Arc::new(UInt64Array::from_iter_values(views.iter().map(f))) as ArrayRef
        };
        arrow(vec![
            (
                "id",
                Arc::new(StringArray::from_iter_values(
                    views.iter().map(|v| v.id().to_string()),
                )),
            ),
            ("rows", count(&|v| u64::from(v.reader.rows()))),
            (
                "deletes",
                count(&|v| u64::from(v.reader.entries() - v.reader.rows())),
            ),
            ("shadowed", count(&|v| v.shadow.len())),
            ("bytes", count(&bytes)),
            (
                "shadow_ratio",
                Arc::new(Float64Array::from_iter_values(views.iter().map(ratio))),
            ),
            ("log_time_min", meta(|m| m.log_time_min)),
            ("log_time_max", meta(|m| m.log_time_max)),
            ("created_ms", meta(|m| m.created_ms as i64)),
        ])
    }

    /// The newest commits as an Arrow IPC stream, newest first: version, when_ms,
    /// role, instance, kind, summary.
    ///
    /// # Errors
    /// Store errors.
    pub async fn commits_arrow(&self, limit: usize) -> Result<Vec<u8>> {
        let commits = self.manifest.history(limit).await?;
        let text =
            |f: &dyn Fn(&vexlake_manifest::CommitSummary<crate::IncarnationState>) -> String| {
                Arc::new(StringArray::from_iter_values(commits.iter().map(f))) as ArrayRef
            };
        let number =
            |f: &dyn Fn(&vexlake_manifest::CommitSummary<crate::IncarnationState>) -> u64| {
                Arc::new(UInt64Array::from_iter_values(commits.iter().map(f))) as ArrayRef
            };
        arrow(vec![
            ("version", number(&|c| c.version)),
            ("when_ms", number(&|c| c.when_ms)),
            ("role", text(&|c| c.author.role.clone())),
            ("instance", text(&|c| c.author.instance.clone())),
            ("kind", text(&|c| kind_of(c.delta.as_ref()).to_owned())),
            (
                "summary",
                text(&|c| c.delta.as_ref().map_or_else(String::new, summary)),
            ),
        ])
    }

    /// The live files, with a DuckDB query that returns exactly the live records.
    pub fn files(&self, lake_root: &dyn Fn(&str) -> String) -> serde_json::Value {
        let snapshot = self.snapshot();
        let key = |id: Ulid, name: &str| format!("{}/seg/{id}/{name}", Self::prefix(self.id));
        let mut data = Vec::new();
        let mut deletes = Vec::new();
        let mut segments = Vec::new();
        for (id, view) in &snapshot.segments {
            let meta = view.reader.meta();
            let files: Vec<_> = meta
                .files
                .iter()
                .map(|f| json!({"key": key(*id, &f.name), "bytes": f.bytes, "crc32c": f.crc32c}))
                .collect();
            for file in &meta.files {
                match file.name.as_str() {
                    vexlake_segment::DATA_FILE => data.push(lake_root(&key(*id, &file.name))),
                    vexlake_segment::DELETES_FILE => deletes.push(lake_root(&key(*id, &file.name))),
                    _ => {}
                }
            }
            let (rows, entries) = (view.reader.rows(), view.reader.entries());
            segments.push(json!({
                "id": id.to_string(), "rows": rows, "deletes": entries - rows,
                "shadowed": view.shadow.len(), "files": files,
            }));
        }
        let query = duckdb_query(&snapshot, &data, &deletes);
        json!({"version": snapshot.version(), "segments": segments, "data": data, "deletes": deletes, "duckdb": query})
    }
}

impl Lake {
    /// All collections and what they hold. Every process lists again and again to follow
    /// the catalog, so this is also where it closes what lost its name.
    ///
    /// # Errors
    /// When the catalog cannot be read; an incarnation that cannot be opened says so itself.
    pub async fn collections(&self) -> Result<Vec<CollectionInfo>> {
        let names = self.catalog.refresh().await?.state.names.clone();
        self.close_unnamed();
        let all: Vec<Ulid> = names.values().flat_map(Mapping::incarnations).collect();
        // Collected first: a stream that holds a borrowing closure is not Send for every lifetime.
        let listings: Vec<_> = all.into_iter().map(|id| self.listed(id)).collect();
        let listed = futures::stream::iter(listings).buffered(OPENS_MAX);
        let mut listed = listed.collect::<Vec<Listed>>().await.into_iter();
        let mut collections = Vec::new();
        for (key, mapping) in &names {
            let (db, name) = CatalogState::parse_key(key);
            let Some(live) = listed.next() else { break };
            collections.push(CollectionInfo {
                db,
                name: name.to_owned(),
                live,
                fed: listed.by_ref().take(mapping.fed.len()).collect(),
            });
        }
        Ok(collections)
    }

    async fn listed(&self, id: Ulid) -> Listed {
        match self.incarnation(id).await {
            Ok(incarnation) => Listed::Open(Box::new(incarnation.info())),
            Err(error) => Listed::Unreadable {
                incarnation: id.to_string(),
                code: error.kind().code(),
                message: error.to_string(),
            },
        }
    }
}

/// The columns of a lake without files, and no row.
const EMPTY_QUERY: &str = "SELECT NULL::VARCHAR AS id, NULL::FLOAT[] AS vector, NULL::VARCHAR AS attrs, \
    NULL::TIMESTAMPTZ AS event_time, NULL::TIMESTAMPTZ AS log_time, NULL::INTEGER AS source, \
    NULL::INTEGER AS kafka_partition, NULL::BIGINT AS kafka_offset WHERE false";

/// The newest position of each key wins, told in SQL: independent of our shadow
/// bitmaps, so it also checks them.
fn duckdb_query(snapshot: &Snapshot, data: &[String], deletes: &[String]) -> String {
    let list = |files: &[String]| {
        let quoted: Vec<String> = files
            .iter()
            .map(|f| format!("'{}'", f.replace('\'', "''")))
            .collect();
        quoted.join(", ")
    };
    if data.is_empty() {
        return EMPTY_QUERY.to_owned();
    }
    let rank: String = snapshot
        .state()
        .sources
        .iter()
        .map(|(id, s)| {
            format!(
                " WHEN {id} THEN {}",
                u64::from(s.rank) << 32 | u64::from(s.epoch)
            )
        })
        .collect();
    let rows = format!(
        "SELECT *, false AS deleted FROM read_parquet([{}])",
        list(data)
    );
    let gone = match deletes.is_empty() {
        true => String::new(),
        false => {
            format!(
                " UNION ALL BY NAME SELECT *, true AS deleted FROM read_parquet([{}])",
                list(deletes)
            )
        }
    };
    format!(
        "SELECT * EXCLUDE (deleted) FROM ({rows}{gone}) QUALIFY row_number() OVER (PARTITION BY id ORDER BY \
         CASE source{rank} END DESC, log_time DESC, kafka_partition DESC, kafka_offset DESC) = 1 AND NOT deleted"
    )
}

fn kind_of(delta: Option<&Delta>) -> &'static str {
    match delta {
        None => "create",
        Some(Delta::Append { .. }) => "append",
        Some(Delta::Replace { .. }) => "replace",
        Some(Delta::Mark(_)) => "mark",
        Some(Delta::Pin { .. }) => "pin",
        Some(Delta::Unpin { .. }) => "unpin",
        Some(Delta::Source { .. }) => "source",
        Some(Delta::Accept { .. }) => "accept",
        Some(Delta::Partition { .. }) => "partition",
        Some(Delta::Centroids { .. }) => "centroids",
        Some(Delta::Retire {}) => "retire",
    }
}

fn summary(delta: &Delta) -> String {
    match delta {
        Delta::Append { ranges, adds, .. } => {
            let stretches: Vec<String> = ranges
                .iter()
                .map(|r| format!("{}:[{}, {})", r.partition, r.from, r.to))
                .collect();
            let rows: u32 = adds.iter().map(|m| m.rows).sum();
            let deletes: u32 = adds.iter().map(|m| m.deletes).sum();
            format!(
                "{rows} rows, {deletes} deletes from {}",
                stretches.join(" ")
            )
        }
        Delta::Replace {
            inputs,
            adds,
            dropped,
            ..
        } => {
            format!(
                "{} segments became {}, {} entries dropped",
                inputs.len(),
                adds.len(),
                dropped.entries
            )
        }
        Delta::Mark(mark) => format!("retain from {}", mark.retain_from),
        Delta::Pin { name, version } => format!("{name} keeps {version}"),
        Delta::Unpin { name, version } => format!("{name} lets {version} go"),
        Delta::Source { id, source, .. } => format!("source {id}: {}", source.topic),
        Delta::Accept {
            partition,
            from,
            to,
            ..
        } => format!("partition {partition}: [{from}, {to}) accepted as lost"),
        Delta::Partition {
            partition, start, ..
        } => format!("partition {partition} added from {start}"),
        Delta::Centroids { centroids, .. } => format!(
            "{} lists trained on {} rows, {} looked at by default",
            centroids.lists, centroids.rows, centroids.probes
        ),
        Delta::Retire {} => String::new(),
    }
}

fn arrow(columns: Vec<(&str, ArrayRef)>) -> Result<Vec<u8>> {
    let failed = |e: arrow_schema::ArrowError| Error::Internal(format!("arrow: {e}"));
    let batch = RecordBatch::try_from_iter(columns).map_err(failed)?;
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).map_err(failed)?;
    writer.write(&batch).map_err(failed)?;
    writer.into_inner().map_err(failed)
}

//! `index.vxi` from the Parquet files alone.
//!
//! 1. Each file is copied from the store into an anonymous temporary file, in
//!    bounded ranges, and its CRC32C compared with the commit's: a decoder only
//!    sees bytes that were written.
//! 2. The records are decoded batch by batch into entries, exactly as the writer
//!    gathered them; where the segment has lists, each is encoded again by its
//!    centroids. Then the same code derives the index, with lists of the format whose
//!    index has the length that the commit names. The result has the same bytes
//!    as the lost file, with two exceptions: lists that a merge left rows out of keep
//!    the error bound of what was merged, which may be wider than what is derived
//!    from the rows that remain; and another instruction set rounds norms and inner
//!    products, and so factors, in their last bit. Answers do not differ but for rows
//!    looked at exactly.

use crate::columns::{
    ATTRS, EVENT_TIME, ID, ID_KEY, LOG_TIME, OFFSET, PARTITION, SLICE_BYTES_MAX, SOURCE, VECTOR,
};
use crate::entries::Entries;
use crate::error::{Result, SegmentError};
use crate::index::Index;
use crate::meta::{DATA_FILE, DELETES_FILE, FileMeta, INDEX_FILE, SegmentMeta, SegmentSchema};
use crate::record::{Delete, Position, Row};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Int32Type, Int64Type, TimestampMillisecondType};
use arrow_array::{Array, PrimitiveArray, RecordBatch, StringArray};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use vexlake_index::{Centroids, EncodedRows, LISTS_FORMAT, LISTS_FORMAT_MIN, build_lists_as};
use vexlake_store::Store;

/// One ranged read while copying a file: large enough that requests cost
/// nothing beside the bytes, small enough to hold.
const COPY_BYTES: u64 = 8 << 20;

/// Derives `index.vxi` from the Parquet files of a segment. `store` is scoped to
/// the segment. Memory: the index and one batch; the files go through temporary
/// disk. Fails with Corrupt where a Parquet file does not match its checksum.
pub async fn rebuild_index(
    store: &Store,
    meta: &SegmentMeta,
    schema: &SegmentSchema,
    centroids: Option<&Arc<Centroids>>,
) -> Result<Bytes> {
    schema.check()?;
    let data = copy_verified(store, meta.require(DATA_FILE)?).await?;
    let deletes = match meta.file(DELETES_FILE) {
        Some(file) => Some(copy_verified(store, file).await?),
        None => None,
    };
    let (meta, schema) = (meta.clone(), *schema);
    let centroids = wanted_centroids(&meta, centroids)?.cloned();
    let wanted_bytes = meta.file(INDEX_FILE).map(|file| file.bytes);
    let derived = tokio::task::spawn_blocking(move || {
        let in_format = |format| -> Result<Bytes> {
            let centroids = centroids.as_deref().map(|centroids| (centroids, format));
            let index = derive(&meta, schema, &data, deletes.as_ref(), centroids)?;
            let (bytes, _) = index
                .write(Vec::new())
                .map_err(SegmentError::io(INDEX_FILE))?;
            Ok(Bytes::from(bytes))
        };
        let derived = in_format(LISTS_FORMAT)?;
        if centroids.is_none() || wanted_bytes == Some(derived.len() as u64) {
            return Ok(derived);
        }
        // Lists of another format take other bytes: written by an older program.
        for format in LISTS_FORMAT_MIN..LISTS_FORMAT {
            let older = in_format(format)?;
            if wanted_bytes == Some(older.len() as u64) {
                return Ok(older);
            }
        }
        Ok(derived)
    });
    derived.await.map_err(SegmentError::worker)?
}

/// The centroids that a segment's lists belong to, if it has any.
fn wanted_centroids<'a>(
    meta: &SegmentMeta,
    known: Option<&'a Arc<Centroids>>,
) -> Result<Option<&'a Arc<Centroids>>> {
    let Some(version) = meta.centroids else {
        return Ok(None);
    };
    let known = known.filter(|known| known.version() == u128::from(version));
    known.map(Some).ok_or_else(|| {
        let message = format!("no centroids {version} to derive it by");
        SegmentError::corrupt(INDEX_FILE, "lists", 0, message)
    })
}

/// The lists object of rows that lie in list order already.
fn build_object(centroids: &Centroids, format: u32, rows: &EncodedRows) -> Result<Vec<u8>> {
    if !rows.lists().is_sorted() {
        let message = "records that are not in list order";
        return Err(SegmentError::corrupt(DATA_FILE, "records", 0, message));
    }
    let (count, dim) = (centroids.count() as u32, centroids.space().code_dim());
    let version = centroids.version();
    build_lists_as(format, version, count, dim, rows, true).map_err(SegmentError::lists)
}

async fn copy_verified(store: &Store, file: &FileMeta) -> Result<File> {
    let name = if file.name == DELETES_FILE {
        DELETES_FILE
    } else {
        DATA_FILE
    };
    let mut copy = tempfile::tempfile().map_err(SegmentError::io("temporary file"))?;
    let mut crc = 0;
    let mut at = 0;
    while at < file.bytes {
        let range = at..file.bytes.min(at + COPY_BYTES);
        at = range.end;
        for part in store.get_ranges(name, &[range]).await? {
            crc = crc32c::crc32c_append(crc, &part);
            copy.write_all(&part)
                .map_err(SegmentError::io("temporary file"))?;
        }
    }
    if crc != file.crc32c {
        let message = format!("checksum {crc:08x}, expected {:08x}", file.crc32c);
        return Err(SegmentError::corrupt(name, "file", 0, message));
    }
    Ok(copy)
}

fn derive(
    meta: &SegmentMeta,
    schema: SegmentSchema,
    data: &File,
    deletes: Option<&File>,
    centroids: Option<(&Centroids, u32)>,
) -> Result<Index> {
    let mut entries = Entries::new();
    let mut encoded = EncodedRows::default();
    each_batch(DATA_FILE, data, meta, schema.vector_bytes(), |batch| {
        let columns = Columns::of(DATA_FILE, batch)?;
        let vectors = typed(DATA_FILE, VECTOR, batch, |array| {
            array.as_fixed_size_list_opt()
        })?;
        let floats = vectors.values().as_primitive_opt::<Float32Type>();
        let floats = floats
            .filter(|_| vectors.value_length() as u32 == schema.dim && vectors.null_count() == 0);
        let floats = floats.ok_or_else(|| not_ours(DATA_FILE, VECTOR))?.values();
        let attrs = typed(DATA_FILE, ATTRS, batch, |array| {
            array.as_string_opt::<i32>()
        })?;
        if let (Some((centroids, _)), true) = (centroids, batch.num_rows() > 0) {
            let at = vectors.value_offset(0) as usize;
            let floats = &floats[at..at + batch.num_rows() * schema.dim as usize];
            let rows = centroids.encode(floats, 1).map_err(SegmentError::lists)?;
            encoded.append(rows);
        }
        for row in 0..batch.num_rows() {
            let at = vectors.value_offset(row) as usize;
            let row = Row {
                id: columns.ids.value(row),
                vector: &floats[at..at + schema.dim as usize],
                attrs: attrs.is_valid(row).then(|| attrs.value(row)),
                event_time: columns.event_time(row),
                position: columns.position(row),
            };
            row.check(&schema)?;
            entries.push(&row)?;
        }
        Ok(())
    })?;
    if let Some(file) = deletes {
        each_batch(DELETES_FILE, file, meta, 0, |batch| {
            let columns = Columns::of(DELETES_FILE, batch)?;
            for row in 0..batch.num_rows() {
                let delete = Delete {
                    id: columns.ids.value(row),
                    event_time: columns.event_time(row),
                    position: columns.position(row),
                };
                delete.check()?;
                entries.delete(&delete)?;
            }
            Ok(())
        })?;
    }
    if (entries.rows, entries.deletes, entries.hash) != (meta.rows, meta.deletes, meta.hash) {
        let found = format!(
            "{} records, {} deletes, hash {}",
            entries.rows, entries.deletes, entries.hash
        );
        let expected = format!("{}, {}, {}", meta.rows, meta.deletes, meta.hash);
        let message = format!("{found}; the commit says {expected}");
        return Err(SegmentError::corrupt(DATA_FILE, "entries", 0, message));
    }
    let lists = match centroids {
        Some((centroids, format)) => Some(build_object(centroids, format, &encoded)?),
        None => None,
    };
    Index::build(meta.id, schema, entries, data, lists)
}

fn each_batch(
    name: &'static str,
    file: &File,
    meta: &SegmentMeta,
    vector_bytes: usize,
    mut visit: impl FnMut(&RecordBatch) -> Result<()>,
) -> Result<()> {
    /// Id, attributes and the rest: a guess that only sizes batches.
    const REST_BYTES: usize = 512;
    let failed = SegmentError::parquet(name);
    let file = file.try_clone().map_err(SegmentError::io(name))?;
    let builder = match ParquetRecordBatchReaderBuilder::try_new(file) {
        Ok(builder) => builder,
        Err(error) => return Err(failed(error)),
    };
    let notes = builder.metadata().file_metadata().key_value_metadata();
    let id = notes
        .and_then(|notes| notes.iter().find(|note| note.key == ID_KEY))
        .and_then(|note| note.value.clone());
    if id.as_deref() != Some(&meta.id.to_string()) {
        let message = format!("written for segment {id:?}, not {}", meta.id);
        return Err(SegmentError::corrupt(name, "footer", 0, message));
    }
    let rows = (SLICE_BYTES_MAX / (vector_bytes + REST_BYTES)).max(1);
    let batches = builder.with_batch_size(rows).build().map_err(failed)?;
    for batch in batches {
        visit(&batch.map_err(|error| SegmentError::parquet(name)(error.into()))?)?;
    }
    Ok(())
}

fn not_ours(file: &'static str, column: &str) -> SegmentError {
    SegmentError::corrupt(
        file,
        format!("column {column}"),
        0,
        "missing or of another type",
    )
}

fn typed<'a, T>(
    file: &'static str,
    name: &str,
    batch: &'a RecordBatch,
    cast: impl FnOnce(&'a dyn Array) -> Option<&'a T>,
) -> Result<&'a T> {
    let column = batch.column_by_name(name);
    column
        .and_then(|column| cast(column.as_ref()))
        .ok_or_else(|| not_ours(file, name))
}

/// The columns that both files have.
struct Columns<'a> {
    ids: &'a StringArray,
    event_times: &'a PrimitiveArray<TimestampMillisecondType>,
    log_times: &'a PrimitiveArray<TimestampMillisecondType>,
    sources: &'a PrimitiveArray<Int32Type>,
    partitions: &'a PrimitiveArray<Int32Type>,
    offsets: &'a PrimitiveArray<Int64Type>,
}

impl<'a> Columns<'a> {
    fn of(file: &'static str, batch: &'a RecordBatch) -> Result<Self> {
        Ok(Self {
            ids: typed(file, ID, batch, |array| array.as_string_opt())?,
            event_times: typed(file, EVENT_TIME, batch, |array| array.as_primitive_opt())?,
            log_times: typed(file, LOG_TIME, batch, |array| array.as_primitive_opt())?,
            sources: typed(file, SOURCE, batch, |array| array.as_primitive_opt())?,
            partitions: typed(file, PARTITION, batch, |array| array.as_primitive_opt())?,
            offsets: typed(file, OFFSET, batch, |array| array.as_primitive_opt())?,
        })
    }

    fn event_time(&self, row: usize) -> Option<i64> {
        self.event_times
            .is_valid(row)
            .then(|| self.event_times.value(row))
    }

    fn position(&self, row: usize) -> Position {
        // The columns are signed for other readers' sake; the writer refused
        // what does not fit, and the file's checksum says it is the writer's.
        Position {
            source: self.sources.value(row) as u32,
            log_time: self.log_times.value(row),
            partition: self.partitions.value(row) as u32,
            offset: self.offsets.value(row) as u64,
        }
    }
}

//! The columns of the Parquet files: schemas, writer properties, and the slice
//! that turns records into Arrow batches.
//!
//! `data.parquet`: id, vector, attrs, event_time, log_time, source,
//! kafka_partition, kafka_offset; `deletes.parquet` the same less vector and
//! attrs. The vector's pages must stay addressable: PLAIN, uncompressed, no
//! dictionary, non-null twice over. No column has a dictionary: ids, attributes
//! and offsets hardly repeat, and zstd takes the rest; so every page of the file
//! is a data page, listed in the offset index.

use crate::error::{Result, SegmentError};
use crate::meta::SegmentSchema;
use crate::record::{Delete, Position, Row};
use arrow_array::builder::{
    Int32Builder, Int64Builder, StringBuilder, TimestampMillisecondBuilder,
};
use arrow_array::{ArrayRef, FixedSizeListArray, Float32Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::sync::Arc;

pub(crate) const ID: &str = "id";
pub(crate) const VECTOR: &str = "vector";
pub(crate) const ATTRS: &str = "attrs";
pub(crate) const EVENT_TIME: &str = "event_time";
pub(crate) const LOG_TIME: &str = "log_time";
pub(crate) const SOURCE: &str = "source";
pub(crate) const PARTITION: &str = "kafka_partition";
pub(crate) const OFFSET: &str = "kafka_offset";

/// The file metadata key that holds the segment's ULID.
pub(crate) const ID_KEY: &str = "vexlake.segment";
/// The file metadata key that holds the metric's name.
pub(crate) const METRIC_KEY: &str = "vexlake.metric";

/// A slice goes to the Parquet writer at this size: its level buffers take ~12
/// bytes per float, 3 MiB for 1 MiB of floats.
pub(crate) const SLICE_BYTES_MAX: usize = 1 << 20;
/// A row group ends at this many rows, or bytes of raw values: the writer holds
/// one row group in memory (16 MiB = 5,461 rows of 768 dimensions).
pub(crate) const GROUP_ROWS_MAX: usize = 8192;
pub(crate) const GROUP_BYTES_MAX: usize = 16 << 20;
/// Vector pages end at this size: one ranged read, one block in the cache.
pub(crate) const VECTOR_PAGE_BYTES: usize = 1 << 20;
/// Other pages end at this size before compression: what the attributes of one
/// row cost to read.
const PAGE_BYTES: usize = 64 << 10;
/// Values between two looks at the page size; with attributes of some hundred
/// bytes a page then overshoots by less than its own size.
const WRITE_BATCH_VALUES: usize = 128;
/// zstd's own default: a third of the time of level 9 for 5 % more bytes.
const ZSTD_LEVEL: i32 = 3;

fn times() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))
}

fn position_fields() -> [Field; 5] {
    [
        Field::new(EVENT_TIME, times(), true),
        Field::new(LOG_TIME, times(), false),
        Field::new(SOURCE, DataType::Int32, false),
        Field::new(PARTITION, DataType::Int32, false),
        Field::new(OFFSET, DataType::Int64, false),
    ]
}

fn float_field() -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Float32, false))
}

/// The Arrow schema of `data.parquet`.
pub(crate) fn data_schema(dim: u32) -> SchemaRef {
    let vector = DataType::FixedSizeList(float_field(), dim as i32);
    let head = [
        Field::new(ID, DataType::Utf8, false),
        Field::new(VECTOR, vector, false),
        Field::new(ATTRS, DataType::Utf8, true),
    ];
    let fields: Vec<Field> = head.into_iter().chain(position_fields()).collect();
    Arc::new(Schema::new(fields))
}

/// The Arrow schema of `deletes.parquet`.
pub(crate) fn deletes_schema() -> SchemaRef {
    let head = [Field::new(ID, DataType::Utf8, false)];
    let fields: Vec<Field> = head.into_iter().chain(position_fields()).collect();
    Arc::new(Schema::new(fields))
}

/// How both files are written.
pub(crate) fn properties(schema: &SegmentSchema) -> Result<WriterProperties> {
    let vector = ColumnPath::new(vec![VECTOR.into(), "list".into(), "element".into()]);
    let attrs = ColumnPath::from(ATTRS);
    let level =
        ZstdLevel::try_new(ZSTD_LEVEL).map_err(SegmentError::parquet("writer properties"))?;
    let metric = schema.metric.name().to_string();
    Ok(WriterProperties::builder()
        .set_created_by(concat!("vexlake version ", env!("CARGO_PKG_VERSION")).to_string())
        .set_key_value_metadata(Some(vec![KeyValue::new(METRIC_KEY.to_string(), metric)]))
        .set_compression(Compression::ZSTD(level))
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(false)
        .set_max_row_group_row_count(None)
        .set_data_page_row_count_limit(GROUP_ROWS_MAX)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_write_batch_size(WRITE_BATCH_VALUES)
        .set_column_statistics_enabled(attrs, EnabledStatistics::None)
        .set_column_compression(vector.clone(), Compression::UNCOMPRESSED)
        .set_column_statistics_enabled(vector.clone(), EnabledStatistics::None)
        .set_column_data_page_size_limit(vector, VECTOR_PAGE_BYTES)
        .build())
}

/// Records or deletes gathered until they are worth handing to the writer.
pub(crate) struct Slice {
    schema: SchemaRef,
    /// Floats per vector; None for deletes.
    dim: Option<u32>,
    ids: StringBuilder,
    vectors: Vec<f32>,
    attrs: StringBuilder,
    event_times: TimestampMillisecondBuilder,
    log_times: TimestampMillisecondBuilder,
    sources: Int32Builder,
    partitions: Int32Builder,
    offsets: Int64Builder,
    rows: usize,
    bytes: usize,
}

impl Slice {
    pub(crate) fn of_rows(dim: u32) -> Self {
        Self::new(data_schema(dim), Some(dim))
    }

    pub(crate) fn of_deletes() -> Self {
        Self::new(deletes_schema(), None)
    }

    fn new(schema: SchemaRef, dim: Option<u32>) -> Self {
        let times = || TimestampMillisecondBuilder::new().with_timezone("UTC");
        Self {
            schema,
            dim,
            ids: StringBuilder::new(),
            vectors: Vec::new(),
            attrs: StringBuilder::new(),
            event_times: times(),
            log_times: times(),
            sources: Int32Builder::new(),
            partitions: Int32Builder::new(),
            offsets: Int64Builder::new(),
            rows: 0,
            bytes: 0,
        }
    }

    pub(crate) fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Raw bytes gathered, near enough to decide by.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a record that has been checked.
    pub(crate) fn push(&mut self, row: &Row<'_>) {
        self.vectors.extend_from_slice(row.vector);
        self.attrs.append_option(row.attrs);
        self.bytes += size_of_val(row.vector) + row.attrs.map_or(0, str::len);
        self.push_entry(row.id, row.event_time, &row.position);
    }

    /// Adds a delete that has been checked.
    pub(crate) fn delete(&mut self, delete: &Delete<'_>) {
        self.push_entry(delete.id, delete.event_time, &delete.position);
    }

    fn push_entry(&mut self, id: &str, event_time: Option<i64>, position: &Position) {
        /// event_time, log_time, offset × 8 bytes, source, partition × 4.
        const FIXED_BYTES: usize = 3 * 8 + 2 * 4;
        self.ids.append_value(id);
        self.event_times.append_option(event_time);
        self.log_times.append_value(position.log_time);
        self.sources.append_value(position.source as i32);
        self.partitions.append_value(position.partition as i32);
        self.offsets.append_value(position.offset as i64);
        self.rows += 1;
        self.bytes += id.len() + FIXED_BYTES;
    }

    /// The batch gathered so far; the slice is empty afterwards.
    pub(crate) fn take(&mut self) -> Result<RecordBatch> {
        (self.rows, self.bytes) = (0, 0);
        let mut columns: Vec<ArrayRef> = vec![Arc::new(self.ids.finish())];
        let failed = SegmentError::parquet("an arrow batch");
        if let Some(dim) = self.dim {
            let floats = Float32Array::from(std::mem::take(&mut self.vectors));
            match FixedSizeListArray::try_new(float_field(), dim as i32, Arc::new(floats), None) {
                Ok(vectors) => columns.push(Arc::new(vectors)),
                Err(error) => return Err(failed(error.into())),
            }
            columns.push(Arc::new(self.attrs.finish()));
        }
        columns.push(Arc::new(self.event_times.finish()));
        columns.push(Arc::new(self.log_times.finish()));
        columns.push(Arc::new(self.sources.finish()));
        columns.push(Arc::new(self.partitions.finish()));
        columns.push(Arc::new(self.offsets.finish()));
        RecordBatch::try_new(self.schema.clone(), columns).map_err(|error| failed(error.into()))
    }
}

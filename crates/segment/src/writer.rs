//! Writing a segment.
//!
//! 1. `push` gathers records into slices of ≤ 1 MiB, which go to the Parquet
//!    writer; what the index needs (ids, positions, checksums) stays in
//!    memory. A row group closes at 8,192 rows or 16 MiB, because the Parquet
//!    writer holds a whole one.
//! 2. `delete` does the same with `deletes.parquet`, which is created by the
//!    first delete. All records come before all deletes, so ordinals are final
//!    the moment they are given.
//!    With lists (`set_lists`) the caller has encoded the records before and pushes them
//!    in list order, so that rows of a list lie side by side in the file too.
//! 3. `finish` closes the files, reads `data.parquet` back to map and verify its
//!    pages, and writes `index.vxi`.
//!
//! Memory: one slice, one row group (≤ 16 MiB of raw values), ~70 bytes + id per
//! entry. Invariant: files lie in a folder of their own that vanishes with the
//! writer or with [`Built`], so a failed flush leaves nothing behind. Durability
//! is the store's: [`upload`] returns only when the store has them.

use crate::columns::{GROUP_BYTES_MAX, GROUP_ROWS_MAX, ID_KEY, SLICE_BYTES_MAX, Slice, properties};
use crate::entries::Entries;
use crate::error::{Result, SegmentError};
use crate::index::Index;
use crate::meta::{DATA_FILE, DELETES_FILE, FileMeta, INDEX_FILE, SegmentMeta, SegmentSchema};
use crate::record::{Delete, Row};
use futures::future::try_join_all;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use ulid::Ulid;
use vexlake_index::ListsHead;
use vexlake_store::Store;

/// Writes one segment into a spool folder. Disk and CPU work without `await`:
/// drive it from a thread that may block.
pub struct SegmentWriter {
    schema: SegmentSchema,
    entries: Entries,
    data: ParquetFile,
    deletes: Option<ParquetFile>,
    /// The centroids' version, how many rows the lists hold, and the lists object.
    lists: Option<(Ulid, u32, Vec<u8>)>,
    folder: TempDir,
}

/// A finished segment, still local. Its spool files vanish when this is dropped.
#[derive(Debug)]
pub struct Built {
    /// What a commit says about it.
    pub meta: SegmentMeta,
    /// Each file and where it lies.
    pub files: Vec<(FileMeta, PathBuf)>,
    _folder: TempDir,
}

impl SegmentWriter {
    /// Starts a segment in a new folder below `dir`, which is created where it
    /// is missing. Fails on a dimension outside its limits or an unusable disk.
    pub fn create(dir: &Path, schema: &SegmentSchema) -> Result<Self> {
        schema.check()?;
        std::fs::create_dir_all(dir).map_err(SegmentError::io(dir))?;
        let folder = tempfile::Builder::new()
            .prefix("segment-")
            .tempdir_in(dir)
            .map_err(SegmentError::io(dir))?;
        let data =
            ParquetFile::create(folder.path(), DATA_FILE, Slice::of_rows(schema.dim), schema)?;
        Ok(Self {
            schema: *schema,
            entries: Entries::new(),
            data,
            deletes: None,
            lists: None,
            folder,
        })
    }

    /// Appends a record and answers its ordinal. The caller sees to it that an
    /// id comes once; `finish` refuses a second. Fails on a record outside the
    /// limits, after a delete, or on a full disk.
    pub fn push(&mut self, row: &Row<'_>) -> Result<u32> {
        row.check(&self.schema)?;
        let ordinal = self.entries.push(row)?;
        self.data.slice.push(row);
        self.data.write_full_slice()?;
        Ok(ordinal)
    }

    /// Appends a delete and answers its ordinal, after all records. Fails as
    /// [`SegmentWriter::push`].
    pub fn delete(&mut self, delete: &Delete<'_>) -> Result<u32> {
        delete.check()?;
        let ordinal = self.entries.delete(delete)?;
        let file = match &mut self.deletes {
            Some(file) => file,
            None => self.deletes.insert(ParquetFile::create(
                self.folder.path(),
                DELETES_FILE,
                Slice::of_deletes(),
                &self.schema,
            )?),
        };
        file.slice.delete(delete);
        file.write_full_slice()?;
        Ok(ordinal)
    }

    /// Gives the lists object of all records, which are pushed in the order of its slots.
    /// Fails where its slots are not ordinals.
    pub fn set_lists(&mut self, object: Vec<u8>) -> Result<()> {
        let head = ListsHead::decode(&object).map_err(SegmentError::lists)?;
        if !head.is_in_list_order() {
            return Err(SegmentError::invalid(
                "the order of rows",
                "another",
                "that of lists",
            ));
        }
        self.lists = Some((Ulid::from(head.version()), head.rows(), object));
        Ok(())
    }

    /// Records and deletes pushed so far.
    pub fn entries(&self) -> u32 {
        self.entries.len()
    }

    /// Names the segment, closes the files, derives the index and verifies that every vector can be
    /// found where the index says. O(segment); reads `data.parquet` once. Fails
    /// where an id was pushed twice. The name comes last, because the younger it is
    /// when it is committed, the fewer marks can have passed it.
    pub fn finish(self, id: Ulid) -> Result<Built> {
        let (data, data_path) = self.data.close(id)?;
        let mut files = vec![(data, data_path.clone())];
        if let Some(deletes) = self.deletes {
            files.push(deletes.close(id)?);
        }
        let data = File::open(&data_path).map_err(SegmentError::io(&data_path))?;
        let listed = self.lists.as_ref().map(|(_, rows, _)| *rows);
        if let Some(rows) = listed.filter(|rows| *rows != self.entries.rows) {
            let expected = format!("those in lists, {rows}");
            return Err(SegmentError::invalid(
                "the number of records",
                self.entries.rows,
                expected,
            ));
        }
        let (centroids, lists) = self
            .lists
            .map(|(version, _, object)| (version, object))
            .unzip();
        let index = Index::build(id, self.schema, self.entries, &data, lists)?;

        let path = self.folder.path().join(INDEX_FILE);
        let write = || {
            let out = ChecksumWriter::new(BufWriter::new(File::create(&path)?));
            index.write(out)
        };
        let (written, index_head_bytes) = write().map_err(SegmentError::io(&path))?;
        files.push((written.meta(INDEX_FILE), path));

        let (log_time_min, log_time_max) = index.entries.log_time_extent();
        let meta = SegmentMeta {
            id,
            rows: index.entries.rows,
            deletes: index.entries.deletes,
            files: files.iter().map(|(file, _)| file.clone()).collect(),
            index_head_bytes,
            log_time_min,
            log_time_max,
            hash: index.entries.hash,
            centroids,
            created_ms: id.timestamp_ms(),
        };
        Ok(Built {
            meta,
            files,
            _folder: self.folder,
        })
    }
}

/// Copies a built segment into a store scoped to `seg/<ulid>`, all files at
/// once; they are durable when this returns. Repeating it after a failure is
/// safe: names are written once and the bytes are the same.
pub async fn upload(store: &Store, built: &Built) -> Result<()> {
    let puts = built
        .files
        .iter()
        .map(|(file, path)| store.put_file(&file.name, path));
    try_join_all(puts).await?;
    Ok(())
}

/// One Parquet file being written, and the slice in front of it.
struct ParquetFile {
    name: &'static str,
    path: PathBuf,
    slice: Slice,
    writer: ArrowWriter<ChecksumWriter<File>>,
    group_rows: usize,
    group_bytes: usize,
}

impl ParquetFile {
    fn create(
        folder: &Path,
        name: &'static str,
        slice: Slice,
        schema: &SegmentSchema,
    ) -> Result<Self> {
        let path = folder.join(name);
        let file = File::create(&path).map_err(SegmentError::io(&path))?;
        let writer = ArrowWriter::try_new(
            ChecksumWriter::new(file),
            slice.schema(),
            Some(properties(schema)?),
        )
        .map_err(SegmentError::parquet(name))?;
        Ok(Self {
            name,
            path,
            slice,
            writer,
            group_rows: 0,
            group_bytes: 0,
        })
    }

    fn write_full_slice(&mut self) -> Result<()> {
        let is_full = self.slice.bytes() >= SLICE_BYTES_MAX
            || self.group_rows + self.slice.rows() >= GROUP_ROWS_MAX;
        if is_full { self.write_slice() } else { Ok(()) }
    }

    fn write_slice(&mut self) -> Result<()> {
        if self.slice.rows() == 0 {
            return Ok(());
        }
        self.group_rows += self.slice.rows();
        self.group_bytes += self.slice.bytes();
        let batch = self.slice.take()?;
        self.writer
            .write(&batch)
            .map_err(SegmentError::parquet(self.name))?;
        if self.group_rows >= GROUP_ROWS_MAX || self.group_bytes >= GROUP_BYTES_MAX {
            self.writer
                .flush()
                .map_err(SegmentError::parquet(self.name))?;
            (self.group_rows, self.group_bytes) = (0, 0);
        }
        Ok(())
    }

    fn close(mut self, id: Ulid) -> Result<(FileMeta, PathBuf)> {
        self.write_slice()?;
        let named = KeyValue::new(ID_KEY.to_string(), id.to_string());
        self.writer.append_key_value_metadata(named);
        // into_inner finishes the file: last row group, indexes, footer.
        let mut out = self
            .writer
            .into_inner()
            .map_err(SegmentError::parquet(self.name))?;
        out.flush().map_err(SegmentError::io(&self.path))?;
        Ok((out.meta(self.name), self.path))
    }
}

/// Counts and checksums what passes through.
pub(crate) struct ChecksumWriter<W> {
    out: W,
    crc32c: u32,
    bytes: u64,
}

impl<W: Write> ChecksumWriter<W> {
    pub(crate) fn new(out: W) -> Self {
        Self {
            out,
            crc32c: 0,
            bytes: 0,
        }
    }

    fn meta(&self, name: &str) -> FileMeta {
        FileMeta {
            name: name.to_string(),
            bytes: self.bytes,
            crc32c: self.crc32c,
        }
    }
}

impl<W: Write> Write for ChecksumWriter<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
}

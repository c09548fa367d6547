//! Attributes of chosen records: only the pages that hold them are read.
//!
//! 1. Ordinals become runs of rows; the page list names the pages they lie in.
//! 2. Those pages are fetched in one round and each compared with its checksum.
//! 3. parquet-rs's push decoder, which does no I/O of its own, decodes exactly
//!    the selected rows from them. The footer it needs is the index's copy, so
//!    nothing waits for a second round.

use super::SegmentReader;
use crate::cache::ReadCounts;
use crate::columns::ATTRS;
use crate::error::{Result, SegmentError};
use crate::index::Head;
use crate::meta::{DATA_FILE, INDEX_FILE};
use crate::pages::{Page, leaf};
use arrow_array::cast::AsArray;
use arrow_array::{Array, RecordBatch};
use bytes::Bytes;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaDataReader};
use std::ops::Range;

/// Rows per decoded batch: 1,024 × some hundred bytes stays in a core's cache.
const BATCH_ROWS: usize = 1024;
/// Rounds in which the decoder may ask for pages that step 2 did not foresee; it
/// asks once per row group at most, and for none today.
const ROUNDS_MAX: usize = 1 << 20;

/// The decoded footer and the pages of the attributes column.
pub(super) struct AttrsPages {
    footer: ArrowReaderMetadata,
    column: usize,
    /// In row order, which is file order.
    pages: Vec<Page>,
}

impl AttrsPages {
    fn open(head: &Head) -> Result<Self> {
        let failed = SegmentError::parquet(DATA_FILE);
        let mut reader = ParquetMetaDataReader::new()
            .with_offset_index_policy(PageIndexPolicy::Optional)
            .with_column_index_policy(PageIndexPolicy::Skip);
        let parsed = reader
            .try_parse_sized(&head.layout.tail, head.layout.file_bytes)
            .and_then(|()| reader.finish())
            .and_then(|footer| {
                ArrowReaderMetadata::try_new(footer.into(), ArrowReaderOptions::new())
            });
        let footer = match parsed {
            Ok(footer) => footer,
            Err(error) => return Err(failed(error)),
        };
        let Some(column) = leaf(footer.metadata(), ATTRS) else {
            return Err(SegmentError::corrupt(
                DATA_FILE,
                "footer",
                head.layout.tail_at,
                "no attrs column",
            ));
        };
        let is_attrs = |page: &&Page| page.column as usize == column;
        let pages = head.layout.pages.iter().filter(is_attrs).copied().collect();
        Ok(Self {
            footer,
            column,
            pages,
        })
    }

    /// Bytes held, near enough: the decoded footer is about three times its bytes.
    pub(super) fn memory_bytes(&self, tail_bytes: usize) -> usize {
        self.pages.len() * size_of::<Page>() + 3 * tail_bytes
    }

    /// The pages that hold any of the rows, as runs of pages that touch each
    /// other in the file. `rows` ascend.
    fn plan_reads(&self, rows: &[Range<u32>]) -> Vec<Range<usize>> {
        let mut runs: Vec<Range<usize>> = vec![];
        for range in rows {
            let first = self
                .pages
                .partition_point(|page| page.first_row <= range.start)
                .saturating_sub(1);
            let end = self
                .pages
                .partition_point(|page| page.first_row < range.end);
            for page in first..end {
                let touches = |last: &Range<usize>| {
                    let before = &self.pages[last.end - 1];
                    last.end == page && before.at + u64::from(before.bytes) == self.pages[page].at
                };
                match runs.last_mut() {
                    Some(last) if last.end > page => {}
                    Some(last) if touches(last) => last.end = page + 1,
                    _ => runs.push(page..page + 1),
                }
            }
        }
        runs
    }

    /// The pages that cover exactly these bytes.
    fn pages_of(&self, bytes: &Range<u64>) -> Result<Range<usize>> {
        let first = self.pages.partition_point(|page| page.at < bytes.start);
        let end = self.pages.partition_point(|page| page.at < bytes.end);
        let pages = &self.pages[first..end];
        let covers = pages.first().is_some_and(|page| page.at == bytes.start)
            && pages
                .last()
                .is_some_and(|page| page.at + u64::from(page.bytes) == bytes.end);
        if covers {
            return Ok(first..end);
        }
        let message = format!("bytes {bytes:?} are not whole pages");
        Err(SegmentError::corrupt(INDEX_FILE, "pages", 0, message))
    }

    fn bytes_of(&self, run: &Range<usize>) -> Range<u64> {
        let last = &self.pages[run.end - 1];
        self.pages[run.start].at..last.at + u64::from(last.bytes)
    }

    fn check(&self, run: &Range<usize>, bytes: &Bytes) -> Result<()> {
        let mut rest = &bytes[..];
        for page in &self.pages[run.clone()] {
            let damaged = |message: String| {
                Err(SegmentError::corrupt(
                    DATA_FILE,
                    "page of column attrs",
                    page.at,
                    message,
                ))
            };
            let Some((bytes, after)) = rest.split_at_checked(page.bytes as usize) else {
                return damaged(format!("{} bytes instead of {}", rest.len(), page.bytes));
            };
            let crc = crc32c::crc32c(bytes);
            if crc != page.crc32c {
                return damaged(format!("checksum {crc:08x}, expected {:08x}", page.crc32c));
            }
            rest = after;
        }
        Ok(())
    }

    /// A decoder for exactly these rows, without any bytes yet.
    fn decoder(
        &self,
        rows: &[Range<u32>],
    ) -> std::result::Result<ParquetPushDecoder, parquet::errors::ParquetError> {
        let mut groups = vec![];
        let mut selected: Vec<Range<usize>> = vec![];
        let (mut group_start, mut rows_before) = (0usize, 0usize);
        for (number, group) in self.footer.metadata().row_groups().iter().enumerate() {
            let group_rows = group.num_rows() as usize;
            let group_end = group_start + group_rows;
            let first = rows.partition_point(|range| range.end as usize <= group_start);
            let mut is_needed = false;
            for range in rows[first..]
                .iter()
                .take_while(|range| (range.start as usize) < group_end)
            {
                let start = (range.start as usize).max(group_start) - group_start;
                let end = (range.end as usize).min(group_end) - group_start;
                selected.push(rows_before + start..rows_before + end);
                is_needed = true;
            }
            if is_needed {
                groups.push(number);
                rows_before += group_rows;
            }
            group_start = group_end;
        }
        let schema = self.footer.metadata().file_metadata().schema_descr();
        ParquetPushDecoderBuilder::new_with_metadata(self.footer.clone())
            .with_projection(ProjectionMask::leaves(schema, [self.column]))
            .with_row_groups(groups)
            .with_row_selection(RowSelection::from_consecutive_ranges(
                selected.into_iter(),
                rows_before,
            ))
            .with_batch_size(BATCH_ROWS)
            .build()
    }
}

impl SegmentReader {
    /// The attributes of records in the order asked; None where a record has
    /// none, and for deletes. Reads only the pages that hold them, in one round, and counts
    /// them. Fails with Invalid beyond `entries`.
    pub async fn attrs(
        &self,
        ordinals: &[u32],
        counts: &ReadCounts,
    ) -> Result<Vec<Option<String>>> {
        let mut rows: Vec<u32> = vec![];
        for ordinal in ordinals {
            if *ordinal >= self.entries() {
                let expected = format!("below {}", self.entries());
                return Err(SegmentError::invalid("an ordinal", ordinal, expected));
            }
            if !self.is_delete(*ordinal) {
                rows.push(*ordinal);
            }
        }
        rows.sort_unstable();
        rows.dedup();
        let ranges: Vec<Range<u32>> = rows
            .chunk_by(|a, b| a + 1 == *b)
            .map(|run| run[0]..run[0] + run.len() as u32)
            .collect();
        let found = self.attrs_between(&ranges, counts).await?;
        let attrs_of = |ordinal: &u32| {
            rows.binary_search(ordinal)
                .ok()
                .and_then(|place| found[place].clone())
        };
        Ok(ordinals.iter().map(attrs_of).collect())
    }

    /// The attributes of ascending, disjoint, non-empty ranges of records.
    pub(super) async fn attrs_between(
        &self,
        rows: &[Range<u32>],
        counts: &ReadCounts,
    ) -> Result<Vec<Option<String>>> {
        let count: usize = rows.iter().map(ExactSizeIterator::len).sum();
        let mut found = Vec::with_capacity(count);
        if count == 0 {
            return Ok(found);
        }
        let pages = self.attrs_pages()?;
        let failed = |error| SegmentError::parquet(DATA_FILE)(error);
        let mut decoder = pages.decoder(rows).map_err(failed)?;
        self.fetch(pages, pages.plan_reads(rows), &mut decoder, counts)
            .await?;
        for _ in 0..ROUNDS_MAX {
            match decoder.try_decode().map_err(failed)? {
                DecodeResult::Data(batch) => append(&batch, &mut found)?,
                DecodeResult::NeedsData(ranges) => {
                    let runs = ranges
                        .iter()
                        .map(|range| pages.pages_of(range))
                        .collect::<Result<_>>()?;
                    self.fetch(pages, runs, &mut decoder, counts).await?;
                }
                DecodeResult::Finished => break,
            }
        }
        if found.len() != count {
            let message = format!("{} values decoded instead of {count}", found.len());
            return Err(SegmentError::corrupt(DATA_FILE, "column attrs", 0, message));
        }
        Ok(found)
    }

    /// The footer is decoded by whoever needs it first; two at once both decode
    /// and one wins, which is cheaper than a lock held across work.
    fn attrs_pages(&self) -> Result<&AttrsPages> {
        if let Some(pages) = self.0.attrs.get() {
            return Ok(pages);
        }
        let pages = AttrsPages::open(&self.0.head)?;
        Ok(self.0.attrs.get_or_init(|| pages))
    }

    async fn fetch(
        &self,
        pages: &AttrsPages,
        runs: Vec<Range<usize>>,
        decoder: &mut ParquetPushDecoder,
        counts: &ReadCounts,
    ) -> Result<()> {
        let ranges: Vec<Range<u64>> = runs.iter().map(|run| pages.bytes_of(run)).collect();
        let parts = self.0.store.get_ranges(DATA_FILE, &ranges).await?;
        let pages_read = runs.iter().map(|run| run.len() as u64).sum();
        let bytes = parts.iter().map(|part| part.len() as u64).sum();
        counts.add_loaded(pages_read, self.0.store.requests_for(&ranges), bytes);
        for (run, bytes) in runs.iter().zip(&parts) {
            pages.check(run, bytes)?;
        }
        decoder
            .push_ranges(ranges, parts)
            .map_err(SegmentError::parquet(DATA_FILE))
    }
}

fn append(batch: &RecordBatch, found: &mut Vec<Option<String>>) -> Result<()> {
    let attrs = batch
        .columns()
        .first()
        .and_then(|column| column.as_string_opt::<i32>());
    let Some(attrs) = attrs else {
        return Err(SegmentError::corrupt(
            DATA_FILE,
            "column attrs",
            0,
            "not a string column",
        ));
    };
    found.extend(
        (0..attrs.len()).map(|row| attrs.is_valid(row).then(|| attrs.value(row).to_string())),
    );
    Ok(())
}

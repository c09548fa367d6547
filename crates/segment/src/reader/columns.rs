//! Columns of attributes: what a filter reads to tell which records pass.

use super::SegmentReader;
use crate::cache::ReadCounts;
use crate::error::{Result, SegmentError};
use crate::index::Section;
use bytes::Bytes;
use vexlake_index::{CHUNK_ROWS, Column, Filter};

/// The columns that a filter names, in memory.
pub struct FilterColumns {
    rows: u32,
    chunks: Vec<Chunk>,
}

struct Chunk {
    rows: u32,
    is_complete: bool,
    /// By the filter's fields; None where no row of the chunk has the field.
    columns: Vec<Option<Bytes>>,
}

/// Which records pass a filter: bit per row, 64 to a word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Those that do.
    pub pass: Vec<u64>,
    /// Those of which only the text of their attributes can tell; none of them is in `pass`.
    pub unknown: Vec<u64>,
}

impl SegmentReader {
    /// The columns that a filter names, through the cache: one round of reads for those
    /// that it lacks.
    pub async fn filter_columns(
        &self,
        filter: &Filter,
        counts: &ReadCounts,
    ) -> Result<FilterColumns> {
        let attributes = &self.0.head.attributes;
        let numbered = attributes.chunks().enumerate();
        let chunks: Vec<(u32, bool, Vec<Option<u32>>)> = numbered
            .map(|(chunk, (rows, is_complete))| {
                let page = |field: &String| attributes.page_of(field, chunk as u32);
                let pages = filter.fields().iter().map(page).collect();
                (rows, is_complete, pages)
            })
            .collect();
        let mut wanted: Vec<u32> = chunks
            .iter()
            .flat_map(|(.., pages)| pages.iter().flatten().copied())
            .collect();
        wanted.sort_unstable();
        let read = self
            .counted_pages(Section::Attributes, &wanted, counts)
            .await?;
        let column_of = |page: u32| {
            let place = wanted.binary_search(&page);
            place.ok().map(|place| read[place].clone())
        };
        let chunks = chunks.into_iter().map(|(rows, is_complete, pages)| Chunk {
            rows,
            is_complete,
            columns: pages
                .into_iter()
                .map(|page| page.and_then(column_of))
                .collect(),
        });
        Ok(FilterColumns {
            rows: self.rows(),
            chunks: chunks.collect(),
        })
    }
}

impl FilterColumns {
    /// Evaluates the filter that they were read for. O(rows).
    pub fn evaluate(&self, filter: &Filter) -> Result<Passed> {
        let words = self.rows.div_ceil(64) as usize;
        let (mut pass, mut unknown) = (vec![0; words], vec![0; words]);
        let chunk_words = CHUNK_ROWS as usize / 64;
        let places = pass
            .chunks_mut(chunk_words)
            .zip(unknown.chunks_mut(chunk_words));
        for (chunk, (pass, unknown)) in self.chunks.iter().zip(places) {
            let mut columns = Vec::with_capacity(chunk.columns.len());
            for bytes in &chunk.columns {
                let column = bytes
                    .as_deref()
                    .map(|bytes| Column::decode(bytes, chunk.rows));
                columns.push(column.transpose().map_err(SegmentError::attributes)?);
            }
            filter.evaluate(&columns, chunk.is_complete, chunk.rows, pass, unknown);
        }
        Ok(Passed { pass, unknown })
    }
}

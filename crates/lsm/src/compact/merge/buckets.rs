//! Rows on their way into another order, under a memory cap.
//!
//! Where each row goes is known before it is read. So rows are dealt into buckets by
//! place, each of which holds a stretch of the output that fits the memory; then bucket
//! after bucket is read back, put in order and written. One bucket alone stays in memory,
//! several lie in anonymous files of the spool.
//!
//! Limits: the caller's rows a bucket. As the codes of all rows fit half the memory and a
//! bucket takes a quarter, vectors of 32 times a code make some 40 files at most.

use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};
use std::path::Path;

use vexlake_segment::{Position, Row};

use crate::error::{Error, Result};

/// Bytes of a row before its texts and its vector: place, lengths of both texts, event time
/// and whether there is one, position.
const HEAD_BYTES: usize = 4 + 4 + 4 + 8 + 1 + 4 + 8 + 4 + 8;
/// Length of attributes that are not there; real ones are far shorter.
const NO_ATTRS: u32 = u32::MAX;

enum Bucket {
    Memory(Vec<u8>),
    File(BufWriter<File>),
}

/// See the file header.
pub(super) struct Buckets {
    rows_each: u32,
    buckets: Vec<Bucket>,
}

impl Buckets {
    /// For `rows` rows with places from 0 on, `rows_each` of them in memory at once.
    pub(super) fn new(spool: &Path, rows: u32, rows_each: u32) -> Result<Self> {
        let count = rows.div_ceil(rows_each);
        let bucket = |_| match count {
            1 => Ok(Bucket::Memory(Vec::new())),
            _ => {
                let file = tempfile::tempfile_in(spool);
                Ok(Bucket::File(BufWriter::new(file.map_err(failed)?)))
            }
        };
        Ok(Self {
            rows_each,
            buckets: (0..count).map(bucket).collect::<Result<_>>()?,
        })
    }

    /// Takes a row that is to come to `place`.
    pub(super) fn push(&mut self, place: u32, row: &Row<'_>) -> Result<()> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        let attrs = row.attrs.map_or(NO_ATTRS, |attrs| attrs.len() as u32);
        for word in [place, row.id.len() as u32, attrs] {
            head.extend_from_slice(&word.to_le_bytes());
        }
        head.extend_from_slice(&row.event_time.unwrap_or(0).to_le_bytes());
        head.push(u8::from(row.event_time.is_some()));
        head.extend_from_slice(&row.position.source.to_le_bytes());
        head.extend_from_slice(&row.position.log_time.to_le_bytes());
        head.extend_from_slice(&row.position.partition.to_le_bytes());
        head.extend_from_slice(&row.position.offset.to_le_bytes());
        let vector: Vec<u8> = row.vector.iter().flat_map(|x| x.to_le_bytes()).collect();
        let attrs = row.attrs.unwrap_or_default();
        let bucket = &mut self.buckets[(place / self.rows_each) as usize];
        for part in [&head, row.id.as_bytes(), attrs.as_bytes(), &vector] {
            match bucket {
                Bucket::Memory(bytes) => bytes.extend_from_slice(part),
                Bucket::File(file) => file.write_all(part).map_err(failed)?,
            }
        }
        Ok(())
    }

    /// Visits all rows in the order of their places.
    pub(super) fn each_row(
        self,
        dim: u32,
        mut visit: impl FnMut(Row<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut vector = vec![0.0f32; dim as usize];
        for bucket in self.buckets {
            let bytes = match bucket {
                Bucket::Memory(bytes) => bytes,
                Bucket::File(file) => {
                    let mut file = file
                        .into_inner()
                        .map_err(|error| failed(error.into_error()))?;
                    file.rewind().map_err(failed)?;
                    let mut bytes = Vec::new();
                    file.read_to_end(&mut bytes).map_err(failed)?;
                    bytes
                }
            };
            let mut rows: Vec<Dealt<'_>> = Vec::new();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let row;
                (row, rest) = Dealt::split(rest, vector.len() * 4).ok_or_else(cut_off)?;
                rows.push(row);
            }
            rows.sort_unstable_by_key(|row| row.place);
            for row in rows {
                let floats = row.vector.as_chunks::<4>().0;
                for (to, from) in vector.iter_mut().zip(floats) {
                    *to = f32::from_le_bytes(*from);
                }
                visit(Row {
                    id: row.id,
                    vector: &vector,
                    attrs: row.attrs,
                    event_time: row.event_time,
                    position: row.position,
                })?;
            }
        }
        Ok(())
    }
}

/// A row in its bucket.
struct Dealt<'a> {
    place: u32,
    id: &'a str,
    attrs: Option<&'a str>,
    vector: &'a [u8],
    event_time: Option<i64>,
    position: Position,
}

impl<'a> Dealt<'a> {
    /// The first row of a bucket's bytes, and what follows it.
    fn split(bytes: &'a [u8], vector_bytes: usize) -> Option<(Self, &'a [u8])> {
        let mut rest = bytes;
        let place = u32::from_le_bytes(take(&mut rest)?);
        let id_bytes = u32::from_le_bytes(take(&mut rest)?);
        let attrs_bytes = u32::from_le_bytes(take(&mut rest)?);
        let event_time = i64::from_le_bytes(take(&mut rest)?);
        let [has_event_time] = take(&mut rest)?;
        let position = Position {
            source: u32::from_le_bytes(take(&mut rest)?),
            log_time: i64::from_le_bytes(take(&mut rest)?),
            partition: u32::from_le_bytes(take(&mut rest)?),
            offset: u64::from_le_bytes(take(&mut rest)?),
        };
        let (id, rest) = rest.split_at_checked(id_bytes as usize)?;
        let (attrs, rest) = match attrs_bytes {
            NO_ATTRS => (None, rest),
            length => {
                let (attrs, rest) = rest.split_at_checked(length as usize)?;
                (Some(std::str::from_utf8(attrs).ok()?), rest)
            }
        };
        let (vector, rest) = rest.split_at_checked(vector_bytes)?;
        let row = Self {
            place,
            id: std::str::from_utf8(id).ok()?,
            attrs,
            vector,
            event_time: (has_event_time == 1).then_some(event_time),
            position,
        };
        Some((row, rest))
    }
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

fn failed(error: std::io::Error) -> Error {
    Error::Unavailable(format!("spool of a merge: {error}"))
}

fn cut_off() -> Error {
    Error::Internal("a row of a merge's spool is cut off".to_owned())
}

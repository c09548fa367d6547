//! The file around the sections: header, 64-byte-aligned sections, directory,
//! trailer. All integers little endian.
//!
//! ```text
//! header     64 B  "VXI1", version u32 = 2, segment id u128, zeros, crc32c of the first 60;
//!                  says to people and tools what the file is, readers go by the trailer
//! sections   ...   raw bytes; each starts at a multiple of 64, zeros before it:
//!                  first the lazy ones, of which readers fetch pages when asked,
//!                  then the resident ones, which readers hold
//! directory  24 B per section: kind u32, crc32c u32, offset u64, length u64
//! trailer    64 B  directory offset u64, file length u64, head offset u64, segment id u128,
//!                  sections u32, crc32c of directory and the 44 bytes before u32, zeros,
//!                  version u32 = 2, "VXI1"
//! ```
//! The *head* is everything from the head offset on: the resident sections, directory
//! and trailer. Commits say how long it is, so that one ranged read of the file's end
//! opens a segment, whatever lazy sections are added before it.
//!
//! Kinds that this program does not know are skipped unread: later formats add
//! sections without a new version. The version changes
//! only when an old reader would misread what it knows. Format 1 had zeros where the
//! trailer's version is; its files are derived again from Parquet.

use crate::error::{Result, SegmentError};
use crate::meta::INDEX_FILE;
use bytemuck::{Pod, cast_slice_mut};
use std::io::Write;
use std::ops::Range;
use ulid::Ulid;

const MAGIC: &[u8; 4] = b"VXI1";
const VERSION: u32 = 2;
pub(super) const HEADER_BYTES: usize = 64;
pub(super) const TRAILER_BYTES: usize = 64;
const DIRECTORY_ENTRY_BYTES: usize = 24;
/// What the trailer's checksum covers of it.
const TRAILER_CHECKED_BYTES: usize = 44;
/// A cache line, and what AVX-512 loads like.
const ALIGNMENT: u64 = 64;
/// Sections in one file; 13 today.
const SECTIONS_MAX: usize = 256;

/// Number and name of a kind of section.
pub(super) type Kind = (u32, &'static str);

/// Writes a file front to back; nothing is sought, nothing is held but the directory.
pub(super) struct ContainerWriter<W: Write> {
    out: W,
    id: Ulid,
    at: u64,
    head_at: u64,
    directory: Vec<u8>,
    sections: u32,
}

impl<W: Write> ContainerWriter<W> {
    pub(super) fn new(out: W, id: Ulid) -> std::io::Result<Self> {
        let mut header = [0u8; HEADER_BYTES];
        header[..4].copy_from_slice(MAGIC);
        header[4..8].copy_from_slice(&VERSION.to_le_bytes());
        header[8..24].copy_from_slice(&u128::from(id).to_le_bytes());
        let crc = crc32c::crc32c(&header[..60]);
        header[60..].copy_from_slice(&crc.to_le_bytes());
        let mut writer = Self {
            out,
            id,
            at: 0,
            head_at: 0,
            directory: vec![],
            sections: 0,
        };
        writer.write(&header)?;
        Ok(writer)
    }

    /// Appends one section made of parts.
    pub(super) fn section(
        &mut self,
        kind: Kind,
        parts: impl IntoIterator<Item: AsRef<[u8]>>,
    ) -> std::io::Result<()> {
        self.align()?;
        let at = self.at;
        let mut crc = 0;
        for part in parts {
            crc = crc32c::crc32c_append(crc, part.as_ref());
            self.write(part.as_ref())?;
        }
        self.directory.extend_from_slice(&kind.0.to_le_bytes());
        self.directory.extend_from_slice(&crc.to_le_bytes());
        self.directory.extend_from_slice(&at.to_le_bytes());
        self.directory
            .extend_from_slice(&(self.at - at).to_le_bytes());
        self.sections += 1;
        Ok(())
    }

    /// Ends the lazy sections: what is written from here on is resident.
    pub(super) fn begin_head(&mut self) -> std::io::Result<()> {
        self.align()?;
        self.head_at = self.at;
        Ok(())
    }

    /// Writes directory and trailer, flushes, and gives back the output and the
    /// length of the head.
    pub(super) fn finish(mut self) -> std::io::Result<(W, u64)> {
        self.align()?;
        let directory = std::mem::take(&mut self.directory);
        let at = self.at;
        let file_bytes = at + (directory.len() + TRAILER_BYTES) as u64;
        self.write(&directory)?;
        let mut trailer = [0u8; TRAILER_BYTES];
        trailer[..8].copy_from_slice(&at.to_le_bytes());
        trailer[8..16].copy_from_slice(&file_bytes.to_le_bytes());
        trailer[16..24].copy_from_slice(&self.head_at.to_le_bytes());
        trailer[24..40].copy_from_slice(&u128::from(self.id).to_le_bytes());
        trailer[40..44].copy_from_slice(&self.sections.to_le_bytes());
        let crc = trailer_crc(&directory, &trailer);
        trailer[44..48].copy_from_slice(&crc.to_le_bytes());
        trailer[56..60].copy_from_slice(&VERSION.to_le_bytes());
        trailer[60..].copy_from_slice(MAGIC);
        self.write(&trailer)?;
        self.out.flush()?;
        Ok((self.out, file_bytes - self.head_at))
    }

    fn align(&mut self) -> std::io::Result<()> {
        let zeros = self.at.next_multiple_of(ALIGNMENT) - self.at;
        self.write(&[0; ALIGNMENT as usize][..zeros as usize])
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.at += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

fn trailer_crc(directory: &[u8], trailer: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(directory), &trailer[..TRAILER_CHECKED_BYTES])
}

/// One section as the directory names it.
#[derive(Clone)]
struct Section {
    kind: u32,
    crc32c: u32,
    at: Range<u64>,
}

/// The parsed end of a file: trailer and directory are right, resident sections lie
/// in the bytes at hand and lazy ones before the head.
pub(super) struct Container<'a> {
    pub(super) id: Ulid,
    sections: Vec<Section>,
    head_at: u64,
    /// The last bytes of the file, and where they begin in it.
    end: &'a [u8],
    end_at: u64,
}

impl<'a> Container<'a> {
    /// Checks everything around the sections. `end` is the end of a file of
    /// `file_bytes` bytes: its head, or more.
    pub(super) fn open(end: &'a [u8], file_bytes: u64) -> Result<Self> {
        let Some(end_at) = file_bytes.checked_sub(end.len() as u64) else {
            return damaged("trailer", 0, format!("longer than {file_bytes} bytes"));
        };
        if end.len() < TRAILER_BYTES {
            return damaged("trailer", end_at, format!("{} bytes", end.len()));
        }
        let (before, trailer) = end.split_at(end.len() - TRAILER_BYTES);
        let trailer_at = file_bytes - TRAILER_BYTES as u64;
        if trailer[60..] != *MAGIC || u32_at(trailer, 56) != VERSION {
            let message = format!(
                "version {}, this program reads {VERSION}",
                u32_at(trailer, 56)
            );
            return damaged("trailer", trailer_at + 56, message);
        }
        let [directory_at, length, head_at] = [0, 8, 16].map(|at| u64_at(trailer, at));
        let count = u32_at(trailer, 40) as usize;
        let directory_bytes = (count as u64).saturating_mul(DIRECTORY_ENTRY_BYTES as u64);
        let is_placed = length == file_bytes
            && count <= SECTIONS_MAX
            && directory_at.checked_add(directory_bytes) == Some(trailer_at)
            && end_at <= head_at
            && head_at <= directory_at;
        if !is_placed {
            let message = format!(
                "{length} bytes, head at {head_at}, {count} sections listed at {directory_at}; \
                 the last {} of {file_bytes} bytes are at hand",
                end.len()
            );
            return damaged("trailer", trailer_at, message);
        }
        let directory = &before[(directory_at - end_at) as usize..];
        if trailer_crc(directory, trailer) != u32_at(trailer, 44) {
            return damaged("directory", directory_at, "checksum does not match".into());
        }
        let mut sections: Vec<Section> = Vec::with_capacity(count);
        for entry in directory.chunks_exact(DIRECTORY_ENTRY_BYTES) {
            let (kind, at, length) = (u32_at(entry, 0), u64_at(entry, 8), u64_at(entry, 16));
            let limit = if at < head_at { head_at } else { directory_at };
            let end = at.checked_add(length).filter(|end| *end <= limit);
            let Some(end) = end.filter(|_| at >= HEADER_BYTES as u64 && at % ALIGNMENT == 0) else {
                let message = format!("section {kind} at {at}, {length} bytes");
                return damaged("directory", directory_at, message);
            };
            if sections.iter().any(|other| other.kind == kind) {
                return damaged("directory", directory_at, format!("section {kind} twice"));
            }
            sections.push(Section {
                kind,
                crc32c: u32_at(entry, 4),
                at: at..end,
            });
        }
        Ok(Self {
            id: Ulid::from(u128::from(u64_at(trailer, 24)) | u128::from(u64_at(trailer, 32)) << 64),
            sections,
            head_at,
            end,
            end_at,
        })
    }

    fn find(&self, kind: Kind) -> Result<&Section> {
        let found = self.sections.iter().find(|section| section.kind == kind.0);
        found.ok_or_else(|| SegmentError::corrupt(INDEX_FILE, kind.1, 0, "section is missing"))
    }

    /// Whether the file has a section.
    pub(super) fn has(&self, kind: Kind) -> bool {
        self.sections.iter().any(|section| section.kind == kind.0)
    }

    /// The bytes of a resident section and their offset, its checksum verified.
    pub(super) fn resident(&self, kind: Kind) -> Result<(&'a [u8], u64)> {
        let section = self.find(kind)?;
        let Some(start) = section.at.start.checked_sub(self.end_at) else {
            return damaged(kind.1, section.at.start, "before the head".into());
        };
        let length = section.at.end - section.at.start;
        let bytes = &self.end[start as usize..(start + length) as usize];
        let crc = crc32c::crc32c(bytes);
        if crc != section.crc32c {
            let message = format!("checksum {crc:08x}, expected {:08x}", section.crc32c);
            return damaged(kind.1, section.at.start, message);
        }
        Ok((bytes, section.at.start))
    }

    /// Where a lazy section lies; its pages are checked one by one.
    pub(super) fn lazy(&self, kind: Kind) -> Result<Range<u64>> {
        let section = self.find(kind)?;
        if section.at.start >= self.head_at && !section.at.is_empty() {
            return damaged(kind.1, section.at.start, "inside the head".into());
        }
        Ok(section.at.clone())
    }
}

fn damaged<T>(section: &str, at: u64, message: String) -> Result<T> {
    Err(SegmentError::corrupt(INDEX_FILE, section, at, message))
}

/// The integer at an offset that the caller knows to be inside.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// The integer at an offset that the caller knows to be inside.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

/// Whole values of one type; a rest that is no whole value is the caller's to refuse.
pub(super) fn column<T: Pod>(bytes: &[u8]) -> Vec<T> {
    let mut values = vec![T::zeroed(); bytes.len() / size_of::<T>()];
    cast_slice_mut(&mut values).copy_from_slice(bytes);
    values
}

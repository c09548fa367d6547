//! The file around the sections: header, 64-byte-aligned sections, directory,
//! trailer. All integers little endian.
//!
//! ```text
//! header     64 B  "VXI1", version u32 = 1, segment id u128, zeros, crc32c of the first 60
//! section    ...   raw bytes; starts at a multiple of 64, zeros before it
//! directory  24 B per section: kind u32, crc32c u32, offset u64, length u64
//! trailer    32 B  directory offset u64, file length u64, sections u32,
//!                  crc32c of directory and the 20 bytes before u32, zeros, "VXI1"
//! ```
//! Kinds that this program does not know are skipped unread: later formats add
//! sections (inverted lists, codes) without a new version. The version changes
//! only when an old reader would misread what it knows.

use crate::error::{Result, SegmentError};
use crate::meta::INDEX_FILE;
use std::io::Write;
use ulid::Ulid;

const MAGIC: &[u8; 4] = b"VXI1";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 64;
const TRAILER_BYTES: usize = 32;
const DIRECTORY_ENTRY_BYTES: usize = 24;
/// A cache line, and what AVX-512 loads like.
const ALIGNMENT: u64 = 64;
/// Sections in one file; 12 today.
const SECTIONS_MAX: usize = 256;

/// Writes a file front to back; nothing is sought, nothing is held but the directory.
pub(crate) struct ContainerWriter<W: Write> {
    out: W,
    at: u64,
    directory: Vec<u8>,
    sections: u32,
}

impl<W: Write> ContainerWriter<W> {
    pub(crate) fn new(out: W, id: Ulid) -> std::io::Result<Self> {
        let mut header = [0u8; HEADER_BYTES];
        header[..4].copy_from_slice(MAGIC);
        header[4..8].copy_from_slice(&VERSION.to_le_bytes());
        header[8..24].copy_from_slice(&u128::from(id).to_le_bytes());
        let crc = crc32c::crc32c(&header[..60]);
        header[60..].copy_from_slice(&crc.to_le_bytes());
        let mut writer = Self {
            out,
            at: 0,
            directory: vec![],
            sections: 0,
        };
        writer.write(&header)?;
        Ok(writer)
    }

    /// Appends one section made of parts.
    pub(crate) fn section(&mut self, kind: u32, parts: &[&[u8]]) -> std::io::Result<()> {
        self.align()?;
        let at = self.at;
        let mut crc = 0;
        for part in parts {
            crc = crc32c::crc32c_append(crc, part);
            self.write(part)?;
        }
        self.directory.extend_from_slice(&kind.to_le_bytes());
        self.directory.extend_from_slice(&crc.to_le_bytes());
        self.directory.extend_from_slice(&at.to_le_bytes());
        self.directory
            .extend_from_slice(&(self.at - at).to_le_bytes());
        self.sections += 1;
        Ok(())
    }

    /// Writes directory and trailer, flushes, and gives the output back.
    pub(crate) fn finish(mut self) -> std::io::Result<W> {
        self.align()?;
        let directory = std::mem::take(&mut self.directory);
        let at = self.at;
        let file_bytes = at + (directory.len() + TRAILER_BYTES) as u64;
        self.write(&directory)?;
        let mut trailer = [0u8; TRAILER_BYTES];
        trailer[..8].copy_from_slice(&at.to_le_bytes());
        trailer[8..16].copy_from_slice(&file_bytes.to_le_bytes());
        trailer[16..20].copy_from_slice(&self.sections.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(&directory), &trailer[..20]);
        trailer[20..24].copy_from_slice(&crc.to_le_bytes());
        trailer[28..].copy_from_slice(MAGIC);
        self.write(&trailer)?;
        self.out.flush()?;
        Ok(self.out)
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

/// One section of a parsed file, its checksum not looked at yet.
#[derive(Clone, Copy)]
struct Section<'a> {
    kind: u32,
    crc32c: u32,
    at: u64,
    bytes: &'a [u8],
}

/// A parsed file: header, trailer and directory are right, sections are in it.
pub(crate) struct Container<'a> {
    pub(crate) id: Ulid,
    sections: Vec<Section<'a>>,
}

impl<'a> Container<'a> {
    /// Checks everything around the sections.
    pub(crate) fn open(file: &'a [u8]) -> Result<Self> {
        let damaged = |section: &str, at: usize, message: String| {
            Err(SegmentError::corrupt(
                INDEX_FILE, section, at as u64, message,
            ))
        };
        if file.len() < HEADER_BYTES + TRAILER_BYTES {
            return damaged("header", 0, format!("{} bytes are no index", file.len()));
        }
        let header = &file[..HEADER_BYTES];
        if header[..4] != *MAGIC || u32_at(header, 60) != crc32c::crc32c(&header[..60]) {
            return damaged("header", 0, "magic or checksum does not match".to_string());
        }
        if u32_at(header, 4) != VERSION {
            return damaged(
                "header",
                4,
                format!(
                    "version {}, this program reads {VERSION}",
                    u32_at(header, 4)
                ),
            );
        }
        let trailer_at = file.len() - TRAILER_BYTES;
        let trailer = &file[trailer_at..];
        let (directory_at, file_bytes) = (u64_at(trailer, 0), u64_at(trailer, 8));
        let count = u32_at(trailer, 16) as usize;
        if trailer[28..] != *MAGIC || file_bytes != file.len() as u64 || count > SECTIONS_MAX {
            let message = format!(
                "{file_bytes} bytes, {count} sections, in a file of {} bytes",
                file.len()
            );
            return damaged("trailer", trailer_at, message);
        }
        if directory_at.checked_add((count * DIRECTORY_ENTRY_BYTES) as u64)
            != Some(trailer_at as u64)
        {
            return damaged(
                "trailer",
                trailer_at,
                format!("a directory at {directory_at}"),
            );
        }
        let directory = &file[directory_at as usize..trailer_at];
        let crc = crc32c::crc32c_append(crc32c::crc32c(directory), &trailer[..20]);
        if crc != u32_at(trailer, 20) {
            return damaged(
                "directory",
                directory_at as usize,
                "checksum does not match".to_string(),
            );
        }
        let mut sections = Vec::with_capacity(count);
        for entry in directory.chunks_exact(DIRECTORY_ENTRY_BYTES) {
            let (kind, at, length) = (u32_at(entry, 0), u64_at(entry, 8), u64_at(entry, 16));
            let end = at.checked_add(length).filter(|end| *end <= directory_at);
            let Some(end) = end.filter(|_| at >= HEADER_BYTES as u64 && at % ALIGNMENT == 0) else {
                return damaged(
                    "directory",
                    directory_at as usize,
                    format!("section {kind} at {at}, {length} bytes"),
                );
            };
            if sections
                .iter()
                .any(|other: &Section<'_>| other.kind == kind)
            {
                return damaged(
                    "directory",
                    directory_at as usize,
                    format!("section {kind} twice"),
                );
            }
            sections.push(Section {
                kind,
                crc32c: u32_at(entry, 4),
                at,
                bytes: &file[at as usize..end as usize],
            });
        }
        Ok(Self {
            id: Ulid::from(u128::from(u64_at(header, 8)) | u128::from(u64_at(header, 16)) << 64),
            sections,
        })
    }

    /// The bytes of a section and their offset, its checksum verified.
    pub(crate) fn section(&self, kind: u32, name: &'static str) -> Result<(&'a [u8], u64)> {
        let Some(section) = self.sections.iter().find(|section| section.kind == kind) else {
            return Err(SegmentError::corrupt(
                INDEX_FILE,
                name,
                0,
                "section is missing",
            ));
        };
        let crc = crc32c::crc32c(section.bytes);
        if crc != section.crc32c {
            let message = format!("checksum {crc:08x}, expected {:08x}", section.crc32c);
            return Err(SegmentError::corrupt(INDEX_FILE, name, section.at, message));
        }
        Ok((section.bytes, section.at))
    }
}

/// The integer at an offset that the caller knows to be inside.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// The integer at an offset that the caller knows to be inside.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

//! Reading and writing the fields of an object: little-endian, every read checked,
//! every failure named by section and offset.

use crate::IndexError;

/// Sections start on cache lines, so that kernels read them aligned.
pub(crate) const ALIGN: usize = 64;

/// A cursor over one section's bytes.
pub(crate) struct Fields<'a> {
    section: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// Reads from the start of an object's bytes.
    pub(crate) fn new(section: &'static str, bytes: &'a [u8]) -> Self {
        Self {
            section,
            bytes,
            at: 0,
        }
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], IndexError> {
        let end = self.at.checked_add(len);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        let taken = taken.ok_or_else(|| self.corrupt("bytes end too early"))?;
        self.at += len;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], IndexError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, IndexError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, IndexError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn f32(&mut self) -> Result<f32, IndexError> {
        self.array().map(f32::from_le_bytes)
    }

    /// `count` floats; the bytes are there before any memory is asked for.
    pub(crate) fn f32s(&mut self, count: usize) -> Result<Vec<f32>, IndexError> {
        let bytes = self.take(count.saturating_mul(4))?;
        Ok(bytes
            .as_chunks()
            .0
            .iter()
            .map(|x| f32::from_le_bytes(*x))
            .collect())
    }

    /// `count` integers; as [`Fields::f32s`].
    pub(crate) fn u32s(&mut self, count: usize) -> Result<Vec<u32>, IndexError> {
        let bytes = self.take(count.saturating_mul(4))?;
        Ok(bytes
            .as_chunks()
            .0
            .iter()
            .map(|x| u32::from_le_bytes(*x))
            .collect())
    }

    /// The padding to the next section; it must be zero, so that no byte of an
    /// object is without meaning.
    pub(crate) fn pad(&mut self) -> Result<(), IndexError> {
        self.pad_to(ALIGN)
    }

    /// As [`Fields::pad`], for parts of another alignment.
    pub(crate) fn pad_to(&mut self, align: usize) -> Result<(), IndexError> {
        let padding = self.at.next_multiple_of(align) - self.at;
        match self.take(padding)?.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(self.corrupt("padding that is not zero")),
        }
    }

    /// Nothing may follow.
    pub(crate) fn end(&self) -> Result<(), IndexError> {
        match self.at == self.bytes.len() {
            true => Ok(()),
            false => Err(self.corrupt("bytes after the end")),
        }
    }

    /// Compares the checksum that follows with that of the bytes since `from`.
    pub(crate) fn checksum(&mut self, from: usize) -> Result<(), IndexError> {
        let computed = crc32c::crc32c(&self.bytes[from..self.at]);
        match self.u32()? == computed {
            true => Ok(()),
            false => Err(self.corrupt("checksum differs")),
        }
    }

    /// Goes on under the name of the next section.
    pub(crate) fn in_section(self, section: &'static str) -> Self {
        Self { section, ..self }
    }

    /// `count`, where as many items of that size are there: asked before memory is
    /// reserved for them.
    pub(crate) fn at_most(&self, count: usize, item_bytes: usize) -> Result<usize, IndexError> {
        match count.saturating_mul(item_bytes) <= self.bytes.len() - self.at {
            true => Ok(count),
            false => Err(self.corrupt("bytes end too early")),
        }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn corrupt(&self, reason: &'static str) -> IndexError {
        IndexError::Corrupt {
            section: self.section,
            offset: self.at as u64,
            reason,
        }
    }
}

/// Fills up to the next section.
pub(crate) fn put_padding(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGN), 0);
}

/// Appends the checksum of everything since `from`.
pub(crate) fn put_checksum(out: &mut Vec<u8>, from: usize) {
    let checksum = crc32c::crc32c(&out[from..]);
    out.extend_from_slice(&checksum.to_le_bytes());
}

pub(crate) fn put_f32s(out: &mut Vec<u8>, values: &[f32]) {
    values
        .iter()
        .for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
}

pub(crate) fn put_u32s(out: &mut Vec<u8>, values: &[u32]) {
    values
        .iter()
        .for_each(|value| out.extend_from_slice(&value.to_le_bytes()));
}

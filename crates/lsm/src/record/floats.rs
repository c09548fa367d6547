//! Vectors from payloads into the caller's float buffer.
//!
//! Three spellings: raw little-endian bytes, base64 of the same, a JSON array. The length is judged
//! before anything is written where it is known beforehand (bytes, base64); an array is stored up to the
//! dimension and only counted beyond it, so that no payload makes the buffer grow past `dim`.
//!
//! Chunks of 4 through `from_le_bytes` compile to a plain copy, need no alignment of the message, and
//! keep this decoder free of `unsafe`.

use std::fmt;
use std::ops::Range;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::text::parse_list;
use super::{BadRecord, Reason, VectorTextError, shown};

/// Bytes of one float.
const F32_BYTES: usize = size_of::<f32>();
/// base64 text decoded at a time: 1,024 characters are 768 bytes are 192 whole floats.
const BASE64_STEP: usize = 1024;
const BASE64_STEP_BYTES: usize = BASE64_STEP / 4 * 3;

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Where a payload's floats stand.
pub(super) enum VectorSource<'a> {
    /// Little-endian float32.
    Bytes(&'a [u8]),
    /// A JSON array of numbers, its grammar not yet checked.
    List(&'a str),
    /// The inside of a JSON string without escapes: base64 of little-endian float32.
    Base64(&'a str),
}

impl fmt::Display for VectorSource<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VectorSource::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            VectorSource::List(text) => write!(f, "{}", shown(text.as_bytes())),
            VectorSource::Base64(text) => write!(f, "{} characters of base64", text.len()),
        }
    }
}

/// Appends exactly `dim` finite floats and says where they lie. After an error `out` may hold some of
/// them; the caller truncates.
pub(super) fn append_vector(
    source: VectorSource<'_>,
    dim: u32,
    out: &mut Vec<f32>,
) -> Result<Range<usize>, BadRecord> {
    let start = out.len();
    let want = dim as usize;
    match source {
        VectorSource::Bytes(bytes) => {
            check_bytes(bytes.len(), want)?;
            append_le(bytes, out);
        }
        VectorSource::Base64(text) => append_base64(text, want, out)?,
        VectorSource::List(text) => {
            let count = parse_list(text.as_bytes(), want, out).map_err(bad_list)?;
            if count != want {
                let message =
                    format!("vector has {count} floats, the collection's dimension is {want}");
                return Err(BadRecord::new(Reason::BadDimension, message));
            }
        }
    }
    check_finite(&out[start..])?;
    Ok(start..out.len())
}

fn check_bytes(bytes: usize, want: usize) -> Result<(), BadRecord> {
    if bytes == want * F32_BYTES {
        return Ok(());
    }
    let message = format!(
        "vector has {bytes} bytes, dimension {want} of float32 takes {}",
        want * F32_BYTES
    );
    Err(BadRecord::new(Reason::BadDimension, message))
}

fn append_le(bytes: &[u8], out: &mut Vec<f32>) {
    let (floats, _) = bytes.as_chunks::<F32_BYTES>();
    out.extend(floats.iter().map(|float| f32::from_le_bytes(*float)));
}

fn append_base64(text: &str, want: usize, out: &mut Vec<f32>) -> Result<(), BadRecord> {
    let digits = text.trim_end_matches('=').len();
    check_bytes(digits / 4 * 3 + (digits % 4).saturating_sub(1), want)?;
    let undecodable = |why: String| {
        let message = format!("vector {} is not base64: {why}", shown(text.as_bytes()));
        BadRecord::new(Reason::Undecodable, message)
    };
    out.reserve(want);
    let mut bytes = [0u8; BASE64_STEP_BYTES];
    let mut steps = text.as_bytes().chunks(BASE64_STEP).peekable();
    while let Some(step) = steps.next() {
        let count = BASE64
            .decode_slice(step, &mut bytes)
            .map_err(|error| undecodable(error.to_string()))?;
        // Padding inside the text would end a step early and shift every float after it.
        if steps.peek().is_some() && count != BASE64_STEP_BYTES {
            return Err(undecodable("padding before the end".to_string()));
        }
        append_le(&bytes[..count], out);
    }
    Ok(())
}

fn bad_list(error: VectorTextError) -> BadRecord {
    let reason = match error {
        VectorTextError::NotFinite { .. } => Reason::NotFinite,
        _ => Reason::Undecodable,
    };
    BadRecord::new(reason, error.to_string())
}

fn check_finite(floats: &[f32]) -> Result<(), BadRecord> {
    // Branch-free over the whole vector, as the answer is almost always yes.
    if floats
        .iter()
        .fold(true, |all, float| all & float.is_finite())
    {
        return Ok(());
    }
    let at = floats
        .iter()
        .position(|float| !float.is_finite())
        .unwrap_or_default();
    let message = format!("vector[{at}] is {}, floats must be finite", floats[at]);
    Err(BadRecord::new(Reason::NotFinite, message))
}

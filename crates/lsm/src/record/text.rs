//! Vectors as text: JSON arrays of numbers in records and queries, RESP values, and both spellings of
//! answers.
//!
//! Every number becomes the nearest float32. By way of a float64 alone two roundings can miss it by one
//! unit, and a vector would not survive being written and read. So: scan JSON's number grammar and gather
//! the digits in one pass; take one float64 operation where its error provably cannot matter (nearly
//! always); else hand the token to Rust's correctly rounded, slower parser.

use std::fmt::Write as _;

use super::{DIM_MAX, shown};

/// Characters reserved for each float of a formatted vector: sign, digit, point, six decimals, comma, space.
const FORMATTED_CHARS: usize = 11;
/// The range in which the shortest spelling is written without an exponent: below it leading zeros, above
/// it trailing ones would make up most of the text.
const PLAIN: std::ops::Range<f32> = 1e-5..1e15;

/// Digits that a u64 holds whatever they are: 10^19 − 1 < 2^64.
const MANTISSA_DIGITS_MAX: usize = 19;
/// Powers of ten up to 18: exact as float64 (the limit is 22), and 10^19 × 10^18 is a finite float32.
const POWERS_OF_TEN: [f64; 19] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18,
];

/// Why text is no vector. `at` counts floats from 0.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum VectorTextError {
    /// No `[`, or something behind the `]`.
    #[error("vector {text} is not a JSON array of numbers")]
    NotAnArray {
        /// The text, shortened.
        text: String,
    },
    /// A value is not a number, or no comma or bracket follows it.
    #[error("vector[{at}] is not a number: {text}")]
    NotANumber {
        /// Index of the value.
        at: usize,
        /// What stands there, shortened.
        text: String,
    },
    /// A number beyond the range of float32.
    #[error("vector[{at}] is {text}, not finite as a float32")]
    NotFinite {
        /// Index of the value.
        at: usize,
        /// The number, shortened.
        text: String,
    },
    /// More numbers than any collection has dimensions.
    #[error("vector has {count} floats, at most {DIM_MAX} are allowed")]
    TooLong {
        /// How many there are.
        count: usize,
    },
    /// A span list that does not fit its frame.
    #[error("vector[{at}] lies outside of its frame of {bytes} bytes")]
    Span {
        /// Index of the value.
        at: usize,
        /// Length of the frame.
        bytes: usize,
    },
}

/// Reads `[0.1, 0.2]`: a JSON array of 0 to [`DIM_MAX`] numbers, blanks allowed around it.
pub fn parse_vector_text(text: &str) -> Result<Vec<f32>, VectorTextError> {
    let mut floats = Vec::new();
    match parse_list(text.as_bytes(), DIM_MAX as usize, &mut floats)? {
        count if count > DIM_MAX as usize => Err(VectorTextError::TooLong { count }),
        _ => Ok(floats),
    }
}

/// Reads numbers that lie apart in one frame, as `VADD key VALUES n v1 … vn` brings them: `spans` holds
/// start and length of each in turn.
pub fn parse_vector_values(frame: &[u8], spans: &[u32]) -> Result<Vec<f32>, VectorTextError> {
    let (spans, odd) = spans.as_chunks::<2>();
    if spans.len() > DIM_MAX as usize {
        return Err(VectorTextError::TooLong { count: spans.len() });
    }
    let outside = |at| VectorTextError::Span {
        at,
        bytes: frame.len(),
    };
    if !odd.is_empty() {
        return Err(outside(spans.len()));
    }
    let mut floats = Vec::with_capacity(spans.len());
    for (at, &[start, length]) in spans.iter().enumerate() {
        let from = frame.get(start as usize..).ok_or_else(|| outside(at))?;
        let token = from.get(..length as usize).ok_or_else(|| outside(at))?;
        let number = scan_number(token).filter(|number| number.end == token.len());
        let number = number.ok_or_else(|| VectorTextError::NotANumber {
            at,
            text: shown(token),
        })?;
        floats.push(parse_number(&number, token, at)?);
    }
    Ok(floats)
}

/// `[0.100000, 0.200000]`: six decimals each.
pub fn format_vector_text(floats: &[f32]) -> String {
    format_list(floats, |text, float| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{float:.6}");
    })
}

/// `[0.1, 0.2]`: the fewest digits that read back as the same float32.
pub fn format_vector_shortest(floats: &[f32]) -> String {
    format_list(floats, write_f32_shortest)
}

/// One finite float in the fewest digits that read back as the same float32, a JSON number.
pub fn write_f32_shortest(text: &mut String, float: f32) {
    // Writing to a String cannot fail.
    let _ = match float == 0.0 || PLAIN.contains(&float.abs()) {
        true => write!(text, "{float}"),
        false => write!(text, "{float:e}"),
    };
}

fn format_list(floats: &[f32], write: impl Fn(&mut String, f32)) -> String {
    let mut text = String::with_capacity(2 + floats.len() * FORMATTED_CHARS);
    text.push('[');
    for (at, &float) in floats.iter().enumerate() {
        if at > 0 {
            text.push_str(", ");
        }
        write(&mut text, float);
    }
    text.push(']');
    text
}

/// Appends the numbers of a JSON array to `out`, `store_max` of them at most, and returns how many it
/// has. After an error `out` may hold the numbers before it.
pub(super) fn parse_list(
    text: &[u8],
    store_max: usize,
    out: &mut Vec<f32>,
) -> Result<usize, VectorTextError> {
    let not_an_array = || VectorTextError::NotAnArray { text: shown(text) };
    let mut rest = skip_blank(text)
        .strip_prefix(b"[")
        .ok_or_else(not_an_array)?;
    rest = skip_blank(rest);
    let mut count = 0;
    while count > 0 || !rest.starts_with(b"]") {
        let number = scan_number(rest).ok_or_else(|| not_a_number(rest, count))?;
        let (token, after) = rest.split_at(number.end);
        let float = parse_number(&number, token, count)?;
        if count < store_max {
            out.push(float);
        }
        rest = skip_blank(after);
        match rest.first() {
            Some(b',') => rest = skip_blank(&rest[1..]),
            Some(b']') => {
                count += 1;
                break;
            }
            _ => return Err(not_a_number(rest, count)),
        }
        count += 1;
    }
    match skip_blank(&rest[1..]).is_empty() {
        true => Ok(count),
        false => Err(not_an_array()),
    }
}

fn not_a_number(rest: &[u8], at: usize) -> VectorTextError {
    let end = rest
        .iter()
        .position(|byte| matches!(byte, b',' | b']'))
        .unwrap_or(rest.len());
    VectorTextError::NotANumber {
        at,
        text: shown(&rest[..end]),
    }
}

fn skip_blank(text: &[u8]) -> &[u8] {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r');
    let end = text
        .iter()
        .position(|byte| !blank(byte))
        .unwrap_or(text.len());
    &text[end..]
}

/// A JSON number at the start of some text.
struct Number {
    /// Its length in bytes.
    end: usize,
    negative: bool,
    /// Significant digits as one integer, exact while there are at most [`MANTISSA_DIGITS_MAX`] of them.
    mantissa: u64,
    digits: usize,
    /// The value is mantissa × 10^exponent.
    exponent: i32,
}

/// Scans `-? (0 | [1-9][0-9]*) (. [0-9]+)? ([eE] [+-]? [0-9]+)?`.
fn scan_number(text: &[u8]) -> Option<Number> {
    let negative = text.first() == Some(&b'-');
    let mut number = Number {
        end: usize::from(negative),
        negative,
        mantissa: 0,
        digits: 0,
        exponent: 0,
    };
    match text.get(number.end) {
        Some(b'0') => number.end += 1,
        _ => number.take_digits(text)?,
    }
    if text.get(number.end) == Some(&b'.') {
        let point = number.end + 1;
        number.end = point;
        number.take_digits(text)?;
        // Fewer digits than any message has bytes, so the count fits.
        number.exponent = -((number.end - point) as i32);
    }
    if matches!(text.get(number.end), Some(b'e' | b'E')) {
        let sign = text.get(number.end + 1);
        let from = number.end + 1 + usize::from(matches!(sign, Some(b'+' | b'-')));
        let digits = text[from..].iter().take_while(|byte| byte.is_ascii_digit());
        let (count, power) = digits.fold((0, 0i32), |(count, power), digit| {
            (
                count + 1,
                power
                    .saturating_mul(10)
                    .saturating_add(i32::from(digit - b'0')),
            )
        });
        if count == 0 {
            return None;
        }
        let power = if sign == Some(&b'-') { -power } else { power };
        number.exponent = number.exponent.saturating_add(power);
        number.end = from + count;
    }
    Some(number)
}

impl Number {
    fn take_digits(&mut self, text: &[u8]) -> Option<()> {
        let from = self.end;
        while let Some(digit) = text.get(self.end).filter(|byte| byte.is_ascii_digit()) {
            self.mantissa = self
                .mantissa
                .wrapping_mul(10)
                .wrapping_add(u64::from(digit - b'0'));
            // Leading zeros are not significant. Asking the mantissa would miss one that wrapped to 0.
            self.digits += usize::from(self.digits > 0 || *digit != b'0');
            self.end += 1;
        }
        (self.end > from).then_some(())
    }

    /// The nearest float32, where one float64 operation is known to lead to it.
    ///
    /// Mantissa and power of ten each fit a float64 to half a unit, the product is rounded once more: the
    /// result is off by less than 2 units in its last place. Rounded to float32 that is right unless a
    /// midpoint between two float32 lies so near, and midpoints are those float64 whose lower 29 bits
    /// are 2^28. (After Clinger, "How to read floating point numbers accurately", 1990.)
    fn nearest_f32_fast(&self) -> Option<f32> {
        let power = *POWERS_OF_TEN.get(self.exponent.unsigned_abs() as usize)?;
        if self.digits > MANTISSA_DIGITS_MAX {
            return None;
        }
        let mantissa = self.mantissa as f64;
        let wide = if self.exponent < 0 {
            mantissa / power
        } else {
            mantissa * power
        };
        let below_f32 = (wide.to_bits() & ((1 << 29) - 1)) as i64;
        if (below_f32 - (1 << 28)).abs() <= 4 {
            return None;
        }
        // Within float32's normal range: 0, or at least 10^-18, and below 10^19 × 10^18.
        let float = wide as f32;
        Some(if self.negative { -float } else { float })
    }
}

fn parse_number(number: &Number, token: &[u8], at: usize) -> Result<f32, VectorTextError> {
    if let Some(float) = number.nearest_f32_fast() {
        return Ok(float);
    }
    let float = str::from_utf8(token)
        .ok()
        .and_then(|token| token.parse::<f32>().ok());
    match float {
        Some(float) if float.is_finite() => Ok(float),
        Some(_) => Err(VectorTextError::NotFinite {
            at,
            text: shown(token),
        }),
        None => Err(VectorTextError::NotANumber {
            at,
            text: shown(token),
        }),
    }
}

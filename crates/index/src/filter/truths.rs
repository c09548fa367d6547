//! What is true of rows, as bits: row `i` is bit `i % 64` of word `i / 64`.
//!
//! The logic has three values (Kleene's): a row is true, false or unknown. An unknown
//! operand makes a result unknown only where the other operand does not settle it, so
//! that few rows need their JSON text.

use crate::attributes::Codes;

/// Words of rows. Bits past the last row mean nothing.
pub(super) type Words = Vec<u64>;

/// No row is both true and unknown.
pub(super) struct Truths {
    pub(super) yes: Words,
    /// None where every row is known.
    pub(super) unknown: Option<Words>,
}

impl Truths {
    /// What is not known does not count as true.
    pub(super) fn new(mut yes: Words, unknown: Option<Words>) -> Self {
        if let Some(unknown) = &unknown {
            combine(&mut yes, unknown, |yes, unknown| yes & !unknown);
        }
        Self { yes, unknown }
    }

    /// The same for every row.
    pub(super) fn all(words: usize, truth: bool) -> Self {
        let word = if truth { u64::MAX } else { 0 };
        Self {
            yes: vec![word; words],
            unknown: None,
        }
    }

    /// Known of no row.
    pub(super) fn unknown(words: usize) -> Self {
        Self {
            yes: vec![0; words],
            unknown: Some(vec![u64::MAX; words]),
        }
    }

    pub(super) fn is_true(&self, row: usize) -> bool {
        self.yes[row / 64] >> (row % 64) & 1 == 1
    }

    pub(super) fn not(mut self) -> Self {
        self.yes.iter_mut().for_each(|word| *word = !*word);
        Self::new(self.yes, self.unknown)
    }

    /// Unknown where neither is false and not both are true.
    pub(super) fn and(mut self, other: Self) -> Self {
        let unknown = either(self.unknown.clone(), other.unknown.as_ref());
        let unknown = unknown.map(|mut unknown| {
            let sides = [(&self.yes, &self.unknown), (&other.yes, &other.unknown)];
            for (yes, side_unknown) in sides {
                for (index, word) in unknown.iter_mut().enumerate() {
                    let maybe = side_unknown.as_ref().map_or(0, |side| side[index]);
                    *word &= yes[index] | maybe;
                }
            }
            unknown
        });
        combine(&mut self.yes, &other.yes, |a, b| a & b);
        Self::new(self.yes, unknown)
    }

    /// Unknown where neither is true and not both are false.
    pub(super) fn or(mut self, other: Self) -> Self {
        combine(&mut self.yes, &other.yes, |a, b| a | b);
        let mut unknown = either(self.unknown, other.unknown.as_ref());
        if let Some(unknown) = &mut unknown {
            combine(unknown, &self.yes, |unknown, yes| unknown & !yes);
        }
        Self::new(self.yes, unknown)
    }
}

/// The rows of one or the other.
pub(super) fn either(a: Option<Words>, b: Option<&Words>) -> Option<Words> {
    match (a, b) {
        (Some(mut a), Some(b)) => {
            combine(&mut a, b, |a, b| a | b);
            Some(a)
        }
        (a, b) => a.or_else(|| b.cloned()),
    }
}

pub(super) fn combine(words: &mut [u64], others: &[u64], operation: impl Fn(u64, u64) -> u64) {
    let pairs = words.iter_mut().zip(others);
    pairs.for_each(|(word, other)| *word = operation(*word, *other));
}

/// The rows whose code passes the test; rows past the codes do not.
pub(super) fn words_of_codes(
    codes: Codes<'_>,
    words: usize,
    test: impl Fn(usize) -> bool,
) -> Words {
    let mut out = Vec::with_capacity(words);
    match codes {
        Codes::Narrow(codes) => push_words(&mut out, codes, |code| test(usize::from(code))),
        Codes::Wide(codes) => push_words(&mut out, codes, |code| {
            test(usize::from(u16::from_le_bytes(code)))
        }),
    }
    out.resize(words, 0);
    out
}

/// Appends the items that pass the test, in whole words.
pub(super) fn push_words<T: Copy>(out: &mut Words, items: &[T], test: impl Fn(T) -> bool) {
    let (blocks, rest) = items.as_chunks::<64>();
    for block in blocks {
        // Truths first, as bytes, then bits: the first loop is what the compiler turns
        // into vectors where the test allows it.
        let truths = block.map(|item| u8::from(test(item)));
        let eights = truths.as_chunks::<8>().0.iter().enumerate();
        out.push(eights.fold(0, |word, (place, eight)| {
            word | bits_of_bytes(*eight) << (8 * place)
        }));
    }
    if !rest.is_empty() {
        let bits = rest.iter().enumerate();
        out.push(bits.fold(0, |word, (bit, item)| word | u64::from(test(*item)) << bit));
    }
}

/// Eight bytes of 0 or 1 as eight bits. The factor moves byte `i`'s bit to bit
/// `56 + i`; no two products meet in one bit, so nothing carries.
fn bits_of_bytes(bytes: [u8; 8]) -> u64 {
    u64::from_le_bytes(bytes).wrapping_mul(0x0102_0408_1020_4080) >> 56
}

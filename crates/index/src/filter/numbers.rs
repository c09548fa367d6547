//! Numeric operators over many rows or codes, a block at a time.
//!
//! Both sides of a block are read into arrays on the stack, the operator works in
//! place, and the result goes to whoever asked: nothing as long as a chunk is made
//! but what is asked for. (Vectors of a whole chunk's numbers, 256 KiB each, cost four
//! times as much as the arithmetic, most of it in page faults.)

use super::operators::{Binary, apply_numeric, number};
use crate::attributes::Codes;
use crate::attributes::values::{Value, Values};
use std::ops::Range;

/// Items of a block: two sides of 4 KiB stay in the first-level cache. A multiple of
/// 64, so that blocks of truths are whole words.
const BLOCK: usize = 512;

/// One side of an operator: a number for every row, or for every code.
pub(super) enum Numbers<'n> {
    Same(f64),
    Each(&'n [f64]),
    Truths(&'n [bool]),
    /// By code: that of code `i + 1` is the number of value `i`.
    Values(Values<'n>),
    /// By row, from numbers by code.
    Coded(Codes<'n>, Vec<f64>),
    /// By row, as bits.
    Words(&'n [u64]),
}

impl Numbers<'_> {
    /// Fills `out` with the numbers of `range`; there is an `out` for each of them.
    fn read(&self, range: Range<usize>, out: &mut [f64]) {
        match self {
            Numbers::Same(number) => out.fill(*number),
            Numbers::Each(numbers) => out.copy_from_slice(&numbers[range]),
            Numbers::Truths(truths) => {
                let pairs = out.iter_mut().zip(&truths[range]);
                pairs.for_each(|(out, truth)| *out = f64::from(*truth));
            }
            Numbers::Values(values) => {
                for (out, code) in out.iter_mut().zip(range) {
                    // Code 0 is no value; what is computed for it does not count.
                    let index = code.wrapping_sub(1);
                    *out = values
                        .number(index)
                        .unwrap_or_else(|| number(&values.get(index).unwrap_or(Value::Null)));
                }
            }
            Numbers::Coded(codes, by_code) => codes.gather(range.start, by_code, out),
            Numbers::Words(words) => {
                for (out, row) in out.iter_mut().zip(range) {
                    *out = (words[row / 64] >> (row % 64) & 1) as f64;
                }
            }
        }
    }

    /// All of them.
    pub(super) fn collect(&self, count: usize) -> Vec<f64> {
        let mut numbers = vec![0.0; count];
        self.read(0..count, &mut numbers);
        numbers
    }
}

/// Hands the results for `0..count` to `take`, in order, in blocks that are whole
/// words but for the last.
pub(super) fn zip(
    operator: Binary,
    a: &Numbers<'_>,
    b: &Numbers<'_>,
    count: usize,
    mut take: impl FnMut(&[f64]),
) {
    let (mut left, mut right) = ([0.0; BLOCK], [0.0; BLOCK]);
    for start in (0..count).step_by(BLOCK) {
        let range = start..count.min(start + BLOCK);
        let (left, right) = (&mut left[..range.len()], &mut right[..range.len()]);
        a.read(range.clone(), left);
        b.read(range, right);
        apply_each(operator, left, right);
        take(left);
    }
}

/// Leaves the results in `left`. Each operator gets a loop of its own, which the
/// compiler turns into vectors; it does not where a loop asks for the operator.
fn apply_each(operator: Binary, left: &mut [f64], right: &[f64]) {
    macro_rules! loops {
        ($($operator:ident),*) => {
            match operator {
                $(Binary::$operator => {
                    for (a, b) in left.iter_mut().zip(right) {
                        *a = apply_numeric(Binary::$operator, *a, *b);
                    }
                })*
                // Not numeric.
                Binary::Equal | Binary::NotEqual | Binary::In | Binary::And | Binary::Or => {}
            }
        };
    }
    loops!(
        Power,
        Times,
        Divide,
        Remainder,
        Plus,
        Minus,
        Greater,
        GreaterOrEqual,
        Less,
        LessOrEqual
    );
}

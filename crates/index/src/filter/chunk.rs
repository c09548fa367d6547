//! Evaluates a program over the columns of a chunk, one step for all rows at a time.
//!
//! An operand is kept in the smallest form that holds it:
//! 1. one value for all rows (literals, and what is computed from them);
//! 2. one value per code of one field: what uses a single field is computed once per
//!    distinct value;
//! 3. one truth per row, as bits: codes are mapped to bits where fields meet in `and`,
//!    `or` and `not`, or at the end, and where several fields are compared;
//! 4. one number per row, where several fields meet in arithmetic.
//!
//! Rows whose value is elsewhere, and fields without a column in a chunk that is not
//! complete, are unknown (see `truths`). Rows that lack a field are dropped at the end
//! by [`Chunk::present`]; until then their results are anything.
//!
//! Memory: the numbers of a chunk are 256 KiB. An operand in that form takes two
//! fields and an operator, and a further operator to wait for the next one, so fewer
//! than a quarter of the tokens wait: 8 MiB at worst, 256 KiB in `.a + .b > .c`.

use super::numbers::{Numbers, zip};
use super::operators::{Binary, apply, is_arithmetic, is_numeric, number, truth};
use super::truths::{Truths, Words, combine, either, push_words, words_of_codes};
use super::{Program, Step};
use crate::attributes::Column;
use crate::attributes::values::{Value, Values};

/// A chunk to evaluate over; the columns are those of the program's fields.
pub(super) struct Chunk<'a> {
    pub(super) columns: &'a [Option<Column<'a>>],
    pub(super) rows: usize,
}

/// See the module.
enum Operand<'a> {
    Constant(Value<'a>),
    ByCode(usize, Column<'a>, Lanes<'a>),
    ByRow(Vec<f64>, Option<Words>),
    Truths(Truths),
}

/// A value per code. Those of "missing" and "elsewhere" are anything: their rows do
/// not count.
enum Lanes<'a> {
    /// The column's own: code `i + 1` has value `i`.
    Values(Values<'a>),
    /// By code.
    Numbers(Vec<f64>),
    /// By code.
    Truths(Vec<bool>),
}

impl<'a> Chunk<'a> {
    fn words(&self) -> usize {
        self.rows.div_ceil(64)
    }

    /// The rows for which the program is true, fields that they lack not considered.
    pub(super) fn run(&self, program: &'a Program) -> Truths {
        let literals = program.literals.values();
        let mut stack: Vec<Operand<'a>> = Vec::with_capacity(program.steps.len());
        // Parsing made sure that operands are there; null stands for what never is.
        let pop =
            |stack: &mut Vec<Operand<'a>>| stack.pop().unwrap_or(Operand::Constant(Value::Null));
        for step in &program.steps {
            let operand = match step {
                Step::Literal(place) => {
                    Operand::Constant(literals.get(*place).unwrap_or(Value::Null))
                }
                Step::Field(field) => self.field(*field),
                Step::Not => self.not(pop(&mut stack)),
                Step::Binary(operator) => {
                    let b = pop(&mut stack);
                    let a = pop(&mut stack);
                    self.binary(*operator, a, b)
                }
            };
            stack.push(operand);
        }
        self.truths(pop(&mut stack))
    }

    fn field(&self, field: usize) -> Operand<'a> {
        match self.columns.get(field).copied().flatten() {
            None => Operand::Truths(Truths::unknown(self.words())),
            Some(column) => Operand::ByCode(field, column, Lanes::Values(column.values())),
        }
    }

    fn not(&self, operand: Operand<'a>) -> Operand<'a> {
        match operand {
            Operand::Constant(value) => Operand::Constant(Value::Number(f64::from(!truth(&value)))),
            Operand::ByCode(field, column, lanes) => {
                let mut truths = lanes.truths(codes_of(&column));
                truths.iter_mut().for_each(|truth| *truth = !*truth);
                Operand::ByCode(field, column, Lanes::Truths(truths))
            }
            operand => Operand::Truths(self.truths(operand).not()),
        }
    }

    fn binary(&self, operator: Binary, a: Operand<'a>, b: Operand<'a>) -> Operand<'a> {
        if let (Operand::Constant(a), Operand::Constant(b)) = (&a, &b) {
            return Operand::Constant(Value::Number(apply(operator, a, b)));
        }
        if let Some((field, column)) = one_field(&a, &b) {
            let lanes = by_code(operator, &a, &b, codes_of(&column));
            return Operand::ByCode(field, column, lanes);
        }
        match operator {
            Binary::And => Operand::Truths(self.truths(a).and(self.truths(b))),
            Binary::Or => Operand::Truths(self.truths(a).or(self.truths(b))),
            _ => self.by_row(operator, &a, &b),
        }
    }

    /// Operands of several fields.
    fn by_row(&self, operator: Binary, a: &Operand<'a>, b: &Operand<'a>) -> Operand<'a> {
        let unknown = either(self.unknown(a), self.unknown(b).as_ref());
        if is_arithmetic(operator) {
            let mut numbers = Vec::with_capacity(self.rows);
            let take = |block: &[f64]| numbers.extend_from_slice(block);
            zip(
                operator,
                &self.numbers(a),
                &self.numbers(b),
                self.rows,
                take,
            );
            return Operand::ByRow(numbers, unknown);
        }
        let mut yes = Vec::with_capacity(self.words());
        if is_numeric(operator) {
            let take = |block: &[f64]| push_words(&mut yes, block, |result| result != 0.0);
            zip(
                operator,
                &self.numbers(a),
                &self.numbers(b),
                self.rows,
                take,
            );
        } else {
            yes.resize(self.words(), 0);
            for row in 0..self.rows {
                let result = apply(operator, &a.in_row(row), &b.in_row(row));
                yes[row / 64] |= u64::from(result != 0.0) << (row % 64);
            }
        }
        Operand::Truths(Truths::new(yes, unknown))
    }

    fn truths(&self, operand: Operand<'a>) -> Truths {
        let words = self.words();
        let unknown = self.unknown(&operand);
        match operand {
            Operand::Constant(value) => Truths::all(words, truth(&value)),
            Operand::ByCode(_, column, lanes) => {
                let truths = lanes.truths(codes_of(&column));
                let is_true = |code: usize| truths.get(code).is_some_and(|truth| *truth);
                let yes = words_of_codes(column.codes(self.rows), words, is_true);
                Truths::new(yes, unknown)
            }
            Operand::ByRow(numbers, _) => {
                let mut yes = Vec::with_capacity(words);
                push_words(&mut yes, &numbers, |number| number != 0.0);
                Truths::new(yes, unknown)
            }
            Operand::Truths(truths) => truths,
        }
    }

    /// The rows for which an operand is unknown.
    fn unknown(&self, operand: &Operand<'a>) -> Option<Words> {
        match operand {
            Operand::Constant(_) => None,
            Operand::ByCode(_, column, _) => {
                let elsewhere = usize::from(column.elsewhere()?);
                let is_elsewhere = |code| code == elsewhere;
                Some(words_of_codes(
                    column.codes(self.rows),
                    self.words(),
                    is_elsewhere,
                ))
            }
            Operand::ByRow(_, unknown) => unknown.clone(),
            Operand::Truths(truths) => truths.unknown.clone(),
        }
    }

    /// An operand's number in every row.
    fn numbers<'n>(&self, operand: &'n Operand<'a>) -> Numbers<'n> {
        match operand {
            Operand::Constant(value) => Numbers::Same(number(value)),
            Operand::ByCode(_, column, lanes) => {
                let by_code = lanes.numbers().collect(codes_of(column));
                Numbers::Coded(column.codes(self.rows), by_code)
            }
            Operand::ByRow(numbers, _) => Numbers::Each(numbers),
            Operand::Truths(truths) => Numbers::Words(&truths.yes),
        }
    }

    /// The rows that have all fields, as far as columns tell.
    pub(super) fn present(&self) -> Words {
        let mut present = vec![u64::MAX; self.words()];
        if let Some(last) = present.last_mut().filter(|_| !self.rows.is_multiple_of(64)) {
            *last >>= 64 - self.rows % 64;
        }
        for column in self.columns.iter().flatten() {
            let has = words_of_codes(column.codes(self.rows), self.words(), |code| code != 0);
            combine(&mut present, &has, |present, has| present & has);
        }
        present
    }
}

impl<'a> Operand<'a> {
    fn in_row(&self, row: usize) -> Value<'a> {
        match self {
            Operand::Constant(value) => *value,
            Operand::ByCode(_, column, lanes) => lanes.get(column.code(row)),
            Operand::ByRow(numbers, _) => Value::Number(numbers[row]),
            Operand::Truths(truths) => Value::Number(f64::from(truths.is_true(row))),
        }
    }
}

impl<'a> Lanes<'a> {
    fn get(&self, code: usize) -> Value<'a> {
        let value = match self {
            Lanes::Values(values) => code.checked_sub(1).and_then(|index| values.get(index)),
            Lanes::Numbers(numbers) => numbers.get(code).map(|number| Value::Number(*number)),
            Lanes::Truths(truths) => truths
                .get(code)
                .map(|truth| Value::Number(f64::from(*truth))),
        };
        value.unwrap_or(Value::Null)
    }

    fn numbers(&self) -> Numbers<'_> {
        match self {
            Lanes::Values(values) => Numbers::Values(*values),
            Lanes::Numbers(numbers) => Numbers::Each(numbers),
            Lanes::Truths(truths) => Numbers::Truths(truths),
        }
    }

    fn truths(self, codes: usize) -> Vec<bool> {
        match self {
            Lanes::Truths(truths) => truths,
            lanes => (0..codes).map(|code| truth(&lanes.get(code))).collect(),
        }
    }
}

/// Codes of a column, 0 for "missing" among them.
fn codes_of(column: &Column<'_>) -> usize {
    column.values().len() + 1
}

/// The field and its column where no other field meets it.
fn one_field<'a>(a: &Operand<'a>, b: &Operand<'a>) -> Option<(usize, Column<'a>)> {
    match (a, b) {
        (Operand::ByCode(a, ..), Operand::ByCode(b, ..)) if a != b => None,
        (Operand::ByCode(field, column, _), Operand::ByCode(..) | Operand::Constant(_))
        | (Operand::Constant(_), Operand::ByCode(field, column, _)) => Some((*field, *column)),
        _ => None,
    }
}

/// An operator over operands of one field and constants.
fn by_code<'a>(operator: Binary, a: &Operand<'_>, b: &Operand<'_>, codes: usize) -> Lanes<'a> {
    if is_arithmetic(operator) {
        let mut numbers = Vec::with_capacity(codes);
        let take = |block: &[f64]| numbers.extend_from_slice(block);
        zip(
            operator,
            &numbers_by_code(a),
            &numbers_by_code(b),
            codes,
            take,
        );
        return Lanes::Numbers(numbers);
    }
    let mut truths = Vec::with_capacity(codes);
    if is_numeric(operator) {
        let take = |block: &[f64]| truths.extend(block.iter().map(|result| *result != 0.0));
        zip(
            operator,
            &numbers_by_code(a),
            &numbers_by_code(b),
            codes,
            take,
        );
    } else {
        truths.extend(
            (0..codes).map(|code| {
                apply(operator, &value_by_code(a, code), &value_by_code(b, code)) != 0.0
            }),
        );
    }
    Lanes::Truths(truths)
}

fn numbers_by_code<'n>(operand: &'n Operand<'_>) -> Numbers<'n> {
    match operand {
        Operand::ByCode(_, _, lanes) => lanes.numbers(),
        Operand::Constant(value) => Numbers::Same(number(value)),
        Operand::ByRow(..) | Operand::Truths(_) => Numbers::Same(0.0),
    }
}

fn value_by_code<'a>(operand: &Operand<'a>, code: usize) -> Value<'a> {
    match operand {
        Operand::ByCode(_, _, lanes) => lanes.get(code),
        Operand::Constant(value) => *value,
        Operand::ByRow(..) | Operand::Truths(_) => Value::Null,
    }
}

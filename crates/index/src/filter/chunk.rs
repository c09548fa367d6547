//! Evaluates a program over the columns of a chunk, one step for all rows at a time.
//!
//! An operand is kept in the smallest form that holds it:
//! 1. one value for all rows (literals, and what is computed from them);
//! 2. one value per code of one field: what uses a single field is computed once per
//!    distinct value;
//! 3. one truth per row, as bits: codes are mapped to bits where `and`, `or` and `not`
//!    meet other fields, or at the end;
//! 4. one number per row, where several fields meet in arithmetic.
//!
//! Rows whose value is elsewhere, and fields without a column in a chunk that is not
//! complete, are unknown (see `truths`). At the end rows that lack a field are dropped.
//!
//! Memory: numbers of a chunk of 32,768 rows are 256 KiB, and fewer than a quarter of
//! the tokens can wait on the stack in that form (`.a + .b` are three and one operator
//! more is needed to wait): 8 MiB at most, and one or two of them in any sane filter.

use super::operators::{Binary, apply, apply_numeric, is_numeric, number, truth};
use super::truths::{Truths, Words, combine, either, words_of, words_of_codes};
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
    ByCode {
        column: Column<'a>,
        field: usize,
        lanes: Lanes<'a>,
    },
    ByRow(RowNumbers),
    Truths(Truths),
}

/// A value per code. Those of "missing" and "elsewhere" are anything: their rows do
/// not count.
enum Lanes<'a> {
    /// The column's own values: code `i + 1` has value `i`.
    Values(Values<'a>),
    /// By code.
    Numbers(Vec<f64>),
}

struct RowNumbers {
    numbers: Vec<f64>,
    unknown: Option<Words>,
}

/// Numbers of one side of an operator.
enum Side<'n> {
    Same(f64),
    Each(std::borrow::Cow<'n, [f64]>),
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
            Some(column) => Operand::ByCode {
                column,
                field,
                lanes: Lanes::Values(column.values()),
            },
        }
    }

    fn not(&self, operand: Operand<'a>) -> Operand<'a> {
        match operand {
            Operand::Constant(value) => Operand::Constant(Value::Number(f64::from(!truth(&value)))),
            Operand::ByCode {
                column,
                field,
                lanes,
            } => {
                let codes = 0..=column.values().len();
                let numbers = codes.map(|code| f64::from(!truth(&lanes.get(code))));
                Operand::ByCode {
                    column,
                    field,
                    lanes: Lanes::Numbers(numbers.collect()),
                }
            }
            operand => Operand::Truths(self.truths(operand).not()),
        }
    }

    fn binary(&self, operator: Binary, a: Operand<'a>, b: Operand<'a>) -> Operand<'a> {
        if let (Operand::Constant(a), Operand::Constant(b)) = (&a, &b) {
            return Operand::Constant(Value::Number(apply(operator, a, b)));
        }
        if let Some((column, field)) = the_field(&a, &b) {
            let lanes = Lanes::Numbers(by_code(operator, &a, &b, column.values().len() + 1));
            return Operand::ByCode {
                column,
                field,
                lanes,
            };
        }
        match operator {
            Binary::And => Operand::Truths(self.truths(a).and(self.truths(b))),
            Binary::Or => Operand::Truths(self.truths(a).or(self.truths(b))),
            _ => self.by_row(operator, &a, &b),
        }
    }

    /// Operands of several fields, row by row.
    fn by_row(&self, operator: Binary, a: &Operand<'a>, b: &Operand<'a>) -> Operand<'a> {
        let unknown = either(self.unknown(a), self.unknown(b).as_ref());
        if is_numeric(operator) {
            let numbers = zip(operator, &self.numbers(a), &self.numbers(b), self.rows);
            return Operand::ByRow(RowNumbers { numbers, unknown });
        }
        let mut yes = vec![0; self.words()];
        for row in 0..self.rows {
            let result = apply(operator, &self.value(a, row), &self.value(b, row));
            yes[row / 64] |= u64::from(result != 0.0) << (row % 64);
        }
        Operand::Truths(Truths::new(yes, unknown))
    }

    fn truths(&self, operand: Operand<'a>) -> Truths {
        let words = self.words();
        let unknown = self.unknown(&operand);
        match operand {
            Operand::Constant(value) => Truths::all(words, truth(&value)),
            Operand::ByCode { column, lanes, .. } => {
                let codes = 0..=column.values().len();
                let passes: Vec<bool> = codes.map(|code| truth(&lanes.get(code))).collect();
                let codes = column.codes(self.rows);
                let yes = words_of_codes(codes, words, |code| {
                    passes.get(code).is_some_and(|passes| *passes)
                });
                Truths::new(yes, unknown)
            }
            Operand::ByRow(RowNumbers { numbers, .. }) => {
                Truths::new(words_of(&numbers, words, |number| number != 0.0), unknown)
            }
            Operand::Truths(truths) => truths,
        }
    }

    /// The rows for which an operand is unknown.
    fn unknown(&self, operand: &Operand<'a>) -> Option<Words> {
        match operand {
            Operand::Constant(_) => None,
            Operand::ByCode { column, .. } => {
                let elsewhere = usize::from(column.elsewhere()?);
                let codes = column.codes(self.rows);
                Some(words_of_codes(codes, self.words(), |code| {
                    code == elsewhere
                }))
            }
            Operand::ByRow(RowNumbers { unknown, .. }) => unknown.clone(),
            Operand::Truths(truths) => truths.unknown.clone(),
        }
    }

    /// An operand's number in every row.
    fn numbers<'n>(&self, operand: &'n Operand<'a>) -> Side<'n> {
        match operand {
            Operand::Constant(value) => Side::Same(number(value)),
            Operand::ByCode { column, lanes, .. } => {
                let by_code = lanes.numbers();
                let codes = column.codes(self.rows);
                let by_row = (0..self.rows).map(|row| by_code[codes.get(row)]);
                Side::Each(by_row.collect())
            }
            Operand::ByRow(RowNumbers { numbers, .. }) => Side::Each(numbers.into()),
            Operand::Truths(truths) => {
                let by_row = (0..self.rows).map(|row| bit(&truths.yes, row));
                Side::Each(by_row.collect())
            }
        }
    }

    /// An operand's value in one row.
    fn value(&self, operand: &Operand<'a>, row: usize) -> Value<'a> {
        match operand {
            Operand::Constant(value) => *value,
            Operand::ByCode { column, lanes, .. } => lanes.get(column.codes(self.rows).get(row)),
            Operand::ByRow(RowNumbers { numbers, .. }) => Value::Number(numbers[row]),
            Operand::Truths(truths) => Value::Number(bit(&truths.yes, row)),
        }
    }

    /// The rows that have all fields, as far as columns tell.
    pub(super) fn present(&self) -> Words {
        let mut present = vec![u64::MAX; self.words()];
        if let Some(last) = present.last_mut().filter(|_| self.rows % 64 != 0) {
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
    /// The value for a code, of operands that have one per code.
    fn by_code(&self, code: usize) -> Value<'a> {
        match self {
            Operand::Constant(value) => *value,
            Operand::ByCode { lanes, .. } => lanes.get(code),
            Operand::ByRow(_) | Operand::Truths(_) => Value::Null,
        }
    }
}

impl<'a> Lanes<'a> {
    fn get(&self, code: usize) -> Value<'a> {
        match self {
            Lanes::Values(values) => {
                let value = code.checked_sub(1).and_then(|index| values.get(index));
                value.unwrap_or(Value::Null)
            }
            Lanes::Numbers(numbers) => numbers
                .get(code)
                .copied()
                .map_or(Value::Null, Value::Number),
        }
    }

    /// By code.
    fn numbers(&self) -> std::borrow::Cow<'_, [f64]> {
        match self {
            Lanes::Values(values) => {
                let codes = 0..=values.len();
                codes.map(|code| number(&self.get(code))).collect()
            }
            Lanes::Numbers(numbers) => numbers.into(),
        }
    }
}

fn bit(words: &[u64], row: usize) -> f64 {
    (words[row / 64] >> (row % 64) & 1) as f64
}

/// The field and its column where nothing else than it and constants meet.
fn the_field<'a>(a: &Operand<'a>, b: &Operand<'a>) -> Option<(Column<'a>, usize)> {
    match (a, b) {
        (Operand::ByCode { column, field, .. }, Operand::ByCode { field: other, .. })
            if field == other =>
        {
            Some((*column, *field))
        }
        (Operand::ByCode { column, field, .. }, Operand::Constant(_))
        | (Operand::Constant(_), Operand::ByCode { column, field, .. }) => Some((*column, *field)),
        _ => None,
    }
}

/// An operator over operands of one field and constants: a number per code.
fn by_code(operator: Binary, a: &Operand<'_>, b: &Operand<'_>, codes: usize) -> Vec<f64> {
    if is_numeric(operator) {
        return zip(operator, &by_code_numbers(a), &by_code_numbers(b), codes);
    }
    let codes = 0..codes;
    codes
        .map(|code| apply(operator, &a.by_code(code), &b.by_code(code)))
        .collect()
}

fn by_code_numbers<'n>(operand: &'n Operand<'_>) -> Side<'n> {
    match operand {
        Operand::ByCode { lanes, .. } => Side::Each(lanes.numbers()),
        Operand::Constant(value) => Side::Same(number(value)),
        _ => Side::Same(0.0),
    }
}

/// A numeric operator over both sides' numbers.
fn zip(operator: Binary, a: &Side<'_>, b: &Side<'_>, count: usize) -> Vec<f64> {
    match (a, b) {
        (Side::Same(a), Side::Same(b)) => vec![apply_numeric(operator, *a, *b); count],
        (Side::Same(a), Side::Each(b)) => {
            b.iter().map(|b| apply_numeric(operator, *a, *b)).collect()
        }
        (Side::Each(a), Side::Same(b)) => {
            a.iter().map(|a| apply_numeric(operator, *a, *b)).collect()
        }
        (Side::Each(a), Side::Each(b)) => {
            let pairs = a.iter().zip(b.iter());
            pairs
                .map(|(a, b)| apply_numeric(operator, *a, *b))
                .collect()
        }
    }
}

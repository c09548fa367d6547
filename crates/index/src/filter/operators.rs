//! What operators mean for two values. One row and whole columns both come here.
//!
//! - As a number, a text is the decimal number it spells (spaces before it allowed),
//!   and 0 where it spells none; null and tuples are 0.
//! - As a truth, 0, null and the empty text are false, everything else is true.
//! - Two texts are equal as texts, two tuples element by element, null only to null;
//!   any other two values are compared as numbers. Redis compares two tuples as
//!   numbers too, which makes any two of them equal: surely not what was meant.
//! - `in` asks whether the right side, a tuple, has an equal element, or whether the
//!   right side, a text, contains the left one. Anything else is false.
//! - Arithmetic is IEEE 754 in double precision; truths are the numbers 1 and 0.

use crate::attributes::values::Value;

/// An operator of two operands, its precedence aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Power,
    Times,
    Divide,
    Remainder,
    Plus,
    Minus,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Equal,
    NotEqual,
    In,
    And,
    Or,
}

/// Spelling and meaning; a longer spelling stands before its own beginning.
pub(super) const SYMBOLS: [(&str, Binary); 14] = [
    ("**", Binary::Power),
    (">=", Binary::GreaterOrEqual),
    ("<=", Binary::LessOrEqual),
    ("==", Binary::Equal),
    ("!=", Binary::NotEqual),
    ("&&", Binary::And),
    ("||", Binary::Or),
    ("*", Binary::Times),
    ("/", Binary::Divide),
    ("%", Binary::Remainder),
    ("+", Binary::Plus),
    ("-", Binary::Minus),
    (">", Binary::Greater),
    ("<", Binary::Less),
];

/// As [`SYMBOLS`], of letters.
pub(super) const WORDS: [(&str, Binary); 3] =
    [("in", Binary::In), ("and", Binary::And), ("or", Binary::Or)];

impl Binary {
    /// A higher one binds its operands first.
    pub(super) fn precedence(self) -> u8 {
        match self {
            Binary::Power => 5,
            Binary::Times | Binary::Divide | Binary::Remainder => 4,
            Binary::Plus | Binary::Minus => 3,
            Binary::And => 1,
            Binary::Or => 0,
            _ => 2,
        }
    }

    pub(super) fn is_right_associative(self) -> bool {
        self == Binary::Power
    }

    /// The one spelling used in canonical text.
    pub(super) fn spelling(self) -> &'static str {
        let mut spellings = WORDS.iter().chain(&SYMBOLS);
        let spelling = spellings.find(|(_, operator)| *operator == self);
        spelling.map_or("", |(spelling, _)| spelling)
    }
}

/// The value as a number.
pub(super) fn number(value: &Value<'_>) -> f64 {
    match value {
        Value::Number(number) => *number,
        Value::Text(text) => text.trim_ascii_start().parse().unwrap_or(0.0),
        Value::Null | Value::Tuple(_) => 0.0,
    }
}

/// The value as a truth.
pub(super) fn truth(value: &Value<'_>) -> bool {
    match value {
        Value::Number(number) => *number != 0.0,
        Value::Text(text) => !text.is_empty(),
        Value::Null => false,
        Value::Tuple(_) => true,
    }
}

fn equal(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (Value::Text(a), Value::Text(b)) => a == b,
        (Value::Null, b) => matches!(b, Value::Null),
        (_, Value::Null) => false,
        (Value::Tuple(a), Value::Tuple(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| equal(&a, &b))
        }
        (a, b) => number(a) == number(b),
    }
}

fn is_in(a: &Value<'_>, b: &Value<'_>) -> bool {
    match (a, b) {
        (a, Value::Tuple(elements)) => elements.iter().any(|element| equal(a, &element)),
        (Value::Text(part), Value::Text(text)) => text.contains(part),
        _ => false,
    }
}

/// Whether only the numbers of the operands matter.
pub(super) fn is_numeric(operator: Binary) -> bool {
    use Binary::{And, Equal, In, NotEqual, Or};
    !matches!(operator, Equal | NotEqual | In | And | Or)
}

/// Whether the result is a number, not a truth.
pub(super) fn is_arithmetic(operator: Binary) -> bool {
    // Those that bind firmer than comparisons.
    operator.precedence() > Binary::Equal.precedence()
}

/// The result of two numbers for the operators that are [`is_numeric`]; the others
/// have none.
#[inline(always)]
pub(super) fn apply_numeric(operator: Binary, a: f64, b: f64) -> f64 {
    match operator {
        Binary::Power => a.powf(b),
        Binary::Times => a * b,
        Binary::Divide => a / b,
        Binary::Remainder => a % b,
        Binary::Plus => a + b,
        Binary::Minus => a - b,
        Binary::Greater => f64::from(a > b),
        Binary::GreaterOrEqual => f64::from(a >= b),
        Binary::Less => f64::from(a < b),
        Binary::LessOrEqual => f64::from(a <= b),
        Binary::Equal | Binary::NotEqual | Binary::In | Binary::And | Binary::Or => 0.0,
    }
}

/// The result of any operator.
pub(super) fn apply(operator: Binary, a: &Value<'_>, b: &Value<'_>) -> f64 {
    match operator {
        Binary::Equal => f64::from(equal(a, b)),
        Binary::NotEqual => f64::from(!equal(a, b)),
        Binary::In => f64::from(is_in(a, b)),
        Binary::And => f64::from(truth(a) && truth(b)),
        Binary::Or => f64::from(truth(a) || truth(b)),
        operator => apply_numeric(operator, number(a), number(b)),
    }
}

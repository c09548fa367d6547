//! Filters over attributes, in the language of FILTER in Redis' vector sets.
//!
//! `lexer` and `parse` turn text into a program: values and operators in postfix
//! order. [`Filter::matches`] runs it for one row's JSON text, [`Filter::evaluate`]
//! for a chunk of rows at once (`chunk`); `operators` says what operators mean, once
//! for both.
//!
//! A row passes when every field that the filter names is there and the result is
//! true. A field that is missing anywhere makes the whole filter false, under `not`
//! and `or` too; a row without attributes never passes.
//!
//! Invariant: both ways say the same of every row, except where columns say that they
//! cannot know.

mod chunk;
mod error;
mod lexer;
mod numbers;
mod operators;
mod parse;
mod truths;

use crate::attributes::Column;
use crate::attributes::json::{decode, read_fields};
use crate::attributes::values::{Value, ValueTable};
use chunk::Chunk;
pub use error::FilterError;
use operators::{Binary, apply, truth};
use std::sync::Arc;

/// Tokens of a filter, the elements of its tuples counted: bounds every stack of
/// parsing and of evaluation. The longest of Redis' own examples has 19.
pub const TOKENS_MAX: usize = 128;
/// Parentheses and nots that may be open at once.
pub const DEPTH_MAX: usize = 16;

/// A parsed filter; a clone shares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    program: Arc<Program>,
}

#[derive(Debug, Default, PartialEq)]
struct Program {
    text: String,
    fields: Vec<String>,
    literals: ValueTable,
    steps: Vec<Step>,
}

/// One step of a program: puts a value on the stack, or replaces those on top.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Step {
    /// By place among the literals.
    Literal(usize),
    /// By place among the fields.
    Field(usize),
    Not,
    Binary(Binary),
}

impl Filter {
    /// Parses a filter: `( ) ! not ** * / % + - > >= < <= == != in and && or ||`,
    /// numbers, strings in either quotes, tuples, null, true, false, and fields of the
    /// row as `.name`. Errors name the byte and what could stand there; so do they for
    /// more than [`TOKENS_MAX`] tokens or a depth beyond [`DEPTH_MAX`].
    pub fn parse(text: &str) -> Result<Filter, FilterError> {
        let program = Arc::new(parse::parse(text)?);
        Ok(Filter { program })
    }

    /// The fields that rows must have, each once, in order of first appearance.
    pub fn fields(&self) -> &[String] {
        &self.program.fields
    }

    /// The filter in canonical spelling: the same program for the same text, and most
    /// often the same text for the same program.
    pub fn text(&self) -> &str {
        &self.program.text
    }

    /// Whether a row passes, from the text of its attributes. Reads all of the text,
    /// decodes only the fields it needs.
    pub fn matches(&self, attrs: Option<&str>) -> bool {
        let Some(attrs) = attrs else {
            return false;
        };
        let fields = &self.program.fields;
        let mut texts = vec![None; fields.len()];
        let is_object = read_fields(attrs, |name, text| {
            if let Some(field) = fields.iter().position(|field| *field == name) {
                // Of fields with the same name the first counts.
                texts[field].get_or_insert(text);
            }
        });
        if !is_object && !fields.is_empty() {
            return false;
        }
        let decoded = texts.into_iter().map(|text| decode(text?));
        let Some(decoded) = decoded.collect::<Option<Vec<_>>>() else {
            return false;
        };
        truth(&self.program.run(|field| decoded[field].value()))
    }

    /// Evaluates the filter over a chunk of `rows` rows. `columns[i]` is the column of
    /// `fields()[i]`; None says that no row has the field, or, unless `is_complete`,
    /// that it is not known which do. Sets bit `i` of `pass` where row `i` passes, and
    /// of `unknown` where only the row's JSON text can tell (never both). Both hold
    /// `rows.div_ceil(64)` words and come zeroed.
    ///
    /// O(rows + distinct values) for each step of the filter.
    pub fn evaluate(
        &self,
        columns: &[Option<Column<'_>>],
        is_complete: bool,
        rows: u32,
        pass: &mut [u64],
        unknown: &mut [u64],
    ) {
        let lacks_columns = columns.iter().any(Option::is_none);
        if lacks_columns && is_complete {
            return;
        }
        let rows = rows as usize;
        let chunk = Chunk { columns, rows };
        let (truths, present) = (chunk.run(&self.program), chunk.present());
        let yes = truths.yes.iter().zip(&present).map(|(yes, has)| yes & has);
        // A row that may lack a field, or attributes at all where the filter names no
        // field, passes only if its text has it.
        let is_presence_known = !lacks_columns && !columns.is_empty();
        let rows_that_pass = match is_presence_known {
            true => pass,
            false => &mut *unknown,
        };
        rows_that_pass
            .iter_mut()
            .zip(yes)
            .for_each(|(word, yes)| *word = yes);
        if let Some(not_known) = &truths.unknown {
            let not_known = not_known.iter().zip(&present).map(|(word, has)| word & has);
            unknown
                .iter_mut()
                .zip(not_known)
                .for_each(|(word, more)| *word |= more);
        }
    }
}

impl Program {
    /// Runs the program for one row.
    fn run<'a>(&'a self, value_of: impl Fn(usize) -> Value<'a>) -> Value<'a> {
        let literals = self.literals.values();
        let mut stack: Vec<Value<'a>> = Vec::with_capacity(self.steps.len());
        // Parsing made sure that operands are there; null stands for what never is.
        for step in &self.steps {
            let value = match step {
                Step::Literal(place) => literals.get(*place).unwrap_or(Value::Null),
                Step::Field(field) => value_of(*field),
                Step::Not => {
                    let operand = stack.pop().unwrap_or(Value::Null);
                    Value::Number(f64::from(!truth(&operand)))
                }
                Step::Binary(operator) => {
                    let b = stack.pop().unwrap_or(Value::Null);
                    let a = stack.pop().unwrap_or(Value::Null);
                    Value::Number(apply(*operator, &a, &b))
                }
            };
            stack.push(value);
        }
        stack.pop().unwrap_or(Value::Null)
    }
}

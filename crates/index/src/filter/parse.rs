//! Turns tokens into a program in postfix order (Dijkstra's shunting yard).
//!
//! Operators wait on a stack until one that binds less firmly, a parenthesis or the
//! end comes. Nothing recurses; how many parentheses and `not`s may wait is bounded,
//! and so is the number of tokens, hence every stack.
//!
//! Two values in a row, or an operator without its operands, are refused where they
//! stand. (Redis only counts: it takes `1 2 +`, and refuses `!!.a`.)
//!
//! The canonical text is the same tokens in one spelling with one space between: it
//! parses to the same program.

use super::error::FilterError;
use super::lexer::{Lexer, Token, expected, shown};
use super::operators::Binary;
use super::{DEPTH_MAX, Program, Step};
use crate::attributes::json::Decoded;
use crate::attributes::values::Value;
use std::fmt::Write;

/// What waits for its right operand, or for its other parenthesis (with its place).
enum Waiting {
    Open(usize),
    Not,
    Binary(Binary),
}

struct Parser {
    program: Program,
    waiting: Vec<Waiting>,
    /// Parentheses and nots that wait.
    depth: usize,
}

pub(super) fn parse(text: &str) -> Result<Program, FilterError> {
    let mut lexer = Lexer::new(text);
    let mut parser = Parser {
        program: Program::default(),
        waiting: Vec::new(),
        depth: 0,
    };
    let mut is_value_next = true;
    while let Some((at, token)) = lexer.next(is_value_next)? {
        parser.spell(&token);
        match (token, is_value_next) {
            (Token::Literal(literal), true) => {
                parser.literal(&literal);
                is_value_next = false;
            }
            (Token::Field(name), true) => {
                parser.field(name);
                is_value_next = false;
            }
            (Token::Open, true) => parser.nest(at, Waiting::Open(at))?,
            (Token::Not, true) => parser.nest(at, Waiting::Not)?,
            (Token::Close, false) => parser.close(at)?,
            (Token::Binary(operator), false) => {
                parser.binary(operator);
                is_value_next = true;
            }
            _ => {
                return Err(FilterError::new(
                    at,
                    expected(is_value_next),
                    shown(&text[at..]),
                ));
            }
        }
    }
    if is_value_next {
        return Err(lexer.unexpected(expected(true)));
    }
    parser.finish(text)
}

impl Parser {
    fn literal(&mut self, literal: &Decoded<'_>) {
        let place = self.program.literals.len();
        self.program.literals.push(Some(literal.value()));
        self.program.steps.push(Step::Literal(place));
    }

    fn field(&mut self, name: &str) {
        let fields = &mut self.program.fields;
        let place = fields.iter().position(|known| known == name);
        let place = place.unwrap_or_else(|| {
            fields.push(name.to_string());
            fields.len() - 1
        });
        self.program.steps.push(Step::Field(place));
    }

    fn nest(&mut self, at: usize, waiting: Waiting) -> Result<(), FilterError> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            let expected = format!("at most {DEPTH_MAX} nested parentheses and nots");
            return Err(FilterError::new(at, expected, "one more"));
        }
        self.waiting.push(waiting);
        Ok(())
    }

    /// What binds as firmly or firmer has its operands now. A prefix is left alone by
    /// another prefix, and binds firmest: `!.a ** 2` is `(!.a) ** 2`.
    fn binary(&mut self, operator: Binary) {
        while let Some(waiting) = self.waiting.pop() {
            let is_ready = match &waiting {
                Waiting::Open(_) => false,
                Waiting::Not => true,
                Waiting::Binary(before) if operator.is_right_associative() => {
                    before.precedence() > operator.precedence()
                }
                Waiting::Binary(before) => before.precedence() >= operator.precedence(),
            };
            if !is_ready {
                self.waiting.push(waiting);
                break;
            }
            self.emit(&waiting);
        }
        self.waiting.push(Waiting::Binary(operator));
    }

    fn close(&mut self, at: usize) -> Result<(), FilterError> {
        while let Some(waiting) = self.waiting.pop() {
            if let Waiting::Open(_) = waiting {
                self.depth -= 1;
                return Ok(());
            }
            self.emit(&waiting);
        }
        Err(FilterError::new(at, expected(false), "a ) without its ("))
    }

    fn finish(mut self, text: &str) -> Result<Program, FilterError> {
        while let Some(waiting) = self.waiting.pop() {
            if let Waiting::Open(at) = waiting {
                let expected = format!("a ) for the ( of byte {at}");
                return Err(FilterError::new(text.len(), expected, "the end"));
            }
            self.emit(&waiting);
        }
        Ok(self.program)
    }

    fn emit(&mut self, waiting: &Waiting) {
        match waiting {
            Waiting::Open(_) => {}
            Waiting::Not => {
                self.depth -= 1;
                self.program.steps.push(Step::Not);
            }
            Waiting::Binary(operator) => self.program.steps.push(Step::Binary(*operator)),
        }
    }

    fn spell(&mut self, token: &Token<'_>) {
        let text = &mut self.program.text;
        if !text.is_empty() {
            text.push(' ');
        }
        match token {
            Token::Open => text.push('('),
            Token::Close => text.push(')'),
            Token::Not => text.push_str("not"),
            Token::Binary(operator) => text.push_str(operator.spelling()),
            Token::Field(name) => {
                text.push('.');
                text.push_str(name);
            }
            Token::Literal(literal) => spell_value(text, &literal.value()),
        }
    }
}

fn spell_value(text: &mut String, value: &Value<'_>) {
    match value {
        // Rust spells every float64 so that it is read back bit for bit; what is
        // beyond them is the only one it spells with letters.
        Value::Number(number) if number.is_infinite() => {
            text.push_str(if *number > 0.0 { "9e999" } else { "-9e999" });
        }
        Value::Number(number) => {
            // Writing to a string cannot fail.
            let _ = write!(text, "{number:?}");
        }
        Value::Text(string) => {
            text.push('"');
            for character in string.chars() {
                if matches!(character, '"' | '\\') {
                    text.push('\\');
                }
                text.push(character);
            }
            text.push('"');
        }
        Value::Null => text.push_str("null"),
        Value::Tuple(elements) => {
            text.push('[');
            for element in elements.iter() {
                spell_value(text, &element);
                text.push(',');
            }
            text.push(']');
        }
    }
}

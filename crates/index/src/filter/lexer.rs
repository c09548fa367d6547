//! Cuts the text of a filter into tokens.
//!
//! Words are runs of letters and digits that must be known; symbols are the longest
//! that fit. A minus before a digit belongs to the number where a value can stand, and
//! is the operator where an operator can: `.a -1` subtracts.
//!
//! Different from Redis on purpose, where only its accidents differ:
//! - Escapes in strings are decoded, as in JSON; other escaped characters stand for
//!   themselves. (Redis long kept the backslashes, so that no such string matched.)
//!   What a JSON library writes for a string is thus a string here.
//! - Numbers may have a signed exponent; `null` may stand before a parenthesis.
//! - `true` and `false` are 1 and 0, and may stand in tuples, as may null.

use super::TOKENS_MAX;
use super::error::FilterError;
use super::operators::{Binary, SYMBOLS, WORDS};
use crate::attributes::json::Decoded;
use crate::attributes::values::ValueTable;
use std::borrow::Cow;

/// What a filter's text is made of.
#[derive(Debug)]
pub(super) enum Token<'a> {
    Open,
    Close,
    Not,
    Binary(Binary),
    Field(&'a str),
    Literal(Decoded<'a>),
}

/// Where in the text the next token starts.
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
    tokens: usize,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            tokens: 0,
        }
    }

    /// The next token and where it starts; None at the end. `is_value_next` says that
    /// a value can stand here, not an operator.
    pub(super) fn next(
        &mut self,
        is_value_next: bool,
    ) -> Result<Option<(usize, Token<'a>)>, FilterError> {
        self.skip_spaces();
        let at = self.at;
        let rest = self.rest();
        let Some(first) = rest.bytes().next() else {
            return Ok(None);
        };
        self.count()?;
        let is_number = first.is_ascii_digit() || (is_value_next && is_negative_number(rest));
        let token = match first {
            _ if is_number => Token::Literal(self.number()?),
            b'"' | b'\'' => Token::Literal(self.string()?),
            b'[' => Token::Literal(self.tuple()?),
            b'.' => Token::Field(self.field()?),
            b'a'..=b'z' | b'A'..=b'Z' => self.word(is_value_next)?,
            b'(' => self.symbol(1, Token::Open),
            b')' => self.symbol(1, Token::Close),
            b'!' if !rest.starts_with("!=") => self.symbol(1, Token::Not),
            _ => match SYMBOLS.iter().find(|(symbol, _)| rest.starts_with(symbol)) {
                Some((symbol, operator)) => self.symbol(symbol.len(), Token::Binary(*operator)),
                None => return Err(self.unexpected(expected(is_value_next))),
            },
        };
        Ok(Some((at, token)))
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn skip_spaces(&mut self) {
        let is_space = |c: char| c.is_ascii_whitespace() || c == '\u{b}';
        self.at = self.text.len() - self.rest().trim_start_matches(is_space).len();
    }

    fn symbol(&mut self, len: usize, token: Token<'a>) -> Token<'a> {
        self.at += len;
        token
    }

    /// Counts a token or an element of a tuple.
    fn count(&mut self) -> Result<(), FilterError> {
        self.tokens += 1;
        match self.tokens <= TOKENS_MAX {
            true => Ok(()),
            false => Err(FilterError::new(
                self.at,
                format!("the end after at most {TOKENS_MAX} tokens"),
                "one more",
            )),
        }
    }

    /// What stands at the place reached, in short.
    pub(super) fn unexpected(&self, expected: impl Into<String>) -> FilterError {
        let found = match self.rest().chars().next() {
            Some(character) => format!("{character:?}"),
            None => "the end".to_string(),
        };
        FilterError::new(self.at, expected, found)
    }

    /// Takes what starts the rest and passes the test, byte by byte (ASCII only).
    fn run(&mut self, test: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let len = rest
            .bytes()
            .position(|byte| !test(byte))
            .unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    fn field(&mut self) -> Result<&'a str, FilterError> {
        self.at += 1;
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        match self.run(is_part) {
            "" => Err(self.unexpected("the name of a field: letters, digits, _ and -")),
            name => Ok(name),
        }
    }

    fn word(&mut self, is_value_next: bool) -> Result<Token<'a>, FilterError> {
        let at = self.at;
        let word = self.run(|byte| byte.is_ascii_alphabetic());
        Ok(match word {
            "not" => Token::Not,
            "null" => Token::Literal(Decoded::Null),
            "true" => Token::Literal(Decoded::Number(1.0)),
            "false" => Token::Literal(Decoded::Number(0.0)),
            _ => match WORDS.iter().find(|(known, _)| *known == word) {
                Some((_, operator)) => Token::Binary(*operator),
                None => return Err(unknown_word(at, word, is_value_next)),
            },
        })
    }

    /// Digits, a fraction, an exponent; at a digit or a minus.
    fn number(&mut self) -> Result<Decoded<'a>, FilterError> {
        let start = self.at;
        self.at += usize::from(self.rest().starts_with('-'));
        self.run(|byte| byte.is_ascii_digit());
        if self.rest().starts_with('.') {
            self.at += 1;
            self.run(|byte| byte.is_ascii_digit());
        }
        if self.rest().starts_with(['e', 'E']) {
            self.at += 1;
            self.at += usize::from(self.rest().starts_with(['+', '-']));
            self.run(|byte| byte.is_ascii_digit());
        }
        let number = self.text[start..self.at].parse();
        let number = number.map_err(|_| self.unexpected("a digit of the number"))?;
        Ok(Decoded::Number(number))
    }

    /// At the opening quote.
    fn string(&mut self) -> Result<Decoded<'a>, FilterError> {
        let start = self.at;
        let quote = match self.rest().starts_with('\'') {
            true => '\'',
            false => '"',
        };
        self.at += 1;
        let mut decoded = Cow::Borrowed("");
        loop {
            let rest = self.rest();
            let Some(len) = rest.find([quote, '\\']) else {
                let expected = format!("a string that ends with {quote}");
                return Err(FilterError::new(start, expected, "the end"));
            };
            // A string without escapes stays borrowed: nothing was decoded before.
            decoded += &rest[..len];
            self.at += len + 1;
            if rest[len..].starts_with(quote) {
                return Ok(Decoded::Text(decoded));
            }
            let character = self.escape()?;
            decoded.to_mut().push(character);
        }
    }

    /// Behind a backslash.
    fn escape(&mut self) -> Result<char, FilterError> {
        let Some(escaped) = self.rest().chars().next() else {
            return Err(self.unexpected("an escaped character"));
        };
        self.at += escaped.len_utf8();
        Ok(match escaped {
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'u' => self.unicode()?,
            other => other,
        })
    }

    /// Behind `\u`: four hexadecimal digits, or two such escapes that are a surrogate
    /// pair, as JSON libraries write what is not ASCII.
    fn unicode(&mut self) -> Result<char, FilterError> {
        let start = self.at;
        let high = self.hexadecimal()?;
        let mut code = high;
        if (0xD800..0xDC00).contains(&high) && self.rest().starts_with("\\u") {
            self.at += 2;
            let low = self.hexadecimal()?.wrapping_sub(0xDC00);
            code = 0x10000 + ((high - 0xD800) << 10 | low & 0x3FF);
            code = if low < 0x400 { code } else { high };
        }
        let unpaired = || FilterError::new(start, "a character", "half of a surrogate pair");
        char::from_u32(code).ok_or_else(unpaired)
    }

    fn hexadecimal(&mut self) -> Result<u32, FilterError> {
        let mut code = 0;
        for _ in 0..4 {
            let digit = self
                .rest()
                .chars()
                .next()
                .and_then(|digit| digit.to_digit(16));
            code = code << 4 | digit.ok_or_else(|| self.unexpected("a hexadecimal digit"))?;
            self.at += 1;
        }
        Ok(code)
    }

    /// At the opening bracket. As in Redis a comma may stand before the closing one.
    fn tuple(&mut self) -> Result<Decoded<'a>, FilterError> {
        self.at += 1;
        let mut elements = ValueTable::default();
        loop {
            self.skip_spaces();
            if self.rest().starts_with(']') {
                break;
            }
            self.count()?;
            elements.push(Some(self.element()?.value()));
            self.skip_spaces();
            match self.rest().bytes().next() {
                Some(b',') => self.at += 1,
                Some(b']') => {}
                _ => return Err(self.unexpected("a comma or ] of the tuple")),
            }
        }
        self.at += 1;
        Ok(Decoded::Tuple(elements))
    }

    fn element(&mut self) -> Result<Decoded<'a>, FilterError> {
        let expected = "an element of the tuple: a number, a string, null, true or false";
        match self.rest().bytes().next() {
            Some(b'0'..=b'9' | b'-') => self.number(),
            Some(b'"' | b'\'') => self.string(),
            Some(b'a'..=b'z') => {
                let at = self.at;
                match self.word(true) {
                    Ok(Token::Literal(literal)) => Ok(literal),
                    _ => Err(FilterError::new(at, expected, shown(&self.text[at..]))),
                }
            }
            _ => Err(self.unexpected(expected)),
        }
    }
}

/// What can stand where a value or an operator is next.
pub(super) fn expected(is_value_next: bool) -> &'static str {
    match is_value_next {
        true => "a value: .field, a number, a string, a tuple, null, true or false",
        false => "an operator or the end",
    }
}

fn is_negative_number(rest: &str) -> bool {
    let mut bytes = rest.bytes();
    bytes.next() == Some(b'-') && bytes.next().is_some_and(|byte| byte.is_ascii_digit())
}

fn unknown_word(at: usize, word: &str, is_value_next: bool) -> FilterError {
    FilterError::new(at, expected(is_value_next), shown(word))
}

/// The beginning of what was found, quoted.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_CHARACTERS: usize = 16;
    let end = text.char_indices().nth(SHOWN_CHARACTERS);
    match end {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

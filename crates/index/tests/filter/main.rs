//! Filters and attribute columns: what expressions mean and which are refused
//! (`language.rs`), the bytes of columns and their limits (`columns.rs`), and that columns
//! say the same as the rows' JSON text (`agreement.rs`). Here is what they share.

mod agreement;
mod columns;
mod language;

use vexlake_index::{Column, Columns, Filter};

fn passes(filter: &str, attrs: &str) -> bool {
    let filter = Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}"));
    let passes = filter.matches(Some(attrs));
    let columns = columns_of(&[Some(attrs)]);
    let (pass, unknown) = evaluated(&filter, &columns);
    // Columns do not tell whether a row has attributes at all.
    let expected = match filter.fields().is_empty() {
        true => (false, passes),
        false => (passes, false),
    };
    assert_eq!(
        (pass[0], unknown[0]),
        expected,
        "{filter:?} over columns of {attrs}"
    );
    passes
}

fn columns_of(rows: &[Option<&str>]) -> Columns {
    let mut columns = Columns::default();
    rows.iter().for_each(|attrs| columns.push(*attrs));
    columns
}

/// (passes, is unknown) of every row.
fn evaluated(filter: &Filter, columns: &Columns) -> (Vec<bool>, Vec<bool>) {
    let of_fields: Vec<_> = filter
        .fields()
        .iter()
        .map(|name| columns.column(name))
        .collect();
    evaluated_over(filter, &of_fields, columns.is_complete(), columns.rows())
}

fn evaluated_over(
    filter: &Filter,
    columns: &[Option<Column<'_>>],
    is_complete: bool,
    rows: u32,
) -> (Vec<bool>, Vec<bool>) {
    let words = rows.div_ceil(64) as usize;
    let (mut pass, mut unknown) = (vec![0; words], vec![0; words]);
    filter.evaluate(columns, is_complete, rows, &mut pass, &mut unknown);
    let tail = |words: &[u64]| words.last().copied().unwrap_or(0).checked_shr(rows % 64);
    if !rows.is_multiple_of(64) {
        assert_eq!(
            (tail(&pass), tail(&unknown)),
            (Some(0), Some(0)),
            "bits past the rows"
        );
    }
    let bits = |words: &[u64]| {
        let rows = 0..rows as usize;
        rows.map(|row| words[row / 64] >> (row % 64) & 1 == 1)
            .collect::<Vec<_>>()
    };
    (bits(&pass), bits(&unknown))
}

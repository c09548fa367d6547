//! Measures filters on one thread and prints one line per filter: nanoseconds a row
//! over columns (the fastest of many passes), over columns decoded anew, and from the
//! rows' JSON text. The last line is what building and encoding the columns takes.
//!
//! The rows are one chunk: `year` of 80 values, `genre` of 20 texts, `price` of
//! 2,000 and `id` different in every row.

use std::hint::black_box;
use std::time::{Duration, Instant};
use vexlake_index::{CHUNK_ROWS, Column, Columns, Filter};

/// Passes over the chunk; the fastest counts.
const PASSES: usize = 200;

const FILTERS: [&str; 8] = [
    ".year > 2000 and .genre == \"g7\"",
    ".year > 2000",
    "not (.year > 2000 or .genre in [\"g1\", \"g2\", \"g3\"])",
    ".price * 2 > 1000 and .year < 1990",
    ".price < .year",
    ".id > 9000",
    "\"g1\" in .genre",
    ".year == 1950",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let rows: Vec<String> = (0..CHUNK_ROWS as usize).map(row).collect();
    let build = fastest(5, || {
        let mut columns = Columns::default();
        rows.iter().for_each(|row| columns.push(Some(row)));
        columns.encode()
    });
    let mut columns = Columns::default();
    rows.iter().for_each(|row| columns.push(Some(row)));
    let encoded = columns.encode();
    for text in FILTERS {
        let filter = Filter::parse(text)?;
        let decoded = || -> Vec<Option<Column<'_>>> {
            let fields = filter.fields().iter().map(|name| {
                let (_, bytes) = encoded.iter().find(|(other, _)| other == name)?;
                Column::decode(bytes, CHUNK_ROWS).ok()
            });
            fields.collect()
        };
        let over = |columns: &[Option<Column<'_>>]| {
            let mut pass = [0; CHUNK_ROWS as usize / 64];
            let mut unknown = pass;
            filter.evaluate(columns, true, CHUNK_ROWS, &mut pass, &mut unknown);
            pass
        };
        let opened = decoded();
        let passing: u32 = over(&opened).iter().map(|word| word.count_ones()).sum();
        let warm = fastest(PASSES, || over(&opened));
        let cold = fastest(PASSES, || over(&decoded()));
        let texts = fastest(5, || {
            rows.iter().filter(|row| filter.matches(Some(row))).count()
        });
        println!("{warm:6.2} {cold:6.2} {texts:7.1} ns/row  {passing:5} pass  {text}");
    }
    println!(
        "{build:.1} ns/row to build and encode {} columns",
        encoded.len()
    );
    Ok(())
}

fn row(row: usize) -> String {
    // Steps that are coprime to the ranges, so that values follow in no order.
    let (year, genre) = (1940 + row * 37 % 80, row * 13 % 20);
    let price = (row * 7919 % 2000) as f64 + 0.5;
    let id = row * 20_011 % 32_768;
    format!(r#"{{"id": {id}, "year": {year}, "genre": "g{genre}", "price": {price}}}"#)
}

/// Nanoseconds a row of the fastest pass.
fn fastest<T>(passes: usize, mut pass: impl FnMut() -> T) -> f64 {
    let times = (0..passes).map(|_| {
        let start = Instant::now();
        black_box(pass());
        start.elapsed()
    });
    let fastest = times.min().unwrap_or(Duration::MAX);
    fastest.as_nanos() as f64 / f64::from(CHUNK_ROWS)
}

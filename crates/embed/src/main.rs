//! `vexlake-embed`: trains the embedder on passages, embeds lines of text, measures itself.
//!
//! Exit codes as everywhere in VexLake: 0 done, 1 a check failed, 2 usage or unreadable input.

use std::collections::HashMap;
use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use serde::Deserialize;
use vexlake_embed::evaluate::{NEAREST, count_found, cut_queries};
use vexlake_embed::{DIM_MAX, Model};

const USAGE: &str = "usage:
  vexlake-embed train    --in passages.jsonl --model model.bin --out vectors.f32 [--dim 256] [--seed 1]
  vexlake-embed embed    --model model.bin
  vexlake-embed evaluate --in passages.jsonl --model model.bin [--queries 200] [--seed 1] [--bar 80]

train     reads JSONL with a field \"text\" per line (also \"title\"), writes the model and one vector of
          little-endian float32 per line
embed     reads one JSON string per line on stdin, writes one such vector per line to stdout, flushed
          whenever no more input is waiting
evaluate  cuts sentences out of passages and reports how many find theirs among the nearest ten;
          exits 1 below the bar (percent)";

type Failure = Box<dyn std::error::Error>;
type Options = HashMap<String, String>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((command, rest)) if command == "train" => {
            options(rest, &["in", "model", "out", "dim", "seed"]).and_then(|given| train(&given))
        }
        Some((command, rest)) if command == "embed" => {
            options(rest, &["model"]).and_then(|given| embed(&given))
        }
        Some((command, rest)) if command == "evaluate" => {
            let known = ["in", "model", "queries", "seed", "bar"];
            options(rest, &known).and_then(|given| evaluate(&given))
        }
        _ => Err(USAGE.into()),
    };
    done.unwrap_or_else(|failure| {
        eprintln!("{failure}");
        ExitCode::from(2)
    })
}

/// Corpus lines; other fields are for people and for keys.
#[derive(Deserialize)]
struct Passage {
    #[serde(default)]
    title: String,
    text: String,
}

fn train(options: &Options) -> Result<ExitCode, Failure> {
    let dim: usize = number(options, "dim", 256)?;
    if dim == 0 || dim > DIM_MAX {
        return Err(format!("--dim is {dim}, needs 1 to {DIM_MAX}").into());
    }
    let texts = read_passages(required(options, "in")?)?;
    let model = Model::train(&texts, dim, number(options, "seed", 1)?);
    write_whole(required(options, "model")?, &model.to_bytes())?;
    let vectors = model.embed_all(&texts);
    write_whole(required(options, "out")?, &le_bytes(&vectors))?;
    println!(
        "{} vectors of {dim} floats from {} features",
        texts.len(),
        model.feature_count()
    );
    Ok(ExitCode::SUCCESS)
}

fn embed(options: &Options) -> Result<ExitCode, Failure> {
    let model = read_model(required(options, "model")?)?;
    let mut input = BufReader::new(io::stdin().lock());
    let mut output = BufWriter::new(io::stdout().lock());
    let mut vector = vec![0.0; model.dim()];
    let mut line = String::new();
    while input.read_line(&mut line)? > 0 {
        let text: String = serde_json::from_str(&line)
            .map_err(|error| format!("a line of stdin is not a JSON string: {error}"))?;
        model.embed(&text, &mut vector);
        output.write_all(&le_bytes(&vector))?;
        // Whoever asks one question at a time gets each answer at once.
        if input.buffer().is_empty() {
            output.flush()?;
        }
        line.clear();
    }
    output.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn evaluate(options: &Options) -> Result<ExitCode, Failure> {
    let texts = read_passages(required(options, "in")?)?;
    let model = read_model(required(options, "model")?)?;
    let queries = cut_queries(
        &texts,
        number(options, "queries", 200)?,
        number(options, "seed", 1)?,
    );
    if queries.is_empty() {
        return Err("no passage is long enough to cut a query from".into());
    }
    let found = count_found(&model, &model.embed_all(&texts), &queries);
    let percent = 100.0 * found as f64 / queries.len() as f64;
    println!(
        "{found} of {} queries among the nearest {NEAREST}: {percent:.1} %",
        queries.len()
    );
    let bar: f64 = number(options, "bar", 80.0)?;
    Ok(ExitCode::from(u8::from(percent < bar)))
}

/// `--name value` pairs of known names.
fn options(arguments: &[String], known: &[&str]) -> Result<Options, Failure> {
    let (pairs, odd) = arguments.as_chunks::<2>();
    if let [single] = odd {
        return Err(format!("{single} has no value\n{USAGE}").into());
    }
    let mut options = Options::new();
    for [name, value] in pairs {
        let name = name.strip_prefix("--").filter(|name| known.contains(name));
        let name = name.ok_or_else(|| format!("unknown option before {value:?}\n{USAGE}"))?;
        options.insert(name.to_string(), value.clone());
    }
    Ok(options)
}

fn required<'a>(options: &'a Options, name: &str) -> Result<&'a Path, Failure> {
    let value = options
        .get(name)
        .ok_or_else(|| format!("--{name} is missing\n{USAGE}"))?;
    Ok(Path::new(value))
}

fn number<T: std::str::FromStr>(options: &Options, name: &str, default: T) -> Result<T, Failure> {
    let Some(text) = options.get(name) else {
        return Ok(default);
    };
    text.parse()
        .map_err(|_| format!("--{name} is {text:?}, needs a number").into())
}

fn read_passages(path: &Path) -> Result<Vec<String>, Failure> {
    let corpus = fs::read_to_string(path).map_err(|error| in_file(path, &error))?;
    let mut texts = Vec::new();
    for (at, line) in corpus.lines().enumerate() {
        let passage: Passage = serde_json::from_str(line)
            .map_err(|error| format!("{}, line {}: {error}", path.display(), at + 1))?;
        texts.push(format!("{}\n{}", passage.title, passage.text));
    }
    Ok(texts)
}

fn read_model(path: &Path) -> Result<Model, Failure> {
    let bytes = fs::read(path).map_err(|error| in_file(path, &error))?;
    Ok(Model::from_bytes(&bytes).map_err(|error| in_file(path, &error))?)
}

/// Written beside and renamed, so that no reader meets half a file.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    fs::write(&part, bytes)
        .and_then(|()| fs::rename(&part, path))
        .map_err(|error| in_file(path, &error).into())
}

fn in_file(path: &Path, error: &dyn std::error::Error) -> String {
    format!("{}: {error}", path.display())
}

fn le_bytes(floats: &[f32]) -> Vec<u8> {
    floats
        .iter()
        .flat_map(|float| float.to_le_bytes())
        .collect()
}

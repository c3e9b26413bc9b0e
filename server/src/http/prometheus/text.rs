//! Prometheus' text format: tables of numbers, written while they are sent.

use crate::histogram::Histogram;
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame};
use std::borrow::Borrow;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::task::{Context, Poll};

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Flags and labels.
    Untyped,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Untyped => "untyped",
        }
    }
}

/// One metric: how it is called, and where its number is in an `R`.
pub(super) struct Column<R: 'static> {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    value: fn(&R) -> f64,
}

/// A [`Column`].
pub(super) const fn column<R>(
    name: &'static str,
    kind: Kind,
    help: &'static str,
    value: fn(&R) -> f64,
) -> Column<R> {
    Column { name, kind, help, value }
}

/// A count as Prometheus has numbers.
#[allow(clippy::cast_precision_loss)] // counts beyond 2^53 are off by one in 10^15
pub(super) fn float(number: u64) -> f64 {
    number as f64
}

/// Nanoseconds as seconds.
pub(super) fn seconds(ns: u64) -> f64 {
    float(ns) / 1e9
}

/// What precedes the samples of a metric.
fn write_head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# TYPE {name} {kind}\n# HELP {name} {help}");
}

/// `key="value"`, quoted as the format wants it.
pub(super) fn label(out: &mut String, key: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    let _ = write!(out, "{key}=\"");
    for letter in value.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
    out.push('"');
}

/// Several labels.
pub(super) fn labels(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (key, value) in pairs {
        label(&mut out, key, value);
    }
    out
}

fn write_sample(out: &mut String, name: &str, labels: &str, value: f64) {
    out.push_str(name);
    if !labels.is_empty() {
        let _ = write!(out, "{{{labels}}}");
    }
    let _ = writeln!(out, " {value}");
}

/// Metrics of objects of one sort: a number for each metric and object.
pub(super) struct Table {
    /// Name, type and help.
    heads: Vec<(String, Kind, &'static str)>,
    /// Labels, and a number for each head. What is not known is not a number; of the whole node it
    /// is left out, of an object it is shown.
    rows: Vec<(Box<str>, Box<[f64]>)>,
}

impl Table {
    /// The columns of all rows, under names that begin with `prefix`.
    pub(super) fn new<R>(
        prefix: &str,
        columns: &[&'static [Column<R>]],
        rows: impl IntoIterator<Item = (String, impl Borrow<R>)>,
    ) -> Table {
        let all = || columns.iter().copied().flatten();
        let heads = all().map(|one| (format!("{prefix}{}", one.name), one.kind, one.help));
        let numbers = |row: &R| all().map(|column| (column.value)(row)).collect();
        let rows = rows.into_iter().map(|(labels, row)| (labels.into(), numbers(row.borrow())));
        Table { heads: heads.collect(), rows: rows.collect() }
    }
}

/// A part of an exposition.
pub(super) enum Block {
    /// Made already.
    Text(String),
    /// Made while it is sent.
    Table(Table),
}

impl Block {
    /// One metric with samples of given labels.
    pub(super) fn samples(name: &str, kind: Kind, help: &str, samples: &[(String, f64)]) -> Block {
        let mut out = String::new();
        write_head(&mut out, name, kind.name(), help);
        for (labels, value) in samples {
            write_sample(&mut out, name, labels, *value);
        }
        Block::Text(out)
    }

    /// A histogram whose bounds are written by `bound`, and whose sum is divided by `unit`.
    pub(super) fn histogram(
        name: &str,
        help: &str,
        labels: &str,
        histogram: &Histogram,
        unit: f64,
        bound: fn(u64) -> String,
    ) -> Block {
        let mut out = String::new();
        write_head(&mut out, name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut write_bucket = |bound: &str, count: u64| {
            let mut all = labels.to_owned();
            label(&mut all, "le", bound);
            write_sample(&mut out, &bucket, &all, float(count));
        };
        for (upper, count) in histogram.cumulative() {
            write_bucket(&bound(upper), count);
        }
        write_bucket("+Inf", histogram.count());
        write_sample(&mut out, &format!("{name}_sum"), labels, float(histogram.sum()) / unit);
        write_sample(&mut out, &format!("{name}_count"), labels, float(histogram.count()));
        Block::Text(out)
    }

    /// A summary without quantiles.
    pub(super) fn summary(name: &str, help: &str, samples: &[(String, u64, f64)]) -> Block {
        let mut out = String::new();
        write_head(&mut out, name, "summary", help);
        for (labels, count, sum) in samples {
            write_sample(&mut out, &format!("{name}_count"), labels, float(*count));
            write_sample(&mut out, &format!("{name}_sum"), labels, *sum);
        }
        Block::Text(out)
    }
}

/// An exposition is sent in pieces of about this size.
const PIECE_SIZE: usize = 64 << 10; // bytes

/// All of a reply, written piece by piece, so that a hundred thousand queues neither fill memory
/// with text nor keep other requests waiting.
pub(super) struct Exposition {
    blocks: Vec<Block>,
    block: usize,
    head: usize,
    row: usize,
    /// Bytes made so far.
    size: usize,
    /// Is told the size of it all at the end.
    finish: Option<Box<dyn FnOnce(usize)>>,
    /// A piece that was already made.
    first: Option<String>,
}

impl Exposition {
    /// All of these blocks; `finish` is told the size of it all.
    pub(super) fn new(blocks: Vec<Block>, finish: Box<dyn FnOnce(usize)>) -> Exposition {
        Exposition { blocks, block: 0, head: 0, row: 0, size: 0, finish: Some(finish), first: None }
    }

    /// The whole text, if it is not longer than a few pieces; else a body that makes it.
    pub(super) fn whole_or_rest(mut self) -> Result<String, Exposition> {
        let mut text = String::new();
        for _ in 0..4 {
            let Some(piece) = self.piece() else { return Ok(text) };
            text.push_str(&piece);
        }
        self.first = Some(text);
        Err(self)
    }

    /// The next piece, or nothing at the end.
    fn piece(&mut self) -> Option<String> {
        let mut out = String::with_capacity(PIECE_SIZE + PIECE_SIZE / 4);
        while out.len() < PIECE_SIZE {
            match self.blocks.get(self.block) {
                None => break,
                Some(Block::Text(text)) => {
                    out.push_str(text);
                    self.block += 1;
                }
                Some(Block::Table(table)) => {
                    (self.head, self.row) = write_rows(&mut out, table, self.head, self.row);
                    if table.heads.len() <= self.head {
                        self.block += 1;
                        (self.head, self.row) = (0, 0);
                    }
                }
            }
        }
        self.size += out.len();
        if !out.is_empty() {
            return Some(out);
        }
        if let Some(finish) = self.finish.take() {
            finish(self.size);
        }
        None
    }
}

/// Writes from a place in a table on until a piece is full; returns where to go on.
fn write_rows(out: &mut String, table: &Table, head: usize, mut row: usize) -> (usize, usize) {
    let Some((name, kind, help)) = table.heads.get(head) else { return (head, 0) };
    if row == 0 {
        write_head(out, name, kind.name(), help);
    }
    while let Some((labels, numbers)) = table.rows.get(row) {
        if PIECE_SIZE <= out.len() {
            return (head, row);
        }
        row += 1;
        if !numbers[head].is_nan() || !labels.is_empty() {
            write_sample(out, name, labels, numbers[head]);
        }
    }
    (head + 1, 0)
}

impl HttpBody for Exposition {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.first.take().or_else(|| self.piece());
        Poll::Ready(piece.map(|piece| Ok(Frame::data(Bytes::from(piece)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::MESSAGE_SIZE;
    use std::cell::Cell;
    use std::rc::Rc;

    const COLUMNS: &[Column<u64>] =
        &[
            column("things_total", Kind::Counter, "Things", |n| float(*n)),
            column("odd", Kind::Gauge, "Unknown of even ones", |n| {
                if n % 2 == 0 { f64::NAN } else { 0.5 }
            }),
        ];

    #[test]
    fn samples_follow_their_head_and_labels_are_quoted() {
        let rows = [(String::new(), 2), (labels(&[("name", "a\"\\\n"), ("x", "")]), 4)];
        let table = Table::new("p_", &[COLUMNS], rows);
        let text = Exposition::new(vec![Block::Table(table)], Box::new(|_| {})).whole_or_rest();
        assert_eq!(
            text.ok().unwrap(),
            "# TYPE p_things_total counter\n# HELP p_things_total Things\np_things_total 2\n\
             p_things_total{name=\"a\\\"\\\\\\n\",x=\"\"} 4\n\
             # TYPE p_odd gauge\n# HELP p_odd Unknown of even ones\n\
             p_odd{name=\"a\\\"\\\\\\n\",x=\"\"} NaN\n"
        );
    }

    /// Goal: what is sent in pieces is what would be sent whole, and its size is told.
    #[test]
    fn pieces_make_one_text() {
        let rows = (0..20_000).map(|n| (labels(&[("n", &format!("{n:05}"))]), n));
        let size = Rc::new(Cell::new(0));
        let told = size.clone();
        let blocks = vec![
            Block::Text("# begin\n".to_owned()),
            Block::Table(Table::new("", &[COLUMNS], rows)),
            Block::Text("# end\n".to_owned()),
        ];
        let exposition = Exposition::new(blocks, Box::new(move |size| told.set(size)));
        let Err(mut rest) = exposition.whole_or_rest() else { panic!("more than a few pieces") };
        let mut text = rest.first.take().unwrap();
        while let Some(piece) = rest.piece() {
            text.push_str(&piece);
        }
        assert_eq!(size.get(), text.len());
        assert!(text.starts_with("# begin\n# TYPE things_total counter\n"));
        assert!(text.ends_with("odd{n=\"19999\"} 0.5\n# end\n"));
        assert_eq!(text.lines().count(), 2 + 2 * (2 + 20_000));
    }

    #[test]
    fn histograms_are_cumulative() {
        let mut sizes = Histogram::new(&MESSAGE_SIZE[..2]);
        for size in [1, 500, 5000] {
            sizes.observe(size);
        }
        let block = Block::histogram("h", "help", "p=\"x\"", &sizes, 10.0, |n| n.to_string());
        let Block::Text(text) = block else { panic!("a text") };
        assert_eq!(
            text,
            "# TYPE h histogram\n# HELP h help\nh_bucket{p=\"x\",le=\"100\"} 1\n\
             h_bucket{p=\"x\",le=\"1000\"} 2\nh_bucket{p=\"x\",le=\"+Inf\"} 3\n\
             h_sum{p=\"x\"} 550.1\nh_count{p=\"x\"} 3\n"
        );
    }
}

//! Lists of rows: which of them, in which order, with which columns, on which page.

use super::call::Call;
use super::json::{Columns, ObjectWriter, descend};
use super::query::Query;
use super::response::{ApiError, Body, Outcome, json_bytes};
use bytes::Bytes;
use hyper::Response;
use hyper::body::{Body as HttpBody, Frame};
use regex::{Regex, RegexBuilder};
use serde_json::Value;
use std::cmp::Ordering;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

/// A row that can be listed.
pub(crate) trait Row: Unpin + 'static {
    /// What `name=` searches.
    fn name(&self) -> &str;
    /// The order of a list that asks for none.
    fn order(&self, other: &Self) -> Ordering;
    /// Offers all fields.
    fn render(&self, object: &mut ObjectWriter<'_>);
}

/// Rows to a page where the request does not say.
const PAGE_SIZE_DEFAULT: u64 = 100;
/// Rows to a page at most.
const PAGE_SIZE_MAX: u64 = 500;
/// A pattern longer than this is refused.
const PATTERN_SIZE_MAX: usize = 1024; // bytes
/// A pattern that compiles to more than this is refused.
const PATTERN_COMPILED_MAX: usize = 1 << 20; // bytes
/// A list is rendered in pieces of about this size, each when the client has taken the last.
const PIECE_SIZE: usize = 64 << 10; // bytes

/// The page a request asks for.
#[derive(Debug)]
pub(crate) struct Page {
    number: u64,
    size: u64,
    filter: Filter,
}

/// Which names a page shows.
#[derive(Debug)]
enum Filter {
    All,
    /// Lower case.
    Contains(String),
    Matches(Regex),
}

impl Filter {
    fn passes(&self, name: &str) -> bool {
        match self {
            Filter::All => true,
            Filter::Contains(part) => name.to_lowercase().contains(part),
            Filter::Matches(pattern) => pattern.is_match(name),
        }
    }
}

impl Page {
    /// The page of a query, or none where it does not ask for one.
    fn of(query: &Query) -> Result<Option<Page>, ApiError> {
        let Some(number) = query.get("page") else { return Ok(None) };
        let invalid = || ApiError::bad_request("Pagination parameters are invalid");
        let number: i64 = number.parse().map_err(|_| invalid())?;
        let size: Option<i64> =
            query.get("page_size").map(str::parse).transpose().map_err(|_| invalid())?;
        let in_range = |value: i64, max: u64| u64::try_from(value).ok().filter(|n| *n <= max);
        let checked_number = in_range(number, u64::MAX).filter(|number| 0 < *number);
        let checked_size = match size {
            None => Some(PAGE_SIZE_DEFAULT),
            Some(size) => in_range(size, PAGE_SIZE_MAX).filter(|size| 0 < *size),
        };
        let (Some(number), Some(size)) = (checked_number, checked_size) else {
            let size = size.map_or_else(|| "undefined".to_owned(), |size| size.to_string());
            return Err(ApiError::Pagination(
                "invalid_pagination_parameters",
                format!("Invalid pagination parameters: page number {number}, page size {size}"),
            ));
        };
        let filter = match query.get("name").filter(|name| !name.is_empty()) {
            None => Filter::All,
            Some(name) if PATTERN_SIZE_MAX < name.len() => return Err(invalid()),
            Some(name) if query.is_true("use_regex") => {
                let pattern = RegexBuilder::new(name)
                    .case_insensitive(true)
                    .size_limit(PATTERN_COMPILED_MAX)
                    .build();
                Filter::Matches(pattern.map_err(|_| invalid())?)
            }
            Some(name) => Filter::Contains(name.to_lowercase()),
        };
        Ok(Some(Page { number, size, filter }))
    }
}

/// The columns of a request.
pub(crate) fn columns(query: &Query) -> Columns {
    match query.get("columns") {
        None | Some("") => Columns::All,
        Some(text) => Columns::parse(text),
    }
}

/// One object, with the columns the request wants.
pub(crate) fn single<T: Row>(call: &Call, row: &T) -> Response<Body> {
    object(call, |object| row.render(object))
}

/// One object of whatever fields, with the columns the request wants.
pub(crate) fn object(call: &Call, fields: impl FnOnce(&mut ObjectWriter<'_>)) -> Response<Body> {
    let mut out = Vec::new();
    ObjectWriter::write(&mut out, &columns(&call.query), fields);
    json_bytes(out)
}

/// The page of a query that wants rows in their own order, if it does: which rows those are can be
/// told by their names alone.
pub(crate) fn page_by_name(query: &Query) -> Result<Option<Page>, ApiError> {
    let page = Page::of(query)?;
    Ok(page.filter(|_| query.get("sort").is_none() && !query.is_true("sort_reverse")))
}

/// The items of one page, and how many there are without it.
pub(crate) struct Chosen<T> {
    total: usize,
    filtered: usize,
    items: Vec<T>,
}

impl<T> Chosen<T> {
    /// The same page of other things.
    pub(crate) fn with_items<U>(&self, items: Vec<U>) -> Chosen<U> {
        Chosen { total: self.total, filtered: self.filtered, items }
    }

    /// What is on the page.
    pub(crate) fn items(&self) -> &[T] {
        &self.items
    }
}

impl Page {
    /// Chooses from items that are in order by their names.
    pub(crate) fn choose<T>(
        &self,
        items: impl Iterator<Item = T>,
        name: impl Fn(&T) -> &str,
    ) -> Result<Chosen<T>, ApiError> {
        let size = usize::try_from(self.size).expect("at most PAGE_SIZE_MAX");
        let start = usize::try_from(self.number - 1).unwrap_or(usize::MAX).saturating_mul(size);
        let end = start.saturating_add(size);
        let mut chosen = Chosen { total: 0, filtered: 0, items: Vec::new() };
        for item in items {
            chosen.total += 1;
            if self.filter.passes(name(&item)) {
                if (start..end).contains(&chosen.filtered) {
                    chosen.items.push(item);
                }
                chosen.filtered += 1;
            }
        }
        let first_page_of_none = chosen.filtered == 0 && self.number == 1;
        if chosen.filtered <= start && !first_page_of_none {
            return Err(ApiError::Pagination(
                "page_out_of_range",
                format!(
                    "Page out of range, page: {} page size: {}, len: {}",
                    self.number, self.size, chosen.filtered
                ),
            ));
        }
        Ok(chosen)
    }

    /// The reply with what was chosen.
    pub(crate) fn reply<T: Row>(&self, call: &Call, chosen: Chosen<T>) -> Response<Body> {
        let filtered = u64::try_from(chosen.filtered).expect("usize is at most 64 bits");
        let mut out = Vec::new();
        ObjectWriter::write(&mut out, &Columns::All, |object| {
            object.field("total_count", &chosen.total);
            object.field("item_count", &chosen.items.len());
            object.field("filtered_count", &chosen.filtered);
            object.field("page", &self.number);
            object.field("page_size", &self.size);
            object.field("page_count", &filtered.div_ceil(self.size).max(1));
        });
        out.pop(); // the object goes on
        out.extend_from_slice(b",\"items\":");
        let mut list = Pieces::new(chosen.items, columns(&call.query));
        while list.append_piece(&mut out) {}
        out.push(b'}');
        json_bytes(out)
    }
}

/// A list that can be paged.
pub(crate) fn paged<T: Row>(call: &Call, mut rows: Vec<T>) -> Outcome {
    let Some(page) = Page::of(&call.query)? else { return Ok(plain(call, rows)) };
    sort(&mut rows, &call.query);
    let chosen = page.choose(rows.into_iter(), T::name)?;
    Ok(page.reply(call, chosen))
}

/// A list that is never paged.
pub(crate) fn plain<T: Row>(call: &Call, mut rows: Vec<T>) -> Response<Body> {
    sort(&mut rows, &call.query);
    let mut list = Pieces::new(rows, columns(&call.query));
    let mut first = Vec::new();
    if list.append_piece(&mut first) {
        json_body(Box::pin(list.with_first(first)))
    } else {
        json_bytes(first)
    }
}

fn json_body(body: Body) -> Response<Body> {
    json_bytes(Vec::new()).map(|_| body)
}

/// Puts rows into the order of the query: by one column, else by their own. `sort=` without a name
/// leaves them as the broker gave them.
fn sort<T: Row>(rows: &mut Vec<T>, query: &Query) {
    match query.get("sort") {
        None => rows.sort_by(T::order),
        Some("") => {}
        Some(path) => {
            rows.sort_by(T::order);
            let columns = Columns::parse(path);
            let mut scratch = Vec::new();
            let mut keyed: Vec<(Value, T)> = std::mem::take(rows)
                .into_iter()
                .map(|row| (sort_key(&row, &columns, path, &mut scratch), row))
                .collect();
            keyed.sort_by(|(left, _), (right, _)| compare(left, right));
            *rows = keyed.into_iter().map(|(_, row)| row).collect();
        }
    }
    if query.is_true("sort_reverse") {
        rows.reverse();
    }
}

fn sort_key<T: Row>(row: &T, columns: &Columns, path: &str, scratch: &mut Vec<u8>) -> Value {
    scratch.clear();
    ObjectWriter::write(scratch, columns, |object| row.render(object));
    let object: Value = serde_json::from_slice(scratch).expect("rows are written as JSON");
    descend(&object, path).cloned().unwrap_or(Value::Null)
}

/// The order of values of a column: absent ones first, then numbers, then the rest by its text.
fn compare(left: &Value, right: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Null => 0,
        Value::Number(_) => 1,
        Value::Bool(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) | Value::Object(_) => 4,
    };
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => {
            let (left, right) = (left.as_f64(), right.as_f64());
            left.partial_cmp(&right).unwrap_or(Ordering::Equal)
        }
        (Value::String(left), Value::String(right)) => left.cmp(right),
        _ => rank(left).cmp(&rank(right)).then_with(|| {
            if rank(left) == 4 || rank(left) == 2 {
                left.to_string().cmp(&right.to_string())
            } else {
                Ordering::Equal
            }
        }),
    }
}

/// A JSON array of rows that is rendered while it is sent, so that a listing of a hundred thousand
/// queues neither fills memory nor keeps other requests waiting.
struct Pieces<T> {
    rows: std::vec::IntoIter<T>,
    columns: Columns,
    state: State,
    first: Option<Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Before,
    Within,
    After,
}

impl<T: Row> Pieces<T> {
    fn new(rows: Vec<T>, columns: Columns) -> Pieces<T> {
        Pieces { rows: rows.into_iter(), columns, state: State::Before, first: None }
    }

    /// The same, with a piece that was already made.
    fn with_first(self, first: Vec<u8>) -> Pieces<T> {
        Pieces { first: Some(first), ..self }
    }

    /// Appends one more piece. Returns whether there are more.
    fn append_piece(&mut self, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        while self.state != State::After {
            let Some(row) = self.rows.next() else {
                out.extend_from_slice(if self.state == State::Before { b"[]" } else { b"]" });
                self.state = State::After;
                break;
            };
            out.push(if self.state == State::Before { b'[' } else { b',' });
            self.state = State::Within;
            ObjectWriter::write(out, &self.columns, |object| row.render(object));
            if PIECE_SIZE <= out.len() - start {
                break;
            }
        }
        self.state != State::After
    }
}

impl<T: Row> HttpBody for Pieces<T> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = match self.first.take() {
            Some(first) => first,
            None if self.state == State::After => return Poll::Ready(None),
            None => {
                let mut piece = Vec::with_capacity(PIECE_SIZE + PIECE_SIZE / 4);
                self.append_piece(&mut piece);
                piece
            }
        };
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(piece)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Thing(&'static str, u64);

    impl Row for Thing {
        fn name(&self) -> &str {
            self.0
        }
        fn order(&self, other: &Self) -> Ordering {
            self.0.cmp(other.0)
        }
        fn render(&self, object: &mut ObjectWriter<'_>) {
            object.field("name", self.0);
            object.object("stats", |stats| stats.field("count", &self.1));
        }
    }

    fn sorted(query: &str) -> String {
        let mut rows = vec![Thing("b", 10), Thing("a", 9), Thing("c", 100)];
        sort(&mut rows, &Query::parse(query));
        rows.iter().map(|row| row.0).collect()
    }

    #[test]
    fn rows_are_sorted_by_name_or_by_any_column() {
        assert_eq!(sorted(""), "abc");
        assert_eq!(sorted("sort="), "bac");
        assert_eq!(sorted("sort=stats.count"), "abc");
        assert_eq!(sorted("sort=stats.count&sort_reverse=true"), "cba");
        assert_eq!(sorted("sort=nope"), "abc");
        assert_eq!(sorted("sort_reverse=true"), "cba");
    }

    #[test]
    fn pages_are_refused_in_rabbitmqs_words() {
        let reason = |query: &str| match Page::of(&Query::parse(query)) {
            Err(ApiError::Pagination(_, reason)) => reason,
            Err(ApiError::BadRequest(reason)) => reason.as_str().unwrap().to_owned(),
            other => format!("{other:?}"),
        };
        let invalid = "Invalid pagination parameters: page number";
        assert_eq!(reason("page=0"), format!("{invalid} 0, page size undefined"));
        assert_eq!(reason("page=1&page_size=501"), format!("{invalid} 1, page size 501"));
        assert_eq!(reason("page=1&page_size=0"), format!("{invalid} 1, page size 0"));
        assert_eq!(reason("page=abc"), "Pagination parameters are invalid");
        assert_eq!(reason("page=1&name=(&use_regex=true"), "Pagination parameters are invalid");
        assert!(Page::of(&Query::parse("name=x")).unwrap().is_none());
    }

    #[test]
    fn a_filter_is_a_part_of_the_name_or_a_pattern() {
        let passes = |query: &str, name: &str| {
            Page::of(&Query::parse(query)).unwrap().unwrap().filter.passes(name)
        };
        assert!(passes("page=1&name=RDER", "orders"));
        assert!(!passes("page=1&name=x", "orders"));
        assert!(passes("page=1&name=^or.*s$&use_regex=true", "orders"));
        assert!(!passes("page=1&name=^r&use_regex=true", "orders"));
        assert!(passes("page=1", "orders"));
    }

    /// Goal: what is sent in pieces is the same array as what is sent whole.
    #[test]
    fn pieces_make_one_array() {
        for count in [0_u64, 1, 5000] {
            let rows = (0..count).map(|number| Thing("name", number)).collect();
            let mut list = Pieces::new(rows, Columns::All);
            let mut text = Vec::new();
            let mut pieces = 1;
            while list.append_piece(&mut text) {
                pieces += 1;
            }
            assert_eq!(1 < pieces, 5000 == count, "{pieces}");
            let parsed: Value = serde_json::from_slice(&text).unwrap();
            let numbers: Vec<_> = parsed
                .as_array()
                .unwrap()
                .iter()
                .map(|row| row["stats"]["count"].as_u64())
                .collect();
            assert_eq!(numbers, (0..count).map(Some).collect::<Vec<_>>());
        }
    }
}

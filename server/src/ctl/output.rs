//! What a command prints: banners, tables in their formats, single results.

use super::arguments::Arguments;
use super::failure::Failure;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, Write};

/// How results are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Columns apart by tabs; or plain text.
    Table,
    /// Columns in a drawn grid.
    PrettyTable,
    /// One JSON array or object.
    Json,
    /// Quoted cells apart by commas.
    Csv,
    /// Erlang terms.
    Erlang,
}

impl Format {
    fn parse(name: &str) -> Option<Format> {
        match name {
            "table" | "string" | "report" | "plugins" => Some(Format::Table),
            "pretty_table" => Some(Format::PrettyTable),
            "json" | "json_stream" => Some(Format::Json),
            "csv" => Some(Format::Csv),
            "erlang" | "inspect" => Some(Format::Erlang),
            _ => None,
        }
    }
}

/// A cell of a table, as the API gave it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    /// A text, number or flag; an absent one is empty.
    Plain(Value),
    /// A table of arguments: `[{"x-max-length",10}]`.
    Arguments(Value),
    /// A list of words: `[administrator, x]`.
    Words(Value),
    /// One text for tables and a value for JSON.
    Both(String, Value),
}

impl Cell {
    /// A text.
    pub(crate) fn text(text: impl Into<String>) -> Cell {
        Cell::Plain(Value::String(text.into()))
    }

    fn table(&self) -> String {
        match self {
            Cell::Arguments(value) => arguments(value),
            Cell::Words(Value::Array(words)) => {
                let words: Vec<String> = words.iter().map(plain).collect();
                format!("[{}]", words.join(", "))
            }
            Cell::Plain(value) | Cell::Words(value) => plain(value),
            Cell::Both(text, _) => escape(text),
        }
    }

    /// In a drawn grid: lists of words without brackets.
    fn drawn(&self) -> String {
        let text = self.table();
        match self {
            Cell::Words(Value::Array(_)) => text.trim_matches(['[', ']']).to_owned(),
            Cell::Plain(_) | Cell::Arguments(_) | Cell::Words(_) | Cell::Both(..) => text,
        }
    }

    fn json(&self) -> Value {
        match self {
            Cell::Plain(Value::Null) | Cell::Words(Value::Null) => Value::String(String::new()),
            Cell::Arguments(Value::Null) => Value::Object(serde_json::Map::new()),
            Cell::Plain(value)
            | Cell::Arguments(value)
            | Cell::Words(value)
            | Cell::Both(_, value) => value.clone(),
        }
    }

    fn erlang(&self) -> String {
        match self {
            Cell::Arguments(value) => arguments(value),
            Cell::Words(Value::Array(words)) => {
                let words: Vec<String> = words.iter().filter_map(Value::as_str).map(atom).collect();
                format!("[{}]", words.join(","))
            }
            Cell::Plain(value) | Cell::Words(value) | Cell::Both(_, value) => erlang(value),
        }
    }
}

/// A value in a table: texts as they are, absent ones empty.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => escape(text),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(", "))
        }
        Value::Object(_) => arguments(value),
    }
}

/// Keeps a row on its line and control characters off the terminal.
fn escape(text: &str) -> String {
    if !text.contains(|c: char| c.is_control()) {
        return text.to_owned();
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\t' => escaped.push_str("\\t"),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            c if c.is_control() => {
                write!(escaped, "\\{:03o}", u32::from(c)).expect("a String takes every text");
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// Arguments in Erlang's syntax, in the order of their names.
fn arguments(value: &Value) -> String {
    let Value::Object(map) = value else { return erlang_argument(value) };
    let pairs: Vec<String> = map
        .iter()
        .map(|(key, value)| format!("{{{},{}}}", quoted(key), erlang_argument(value)))
        .collect();
    format!("[{}]", pairs.join(","))
}

fn erlang_argument(value: &Value) -> String {
    match value {
        Value::Null => "undefined".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(erlang_argument).collect::<Vec<_>>().join(","))
        }
        Value::Object(map) if map.is_empty() => "[]".to_owned(),
        Value::Object(_) => arguments(value),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", escape(&text.replace('\\', "\\\\").replace('"', "\\\"")))
}

/// A word as an Erlang atom, between apostrophes where it needs them.
fn atom(word: &str) -> String {
    let plain = word.starts_with(|first: char| first.is_ascii_lowercase())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '@');
    if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "\\'")) }
}

/// A value as an Erlang term: texts as binaries.
pub(super) fn erlang(value: &Value) -> String {
    match value {
        Value::Null => "''".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => format!("<<{}>>", quoted(text)),
        Value::Array(items) => {
            format!("[{}]", items.iter().map(erlang).collect::<Vec<_>>().join(","))
        }
        Value::Object(map) => {
            let pairs: Vec<String> =
                map.iter().map(|(key, value)| format!("{{{key},{}}}", erlang(value))).collect();
            format!("[{}]", pairs.join(","))
        }
    }
}

/// Where a command prints, and how.
pub(crate) struct Output<'a> {
    out: &'a mut dyn Write,
    format: Format,
    banners: bool,
    headers: bool,
    announced: bool,
}

impl<'a> Output<'a> {
    /// Prints to `out` as the options say.
    ///
    /// # Errors
    /// A format there is none of.
    pub(crate) fn new(
        out: &'a mut dyn Write,
        options: &Arguments,
        default: Format,
    ) -> Result<Output<'a>, Failure> {
        let format = match options.option("formatter") {
            None => default,
            Some(name) => Format::parse(name).ok_or_else(|| {
                Failure::usage(format!(
                    "formatter '{name}' is not supported. Use one of: table, pretty_table, json, \
                     csv, erlang"
                ))
            })?,
        };
        let silent = options.flag("silent");
        let readable = !matches!(format, Format::Json | Format::Csv);
        let banners = readable && !options.flag("quiet") && !silent;
        let headers = !silent && !options.off("table-headers");
        Ok(Output { out, format, banners, headers, announced: false })
    }

    /// The same place and manner, for another command.
    pub(crate) fn again(&mut self) -> Output<'_> {
        Output { out: &mut *self.out, ..*self }
    }

    /// The format in use.
    pub(crate) fn format(&self) -> Format {
        self.format
    }

    /// A line about what is being done; left out where it would disturb.
    pub(crate) fn banner(&mut self, text: &str) -> io::Result<()> {
        self.announced = true;
        if self.banners { writeln!(self.out, "{}", escape(text)) } else { Ok(()) }
    }

    /// Whether a banner was printed, or left out.
    pub(crate) fn has_announced(&self) -> bool {
        self.announced
    }

    /// A remark at the end of a command that was done; left out where banners are.
    pub(crate) fn remark(&mut self, text: &str) -> io::Result<()> {
        if self.banners { writeln!(self.out, "{text}") } else { Ok(()) }
    }

    /// A line of the result.
    pub(crate) fn line(&mut self, text: &str) -> io::Result<()> {
        writeln!(self.out, "{text}")
    }

    /// Bytes of the result as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.out.flush()
    }

    /// A result that is a text to people and an object to programs.
    pub(crate) fn result(&mut self, text: &str, json: &Value) -> io::Result<()> {
        match self.format {
            Format::Json => writeln!(self.out, "{json}"),
            Format::Erlang => writeln!(self.out, "{}", erlang(json)),
            Format::Table | Format::PrettyTable | Format::Csv => writeln!(self.out, "{text}"),
        }
    }

    /// A table of a command whose rows RabbitMQ prints all at once: where there are none, it prints
    /// an empty line, or an empty list on one line.
    pub(crate) fn whole_table(
        &mut self,
        columns: &[&str],
        rows: impl ExactSizeIterator<Item = Vec<Cell>>,
    ) -> io::Result<()> {
        if 0 < rows.len() {
            return self.table(columns, rows);
        }
        let nothing = match self.format {
            Format::Json | Format::Erlang => "[]",
            Format::Table | Format::PrettyTable | Format::Csv => "",
        };
        writeln!(self.out, "{nothing}")
    }

    /// A table whose rows are printed as they come. An empty one has no header.
    pub(crate) fn table(
        &mut self,
        columns: &[&str],
        rows: impl ExactSizeIterator<Item = Vec<Cell>>,
    ) -> io::Result<()> {
        match self.format {
            Format::Table => self.plain_table(columns, rows),
            Format::PrettyTable => self.drawn_table(columns, rows),
            Format::Json => self.json_table(columns, rows),
            Format::Csv => self.csv_table(columns, rows),
            Format::Erlang => self.erlang_table(columns, rows),
        }
    }

    fn plain_table(
        &mut self,
        columns: &[&str],
        rows: impl ExactSizeIterator<Item = Vec<Cell>>,
    ) -> io::Result<()> {
        if self.headers && 0 < rows.len() {
            writeln!(self.out, "{}", columns.join("\t"))?;
        }
        for row in rows {
            let cells: Vec<String> = row.iter().map(Cell::table).collect();
            writeln!(self.out, "{}", cells.join("\t"))?;
        }
        Ok(())
    }

    fn json_table(
        &mut self,
        columns: &[&str],
        rows: impl ExactSizeIterator<Item = Vec<Cell>>,
    ) -> io::Result<()> {
        writeln!(self.out, "[")?;
        for (index, row) in rows.enumerate() {
            let fields: Vec<String> = columns
                .iter()
                .zip(&row)
                .map(|(column, cell)| format!("{}:{}", Value::from(*column), cell.json()))
                .collect();
            let comma = if index == 0 { "" } else { "," };
            writeln!(self.out, "{comma}{{{}}}", fields.join(","))?;
        }
        writeln!(self.out, "]")
    }

    fn csv_table(
        &mut self,
        columns: &[&str],
        rows: impl ExactSizeIterator<Item = Vec<Cell>>,
    ) -> io::Result<()> {
        let quote = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
        if self.headers && 0 < rows.len() {
            let header: Vec<String> = columns.iter().map(|column| quote(column)).collect();
            writeln!(self.out, "{}", header.join(","))?;
        }
        for row in rows {
            let cells: Vec<String> = row.iter().map(|cell| quote(&cell.table())).collect();
            writeln!(self.out, "{}", cells.join(","))?;
        }
        Ok(())
    }

    fn erlang_table(
        &mut self,
        columns: &[&str],
        rows: impl ExactSizeIterator<Item = Vec<Cell>>,
    ) -> io::Result<()> {
        let rows: Vec<String> = rows
            .map(|row| {
                let pairs: Vec<String> = columns
                    .iter()
                    .zip(&row)
                    .map(|(column, cell)| format!("{{{column},{}}}", cell.erlang()))
                    .collect();
                format!("[{}]", pairs.join(","))
            })
            .collect();
        writeln!(self.out, "[{}]", rows.join(",\n "))
    }

    /// Draws with the line characters of VT100 terminals, as RabbitMQ does.
    fn drawn_table(
        &mut self,
        columns: &[&str],
        rows: impl ExactSizeIterator<Item = Vec<Cell>>,
    ) -> io::Result<()> {
        let rows: Vec<Vec<String>> =
            rows.map(|row| row.iter().map(Cell::drawn).collect()).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let widths: Vec<usize> = columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let cells = rows.iter().map(|row| row[index].chars().count());
                cells.chain([column.chars().count()]).max().expect("at least the header")
            })
            .collect();
        let rule = |left: char, middle: char, right: char| {
            let bars: Vec<String> = widths.iter().map(|width| "q".repeat(width + 2)).collect();
            format!("\x1b(0{left}{}{right}\x1b(B", bars.join(&middle.to_string()))
        };
        let line = |cells: &[String], bold: bool| {
            let (on, off) = if bold { ("\x1b[1m", "\x1b[0m") } else { ("", "") };
            let bar = "\x1b(0x\x1b(B";
            let padded: Vec<String> = cells
                .iter()
                .zip(&widths)
                .map(|(cell, width)| {
                    let padding = " ".repeat(width - cell.chars().count());
                    format!("{bar} {on}{cell}{off}{padding} ")
                })
                .collect();
            format!("{}{bar}", padded.concat())
        };
        writeln!(self.out, "{}", rule('l', 'w', 'k'))?;
        if self.headers {
            let header: Vec<String> = columns.iter().map(ToString::to_string).collect();
            writeln!(self.out, "{}", line(&header, true))?;
            writeln!(self.out, "{}", rule('t', 'n', 'u'))?;
        }
        for (index, row) in rows.iter().enumerate() {
            if 0 < index {
                writeln!(self.out, "{}", rule('t', 'n', 'u'))?;
            }
            writeln!(self.out, "{}", line(row, false))?;
        }
        writeln!(self.out, "{}", rule('m', 'v', 'j'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn printed(options: &str, rows: &[(&str, u64)]) -> String {
        let words = options.split_whitespace().map(str::to_owned).collect();
        let mut out = Vec::new();
        let arguments = Arguments::parse(words).unwrap();
        let mut output = Output::new(&mut out, &arguments, Format::Table).unwrap();
        output.banner("Listing ...").unwrap();
        let rows: Vec<Vec<Cell>> = rows
            .iter()
            .map(|(name, count)| vec![Cell::text(*name), Cell::Plain(Value::from(*count))])
            .collect();
        output.table(&["name", "messages"], rows.into_iter()).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn tables_have_rabbitmqs_shapes() {
        let rows: &[(&str, u64)] = &[("st1", 0), ("q\"x", 101)];
        let check = |options, expected: &str| assert_eq!(printed(options, rows), expected);
        check("", "Listing ...\nname\tmessages\nst1\t0\nq\"x\t101\n");
        check("-q", "name\tmessages\nst1\t0\nq\"x\t101\n");
        check("-s", "st1\t0\nq\"x\t101\n");
        check("--no-table-headers", "Listing ...\nst1\t0\nq\"x\t101\n");
        check(
            "--formatter json",
            "[\n{\"name\":\"st1\",\"messages\":0}\n,{\"name\":\"q\\\"x\",\"messages\":101}\n]\n",
        );
        check("--formatter csv", "\"name\",\"messages\"\n\"st1\",\"0\"\n\"q\"\"x\",\"101\"\n");
        check(
            "-q --formatter erlang",
            "[[{name,<<\"st1\">>},{messages,0}],\n [{name,<<\"q\\\"x\">>},{messages,101}]]\n",
        );
    }

    #[test]
    fn empty_tables_have_no_header() {
        assert_eq!(printed("", &[]), "Listing ...\n");
        assert_eq!(printed("--formatter csv", &[]), "");
        assert_eq!(printed("--formatter json", &[]), "[\n]\n");
        assert_eq!(printed("--formatter pretty_table", &[]), "Listing ...\n");
    }

    #[test]
    fn a_pretty_table_is_drawn() {
        let bar = "\x1b(0x\x1b(B";
        assert_eq!(
            printed("-q --formatter pretty_table", &[("a", 7), ("long-name", 1)]),
            format!(
                "\x1b(0lqqqqqqqqqqqwqqqqqqqqqqk\x1b(B\n\
                 {bar} \x1b[1mname\x1b[0m      {bar} \x1b[1mmessages\x1b[0m {bar}\n\
                 \x1b(0tqqqqqqqqqqqnqqqqqqqqqqu\x1b(B\n\
                 {bar} a         {bar} 7        {bar}\n\
                 \x1b(0tqqqqqqqqqqqnqqqqqqqqqqu\x1b(B\n\
                 {bar} long-name {bar} 1        {bar}\n\
                 \x1b(0mqqqqqqqqqqqvqqqqqqqqqqj\x1b(B\n"
            )
        );
    }

    #[test]
    fn cells_are_written_as_rabbitmq_writes_them() {
        let nested = json!({
            "x-b": true, "x-f": 1.5, "x-l": [1, "a", {"k": 2}], "x-s": "a\tb\"c\\d", "x-t": {},
        });
        assert_eq!(
            Cell::Arguments(nested).table(),
            r#"[{"x-b",true},{"x-f",1.5},{"x-l",[1,"a",[{"k",2}]]},{"x-s","a\tb\"c\\d"},{"x-t",[]}]"#
        );
        assert_eq!(Cell::Arguments(json!({})).table(), "[]");
        assert_eq!(Cell::Words(json!(["administrator", "x"])).table(), "[administrator, x]");
        assert_eq!(Cell::Plain(Value::Null).table(), "");
        assert_eq!(Cell::Plain(Value::Null).json(), json!(""));
        assert_eq!(Cell::text("a\tb\nc\u{1b}[1m\u{e9}").table(), "a\\tb\\nc\\033[1m\u{e9}");
    }

    #[test]
    fn unknown_formats_are_refused() {
        let arguments = Arguments::parse(vec!["--formatter=nope".to_owned()]).unwrap();
        assert!(Output::new(&mut Vec::new(), &arguments, Format::Table).is_err());
    }
}

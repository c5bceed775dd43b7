//! What a status page says, as data.

use serde_json::{json, Value};

use super::words::shown;

/// How good or bad something is. The page says it in words too, never by colour alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Nothing is known, or there is nothing to judge.
    Plain,
    /// As it should be.
    Good,
    /// Somebody should look at it.
    Warn,
    /// Something does not work.
    Bad,
}

impl Level {
    /// The name in JSON and in the style sheet.
    pub fn name(self) -> &'static str {
        match self {
            Level::Plain => "plain",
            Level::Good => "good",
            Level::Warn => "warn",
            Level::Bad => "bad",
        }
    }
}

/// A whole page.
#[derive(Clone, Debug)]
pub struct Status {
    /// What the page is about.
    pub title: String,
    /// Of the whole.
    pub level: Level,
    /// The state in one or two plain sentences. Screen readers say it again whenever it changes, so it has no running times.
    pub summary: String,
    /// What somebody should look at, the worst first.
    pub problems: Vec<Problem>,
    /// The rest.
    pub tables: Vec<Table>,
}

/// Something that somebody should look at.
#[derive(Clone, Debug)]
pub struct Problem {
    /// How bad it is.
    pub level: Level,
    /// What happened.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

/// A table; the first cell of each row names the row.
#[derive(Clone, Debug)]
pub struct Table {
    /// Names it in JSON.
    pub id: &'static str,
    /// Above it.
    pub caption: &'static str,
    /// A sentence that stands for a table without rows.
    pub empty: &'static str,
    /// Their names.
    pub columns: Vec<Column>,
    /// In the order in which they are shown, what is worst first. Each as long as the columns are many.
    pub rows: Vec<Vec<Cell>>,
    /// How many rows there are beyond these.
    pub left_out: usize,
}

/// The head of a column.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Above the cells.
    pub name: &'static str,
    /// Whether it holds numbers, which stand to the right.
    pub is_number: bool,
}

impl Column {
    /// Each name is one of a column of texts, or with `#` before it of a column of numbers.
    pub fn list(names: &[&'static str]) -> Vec<Column> {
        let column = |name: &&'static str| match name.strip_prefix('#') {
            Some(name) => Column { name, is_number: true },
            None => Column { name, is_number: false },
        };
        names.iter().map(column).collect()
    }
}

/// A cell of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    /// As it is shown.
    pub text: String,
    /// What it is sorted by; also for scripts that read the JSON text.
    pub value: Option<f64>,
    /// How good or bad it is.
    pub level: Level,
}

impl Cell {
    /// A text that may come from anywhere.
    pub fn text(text: &str) -> Self {
        Cell { text: shown(text), value: None, level: Level::Plain }
    }

    /// A number as it is.
    pub fn count(number: u64) -> Self {
        Cell::number(number.to_string(), number as f64)
    }

    /// A number in words of its own.
    pub fn number(text: String, value: f64) -> Self {
        Cell { text, value: Some(value), level: Level::Plain }
    }

    /// Judged.
    pub fn with(self, level: Level) -> Self {
        Cell { level, ..self }
    }
}

impl Status {
    /// The text that the page's script reads.
    pub fn json(&self) -> String {
        let problem = |problem: &Problem| json!({ "level": problem.level.name(), "what": problem.what, "advice": problem.advice });
        json!({
            "title": self.title,
            "level": self.level.name(),
            "summary": self.summary,
            "problems": self.problems.iter().map(problem).collect::<Value>(),
            "tables": self.tables.iter().map(Table::json).collect::<Value>(),
        })
        .to_string()
    }
}

impl Table {
    fn json(&self) -> Value {
        let column = |column: &Column| json!({ "name": column.name, "number": column.is_number });
        let cell =
            |cell: &Cell| json!({ "text": cell.text, "value": cell.value, "level": cell.level.name() });
        let row = |row: &Vec<Cell>| row.iter().map(cell).collect::<Value>();
        json!({
            "id": self.id,
            "caption": self.caption,
            "empty": self.empty,
            "columns": self.columns.iter().map(column).collect::<Value>(),
            "rows": self.rows.iter().map(row).collect::<Value>(),
            "left_out": self.left_out,
        })
    }
}

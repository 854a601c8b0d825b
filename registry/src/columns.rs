//! How values become SQLite's columns and back; what does not read back is damage, never a panic.

use crate::store::RegistryError;
use domain::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, Params, Row};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::Duration;

/// Why a piece of work on the file did not succeed, before it is known which call it was for.
#[derive(Debug)]
pub(crate) enum Fault {
    /// SQLite failed.
    Sql(rusqlite::Error),
    /// The rules refused, or a row is damaged.
    Refused(RegistryError),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Fault {
        Fault::Sql(error)
    }
}

impl From<RegistryError> for Fault {
    fn from(error: RegistryError) -> Fault {
        Fault::Refused(error)
    }
}

impl Fault {
    /// The error of a call that tried to do `doing`.
    pub(crate) fn while_trying_to(self, doing: &'static str) -> RegistryError {
        match self {
            Fault::Sql(error) => RegistryError::Store { doing, source: Box::new(error) },
            Fault::Refused(error) => error,
        }
    }
}

/// What work on the file answers.
pub(crate) type Done<T> = Result<T, Fault>;

/// Every row of a query, decoded.
pub(crate) fn list<T>(
    conn: &Connection,
    table: &'static str,
    sql: &str,
    params: impl Params,
    decode: impl Fn(&mut Fields<'_, '_>) -> Result<T, RegistryError>,
) -> Done<Vec<T>> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(decode(&mut Fields { row, table, next: 0 })?);
    }
    Ok(found)
}

/// The first row of a query, decoded.
pub(crate) fn one<T>(
    conn: &Connection,
    table: &'static str,
    sql: &str,
    params: impl Params,
    decode: impl Fn(&mut Fields<'_, '_>) -> Result<T, RegistryError>,
) -> Done<Option<T>> {
    let mut statement = conn.prepare_cached(sql)?;
    let mut rows = statement.query(params)?;
    match rows.next()? {
        Some(row) => Ok(Some(decode(&mut Fields { row, table, next: 0 })?)),
        None => Ok(None),
    }
}

/// Runs one statement; answers the number of rows it changed.
pub(crate) fn run(conn: &Connection, sql: &str, params: impl Params) -> Done<usize> {
    Ok(conn.prepare_cached(sql)?.execute(params)?)
}

/// A row's columns, read from left to right in the order of the query.
pub(crate) struct Fields<'r, 's> {
    row: &'r Row<'s>,
    table: &'static str,
    next: usize,
}

impl<'r> Fields<'r, '_> {
    fn damaged(&self, detail: impl Display) -> RegistryError {
        let at = self.next.saturating_sub(1);
        let column = self.row.as_ref().column_name(at).unwrap_or("?");
        RegistryError::Damaged { table: self.table, detail: format!("column {column}: {detail}") }
    }

    fn value(&mut self) -> Result<ValueRef<'r>, RegistryError> {
        let at = self.next;
        self.next += 1;
        self.row.get_ref(at).map_err(|error| self.damaged(error))
    }

    fn optional_str(&mut self) -> Result<Option<&'r str>, RegistryError> {
        self.value()?.as_str_or_null().map_err(|error| self.damaged(error))
    }

    fn str(&mut self) -> Result<&'r str, RegistryError> {
        self.optional_str()?.ok_or_else(|| self.damaged("is missing"))
    }

    pub(crate) fn optional_int(&mut self) -> Result<Option<i64>, RegistryError> {
        self.value()?.as_i64_or_null().map_err(|error| self.damaged(error))
    }

    pub(crate) fn int(&mut self) -> Result<i64, RegistryError> {
        self.optional_int()?.ok_or_else(|| self.damaged("is missing"))
    }

    pub(crate) fn text(&mut self) -> Result<String, RegistryError> {
        self.str().map(str::to_owned)
    }

    pub(crate) fn optional_text(&mut self) -> Result<Option<String>, RegistryError> {
        Ok(self.optional_str()?.map(str::to_owned))
    }

    pub(crate) fn parsed<T: FromStr<Err: Display>>(&mut self) -> Result<T, RegistryError> {
        let text = self.str()?;
        text.parse().map_err(|error| self.damaged(error))
    }

    pub(crate) fn optional_parsed<T: FromStr<Err: Display>>(
        &mut self,
    ) -> Result<Option<T>, RegistryError> {
        let text = self.optional_str()?;
        text.map(str::parse).transpose().map_err(|error| self.damaged(error))
    }

    /// One of a few words.
    pub(crate) fn word<T: Copy>(
        &mut self,
        all: &[T],
        show: impl Fn(T) -> &'static str,
    ) -> Result<T, RegistryError> {
        let text = self.str()?;
        let found = all.iter().copied().find(|one| show(*one) == text);
        found.ok_or_else(|| self.damaged(format!("{text:?} is none of the known words")))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, RegistryError> {
        self.int().map(i64::cast_unsigned)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, RegistryError> {
        let int = self.int()?;
        u32::try_from(int).map_err(|error| self.damaged(error))
    }

    pub(crate) fn optional_u32(&mut self) -> Result<Option<u32>, RegistryError> {
        let int = self.optional_int()?;
        int.map(u32::try_from).transpose().map_err(|error| self.damaged(error))
    }

    pub(crate) fn flag(&mut self) -> Result<bool, RegistryError> {
        match self.int()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.damaged(format!("{other} is neither 0 nor 1"))),
        }
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp, RegistryError> {
        self.int().map(Timestamp)
    }

    pub(crate) fn optional_time(&mut self) -> Result<Option<Timestamp>, RegistryError> {
        Ok(self.optional_int()?.map(Timestamp))
    }

    pub(crate) fn span(&mut self) -> Result<Duration, RegistryError> {
        self.u64().map(Duration::from_nanos)
    }

    pub(crate) fn words(&mut self) -> Result<Vec<String>, RegistryError> {
        let text = self.str()?;
        serde_json::from_str(text).map_err(|error| self.damaged(error))
    }

    pub(crate) fn labels(&mut self) -> Result<BTreeMap<String, String>, RegistryError> {
        let text = self.str()?;
        serde_json::from_str(text).map_err(|error| self.damaged(error))
    }
}

/// 64 bits without a sign, bit for bit in SQLite's signed integer.
pub(crate) fn bits(number: u64) -> i64 {
    number.cast_signed()
}

/// A span in nanoseconds; more than 584 years are cut to that.
pub(crate) fn nanos(span: Duration) -> i64 {
    bits(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

/// A list of texts as JSON.
pub(crate) fn words(words: &[String]) -> Done<String> {
    json(words)
}

/// Labels as JSON.
pub(crate) fn labels(labels: &BTreeMap<String, String>) -> Done<String> {
    json(labels)
}

fn json<T: serde::Serialize + ?Sized>(value: &T) -> Done<String> {
    serde_json::to_string(value)
        .map_err(|error| Fault::Sql(rusqlite::Error::ToSqlConversionFailure(Box::new(error))))
}

/// A limit as SQLite's integer.
pub(crate) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

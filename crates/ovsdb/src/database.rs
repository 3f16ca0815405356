//! Transactions with ovsdb-server, and waiting until ovs-vswitchd has acted on them.

use crate::rows::{self, Bridge};
use crate::stream::{SILENCE, Stream, garbled};
use crate::value::Row;
use serde_json::{Value, json};
use std::fmt;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

const SCHEMA: &str = "Open_vSwitch";

/// A standing connection to the database of one Open vSwitch instance.
#[derive(Debug)]
pub struct Database {
    stream: Stream,
    last_id: u64,
}

#[derive(Debug)]
pub enum DatabaseError {
    /// Whether the transaction took place isn't known. Connect again, and read.
    Connection(io::Error),
    /// Nothing was changed. `None`: not an operation, but the transaction as a whole, for instance
    /// because a reference would have led nowhere.
    Refused {
        operation: Option<usize>,
        operations: usize,
        error: String,
        details: String,
    },
    /// The database is another one than we know. What the transaction changed is changed.
    Unreadable {
        table: &'static str,
        column: &'static str,
    },
    /// The database has the change; ovs-vswitchd, which is slow or not there, has not acted on it yet.
    Behind { waited: Duration },
}

impl Database {
    /// By the `db.sock` of its run directory.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        Ok(Self {
            stream: Stream::connect(socket)?,
            last_id: 0,
        })
    }

    /// All of the operations (RFC 7047, 5.2) or none; what each of them answers.
    pub fn transact(&mut self, operations: &[Value]) -> Result<Vec<Value>, DatabaseError> {
        self.ask(operations, SILENCE)
    }

    /// The same, and then waits until ovs-vswitchd has acted on it. As in `ovs-vsctl`: the number of the
    /// wanted configuration goes up, and the number of the one in force follows.
    pub fn transact_and_follow(
        &mut self,
        operations: &[Value],
        patience: Duration,
    ) -> Result<Vec<Value>, DatabaseError> {
        let deadline = Instant::now() + patience;
        let mut all = operations.to_vec();
        all.push(json!({
            "op": "mutate", "table": "Open_vSwitch", "where": [],
            "mutations": [["next_cfg", "+=", 1]],
        }));
        all.push(select("Open_vSwitch", &["next_cfg", "cur_cfg"]));
        let mut outcomes = self.ask(&all, SILENCE)?;
        let wanted = configuration(outcomes.last(), "next_cfg")?;
        let mut current = configuration(outcomes.last(), "cur_cfg")?;
        outcomes.truncate(operations.len());
        while current < wanted {
            let left = deadline.saturating_duration_since(Instant::now());
            current = match self.next_configuration(current, left)? {
                Some(current) => current,
                None => return Err(DatabaseError::Behind { waited: patience }),
            };
        }
        Ok(outcomes)
    }

    /// All bridges with all that is on them.
    pub fn bridges(&mut self) -> Result<Vec<Bridge>, DatabaseError> {
        rows::bridges(&self.transact(&rows::selects())?)
    }

    /// The number of the configuration in force, once it is another one than this.
    fn next_configuration(
        &mut self,
        current: i64,
        patience: Duration,
    ) -> Result<Option<i64>, DatabaseError> {
        let milliseconds = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX >> 1);
        let operations = [
            json!({
                "op": "wait", "table": "Open_vSwitch", "where": [], "timeout": milliseconds,
                "columns": ["cur_cfg"], "until": "!=", "rows": [{"cur_cfg": current}],
            }),
            select("Open_vSwitch", &["cur_cfg"]),
        ];
        match self.ask(&operations, patience.saturating_add(SILENCE)) {
            Ok(outcomes) => configuration(outcomes.last(), "cur_cfg").map(Some),
            Err(DatabaseError::Refused { error, .. }) if error == "timed out" => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn ask(
        &mut self,
        operations: &[Value],
        silence: Duration,
    ) -> Result<Vec<Value>, DatabaseError> {
        self.last_id += 1;
        let mut parameters = vec![json!(SCHEMA)];
        parameters.extend_from_slice(operations);
        let question = json!({"id": self.last_id, "method": "transact", "params": parameters});
        let mut answer = self
            .exchange(&question, silence)
            .map_err(DatabaseError::Connection)?;
        outcomes(&mut answer, operations.len())
    }

    fn exchange(&mut self, question: &Value, silence: Duration) -> io::Result<Value> {
        self.stream.send(question)?;
        loop {
            let message = self.stream.receive(silence)?;
            // The answer to a question that we gave up on may come now: nobody waits for it.
            if !self.stream.answer_echo(&message)? && message["id"] == question["id"] {
                return Ok(message);
            }
        }
    }
}

/// These columns of all rows.
pub(crate) fn select(table: &str, columns: &[&str]) -> Value {
    json!({"op": "select", "table": table, "where": [], "columns": columns})
}

/// What a select told.
pub(crate) fn selected<'a>(
    outcome: Option<&'a Value>,
    table: &'static str,
) -> Result<Vec<Row<'a>>, DatabaseError> {
    let rows = outcome.and_then(|outcome| outcome["rows"].as_array());
    let rows = rows.ok_or_else(|| DatabaseError::Connection(garbled("a select without rows")))?;
    Ok(rows.iter().map(|columns| Row { table, columns }).collect())
}

/// One for each operation. If one is refused, those after it have `null`; what is refused in the end
/// stands behind them all.
fn outcomes(answer: &mut Value, operations: usize) -> Result<Vec<Value>, DatabaseError> {
    let refused = |operation, error: &Value| DatabaseError::Refused {
        operation,
        operations,
        error: text(&error["error"]),
        details: text(&error["details"]),
    };
    if !answer["error"].is_null() {
        return Err(refused(None, &answer["error"]));
    }
    let Value::Array(outcomes) = answer["result"].take() else {
        let error = garbled("a transaction without a result");
        return Err(DatabaseError::Connection(error));
    };
    let failure = outcomes.iter().position(|o| !o["error"].is_null());
    if let Some(place) = failure {
        let operation = (place < operations).then_some(place);
        return Err(refused(operation, &outcomes[place]));
    }
    match outcomes.len() == operations {
        true => Ok(outcomes),
        false => Err(DatabaseError::Connection(garbled(
            "a result of another length",
        ))),
    }
}

/// Of the one row that the table has.
fn configuration(outcome: Option<&Value>, column: &'static str) -> Result<i64, DatabaseError> {
    let table = "Open_vSwitch";
    match selected(outcome, table)?.first() {
        Some(row) => row.one(column, Value::as_i64),
        None => Err(DatabaseError::Unreadable { table, column }),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            value.to_string()
        }
    }
}

impl fmt::Display for DatabaseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection(error) => write!(f, "the connection to ovsdb-server: {error}"),
            Self::Refused {
                operation: Some(operation),
                operations,
                error,
                details,
            } => {
                let number = operation + 1;
                write!(
                    f,
                    "operation {number} of {operations} refused: {error}: {details}"
                )
            }
            Self::Refused {
                operation: None,
                operations,
                error,
                details,
            } => write!(
                f,
                "transaction of {operations} operations refused: {error}: {details}"
            ),
            Self::Unreadable { table, column } => {
                write!(f, "{table}.{column} is missing or not what we know")
            }
            Self::Behind { waited } => {
                write!(f, "ovs-vswitchd has not acted on the change in {waited:?}")
            }
        }
    }
}

impl std::error::Error for DatabaseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connection(error) => Some(error),
            Self::Refused { .. } | Self::Unreadable { .. } | Self::Behind { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_its_operation() {
        let answer = r#"{"id":1,"error":null,"result":[{},{"error":"constraint violation",
            "details":"No column nope."},null]}"#;
        let mut answer = serde_json::from_str(answer).expect("JSON");
        let error = outcomes(&mut answer, 3).expect_err("refused").to_string();
        assert!(
            error.starts_with("operation 2 of 3 refused: constraint"),
            "{error}"
        );
        let mut late = json!({"id": 1, "error": null, "result": [{}, {"error": "referential
            integrity violation", "details": "..."}]});
        let error = outcomes(&mut late, 1).expect_err("refused");
        assert!(matches!(
            error,
            DatabaseError::Refused {
                operation: None,
                ..
            }
        ));
    }

    #[test]
    fn an_answer_of_another_shape_is_an_error() {
        let answers = [
            json!({"id": 1}),
            json!({"id": 1, "result": {}, "error": null}),
            json!({"id": 1, "result": [], "error": null}),
            json!({"id": 1, "result": [{}, {}], "error": null}),
            json!({"id": 1, "result": [7], "error": "unknown database"}),
        ];
        for mut answer in answers {
            assert!(outcomes(&mut answer, 1).is_err(), "{answer}");
        }
        for outcome in [
            json!({"rows": 1}),
            json!(null),
            json!({"rows": [{"cur_cfg": "x"}]}),
        ] {
            assert!(
                configuration(Some(&outcome), "cur_cfg").is_err(),
                "{outcome}"
            );
        }
    }
}

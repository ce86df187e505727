//! The error table and the core's codes are the same.

use serde::Deserialize;
use virtuallog_bindings::ErrorCode;

#[derive(Deserialize)]
struct Table {
    error: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    number: u32,
    name: String,
    retryable: bool,
    doc: String,
}

#[test]
fn the_table_is_the_cores() {
    let table: Table = toml::from_str(include_str!("../errors.toml")).expect("it is TOML");
    let rows: Vec<_> =
        table.error.iter().map(|row| (row.number, row.name.as_str(), row.retryable)).collect();
    let codes: Vec<_> =
        ErrorCode::ALL.iter().map(|code| (*code as u32, code.name(), code.retryable())).collect();
    assert_eq!(rows, codes);
    for row in &table.error {
        assert!(row.doc.ends_with('.'), "{}: a doc is whole sentences", row.name);
    }
}

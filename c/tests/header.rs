//! `include/virtuallog.h` is what the source says, and its errors are those of `bindings/errors.toml`.
//!
//! `VIRTUALLOG_HEADER=write cargo test -p virtuallog-c --test header` writes it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

/// In the order of the header: first what a reader needs first.
const SOURCES: &[&str] = &[
    "types",
    "error",
    "log",
    "append",
    "reader",
    "queue",
    "cluster",
    "local_cluster",
    "diagnostics",
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn generated() -> String {
    let preamble = std::fs::read_to_string(root().join("src/header.h")).expect("it is there");
    let version = format!("#define VLOG_VERSION \"{}\"", env!("CARGO_PKG_VERSION"));
    let config = cbindgen::Config {
        language: cbindgen::Language::C,
        header: Some(preamble),
        include_guard: Some("VIRTUALLOG_H".into()),
        no_includes: true,
        sys_includes: ["stdbool.h", "stddef.h", "stdint.h"].map(String::from).to_vec(),
        after_includes: Some(format!(
            "\n/** The version that this file belongs to: `vlog_version` is the library's. */\n{version}"
        )),
        cpp_compat: true,
        usize_is_size_t: true,
        style: cbindgen::Style::Type,
        documentation_style: cbindgen::DocumentationStyle::Doxy,
        line_length: 100,
        ..cbindgen::Config::default()
    };
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(root().join(format!("src/{source}.rs")));
    }
    let mut bytes = Vec::new();
    builder.generate().expect("the source can be read").write(&mut bytes);
    String::from_utf8(bytes).expect("it is text")
}

#[test]
fn the_header_is_what_the_source_says() {
    let path = root().join("include/virtuallog.h");
    let generated = generated();
    if std::env::var_os("VIRTUALLOG_HEADER").is_some() {
        std::fs::write(&path, &generated).expect("it can be written");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == generated,
        "{} is not what the source says: VIRTUALLOG_HEADER=write, and look at the difference",
        path.display()
    );
}

#[derive(Deserialize)]
struct Table {
    error: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    number: u32,
    name: String,
}

#[test]
fn every_error_of_the_table_has_its_status() {
    let table =
        std::fs::read_to_string(root().join("../bindings/errors.toml")).expect("it is there");
    let table: Table = toml::from_str(&table).expect("it is TOML");
    let header = generated();
    let statuses = header.split("typedef enum").nth(1).expect("the statuses are there");
    let statuses = statuses.split('}').next().expect("a split gives something");
    let told: Vec<&str> =
        statuses.lines().map(str::trim).filter(|line| line.starts_with("VLOG_")).collect();
    let rows = table.error.iter().map(|row| format!("VLOG_{} = {},", row.name, row.number));
    let wanted: Vec<String> = std::iter::once("VLOG_OK = 0,".into()).chain(rows).collect();
    assert_eq!(told, wanted);
}

#[test]
fn compilers_take_the_headers() {
    for (compiler, arguments, header) in [
        ("cc", "-x c -std=c99 -pedantic -Wall -Wextra -Werror", "virtuallog.h"),
        ("c++", "-x c++ -std=c++17 -pedantic -Wall -Wextra -Werror", "virtuallog.h"),
        ("c++", "-x c++ -std=c++17 -pedantic -Wall -Wextra -Werror", "virtuallog.hpp"),
    ] {
        let path = root().join("include").join(header);
        let run = std::process::Command::new(compiler)
            .args(arguments.split(' '))
            .args([Path::new("-fsyntax-only"), Path::new("-Wno-pragma-once-outside-header"), &path])
            .output()
            .expect("there is a compiler");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }
}

/// Functions and methods for users of the C++ header that have no comment above them, as `line: text`. Not
/// constructors, operators, iterators' own members, nor what is private or in `detail`.
fn without_comment(header: &str) -> Vec<String> {
    let lines: Vec<&str> = header.lines().collect();
    let (mut detail, mut private, mut inside) = (false, false, false);
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        match *line {
            "namespace detail {" => detail = true,
            "}  // namespace detail" => detail = false,
            " private:" => private = true,
            "};" => (private, inside) = (false, false),
            _ if line.starts_with("class ") || line.starts_with("struct ") => inside = true,
            _ => {}
        }
        let text = line.trim_start();
        let depth = line.len() - text.len();
        if detail || private || !(depth == 0 || inside && depth == 2) {
            continue;
        }
        let Some((head, _)) = text.split_once('(') else { continue };
        let not_ours = ["/", "*", "#", "explicit ", "template ", "using "];
        if !head.contains(' ')
            || head.contains("operator")
            || not_ours.iter().any(|not| text.starts_with(not))
        {
            continue;
        }
        let mut above =
            lines[..at].iter().rev().skip_while(|line| line.trim().starts_with("template "));
        if !above.next().is_some_and(|line| line.ends_with("*/")) {
            found.push(format!("{}: {text}", at + 1));
        }
    }
    found
}

#[test]
fn every_function_in_cpp_has_a_comment() {
    let header =
        std::fs::read_to_string(root().join("include/virtuallog.hpp")).expect("it is there");
    assert_eq!(without_comment(&header), Vec::<String>::new());
    // It sees what it is there to see.
    let bare = header.replace("  /** How many operations were not told yet. */\n", "");
    assert_eq!(without_comment(&bare).len(), 1, "{:?}", without_comment(&bare));
    let bare = header.replace("/** The library's version. The header's is VLOG_VERSION. */\n", "");
    assert_eq!(without_comment(&bare).len(), 1, "{:?}", without_comment(&bare));
}

//! Every language has every method, field and error: `api.toml` against each language's own source.
//!
//! The table in `README.md` is made of what is found. Source is read as text, in the few shapes that
//! `api.toml` names; whether what is found also works is for the scenarios.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

const BEGIN: &str = "<!-- begin of the table that bindings/tests/parity.rs makes -->\n";
const END: &str = "<!-- end of the table -->\n";

#[derive(Deserialize)]
struct Api {
    r#type: Vec<Type>,
    /// What only the facade has, with the reason.
    inner: BTreeMap<String, String>,
    language: Vec<Language>,
}

#[derive(Deserialize)]
struct Type {
    /// Empty: functions.
    name: String,
    #[serde(default)]
    methods: Vec<String>,
    #[serde(default)]
    fields: Vec<String>,
}

#[derive(Deserialize)]
struct Language {
    name: String,
    files: Vec<String>,
    #[serde(default)]
    r#type: Vec<String>,
    /// What stands behind a type that has fields alone, where its name is there.
    #[serde(default)]
    name_behind: String,
    #[serde(default)]
    end: String,
    /// The line from which on a type is nobody else's affair.
    #[serde(default)]
    private: String,
    #[serde(default)]
    method: Vec<String>,
    #[serde(default)]
    field: Vec<String>,
    function: Vec<String>,
    #[serde(default)]
    error: Vec<String>,
    #[serde(default)]
    without: Vec<String>,
    /// What types are called here, where that differs.
    #[serde(default)]
    types: BTreeMap<String, String>,
    #[serde(default)]
    other: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Errors {
    error: Vec<ErrorRow>,
}

#[derive(Deserialize)]
struct ErrorRow {
    number: u32,
    name: String,
}

/// Whether a language has something; `None` where it has it from another one.
type Row = (String, Vec<Option<bool>>);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text of files, one after the other; `*` stands for part of a name.
fn text(files: &[String]) -> String {
    let mut all = String::from("\n");
    for file in files {
        let path = root().join(file);
        let Some((before, after)) = file.rsplit('/').next().expect("a name").split_once('*') else {
            all += &read(&path);
            continue;
        };
        let folder = path.parent().expect("it is in a folder").read_dir().expect("it is there");
        let mut paths: Vec<_> = folder.map(|entry| entry.expect("it is listed").path()).collect();
        paths.sort();
        for path in paths {
            let name = path.file_name().expect("a name").to_string_lossy();
            if name.starts_with(before) && name.ends_with(after) {
                all += &read(&path);
            }
        }
    }
    all
}

fn camel(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |camel, word| camel + &word[..1].to_uppercase() + &word[1..])
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !snake.is_empty() {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

impl Language {
    /// Whether one of the patterns is there, filled in.
    fn finds(&self, text: &str, patterns: &[String], of: &str, name: &str, number: u32) -> bool {
        let key = if of.is_empty() { name.to_owned() } else { format!("{of}.{name}") };
        if let Some(other) = self.other.get(&key) {
            return text.contains(other.as_str());
        }
        let of = self.types.get(of).map_or(of, String::as_str);
        let fill = |pattern: &String| {
            let filled = pattern.replace("{type}", of).replace("{name}", name);
            let filled = filled.replace("{camel}", &camel(name)).replace("{snake}", &snake(of));
            filled.replace("{number}", &number.to_string())
        };
        patterns.iter().map(fill).any(|pattern| text.contains(&pattern))
    }

    /// The part of the text that is about a type; there may be several pieces.
    fn about(&self, text: &str, ty: &Type) -> String {
        let name = self.types.get(&ty.name).map_or(ty.name.as_str(), String::as_str);
        if ty.methods.is_empty() && !self.name_behind.is_empty() {
            let before = text.split_once(&self.name_behind.replace("{type}", name));
            let about = before.and_then(|(before, _)| before.rsplit(&self.end).next());
            return about.unwrap_or_default().to_owned();
        }
        if self.r#type.is_empty() {
            return text.to_owned();
        }
        let begins: Vec<_> =
            self.r#type.iter().map(|begin| begin.replace("{type}", name)).collect();
        let mut about = String::new();
        let mut inside = false;
        for line in text.lines() {
            // Not a longer name.
            let whole = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
            let begins =
                begins.iter().any(|begin| line.strip_prefix(begin.as_str()).is_some_and(whole));
            let hidden = !self.private.is_empty() && line == self.private;
            inside = begins || inside && !line.starts_with(&self.end) && !hidden;
            if inside {
                about.push_str(line);
                about.push('\n');
            }
        }
        about
    }
}

fn api() -> Api {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("api.toml");
    toml::from_str(&read(&path)).expect("it is well formed")
}

fn rows() -> (Vec<String>, Vec<Row>) {
    let api = api();
    let errors: Errors = toml::from_str(include_str!("../errors.toml")).expect("it is well formed");
    let texts: Vec<_> = api.language.iter().map(|language| text(&language.files)).collect();
    let languages = || api.language.iter().zip(&texts);
    let mut rows = Vec::new();
    for ty in &api.r#type {
        let parts: Vec<_> = languages().map(|(language, text)| language.about(text, ty)).collect();
        let names = ty.methods.iter().map(|name| (name, true));
        for (name, is_method) in names.chain(ty.fields.iter().map(|name| (name, false))) {
            let found = languages().zip(&parts).map(|((language, text), part)| {
                let has = |text, patterns| language.finds(text, patterns, &ty.name, name, 0);
                let without = |it: &str| language.without.iter().any(|without| without == it);
                match (ty.name.as_str(), is_method) {
                    (of, _) if without(of) || without(name) => None,
                    ("", _) => Some(has(text, &language.function)),
                    (_, true) => Some(has(part, &language.method)),
                    (_, false) => Some(has(part, &language.field)),
                }
            });
            let what =
                if ty.name.is_empty() { name.clone() } else { format!("{}.{name}", ty.name) };
            rows.push((what, found.collect()));
        }
    }
    for row in &errors.error {
        let found = languages().map(|(language, text)| {
            let without = language.without.iter().any(|without| without == "errors");
            (!without).then(|| language.finds(text, &language.error, "", &row.name, row.number))
        });
        rows.push((row.name.clone(), found.collect()));
    }
    (api.language.into_iter().map(|language| language.name).collect(), rows)
}

fn table(languages: &[String], rows: &[Row]) -> String {
    let mut table =
        format!("| | {} |\n|---|{}\n", languages.join(" | "), "---|".repeat(languages.len()));
    for (what, found) in rows {
        let marks: Vec<_> = found
            .iter()
            .map(|found| match found {
                Some(true) => "✓",
                Some(false) => "**lacks it**",
                None => "·",
            })
            .collect();
        writeln!(table, "| `{what}` | {} |", marks.join(" | ")).expect("a string takes all");
    }
    table
}

#[test]
fn no_language_lacks_anything() {
    let (languages, rows) = rows();
    let mut lacking = Vec::new();
    for (what, found) in &rows {
        assert!(found.contains(&Some(true)), "no language has `{what}`");
        for (language, found) in languages.iter().zip(found) {
            if *found == Some(false) {
                lacking.push(format!("{language} lacks `{what}`"));
            }
        }
    }
    assert!(lacking.is_empty(), "{}", lacking.join("\n"));
    assert!(rows.len() > 100 && languages.len() >= 3, "the list was read");
}

/// The other way round: what the facade offers is in the list, or is there for the skins alone.
#[test]
fn the_list_has_all_that_the_facade_has() {
    let api = api();
    let facade = api.language.iter().find(|language| language.name == "facade").expect("a row");
    let text = text(&facade.files);
    let functions = &api.r#type.iter().find(|ty| ty.name.is_empty()).expect("a row").methods;
    let mut unlisted = Vec::new();
    let mut inner: Vec<&str> = api.inner.keys().map(String::as_str).collect();
    for name in ["Log", "Reader", "Server", "LocalCluster"] {
        let ty = api.r#type.iter().find(|ty| ty.name == name).expect("a row");
        let part = facade.about(&text, ty);
        let mut count = 0;
        for method in part.lines().filter_map(|line| line.strip_prefix("    pub fn ")) {
            count += 1;
            let method = method.split(['(', '<']).next().expect("a name").to_owned();
            let full = format!("{name}.{method}");
            if api.inner.contains_key(&full) {
                assert!(!ty.methods.contains(&method), "`{full}` is in the list and `inner`");
                inner.retain(|one| *one != full);
            } else if !ty.methods.contains(&method) && !functions.contains(&method) {
                unlisted.push(full);
            }
        }
        assert!(count >= 3, "the methods of `{name}` were read");
    }
    assert!(unlisted.is_empty(), "neither a row of api.toml nor `inner`: {unlisted:?}");
    assert!(inner.is_empty(), "`inner`, and not there: {inner:?}");
    assert!(api.inner.values().all(|reason| !reason.is_empty()), "`inner` without a reason");
}

#[test]
fn the_readme_has_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = read(&path);
    let (before, rest) = readme.split_once(BEGIN).expect("the table begins");
    let (_, after) = rest.split_once(END).expect("the table ends");
    let (languages, rows) = rows();
    let wanted = format!("{before}{BEGIN}{}{END}{after}", table(&languages, &rows));
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &wanted).expect("it can be written");
    }
    assert!(
        readme == wanted,
        "bindings/README.md: UPDATE=1 cargo test -p virtuallog-bindings --test parity"
    );
}

#[test]
fn what_is_not_there_is_not_found() {
    let (_, rows) = rows();
    assert!(rows.iter().any(|(what, _)| what == "Log.append"));
    let language = Language {
        name: String::new(),
        files: Vec::new(),
        r#type: vec!["class {type}".into()],
        name_behind: "} {type};\n".into(),
        end: "class ".into(),
        private: " private:".into(),
        method: vec!["def {name}(".into()],
        field: Vec::new(),
        function: Vec::new(),
        error: Vec::new(),
        without: Vec::new(),
        types: BTreeMap::new(),
        other: BTreeMap::new(),
    };
    let text = "class Log:\n    def append(\n private:\n    def close(\nclass Logs:\n    def close(\nclass {\n  a;\n} Log;\n";
    let ty = |methods: &[&str]| Type {
        name: "Log".into(),
        methods: methods.iter().map(ToString::to_string).collect(),
        fields: Vec::new(),
    };
    assert_eq!(language.about(text, &ty(&[])), "{\n  a;\n");
    let part = language.about(text, &ty(&["append"]));
    assert!(language.finds(&part, &language.method, "Log", "append", 0));
    assert!(!language.finds(&part, &language.method, "Log", "close", 0));
    assert_eq!(
        (camel("append_many"), snake("LocalCluster")),
        ("appendMany".into(), "local_cluster".into())
    );
}

//! Where the servers' programs are that belong to this library.
//!
//! Every package carries `virtuallogd` and `virtuallog` beside the library, so that one installation is the
//! whole thing. A checkout has them in its target folder instead, and whoever knows better says so with
//! `VIRTUALLOG_BIN_DIR`. A program of another version is refused: it may know neither the bytes nor the
//! words of this one.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use virtuallog::ErrorCode;

use crate::error::{Error, Result};

/// Names the folder that the programs are in, before all other places.
pub const BIN_DIR_VARIABLE: &str = "VIRTUALLOG_BIN_DIR";

/// The path of the program `name`: in the folder that `VIRTUALLOG_BIN_DIR` names, or else in the first of
/// `packaged`, the folders that the package puts it in, or else in the target folder of the checkout that
/// the first of them lies in.
///
/// # Errors
/// `NOT_FOUND`, with the places where it may be put; `INCOMPATIBLE` when it is of another version.
pub fn find_program(name: &str, packaged: &[PathBuf]) -> Result<PathBuf> {
    let within = |folder: &Path| Some(folder.join(name)).filter(|path| path.is_file());
    let path = match std::env::var_os(BIN_DIR_VARIABLE).filter(|folder| !folder.is_empty()) {
        Some(folder) => within(Path::new(&folder)),
        None => packaged
            .iter()
            .find_map(|folder| within(folder))
            .or_else(|| built(name, packaged.first()?)),
    };
    let path = path.ok_or_else(|| {
        let packaged: Vec<_> = packaged.iter().map(|folder| format!("`{}`", folder.display())).collect();
        let packaged = packaged.join(", ");
        let message = format!(
            "there is no `{name}` in {packaged}: install the package, which has it, or build it with \
             `cargo build --release -p virtuallog-server`, or name its folder in `{BIN_DIR_VARIABLE}`"
        );
        Error::new(ErrorCode::NotFound, message)
    })?;
    check_version(&path, name)?;
    Ok(path)
}

/// The newest one that was built in the checkout around `folder`.
fn built(name: &str, folder: &Path) -> Option<PathBuf> {
    let checkout = folder.ancestors().find(|folder| folder.join("servers/Cargo.toml").is_file())?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or(checkout.join("target"), PathBuf::from);
    let built = ["dist", "release", "debug"].map(|profile| target.join(profile).join(name));
    let age = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).ok();
    built
        .into_iter()
        .filter(|path| path.is_file())
        .max_by_key(|path| age(path).unwrap_or(SystemTime::UNIX_EPOCH))
}

fn check_version(path: &Path, name: &str) -> Result<()> {
    let said = Command::new(path).arg("--version").output().map_err(|error| {
        let message =
            format!("cannot run `{}`: {error}; see that it may be executed", path.display());
        Error::new(ErrorCode::Unavailable, message)
    })?;
    let (ours, said) =
        (env!("CARGO_PKG_VERSION"), String::from_utf8_lossy(&said.stdout).into_owned());
    if said.trim() == format!("{name} {ours}") {
        return Ok(());
    }
    let (path, said) = (path.display(), said.trim());
    let message =
        format!("`{path}` is `{said}` and this library is {ours}: install both from one package");
    Err(Error::new(ErrorCode::Incompatible, message))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn script(folder: &Path, text: &str) {
        let path = folder.join("virtuallogd");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("it can be written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("it can be executed");
    }

    #[test]
    fn a_program_is_found_in_the_package_and_only_of_our_version() {
        let folder = tempfile::tempdir().expect("a directory");
        let places = [folder.path().join("nowhere"), folder.path().to_owned()];
        let find = || find_program("virtuallogd", &places);
        let missing = find().expect_err("none is there");
        assert_eq!(missing.code, ErrorCode::NotFound);
        assert!(missing.message.contains(BIN_DIR_VARIABLE), "{missing}");
        script(folder.path(), concat!("echo virtuallogd ", env!("CARGO_PKG_VERSION")));
        let found = find().expect("it is there");
        assert_eq!(found, folder.path().join("virtuallogd"));
        script(folder.path(), "echo virtuallogd 99.0.0");
        let other = find().expect_err("another version");
        assert_eq!(other.code, ErrorCode::Incompatible);
        assert!(other.message.contains("99.0.0"), "{other}");
    }
}

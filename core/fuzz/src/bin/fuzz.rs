//! libFuzzer over the target that the variable `FUZZ_TARGET` names. Built and run by `.ci/fuzz`.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use virtuallog_fuzz::{Target, target};

static TARGET: OnceLock<&Target> = OnceLock::new();

fn chosen() -> &'static Target {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| panic!("no target is called `{name}`"))
}

fuzz_target!(|input: &[u8]| TARGET.get_or_init(chosen).check(input));

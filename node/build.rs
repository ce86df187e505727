//! Asks the linker for what a Node.js addon needs: names that only the host has, where it has to be asked.

fn main() {
    napi_build::setup();
}

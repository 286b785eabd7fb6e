//! Asks the linker to keep together what runs in a start, and what hardly ever runs.
//!
//! The system maps the pages around each that is touched, and all of them count for the memory of a short run: of
//! eighteen megabytes of the program that were mapped in a start, five were of functions that ran.
//!
//! - `start.order` names the functions of a start. `cargo xtask start-order` writes it.
//! - Cold functions, of panics and errors, are put apart by the compiler; linkers that do not know the option leave it out.

use std::env;
use std::path::Path;

const ORDER: &str = "start.order";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={ORDER}");
    if !env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        return;
    }
    println!("cargo:rustc-link-arg-bins=-Wl,-z,keep-text-section-prefix");
    if is_lld() && env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        let folder = env::var("CARGO_MANIFEST_DIR").expect("cargo says where the package is");
        let order = Path::new(&folder).join(ORDER);
        println!("cargo:rustc-link-arg-bins=-Wl,--symbol-ordering-file={}", order.display());
        // Names carry hashes, so some are always of the day before.
        println!("cargo:rustc-link-arg-bins=-Wl,--no-warn-symbol-ordering");
    }
}

/// Whether the linker is the one that comes with the compiler, which alone knows how to order functions.
fn is_lld() -> bool {
    let has = |name: &str, value: &str| env::var(name).is_ok_and(|it| it == value);
    let is_default = has("CARGO_CFG_TARGET_ARCH", "x86_64") && has("CARGO_CFG_TARGET_ENV", "gnu");
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    is_default && env::var_os("RUSTC_LINKER").is_none() && !flags.contains("link")
}

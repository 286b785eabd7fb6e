//! Asks the linker to keep cold functions together.
//!
//! The system maps the pages around each that is touched, so code of panics and errors between hot functions counts for
//! the memory of a short run: a megabyte of it. Linkers that do not know the option leave it out.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,keep-text-section-prefix");
    }
}

//! Generates the messages, clients and servers from `proto/`, and the descriptors that reflection serves.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from("../../proto");
    println!("cargo:rerun-if-changed={}", root.join("nexa/v1").display());
    println!("cargo:rerun-if-changed={}", root.join("nexa/internal/v1").display());
    println!("cargo:rerun-if-env-changed=PROTOC");

    let mut files: Vec<PathBuf> = fs::read_dir(root.join("nexa/v1"))?
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "proto"))
        .collect();
    files.sort();

    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"));
    tonic_prost_build::configure()
        .file_descriptor_set_path(out.join("nexa.v1.bin"))
        .boxed(".nexa.v1.Failure.cause")
        .boxed(".nexa.v1.WatchFrame.frame.event")
        .compile_protos(&files, std::slice::from_ref(&root))
        .map_err(explained)?;
    // What nodes say to each other is passed on as it came: a body is a part of the buffer that it arrived in.
    tonic_prost_build::configure()
        .bytes(".")
        .compile_protos(&[root.join("nexa/internal/v1/link.proto")], &[root])
        .map_err(explained)
}

fn explained(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(
            io::ErrorKind::NotFound,
            "protoc is missing: run `cargo xtask setup`, or install `protobuf-compiler`, or point PROTOC to it",
        ),
        _ => error,
    }
}

//! Builds the BPF object and its skeleton, and binds include/abi.h to Rust.

use std::path::{Path, PathBuf};

/// scx_cargo watches the folder of main.bpf.c only; ours has rooms.
fn rerun_if_changed(dir: &Path) {
    println!("cargo:rerun-if-changed={}", dir.display());
    let entries = std::fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    for path in entries.map(|entry| entry.expect("folder entry").path()) {
        if path.is_dir() {
            rerun_if_changed(&path);
        } else {
            println!("cargo:rerun-if-changed={}", path.display());
        }
    }
}

fn main() {
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo"));
    for dir in ["bpf", "include"] {
        rerun_if_changed(&root.join(dir));
    }
    let include = root.join("include");
    // the policy for the host, for tests: linked and bound there only
    cc::Build::new()
        .file("bpf/core/host.c")
        .include(&include)
        .warnings_into_errors(true)
        .compile("proxy_core");
    let out = PathBuf::from(std::env::var("OUT_DIR").expect("set by cargo"));
    bindgen::Builder::default()
        .header("bpf/core/host.h")
        .clang_arg(format!("-I{}", include.display()))
        .allowlist_function("host_.*")
        .rust_edition(bindgen::RustEdition::Edition2024)
        .generate()
        .expect("bindings of bpf/core/host.h")
        .write_to_file(out.join("host.rs"))
        .expect("bindings of bpf/core/host.h");
    scx_cargo::BpfBuilder::new()
        .expect("clang 18 or newer is needed for BPF: set BPF_CLANG, or run scripts/setup")
        .add_include_path(include.to_str().expect("UTF-8 path"))
        .enable_intf("include/abi.h", "abi.rs")
        .enable_skel("bpf/main.bpf.c", "bpf")
        .build()
        .expect("BPF object");
}
